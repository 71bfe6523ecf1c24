#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"
#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/verify.hpp"
#include "lpu/scheduler/well_formed.hpp"
#include "run_checked.hpp"
#include "small_request.hpp"

// Figures of a program's header, bindings and chip that say other than its texts do: each is refused, by verify() and
// by the run with all checks, or as no program at all.
namespace lpu {
namespace {

/// One user a micro-batch, on one stage or on two.
scheduler::ClusterProgram one_user(std::int32_t stages) {
  scheduler::CompileRequest request = test::small_request();
  request.micro_batch = 1;
  request.users = 2;
  request.pipeline_parallel = stages;
  request.chips = 2 * stages;
  return scheduler::compile(request).program;
}

/// Both find the same fault; its words name `reason`.
void expect_breach(const scheduler::ClusterProgram& program, const std::string& reason, const std::string& what) {
  ASSERT_FALSE(scheduler::find_form_fault(program)) << what << ": " << scheduler::find_form_fault(program)->message();
  const auto found = scheduler::verify(program, 1000);
  ASSERT_FALSE(found.empty()) << what;
  EXPECT_GE(found[0].chip, 0) << what;
  EXPECT_NE(found[0].reason.find(reason), std::string::npos) << what << ": " << found[0].message();
  const auto stopped = test::run_checked(program, program.user_slots, 2);
  ASSERT_TRUE(stopped.has_value()) << what;
  EXPECT_GE(stopped->chip, 0) << what << ": " << stopped->message();
  EXPECT_GE(stopped->instruction, 0) << what << ": " << stopped->message();
}

void expect_no_program(const scheduler::ClusterProgram& program, const std::string& field) {
  const auto fault = scheduler::find_form_fault(program);
  ASSERT_TRUE(fault.has_value()) << field;
  EXPECT_EQ(fault->field, field) << fault->message();
  EXPECT_THROW((void)scheduler::verify(program, 1), node::InputError);
}

TEST(Contradictions, ATokenThatIsReadByBeforeItIsSettled) {
  const scheduler::ClusterProgram legal = one_user(2);
  ASSERT_TRUE(scheduler::verify(legal).empty());
  for (std::int64_t less = 1; less <= legal.chip.instruction_propagation.count(); ++less) {
    scheduler::ClusterProgram program = legal;
    program.token_latency -= less;
    program.busy_span = std::min(program.busy_span, program.token_latency);
    for (const node::ChipBinding& binding : program.bindings) {
      if (binding.text >= 0) {
        std::int32_t& makespan = program.texts[static_cast<std::size_t>(binding.text)].makespan;
        makespan = std::min(makespan, static_cast<std::int32_t>(program.token_latency - binding.offset));
      }
    }
    expect_breach(program, "reads by the token of user 0", std::to_string(less) + " cycles less");
  }
}

TEST(Contradictions, AMicroBatchOfMoreUsersThanAreServed) {
  scheduler::ClusterProgram program = one_user(2);
  program.plan.micro_batch = 2;
  expect_breach(program, "nothing does so for user 1 of 2", "micro-batch 2");
}

TEST(Contradictions, FewerInstructionQueuesThanAreUsed) {
  scheduler::ClusterProgram program = one_user(1);
  program.chip.icu_queues = 20;
  expect_breach(program, "instruction queues; the chip has 20", "20 queues");
  scheduler::CompileRequest request = test::small_request();
  request.chip.icu_queues = 143;
  try {
    (void)scheduler::compile(request);
    FAIL() << "143 queues";
  } catch (const node::InputError& error) {
    EXPECT_STREQ(error.what(), "chip.icu_queues: found 143; expected at least 144, those of its units");
  }
}

TEST(Contradictions, GroupsThatAreNotThoseOfTheHeader) {
  const scheduler::ClusterProgram legal = one_user(2);
  const auto with = [&legal](const auto& edit) {
    scheduler::ClusterProgram program = legal;
    edit(program);
    return program;
  };
  expect_no_program(with([](auto& p) { p.bindings[0].group_position = 1; }), "group_position");
  expect_no_program(with([](auto& p) { p.bindings[1].group_position = 2; }), "group_position");
  expect_no_program(with([](auto& p) { p.bindings[0].stage = 1; }), "tensor_parallel");
  expect_no_program(with([](auto& p) { p.bindings[0].stage = 3; }), "stage");
  expect_no_program(with([](auto& p) { p.tensor_parallel = 4; }), "tensor_parallel");
  expect_no_program(with([](auto& p) { p.tensor_parallel = 1; }), "tensor_parallel");
  expect_no_program(with([](auto& p) { p.pipeline_parallel = 3; }), "pipeline_parallel");
}

TEST(Contradictions, VocabularyAndExpertsThatAreNotThoseOfTheRegisters) {
  const scheduler::ClusterProgram dense = one_user(1);
  const scheduler::ClusterProgram mixture = scheduler::compile(test::small_mixture_request()).program;
  scheduler::ClusterProgram program = dense;
  program.plan.vocabulary += 1;
  expect_no_program(program, "experts");  // of the kToken register: rows of the vocabulary
  program = dense;
  program.plan.experts = 1;
  expect_no_program(program, "clockwork.experts");
  program = mixture;
  program.plan.experts += 1;
  expect_no_program(program, "experts");
  program = mixture;
  program.plan.expert_slots += 1;
  expect_no_program(program, "clockwork.expert_slots");
  program = mixture;
  program.plan.experts_per_token += 1;
  expect_no_program(program, "clockwork.experts_per_token");
}

}  // namespace
}  // namespace lpu
