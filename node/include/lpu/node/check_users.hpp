#pragma once
#include <span>

#include "lpu/node/iteration.hpp"
#include "lpu/node/program.hpp"

namespace lpu::node {

/// Users of a micro-batch never meet (node/README.md, "Users"), over all chips of a cluster: a row is one user's or
/// nobody's, whichever chip holds it, and so is all that is made of it.
///
/// @throws ScheduleViolation  the first instance, in (stage, chip, cycle) order, that brings two users together
void check_users(std::span<const ChipProgram> texts, std::span<const ChipBinding> chips, const IterationPlan& plan);

}  // namespace lpu::node
