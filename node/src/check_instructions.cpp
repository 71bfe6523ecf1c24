#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "checked_text.hpp"

namespace lpu::node {
namespace {

/// What one instruction may be, whatever the others are.
class InstructionChecker {
 public:
  InstructionChecker(const ChipProgram& text, const ChipSpec& chip, std::int32_t chip_id)
      : text_(text), chip_(chip), chip_id_(chip_id) {}

  void run() {
    for (std::size_t i = 0; i < text_.instructions.size(); ++i) {
      at_ = static_cast<std::int32_t>(i);
      check_instruction(text_.instructions[i]);
    }
  }

 private:
  [[noreturn]] void fail(std::int64_t cycle, const std::string& reason) const {
    throw ScheduleViolation({.chip = chip_id_, .cycle = cycle, .instruction = at_, .reason = reason});
  }
  [[nodiscard]] const Tensor& tensor(std::uint16_t at) const { return text_.tensors[at]; }

  /// Reads, writes, sends and receives move one vector an instance, and keep none over a loop.
  void check_shape(const Instruction& instruction) const {
    const Unit unit = info(instruction.opcode).unit;
    const StreamOperand& moved = instruction.operands[0];
    if (unit == Unit::kMem || unit == Unit::kC2c) {
      const bool gives = instruction.opcode == Opcode::kRead || instruction.opcode == Opcode::kReceive;
      const bool is_alone =
          std::all_of(instruction.operands.begin() + 1, instruction.operands.end(), [](const StreamOperand& operand) {
            return operand.kind == OperandKind::kNone;
          });
      if (!is_alone || moved.kind != (gives ? OperandKind::kOut : OperandKind::kIn) || moved.streams != 1 ||
          moved.held != 0) {
        fail(instruction.start, "moves something else than one vector an instance");
      }
    }
    if (instruction.opcode == Opcode::kInstall) {
      const bool overlaps = instruction.count[1] > 1 && std::abs(moved.row_stride[1]) < moved.streams;
      if (moved.held != 0 || overlaps || instruction.index_stride[1] != 0 ||
          instruction.operands[1].row_stride[1] != 0) {
        fail(instruction.start, "installs column groups (loop 1) that are not other rows of one tile of one plane");
      }
    }
  }

  void check_instruction(const Instruction& instruction) const {
    const StreamOperand& moved = instruction.operands[0];
    check_shape(instruction);
    switch (info(instruction.opcode).unit) {
      case Unit::kMem:
        if (instruction.opcode == Opcode::kWrite && tensor(moved.tensor).scope == TensorScope::kStatic) {
          fail(instruction.start, "writes '" + tensor(moved.tensor).name + "', which is static");
        }
        break;
      case Unit::kMxm:
        check_matrix(instruction);
        break;
      case Unit::kVxm:
        if (instruction.alus == 0) {
          fail(instruction.start, "takes no ALU");
        }
        if (instruction.index + instruction.alus > chip_.vxm_alus) {
          fail(instruction.start,
               "takes ALUs " + std::to_string(instruction.index) + " to " +
                   std::to_string(instruction.index + instruction.alus - 1) + " of " + std::to_string(chip_.vxm_alus));
        }
        break;
      case Unit::kSxm:
        check_crossbar(instruction);
        break;
      case Unit::kC2c:
        break;
    }
    for (const StreamOperand& operand : instruction.operands) {
      if (operand.kind == OperandKind::kIn || operand.kind == OperandKind::kOut) {
        check_hemisphere(instruction, operand);
      }
      if (operand.kind == OperandKind::kOut) {
        check_reach(instruction, operand);
        check_sources(instruction, operand);
      }
    }
  }

  void check_hemisphere(const Instruction& instruction, const StreamOperand& operand) const {
    const Unit unit = info(instruction.opcode).unit;
    if (unit == Unit::kVxm) {
      return;  // the only unit of both hemispheres
    }
    for_each_instance(instruction, [&](const LoopIndex& at) {
      const Hemisphere own = unit == Unit::kC2c
                                 ? chip_.link_hemisphere[static_cast<std::size_t>(unit_of(instruction, at))]
                                 : instruction.hemisphere;
      if (own != operand.hemisphere) {
        fail(instruction.start, "uses a stream of the other hemisphere");
      }
    });
  }

  void check_reach(const Instruction& instruction, const StreamOperand& operand) const {
    // Of a burst over many slices the one farthest along the stream has the shortest way.
    std::int32_t position = unit_position(instruction, chip_);
    if (info(instruction.opcode).unit == Unit::kMem) {
      for_each_instance(instruction, [&](const LoopIndex& at) {
        const std::int32_t here = chip_.slice_position(static_cast<std::int32_t>(unit_of(instruction, at)));
        position = operand.direction == Direction::kOutward ? std::max(position, here) : std::min(position, here);
      });
    }
    const bool is_behind =
        operand.direction == Direction::kOutward ? operand.reach < position : operand.reach > position;
    if (is_behind || operand.reach > chip_.mxm_position) {
      fail(instruction.start,
           "keeps its output from register " + std::to_string(position) + " to register " +
               std::to_string(operand.reach) + ", against the direction of its stream");
    }
  }

  void check_sources(const Instruction& instruction, const StreamOperand& output) const {
    const auto& sources = tensor(output.tensor).sources;
    for (const StreamOperand& input : instruction.operands) {
      if (input.kind == OperandKind::kIn && std::find(sources.begin(), sources.end(), input.tensor) == sources.end()) {
        fail(instruction.start,
             "makes '" + tensor(output.tensor).name + "' from '" + tensor(input.tensor).name +
                 "', which is none of its sources");
      }
    }
  }

  void check_crossbar(const Instruction& instruction) const {
    std::int32_t streams[2] = {0, 0};
    for (const StreamOperand& operand : instruction.operands) {
      streams[0] += operand.kind == OperandKind::kIn ? operand.streams : 0;
      streams[1] += operand.kind == OperandKind::kOut ? operand.streams : 0;
    }
    if (std::max(streams[0], streams[1]) > chip_.sxm_streams_per_cycle) {
      fail(instruction.start,
           "takes " + std::to_string(streams[0]) + " streams and gives " + std::to_string(streams[1]) + " of " +
               std::to_string(chip_.sxm_streams_per_cycle) + " in a cycle");
    }
  }

  void check_matrix(const Instruction& instruction) const {
    const StreamOperand& moved = instruction.operands[0];
    const StreamOperand& tile = instruction.operands[1];
    if (instruction.opcode != Opcode::kDrain && tile.kind != OperandKind::kResident) {
      fail(instruction.start, "names no tile");
    }
    if (instruction.opcode == Opcode::kInstall) {
      const std::int64_t columns = std::int64_t{instruction.count[1]} * moved.streams;
      if (moved.streams > chip_.mxm_install_columns_per_cycle || columns > chip_.mxm_columns) {
        fail(instruction.start,
             "installs " + std::to_string(moved.streams) + " columns a cycle, " + std::to_string(columns) +
                 " in all; a plane takes " + std::to_string(chip_.mxm_install_columns_per_cycle) + " and " +
                 std::to_string(chip_.mxm_columns));
      }
      for_each_instance(instruction, [&](const LoopIndex& at) {
        const bool is_named = tile.tensor == moved.tensor &&
                              affine(tile.row, tile.row_stride, at) == affine(moved.row, moved.row_stride, at);
        if (at[1] == 0 && !is_named) {
          fail(instruction.start, "installs a tile under another name than its first row");
        }
      });
      return;
    }
    for_each_instance(instruction, [&](const LoopIndex& at) {
      const std::int64_t accumulator = affine(instruction.address, instruction.address_stride, at);
      if (accumulator < 0 || accumulator >= chip_.mxm_accumulators_per_plane) {
        fail(affine(instruction.start, instruction.period, at),
             "accumulator " + std::to_string(accumulator) + " of " + std::to_string(chip_.mxm_accumulators_per_plane));
      }
    });
  }

  const ChipProgram& text_;
  const ChipSpec& chip_;
  std::int32_t chip_id_;
  std::int32_t at_ = -1;
};

}  // namespace

void check_instructions(const ChipProgram& text, const ChipSpec& chip, std::int32_t chip_id) {
  InstructionChecker(text, chip, chip_id).run();
}

void check_operations(const ChipProgram& text, std::int32_t chip_id) {
  struct Tally {
    std::vector<std::int64_t> owed = std::vector<std::int64_t>(opcode_table().size(), 0);
    std::int32_t last = -1;
  };
  for (const OperandKind kind : {OperandKind::kOut, OperandKind::kIn}) {
    const bool is_made = kind == OperandKind::kOut;
    std::vector<Tally> tallies(text.tensors.size());
    for (std::size_t t = 0; t < text.tensors.size(); ++t) {
      for (const OperationCount& count : is_made ? text.tensors[t].made_by : text.tensors[t].used_by) {
        tallies[t].owed[static_cast<std::size_t>(count.opcode)] += count.vectors;
      }
    }
    for (std::size_t i = 0; i < text.instructions.size(); ++i) {
      const Instruction& instruction = text.instructions[i];
      for (const StreamOperand& operand : instruction.operands) {
        if (operand.kind == kind && computes(instruction.opcode)) {
          Tally& tally = tallies[operand.tensor];
          tally.owed[static_cast<std::size_t>(instruction.opcode)] -= vectors_moved(instruction, operand);
          tally.last = static_cast<std::int32_t>(i);
        }
      }
    }
    for (std::size_t t = 0; t < tallies.size(); ++t) {
      const Tally& tally = tallies[t];
      const auto wrong = std::ranges::find_if(tally.owed, [](std::int64_t owed) { return owed != 0; });
      if (wrong != tally.owed.end()) {
        const OpcodeInfo& operation = opcode_table()[static_cast<std::size_t>(wrong - tally.owed.begin())];
        throw ScheduleViolation(
            {.chip = chip_id,
             .cycle = tally.last < 0 ? -1 : text.instructions[static_cast<std::size_t>(tally.last)].start,
             .instruction = tally.last,
             .reason = std::string(operation.name) + (is_made ? " gives " : " takes ") +
                       std::to_string(std::abs(*wrong)) + " vectors of '" + text.tensors[t].name + "' " +
                       (*wrong > 0 ? "too few" : "too many")});
      }
    }
  }
}

}  // namespace lpu::node
