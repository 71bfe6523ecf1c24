#include "lpu/node/expand.hpp"

#include <algorithm>
#include <cstdlib>
#include <tuple>

#include "lpu/node/error.hpp"
#include "lpu/node/iteration.hpp"

namespace lpu::node {
namespace {

using Loops = std::array<std::int32_t, 3>;

/// Where one instance issues, one of its displacements applied.
struct Issue {
  std::int64_t cycle = 0;
  std::int32_t unit = 0;
  std::int32_t address = 0;
};

std::int32_t unit_number(const Instruction& instruction, const Loops& at) {
  std::int32_t unit = instruction.index;
  for (std::size_t l = 0; l < 3; ++l) {
    unit += at[l] * instruction.index_stride[l];
  }
  return unit;
}

std::int64_t base_cycle(const Instruction& instruction, const Loops& at) {
  std::int64_t cycle = instruction.start;
  for (std::size_t l = 0; l < 3; ++l) {
    cycle += std::int64_t{at[l]} * instruction.period[l];
  }
  return cycle;
}

const StreamOperand& memory_operand(const Instruction& instruction) {
  return *std::find_if(instruction.operands.begin(), instruction.operands.end(), [](const StreamOperand& operand) {
    return operand.kind == OperandKind::kIn || operand.kind == OperandKind::kOut;
  });
}

Issue issue(const Instruction& instruction, const Loops& at, const Displacement& displacement, const ChipSpec& chip) {
  Issue out{.cycle = base_cycle(instruction, at), .unit = unit_number(instruction, at), .address = instruction.address};
  for (std::size_t l = 0; l < 3; ++l) {
    out.address += at[l] * instruction.address_stride[l];
  }
  if (info(instruction.opcode).unit == Unit::kMem) {
    out.unit += displacement.slice;
    out.address += displacement.address;
    const std::int32_t downstream = chip.slice_position(out.unit) - chip.slice_position(instruction.index);
    out.cycle += memory_operand(instruction).direction == Direction::kOutward ? downstream : -downstream;
  }
  return out;
}

bool is_taken_here(const StreamOperand& operand, const Instruction& instruction, const Loops& at) {
  for (std::size_t l = 0; l < 3; ++l) {
    if ((operand.held >> l & 1U) == 0) {
      continue;
    }
    const std::int32_t wanted = operand.kind == OperandKind::kOut ? instruction.count[l] - 1 : 0;
    if (at[l] != wanted) {
      return false;
    }
  }
  return true;
}

std::int32_t sxm_queue(Opcode opcode) {
  if (opcode == Opcode::kTranspose) {
    return 0;
  }
  return opcode == Opcode::kRotate || opcode == Opcode::kReduceStep ? 1 : 2;
}

/// Kind and number of the queue that an instance comes from.
std::pair<std::int32_t, std::int32_t> queue_of(const Instruction& instruction,
                                               std::int32_t unit,
                                               const ChipSpec& chip) {
  const auto hemisphere = static_cast<std::int32_t>(instruction.hemisphere);
  const auto opcode = static_cast<std::int32_t>(instruction.opcode);
  switch (info(instruction.opcode).unit) {
    case Unit::kMem:
      return {0, hemisphere * chip.slices_per_hemisphere + unit};
    case Unit::kMxm:
      return {1, (hemisphere * chip.mxm_planes_per_hemisphere + unit) * 64 + opcode};
    case Unit::kVxm:
      return {2, instruction.index};
    case Unit::kSxm:
      return {3, hemisphere * 3 + sxm_queue(instruction.opcode)};
    case Unit::kC2c:
      return {4, unit * 64 + opcode};
  }
  return {};
}

class Expander {
 public:
  Expander(const ChipProgram& text, const ChipSpec& chip, std::int32_t context)
      : text_(text), chip_(chip), context_(context) {}

  std::vector<Cell> run() {
    for (std::size_t i = 0; i < text_.instructions.size(); ++i) {
      burst(text_.instructions[i], static_cast<std::int32_t>(i));
    }
    return std::move(cells_);
  }

 private:
  void burst(const Instruction& instruction, std::int32_t number) {
    instruction_ = number;
    std::vector<Displacement> displacements = all_displacements(text_.registers[instruction.base_register], context_);
    if (displacements.empty() || info(instruction.opcode).unit != Unit::kMem) {
      displacements.assign(1, Displacement{});
    }
    // Equal places give equal cells.
    const auto place = [&](const Displacement& d) {
      return std::pair{d.slice, (d.address % chip_.banks_per_slice + chip_.banks_per_slice) % chip_.banks_per_slice};
    };
    std::sort(
        displacements.begin(), displacements.end(), [&](const auto& a, const auto& b) { return place(a) < place(b); });
    displacements.erase(std::unique(displacements.begin(),
                                    displacements.end(),
                                    [&](const auto& a, const auto& b) { return place(a) == place(b); }),
                        displacements.end());
    instance_ = -1;
    std::vector<Cell> own;
    put(own,
        {ResourceKind::kFetch, 0, 0},
        instruction.start,
        static_cast<std::int32_t>(text_size(instruction, chip_).count()));
    for (const Displacement& displacement : displacements) {
      dispatch(own, instruction, displacement);
    }
    keep(own);
    std::int32_t instance = 0;
    for (std::int32_t i0 = 0; i0 < instruction.count[0]; ++i0) {
      for (std::int32_t i1 = 0; i1 < instruction.count[1]; ++i1) {
        for (std::int32_t i2 = 0; i2 < instruction.count[2]; ++i2) {
          instance_ = instance++;
          own.clear();
          for (const Displacement& displacement : displacements) {
            unit_cells(own, instruction, {i0, i1, i2}, displacement);
            stream_cells(own, instruction, {i0, i1, i2}, displacement);
          }
          keep(own);
        }
      }
    }
  }

  /// A burst starts on every queue that it issues from, in the cycle of its first instance there.
  void dispatch(std::vector<Cell>& own, const Instruction& instruction, const Displacement& displacement) {
    std::vector<std::tuple<std::int32_t, std::int32_t, std::int64_t>> firsts;
    for (std::int32_t i0 = 0; i0 < instruction.count[0]; ++i0) {
      for (std::int32_t i1 = 0; i1 < instruction.count[1]; ++i1) {
        for (std::int32_t i2 = 0; i2 < instruction.count[2]; ++i2) {
          const Issue at = issue(instruction, {i0, i1, i2}, displacement, chip_);
          const auto [kind, number] = queue_of(instruction, at.unit, chip_);
          firsts.emplace_back(kind, number, at.cycle);
        }
      }
    }
    std::sort(firsts.begin(), firsts.end());
    for (std::size_t i = 0; i < firsts.size(); ++i) {
      const auto& [kind, number, cycle] = firsts[i];
      if (i == 0 || std::get<0>(firsts[i - 1]) != kind || std::get<1>(firsts[i - 1]) != number) {
        put(own, {ResourceKind::kQueue, kind, number}, cycle, 1);
      }
    }
  }

  void unit_cells(std::vector<Cell>& own,
                  const Instruction& instruction,
                  const Loops& loops,
                  const Displacement& displacement) {
    const Issue at = issue(instruction, loops, displacement, chip_);
    const auto hemisphere = static_cast<std::int32_t>(instruction.hemisphere);
    const std::int32_t slice = hemisphere * chip_.slices_per_hemisphere + at.unit;
    const std::int32_t plane = hemisphere * chip_.mxm_planes_per_hemisphere + at.unit;
    switch (info(instruction.opcode).unit) {
      case Unit::kMem: {
        const std::int32_t banks = chip_.banks_per_slice;
        put(own,
            {instruction.opcode == Opcode::kRead ? ResourceKind::kReadPort : ResourceKind::kWritePort, slice, 0},
            at.cycle,
            1);
        put(own, {ResourceKind::kBank, slice, (at.address % banks + banks) % banks}, at.cycle, 1);
        return;
      }
      case Unit::kMxm: {
        const ResourceKind kind = instruction.opcode == Opcode::kInstall   ? ResourceKind::kInstall
                                  : instruction.opcode == Opcode::kCompute ? ResourceKind::kCompute
                                                                           : ResourceKind::kDrain;
        put(own, {kind, plane, 0}, at.cycle, 1);
        return;
      }
      case Unit::kVxm:
        for (std::int32_t alu = 0; alu < instruction.alus; ++alu) {
          put(own, {ResourceKind::kAlu, instruction.index + alu, 0}, at.cycle, 1);
        }
        return;
      case Unit::kSxm: {
        put(own, {ResourceKind::kSxm, hemisphere, 0}, at.cycle, 1);
        std::int32_t inputs = 0;
        std::int32_t outputs = 0;
        for (const StreamOperand& operand : instruction.operands) {
          inputs += operand.kind == OperandKind::kIn ? operand.streams : 0;
          outputs += operand.kind == OperandKind::kOut ? operand.streams : 0;
        }
        put(own, {ResourceKind::kSxmInputs, hemisphere, 0}, at.cycle, inputs);
        put(own, {ResourceKind::kSxmOutputs, hemisphere, 0}, at.cycle, outputs);
        return;
      }
      case Unit::kC2c:
        put(own,
            {instruction.opcode == Opcode::kSend ? ResourceKind::kLinkPush : ResourceKind::kLinkTake, at.unit, 0},
            at.cycle,
            1);
        return;
    }
  }

  void stream_cells(std::vector<Cell>& own,
                    const Instruction& instruction,
                    const Loops& loops,
                    const Displacement& displacement) {
    const Issue at = issue(instruction, loops, displacement, chip_);
    const std::int32_t position =
        info(instruction.opcode).unit == Unit::kMem ? chip_.slice_position(at.unit) : unit_position(instruction, chip_);
    for (const StreamOperand& operand : instruction.operands) {
      if (operand.kind != OperandKind::kOut || !is_taken_here(operand, instruction, loops)) {
        continue;
      }
      const std::int32_t step = operand.direction == Direction::kOutward ? 1 : -1;
      const std::int32_t distance = (operand.reach - position) * step;
      const std::int32_t stream = operand.stream + loops[2] * operand.stream_stride;
      for (std::int32_t j = 0; j < operand.streams; ++j) {
        const std::int32_t lane =
            (static_cast<std::int32_t>(operand.hemisphere) * 2 + static_cast<std::int32_t>(operand.direction)) *
                chip_.streams_per_direction +
            stream + j;
        for (std::int32_t hop = 0; hop <= distance; ++hop) {
          put(own,
              {ResourceKind::kStreamRegister, lane, position + hop * step},
              at.cycle + latency(instruction.opcode, chip_).count() + hop,
              1);
        }
      }
    }
  }

  void put(std::vector<Cell>& own, Resource resource, std::int64_t cycle, std::int32_t amount) const {
    own.push_back({resource, amount, cycle, instruction_, instance_});
  }

  /// Keep the cells of one instance; what two of its displacements share counts once.
  void keep(std::vector<Cell>& own) {
    std::vector<Cell> unique = own;
    const auto key = [](const Cell& cell) { return std::tuple{cell.resource, cell.cycle}; };
    std::stable_sort(unique.begin(), unique.end(), [&](const Cell& a, const Cell& b) { return key(a) < key(b); });
    if (is_displaced()) {
      unique.erase(
          std::unique(unique.begin(), unique.end(), [&](const Cell& a, const Cell& b) { return key(a) == key(b); }),
          unique.end());
    }
    cells_.insert(cells_.end(), unique.begin(), unique.end());
  }

  bool is_displaced() const {
    const Instruction& instruction = text_.instructions[static_cast<std::size_t>(instruction_)];
    return instruction.base_register != 0 && info(instruction.opcode).unit == Unit::kMem;
  }

  const ChipProgram& text_;
  const ChipSpec& chip_;
  std::int32_t context_;
  std::int32_t instruction_ = 0;
  std::int32_t instance_ = 0;
  std::vector<Cell> cells_;
};

}  // namespace

std::vector<Cell> expand(const ChipProgram& text, const ChipSpec& chip, std::int32_t context) {
  return Expander(text, chip, context).run();
}

std::int64_t capacity(ResourceKind kind, const ChipSpec& chip) {
  switch (kind) {
    case ResourceKind::kSxmInputs:
    case ResourceKind::kSxmOutputs:
      return chip.sxm_streams_per_cycle;
    case ResourceKind::kFetch:
      return chip.fetch_bytes_per_cycle;
    case ResourceKind::kReadPort:
    case ResourceKind::kWritePort:
    case ResourceKind::kBank:
    case ResourceKind::kStreamRegister:
    case ResourceKind::kInstall:
    case ResourceKind::kCompute:
    case ResourceKind::kDrain:
    case ResourceKind::kAlu:
    case ResourceKind::kSxm:
    case ResourceKind::kLinkPush:
    case ResourceKind::kLinkTake:
    case ResourceKind::kQueue:
      return 1;
  }
  return 1;
}

std::optional<Collision> find_collision(std::span<const Cell> cells, std::int64_t interval, const ChipSpec& chip) {
  // Resource and folded cycle in one word, so that millions of cells are sorted in seconds.
  std::vector<std::pair<std::uint64_t, std::uint32_t>> order;
  order.reserve(cells.size());
  for (const Cell& cell : cells) {
    const auto unit = static_cast<std::uint64_t>(cell.resource.unit);
    const auto part = static_cast<std::uint64_t>(cell.resource.part);
    const auto folded = static_cast<std::uint64_t>((cell.cycle % interval + interval) % interval);
    LPU_CHECK(unit < 4096 && part < 4096 && folded < (std::uint64_t{1} << 36U), "a cell's number");
    order.emplace_back(static_cast<std::uint64_t>(cell.resource.kind) << 60U | unit << 48U | part << 36U | folded,
                       static_cast<std::uint32_t>(order.size()));
  }
  std::sort(order.begin(), order.end());
  for (std::size_t begin = 0; begin < order.size();) {
    std::int64_t used = 0;
    std::size_t end = begin;
    for (; end < order.size() && order[end].first == order[begin].first; ++end) {
      const Cell& cell = cells[order[end].second];
      used += cell.amount;
      if (used > capacity(cell.resource.kind, chip)) {
        return Collision{cells[order[begin].second], cell};
      }
    }
    begin = end;
  }
  return std::nullopt;
}

}  // namespace lpu::node
