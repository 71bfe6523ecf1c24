#include "lockstep.hpp"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <malloc.h>
#include <string>
#include <utility>

#include <spdlog/spdlog.h>

#include "checkpoint_digest.hpp"
#include "dealing.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/floating_point.hpp"
#include "lpu/scheduler/numeric_binding.hpp"
#include "lpu/scheduler/program_file.hpp"
#include "measure.hpp"
#include "numeric_runner.hpp"
#include "runner.hpp"
#include "stop_signal.hpp"
#include "test_faults.hpp"

namespace lpu::cluster {
namespace {

using Clock = std::chrono::steady_clock;

/// Calls options.progress a few hundred times a second at most.
class Reporter {
 public:
  explicit Reporter(const RunOptions& options) : options_(&options) {}
  void report(const Execution& execution) {
    if (options_->progress && Clock::now() - last_ >= std::chrono::milliseconds(5)) {
      last_ = Clock::now();
      options_->progress(execution.progress());
    }
  }

 private:
  const RunOptions* options_;
  Clock::time_point last_ = Clock::now();
};

/// Adds the time that it lives to a sum, where there is one.
class Lap {
 public:
  explicit Lap(std::chrono::nanoseconds* sum) : sum_(sum) {}
  ~Lap() {
    if (sum_ != nullptr) {
      *sum_ += Clock::now() - begin_;
    }
  }
  Lap(const Lap&) = delete;
  Lap& operator=(const Lap&) = delete;
  Lap(Lap&&) = delete;
  Lap& operator=(Lap&&) = delete;

 private:
  std::chrono::nanoseconds* sum_;
  Clock::time_point begin_ = Clock::now();
};

/// What a rank did: for all to know, and what rank 0 alone has.
struct Part {
  RankOutcome outcome;
  int signal = 0;                    ///< that ended it; 0: none
  std::int64_t stopped_before = -1;  ///< token; -1: it was not
  GenerateResult answers;
};

/// A rank among others.
struct Place {
  const scheduler::ClusterProgram& program;  ///< its part
  const StartOrder& order;
  RankGroup& group;
  const Console& console;
};

/// The bursts of this rank's chips, in time.
void run_timing_plane(const Place& place, RunOptions options, Part& part) {
  const auto begin = Clock::now();
  TraceRecorder recorder(place.program, place.order.trace);
  observe(recorder, place.order.trace, options);
  const std::vector<SavedChip> saved =
      place.order.saved_chips.empty()
          ? std::vector<SavedChip>()
          : chips_from_bytes(place.order.saved_chips, "the saved state of rank " + std::to_string(place.group.rank()));
  Runner runner(place.program,
                place.order.digest,
                options,
                {.rank = place.group.rank(), .rank_of = place.order.rank_of},
                &place.group.exchange(),
                saved);
  place.console.log().debug("{} texts made ready in {:.0f} ms",
                            place.program.texts.size(),
                            std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  // All have their orders: what compiling, parsing and sending took would stay with the process (rank 0: 27 MB, not 9).
  place.group.exchange().wait(std::chrono::microseconds(0));
  ::malloc_trim(0);
  part.signal = execute(runner, options, &place.group);
  part.outcome.chips = runner.outcomes();
  if (part.signal == 0 && runner.stopped_before()) {
    part.stopped_before = *runner.stopped_before();
    part.outcome.saved = save_part(*place.order.save, place.group.rank(), place.order.digest, runner.saved_chips());
  }
  part.outcome.messages_in_process = runner.transport().messages();
  part.outcome.memory_bytes = memory_bytes();
  part.outcome.trace = recorder.take();
}

/// The same bursts on numbers, when the timing plane has ended on this rank.
void run_numeric_plane(const Place& place,
                       const scheduler::Checkpoint& checkpoint,
                       const GenerateOptions& options,
                       const RunOptions& run_options,
                       Part& part) {
  const auto begin = Clock::now();
  place.group.begin_next_plane();
  std::optional<NumericState> from;
  if (!place.order.numbers->saved.empty()) {
    from =
        numbers_from_bytes(place.order.numbers->saved, "the saved state of rank " + std::to_string(place.group.rank()));
  }
  ::malloc_trim(0);
  NumericRunner runner(place.program,
                       checkpoint,
                       options,
                       {.rank = place.group.rank(), .rank_of = place.order.rank_of},
                       &place.group.exchange(),
                       from ? &*from : nullptr);
  from.reset();
  LoopTimes times;
  part.signal = execute(runner, run_options, &place.group, &times);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  part.outcome.numbers = runner.outcome(times, seconds);
  const std::int64_t memory = memory_bytes();
  place.console.log().debug(
      "memory: {} bytes in the timing plane, {} in the numeric plane", part.outcome.memory_bytes, memory);
  part.outcome.memory_bytes = std::max(part.outcome.memory_bytes, memory);
  part.answers = runner.answers().result();
  part.answers.wall_s = seconds;
  if (part.signal == 0 && runner.stopped_before()) {
    part.stopped_before = *runner.stopped_before();
    part.outcome.saved =
        save_numeric_part(*place.order.save, place.group.rank(), place.order.digest, runner.saved_chips());
  }
}

/// What every rank does, the first one included.
Part take_part(const Place& place, const RunOptions& options, const GenerateOptions* generation) {
  interconnect::RankExchange& exchange = place.group.exchange();
  const std::string why = exchange.open(place.order.pairs, place.order.carrier);
  if (!why.empty()) {
    place.console.log().warn("shared memory: found {}; MPI carries all vectors, which takes longer", why);
  }
  place.console.log().info("vectors between ranks go through {}",
                           exchange.has_shared_memory() ? "shared memory" : "MPI");
  const StopWatch watch;
  Part part;
  if (generation == nullptr) {
    run_timing_plane(place, options, part);
  } else {
    node::set_arithmetic_mode();
    const NumericOrder& numbers = *place.order.numbers;
    const auto checkpoint = scheduler::Checkpoint::open(numbers.checkpoint);
    if (shape_digest(checkpoint) != numbers.digest) {
      throw node::InputError(numbers.checkpoint + ": found another checkpoint on the host of rank " +
                             std::to_string(place.group.rank()) + "; expected that of rank 0 at the same path");
    }
    ::malloc_trim(0);  // what compiling, parsing and sending took would stay beside the weights
    scheduler::refuse_non_finite(place.program, checkpoint);
    run_timing_plane(place, options, part);
    if (part.signal == 0) {
      RunOptions numeric_options;
      numeric_options.pause = options.pause;
      report_progress(*generation, numeric_options);
      run_numeric_plane(place, checkpoint, *generation, numeric_options, part);
    }
  }
  part.outcome.exchange = exchange.counts();
  part.outcome.uses_shared_memory = exchange.has_shared_memory();
  return part;
}

RunOptions options_of(const StartOrder& order, std::int32_t rank) {
  RunOptions options;
  options.tokens = order.tokens;
  options.users = order.users;
  options.checks = order.checks;
  options.has_next_plane = order.numbers.has_value();
  plant_faults(order.faults, rank, options);
  return options;
}

/// What the numeric plane is asked for; this host's CPU must have the instructions that rank 0 found on its own.
std::optional<GenerateOptions> generation_of(const StartOrder& order) {
  if (!order.numbers) {
    return std::nullopt;
  }
  GenerateOptions options = order.numbers->options;
  static_cast<void>(node::choose_simd_target(std::string(node::name_of(options.simd))));
  plant_numeric_faults(order.faults, options);
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

/// The saved chips that a rank runs, as bytes; empty: there is no saved state.
std::string chips_of(const std::optional<SavedRun>& saved,
                     const std::vector<std::int32_t>& rank_of,
                     std::int32_t rank) {
  if (!saved) {
    return {};
  }
  std::vector<SavedChip> chips;
  for (const SavedChip& chip : saved->chips) {
    if (rank_of[static_cast<std::size_t>(chip.chip)] == rank) {
      chips.push_back(chip);
    }
  }
  return chips.empty() ? std::string() : to_bytes(chips);
}

/// Likewise of the numeric plane, with the answers.
std::string numbers_of(const std::optional<SavedGeneration>& saved,
                       const std::vector<std::int32_t>& rank_of,
                       std::int32_t rank) {
  if (!saved) {
    return {};
  }
  NumericState out{.answers = saved->numbers.answers, .chips = {}};
  for (const SavedNumericChip& chip : saved->numbers.chips) {
    if (rank_of[static_cast<std::size_t>(chip.chip)] == rank) {
      out.chips.push_back(chip);
    }
  }
  return to_bytes(out);
}

/// What a run took until its state was saved counts, too.
void add_saved(RunResult& result, const std::optional<SavedRun>& saved) {
  if (saved) {
    result.resumed_at_token = saved->token;
    result.messages_in_process += saved->messages_in_process;
    result.messages_between_ranks += saved->messages_between_ranks;
    result.bytes_between_ranks += saved->bytes_between_ranks;
  }
}

void add_saved(RankResult& result, const std::optional<SavedGeneration>& saved, const node::ChipSpec& chip) {
  if (saved) {
    result.run.resumed_at_token = saved->numbers.answers.position;
    GenerateResult& numbers = result.numbers;
    numbers.vectors_moved += saved->vectors;
    numbers.bytes_moved = numbers.vectors_moved * chip.vector_bytes;
    numbers.wall_s += saved->numeric_wall_s;
    numbers.time.kernels_s += saved->time.kernels_s;
    numbers.time.moving_s += saved->time.moving_s;
    numbers.time.waiting_s += saved->time.waiting_s;
    numbers.time.other_s += saved->time.other_s;
  }
}

/// The state of a run that was stopped, from now on.
void save(RunResult& result, const SaveOrder& order, std::int64_t token, const std::vector<SavedPart>& parts) {
  save_manifest(order,
                {.schedule_digest = result.schedule_digest,
                 .users = result.users,
                 .token = token,
                 .messages_in_process = result.messages_in_process,
                 .messages_between_ranks = result.messages_between_ranks,
                 .bytes_between_ranks = result.bytes_between_ranks,
                 .wall_s = result.wall_s,
                 .chips = {}},
                parts);
  result.stopped_before_token = token;
}

/// Likewise of a generation.
void save(RankResult& result,
          const RankSettings& settings,
          std::int64_t position,
          const std::vector<SavedPart>& parts) {
  const GenerateResult& numbers = result.numbers;
  save_manifest(*settings.save,
                SavedGeneration{.key = *settings.key,
                                .numbers = {.answers = {.position = position,
                                                        .new_ids = numbers.new_ids,
                                                        .logits_after_prompt = numbers.logits_after_prompt,
                                                        .result_digest = numbers.result_digest},
                                            .chips = {}},
                                .vectors = numbers.vectors_moved,
                                .time = numbers.time,
                                .numeric_wall_s = numbers.wall_s,
                                .wall_s = result.run.wall_s},
                parts);
  result.run.stopped_before_token = position;
}

double seconds_since(Clock::time_point begin, const RankSettings& settings) {
  const double before = settings.saved           ? settings.saved->wall_s
                        : settings.saved_numbers ? settings.saved_numbers->wall_s
                                                 : 0.0;
  return std::chrono::duration<double>(Clock::now() - begin).count() + before;
}

}  // namespace

int execute(Execution& execution, const RunOptions& options, RankGroup* group, LoopTimes* times) {
  Reporter reporter(options);
  bool has_heard = false;  // that the state is to be saved
  std::chrono::nanoseconds* exchanging = times == nullptr ? nullptr : &times->exchanging;
  std::chrono::nanoseconds* waiting = times == nullptr ? nullptr : &times->waiting;
  try {
    for (;;) {
      while (execution.run_next()) {
        if (options.pause) {
          options.pause();
        }
        reporter.report(execution);
        if (group != nullptr) {
          const Lap lap(exchanging);
          group->poll(execution);
        } else if (stop_signal() != 0) {
          return stop_signal();
        } else if (save_is_asked() && !has_heard) {
          has_heard = true;
          if (execution.next_token() != Execution::kNoToken) {
            execution.stop_before(execution.next_token());
          }
        }
      }
      if (group == nullptr) {
        if (!execution.is_done()) {
          throw deadlock(execution.waits());
        }
        break;
      }
      const Lap lap(waiting);
      if (group->rest(execution)) {
        break;
      }
    }
  } catch (const Stopped& stopped) {
    return stopped.signal;
  }
  execution.check_nothing_left();
  return 0;
}

void report_progress(const GenerateOptions& options, RunOptions& run_options) {
  if (options.progress) {
    run_options.progress = [&options](const RunProgress& at) { options.progress(at.iterations, at.iterations_total); };
  }
}

RankResult run_alone(const scheduler::ClusterProgram& program, const RunOptions& asked, const RankSettings& settings) {
  const auto begin = Clock::now();
  catch_stop_signals();
  const StopWatch watch;
  RunOptions options = asked;
  plant_faults(faults_of_environment(), 0, options);
  TraceRecorder recorder(program, settings.trace);
  observe(recorder, settings.trace, options);
  const std::uint64_t digest = scheduler::schedule_digest(program);
  const std::vector<SavedChip> saved = settings.saved ? settings.saved->chips : std::vector<SavedChip>();
  Runner runner(program, digest, options, {}, nullptr, saved);
  const int signal = execute(runner, options, nullptr);
  RankResult result;
  result.run = measure(program, runner.plan(), options, digest, runner.outcomes());
  result.run.ended_by_signal = signal;
  result.run.messages_in_process = runner.transport().messages();
  add_saved(result.run, settings.saved);
  set_wall_time(result.run, seconds_since(begin, settings));
  if (signal == 0 && runner.stopped_before()) {
    save(result.run,
         *settings.save,
         *runner.stopped_before(),
         {save_part(*settings.save, 0, digest, runner.saved_chips())});
  }
  std::vector<Trace> traces;
  traces.push_back(recorder.take());
  result.trace = merge(std::move(traces));
  return result;
}

RankResult generate_alone(const scheduler::ClusterProgram& program,
                          const scheduler::Checkpoint& checkpoint,
                          const RunOptions& asked,
                          const RankSettings& settings) {
  const auto begin = Clock::now();
  catch_stop_signals();
  const StopWatch watch;
  RunOptions run_options = asked;
  run_options.has_next_plane = true;
  GenerateOptions options = settings.numbers->options;
  plant_faults(faults_of_environment(), 0, run_options);
  plant_numeric_faults(faults_of_environment(), options);
  ::malloc_trim(0);  // what compiling took would stay beside the weights
  scheduler::refuse_non_finite(program, checkpoint);
  RankResult result;
  result.run = run_program(program, run_options);
  if (result.run.ended_by_signal != 0) {
    result.numbers.ended_by_signal = result.run.ended_by_signal;
    return result;
  }
  ::malloc_trim(0);  // likewise the timing plane
  const NumbersAlone numbers = compute_numbers(program,
                                               checkpoint,
                                               options,
                                               run_options.pause,
                                               settings.saved_numbers ? &settings.saved_numbers->numbers : nullptr);
  result.numbers = numbers.result;
  result.run.ended_by_signal = numbers.result.ended_by_signal;
  result.run.memory_bytes = result.run.memory_bytes_max = numbers.result.memory_bytes;
  add_saved(result, settings.saved_numbers, program.chip);
  set_wall_time(result.run, seconds_since(begin, settings));
  if (numbers.stopped_before) {
    save(result,
         settings,
         *numbers.stopped_before,
         {save_numeric_part(*settings.save, 0, settings.key->schedule_digest, numbers.chips)});
  }
  return result;
}

RankResult run_on_ranks(scheduler::ClusterProgram& program,
                        const RunOptions& options,
                        const RankSettings& settings,
                        RankGroup& group,
                        const Console& console) {
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
                   .carrier = settings.carrier,
                   .trace = settings.trace,
                   .numbers = settings.numbers,
                   .save = settings.save,
                   .saved_chips = {}};
  // A fault that cannot be planted is refused before the start.
  RunOptions own_options = options_of(order, 0);
  own_options.progress = options.progress;
  std::optional<GenerateOptions> generation = generation_of(order);
  if (settings.numbers) {
    order.pairs = with_numbers(std::move(order.pairs), program, dealing);
    order.numbers->digest = shape_digest(scheduler::Checkpoint::open(order.numbers->checkpoint));
    generation->progress = settings.numbers->options.progress;
  }
  const auto give_state = [&](std::int32_t rank) {
    order.saved_chips = chips_of(settings.saved, dealing.rank_of, rank);
    if (order.numbers) {
      order.numbers->saved = numbers_of(settings.saved_numbers, dealing.rank_of, rank);
    }
  };
  group.begin();
  for (std::int32_t rank = 1; rank < group.ranks(); ++rank) {
    order.program = scheduler::to_bytes(part_of(program, dealing, rank));
    give_state(rank);
    group.send_start(rank, order);
  }
  give_state(0);
  const scheduler::ClusterProgram part = part_of(program, dealing, 0);
  program.texts = {};
  Part own = take_part({part, order, group, console}, own_options, generation ? &*generation : nullptr);
  auto outcomes = group.gather(std::move(own.outcome));
  std::vector<ChipOutcome> chips;
  std::vector<Trace> traces;
  NumericOutcome numbers;
  std::vector<SavedPart> parts;
  for (auto& outcome : outcomes) {
    if (outcome) {
      if (outcome->saved && outcome->saved->chips > 0) {
        parts.push_back(*outcome->saved);
      }
      chips.insert(chips.end(), outcome->chips.begin(), outcome->chips.end());
      traces.push_back(std::move(outcome->trace));
      add(numbers, outcome->numbers);
    }
  }
  RankResult result{.run = measure(program, plan, options, order.digest, std::move(chips)),
                    .trace = merge(std::move(traces)),
                    .numbers = std::move(own.answers)};
  add_ranks(result.run, outcomes);
  for (ChipFigures& chip : result.run.per_chip) {
    chip.rank = dealing.rank_of[static_cast<std::size_t>(chip.chip)];
  }
  result.run.ended_by_signal = own.signal != 0 ? own.signal : group.stopped_by();
  result.run.ranks = group.ranks();
  result.run.ranks_idle = group.ranks() - dealing.ranks_used;
  result.run.hosts = group.exchange().hosts();
  put(numbers, program.chip, result.numbers);
  result.numbers.ended_by_signal = result.run.ended_by_signal;
  result.numbers.memory_bytes = result.run.memory_bytes;
  add_saved(result.run, settings.saved);
  add_saved(result, settings.saved_numbers, program.chip);
  set_wall_time(result.run, seconds_since(begin, settings));
  if (own.stopped_before >= 0 && result.run.ended_by_signal == 0) {
    if (settings.numbers) {
      save(result, settings, own.stopped_before, parts);
    } else {
      save(result.run, *settings.save, own.stopped_before, parts);
    }
  }
  return result;
}

node::ExitCode follow(RankGroup& group, const Console& console) {
  const StopWatch watch;
  while (std::optional<StartOrder> order = group.await_start()) {
    group.begin();
    const scheduler::ClusterProgram part =
        scheduler::from_bytes(order->program, "the program of rank " + std::to_string(group.rank()));
    order->program = {};
    const std::optional<GenerateOptions> generation = generation_of(*order);
    const Part own = take_part(
        {part, *order, group, console}, options_of(*order, group.rank()), generation ? &*generation : nullptr);
    group.report(own.outcome);
  }
  return group.quit_code();
}

}  // namespace lpu::cluster
