#include "lpu/scheduler/verify.hpp"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "lpu/scheduler/well_formed.hpp"
#include "tiny_program.hpp"

namespace lpu::scheduler {
namespace {

using namespace test;  // the tiny program's names are this file's vocabulary
using node::Allocation;
using node::BaseRegister;
using node::Direction;
using node::Hemisphere;
using node::Instruction;
using node::Opcode;
using node::OperandKind;
using node::RegisterKind;
using node::TensorScope;
using node::Violation;
using enum node::OperandKind;
using enum node::Direction;

std::string all_of(const std::vector<Violation>& violations) {
  std::string out;
  for (const Violation& violation : violations) {
    out += "\n  " + violation.message();
  }
  return violations.empty() ? " nothing" : out;
}

bool is_alike(const Instruction& a, const Instruction& b) {
  return a.opcode == b.opcode && a.start == b.start && a.index == b.index && a.hemisphere == b.hemisphere &&
         a.operands[0].stream == b.operands[0].stream && a.operands[0].tensor == b.operands[0].tensor;
}

class Verify : public testing::Test {
 protected:
  Instruction& at(int instruction, int text = 0) {
    return program.texts[static_cast<std::size_t>(text)].instructions[static_cast<std::size_t>(instruction)];
  }
  node::ChipProgram& text() { return program.texts[0]; }
  Instruction& add(const Instruction& instruction) { return text().instructions.emplace_back(instruction); }

  std::vector<Violation> breaches() {
    for (node::ChipProgram& each : program.texts) {
      sort_instructions(each);
    }
    return verify(program, 1000);
  }

  /// Some breach is this one, by chip, cycle, instruction and words of the reason.
  void expect_breach(int chip, std::int64_t cycle, const Instruction& who, const std::string& words, int of_text = 0) {
    const Instruction wanted = who;  // sorting moves it
    const std::vector<Violation> found = breaches();
    const auto& instructions = program.texts[static_cast<std::size_t>(of_text)].instructions;
    const bool is_found = std::any_of(found.begin(), found.end(), [&](const Violation& v) {
      return v.chip == chip && v.cycle == cycle && v.instruction >= 0 &&
             is_alike(instructions[static_cast<std::size_t>(v.instruction)], wanted) &&
             v.reason.find(words) != std::string::npos;
    });
    EXPECT_TRUE(is_found) << "expected chip " << chip << ", cycle " << cycle << ", " << node::info(wanted.opcode).name
                          << " of cycle " << wanted.start << ": …" << words << "…; found" << all_of(found);
  }
  void expect_breach_of_chip(int chip, const std::string& words) {
    const std::vector<Violation> found = breaches();
    const bool is_found = std::any_of(found.begin(), found.end(), [&](const Violation& v) {
      return v.chip == chip && v.cycle == -1 && v.instruction == -1 && v.reason.find(words) != std::string::npos;
    });
    EXPECT_TRUE(is_found) << "expected chip " << chip << ": …" << words << "…; found" << all_of(found);
  }
  /// Also with tensors that declare what the test adds to the program.
  void expect_legal() {
    for (node::ChipProgram& each : program.texts) {
      test::declare_operations(each);
    }
    const std::vector<Violation> found = breaches();
    EXPECT_TRUE(found.empty()) << "found" << all_of(found);
  }

  /// The second chip gets a text of its own.
  node::ChipProgram& split() {
    program.texts.push_back(program.texts[0]);
    program.bindings[1].text = 1;
    return program.texts[1];
  }

  ClusterProgram program = tiny_program();
};

TEST_F(Verify, ALegalProgramHasNoBreach) {
  expect_legal();
}

TEST_F(Verify, BreachesComeInOrderOfChipAndCycleAndStopAtMost) {
  at(kReadX).address = 1;
  at(kReadY).address = 1;
  const std::vector<Violation> all = breaches();
  ASSERT_GE(all.size(), 2U);
  EXPECT_TRUE(std::is_sorted(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return a.chip != b.chip ? a.chip < b.chip : a.cycle < b.cycle;
  }));
  ASSERT_EQ(verify(program).size(), 1U);
  EXPECT_EQ(verify(program)[0].message(), all[0].message());
}

// Form: what no machine could even read.

TEST_F(Verify, AnIndexOutOfRangeIsAnInputErrorThatNamesTheField) {
  at(kReadX).operands[0].tensor = 99;
  try {
    breaches();
    FAIL() << "expected an InputError";
  } catch (const node::InputError& error) {
    EXPECT_NE(std::string(error.what()).find("operands[0].tensor"), std::string::npos) << error.what();
  }
}

TEST_F(Verify, AZeroCountIsAnInputError) {
  at(kReadX).count[1] = 0;
  EXPECT_THROW(breaches(), node::InputError);
}

TEST_F(Verify, APeriodOfZeroOutsideOfLoop2) {
  at(kCopyX).count[0] = 2;
  expect_breach(0, 1, at(kCopyX), "loop 0 has period 0");
}

TEST_F(Verify, AnOperandInTheOtherHemisphere) {
  at(kReadX).operands[0].hemisphere = Hemisphere::kEast;
  expect_breach(0, 30, at(kReadX), "stands in the west, its stream in the east");
}

TEST_F(Verify, AnOutputKeptUpstream) {
  at(kReadX).operands[0].reach = 2;
  expect_breach(0, 30, at(kReadX), "upstream of register 3");
}

// Resources.

TEST_F(Verify, AReadPortTakenTwice) {
  text().allocations.push_back(cells(kEmbedding, 8, 101, 0));
  add(instruction(Opcode::kRead, 30, 8, 101, {operand(kOut, kInward, 7, 1, kEmbedding, 0, 0)}));
  expect_breach(0, 30, text().instructions.back(), "west slice 8 read port is taken twice");
}

TEST_F(Verify, AWritePortTakenTwice) {
  Instruction second = at(kWriteX);
  second.address = 1;
  second.operands[0].stream = 16;
  text().allocations.push_back(cells(kX, 8, 1, 0));
  add(second);
  expect_breach(0, 9, second, "west slice 8 write port is taken twice");
}

TEST_F(Verify, ABankReadAndWrittenInOneCycle) {
  text().allocations.push_back(cells(kX, 8, 4, 1));
  add(instruction(
      Opcode::kCopy, 22, 1, 0, {operand(kIn, kInward, 9, 1, kEmbedding, 0), operand(kOut, kOutward, 20, 1, kX, 1, 3)}));
  add(instruction(Opcode::kRead, 21, 0, 0, {operand(kOut, kInward, 9, 1, kEmbedding, 0, 0)}));
  const Instruction write = add(instruction(Opcode::kWrite, 30, 8, 4, {operand(kIn, kOutward, 20, 1, kX, 1)}));
  expect_breach(0, 30, write, "west slice 8 bank 0 is taken twice");
}

TEST_F(Verify, AQueueThatStartsTwoInstructionsInACycle) {
  text().allocations.push_back(cells(kX, 8, 5, 1));
  add(instruction(
      Opcode::kCopy, 22, 1, 0, {operand(kIn, kInward, 9, 1, kEmbedding, 0), operand(kOut, kOutward, 20, 1, kX, 1, 3)}));
  add(instruction(Opcode::kRead, 21, 0, 0, {operand(kOut, kInward, 9, 1, kEmbedding, 0, 0)}));
  const Instruction write = add(instruction(Opcode::kWrite, 30, 8, 5, {operand(kIn, kOutward, 20, 1, kX, 1)}));
  expect_breach(0, 30, write, "west slice 8 instruction queue is taken twice");
}

TEST_F(Verify, AStreamRegisterTakenTwice) {
  // Slice 4 stands at register 2, so that its vector of cycle 29 would ride on the diagonal of slice 8's of cycle 30.
  text().allocations.push_back(cells(kEmbedding, 4, 0, 0));
  add(instruction(Opcode::kRead, 29, 4, 0, {operand(kOut, kOutward, 16, 1, kEmbedding, 0, 3)}));
  expect_breach(0, 30, at(kReadX), "stream west outward 16, register 3, is taken twice");
}

TEST_F(Verify, StreamsAreSharedWhereSegmentsDoNotMeet) {
  text().allocations.push_back(cells(kEmbedding, 4, 0, 0));
  add(instruction(Opcode::kRead, 29, 4, 0, {operand(kOut, kOutward, 16, 1, kEmbedding, 0, 2)}));
  expect_legal();
}

TEST_F(Verify, AnAluTakenTwice) {
  Instruction other = at(kDequantiseY);
  other.alus = 3;
  other.operands[1].stream = 21;
  other.operands[1].row = 1;
  add(other);
  expect_breach(0, 93, other, "VXM ALU 0 is taken twice");
}

TEST_F(Verify, AnotherOperationOfTheSameLatency) {
  at(kDequantiseY).opcode = Opcode::kScale;
  expect_breach(0, 93, at(kDequantiseY), "scale gives 1 vectors of 'y'; the tensor declares 0");
  const std::vector<Violation> found = breaches();
  EXPECT_EQ(found.size(), 4U) << all_of(found);  // one operation more, one less, of what is made and of what is taken
}

TEST_F(Verify, AVectorLessThanTheTensorIsMadeOf) {
  text().tensors[test::kY].made_by[0].vectors = 2;
  expect_breach(0, 93, at(kDequantiseY), "dequantise gives 1 vectors of 'y'; the tensor declares 2");
}

TEST_F(Verify, AnOperationThatTakesLessThanTheTensorGives) {
  text().tensors[test::kSums].used_by[0].vectors = 5;
  expect_breach(0, 93, at(kDequantiseY), "dequantise takes 4 vectors of 'y32'; the tensor declares 5");
}

TEST_F(Verify, AnSxmInstructionOfTooManyStreams) {
  node::StreamOperand wide = operand(kIn, kOutward, 0, 17, kX, 0);
  wide.stream = 0;
  const Instruction pack =
      add(instruction(Opcode::kPack, 200, 0, 0, {wide, operand(kOut, kOutward, 30, 1, kX, 0, 13)}));
  expect_breach(0, 200, pack, "takes 17 streams and gives 1; at most 16");
}

TEST_F(Verify, TwoSxmInstructionsInACycle) {
  add(instruction(Opcode::kPack, 200, 0, 0, {operand(kOut, kOutward, 30, 1, kX, 0, 13)}));
  const Instruction second = add(instruction(Opcode::kRotate, 200, 0, 0, {operand(kOut, kOutward, 31, 1, kX, 1, 13)}));
  expect_breach(0, 200, second, "west SXM is taken twice");
}

TEST_F(Verify, ALinkPushedTwiceInACycle) {
  const Instruction again = at(kSendY);
  add(again);
  expect_breach(0, 131, again, "link 0 queue's push is taken twice");
}

TEST_F(Verify, FetchOverBudget) {
  program.chip.fetch_bytes_per_cycle = 40;
  expect_breach(0, 10, at(kReadW), "fetch of 48 bytes by 1 instructions");
}

TEST_F(Verify, FetchCountsTheBurstsOfOverlappingIterations) {
  program.initiation_interval = program.plan.initiation_interval =
      627;  // the last write starts with the read of the weights
  program.chip.fetch_bytes_per_cycle = 64;
  expect_legal();
  program.chip.fetch_bytes_per_cycle = 63;
  expect_breach(0,
                637,
                at(kWritePeer),
                "fetch of 64 bytes by 2 instructions that start together, those of the iteration 1 later included");
}

TEST_F(Verify, AnIntervalTooSmallIsAConflictWithTheIterationLater) {
  program.initiation_interval = program.plan.initiation_interval = 92;  // the copy's ALU is the dequantise's
  expect_breach(0,
                93,
                at(kDequantiseY),
                "VXM ALU 0 is taken twice: instruction 8 (dequantise) meets instruction 1 (copy), cycle 1 of the "
                "iteration 1 later");
}

TEST_F(Verify, ABurstLongerThanTheIntervalMeetsItself) {
  program.initiation_interval = program.plan.initiation_interval = 640;
  Instruction long_burst = instruction(Opcode::kRead, 0, 41, 100, {operand(kOut, kInward, 30, 1, kEmbedding, 0, 11)});
  long_burst.count[0] = 641;
  long_burst.period[0] = 1;
  text().allocations.push_back(cells(kEmbedding, 41, 100, 0));
  add(long_burst);
  expect_breach(0, 640, long_burst, "of the iteration 1 later");
}

TEST_F(Verify, ProgramTextOverItsAllocation) {
  text().allocations.pop_back();
  expect_breach_of_chip(0, "program text of");
}

TEST_F(Verify, ProgramTextInRowsOfOnePlace) {
  program.chip.instruction_bytes = 64;  // two rows and more
  ASSERT_TRUE(verify(program).empty());
  node::Allocation& rows = text().allocations.back();
  rows.row_stride[0] = 0;
  rows.address_stride[0] = 0;
  expect_breach_of_chip(0, "program text of");
}

TEST_F(Verify, AMakespanThatHidesTheEnd) {
  text().makespan = 637;
  expect_breach(0, 637, at(kReceiveY), "is still at work in cycle 637; the text's makespan is 637");
}

TEST_F(Verify, ABusySpanShorterThanAMakespan) {
  program.busy_span = 639;
  expect_breach_of_chip(0, "busy span is 639");
}

TEST_F(Verify, ATokenLatencyBeforeTheEnd) {
  program.bindings[1].offset = 0;
  program.token_latency = 600;
  expect_breach_of_chip(0, "token latency is 600");
}

// Values on streams.

TEST_F(Verify, AConsumerOneCycleEarlyFindsNothing) {
  at(kCopyX).start = 0;
  expect_breach(0,
                0,
                at(kCopyX),
                "stream west inward 0, register 0, holds nothing; expected 'e' row 0, which instruction 0 (read) "
                "brings 1 cycles later");
}

TEST_F(Verify, AProducerOneCycleLate) {
  at(kReadY).start = 123;
  expect_breach(0, 131, at(kSendY), "brings 1 cycles later");
}

TEST_F(Verify, AValueThatIsNotTheOneNamed) {
  at(kComputeY).operands[0].row = 1;
  expect_breach(0, 40, at(kComputeY), "holds 'x' row 0, put there by instruction 5 (read); expected 'x' row 1");
}

TEST_F(Verify, AValueKeptNotFarEnough) {
  at(kReadY).operands[0].reach = 11;
  expect_breach(0, 131, at(kSendY), "keeps only to register 11");
}

TEST_F(Verify, AMultiStreamInputFindsItsRowsInOrder) {
  at(kInstallW).operands[0].row_stride[1] = 17;
  expect_breach(0, 16, at(kInstallW), "expected 'w' row 17");
}

TEST_F(Verify, AHeldInputIsTakenOnceAndAHeldOutputAppearsOnce) {
  // The dequantise runs three times over what it took first; y leaves it with the last.
  Instruction& sum = at(kDequantiseY);
  sum.count[1] = 3;
  sum.period[1] = 2;
  sum.operands[0].held = 2;
  sum.operands[1].held = 2;
  for (const int each : {kWriteY, kReadY, kSendY, kReceiveY, kWritePeer}) {
    at(each).start += 4;
  }
  program.token_latency = program.busy_span = text().makespan = 700;
  expect_legal();
  at(kDequantiseY).operands[0].held = 0;
  expect_breach(0,
                95,
                at(kDequantiseY),
                "holds nothing; expected 'y32' row 0, which instruction 7 (drain) brings 2 cycles earlier");
}

TEST_F(Verify, AnInputThatIsNoSource) {
  text().tensors[kY].sources.clear();
  expect_breach(0, 93, at(kDequantiseY), "makes 'y' from 'y32', which is none of its sources");
}

TEST_F(Verify, ARowBeyondItsTensor) {
  text().tensors[kX].rows = 0;
  expect_breach(0, 30, at(kReadX), "of 'x', which has 0");
}

// Memory.

TEST_F(Verify, AnAddressOutsideOfItsAllocation) {
  at(kReadX).address = 1;
  expect_breach(
      0,
      30,
      at(kReadX),
      "reads 'x' row 0 at west slice 8 address 1, outside its allocation: the row lies at west slice 8 address 0");
}

TEST_F(Verify, AWriteToStaticRows) {
  at(kWriteX).operands[0].tensor = kEmbedding;
  expect_breach(0, 9, at(kWriteX), "writes to 'e', which is static");
}

TEST_F(Verify, AReadOneCycleBeforeTheRowSettles) {
  for (const int each : {kReadX, kComputeY, kDrainY, kDequantiseY, kWriteY, kReadY, kSendY, kReceiveY, kWritePeer}) {
    --at(each).start;
  }
  expect_breach(0, 29, at(kReadX), "reads 'x' row 0 1 cycles too early");
}

TEST_F(Verify, AReadOfWhatIsNeverWritten) {
  text().allocations.push_back(cells(kX, 8, 7, 0));
  at(kReadX).address = 7;
  expect_breach(0, 30, at(kReadX), "which this iteration never writes there");
}

TEST_F(Verify, ARowOverwrittenBeforeItsLastReader) {
  text().allocations[3] = cells(kY, 8, 0, 0);  // y lies on x, which is read once more
  at(kWriteY).index = at(kReadY).index = 8;
  expect_legal();
  add(instruction(Opcode::kRead, 110, 8, 0, {operand(kOut, kInward, 12, 1, kX, 0, 0)}));
  expect_breach(0, 101, at(kWriteY), "writes 'y' row 0 over live 'x' row 0");
}

TEST_F(Verify, ARowOverwrittenByTheNextIteration) {
  // y of the peer, written in 637, is read 640 cycles later: the next iteration's is written over it at 637 + 640.
  program.token_latency = program.busy_span = text().makespan = 2000;
  add(instruction(Opcode::kRead, 1276, 10, 0, {operand(kOut, kInward, 12, 1, kY, 1, 0)}));
  expect_legal();
  text().instructions.back().start = 1277;
  expect_breach(0, 637, at(kWritePeer), "over live 'y' row 1 of the iteration 1 earlier");
}

TEST_F(Verify, CopiesKeepOverlappingIterationsApart) {
  program.token_latency = program.busy_span = text().makespan = 2000;
  text().registers.push_back({.kind = RegisterKind::kBuffer, .copies = 2, .stride = 2, .table = {}});
  text().allocations[4].base_register = 1;
  at(kWritePeer).base_register = 1;
  Instruction late = instruction(Opcode::kRead, 1300, 10, 0, {operand(kOut, kInward, 12, 1, kY, 1, 0)});
  late.base_register = 1;
  add(late);
  expect_legal();
  late.start = 637 + 1280;
  text().instructions.back() = late;
  expect_breach(0, 637, at(kWritePeer), "of the iteration 2 earlier");
}

TEST_F(Verify, AnAccessWithoutItsBaseRegister) {
  text().registers.push_back({.kind = RegisterKind::kBuffer, .copies = 2, .stride = 2, .table = {}});
  text().allocations[1].base_register = 1;
  at(kWriteX).base_register = 1;
  expect_breach(0, 30, at(kReadX), "the row lies at west slice 8 address 0 by register 1");
}

TEST_F(Verify, ScratchOnStaticRows) {
  text().allocations[1] = cells(kX, 28, 0, 0);
  expect_breach_of_chip(0, "allocation 1 of 'x' and one of 'w' both hold west slice 28 address 0");
}

TEST_F(Verify, AnAllocationOutsideOfTheChip) {
  text().registers.push_back({.kind = RegisterKind::kBuffer, .copies = 100, .stride = 100, .table = {}});
  text().allocations[1].base_register = 1;
  expect_breach_of_chip(0, "outside the chip");
}

// MXM.

TEST_F(Verify, AComputeBeforeItsTileIsInstalled) {
  for (const int each : {kReadW, kInstallW}) {
    at(each).start += 24;  // complete in 40, the compute's cycle
  }
  expect_breach(0, 40, at(kComputeY), "computes with tile 'w' row 0 before it is installed");
}

TEST_F(Verify, AComputeOfATileThatIsNotThere) {
  at(kComputeY).operands[1].row = 32;
  expect_breach(0, 40, at(kComputeY), "'w' row 32, which is never installed");
}

/// A second tile, rows 32 .. 63 of w at addresses 2 and 3, installed `delay` cycles after the first.
void add_second_tile(ClusterProgram& program, int delay) {
  node::ChipProgram& text = program.texts[0];
  Allocation more = text.allocations[2];
  more.row = 32;
  more.address = 2;
  text.allocations.push_back(more);
  Instruction read = text.instructions[kReadW];
  read.start += delay;
  read.address = 2;
  read.operands[0].row = 32;
  Instruction install = text.instructions[kInstallW];
  install.start += delay;
  install.operands[0].row = install.operands[1].row = 32;
  Instruction read_x = text.instructions[kReadX];
  read_x.start += 60;
  Instruction compute = text.instructions[kComputeY];
  compute.start += 60;
  compute.address = 1;
  compute.operands[1].row = 32;
  Instruction drain = text.instructions[kDrainY];
  drain.start += 80;
  drain.address = 1;
  drain.operands[0].row = 4;
  text.instructions.insert(text.instructions.end(), {read, install, read_x, compute, drain});
}

TEST_F(Verify, ATileIsFilledBehindTheOneInUse) {
  add_second_tile(program, 25);
  expect_legal();
}

TEST_F(Verify, ABufferRefilledBeforeItsTileIsTakenUp) {
  add_second_tile(program, 24);  // from cycle 39; the first compute takes up the first tile in 40
  const Instruction install = text().instructions[kTinyInstructions + 1];
  expect_breach(0, 39, install, "MXM plane west 0 weight buffer");
}

TEST_F(Verify, ATileNamedAfterAnotherHasTakenItsPlace) {
  add_second_tile(program, 25);
  Instruction again = at(kComputeY);
  again.start = 110;
  again.address = 2;
  add(again);
  Instruction drain = at(kDrainY);
  drain.start = 170;
  drain.address = 2;
  drain.operands[0].row = 8;
  add(drain);
  Instruction read = at(kReadX);
  read.start = 100;
  add(read);
  expect_breach(0, 100, text().instructions[kTinyInstructions + 3], "MXM plane west 0 array");
}

TEST_F(Verify, ATileThatNobodyUses) {
  add_second_tile(program, 25);
  text().instructions.resize(kTinyInstructions + 2);
  const Instruction install = text().instructions[kTinyInstructions + 1];
  expect_breach(0, 41, install, "which no compute takes up");
}

TEST_F(Verify, AnAccumulatorDrainedEarly) {
  at(kDrainY).start = 79;
  expect_breach(0, 79, at(kDrainY), "drains accumulator 0 of MXM plane west 0 1 cycles early");
}

TEST_F(Verify, ADrainBeforeAllOfItsComputes) {
  at(kDrainY).argument = 2;
  expect_breach(0, 80, at(kDrainY), "drains accumulator 0 of MXM plane west 0 after 1 of 2 computes: too early");
}

TEST_F(Verify, ADrainOfNothing) {
  at(kDrainY).address = 3;
  expect_breach(0, 80, at(kDrainY), "drains accumulator 3 of MXM plane west 0, which holds no sum");
}

TEST_F(Verify, AnAdditionToNothing) {
  at(kComputeY).mode = 0;
  expect_breach(0, 40, at(kComputeY), "adds to accumulator 0 of MXM plane west 0, which holds no sum");
}

TEST_F(Verify, AnAccumulatorBeyondThePlane) {
  at(kComputeY).address = 64;
  expect_breach(0, 40, at(kComputeY), "accumulator 64 of 64");
}

TEST_F(Verify, AnActivationAddedTwice) {
  Instruction read = at(kReadX);
  ++read.start;
  add(read);
  Instruction compute = at(kComputeY);
  ++compute.start;
  compute.mode = 0;
  add(compute);
  at(kDrainY).argument = 2;
  at(kDrainY).start = 81;
  expect_breach(0, 81, at(kDrainY), "into which 'x' row 0 was added twice");
}

TEST_F(Verify, AnAccumulatorTakenBeforeItsDrain) {
  add_second_tile(program, 25);
  text().instructions[kTinyInstructions + 3].address = 0;
  text().instructions[kTinyInstructions + 3].start = 60;
  text().instructions[kTinyInstructions + 2].start = 50;
  text().instructions[kTinyInstructions + 4].address = 0;
  expect_breach(
      0, 60, text().instructions[kTinyInstructions + 3], "overwrites accumulator 0 of MXM plane west 0, whose sum");
}

TEST_F(Verify, AnAccumulatorTakenByTheNextIteration) {
  program.initiation_interval = program.plan.initiation_interval = 40;  // the next compute falls on this one's drain
  expect_breach(0, 80, at(kComputeY), "accumulator 0 (a sum's from its first compute to its drain) is taken twice");
}

// Caches, experts, tokens.

/// Two users' cache of 4 keys: position p at slice 24 + p mod 2, address 100 + p / 2, the second user's 16 addresses
/// on.
///
///     200  read e (slice 0)   201  copy -> key   213  append (slice 24, register 2)   234  read key 3 of the cache
///     (register 1)
struct CacheFragment {
  static constexpr std::uint16_t kKey = 6, kCache = 7;
  Instruction read_e, copy, append, read;

  explicit CacheFragment(ClusterProgram& program) {
    program.user_slots = 2;
    program.plan.context = 4;
    node::ChipProgram& text = program.texts[0];
    text.tensors.push_back({.name = "key", .rows = 1, .sources = {kEmbedding}});
    text.tensors.push_back({.name = "keys", .scope = TensorScope::kCache, .rows = 4, .sources = {kKey}});
    BaseRegister user;
    user.kind = RegisterKind::kUser;
    user.table = {{}, {.address = 16}};
    text.registers.push_back(user);
    user.kind = RegisterKind::kAppend;
    user.append = {.is_column = true,
                   .positions_per_tile = 4,
                   .planes = 1,
                   .hemisphere = 0,
                   .plane = 0,
                   .columns = 2,
                   .slice_stride = 1,
                   .first_column = 0,
                   .columns_per_cycle = 2,
                   .round_stride = 2,
                   .row_stride = 1};
    text.registers.push_back(user);
    Allocation keys = cells(kEmbedding, 24, 100, 0, 2);
    keys.tensor = kCache;
    keys.base_register = 1;
    keys.row_stride[0] = 2;
    keys.count[1] = 2;
    keys.row_stride[1] = 1;
    keys.slice_stride[1] = 1;
    Allocation appended = cells(kEmbedding, 24, 100, 0);
    appended.tensor = kCache;
    appended.base_register = 2;
    text.allocations.insert(text.allocations.end(), {keys, appended});
    read_e = instruction(Opcode::kRead, 200, 0, 0, {operand(kOut, kInward, 1, 1, kEmbedding, 0, 0)});
    copy = instruction(Opcode::kCopy,
                       201,
                       0,
                       0,
                       {operand(kIn, kInward, 1, 1, kEmbedding, 0), operand(kOut, kOutward, 20, 1, kKey, 0, 7)});
    append = instruction(Opcode::kWrite, 213, 24, 100, {operand(kIn, kOutward, 20, 1, kKey, 0)});
    append.base_register = 2;
    read = instruction(Opcode::kRead, 234, 25, 101, {operand(kOut, kInward, 2, 1, kCache, 3, 0)});
    read.base_register = 1;
  }
  void add_to(ClusterProgram& program) const {
    auto& all = program.texts[0].instructions;
    all.insert(all.end(), {read_e, copy, append, read});
  }
};

TEST_F(Verify, ACacheIsAppendedToAndRead) {
  CacheFragment(program).add_to(program);
  expect_legal();
}

TEST_F(Verify, AnAppendBesideItsCache) {
  CacheFragment fragment(program);
  fragment.append.address = 101;
  fragment.add_to(program);
  expect_breach(0, 213, fragment.append, "appends 'key' row 0 at west slice 24 address 101 by register 2");
}

TEST_F(Verify, AnAppendWhoseMapIsNotTheCaches) {
  CacheFragment fragment(program);
  text().registers[2].append.columns_per_cycle = 4;
  text().registers[2].append.columns = 4;
  fragment.add_to(program);
  expect_breach(0, 213, fragment.append, "where no cache of that user holds the row");
}

TEST_F(Verify, AnAppendForAnotherUsersCache) {
  CacheFragment fragment(program);
  text().registers[2].table[1].address = 18;
  fragment.add_to(program);
  expect_breach(0, 213, fragment.append, "where no cache of that user holds the row");
}

TEST_F(Verify, AnAppendOfWhatIsNoSourceOfTheCache) {
  CacheFragment fragment(program);
  text().tensors[CacheFragment::kCache].sources.clear();
  fragment.add_to(program);
  expect_breach(0, 213, fragment.append, "no allocation with that register holds a row of a cache made from it");
}

TEST_F(Verify, APositionThatIsNotAppended) {
  CacheFragment fragment(program);
  text().registers[2].append.columns = 1;  // even positions only
  fragment.add_to(program);
  expect_breach(0, 213, fragment.append, "'keys' gets 0 rows at position 1 and 1 at position 0: an append is missing");
}

TEST_F(Verify, ACacheReadBeforeTheAppendHasSettled) {
  CacheFragment fragment(program);
  fragment.read.start = 233;
  fragment.add_to(program);
  expect_breach(0, 233, fragment.read, "reads 'keys' row 3 1 cycles too early");
}

TEST_F(Verify, UsersWhoseCachesOverlap) {
  CacheFragment fragment(program);
  text().registers[1].table[1].address = text().registers[2].table[1].address = 1;
  fragment.add_to(program);
  expect_breach_of_chip(0,
                        "allocation 6 of 'keys' and one of 'keys' (user slot 0) both hold west slice 24 address 101");
}

TEST_F(Verify, ACacheThatAllUsersShare) {
  CacheFragment fragment(program);
  text().allocations[6].base_register = 0;
  fragment.read.base_register = 0;
  fragment.add_to(program);
  expect_breach_of_chip(0, "is the same for all 2 users");
}

/// Rows of four experts, two addresses apart; the copy takes the row of expert slot 0.
struct ExpertFragment {
  static constexpr std::uint16_t kExperts = 6, kChosen = 7;
  Instruction read, copy;

  explicit ExpertFragment(ClusterProgram& program) {
    program.plan.experts = 4;
    program.plan.experts_per_token = program.plan.expert_slots = 2;
    node::ChipProgram& text = program.texts[0];
    text.tensors.push_back({.name = "experts", .scope = TensorScope::kStatic, .rows = 4, .sources = {}});
    text.tensors.push_back({.name = "chosen", .rows = 1, .sources = {kExperts}});
    for (int slot = 0; slot < 2; ++slot) {
      BaseRegister expert;
      expert.kind = RegisterKind::kExpert;
      expert.stride = 2;
      expert.row_stride = 1;
      expert.experts = 4;
      expert.expert_slot = slot;
      text.registers.push_back(expert);
    }
    Allocation rows = cells(kEmbedding, 24, 200, 0);
    rows.tensor = kExperts;
    rows.base_register = 1;
    text.allocations.push_back(rows);
    read = instruction(Opcode::kRead, 200, 24, 200, {operand(kOut, kInward, 1, 1, kExperts, 0, 0)});
    read.base_register = 1;
    read.operands[0].is_registered = 1;
    copy = instruction(Opcode::kCopy,
                       207,
                       0,
                       0,
                       {operand(kIn, kInward, 1, 1, kExperts, 0), operand(kOut, kOutward, 20, 1, kChosen, 0, 0)});
    copy.base_register = 1;
    copy.operands[0].is_registered = 1;
  }
  void add_to(ClusterProgram& program) const {
    auto& all = program.texts[0].instructions;
    all.insert(all.end(), {read, copy});
  }
};

TEST_F(Verify, ExpertSlotsOfOneLayoutShareAnAllocation) {
  ExpertFragment fragment(program);
  fragment.read.base_register = fragment.copy.base_register = 2;
  fragment.add_to(program);
  expect_legal();
}

TEST_F(Verify, TheRowOfAnotherExpertSlot) {
  ExpertFragment fragment(program);
  fragment.read.base_register = 2;
  fragment.add_to(program);
  expect_breach(0, 207, fragment.copy, "holds 'experts' row 0 by register 2, put there by");
}

TEST_F(Verify, ARowThatDoesNotMoveWithItsRegister) {
  ExpertFragment fragment(program);
  fragment.read.operands[0].is_registered = 0;
  fragment.add_to(program);
  expect_breach(0, 200, fragment.read, "names a row of 'experts' that does not move with base register 1");
}

TEST_F(Verify, ExpertsThatOverlapOtherRows) {
  ExpertFragment fragment(program);
  text().allocations.push_back(cells(kWeights, 24, 206, 60));
  fragment.add_to(program);
  expect_breach_of_chip(0, "both hold west slice 24 address 206");
}

/// Token v's row in hemisphere v mod 2; a select takes the one that is there.
struct TokenFragment {
  static constexpr std::uint16_t kTable = 6, kRow = 7;
  Instruction read_west, read_east, select, write;

  explicit TokenFragment(ClusterProgram& program) {
    program.plan.vocabulary = 6;
    node::ChipProgram& text = program.texts[0];
    text.tensors.push_back({.name = "table", .scope = TensorScope::kStatic, .rows = 6, .sources = {}});
    text.tensors.push_back({.name = "token", .rows = 1, .sources = {kTable}});
    text.allocations.push_back(cells(kEmbedding, 21, 310, 0));
    text.allocations.back().tensor = kRow;
    for (int hemisphere = 0; hemisphere < 2; ++hemisphere) {
      BaseRegister token;
      token.kind = RegisterKind::kToken;
      token.stride = 1;
      token.row_stride = 1;
      token.experts = 6;
      token.append.hemisphere = hemisphere;
      token.table = {{}, {.slice = 4, .address = 50}};
      text.registers.push_back(token);
      Allocation rows = cells(kEmbedding, 20, 300, 0);
      rows.tensor = kTable;
      rows.hemisphere = static_cast<Hemisphere>(hemisphere);
      rows.base_register = static_cast<std::uint16_t>(1 + hemisphere);
      text.allocations.push_back(rows);
    }
    read_west = instruction(Opcode::kRead, 200, 20, 300, {operand(kOut, kInward, 1, 1, kTable, 0, 0)});
    read_west.base_register = 1;
    read_west.operands[0].is_registered = 1;
    read_east = read_west;
    read_east.hemisphere = read_east.operands[0].hemisphere = Hemisphere::kEast;
    read_east.base_register = 2;
    select = instruction(Opcode::kSelect,
                         206,
                         0,
                         0,
                         {operand(kIn, kInward, 1, 1, kTable, 0),
                          operand(kIn, kInward, 1, 1, kTable, 0),
                          operand(kOut, kOutward, 20, 1, kRow, 0, 6)});
    select.operands[1].hemisphere = Hemisphere::kEast;
    select.base_register = 1;
    select.operands[0].is_registered = select.operands[1].is_registered = 1;
    write = instruction(Opcode::kWrite, 217, 21, 310, {operand(kIn, kOutward, 20, 1, kRow, 0)});
  }
  void add_to(ClusterProgram& program) const {
    auto& all = program.texts[0].instructions;
    all.insert(all.end(), {read_west, read_east, select, write});
  }
};

TEST_F(Verify, ATokensRowLiesInOneOfTwoHemispheres) {
  TokenFragment(program).add_to(program);
  expect_legal();
}

TEST_F(Verify, ATokenThatNobodyWritesIsNotReadBy) {
  TokenFragment fragment(program);
  text().instructions.insert(text().instructions.end(), {fragment.read_west, fragment.read_east, fragment.select});
  expect_breach(0, 199, fragment.read_west, "reads by the token of user 0 of the micro-batch, which this chip never");
}

TEST_F(Verify, ATokensRowThatMayBeAbsentIsSelected) {
  TokenFragment fragment(program);
  fragment.select.opcode = Opcode::kAdd;
  fragment.add_to(program);
  expect_breach(0, 206, fragment.select, "leaves out where its base register is disabled; only a select may");
}

TEST_F(Verify, EveryPieceOfATokensTableIsReserved) {
  TokenFragment fragment(program);
  fragment.add_to(program);
  text().allocations.push_back(cells(kEmbedding, 24, 0, 0));
  add(instruction(Opcode::kRead, 199, 24, 0, {operand(kOut, kInward, 25, 1, kEmbedding, 0, 7)}));
  expect_breach(0, 199, fragment.read_west, "west slice 24 read port is taken twice");
}

// Transfers.

TEST_F(Verify, AMissingSend) {
  split();
  text().instructions.erase(text().instructions.begin() + kSendY);
  expect_breach(1, 628, at(kReceiveY, 1), "which sends only 0 vectors an iteration: missing send", 1);
}

TEST_F(Verify, AMissingReceive) {
  split();
  text().instructions.erase(text().instructions.begin() + kReceiveY, text().instructions.end());
  expect_breach(1, 131, at(kSendY, 1), "missing receive, the vector is left over", 1);
}

TEST_F(Verify, AReceiveOneCycleOff) {
  ++at(kReceiveY).start;
  ++at(kWritePeer).start;
  expect_breach(0, 629, at(kReceiveY), "it arrives in cycle 628");
}

TEST_F(Verify, AReceiveMayWaitAndSaysHowLong) {
  ++at(kReceiveY).start;
  ++at(kWritePeer).start;
  at(kReceiveY).argument = 1;
  expect_legal();
}

TEST_F(Verify, AReceiveBeforeItsArrival) {
  --at(kReceiveY).start;
  --at(kWritePeer).start;
  expect_breach(0, 627, at(kReceiveY), "after it is taken");
}

TEST_F(Verify, OffsetsOfStagesCount) {
  program.bindings[1].offset = 1;
  program.token_latency = 641;
  expect_breach(1, 628, at(kReceiveY), "it arrives in cycle 627");
}

TEST_F(Verify, ASendOverAnUnwiredLink) {
  at(kSendY).index = 1;
  expect_breach(0, 131, at(kSendY), "link 1, which is not wired");
}

TEST_F(Verify, APeerThatDoesNotLeadBack) {
  program.bindings[0].peers[0].link = 3;
  expect_breach(0, 131, at(kSendY), "link 0 is said to lead to the wrong peer: chip 1 link 3, which leads nowhere");
}

TEST_F(Verify, AReceiveFromTheWrongLink) {
  for (int chip = 0; chip < 2; ++chip) {
    program.bindings[static_cast<std::size_t>(chip)].peers[2] = {.chip = 1 - chip, .link = 2};
  }
  split();
  at(kReceiveY).index = 2;
  expect_breach(0, 628, at(kReceiveY), "missing send");
}

TEST_F(Verify, ATransferOfAnotherName) {
  split().transfers[0].name = "gather z";
  expect_breach(1, 628, at(kReceiveY, 1), "expects 'gather z'", 1);
}

TEST_F(Verify, ATransferOfTheWrongLength) {
  text().transfers[0].vectors = 2;
  expect_breach(0, 131, at(kSendY), "sends 1 vectors of transfer 'gather y' on link 0; its length is 2");
}

TEST_F(Verify, AValueOfAnotherOwner) {
  program.bindings[1].slot_owner = {1, 1};
  expect_breach(1, 628, at(kReceiveY), "expects 'gather y' ('y' layer 0 row 0 of group position 1)");
}

TEST_F(Verify, AValueOfAnotherLayer) {
  program.bindings[1].first_layer = 4;
  expect_breach(0, 628, at(kReceiveY), "sends 'gather y' ('y' layer 4");
}

/// Five vectors are pushed in a row instead of one; each further one waits in the queue of the near end.
void send_five(ClusterProgram& program, int count) {
  node::ChipProgram& text = program.texts[0];
  text.transfers[0].vectors = count;
  for (const int each : {kReadY, kSendY}) {
    text.instructions[static_cast<std::size_t>(each)].count[0] = static_cast<std::uint16_t>(count);
    text.instructions[static_cast<std::size_t>(each)].period[0] = 1;
  }
  for (const int each : {kReceiveY, kWritePeer}) {
    text.instructions[static_cast<std::size_t>(each)].count[0] = static_cast<std::uint16_t>(count);
    text.instructions[static_cast<std::size_t>(each)].period[0] = 24;
  }
  text.instructions[kWritePeer].mode = node::kWriteMasked;
  program.token_latency = program.busy_span = text.makespan = 800;
  program.initiation_interval = program.plan.initiation_interval = 800;
}

TEST_F(Verify, AQueueHoldsFourAndServesOneEvery24Cycles) {
  send_five(program, 5);  // the first leaves at once, four wait
  expect_legal();
}

TEST_F(Verify, AQueueThatWouldHoldFive) {
  send_five(program, 6);
  expect_breach(0, 136, at(kSendY), "queue of link 0 at its near end would hold 5 vectors");
}

TEST_F(Verify, AFarQueueThatWouldHoldFive) {
  send_five(program, 5);
  at(kReceiveY).start = at(kReceiveY).start + 5 * 24;
  at(kReceiveY).argument = 5 * 24;
  at(kWritePeer).start += 5 * 24;
  expect_breach(0, 844, at(kReceiveY), "at its far end would hold 5 vectors");
}

TEST_F(Verify, ALinkBusyWithTheVectorsOfTwoIterations) {
  send_five(program, 5);
  program.initiation_interval = program.plan.initiation_interval = 110;
  expect_breach(0, 241, at(kSendY), "link 0 (a vector takes it for its serialisation) is taken twice");
}

TEST_F(Verify, WaitsInACircleAreNamed) {
  // Each chip sends what it makes from what the other sends: y comes from y.
  text().tensors[kY].sources.push_back(kY);
  text().instructions.erase(text().instructions.begin() + kReadE, text().instructions.begin() + kReadY);
  text().instructions.clear();
  text().instructions = {
      instruction(Opcode::kReceive, 10, 0, 0, {operand(kOut, kInward, 5, 1, kY, 1, 0)}),
      instruction(
          Opcode::kCopy, 22, 0, 0, {operand(kIn, kInward, 5, 1, kY, 1), operand(kOut, kOutward, 17, 1, kY, 0, 12)}),
      instruction(Opcode::kSend, 39, 0, 0, {operand(kIn, kOutward, 17, 1, kY, 0)}),
  };
  expect_breach(0,
                10,
                at(0),
                "circular wait: chip 0 instruction 0 (receive, cycle 10) waits for chip 1 instruction 2 (send, cycle "
                "39), which comes "
                "after chip 1 instruction 0 (receive, cycle 10), which waits for chip 0 instruction 2 (send, cycle "
                "39), which comes "
                "after it");
}

}  // namespace
}  // namespace lpu::scheduler
