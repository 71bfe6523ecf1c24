#pragma once
#include <cstdint>
#include <vector>

#include "lpu/interconnect/topology.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// Carry the new token from the last stage to every chip of stage 0, in slots that the chips on the way have free.
///
/// Chips whose text changes get one of their own. Sets program.token_latency: the cycle in which the token can be read
/// on the last chip of stage 0.
///
/// @return C2C hops from the last stage to the farthest chip of the first; 0: one stage
/// @param token_ready  cycle of an iteration, in the cluster's time, from which the last stage's token rows can be read
std::int32_t return_token(ClusterProgram& program, const interconnect::Topology& topology, std::int64_t token_ready);

}  // namespace lpu::scheduler
