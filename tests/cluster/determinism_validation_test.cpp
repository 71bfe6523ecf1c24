// A compiled program takes, when it is executed, exactly the time that the compiler read off its schedule.
#include <string>

#include <gtest/gtest.h>

#include "lpu/cluster/run_program.hpp"
#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/verify.hpp"
#include "test_chip.hpp"
#include "validation.hpp"

namespace lpu::cluster {
namespace {

struct Case {
  std::int32_t chips, tensor_parallel, pipeline_parallel;
};

class DeterminismValidation : public testing::TestWithParam<Case> {};

TEST_P(DeterminismValidation, R12EmulatorTakesWhatTheScheduleSays) {
  const Case& given = GetParam();
  scheduler::CompileRequest request;
  request.chip = test::tsp_v1();
  request.model = {.name = "small",
                   .hidden = 256,
                   .layers = 2,
                   .heads = 8,
                   .kv_heads = 4,
                   .head_dim = 32,
                   .ffn = 640,
                   .vocabulary = 256,
                   .max_position = 128,
                   .rope = {}};
  request.chips = given.chips;
  request.tensor_parallel = given.tensor_parallel;
  request.pipeline_parallel = given.pipeline_parallel;
  request.context = 128;
  request.users = 3;
  const scheduler::ClusterProgram program = scheduler::compile(request).program;
  ASSERT_TRUE(scheduler::verify(program).empty());

  RunOptions options;
  options.tokens = 3;
  options.users = 3;
  options.checks = Checks::kAll;
  const RunResult result = run_program(program, options);
  const std::string name = " of a model of two layers, tp " + std::to_string(given.tensor_parallel) + ", pp " +
                           std::to_string(given.pipeline_parallel);
  const std::string source =
      "Abts et al., ISCA 2022: compiled and measured times within 2% (primary); emulated: no difference";
  test::check_figure({.name = "R12 token latency" + name,
                      .unit = "cycles",
                      .expected = static_cast<double>(program.token_latency),
                      .measured = static_cast<double>(result.token_latency_cycles),
                      .tolerance = 0,
                      .source = source});
  test::check_figure({.name = "R12 initiation interval" + name,
                      .unit = "cycles",
                      .expected = static_cast<double>(program.initiation_interval),
                      .measured = static_cast<double>(result.initiation_interval_cycles),
                      .tolerance = 0,
                      .source = source});
  EXPECT_TRUE(result.is_interval_measured);
  EXPECT_EQ(result.jitter_cycles_max, 0);
}

INSTANTIATE_TEST_SUITE_P(SmallModels,
                         DeterminismValidation,
                         testing::Values(Case{1, 1, 1}, Case{8, 4, 2}, Case{16, 8, 2}, Case{8, 2, 3}));

}  // namespace
}  // namespace lpu::cluster
