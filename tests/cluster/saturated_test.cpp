#include <algorithm>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"
#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/verify.hpp"
#include "small_request.hpp"

// `--users saturating`: users follow from the schedule, and the schedule from the memory that their KV leaves.

namespace lpu::scheduler {
namespace {

CompileRequest loaded_request() {
  CompileRequest out = test::small_request();
  out.objective = Objective::kThroughput;
  out.search_orders = 4;
  out.users.reset();
  return out;
}

double tokens_per_cycle(const Compiled& compiled) {
  const std::int32_t users = std::min(compiled.program.user_slots, compiled.report.users_saturating);
  return users / static_cast<double>(with_users(compiled.program, users).token_period);
}

TEST(Saturated, TakesAllUsersThatSaturateWhereMemoryIsAmple) {
  const Compiled compiled = compile(loaded_request());
  EXPECT_EQ(compiled.program.user_slots, compiled.report.users_saturating);
  EXPECT_GT(compiled.program.user_slots, compiled.program.plan.micro_batch);
  EXPECT_TRUE(verify(compiled.program, 1).empty());
}

TEST(Saturated, TakesWhatFitsWhereMemoryIsShort) {
  CompileRequest request = loaded_request();
  request.model.max_position = request.context = 1024;
  request.chips = 2;
  request.tensor_parallel = 1;
  request.chip.vectors_per_slice = 1600;
  const Compiled compiled = compile(request);
  EXPECT_LT(compiled.program.user_slots, compiled.report.users_saturating);
  EXPECT_GT(compiled.program.user_slots, compiled.report.users_saturating / 2);
  EXPECT_EQ(compiled.program.user_slots % request.micro_batch, 0);
  EXPECT_TRUE(verify(compiled.program, 1).empty());
  // The next groups of users do not fit, find no schedule, or serve no more.
  for (const std::int32_t groups : {1, 2}) {
    CompileRequest more = request;
    more.users = compiled.program.user_slots + groups * request.micro_batch;
    try {
      EXPECT_LE(tokens_per_cycle(compile(more)), tokens_per_cycle(compiled)) << *more.users;
    } catch (const node::InputError&) {
    }
  }
}

TEST(Saturated, StaysWithWhatWasBuiltWhereNothingServesMore) {
  CompileRequest request = loaded_request();
  Compiled built = compile(request);
  const std::int32_t users = built.program.user_slots;
  EXPECT_EQ(saturated(request, std::move(built)).program.user_slots, users);
}

}  // namespace
}  // namespace lpu::scheduler
