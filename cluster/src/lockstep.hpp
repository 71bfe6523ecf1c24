#pragma once
#include <functional>
#include <optional>

#include "execution.hpp"
#include "lpu/cluster/generate.hpp"
#include "lpu/cluster/run_program.hpp"
#include "lpu/interconnect/rank_exchange.hpp"
#include "rank_group.hpp"
#include "saved_generation.hpp"
#include "saved_run.hpp"
#include "trace.hpp"

namespace lpu::cluster {

/// Runs the chips of this rank until all are done, or a signal asks for the end: the one loop of every execution.
/// @param group  nullptr: all chips are here
/// @return       the signal; 0: done
/// @throws       what the execution and RankGroup throw; ScheduleViolation also for a deadlock and for vectors never
///               received
[[nodiscard]] int execute(Execution& execution,
                          const RunOptions& options,
                          RankGroup* group,
                          LoopTimes* times = nullptr);

/// The loop's progress is the generation's. The options must outlive the loop.
void report_progress(const GenerateOptions& options, RunOptions& run_options);

/// How ranks execute a program, beside what RunOptions say.
struct RankSettings {
  interconnect::Carrier carrier = interconnect::Carrier::kAuto;
  TraceSelection trace;
  std::optional<NumericOrder> numbers;  ///< the numeric plane, too
  std::optional<SaveOrder> save{};      ///< where SIGUSR1 saves the state
  std::optional<SavedRun> saved{};      ///< to go on from
  // Likewise of the numeric plane.
  std::optional<GenerationKey> key{};  ///< with `save` or `saved_numbers`
  std::optional<SavedGeneration> saved_numbers{};
};

struct RankResult {
  RunResult run;  ///< timing plane; wall time, memory, messages, cut and resumption of all
  Trace trace;    ///< bursts that were selected
  GenerateResult numbers;
};

/// All chips in this process, timing plane.
[[nodiscard]] RankResult run_alone(const scheduler::ClusterProgram& program,
                                   const RunOptions& options,
                                   const RankSettings& settings);

/// The numeric plane alone, all chips in this process.
struct NumbersAlone {
  GenerateResult result;
  std::optional<std::int64_t> stopped_before{};  ///< position
  std::vector<SavedNumericChip> chips{};         ///< with it
};
/// @param pause  after each turn of a chip, for tests
/// @param from   to go on from; nullptr: it starts
[[nodiscard]] NumbersAlone compute_numbers(const scheduler::ClusterProgram& program,
                                           const scheduler::Checkpoint& checkpoint,
                                           const GenerateOptions& options,
                                           const std::function<void()>& pause,
                                           const NumericState* from);

/// All chips in this process, both planes: settings.numbers has what is asked for.
[[nodiscard]] RankResult generate_alone(const scheduler::ClusterProgram& program,
                                        const scheduler::Checkpoint& checkpoint,
                                        const RunOptions& options,
                                        const RankSettings& settings);

/// Rank 0's side of an execution on several ranks: deals the chips, takes part, collects what all measured.
/// @post the program has no texts any more: each rank has its own
[[nodiscard]] RankResult run_on_ranks(scheduler::ClusterProgram& program,
                                      const RunOptions& options,
                                      const RankSettings& settings,
                                      RankGroup& group,
                                      const Console& console);

/// The side of all others. Returns when rank 0 lets them go.
[[nodiscard]] node::ExitCode follow(RankGroup& group, const Console& console);

}  // namespace lpu::cluster
