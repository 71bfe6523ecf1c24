#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/cluster/run_program.hpp"
#include "lpu/node/error.hpp"
#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/verify.hpp"
#include "random_request.hpp"

// 500 random small models on small systems: each compiles, fits and is proved legal, and what a subset measures in a
// run with all checks is what the plan says; or it is refused, with every limit that it breaks named at once. A failure
// prints the request as flags, so that it can be replayed. LPU_PROPERTY_FIRST moves all seeds: other requests, as many.

namespace lpu {
namespace {

constexpr std::uint64_t kRequests = 500;
constexpr std::uint64_t kShards = 10;  // tests that ctest can run side by side
constexpr std::uint64_t kRunEvery = 8;
constexpr std::int64_t kTokens = 2;

std::uint64_t first_seed() {
  const char* given = std::getenv("LPU_PROPERTY_FIRST");  // NOLINT(concurrency-mt-unsafe): one thread
  const std::string_view text = given == nullptr ? "1" : given;
  std::uint64_t first = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), first);
  if (error != std::errc{} || end != text.data() + text.size()) {
    throw std::runtime_error("LPU_PROPERTY_FIRST: found " + std::string(text) + "; expected a whole number");
  }
  return first;
}

/// The word that each part of a refusal begins with: "tp", "micro-batch", …
std::set<std::string> named_limits(std::string_view refusal) {
  std::set<std::string> out;
  while (!refusal.empty()) {
    const std::size_t end = std::min(refusal.find("; expected"), refusal.size());
    out.insert(std::string(refusal.substr(0, refusal.find(": found"))));
    const std::size_t next = refusal.find("; ", std::min(end + 2, refusal.size()));
    refusal = next == std::string_view::npos ? std::string_view{} : refusal.substr(next + 2);
  }
  return out;
}

void expect_plan_is_run(const scheduler::ClusterProgram& program) {
  cluster::RunOptions options;
  options.checks = cluster::Checks::kAll;
  options.users = program.user_slots;
  options.tokens = kTokens;
  const cluster::RunResult run = cluster::run_program(program, options);
  EXPECT_EQ(run.token_latency_cycles, program.token_latency);
  EXPECT_EQ(run.initiation_interval_cycles, program.initiation_interval);
  EXPECT_EQ(run.jitter_cycles_max, 0);
  EXPECT_EQ(run.token_period_cycles, scheduler::with_users(program, options.users).token_period);
}

void expect_legal(const scheduler::Compiled& compiled) {
  const scheduler::ClusterProgram& program = compiled.program;
  const std::vector<node::Violation> breaches = scheduler::verify(program);
  EXPECT_TRUE(breaches.empty()) << breaches[0].message();
  EXPECT_GE(program.initiation_interval, compiled.report.ii_lower_bound);
  EXPECT_GE(program.token_latency, compiled.report.latency_lower_bound);
  const scheduler::PlanReport& report = compiled.report;
  EXPECT_EQ(report.layers_cycles + report.hops_cycles + report.ends_cycles, program.token_latency);
}

enum class Outcome : std::uint8_t { kCompiled, kRefused, kDoesNotFit };

Outcome try_request(std::uint64_t seed, const test::RandomRequest& drawn) {
  try {
    const scheduler::Compiled compiled = scheduler::compile(drawn.request);
    EXPECT_TRUE(drawn.broken.empty()) << "found a program, though it breaks a limit";
    expect_legal(compiled);
    if (seed % kRunEvery == 0) {
      expect_plan_is_run(compiled.program);
    }
    return Outcome::kCompiled;
  } catch (const scheduler::DoesNotFit& misfit) {
    EXPECT_TRUE(drawn.broken.empty()) << misfit.what();
    EXPECT_TRUE(misfit.smallest_chips() == 0 || misfit.smallest_chips() > drawn.request.chips) << misfit.what();
    return Outcome::kDoesNotFit;
  } catch (const node::InputError& refusal) {
    EXPECT_EQ(named_limits(refusal.what()), drawn.broken) << refusal.what();
    return Outcome::kRefused;
  }
}

class CompileProperty : public testing::TestWithParam<std::uint64_t> {};

TEST_P(CompileProperty, RandomRequestsHaveLegalProgramsOrAreRefused) {
  std::array<std::int32_t, 3> outcomes{};
  for (std::uint64_t i = GetParam(); i < kRequests; i += kShards) {
    const std::uint64_t seed = first_seed() + i;
    const test::RandomRequest drawn = test::RequestGenerator(seed).make();
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + test::describe(drawn.request));
    try {
      ++outcomes.at(static_cast<std::size_t>(try_request(seed, drawn)));
    } catch (const std::exception& error) {  // a bug, or a run that broke a rule
      ADD_FAILURE() << error.what();
    }
  }
  // Not vacuous: most of them compile, some are refused.
  EXPECT_GT(outcomes[0], static_cast<std::int32_t>(kRequests / kShards / 2));
  EXPECT_GT(outcomes[1], 0);
}

INSTANTIATE_TEST_SUITE_P(Shards, CompileProperty, testing::Range(std::uint64_t{0}, kShards), [](const auto& one) {
  return std::to_string(one.param);
});

}  // namespace
}  // namespace lpu
