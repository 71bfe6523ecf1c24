#include "lpu/cluster/generate.hpp"

#include <chrono>
#include <string>

#include "dealing.hpp"
#include "lockstep.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/floating_point.hpp"
#include "measure.hpp"
#include "numeric_runner.hpp"

namespace lpu::cluster {

using node::InputError;

void check_generation(const scheduler::ClusterProgram& program,
                      const scheduler::Checkpoint& checkpoint,
                      const GenerateOptions& options) {
  const std::int64_t vocabulary = checkpoint.model().vocabulary;
  if (options.prompt.empty()) {
    throw InputError("--prompt: found no tokens; expected at least one");
  }
  for (const std::int64_t id : options.prompt) {
    if (id < 0 || id >= vocabulary) {
      throw InputError("--prompt-ids: found " + std::to_string(id) + "; expected token ids from 0 to " +
                       std::to_string(vocabulary - 1));
    }
  }
  const std::int64_t tokens = static_cast<std::int64_t>(options.prompt.size()) + options.new_tokens - 1;
  if (tokens > program.plan.context) {
    throw InputError("--max-new-tokens: found " + std::to_string(tokens) +
                     " positions with the prompt; expected at most " + std::to_string(program.plan.context) +
                     ", the program's context");
  }
}

GenerateResult generate(const scheduler::ClusterProgram& program,
                        const scheduler::Checkpoint& checkpoint,
                        const GenerateOptions& options) {
  check_generation(program, checkpoint, options);
  return compute_numbers(program, checkpoint, options, {}, nullptr).result;
}

NumbersAlone compute_numbers(const scheduler::ClusterProgram& program,
                             const scheduler::Checkpoint& checkpoint,
                             const GenerateOptions& options,
                             const std::function<void()>& pause,
                             const NumericState* from) {
  node::set_arithmetic_mode();
  const auto begin = std::chrono::steady_clock::now();
  NumericRunner runner(program, checkpoint, options, {.rank = 0, .rank_of = deal(program, 1).rank_of}, nullptr, from);
  LoopTimes times;
  RunOptions run_options;
  run_options.pause = pause;
  report_progress(options, run_options);
  const int signal = execute(runner, run_options, nullptr, &times);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  NumbersAlone out{.result = runner.answers().result()};
  out.result.ended_by_signal = signal;
  out.result.wall_s = seconds;
  out.result.memory_bytes = memory_bytes();
  put(runner.outcome(times, seconds), program.chip, out.result);
  if (signal == 0 && runner.stopped_before()) {
    out.stopped_before = runner.stopped_before();
    out.chips = runner.saved_chips();
  }
  return out;
}

}  // namespace lpu::cluster
