#pragma once
#include <vector>

#include "lpu/node/error.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// Prove that a program keeps every rule of node/README.md, for all iterations that may overlap.
///
/// Shares no logic with the scheduler: it derives reservations, values, lifetimes, arrivals and capacities from the
/// instructions alone. Equal texts are proved once; transfers per pair of chips.
///
/// @param most  stop after so many breaches
/// @return breaches in (chip, cycle) order; empty: the program is legal
/// @throws node::InputError when the program is not even well-formed (indices out of range), naming the field
[[nodiscard]] std::vector<node::Violation> verify(const ClusterProgram& program, std::size_t most = 1);

}  // namespace lpu::scheduler
