#include <algorithm>
#include <tuple>

#include "checked_text.hpp"

namespace lpu::node {

bool is_moved_here(const StreamOperand& operand, const Instruction& instruction, const LoopIndex& at) {
  for (std::size_t l = 0; l < 3; ++l) {
    if ((operand.held >> l & 1U) == 0) {
      continue;
    }
    const int kept = operand.kind == OperandKind::kOut ? instruction.count[l] - 1 : 0;
    if (at[l] != kept) {
      return false;
    }
  }
  return true;
}

std::int32_t queue_of(const Instruction& instruction, std::int64_t unit, const ChipSpec& chip) {
  const auto hemisphere = static_cast<std::int32_t>(instruction.hemisphere);
  const auto number = static_cast<std::int32_t>(unit);
  std::int32_t first = 0;
  const std::int32_t slices = chip.slices_per_hemisphere;
  const std::int32_t planes = chip.mxm_planes_per_hemisphere;
  switch (info(instruction.opcode).unit) {
    case Unit::kMem:
      return hemisphere * slices + number;
    case Unit::kMxm: {
      first = 2 * slices;
      const std::int32_t port =
          static_cast<std::int32_t>(instruction.opcode) - static_cast<std::int32_t>(Opcode::kInstall);
      return first + (hemisphere * planes + number) * 3 + port;
    }
    case Unit::kVxm:
      first = 2 * slices + 6 * planes;
      return first + instruction.index;
    case Unit::kSxm: {
      first = 2 * slices + 6 * planes + chip.vxm_alus;
      const bool moves_lanes = instruction.opcode == Opcode::kRotate || instruction.opcode == Opcode::kReduceStep;
      return first + hemisphere * 3 + (instruction.opcode == Opcode::kTranspose ? 0 : moves_lanes ? 1 : 2);
    }
    case Unit::kC2c:
      first = 2 * slices + 6 * planes + chip.vxm_alus + 6;
      return first + 2 * number + (instruction.opcode == Opcode::kSend ? 0 : 1);
  }
  return first;
}

bool is_before(const InstanceEvent& a, const InstanceEvent& b) {
  return std::tie(a.cycle, a.kind, a.instruction, a.at) < std::tie(b.cycle, b.kind, b.instruction, b.at);
}

InstanceKind kind_of(Opcode opcode) {
  switch (info(opcode).unit) {
    case Unit::kMem:
      return opcode == Opcode::kRead ? InstanceKind::kSource : InstanceKind::kWrite;
    case Unit::kMxm:
      return opcode == Opcode::kDrain     ? InstanceKind::kDrain
             : opcode == Opcode::kCompute ? InstanceKind::kCompute
                                          : InstanceKind::kOperate;
    case Unit::kVxm:
    case Unit::kSxm:
      return InstanceKind::kOperate;
    case Unit::kC2c:
      return opcode == Opcode::kReceive ? InstanceKind::kSource : InstanceKind::kOperate;
  }
  return InstanceKind::kOperate;
}

void place_burst(const ChipProgram& text,
                 std::int32_t instruction,
                 std::int32_t displaced_slices,
                 const ChipSpec& chip,
                 std::vector<InstanceEvent>& events) {
  const Instruction& burst = text.instructions[static_cast<std::size_t>(instruction)];
  const InstanceKind kind = kind_of(burst.opcode);
  std::vector<std::pair<std::int32_t, std::int32_t>> first_on_queue;  // queue, cycle
  for_each_instance(burst, [&](const LoopIndex& at) {
    const std::int64_t unit = unit_of(burst, at) + displaced_slices;
    const auto cycle = static_cast<std::int32_t>(issue_cycle(burst, at, unit, chip));
    events.push_back({.cycle = cycle, .instruction = instruction, .at = at, .kind = kind});
    const std::int32_t queue = queue_of(burst, unit, chip);
    const auto known =
        std::find_if(first_on_queue.begin(), first_on_queue.end(), [&](const auto& q) { return q.first == queue; });
    if (known == first_on_queue.end()) {
      first_on_queue.emplace_back(queue, cycle);
    } else {
      known->second = std::min(known->second, cycle);
    }
  });
  for (const auto& [queue, cycle] : first_on_queue) {
    events.push_back({.cycle = cycle, .instruction = instruction, .kind = InstanceKind::kDispatch, .queue = queue});
  }
}

}  // namespace lpu::node
