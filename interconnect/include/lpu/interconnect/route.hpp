#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lpu/interconnect/topology.hpp"

namespace lpu::interconnect {

/// One step of a route: it leaves `chip` on `link`.
struct Hop {
  std::int32_t chip = -1;
  std::int32_t link = -1;
  bool operator==(const Hop&) const = default;
};

using Route = std::vector<Hop>;  ///< empty: source and destination are one chip, or there is no route

/// Two link ends that are plugged together, seen in one direction.
struct Cable {
  std::int32_t from_chip = -1;
  std::int32_t from_link = -1;
  std::int32_t to_chip = -1;
  std::int32_t to_link = -1;
  bool operator==(const Cable&) const = default;
};

/// A route with the fewest hops. Among equals the one whose links, read from the source, are lowest (lexicographic).
[[nodiscard]] Route find_route(const Topology& topology, std::int32_t from, std::int32_t to);

/// As above, through chips that may forward.
///
/// @param may_forward  asked for the chips between the two ends only
/// @return             empty where every way passes a chip that may not forward
[[nodiscard]] Route find_route(const Topology& topology,
                               std::int32_t from,
                               std::int32_t to,
                               const std::function<bool(std::int32_t)>& may_forward);

/// Hops of the shortest route from one chip to each chip, spares included; -1: not reached.
[[nodiscard]] std::vector<std::int32_t> hops_from(const Topology& topology, std::int32_t from);

/// The cables that lead from any chip of `from` directly to any chip of `to`, in (position in `from`, link) order.
[[nodiscard]] std::vector<Cable> cables_between(const Topology& topology,
                                                std::span<const std::int32_t> from,
                                                std::span<const std::int32_t> to);

}  // namespace lpu::interconnect
