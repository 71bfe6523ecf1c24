#include <cstdlib>

#include <benchmark/benchmark.h>

#include "lpu/cluster/run_program.hpp"
#include "test_program.hpp"

// Wall time per chip and token of the emulator on the pattern of Llama-2-70B at TP8 x 72: four gathers of 12 vectors a
// layer, about 1,000 bursts a chip and token.
namespace {

void run_ring(benchmark::State& state, lpu::cluster::Checks checks) {
  const lpu::test::RingShape shape{.stages = 72, .group = 8, .phases = 4, .vectors = 12, .fillers = 115};
  const lpu::scheduler::ClusterProgram program = lpu::test::make_ring(shape);
  lpu::cluster::RunOptions options;
  options.tokens = state.range(0);
  options.checks = checks;
  lpu::cluster::RunResult result;
  for (auto _ : state) {
    result = lpu::cluster::run_program(program, options);
    benchmark::DoNotOptimize(result.fingerprint);
  }
  const double chip_tokens = static_cast<double>(result.chips) * static_cast<double>(result.tokens);
  state.counters["us_per_chip_token"] = benchmark::Counter(
      chip_tokens * 1e-6, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  state.counters["bursts_per_chip_token"] = static_cast<double>(result.bursts) / chip_tokens;
  state.counters["vectors_per_chip_token"] = static_cast<double>(result.vectors) / chip_tokens;
}

}  // namespace

BENCHMARK_CAPTURE(run_ring, arrivals, lpu::cluster::Checks::kArrivals)
    ->Arg(1)
    ->Arg(8)
    ->Arg(32)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(run_ring, all_rules, lpu::cluster::Checks::kAll)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond);

BENCHMARK_MAIN();
