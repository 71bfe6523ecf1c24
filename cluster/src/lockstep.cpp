#include "lockstep.hpp"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <malloc.h>
#include <string>
#include <utility>

#include <spdlog/spdlog.h>

#include "dealing.hpp"
#include "lpu/node/error.hpp"
#include "lpu/scheduler/program_file.hpp"
#include "measure.hpp"
#include "stop_signal.hpp"
#include "test_faults.hpp"

namespace lpu::cluster {
namespace {

using Clock = std::chrono::steady_clock;

/// Calls options.progress a few hundred times a second at most.
class Reporter {
 public:
  explicit Reporter(const RunOptions& options) : options_(&options) {}
  void report(const Runner& runner) {
    if (options_->progress && Clock::now() - last_ >= std::chrono::milliseconds(5)) {
      last_ = Clock::now();
      options_->progress(runner.progress());
    }
  }

 private:
  const RunOptions* options_;
  Clock::time_point last_ = Clock::now();
};

/// Memory of this process, pages that it shares counted in parts (proportional set size); 0: the kernel does not say.
std::int64_t memory_bytes() {
  std::ifstream in("/proc/self/smaps_rollup");
  for (std::string word; in >> word;) {
    std::int64_t kibibytes = 0;
    if (word == "Pss:" && in >> kibibytes) {
      return kibibytes * 1024;
    }
  }
  return 0;
}

/// What every rank does, the first one included.
/// @return  outcome, and the signal that ended it; 0: none
std::pair<RankOutcome, int> take_part(const scheduler::ClusterProgram& part,
                                      const StartOrder& order,
                                      RunOptions options,
                                      RankGroup& group,
                                      const Console& console) {
  const std::string why = group.exchange().open(order.pairs, order.carrier);
  if (!why.empty()) {
    console.log().warn("shared memory: found {}; MPI carries all vectors, which takes longer", why);
  }
  console.log().info("vectors between ranks go through {}",
                     group.exchange().has_shared_memory() ? "shared memory" : "MPI");
  const StopWatch watch;
  const auto begin = Clock::now();
  TraceRecorder recorder(part, order.trace);
  observe(recorder, order.trace, options);
  Runner runner(part, order.digest, options, {.rank = group.rank(), .rank_of = order.rank_of}, &group.exchange());
  console.log().debug("{} texts made ready in {:.0f} ms",
                      part.texts.size(),
                      std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  // All have their orders: what compiling, parsing and sending took would stay with the process (rank 0: 27 MB, not 9).
  group.exchange().wait(std::chrono::microseconds(0));
  ::malloc_trim(0);
  const int signal = execute(runner, options, &group);
  return {RankOutcome{.chips = runner.outcomes(),
                      .messages_in_process = runner.transport().messages(),
                      .exchange = group.exchange().counts(),
                      .uses_shared_memory = group.exchange().has_shared_memory(),
                      .memory_bytes = memory_bytes(),
                      .trace = recorder.take()},
          signal};
}

RunOptions options_of(const StartOrder& order, std::int32_t rank) {
  RunOptions options;
  options.tokens = order.tokens;
  options.users = order.users;
  options.checks = order.checks;
  plant_faults(order.faults, rank, options);
  return options;
}

void add_ranks(RunResult& result, const std::vector<std::optional<RankOutcome>>& outcomes) {
  for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
    if (!outcomes[rank]) {
      continue;
    }
    const RankOutcome& outcome = *outcomes[rank];
    result.messages_in_process += outcome.messages_in_process;
    result.messages_between_ranks += outcome.exchange.sent;
    result.bytes_between_ranks += outcome.exchange.bytes_sent;
    result.sleeps += outcome.exchange.sleeps;
    result.wake_ups += outcome.exchange.wake_ups;
    result.uses_shared_memory = result.uses_shared_memory || outcome.uses_shared_memory;
    result.memory_bytes += outcome.memory_bytes;
    result.memory_bytes_max = std::max(result.memory_bytes_max, outcome.memory_bytes);
  }
}

}  // namespace

int execute(Runner& runner, const RunOptions& options, RankGroup* group) {
  Reporter reporter(options);
  try {
    for (;;) {
      while (runner.run_next()) {
        if (options.pause) {
          options.pause();
        }
        reporter.report(runner);
        if (group != nullptr) {
          group->poll(runner);
        } else if (stop_signal() != 0) {
          return stop_signal();
        }
      }
      if (group == nullptr) {
        if (!runner.is_done()) {
          throw deadlock(runner.waits());
        }
        break;
      }
      if (group->rest(runner)) {
        break;
      }
    }
  } catch (const Stopped& stopped) {
    return stopped.signal;
  }
  runner.check_nothing_left();
  return 0;
}

RunResult run_on_ranks(scheduler::ClusterProgram& program,
                       const RunOptions& options,
                       interconnect::Carrier carrier,
                       const TraceSelection& selection,
                       RankGroup& group,
                       const Console& console,
                       Trace& trace) {
  const node::IterationPlan plan = scheduler::with_users(program, options.users);
  const Dealing dealing = deal(program, group.ranks());
  const auto begin = Clock::now();
  StartOrder order{.program = {},
                   .digest = scheduler::schedule_digest(program),
                   .tokens = options.tokens,
                   .users = options.users,
                   .checks = options.checks,
                   .faults = faults_of_environment(),
                   .rank_of = dealing.rank_of,
                   .pairs = pair_loads(program, dealing, plan.groups),
                   .carrier = carrier,
                   .trace = selection};
  RunOptions own_options = options_of(order, 0);  // a fault that cannot be planted is refused before the start
  own_options.progress = options.progress;
  group.begin();
  for (std::int32_t rank = 1; rank < group.ranks(); ++rank) {
    order.program = scheduler::to_bytes(part_of(program, dealing, rank));
    group.send_start(rank, order);
  }
  const scheduler::ClusterProgram part = part_of(program, dealing, 0);
  program.texts = {};
  auto [own, signal] = take_part(part, order, own_options, group, console);
  auto outcomes = group.gather(std::move(own));
  std::vector<ChipOutcome> chips;
  std::vector<Trace> traces;
  for (auto& outcome : outcomes) {
    if (outcome) {
      chips.insert(chips.end(), outcome->chips.begin(), outcome->chips.end());
      traces.push_back(std::move(outcome->trace));
    }
  }
  trace = merge(std::move(traces));
  RunResult result = measure(program, plan, options, order.digest, std::move(chips));
  add_ranks(result, outcomes);
  for (ChipFigures& chip : result.per_chip) {
    chip.rank = dealing.rank_of[static_cast<std::size_t>(chip.chip)];
  }
  result.ended_by_signal = signal != 0 ? signal : group.stopped_by();
  result.ranks = group.ranks();
  result.ranks_idle = group.ranks() - dealing.ranks_used;
  result.hosts = group.exchange().hosts();
  set_wall_time(result, std::chrono::duration<double>(Clock::now() - begin).count());
  return result;
}

node::ExitCode follow(RankGroup& group, const Console& console) {
  const StopWatch watch;
  std::optional<StartOrder> order = group.await_start();
  if (!order) {
    return group.quit_code();
  }
  group.begin();
  const scheduler::ClusterProgram part =
      scheduler::from_bytes(order->program, "the program of rank " + std::to_string(group.rank()));
  order->program = {};
  const auto [outcome, signal] = take_part(part, *order, options_of(*order, group.rank()), group, console);
  group.report(outcome);
  return group.quit_code();
}

}  // namespace lpu::cluster
