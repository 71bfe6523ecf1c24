#include "lpu/node/checked_chip.hpp"

#include <algorithm>
#include <optional>

#include <gtest/gtest.h>

#include "lpu/cluster/run_program.hpp"
#include "lpu/node/error.hpp"
#include "test_program.hpp"

// Every rule of node/README.md: a legal program, then one breach of it, which the checked mode names by chip and
// instruction.
namespace lpu {
namespace {

using node::Opcode;

scheduler::ClusterProgram make_pair() {
  return test::make_ring({.stages = 1, .group = 2, .phases = 2, .vectors = 2, .user_slots = 4});
}

std::optional<node::Violation> run_checked(const scheduler::ClusterProgram& program,
                                           std::int32_t users = 1,
                                           std::int64_t tokens = 2) {
  cluster::RunOptions options;
  options.users = users;
  options.tokens = tokens;
  options.checks = cluster::Checks::kAll;
  try {
    (void)cluster::run_program(program, options);
  } catch (const node::ScheduleViolation& violation) {
    return violation.violation();
  }
  return std::nullopt;
}

std::int32_t find(const node::ChipProgram& text, Opcode opcode, std::int32_t nth = 0) {
  for (std::size_t i = 0; i < text.instructions.size(); ++i) {
    if (text.instructions[i].opcode == opcode && nth-- == 0) {
      return static_cast<std::int32_t>(i);
    }
  }
  throw std::logic_error("no such instruction in the test's program");
}

node::Instruction& at(node::ChipProgram& text, Opcode opcode, std::int32_t nth = 0) {
  return text.instructions[static_cast<std::size_t>(find(text, opcode, nth))];
}

/// The breach of `program` is on chip 0 and its reason contains `reason`.
void expect_breach(const scheduler::ClusterProgram& program,
                   const std::string& reason,
                   std::optional<std::int32_t> instruction = {},
                   std::int32_t users = 1) {
  const auto violation = run_checked(program, users);
  ASSERT_TRUE(violation.has_value()) << "runs without a violation; expected: " << reason;
  EXPECT_NE(violation->reason.find(reason), std::string::npos) << violation->message();
  EXPECT_GE(violation->chip, 0) << violation->message();
  if (instruction) {
    EXPECT_EQ(violation->instruction, *instruction) << violation->message();
    EXPECT_GE(violation->cycle, 0) << violation->message();
  }
}

TEST(CheckedChip, LegalProgramRunsWithTheFingerprintOfTheFastMode) {
  for (const test::RingShape& shape :
       {test::RingShape{.stages = 1, .group = 1, .phases = 1, .vectors = 1},
        test::RingShape{.stages = 3, .group = 3, .phases = 2, .vectors = 5},
        test::RingShape{.stages = 2, .group = 8, .phases = 2, .vectors = 12, .fillers = 5}}) {
    const scheduler::ClusterProgram program = test::make_ring(shape);
    cluster::RunOptions options{.tokens = 3};
    const cluster::RunResult fast = cluster::run_program(program, options);
    options.checks = cluster::Checks::kAll;
    const cluster::RunResult checked = cluster::run_program(program, options);
    EXPECT_EQ(checked.fingerprint, fast.fingerprint);
    EXPECT_EQ(checked.arrivals_checked, fast.arrivals_checked);
  }
}

// Each instruction of the program starts when the one before lets it: none may start a cycle earlier.
TEST(CheckedChip, NoInstructionMayStartOneCycleEarlier) {
  const scheduler::ClusterProgram program = make_pair();
  for (std::size_t i = 0; i < program.texts[0].instructions.size(); ++i) {
    scheduler::ClusterProgram broken = program;
    node::Instruction& moved = broken.texts[0].instructions[i];
    const bool is_free = moved.opcode == Opcode::kRead && moved.start == 0;
    if (is_free) {
      continue;
    }
    --moved.start;
    EXPECT_TRUE(run_checked(broken).has_value())
        << "instruction " << i << " (" << node::info(moved.opcode).name << ") one cycle early was not seen";
  }
}

TEST(CheckedChip, NoInstructionMayBeMissing) {
  const scheduler::ClusterProgram program = make_pair();
  for (std::size_t i = 0; i < program.texts[0].instructions.size(); ++i) {
    const node::Instruction& gone = program.texts[0].instructions[i];
    if (gone.opcode == Opcode::kWrite &&
        (gone.hemisphere == node::Hemisphere::kEast || i + 1 == program.texts[0].instructions.size())) {
      continue;  // rows that no later instruction reads
    }
    scheduler::ClusterProgram broken = program;
    broken.texts[0].instructions.erase(broken.texts[0].instructions.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_TRUE(run_checked(broken).has_value())
        << "missing instruction " << i << " (" << node::info(gone.opcode).name << ")";
  }
}

TEST(CheckedChip, ReadPortTakenTwice) {
  scheduler::ClusterProgram program = make_pair();
  auto& text = program.texts[0];
  node::Instruction second = at(text, Opcode::kRead);
  second.start += 1;
  second.count[0] = 1;
  second.operands[0].stream = 30;
  text.instructions.push_back(second);
  expect_breach(program, "read port of slice W 0", static_cast<std::int32_t>(text.instructions.size()) - 1);
}

TEST(CheckedChip, BankTakenTwice) {
  scheduler::ClusterProgram program = make_pair();
  auto& text = program.texts[0];
  // Rows 1 and 0 of what a write puts there from cycle 8 on: the read of row 0 in cycle 8 wants the bank that is
  // written.
  const node::Instruction write = at(text, Opcode::kWrite, 0);
  ASSERT_EQ(write.start, 8);
  node::Instruction read = *std::find_if(text.instructions.begin(), text.instructions.end(), [&](const auto& i) {
    return i.opcode == Opcode::kRead && i.index == write.index && i.hemisphere == write.hemisphere;
  });
  read.start = 7;
  read.count[0] = 2;
  read.period[0] = 1;
  read.address += 1;
  read.address_stride[0] = -1;
  read.operands[0].row = 1;
  read.operands[0].row_stride[0] = -1;
  read.operands[0].stream = 30;
  text.instructions.push_back(read);
  expect_breach(program, "bank 0 of slice W 4", static_cast<std::int32_t>(text.instructions.size()) - 1);
}

TEST(CheckedChip, StreamRegisterTakenTwice) {
  scheduler::ClusterProgram program = make_pair();
  auto& text = program.texts[0];
  at(text, Opcode::kAdd).operands[2] = at(text, Opcode::kAdd).operands[1];
  expect_breach(program, "stream W outward 1", find(text, Opcode::kAdd));
}

TEST(CheckedChip, AluTakenTwice) {
  scheduler::ClusterProgram program = make_pair();
  auto& text = program.texts[0];
  node::Instruction second = at(text, Opcode::kAdd);
  second.operands = {};
  second.start += 1;
  text.instructions.push_back(second);
  expect_breach(program, "ALU 0", static_cast<std::int32_t>(text.instructions.size()) - 1);
}

TEST(CheckedChip, AluBeyondTheLast) {
  scheduler::ClusterProgram program = make_pair();
  at(program.texts[0], Opcode::kAdd).alus = 17;
  expect_breach(program, "takes ALUs 0 to 16 of 16");
}

TEST(CheckedChip, CrossbarTakenTwiceAndTooManyStreams) {
  scheduler::ClusterProgram program = make_pair();
  auto& text = program.texts[0];
  node::Instruction rotate;
  rotate.opcode = Opcode::kRotate;
  rotate.start = 5;
  text.instructions.push_back(rotate);
  rotate.opcode = Opcode::kTranspose;
  text.instructions.push_back(rotate);
  expect_breach(program, "SXM 0", static_cast<std::int32_t>(text.instructions.size()) - 1);
  text.instructions.pop_back();
  node::StreamOperand wide = at(text, Opcode::kRead).operands[0];
  wide.kind = node::OperandKind::kIn;
  wide.streams = 17;
  text.instructions.back().operands[0] = wide;
  expect_breach(program, "takes 17 streams");
}

TEST(CheckedChip, AccessOutsideOfItsAllocation) {
  scheduler::ClusterProgram program = make_pair();
  at(program.texts[0], Opcode::kWrite, 0).address += 100;
  expect_breach(program, "outside of its allocations", find(program.texts[0], Opcode::kWrite, 0));
}

TEST(CheckedChip, AccessOfAnotherRow) {
  scheduler::ClusterProgram program = make_pair();
  at(program.texts[0], Opcode::kRead, 0).operands[0].row += 1;
  expect_breach(program, "reads row 1 of 'embedding'", find(program.texts[0], Opcode::kRead, 0));
}

TEST(CheckedChip, StaticRowsAreNeverWritten) {
  scheduler::ClusterProgram program = make_pair();
  program.texts[0].tensors[at(program.texts[0], Opcode::kWrite, 0).operands[0].tensor].scope =
      node::TensorScope::kStatic;
  expect_breach(program, "which is static", find(program.texts[0], Opcode::kWrite, 0));
}

TEST(CheckedChip, AllocationsDoNotShareAPlaceWithStaticRows) {
  scheduler::ClusterProgram program = make_pair();
  node::Allocation twice = program.texts[0].allocations[0];
  twice.tensor = static_cast<std::uint16_t>(program.texts[0].tensors.size() - 1);
  program.texts[0].allocations.push_back(twice);
  expect_breach(program, "holds row 0 of 'embedding' and row 0 of 'program_text'");
}

TEST(CheckedChip, AllocationOutsideOfSram) {
  scheduler::ClusterProgram program = make_pair();
  program.texts[0].allocations[0].address = 8191;
  expect_breach(program, "outside of SRAM");
}

TEST(CheckedChip, ProgramTextOverItsAllocation) {
  scheduler::ClusterProgram program = make_pair();
  program.texts[0].allocations.back().count[0] -= 1;
  expect_breach(program, "program text takes");
}

TEST(CheckedChip, FetchOverBudget) {
  scheduler::ClusterProgram program = make_pair();
  program.chip.fetch_bytes_per_cycle = 48;
  expect_breach(program, "of program text in one cycle");
}

TEST(CheckedChip, QueueStartsTwoBursts) {
  scheduler::ClusterProgram program = make_pair();
  node::Instruction second = at(program.texts[0], Opcode::kAdd);
  second.operands = {};
  second.alus = 1;
  program.texts[0].instructions.push_back(second);
  expect_breach(program, "instruction queue", static_cast<std::int32_t>(program.texts[0].instructions.size()) - 1);
}

TEST(CheckedChip, InputThatIsNoSource) {
  scheduler::ClusterProgram program = make_pair();
  program.texts[0].tensors[at(program.texts[0], Opcode::kAdd).operands[1].tensor].sources.clear();
  expect_breach(program, "none of its sources", find(program.texts[0], Opcode::kAdd));
}

TEST(CheckedChip, ValueOfAnotherTensorOnTheStream) {
  scheduler::ClusterProgram program = make_pair();
  auto& text = program.texts[0];
  node::Instruction& multiply = at(text, Opcode::kCompute);
  multiply.operands[0].row -= 2;
  expect_breach(program, "where row 2 of 'g0' of iteration 0 stands", find(text, Opcode::kCompute));
}

TEST(CheckedChip, LiveRowOverwritten) {
  // A second tensor shares the place of x1 and is written between x1's write and its read.
  scheduler::ClusterProgram program = make_pair();
  auto& text = program.texts[0];
  const node::Instruction convert = at(text, Opcode::kConvert);
  const node::Instruction write = *std::find_if(text.instructions.begin(), text.instructions.end(), [&](const auto& i) {
    return i.opcode == Opcode::kWrite && text.tensors[i.operands[0].tensor].name == "x1";
  });
  node::Tensor usurper = text.tensors[write.operands[0].tensor];
  usurper.name = "usurper";
  usurper.sources = {at(text, Opcode::kRead, 0).operands[0].tensor};
  text.tensors.push_back(usurper);
  const auto number = static_cast<std::uint16_t>(text.tensors.size() - 1);
  for (std::size_t i = 0; i < text.allocations.size(); ++i) {
    if (text.allocations[i].tensor == write.operands[0].tensor) {
      node::Allocation same = text.allocations[i];
      same.tensor = number;
      text.allocations.push_back(same);
      break;
    }
  }
  node::Instruction make = convert;  // makes it from row 0 of the embedding
  node::Instruction source = at(text, Opcode::kRead, 0);
  source.count[0] = make.count[0] = 1;
  source.start = convert.start + 4;
  source.operands[0].stream = 25;
  make.start = source.start + 1;
  make.index = 14;
  make.operands[0] = source.operands[0];
  make.operands[0].kind = node::OperandKind::kIn;
  make.operands[1].tensor = number;
  make.operands[1].stream = 26;
  node::Instruction put = write;
  put.count[0] = 1;
  put.start = make.start + 6;
  put.operands[0].tensor = number;
  put.operands[0].stream = 26;
  text.instructions.insert(text.instructions.end(), {source, make, put});
  test::declare_operations(text);
  expect_breach(program, "reads row 0 of 'x1' at hemisphere W, slice 0, address 64, which holds row 0 of 'usurper'");
}

TEST(CheckedChip, AnotherOperationOfTheSameLatency) {
  scheduler::ClusterProgram program = make_pair();
  at(program.texts[0], Opcode::kConvert).opcode = Opcode::kCopy;
  const std::int32_t changed = find(program.texts[0], Opcode::kCopy);
  expect_breach(program, "too many", changed);
}

TEST(CheckedChip, AVectorLessThanTheTensorIsMadeOf) {
  scheduler::ClusterProgram program = make_pair();
  for (node::Tensor& tensor : program.texts[0].tensors) {
    if (!tensor.made_by.empty()) {
      ++tensor.made_by[0].vectors;
      expect_breach(program, " gives 1 vectors of '" + tensor.name + "' too few");
      --tensor.made_by[0].vectors;
    }
  }
}

TEST(CheckedChip, TileUsedBeforeItIsComplete) {
  scheduler::ClusterProgram program = make_pair();
  for (Opcode opcode : {Opcode::kInstall}) {
    node::Instruction& install = at(program.texts[0], opcode);
    install.start += 1;
  }
  for (node::Instruction& read : program.texts[0].instructions) {
    if (read.opcode == Opcode::kRead && read.count[2] == 16) {
      read.start += 1;
      break;
    }
  }
  expect_breach(program, "before its last install", find(program.texts[0], Opcode::kCompute));
}

TEST(CheckedChip, TileThatIsNotInThePlane) {
  scheduler::ClusterProgram program = make_pair();
  at(program.texts[0], Opcode::kCompute).operands[1].row = 1;
  expect_breach(program, "does not stand in its MXM plane", find(program.texts[0], Opcode::kCompute));
}

TEST(CheckedChip, BufferFilledBeforeItsTileIsActive) {
  scheduler::ClusterProgram program = make_pair();
  // Both phases' tiles installed, and only then computed with: the second finds the buffer taken.
  auto& text = program.texts[0];
  const std::int32_t early = at(text, Opcode::kCompute).start - at(text, Opcode::kCompute, 1).start + 1;
  std::int32_t wide = 0;
  for (node::Instruction& read : text.instructions) {
    if (read.opcode == Opcode::kRead && read.count[2] == 16 && ++wide == 2) {
      read.start += early - 2;
      read.operands[0].stream = 16;
    }
  }
  at(text, Opcode::kInstall, 1).start += early - 2;
  const auto violation = run_checked(program);
  ASSERT_TRUE(violation.has_value());
}

TEST(CheckedChip, DrainOneCycleEarly) {
  scheduler::ClusterProgram program = make_pair();
  node::Instruction& drain = at(program.texts[0], Opcode::kDrain);
  drain.start -= 1;
  expect_breach(program, "cycles after its last compute", find(program.texts[0], Opcode::kDrain));
}

TEST(CheckedChip, DrainOfAnIncompleteSum) {
  scheduler::ClusterProgram program = make_pair();
  at(program.texts[0], Opcode::kDrain).argument = 3;
  expect_breach(program, "after 2 of 3 computes", find(program.texts[0], Opcode::kDrain));
}

TEST(CheckedChip, SumOfTheSameRowTwice) {
  scheduler::ClusterProgram program = make_pair();
  auto& text = program.texts[0];
  node::Instruction& compute = at(text, Opcode::kCompute);
  compute.operands[0].row_stride[1] = 0;
  for (node::Instruction& read : text.instructions) {
    if (read.opcode == Opcode::kRead && read.count[1] == 2) {
      read.operands[0].row_stride[1] = 0;
      read.address_stride[1] = 0;
      break;
    }
  }
  expect_breach(program, "that its sum has already", find(text, Opcode::kCompute));
}

TEST(CheckedChip, AccumulatorOverwrittenBeforeItsDrain) {
  scheduler::ClusterProgram program = make_pair();
  at(program.texts[0], Opcode::kCompute).address_stride[0] = 0;
  expect_breach(program, "is not drained yet", find(program.texts[0], Opcode::kCompute));
}

TEST(CheckedChip, AccumulatorBeyondTheLast) {
  scheduler::ClusterProgram program = make_pair();
  at(program.texts[0], Opcode::kCompute).address = 63;
  expect_breach(program, "accumulator 64 of 64", find(program.texts[0], Opcode::kCompute));
}

TEST(CheckedChip, SendQueueOverflows) {
  scheduler::ClusterProgram program = test::make_ring({.stages = 1, .group = 2, .phases = 1, .vectors = 8});
  for (node::Instruction& instruction : program.texts[0].instructions) {
    const bool feeds = instruction.opcode == Opcode::kRead && instruction.index == 4 && instruction.period[0] == 24;
    if (instruction.opcode == Opcode::kSend || feeds) {
      instruction.period[0] = 2;
      instruction.start += 14;  // all rows are readable by then
    }
  }
  expect_breach(program, "wait in the send queue", find(program.texts[0], Opcode::kSend));
}

TEST(CheckedChip, ReceiveQueueHoldsFourVectors) {
  // Everything from the receive on comes later, so that vectors wait: the fifth arrives 96 cycles after the first.
  for (const std::int32_t wait : {96, 97}) {
    scheduler::ClusterProgram program = test::make_ring({.stages = 1, .group = 2, .phases = 1, .vectors = 8});
    node::ChipProgram& text = program.texts[0];
    const std::int32_t from = at(text, Opcode::kReceive).start;
    for (node::Instruction& instruction : text.instructions) {
      instruction.start += instruction.start >= from ? wait : 0;
      instruction.argument += instruction.opcode == Opcode::kReceive ? wait : 0;
    }
    text.makespan += wait;
    program.busy_span += wait;
    program.token_latency += wait;
    program.plan.initiation_interval = program.initiation_interval = program.busy_span;
    if (wait == 96) {
      const auto none = run_checked(program);
      EXPECT_FALSE(none.has_value()) << none->message();
    } else {
      expect_breach(program, "more than 4 vectors wait in the receive queue of link 0", find(text, Opcode::kReceive));
    }
  }
}

TEST(CheckedChip, IntervalTooSmall) {
  scheduler::ClusterProgram program = make_pair();
  program.plan.initiation_interval = program.initiation_interval = 19;  // the tile's install takes 20
  expect_breach(program, "modulo the initiation interval of 19", {}, 2);
  EXPECT_FALSE(run_checked(make_pair(), 2).has_value());
}

TEST(CheckedChip, RowsAndSumsOfOverlappingIterations) {
  // 23 cycles apart no unit is taken twice, but the next iteration overwrites rows that are still read; with a second
  // copy of the buffers only the accumulators are too few.
  test::RingShape shape{.stages = 1, .group = 1, .phases = 1, .vectors = 2, .copies = 1, .interval = 23};
  expect_breach(test::make_ring(shape), "which holds row 0 of 'g0' of another iteration", {}, 4);
  shape.copies = 2;
  expect_breach(test::make_ring(shape), "is not drained yet", {}, 4);
  shape.interval = 60;
  const auto none = run_checked(test::make_ring(shape), 4);
  EXPECT_FALSE(none.has_value()) << none->message();
}

/// One chip that reads static rows through a base register and uses them.
class RegisterProgram {
 public:
  explicit RegisterProgram(const node::BaseRegister& base, node::TensorScope scope, std::int32_t rows) {
    node::ChipProgram text;
    text.registers = {{}, base};
    text.tensors.push_back({.name = "table", .scope = scope, .rows = rows, .sources = {}});
    node::Allocation allocation;
    allocation.base_register = 1;
    text.allocations.push_back(allocation);
    node::Instruction read;
    read.opcode = Opcode::kRead;
    read.start = 20;
    read.base_register = 1;
    read.operands[0].kind = node::OperandKind::kOut;
    read.operands[0].direction = node::Direction::kInward;
    read.operands[0].is_registered = 1;
    node::Instruction use;
    use.opcode = Opcode::kCopy;
    use.start = 21;
    use.alus = 1;
    use.base_register = 1;
    use.operands[0] = read.operands[0];
    use.operands[0].kind = node::OperandKind::kIn;
    text.instructions = {read, use};
    test::declare_operations(text);
    text.makespan = 100;
    text.tensors.push_back({.name = "program_text", .scope = node::TensorScope::kStatic, .rows = 1, .sources = {}});
    node::Allocation own;
    own.tensor = 1;
    own.hemisphere = node::Hemisphere::kEast;
    text.allocations.push_back(own);
    program_.chip = test::tsp_v1();
    program_.chips = 1;
    program_.user_slots = 4;
    program_.plan.initiation_interval = program_.initiation_interval = 100;
    program_.plan.context = 64;
    program_.plan.vocabulary = 16;
    program_.plan.experts = 8;
    program_.plan.experts_per_token = 2;
    program_.plan.expert_slots = 2;
    program_.token_latency = program_.busy_span = 100;
    program_.texts.push_back(text);
    node::ChipBinding binding;
    binding.peers.resize(11);
    binding.slot_owner = {0};
    program_.bindings.push_back(binding);
  }
  scheduler::ClusterProgram& program() { return program_; }
  node::ChipProgram& text() { return program_.texts[0]; }

 private:
  scheduler::ClusterProgram program_;
};

TEST(CheckedChip, ExpertsAreReadWhereTheyLie) {
  node::BaseRegister base;
  base.kind = node::RegisterKind::kExpert;
  base.stride = 2;
  base.row_stride = 1;
  base.experts = 8;
  RegisterProgram legal(base, node::TensorScope::kStatic, 8);
  EXPECT_FALSE(run_checked(legal.program(), 1, 20).has_value());

  RegisterProgram swapped(base, node::TensorScope::kStatic, 8);
  swapped.text().registers.push_back(base);
  swapped.text().registers[2].expert_slot = 1;
  swapped.text().instructions[1].base_register = 2;
  const auto violation = run_checked(swapped.program(), 1, 20);
  ASSERT_TRUE(violation.has_value());
  EXPECT_EQ(violation->instruction, 1);
  EXPECT_NE(violation->reason.find("of 'table' of iteration 0 stands"), std::string::npos) << violation->message();
}

TEST(CheckedChip, CacheOfTheRightUser) {
  node::BaseRegister base;
  base.kind = node::RegisterKind::kUser;
  for (std::int16_t user = 0; user < 4; ++user) {
    base.table.push_back(
        {.slice = static_cast<std::int16_t>(user * 4), .address = static_cast<std::int16_t>(user * 2)});
  }
  RegisterProgram legal(base, node::TensorScope::kCache, 1);
  EXPECT_FALSE(run_checked(legal.program(), 4, 3).has_value());

  RegisterProgram wrong(base, node::TensorScope::kCache, 1);
  std::swap(base.table[1], base.table[2]);
  wrong.text().registers.push_back(base);
  wrong.text().instructions[0].base_register = 2;
  const auto violation = run_checked(wrong.program(), 4, 3);
  ASSERT_TRUE(violation.has_value());
  EXPECT_EQ(violation->instruction, 0);
}

TEST(CheckedChip, AppendFallsIntoItsPosition) {
  // K of 4 positions a tile: columns over two slices, two columns a cycle.
  node::BaseRegister append;
  append.kind = node::RegisterKind::kAppend;
  append.table.resize(4);
  for (std::int16_t user = 0; user < 4; ++user) {
    append.table[static_cast<std::size_t>(user)].address = static_cast<std::int16_t>(user * 64);
  }
  append.append = {.is_column = true,
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
  const auto make = [&] {
    node::BaseRegister user = append;
    user.kind = node::RegisterKind::kUser;
    RegisterProgram one(user, node::TensorScope::kCache, 64);
    node::ChipProgram& text = one.text();
    // The cache: even tiles are in this hemisphere, two columns a slice and address.
    text.allocations[0].count[0] = 8;
    text.allocations[0].row_stride[0] = 8;
    text.allocations[0].address_stride[0] = 2;
    text.allocations[0].count[1] = 2;
    text.allocations[0].row_stride[1] = 2;
    text.allocations[0].address_stride[1] = 1;
    text.allocations[0].count[2] = 2;
    text.allocations[0].row_stride[2] = 1;
    text.allocations[0].slice_stride[2] = 1;
    text.instructions.clear();
    text.tensors.push_back({.name = "new", .scope = node::TensorScope::kStatic, .rows = 1, .sources = {}});
    text.tensors.push_back({.name = "fresh", .scope = node::TensorScope::kIteration, .rows = 1, .sources = {2}});
    text.tensors[0].sources = {3};
    node::Allocation source;
    source.tensor = 2;
    source.slice = 8;
    text.allocations.push_back(source);
    text.registers.push_back(append);
    node::Allocation target;
    target.base_register = 2;
    text.allocations.push_back(target);
    node::Instruction read;
    read.opcode = Opcode::kRead;
    read.index = 8;
    read.start = 10;
    read.operands[0] = {.kind = node::OperandKind::kOut, .direction = node::Direction::kInward, .tensor = 2};
    node::Instruction copy;
    copy.opcode = Opcode::kCopy;
    copy.start = 13;
    copy.alus = 1;
    copy.operands[0] = {.kind = node::OperandKind::kIn, .direction = node::Direction::kInward, .tensor = 2};
    copy.operands[1] = {.kind = node::OperandKind::kOut, .stream = 1, .reach = 1, .tensor = 3};
    node::Instruction write;
    write.opcode = Opcode::kWrite;
    write.start = 13 + 5 + 1;
    write.base_register = 2;
    write.operands[0] = {.kind = node::OperandKind::kIn, .stream = 1, .tensor = 3};
    text.instructions = {read, copy, write};
    test::declare_operations(text);
    return one;
  };
  RegisterProgram legal = make();
  const auto none = run_checked(legal.program(), 4, 40);
  EXPECT_FALSE(none.has_value()) << none->message();

  RegisterProgram off_by_a_row = make();
  off_by_a_row.text().registers[2].append.row_stride = 2;
  const auto violation = run_checked(off_by_a_row.program(), 4, 40);
  ASSERT_TRUE(violation.has_value());
  EXPECT_EQ(violation->instruction, 2) << violation->message();

  RegisterProgram other_user = make();
  std::swap(other_user.text().registers[2].table[0], other_user.text().registers[2].table[1]);
  const auto of_other = run_checked(other_user.program(), 4, 40);
  ASSERT_TRUE(of_other.has_value());
  EXPECT_NE(of_other->reason.find("of user"), std::string::npos) << of_other->message();
}

}  // namespace
}  // namespace lpu
