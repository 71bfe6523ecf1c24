#pragma once
#include "verify_facts.hpp"
#include "verify_lane_map.hpp"
#include "verify_lanes.hpp"

namespace lpu::scheduler::proof {

/// Tiles stand complete before they are named, sums are whole before they are drained.
///
/// Adds to `table` the spans in which a plane's weight buffer (first install to take-up), its array (first to last
/// compute of a tile) and each accumulator (first compute to drain) belong to one tile or sum: that no two of them
/// overlap, in this iteration or across iterations, is what prove_claims() then decides.
void prove_mxm(const TextFacts& facts, const LaneMap& map, LaneTable& table, Findings& findings);

}  // namespace lpu::scheduler::proof
