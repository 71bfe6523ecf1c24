#pragma once
#include "verify_facts.hpp"

namespace lpu::scheduler::proof {

/// Sizes that the arithmetic of the proof relies on, beyond well_formed.hpp.
/// @throws node::InputError
void check_limits(const ClusterProgram& program);

/// Every instruction has the operands that its unit can serve, on streams that reach it.
/// @return false: breaches were found, and the text's other rules cannot be asked
bool prove_shapes(const TextFacts& facts, Findings& findings);

/// The text's makespan covers all that its instructions occupy, and nothing happens before the iteration starts.
/// @return cycle after the last one in which an instruction occupies anything
std::int64_t prove_makespan(const TextFacts& facts, Findings& findings);

}  // namespace lpu::scheduler::proof
