#include "lpu/interconnect/gather.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <map>
#include <tuple>
#include <vector>

#include "lpu/interconnect/link_timing.hpp"
#include "lpu/interconnect/route.hpp"
#include "lpu/node/error.hpp"

namespace lpu::interconnect {
namespace {

using node::Cycles;

struct KindName {
  GatherKind kind;
  std::string_view name;
};
constexpr std::array<KindName, 4> kKinds{{
    {GatherKind::kNothing, "nothing"},
    {GatherKind::kDirect, "direct"},
    {GatherKind::kRing, "ring"},
    {GatherKind::kTwoLevel, "two-level"},
}};

/// Every pair of chips has a cable of its own.
bool is_fully_joined(const GatherGroup& group) {
  return group.nodes == 1 || (group.chips_per_node == 1 && group.cables_per_node_pair > 0);
}

/// Cables close a circle through all chips: with several chips a node it enters and leaves a node on different chips.
bool has_ring(const GatherGroup& group) {
  return group.chips > 2 && (is_fully_joined(group) || group.cables_per_node_pair >= 2);
}

GatherCost direct_cost(const node::ChipSpec& chip, const GatherGroup& group, std::int64_t vectors) {
  const std::int64_t each = group.nodes == 1 ? vectors : node::ceil_div(vectors, group.cables_per_node_pair);
  return {.kind = GatherKind::kDirect, .time = hop_time(chip, 1, each), .busiest_link = each, .hops = 1};
}

GatherCost ring_cost(const node::ChipSpec& chip, const GatherGroup& group, std::int64_t vectors) {
  const std::int32_t steps = group.chips / 2;
  const Cycles step = std::max(chip.link_flight + chip.c2c_endpoint, chip.link_serialisation * vectors);
  return {.kind = GatherKind::kRing,
          .time = hop_time(chip, 1, vectors) + step * (steps - 1),
          .busiest_link = steps * vectors,
          .hops = steps};
}

GatherCost two_level_cost(const node::ChipSpec& chip, const GatherGroup& group, std::int64_t vectors) {
  const std::int64_t on_cable = node::ceil_div(group.chips_per_node * vectors, group.cables_per_node_pair);
  const std::int64_t to_pass_on = group.cable_ends_per_chip * on_cable;
  const Cycles hop = chip.link_flight + chip.c2c_endpoint;
  return {.kind = GatherKind::kTwoLevel,
          .time = hop + std::max(2 * hop, chip.link_serialisation * vectors) + chip.link_serialisation * to_pass_on,
          .busiest_link = vectors + to_pass_on,
          .hops = 3};
}

}  // namespace

std::string_view to_text(GatherKind kind) {
  return kKinds.at(static_cast<std::size_t>(kind)).name;
}

GatherGroup gather_group(const Topology& topology, std::span<const std::int32_t> chips) {
  std::map<std::int32_t, std::vector<std::int32_t>> by_node;
  for (const std::int32_t chip : chips) {
    by_node[topology.node_of(chip)].push_back(chip);
  }
  GatherGroup group{.chips = static_cast<std::int32_t>(chips.size()),
                    .nodes = static_cast<std::int32_t>(by_node.size())};
  std::int32_t fewest = by_node.size() < 2 ? 0 : std::numeric_limits<std::int32_t>::max();
  std::map<std::int32_t, std::int32_t> ends_of_chip;
  for (auto from = by_node.begin(); from != by_node.end(); ++from) {
    group.chips_per_node = std::max(group.chips_per_node, static_cast<std::int32_t>(from->second.size()));
    for (auto to = std::next(from); to != by_node.end(); ++to) {
      const std::vector<Cable> cables = cables_between(topology, from->second, to->second);
      fewest = std::min(fewest, static_cast<std::int32_t>(cables.size()));
      for (const Cable& cable : cables) {
        group.cable_ends_per_chip =
            std::max({group.cable_ends_per_chip, ++ends_of_chip[cable.from_chip], ++ends_of_chip[cable.to_chip]});
      }
    }
  }
  group.cables_per_node_pair = fewest;
  return group;
}

std::optional<GatherCost> gather_cost(GatherKind kind,
                                      const node::ChipSpec& chip,
                                      const GatherGroup& group,
                                      std::int64_t vectors) {
  LPU_CHECK(vectors >= 0, "a gather of fewer than no vectors");
  const bool is_needed = group.chips > 1;
  switch (kind) {
    case GatherKind::kNothing:
      return is_needed ? std::nullopt : std::optional(GatherCost{});
    case GatherKind::kDirect:
      return is_needed && is_fully_joined(group) ? std::optional(direct_cost(chip, group, vectors)) : std::nullopt;
    case GatherKind::kRing:
      return has_ring(group) ? std::optional(ring_cost(chip, group, vectors)) : std::nullopt;
    case GatherKind::kTwoLevel:
      return group.nodes > 1 && group.chips_per_node > 1 && group.cables_per_node_pair > 0
                 ? std::optional(two_level_cost(chip, group, vectors))
                 : std::nullopt;
  }
  return std::nullopt;
}

std::optional<GatherCost> choose_gather(const node::ChipSpec& chip, const GatherGroup& group, std::int64_t vectors) {
  const auto rank = [](const GatherCost& cost) { return std::tuple(cost.time, cost.busiest_link, cost.kind); };
  std::optional<GatherCost> best;
  for (const KindName& row : kKinds) {
    const std::optional<GatherCost> cost = gather_cost(row.kind, chip, group, vectors);
    if (cost && (!best || rank(*cost) < rank(*best))) {
      best = cost;
    }
  }
  return best;
}

}  // namespace lpu::interconnect
