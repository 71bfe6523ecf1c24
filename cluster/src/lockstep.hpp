#pragma once
#include "lpu/cluster/run_program.hpp"
#include "lpu/interconnect/rank_exchange.hpp"
#include "rank_group.hpp"
#include "runner.hpp"
#include "trace.hpp"

namespace lpu::cluster {

/// Runs the chips of this rank until all are done, or a signal asks for the end: the one loop of every execution.
/// @param group  nullptr: all chips are here
/// @return       the signal; 0: done
/// @throws       what Runner and RankGroup throw; ScheduleViolation also for a deadlock and for vectors never received
[[nodiscard]] int execute(Runner& runner, const RunOptions& options, RankGroup* group);

/// Rank 0's side of an execution on several ranks: deals the chips, takes part, collects what all measured.
/// @param trace  gets the bursts that were selected
/// @post the program has no texts any more: each rank has its own
[[nodiscard]] RunResult run_on_ranks(scheduler::ClusterProgram& program,
                                     const RunOptions& options,
                                     interconnect::Carrier carrier,
                                     const TraceSelection& selection,
                                     RankGroup& group,
                                     const Console& console,
                                     Trace& trace);

/// The side of all others. Returns when rank 0 lets them go.
[[nodiscard]] node::ExitCode follow(RankGroup& group, const Console& console);

}  // namespace lpu::cluster
