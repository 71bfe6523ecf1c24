#include "lpu/node/expand.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "tiny_instruction.hpp"

namespace lpu::node {
namespace {

using test::instruction;
using test::operand;
using enum OperandKind;
using enum Direction;

/// One instruction, a register for it if wanted.
ChipProgram text_of(const Instruction& one, std::initializer_list<BaseRegister> registers = {}) {
  ChipProgram out;
  out.tensors.push_back({.name = "t", .rows = 1000, .sources = {}});
  out.registers.emplace_back();
  out.registers.insert(out.registers.end(), registers);
  out.instructions.push_back(one);
  return out;
}

std::vector<Cell> cells_of(const ChipProgram& text, ResourceKind kind) {
  std::vector<Cell> out = expand(text, test::tsp_v1(), 4);
  std::erase_if(out, [kind](const Cell& cell) { return cell.resource.kind != kind; });
  std::sort(out.begin(), out.end(), [](const Cell& a, const Cell& b) {
    return std::tuple(a.cycle, a.resource) < std::tuple(b.cycle, b.resource);
  });
  return out;
}

std::vector<std::int64_t> cycles_of(const ChipProgram& text, ResourceKind kind) {
  std::vector<std::int64_t> out;
  for (const Cell& cell : cells_of(text, kind)) {
    out.push_back(cell.cycle);
  }
  return out;
}

std::vector<std::int32_t> units_of(const ChipProgram& text, ResourceKind kind) {
  std::vector<std::int32_t> out;
  for (const Cell& cell : cells_of(text, kind)) {
    out.push_back(cell.resource.unit);
  }
  return out;
}

using Cycles64 = std::vector<std::int64_t>;

TEST(Expand, AReadTakesPortBankQueueFetchAndTheRegistersItCrosses) {
  // Slice 9 stands at register 3.
  const ChipProgram text = text_of(instruction(Opcode::kRead, 50, 9, 7, {operand(kOut, kOutward, 5, 1, 0, 0, 6)}));
  EXPECT_EQ(cycles_of(text, ResourceKind::kReadPort), (Cycles64{50}));
  ASSERT_EQ(cells_of(text, ResourceKind::kBank).size(), 1U);
  EXPECT_EQ(cells_of(text, ResourceKind::kBank)[0].resource, (Resource{ResourceKind::kBank, 9, 1}));
  EXPECT_EQ(cycles_of(text, ResourceKind::kQueue), (Cycles64{50}));
  EXPECT_EQ(cells_of(text, ResourceKind::kFetch)[0].amount, 16);
  const std::vector<Cell> crossed = cells_of(text, ResourceKind::kStreamRegister);
  ASSERT_EQ(crossed.size(), 4U);
  for (std::int32_t hop = 0; hop < 4; ++hop) {
    EXPECT_EQ(crossed[static_cast<std::size_t>(hop)].cycle, 50 + hop);
    EXPECT_EQ(crossed[static_cast<std::size_t>(hop)].resource, (Resource{ResourceKind::kStreamRegister, 5, 3 + hop}));
  }
}

TEST(Expand, InstancesOnOtherSlicesIssueAlongTheDiagonal) {
  Instruction wide = instruction(Opcode::kRead, 50, 8, 0, {operand(kOut, kOutward, 5, 1, 0, 0, 13)});
  wide.count[2] = 8;  // slices 8 .. 15, registers 3 and 4
  wide.index_stride[2] = 1;
  wide.operands[0].stream_stride = 1;
  EXPECT_EQ(cycles_of(text_of(wide), ResourceKind::kReadPort), (Cycles64{50, 50, 50, 50, 51, 51, 51, 51}));
  wide.operands[0].direction = kInward;
  wide.operands[0].reach = 0;
  EXPECT_EQ(cycles_of(text_of(wide), ResourceKind::kReadPort), (Cycles64{49, 49, 49, 49, 50, 50, 50, 50}));
}

TEST(Expand, LoopsMultiplyAndOneBurstStartsEachQueueOnce) {
  Instruction burst = instruction(Opcode::kRead, 0, 8, 0, {operand(kOut, kOutward, 5, 1, 0, 0, 3)});
  burst.count[0] = 2;
  burst.period[0] = 100;
  burst.count[1] = 3;
  burst.period[1] = 10;
  EXPECT_EQ(cycles_of(text_of(burst), ResourceKind::kReadPort), (Cycles64{0, 10, 20, 100, 110, 120}));
  EXPECT_EQ(cycles_of(text_of(burst), ResourceKind::kQueue), (Cycles64{0}));
  EXPECT_EQ(cells_of(text_of(burst), ResourceKind::kFetch)[0].amount, 16 + 2 * 16);
}

TEST(Expand, AHeldOutputAppearsWithTheLastInstance) {
  Instruction sum =
      instruction(Opcode::kSum, 10, 2, 0, {operand(kIn, kInward, 0, 1, 0, 0), operand(kOut, kOutward, 8, 1, 0, 9, 0)});
  sum.alus = 2;
  sum.count[0] = 3;
  sum.period[0] = 4;
  sum.operands[1].held = 1;
  EXPECT_EQ(cycles_of(text_of(sum), ResourceKind::kAlu), (Cycles64{10, 10, 14, 14, 18, 18}));
  EXPECT_EQ(cycles_of(text_of(sum), ResourceKind::kStreamRegister), (Cycles64{18 + 5}));
}

TEST(Expand, OutputsAppearAfterTheUnitsLatency) {
  const auto first = [](Opcode opcode, int at) {
    return cycles_of(text_of(instruction(opcode, 100, 0, 0, {operand(kOut, kInward, 0, 1, 0, 0, at)})),
                     ResourceKind::kStreamRegister)[0];
  };
  EXPECT_EQ(first(Opcode::kAdd, 0), 105);
  EXPECT_EQ(first(Opcode::kExponential, 0), 110);
  EXPECT_EQ(first(Opcode::kRotate, 12), 110);
  EXPECT_EQ(first(Opcode::kDrain, 13), 100);
  EXPECT_EQ(first(Opcode::kReceive, 12), 100);
}

TEST(Expand, EveryDisplacementIsReservedAndWhatTwoShareCountsOnce) {
  // Users 0 and 1 lie one slice apart, user 2 in the other bank of user 0's slice.
  const BaseRegister users{
      .kind = RegisterKind::kUser,
      .table = {{.slice = 0, .address = 0}, {.slice = 1, .address = 0}, {.slice = 0, .address = 1}}};
  Instruction read = instruction(Opcode::kRead, 0, 8, 0, {operand(kOut, kOutward, 5, 1, 0, 0, 3)});
  read.base_register = 1;
  const ChipProgram text = text_of(read, {users});
  EXPECT_EQ(units_of(text, ResourceKind::kReadPort), (std::vector<std::int32_t>{8, 9}));
  EXPECT_EQ(cells_of(text, ResourceKind::kBank).size(), 3U);
  EXPECT_EQ(cells_of(text, ResourceKind::kStreamRegister).size(), 1U) << "both slices stand at register 3";
  EXPECT_FALSE(find_collision(expand(text, test::tsp_v1(), 4), 10, test::tsp_v1()));
}

TEST(Expand, AnAppendReservesWhereverThePositionMayFall) {
  BaseRegister append{.kind = RegisterKind::kAppend, .table = {{}}};
  append.append = {.is_column = true,
                   .positions_per_tile = 4,
                   .planes = 1,
                   .hemisphere = 0,
                   .plane = 0,
                   .columns = 4,
                   .slice_stride = 1,
                   .first_column = 0,
                   .columns_per_cycle = 4,
                   .round_stride = 1,
                   .row_stride = 1};
  Instruction write = instruction(Opcode::kWrite, 0, 8, 0, {operand(kIn, kOutward, 5, 1, 0, 0)});
  write.base_register = 1;
  EXPECT_EQ(units_of(text_of(write, {append}), ResourceKind::kWritePort), (std::vector<std::int32_t>{8, 9, 10, 11}));
}

TEST(FindCollision, ABurstMeetsItselfAnIntervalLater) {
  Instruction burst = instruction(Opcode::kAdd, 0, 0, 0, {});
  burst.count[0] = 5;
  burst.period[0] = 1;
  const std::vector<Cell> cells = expand(text_of(burst), test::tsp_v1(), 4);
  EXPECT_FALSE(find_collision(cells, 5, test::tsp_v1()));
  const std::optional<Collision> found = find_collision(cells, 4, test::tsp_v1());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->first.resource.kind, ResourceKind::kAlu);
  EXPECT_EQ(found->second.cycle - found->first.cycle, 4);
}

TEST(FindCollision, CapacitiesCountAmounts) {
  ChipProgram text = text_of(instruction(Opcode::kPack, 0, 0, 0, {operand(kIn, kOutward, 0, 16, 0, 0)}));
  EXPECT_FALSE(find_collision(expand(text, test::tsp_v1(), 4), 100, test::tsp_v1()));
  text.instructions[0].operands[0].streams = 17;
  EXPECT_TRUE(find_collision(expand(text, test::tsp_v1(), 4), 100, test::tsp_v1()));
  text.instructions[0].operands[0].streams = 16;
  ChipSpec narrow = test::tsp_v1();
  narrow.fetch_bytes_per_cycle = 15;
  EXPECT_TRUE(find_collision(expand(text, narrow, 4), 100, narrow));
}

}  // namespace
}  // namespace lpu::node
