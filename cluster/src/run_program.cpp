#include "lpu/cluster/run_program.hpp"

#include <chrono>

#include "lockstep.hpp"
#include "lpu/node/error.hpp"
#include "measure.hpp"
#include "runner.hpp"

namespace lpu::cluster {

RunResult run_program(const scheduler::ClusterProgram& program, const RunOptions& options) {
  if (options.tokens < 1) {
    throw node::InputError("--tokens: found " + std::to_string(options.tokens) + "; expected 1 or more");
  }
  const auto start = std::chrono::steady_clock::now();
  const std::uint64_t digest = scheduler::schedule_digest(program);
  Runner runner(program, digest, options);
  const int signal = execute(runner, options, nullptr);
  RunResult result = measure(program, runner.plan(), options, digest, runner.outcomes());
  result.ended_by_signal = signal;
  result.messages_in_process = runner.transport().messages();
  set_wall_time(result, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return result;
}

}  // namespace lpu::cluster
