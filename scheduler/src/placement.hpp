#pragma once
#include <cstdint>
#include <vector>

#include "hop_plan.hpp"
#include "lpu/interconnect/topology.hpp"
#include "partition.hpp"

namespace lpu::scheduler {

/// Chips of each stage's TP group, by group position. Consecutive stages stand on neighbouring chips; nodes that hold
/// several groups are filled back and forth, since cables join equal positions.
[[nodiscard]] std::vector<std::vector<std::int32_t>> place_groups(const interconnect::Topology& topology,
                                                                  std::int32_t tensor_parallel,
                                                                  std::int32_t stages);

/// How own parts get from one group to the next.
/// @throws node::InputError no cable joins the groups at equal positions
[[nodiscard]] HopPlan plan_hop(const interconnect::Topology& topology,
                               const std::vector<std::int32_t>& from,
                               const std::vector<std::int32_t>& to);

/// Group position that owns each slot of a gathered vector, seen from `position`.
[[nodiscard]] std::vector<std::int32_t> slot_owners(const Shard& shard, std::int32_t position);

}  // namespace lpu::scheduler
