#include "lpu/cluster/run_program.hpp"

#include <algorithm>
#include <map>
#include <optional>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"
#include "test_program.hpp"

namespace lpu {
namespace {

using node::Opcode;

const test::RingShape kSmall{.stages = 2, .group = 4, .phases = 2, .vectors = 3};

cluster::RunResult run(const scheduler::ClusterProgram& program, std::int64_t tokens = 3, std::int32_t users = 1) {
  cluster::RunOptions options;
  options.tokens = tokens;
  options.users = users;
  return cluster::run_program(program, options);
}

node::Violation violation_of(const scheduler::ClusterProgram& program, const cluster::RunOptions& options) {
  try {
    (void)cluster::run_program(program, options);
  } catch (const node::ScheduleViolation& violation) {
    return violation.violation();
  }
  ADD_FAILURE() << "the run ended without a violation";
  return {};
}

std::int32_t find(const node::ChipProgram& text, Opcode opcode, std::int32_t nth = 0) {
  for (std::size_t i = 0; i < text.instructions.size(); ++i) {
    if (text.instructions[i].opcode == opcode && nth-- == 0) {
      return static_cast<std::int32_t>(i);
    }
  }
  throw std::logic_error("no such instruction in the test's program");
}

void erase(node::ChipProgram& text, std::int32_t at) {
  text.instructions.erase(text.instructions.begin() + at);
}

TEST(RunProgram, CountsWhatTheScheduleMoves) {
  // 2 stages x 4 chips; per chip and token 2 gathers of 3 vectors over 3 links and one hop of 3 vectors.
  const cluster::RunResult result = run(test::make_ring(kSmall), 5);
  EXPECT_EQ(result.chips, 8);
  EXPECT_EQ(result.chips_idle, 0);
  EXPECT_EQ(result.transfers, 8 * 5 * (2 * 3 + 1));
  EXPECT_EQ(result.vectors, 8 * 5 * 3 * (2 * 3 + 1));
  EXPECT_EQ(result.arrivals_checked, result.vectors);
  EXPECT_EQ(result.jitter_cycles_max, 0);
}

TEST(RunProgram, MeasuresLatencyPeriodAndRate) {
  const scheduler::ClusterProgram program = test::make_ring(kSmall);
  const cluster::RunResult one = run(program, 4);
  // The last effect at stage 0 is the returned token's last row, N + 1 cycles after its write.
  EXPECT_EQ(one.token_latency_cycles, program.token_latency);
  EXPECT_EQ(one.token_period_cycles, program.token_latency);
  EXPECT_FALSE(one.is_interval_measured);
  EXPECT_EQ(one.initiation_interval_cycles, program.initiation_interval);
  EXPECT_DOUBLE_EQ(one.tokens_per_second_per_user, 900e6 / static_cast<double>(program.token_latency));
  EXPECT_EQ(one.makespan_cycles, 4 * program.token_latency);
}

TEST(RunProgram, MeasuresTheIntervalOfSeveralUsers) {
  test::RingShape shape = kSmall;
  shape.stages = 4;
  const scheduler::ClusterProgram program = test::make_ring(shape);
  const cluster::RunResult result = run(program, 3, 3);
  EXPECT_EQ(result.groups, 3);
  EXPECT_TRUE(result.is_interval_measured);
  EXPECT_EQ(result.initiation_interval_cycles, program.initiation_interval);
  EXPECT_EQ(result.token_latency_cycles, program.token_latency);
  EXPECT_EQ(result.token_period_cycles, scheduler::with_users(program, 3).token_period);
  EXPECT_DOUBLE_EQ(result.tokens_per_second, 3 * result.tokens_per_second_per_user);
}

TEST(RunProgram, OccupancyIsBusyShareOfUnitCycles) {
  const test::RingShape shape{.stages = 1, .group = 2, .phases = 1, .vectors = 2};
  const cluster::RunResult result = run(test::make_ring(shape), 1);
  const auto cycles = static_cast<double>(result.makespan_cycles);
  EXPECT_DOUBLE_EQ(result.occupancy.mxm, 20 / (4 * cycles));            // one install of 20 cycles
  EXPECT_DOUBLE_EQ(result.occupancy.vxm, (2 + 2 * 2) / (16 * cycles));  // add on 1 ALU, convert on 2
  EXPECT_DOUBLE_EQ(result.occupancy.c2c, 2 * 24 / (11 * cycles));
  EXPECT_DOUBLE_EQ(result.occupancy.sxm, 0);
}

TEST(RunProgram, FingerprintDependsOnTheProgramAlone) {
  const scheduler::ClusterProgram program = test::make_ring(kSmall);
  const cluster::RunResult first = run(program);
  EXPECT_EQ(first.fingerprint, run(program).fingerprint);
  EXPECT_NE(first.fingerprint, run(program, 4).fingerprint);
  EXPECT_NE(first.fingerprint, run(program, 3, 2).fingerprint);
  scheduler::ClusterProgram other = program;
  other.inputs = R"({"model": "other"})";
  EXPECT_EQ(first.schedule_digest, run(other).schedule_digest);
  EXPECT_EQ(first.fingerprint, run(other).fingerprint);
}

TEST(RunProgram, SkippedInstructionChangesTheFingerprintOrFails) {
  const scheduler::ClusterProgram program = test::make_ring(kSmall);
  const std::uint64_t fingerprint = run(program).fingerprint;
  std::int32_t changed = 0;
  for (std::int32_t chip : {0, 5}) {
    const auto text = static_cast<std::size_t>(program.bindings[static_cast<std::size_t>(chip)].text);
    for (std::size_t i = 0; i < program.texts[text].instructions.size(); ++i) {
      cluster::RunOptions options;
      options.tokens = 3;
      options.skip_chip = chip;
      options.skip_iteration = 1;
      options.skip_instruction = static_cast<std::int32_t>(i);
      try {
        EXPECT_NE(cluster::run_program(program, options).fingerprint, fingerprint)
            << "chip " << chip << ", instruction " << i;
        ++changed;
      } catch (const node::ScheduleViolation&) {
      }
    }
  }
  EXPECT_GT(changed, 10);
}

TEST(RunProgram, FlippedBitOfAValueIdFails) {
  const scheduler::ClusterProgram program = test::make_ring(kSmall);
  for (const std::int64_t iteration : {0, 2}) {
    cluster::RunOptions options;
    options.tokens = 3;
    options.tamperer = [&](interconnect::Delivery to, node::MessageHeader& header, std::span<std::uint64_t> values) {
      if (to.chip == 6 && to.link == 1 && header.iteration == iteration) {
        values[1] ^= std::uint64_t{1} << 17U;
      }
      return interconnect::Tampering::kDeliver;
    };
    const node::Violation violation = violation_of(program, options);
    EXPECT_EQ(violation.chip, 6);
    EXPECT_EQ(program.texts[1].instructions[static_cast<std::size_t>(violation.instruction)].opcode, Opcode::kReceive);
    EXPECT_NE(violation.reason.find("is another value than row"), std::string::npos) << violation.reason;
  }
}

TEST(RunProgram, FlippedBitOfAFoldChangesTheFingerprint) {
  const scheduler::ClusterProgram program = test::make_ring(kSmall);
  const std::uint64_t fingerprint = run(program).fingerprint;
  cluster::RunOptions options;
  options.tokens = 3;
  options.tamperer = [](interconnect::Delivery to, node::MessageHeader& header, std::span<std::uint64_t>) {
    header.fold ^= to.chip == 2 && header.iteration == 1 ? 4U : 0U;
    return interconnect::Tampering::kDeliver;
  };
  EXPECT_NE(cluster::run_program(program, options).fingerprint, fingerprint);
}

TEST(RunProgram, SwappedMessagesFail) {
  test::RingShape shape = kSmall;
  shape.stages = 1;
  // Buffers for two iterations in flight, so that a link holds messages of several at once.
  const scheduler::ClusterProgram program = test::make_ring(shape);
  cluster::RunOptions options;
  options.tokens = 3;
  bool is_held = false;
  options.tamperer = [&](interconnect::Delivery to, node::MessageHeader& header, std::span<std::uint64_t>) {
    if (to.chip == 1 && to.link == 0 && header.iteration == 1 && !is_held) {
      is_held = true;
      return interconnect::Tampering::kHoldBack;
    }
    return interconnect::Tampering::kDeliver;
  };
  const node::Violation violation = violation_of(program, options);
  EXPECT_TRUE(is_held);
  EXPECT_EQ(violation.chip, 1);
}

TEST(RunProgram, FlightOneCycleLongerFailsAtTheFirstArrival) {
  for (const std::int64_t flight : {216, 218}) {
    scheduler::ClusterProgram program = test::make_ring(kSmall);
    program.chip.link_flight = node::Cycles(flight);
    const node::Violation violation = violation_of(program, {});
    const std::int32_t receive = find(program.texts[0], Opcode::kReceive);
    EXPECT_EQ(violation.instruction, receive);
    EXPECT_EQ(violation.cycle, program.texts[0].instructions[static_cast<std::size_t>(receive)].start);
    EXPECT_NE(violation.reason.find("arrives at cycle"), std::string::npos) << violation.reason;
  }
}

TEST(RunProgram, SendOneCycleLaterFailsAtItsReceiver) {
  scheduler::ClusterProgram program = test::make_ring(kSmall);
  program.texts.push_back(program.texts[0]);
  program.bindings[2].text = 2;
  node::ChipProgram& text = program.texts[2];
  text.instructions[static_cast<std::size_t>(find(text, Opcode::kSend))].start += 1;
  EXPECT_NE(violation_of(program, {}).chip, 2);
}

TEST(RunProgram, MissingSendNamesWhoWaitsForWhom) {
  scheduler::ClusterProgram program = test::make_ring(kSmall);
  program.texts.push_back(program.texts[0]);
  program.bindings[2].text = 2;
  erase(program.texts[2], find(program.texts[2], Opcode::kSend, 0));
  const node::Violation violation = violation_of(program, {});
  EXPECT_NE(violation.reason.find("chip 2"), std::string::npos) << violation.reason;
  EXPECT_NE(violation.chip, 2) << violation.message();
  EXPECT_GE(violation.instruction, 0);
  EXPECT_GE(violation.cycle, 0);
}

TEST(RunProgram, LastSendMissingIsADeadlockWithItsChain) {
  const test::RingShape shape{.stages = 3, .group = 1, .phases = 1, .vectors = 1};
  scheduler::ClusterProgram program = test::make_ring(shape);
  program.texts.push_back(program.texts[1]);
  program.bindings[2].text = 2;
  erase(program.texts[2], find(program.texts[2], Opcode::kSend));
  // Stage 0 waits for the token's return; stage 2 waits for iteration 1 from stage 1, which waits for stage 0.
  const node::Violation violation = violation_of(program, {});
  EXPECT_EQ(violation.chip, 0) << violation.message();
  EXPECT_NE(violation.reason.find("deadlock: chip 0 waits"), std::string::npos) << violation.reason;
  EXPECT_NE(violation.reason.find("from chip 2; chip 2 waits"), std::string::npos) << violation.reason;
  EXPECT_NE(violation.reason.find("from chip 0, which closes the circle"), std::string::npos) << violation.reason;
  cluster::RunOptions one;
  one.tokens = 1;
  EXPECT_NE(violation_of(program, one).reason.find("from chip 2, which has ended"), std::string::npos);
}

TEST(RunProgram, CircularWaitIsADeadlock) {
  // Both chips of a pair receive before they send.
  scheduler::ClusterProgram program = test::make_ring({.stages = 1, .group = 2, .phases = 1, .vectors = 1});
  node::ChipProgram& text = program.texts[0];
  const std::int32_t late = text.instructions[static_cast<std::size_t>(find(text, Opcode::kReceive))].start + 100;
  text.instructions[static_cast<std::size_t>(find(text, Opcode::kSend))].start = late;
  const node::Violation violation = violation_of(program, {});
  EXPECT_NE(violation.reason.find("deadlock"), std::string::npos) << violation.reason;
  EXPECT_NE(violation.reason.find("closes the circle"), std::string::npos) << violation.reason;
}

TEST(RunProgram, MissingReceiveLeavesVectors) {
  scheduler::ClusterProgram program = test::make_ring({.stages = 1, .group = 2, .phases = 1, .vectors = 2});
  erase(program.texts[0], find(program.texts[0], Opcode::kReceive));
  cluster::RunOptions options;
  options.tokens = 1;
  const node::Violation violation = violation_of(program, options);
  EXPECT_NE(violation.reason.find("2 vectors that arrived on link 0 from chip 1 were never received"),
            std::string::npos)
      << violation.reason;
  options.checks = cluster::Checks::kAll;
  EXPECT_NE(violation_of(program, options).reason.find("nothing stands"), std::string::npos);
}

TEST(RunProgram, TransferOfAnotherLength) {
  scheduler::ClusterProgram program = test::make_ring({.stages = 1, .group = 2, .phases = 1, .vectors = 2});
  program.texts[0].instructions[static_cast<std::size_t>(find(program.texts[0], Opcode::kSend))].count[0] = 1;
  const node::Violation violation = violation_of(program, {});
  EXPECT_EQ(violation.instruction, find(program.texts[0], Opcode::kSend));
  EXPECT_NE(violation.reason.find("sends 1 vectors of transfer 'gather0' on link 0, which has 2"), std::string::npos);
}

TEST(RunProgram, SwappedPeers) {
  scheduler::ClusterProgram program = test::make_ring({.stages = 1, .group = 3, .phases = 1, .vectors = 2});
  std::swap(program.bindings[0].peers[0], program.bindings[0].peers[1]);
  const node::Violation violation = violation_of(program, {});
  EXPECT_EQ(violation.chip, 0);
  EXPECT_EQ(violation.reason, "link 0 leads to chip 2, link 0, which does not lead back");
}

TEST(RunProgram, LinkThatIsNotWired) {
  scheduler::ClusterProgram program = test::make_ring(kSmall);
  program.bindings[0].peers[1] = {};
  const node::Violation violation = violation_of(program, {});
  EXPECT_EQ(violation.chip, 0);
  EXPECT_EQ(violation.reason, "link 1 is not wired");
}

TEST(RunProgram, InterleavedTransfersOnOneLinkKeepTheirOrder) {
  // Two transfers whose vectors alternate on the link, received by bursts that alternate too.
  scheduler::ClusterProgram program = test::make_ring({.stages = 1, .group = 2, .phases = 1, .vectors = 4});
  node::ChipProgram& text = program.texts[0];
  const auto split = [&](Opcode opcode, bool is_transfer) {
    const auto at = static_cast<std::size_t>(find(text, opcode));
    node::Instruction odd = text.instructions[at];
    odd.start += odd.period[0];
    for (node::Instruction* half : {&text.instructions[at], &odd}) {
      half->count[0] = 2;
      half->period[0] *= 2;
      half->operands[0].row_stride[0] = 2;
    }
    odd.operands[0].row += 1;
    if (is_transfer) {
      odd.transfer = 1;
    }
    text.instructions.push_back(odd);
  };
  text.transfers[0].vectors = 2;
  text.transfers.push_back({.name = "odd", .vectors = 2});
  split(Opcode::kSend, true);
  split(Opcode::kReceive, true);
  const cluster::RunResult result = run(program);
  EXPECT_EQ(result.arrivals_checked, 2 * 4 * 3);
  // The same with all checks, and once more with the second receive ahead of the first.
  cluster::RunOptions options;
  options.checks = cluster::Checks::kAll;
  text.tensors.back().rows += 1;
  text.allocations.back().count[0] += 1;
  EXPECT_EQ(cluster::run_program(program, options).arrivals_checked, 2 * 4 * 8);
  std::swap(text.instructions.back().transfer,
            text.instructions[static_cast<std::size_t>(find(text, Opcode::kReceive))].transfer);
  EXPECT_NE(violation_of(program, {}).reason.find("belongs to transfer '"), std::string::npos);
}

TEST(RunProgram, RefusesWhatCannotRun) {
  const scheduler::ClusterProgram program = test::make_ring(kSmall);
  cluster::RunOptions options;
  options.tokens = 0;
  EXPECT_THROW((void)cluster::run_program(program, options), node::InputError);
  options.tokens = 1;
  options.users = 9;
  EXPECT_THROW((void)cluster::run_program(program, options), node::InputError);
}

TEST(RunProgram, ManyUsersAndTokensEndWithNothingLeft) {
  test::RingShape shape{.stages = 3, .group = 2, .phases = 2, .vectors = 2, .fillers = 3, .user_slots = 40};
  const cluster::RunResult result = run(test::make_ring(shape), 20, 40);
  EXPECT_EQ(result.arrivals_checked, result.vectors);
  EXPECT_EQ(result.jitter_cycles_max, 0);
  EXPECT_EQ(result.vectors, std::int64_t{3} * 2 * 2 * 3 * 20 * 40);
}

TEST(WithUsers, FillsMicroBatchesAndStretchesThePeriod) {
  scheduler::ClusterProgram program = test::make_ring(kSmall);
  program.plan.micro_batch = 2;
  EXPECT_EQ(scheduler::with_users(program, 1).groups, 1);
  EXPECT_EQ(scheduler::with_users(program, 2).groups, 1);
  EXPECT_EQ(scheduler::with_users(program, 3).groups, 2);
  EXPECT_EQ(scheduler::with_users(program, 1).token_period, program.token_latency);
  EXPECT_EQ(scheduler::with_users(program, 8).token_period, 4 * program.initiation_interval);
  EXPECT_THROW((void)scheduler::with_users(program, 0), node::InputError);
  EXPECT_THROW((void)scheduler::with_users(program, 9), node::InputError);
}

TEST(ScheduleDigest, ChangesWithEveryFieldThatExecutionDependsOn) {
  const scheduler::ClusterProgram program = test::make_ring(kSmall);
  std::map<std::uint64_t, std::string> seen{{scheduler::schedule_digest(program), "unchanged"}};
  const auto expect_new = [&](const std::string& what, auto change) {
    scheduler::ClusterProgram other = program;
    change(other);
    const auto [known, is_new] = seen.try_emplace(scheduler::schedule_digest(other), what);
    EXPECT_TRUE(is_new) << what << " gives the digest of " << known->second;
  };
  const auto instruction = [](scheduler::ClusterProgram& p) -> node::Instruction& {
    return p.texts[0].instructions[3];
  };
  expect_new("flight", [](auto& p) { p.chip.link_flight = node::Cycles(1); });
  expect_new("queue", [](auto& p) { p.chip.link_queue_vectors = 3; });
  expect_new("link side", [](auto& p) { p.chip.link_hemisphere[3] = node::Hemisphere::kEast; });
  expect_new("interval", [](auto& p) { p.plan.initiation_interval += 1; });
  expect_new("seed", [](auto& p) { p.plan.seed = 2; });
  expect_new("context", [](auto& p) { p.plan.context = 7; });
  expect_new("start", [&](auto& p) { instruction(p).start += 1; });
  expect_new("count", [&](auto& p) { instruction(p).count[1] = 9; });
  expect_new("index stride", [&](auto& p) { instruction(p).index_stride[0] = -1; });
  expect_new("register", [&](auto& p) { instruction(p).base_register ^= 1; });
  expect_new("mode", [&](auto& p) { instruction(p).mode ^= 1; });
  expect_new("argument", [&](auto& p) { instruction(p).argument = 5; });
  expect_new("held", [&](auto& p) { instruction(p).operands[0].held = 1; });
  expect_new("registered", [&](auto& p) { instruction(p).operands[0].is_registered = 1; });
  expect_new("row stride", [&](auto& p) { instruction(p).operands[0].row_stride[2] = -3; });
  expect_new("tensor", [](auto& p) { p.texts[0].tensors[0].name += "x"; });
  expect_new("source", [](auto& p) { p.texts[0].tensors[0].sources.push_back(1); });
  expect_new("allocation", [](auto& p) { p.texts[0].allocations[0].address += 1; });
  expect_new("copies", [](auto& p) { p.texts[0].registers[1].copies = 4; });
  expect_new("table", [](auto& p) { p.texts[0].registers[1].table.resize(1); });
  expect_new("transfer", [](auto& p) { p.texts[0].transfers[0].vectors += 1; });
  expect_new("peer", [](auto& p) { p.bindings[0].peers[0].link += 1; });
  expect_new("offset", [](auto& p) { p.bindings[4].offset += 1; });
  expect_new("owner", [](auto& p) { std::swap(p.bindings[1].slot_owner[0], p.bindings[1].slot_owner[1]); });
  scheduler::ClusterProgram same = program;
  same.inputs = "other";
  same.model = "other";
  EXPECT_EQ(scheduler::schedule_digest(same), scheduler::schedule_digest(program));
}

}  // namespace
}  // namespace lpu
