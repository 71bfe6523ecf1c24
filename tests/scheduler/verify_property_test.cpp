#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "burst_verdict.hpp"
#include "test_chip.hpp"

namespace lpu::scheduler {
namespace {

using node::Direction;
using node::Hemisphere;
using node::Instruction;
using node::Opcode;
using node::OperandKind;
using node::StreamOperand;
using node::Unit;

/// A generator of small programs whose bursts crowd a few units, so that about half of them are free of conflicts.
///
/// Values, memory and transfers mean nothing in them: only what a burst occupies counts.
class ProgramGenerator {
 public:
  explicit ProgramGenerator(std::uint64_t seed) : random_(seed) {}

  ClusterProgram make() {
    ClusterProgram program;
    program.chip = test::tsp_v1();
    program.chip.fetch_bytes_per_cycle = pick(1, 3) == 1 ? 64 : 2304;
    program.plan.context = pick(1, 12);
    program.plan.micro_batch = 1;
    program.user_slots = pick(1, 3);
    program.initiation_interval = pick(1, 4) == 1 ? pick(1, 20) : pick(20, 800);
    program.plan.initiation_interval = program.initiation_interval;
    node::ChipProgram& text = program.texts.emplace_back();
    text.tensors.push_back({.name = "t", .rows = 1 << 20, .sources = {}});
    text.transfers.push_back({.name = "x"});
    add_registers(text, program.user_slots);
    is_memory_only_ = pick(0, 1) == 1;
    const std::int32_t wanted = is_memory_only_ ? pick(2, 5) : pick(1, 6);
    for (std::int32_t i = 0; i < wanted; ++i) {
      text.instructions.push_back(instruction(program.chip, text));
    }
    return program;
  }

 private:
  std::int32_t pick(std::int32_t least, std::int32_t most) {
    return std::uniform_int_distribution<std::int32_t>(least, most)(random_);
  }

  void add_registers(node::ChipProgram& text, std::int32_t users) {
    text.registers.emplace_back();
    text.registers.push_back(
        {.kind = node::RegisterKind::kBuffer, .copies = pick(1, 3), .stride = pick(1, 4), .table = {}});
    node::BaseRegister user;
    user.kind = node::RegisterKind::kUser;
    for (std::int32_t i = 0; i < users; ++i) {
      user.table.push_back({.slice = static_cast<std::int16_t>(pick(0, 1) * pick(0, 8)),
                            .address = static_cast<std::int16_t>(pick(0, 9))});
    }
    text.registers.push_back(user);
    user.kind = node::RegisterKind::kAppend;
    user.append = {.is_column = pick(0, 1) == 1,
                   .positions_per_tile = pick(1, 4),
                   .planes = 2,
                   .hemisphere = pick(0, 1),
                   .plane = pick(0, 1),
                   .columns = 2,
                   .slice_stride = pick(1, 3),
                   .first_column = 0,
                   .columns_per_cycle = 2,
                   .round_stride = pick(0, 3),
                   .row_stride = 1};
    text.registers.push_back(user);
  }

  Instruction instruction(const node::ChipSpec& chip, const node::ChipProgram& text) {
    static constexpr Opcode kOpcodes[] = {Opcode::kRead,
                                          Opcode::kRead,
                                          Opcode::kRead,
                                          Opcode::kWrite,
                                          Opcode::kWrite,
                                          Opcode::kInstall,
                                          Opcode::kCompute,
                                          Opcode::kDrain,
                                          Opcode::kAdd,
                                          Opcode::kExponential,
                                          Opcode::kRotate,
                                          Opcode::kTranspose,
                                          Opcode::kSend,
                                          Opcode::kReceive};
    Instruction out;
    out.opcode = kOpcodes[static_cast<std::size_t>(pick(0, is_memory_only_ ? 4 : 13))];
    out.start = pick(0, is_memory_only_ ? 12 : 100);
    out.hemisphere = static_cast<Hemisphere>(pick(0, 1));
    for (std::size_t l = 0; l < 3; ++l) {
      if (pick(0, is_memory_only_ ? 3 : 1) == 1) {
        out.count[l] = static_cast<std::uint16_t>(pick(2, 6));
        out.period[l] = l == 2 && pick(0, 2) == 0 ? 0 : pick(1, 4) == 1 ? 1 : pick(1, 60);
      }
    }
    const Unit unit = node::info(out.opcode).unit;
    shape(out, unit, text);
    operands(out, unit, chip);
    return out;
  }

  void shape(Instruction& out, Unit unit, const node::ChipProgram& text) {
    out.address = static_cast<std::uint16_t>(pick(0, 5));
    for (auto& stride : out.address_stride) {
      stride = static_cast<std::int16_t>(pick(-3, 3));
    }
    switch (unit) {
      case Unit::kMem: {
        out.index = static_cast<std::uint8_t>(is_memory_only_ ? pick(12, 15) : pick(8, 24));
        out.base_register = static_cast<std::uint16_t>(
            pick(1, 3) > (is_memory_only_ ? 2 : 1) ? 0 : pick(0, static_cast<std::int32_t>(text.registers.size()) - 1));
        std::int32_t room = 10;  // slices 0 .. 43 hold every index and displacement
        for (auto& stride : out.index_stride) {
          stride = static_cast<std::int8_t>(pick(0, 1) == 0 || room <= 0 ? 0 : pick(-1, 2));
          room -= 4;
        }
        break;
      }
      case Unit::kMxm:
        out.index = static_cast<std::uint8_t>(pick(0, 1));
        if (out.index == 0 && out.count[2] == 2) {
          out.index_stride[2] = 1;
        }
        break;
      case Unit::kVxm:
        out.index = static_cast<std::uint8_t>(pick(0, 10));
        out.alus = static_cast<std::uint8_t>(pick(1, 5));
        break;
      case Unit::kSxm:
        break;
      case Unit::kC2c:
        out.index = static_cast<std::uint8_t>(pick(0, 3));
        out.index_stride[2] = out.count[2] <= 4 ? 1 : 0;
        break;
    }
  }

  void operands(Instruction& out, Unit unit, const node::ChipSpec& chip) {
    const bool is_chain = unit == Unit::kVxm || unit == Unit::kSxm;
    const bool is_input_only = out.opcode == Opcode::kWrite || out.opcode == Opcode::kInstall ||
                               out.opcode == Opcode::kCompute || out.opcode == Opcode::kSend;
    const std::size_t wanted = is_chain ? static_cast<std::size_t>(pick(2, 4)) : 1;
    for (std::size_t i = 0; i < wanted; ++i) {
      StreamOperand& operand = out.operands[i];
      operand.kind = is_chain        ? (i == 0 ? OperandKind::kIn : OperandKind::kOut)
                     : is_input_only ? OperandKind::kIn
                                     : OperandKind::kOut;
      operand.hemisphere = unit == Unit::kVxm ? static_cast<Hemisphere>(pick(0, 1)) : out.hemisphere;
      operand.direction = static_cast<Direction>(pick(0, 1));
      operand.stream = static_cast<std::uint8_t>(pick(6, 19));
      operand.streams = static_cast<std::uint8_t>(
          unit == Unit::kMem || unit == Unit::kC2c ? 1 : pick(1, unit == Unit::kSxm && pick(1, 20) == 1 ? 7 : 3));
      operand.stream_stride = static_cast<std::int8_t>(pick(-1, 1));
      if (is_chain && pick(1, 3) == 1) {
        operand.held = static_cast<std::uint8_t>(pick(0, 7)) & 15U;
      }
      const std::int32_t unit_at = node::unit_position(out, chip);
      operand.reach =
          static_cast<std::uint8_t>(operand.direction == Direction::kOutward ? pick(unit_at, std::min(unit_at + 6, 13))
                                                                             : pick(std::max(unit_at - 6, 0), unit_at));
    }
  }

  std::mt19937_64 random_;
  bool is_memory_only_ = false;  ///< crowds a few slices, where ports, banks, queues and displacements meet
};

TEST(VerifyProperty, BurstsAndCellsAgreeOnTenThousandPrograms) {
  constexpr std::uint64_t kPrograms = 10'000;
  std::uint64_t free = 0;
  for (std::uint64_t seed = 1; seed <= kPrograms; ++seed) {
    const ClusterProgram program = ProgramGenerator(seed).make();
    const bool is_free =
        test::cells_say_free(program, node::expand(program.texts[0], program.chip, program.plan.context));
    ASSERT_EQ(test::bursts_say_free(program), is_free) << "seed " << seed;
    free += is_free ? 1 : 0;
  }
  EXPECT_GT(free, kPrograms / 4) << "the generator makes too few legal programs";
  EXPECT_LT(free, kPrograms * 3 / 4) << "the generator makes too few illegal programs";
  RecordProperty("legal", static_cast<int>(free));
}

}  // namespace
}  // namespace lpu::scheduler
