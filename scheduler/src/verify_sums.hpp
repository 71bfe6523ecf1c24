#pragma once
#include <cstdint>
#include <tuple>
#include <vector>

#include "verify_facts.hpp"
#include "verify_lane_map.hpp"
#include "verify_lanes.hpp"

namespace lpu::scheduler::proof {

/// A value by name: tensor, which displacement, row.
using ValueName = std::tuple<std::uint16_t, std::int64_t, std::int64_t>;

/// What happens to an accumulator.
enum class Step : std::uint8_t { kDrain, kAdd, kOverwrite };  ///< a drain comes before a compute of the same cycle

struct AccumulatorEvent {
  std::int32_t accumulator = 0;
  std::int64_t cycle = 0;
  Step step = Step::kDrain;
  std::int32_t instruction = -1;
  ValueName activation{};
  std::uint16_t tile_tensor = 0;
};

/// Every sum of one plane is begun by overwriting, complete when it is drained (as many computes as the drain says,
/// each with another activation row), readable by then, drained once, and made of sources of what the drain makes.
///
/// Claims in `table` the span that each sum has its accumulator.
/// @param plane  lane of the plane
void prove_sums(const TextFacts& facts,
                const LaneMap& map,
                std::uint32_t plane,
                std::vector<AccumulatorEvent> events,
                LaneTable& table,
                Findings& findings);

}  // namespace lpu::scheduler::proof
