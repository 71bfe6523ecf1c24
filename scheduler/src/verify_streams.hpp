#pragma once
#include "verify_facts.hpp"
#include "verify_lane_map.hpp"

namespace lpu::scheduler::proof {

/// Every input finds, on its stream and diagonal, exactly the value that it names, put there upstream and kept that
/// far.
///
/// Values are joined within one iteration: what another iteration puts there instead is a clash of streams, which
/// prove_claims() finds.
void prove_values(const TextFacts& facts, const LaneMap& map, Findings& findings);

/// Each input's tensor is a source of the outputs' tensors; rows lie inside their tensors.
void prove_sources(const TextFacts& facts, Findings& findings);
/// Each tensor is made by and used by the operations that it declares, as many vectors of it by each.
void prove_operations(const TextFacts& facts, Findings& findings);
void prove_rows(const TextFacts& facts, Findings& findings);

}  // namespace lpu::scheduler::proof
