#pragma once
#include <cstdint>
#include <stdexcept>

#include "lpu/interconnect/topology.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// The interval leaves no room for the token's way back on a link or in a chip on it: a longer one is needed.
class NoWayBack : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Carry the new token from the last stage to every chip of stage 0, in slots that the chips on the way have free.
///
/// Chips whose text changes get one of their own. Sets program.token_latency: the cycle in which every user's token can
/// be read on the last chip of stage 0.
///
/// @return C2C hops from the last stage to the farthest chip of the first; 0: one stage
/// @throws NoWayBack
std::int32_t return_token(ClusterProgram& program, const interconnect::Topology& topology);

}  // namespace lpu::scheduler
