#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "lpu/interconnect/topology.hpp"
#include "lpu/node/chip_spec.hpp"

namespace lpu::interconnect {

/// How every chip of a group comes to hold every chip's vectors.
enum class GatherKind : std::uint8_t {
  kNothing,   ///< a group of one chip
  kDirect,    ///< each chip to each other over their own cable
  kRing,      ///< half the way round in both directions
  kTwoLevel,  ///< inside each node; between nodes; inside each node what came from the others
};
[[nodiscard]] std::string_view to_text(GatherKind kind);

/// What the cost of a gather depends on.
struct GatherGroup {
  std::int32_t chips = 1;
  std::int32_t nodes = 1;           ///< that the group lies in
  std::int32_t chips_per_node = 1;  ///< of the group, in the fullest of its nodes
  std::int32_t cables_per_node_pair =
      0;  ///< between chips of the group, in the poorest pair of nodes; 0: some are not joined
  std::int32_t cable_ends_per_chip =
      0;  ///< on the chip that has most; counted between chips of the group, in different nodes
};

[[nodiscard]] GatherGroup gather_group(const Topology& topology, std::span<const std::int32_t> chips);

struct GatherCost {
  GatherKind kind = GatherKind::kNothing;
  node::Cycles time{};            ///< first vector leaves SRAM to last vector in SRAM, on idle links
  std::int64_t busiest_link = 0;  ///< vectors on it: times 24, what bounds the initiation interval
  std::int32_t hops = 0;          ///< longest way of a vector
};

/// Closed form for `vectors` vectors a chip; a hop costs L = flight + endpoint, s = serialisation.
///
///     direct      L + s n
///     ring        L + s n + (steps − 1) max(L, s n),  steps = ⌊chips / 2⌋
///     two-level   L + max(2 L, s n) + s t b,  b = ⌈chips_per_node n / cables⌉ on each cable, t = cable_ends_per_chip
///
/// @return nothing where the group's cables do not allow the kind
[[nodiscard]] std::optional<GatherCost> gather_cost(GatherKind kind,
                                                    const node::ChipSpec& chip,
                                                    const GatherGroup& group,
                                                    std::int64_t vectors);

/// The fastest kind; among equals the one with the less busy link. Nothing where nodes of the group are not joined.
[[nodiscard]] std::optional<GatherCost> choose_gather(const node::ChipSpec& chip,
                                                      const GatherGroup& group,
                                                      std::int64_t vectors);

}  // namespace lpu::interconnect
