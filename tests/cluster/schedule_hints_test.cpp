#include "schedule_hints.hpp"

#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "lpu/cluster/presets.hpp"
#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/verify.hpp"
#include "lpu_points.hpp"
#include "small_request.hpp"

namespace lpu::cluster {
namespace {

namespace fs = std::filesystem;
using scheduler::Compiled;
using scheduler::CompileRequest;
using scheduler::ScheduleHint;

CompileRequest request_of(const std::string& model, const ScheduleHint& hint) {
  CompileRequest request;
  request.model = load_model(model, "here").model;
  request.chip = load_chip("tsp-v1", "here").chip;
  request.chips = hint.tensor_parallel * hint.pipeline_parallel;
  request.tensor_parallel = hint.tensor_parallel;
  request.pipeline_parallel = hint.pipeline_parallel;
  request.micro_batch = hint.micro_batch;
  request.users = hint.user_slots;
  request.context = hint.context;
  request.compute = hint.compute;
  request.kv = hint.compute == scheduler::Compute::kW8A8 ? scheduler::KvType::kInt8 : scheduler::KvType::kFp16;
  request.experts = hint.experts;
  request.objective = scheduler::Objective::kThroughput;
  request.hints = {hint};
  return request;
}

TEST(ScheduleHints, EachLeadsToItsScheduleAndThatIsProved) {
  std::size_t hints = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(fs::path(LPU_PRESETS).parent_path() / "hints")) {
    const std::string model = entry.path().stem().string();
    const std::vector<ScheduleHint> shipped = shipped_hints(model);
    EXPECT_FALSE(shipped.empty()) << "not embedded: " << entry.path();
    for (const ScheduleHint& hint : shipped) {
      const Compiled compiled = scheduler::compile(request_of(model, hint));
      ASSERT_TRUE(compiled.report.hint.has_value()) << model;
      EXPECT_EQ(compiled.program.initiation_interval, hint.interval) << model;
      // Larger clusters of the search have other cables between stages.
      EXPECT_NEAR(
          static_cast<double>(compiled.program.token_latency) / static_cast<double>(hint.token_latency), 1, 0.01)
          << model << ": search it again";
      EXPECT_TRUE(scheduler::verify(compiled.program).empty()) << model;
      ++hints;
    }
  }
  EXPECT_GT(hints, 2U);
}

TEST(ScheduleHints, AHintGivesTheProgramOfItsSearchAndAWrongOneChangesNothing) {
  CompileRequest request = test::small_request();
  request.objective = scheduler::Objective::kThroughput;
  const Compiled searched = scheduler::compile(request);
  ASSERT_TRUE(searched.report.hint.has_value());

  request.hints = {*searched.report.hint};
  EXPECT_EQ(scheduler::schedule_digest(scheduler::compile(request).program),
            scheduler::schedule_digest(searched.program));

  for (std::int64_t& start : request.hints.front().stages.front().starts) {
    start = 0;  // all windows at once
  }
  EXPECT_EQ(scheduler::schedule_digest(scheduler::compile(request).program),
            scheduler::schedule_digest(searched.program));
}

TEST(ScheduleHints, APointWhoseHintsLeadNowhereIsHollow) {
  constexpr double kNoLimit = 1e9;
  CompileRequest request = test::small_request();
  request.objective = scheduler::Objective::kThroughput;
  const Compiled searched = scheduler::compile(request);
  ASSERT_TRUE(searched.report.hint.has_value());
  const std::vector<std::int32_t> micro_batch{request.micro_batch};

  request.hints = {*searched.report.hint};
  const auto filled = LpuPlanner(request).best(micro_batch, kNoLimit, PointKind::kHinted);
  ASSERT_TRUE(filled.has_value());
  EXPECT_TRUE(filled->is_filled);

  request.hints.clear();
  const auto hollow = LpuPlanner(request).best(micro_batch, kNoLimit, PointKind::kHinted);
  ASSERT_TRUE(hollow.has_value());
  EXPECT_FALSE(hollow->is_filled);
}

}  // namespace
}  // namespace lpu::cluster
