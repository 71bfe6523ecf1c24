#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lpu/cluster/run_program.hpp"
#include "runner.hpp"

namespace lpu::cluster {

/// A run's figures, from what each chip measured.
/// @param chips  of all ranks; those that are missing were lost in an interrupted run
/// @param plan   with the run's users
[[nodiscard]] RunResult measure(const scheduler::ClusterProgram& program,
                                const node::IterationPlan& plan,
                                const RunOptions& options,
                                std::uint64_t digest,
                                std::vector<ChipOutcome> chips);

/// Memory of this process, pages that it shares counted in parts (proportional set size); 0: the kernel does not say.
[[nodiscard]] std::int64_t memory_bytes();

/// Sets what follows from the wall time.
void set_wall_time(RunResult& result, double seconds);

}  // namespace lpu::cluster
