#include "verify_shape.hpp"

#include <algorithm>
#include <cstdlib>

#include "verify_burst.hpp"

namespace lpu::scheduler::proof {
namespace {

using node::Opcode;
using node::OperandKind;
using node::Unit;

void limit(const std::string& field, std::int64_t found, std::int64_t most) {
  if (found > most) {
    throw node::InputError(field + ": found " + std::to_string(found) + "; expected at most " + std::to_string(most));
  }
}

/// What is wrong with an instruction's operands; empty: nothing.
class Shape {
 public:
  Shape(const Instruction& instruction, const ChipSpec& chip) : in_(instruction), chip_(chip) {}

  std::string fault() const {
    if (in_.start < 0) {
      return "starts in cycle " + std::to_string(in_.start) + ", before its iteration";
    }
    for (std::size_t l = 0; l < 2; ++l) {
      if (in_.count[l] > 1 && in_.period[l] == 0) {
        return "loop " + std::to_string(l) + " has period 0; only loop 2 may";
      }
    }
    switch (node::info(in_.opcode).unit) {
      case Unit::kMem:
        return in_.opcode == Opcode::kRead ? single(OperandKind::kOut) : single(OperandKind::kIn);
      case Unit::kC2c:
        return in_.opcode == Opcode::kReceive ? receive() : link(OperandKind::kIn);
      case Unit::kMxm:
        return mxm();
      case Unit::kVxm:
        return in_.alus == 0 ? "takes no ALU" : chain(kEither);
      case Unit::kSxm:
        return chain(static_cast<std::int32_t>(in_.hemisphere));
    }
    return {};
  }

 private:
  static constexpr std::int32_t kEither = -1;

  [[nodiscard]] bool are_none(std::size_t from) const {
    return std::all_of(in_.operands.begin() + static_cast<std::ptrdiff_t>(from),
                       in_.operands.end(),
                       [](const StreamOperand& o) { return o.kind == OperandKind::kNone; });
  }

  /// One operand of one stream in the unit's hemisphere.
  [[nodiscard]] std::string single(OperandKind kind) const {
    const StreamOperand& operand = in_.operands[0];
    if (operand.kind != kind || !are_none(1)) {
      return std::string("must have one operand: ") + (kind == OperandKind::kOut ? "an output" : "an input");
    }
    if (operand.streams != 1 || operand.held != 0) {
      return "moves one vector an instance: operand of " + std::to_string(operand.streams) + " streams" +
             (operand.held != 0 ? ", held" : "");
    }
    return is_reached(operand, static_cast<std::int32_t>(in_.hemisphere)) ? "" : out_of_reach(operand);
  }

  [[nodiscard]] std::string link(OperandKind kind) const {
    for (std::int32_t i0 = 0; i0 < in_.count[0]; ++i0) {
      for (std::int32_t i1 = 0; i1 < in_.count[1] && (i1 == 0 || in_.index_stride[1] != 0); ++i1) {
        for (std::int32_t i2 = 0; i2 < in_.count[2] && (i2 == 0 || in_.index_stride[2] != 0); ++i2) {
          const std::int32_t number =
              in_.index + i0 * in_.index_stride[0] + i1 * in_.index_stride[1] + i2 * in_.index_stride[2];
          if (chip_.link_hemisphere[static_cast<std::size_t>(number)] != in_.operands[0].hemisphere) {
            return "link " + std::to_string(number) + " stands in the " +
                   name_of(chip_.link_hemisphere[static_cast<std::size_t>(number)]) + ", its stream in the " +
                   name_of(in_.operands[0].hemisphere);
          }
        }
      }
      if (in_.index_stride[0] == 0) {
        break;
      }
    }
    const StreamOperand& operand = in_.operands[0];
    if (operand.kind != kind || !are_none(1) || operand.streams != 1 || operand.held != 0) {
      return "moves one vector an instance, by one operand";
    }
    return {};
  }

  [[nodiscard]] std::string receive() const {
    if (in_.argument < 0) {
      return "takes its vector " + std::to_string(-std::int64_t{in_.argument}) +
             " cycles before it arrives (argument " + std::to_string(in_.argument) + ")";
    }
    return link(OperandKind::kOut);
  }

  [[nodiscard]] std::string mxm() const {
    const bool is_drain = in_.opcode == Opcode::kDrain;
    const StreamOperand& first = in_.operands[0];
    if (first.kind != (is_drain ? OperandKind::kOut : OperandKind::kIn) || !are_none(is_drain ? 1 : 2) ||
        (!is_drain && in_.operands[1].kind != OperandKind::kResident)) {
      return is_drain ? "must have one operand: an output" : "must have an input and the tile that it names";
    }
    if (in_.opcode == Opcode::kInstall && (first.streams > chip_.mxm_install_columns_per_cycle || first.held != 0)) {
      return "installs " + std::to_string(first.streams) + " columns a cycle; at most " +
             std::to_string(chip_.mxm_install_columns_per_cycle) + ", none held";
    }
    return is_reached(first, static_cast<std::int32_t>(in_.hemisphere)) ? "" : out_of_reach(first);
  }

  [[nodiscard]] std::string chain(std::int32_t hemisphere) const {
    for (const StreamOperand& operand : in_.operands) {
      if (operand.kind == OperandKind::kResident) {
        return "names a tile; only the MXM holds any";
      }
      if (operand.kind != OperandKind::kNone && !is_reached(operand, hemisphere)) {
        return out_of_reach(operand);
      }
    }
    return {};
  }

  [[nodiscard]] static bool is_reached(const StreamOperand& operand, std::int32_t hemisphere) {
    return hemisphere == kEither || hemisphere == static_cast<std::int32_t>(operand.hemisphere);
  }
  [[nodiscard]] std::string out_of_reach(const StreamOperand& operand) const {
    return "stands in the " + name_of(in_.hemisphere) + ", its stream in the " + name_of(operand.hemisphere);
  }

  const Instruction& in_;
  const ChipSpec& chip_;
};

/// An output is kept from its unit to somewhere downstream.
std::string reach_fault(const TextFacts& facts, const Instruction& instruction) {
  for (const StreamOperand& operand : instruction.operands) {
    if (operand.kind != OperandKind::kOut) {
      continue;
    }
    std::int32_t from = node::unit_position(instruction, facts.chip);
    if (node::info(instruction.opcode).unit == Unit::kMem) {
      for (std::size_t l = 0; l < 3; ++l) {  // the slice farthest downstream
        const std::int32_t last = instruction.index + (instruction.count[l] - 1) * instruction.index_stride[l];
        const std::int32_t position =
            last >= 0 && last < facts.chip.slices_per_hemisphere ? facts.chip.slice_position(last) : from;
        from = operand.direction == node::Direction::kOutward ? std::max(from, position) : std::min(from, position);
      }
    }
    const bool is_outward = operand.direction == node::Direction::kOutward;
    if (is_outward ? operand.reach < from : operand.reach > from) {
      return "keeps its output to register " + std::to_string(operand.reach) + ", which lies upstream of register " +
             std::to_string(from);
    }
    if (operand.reach > facts.chip.mxm_position) {
      return "keeps its output to register " + std::to_string(operand.reach) + "; the last is " +
             std::to_string(facts.chip.mxm_position);
    }
  }
  return {};
}

struct Occupied {
  std::int64_t first = 0;
  std::int64_t end = 0;
};

Occupied occupied(const TextFacts& facts, const Instruction& instruction) {
  std::int64_t last = instruction.start;
  for (std::size_t l = 0; l < 3; ++l) {
    last += std::int64_t{instruction.count[l] - 1} * instruction.period[l];
  }
  Occupied out{.first = instruction.start, .end = last + 1};
  if (node::info(instruction.opcode).unit == Unit::kMem) {
    Burst burst = make_burst(instruction, nullptr);
    for (Axis& axis : burst.axes) {
      axis = axis.index == 0 ? Axis{} : axis;
    }
    const std::int64_t rest = last - burst.first.cycle;
    for_each_run(burst, [&](const Run& run) {
      for (const PlaceShift& shift : facts.base(instruction).places) {
        if (const std::int32_t slice = run.index + shift.slice;
            slice >= 0 && slice < facts.chip.slices_per_hemisphere) {
          const std::int64_t cycle = slice_cycle(instruction, facts.chip, run.cycle, slice);
          out.first = std::min(out.first, cycle);
          out.end = std::max(out.end, std::min(cycle + rest, slice_cycle(instruction, facts.chip, last, slice)) + 1);
        }
      }
    });
  }
  const std::int32_t unit = node::unit_position(instruction, facts.chip);
  for (const StreamOperand& operand : instruction.operands) {
    if (operand.kind == OperandKind::kOut) {
      out.end = std::max(
          out.end, last + node::latency(instruction.opcode, facts.chip).count() + std::abs(operand.reach - unit) + 1);
    }
  }
  return out;
}

}  // namespace

void check_limits(const ClusterProgram& program) {
  const ChipSpec& chip = program.chip;
  limit("chip.mxm_position", chip.mxm_position, 31);
  limit("chip.sxm_position", chip.sxm_position, 31);
  limit("chip.vxm_position", chip.vxm_position, 31);
  limit("chip.vxm_alus", chip.vxm_alus, 32);
  limit("chip.banks_per_slice", chip.banks_per_slice, 16);
  limit("chip.slices_per_hemisphere / slices_per_position", chip.slice_position(chip.slices_per_hemisphere - 1), 31);
  for (std::size_t t = 0; t < program.texts.size(); ++t) {
    const auto& instructions = program.texts[t].instructions;
    for (std::size_t i = 0; i < instructions.size(); ++i) {
      std::int64_t last = instructions[i].start;
      std::int64_t address = instructions[i].address;
      for (std::size_t l = 0; l < 3; ++l) {
        last += std::int64_t{instructions[i].count[l] - 1} * instructions[i].period[l];
        address += std::int64_t{instructions[i].count[l] - 1} * std::abs(instructions[i].address_stride[l]);
      }
      const auto check = [&](const char* field, std::int64_t found, std::int64_t most) {
        if (found > most) {
          limit("text " + std::to_string(t) + ": instruction " + std::to_string(i) + ": " + field, found, most);
        }
      };
      check("last cycle", last, std::int64_t{1} << 26U);
      check("address", address, std::int64_t{1} << 30U);
      check("instances", node::instances(instructions[i]), std::int64_t{1} << 24U);
    }
  }
}

bool prove_shapes(const TextFacts& facts, Findings& findings) {
  bool is_fine = true;
  for (std::size_t i = 0; i < facts.text.instructions.size(); ++i) {
    const Instruction& instruction = facts.text.instructions[i];
    std::string fault = Shape(instruction, facts.chip).fault();
    if (fault.empty()) {
      fault = reach_fault(facts, instruction);
    }
    if (!fault.empty()) {
      findings.add(std::max(instruction.start, 0),
                   static_cast<std::int32_t>(i),
                   std::string(node::info(instruction.opcode).name) + " " + fault);
      is_fine = false;
    }
  }
  return is_fine;
}

std::int64_t prove_makespan(const TextFacts& facts, Findings& findings) {
  std::int64_t end = 0;
  std::int32_t last = -1;
  for (std::size_t i = 0; i < facts.text.instructions.size(); ++i) {
    const Occupied span = occupied(facts, facts.text.instructions[i]);
    if (span.first < 0) {
      findings.add(0,
                   static_cast<std::int32_t>(i),
                   "issues " + std::to_string(-span.first) + " cycles before its iteration starts");
    }
    if (span.end > end) {
      end = span.end;
      last = static_cast<std::int32_t>(i);
    }
  }
  if (end > facts.text.makespan) {
    findings.add(end - 1,
                 last,
                 "is still at work in cycle " + std::to_string(end - 1) + "; the text's makespan is " +
                     std::to_string(facts.text.makespan));
  }
  return end;
}

}  // namespace lpu::scheduler::proof
