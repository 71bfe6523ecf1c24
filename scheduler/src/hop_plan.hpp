#pragma once
#include <cstdint>
#include <vector>

namespace lpu::scheduler {

/// Where the cables to the next stage lie. Each gateway serves an aligned block of positions; the others of its block
/// reach it over the local link (position XOR gateway) - 1.
struct Gateway {
  std::int32_t position = 0;
  std::int32_t out_link = 0;  ///< at the sending stage
  std::int32_t in_link = 0;   ///< at the receiving stage
  bool operator==(const Gateway&) const = default;
};
struct HopPlan {
  std::int32_t block = 1;  ///< positions that share a gateway: a power of two
  std::vector<Gateway> gateways;
  bool operator==(const HopPlan&) const = default;
};

}  // namespace lpu::scheduler
