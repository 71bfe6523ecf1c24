#include "lpu/interconnect/route.hpp"

#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "test_chip.hpp"

namespace lpu::interconnect {
namespace {

/// The chip at which a route ends; fails where a hop does not start at the end of the one before.
std::int32_t follow(const Topology& topology, std::int32_t from, const Route& route) {
  for (const Hop& hop : route) {
    EXPECT_EQ(hop.chip, from);
    from = topology.peers.at(static_cast<std::size_t>(hop.chip)).at(static_cast<std::size_t>(hop.link)).chip;
  }
  return from;
}

TEST(Route, InsideANodeIsOneHop) {
  const Topology topology = make_topology(test::tsp_v1(), 8);
  EXPECT_EQ(find_route(topology, 2, 7), (Route{{2, 4}}));  // 2 XOR 7 = 5 = link + 1
  EXPECT_EQ(find_route(topology, 3, 3), Route{});
}

TEST(Route, AvoidsChipsThatMayNotForward) {
  const Topology topology = make_topology(test::tsp_v1(), 16);  // every position has its cables
  const Route free = find_route(topology, 0, 9);
  EXPECT_EQ(free, (Route{{0, 0}, {1, 7}}));  // by chip 1, the lowest link
  const Route around = find_route(topology, 0, 9, [](std::int32_t chip) { return chip != 1; });
  EXPECT_EQ(around, (Route{{0, 7}, {8, 0}}));
  EXPECT_EQ(find_route(topology, 0, 9, [](std::int32_t) { return false; }), Route{});
  EXPECT_EQ(find_route(topology, 0, 1, [](std::int32_t) { return false; }), (Route{{0, 0}}));
}

TEST(Route, IdleChipsAloneCanCarryAcrossARack) {
  const Topology topology = make_topology(test::tsp_v1(), 576);
  const Route route = find_route(topology, 0, 8 * 4, [&](std::int32_t chip) {
    return topology.is_spare(chip) || topology.node_of(chip) == 0 || topology.node_of(chip) == 4;
  });
  EXPECT_FALSE(route.empty());
  EXPECT_EQ(follow(topology, 0, route), 32);
}

TEST(RouteProperty, RoutesAreConnectedShortestAndAlwaysTheSame) {
  std::mt19937 random(7);
  for (const std::int32_t chips : {3, 24, 100, 264, 576, 1000, 9280}) {
    const Topology topology = make_topology(test::tsp_v1(), chips);
    std::uniform_int_distribution<std::int32_t> any(0, topology.chips_with_spares - 1);
    for (std::int32_t sample = 0; sample < 20; ++sample) {
      const std::int32_t from = any(random);
      const std::int32_t to = any(random);
      const Route route = find_route(topology, from, to);
      ASSERT_EQ(follow(topology, from, route), to);
      ASSERT_EQ(static_cast<std::int32_t>(route.size()), hops_from(topology, from)[static_cast<std::size_t>(to)]);
      ASSERT_EQ(route, find_route(topology, from, to));
    }
  }
}

TEST(Cables, BetweenNeighbouringGroupsAreListedInOrder) {
  const Topology topology = make_topology(test::tsp_v1(), 64);
  const std::vector<std::int32_t> from{0, 1, 2, 3, 4, 5, 6, 7};
  const std::vector<std::int32_t> to{8, 9, 10, 11, 12, 13, 14, 15};
  EXPECT_EQ(cables_between(topology, from, to),
            (std::vector<Cable>{{0, 7, 8, 8}, {2, 7, 10, 8}, {4, 9, 12, 10}, {6, 9, 14, 10}}));
  EXPECT_EQ(cables_between(topology, to, from),
            (std::vector<Cable>{{8, 8, 0, 7}, {10, 8, 2, 7}, {12, 10, 4, 9}, {14, 10, 6, 9}}));
}

TEST(Cables, GroupsOfFourReachTheNextNodeFromBothHalves) {
  const Topology topology = make_topology(test::tsp_v1(), 576);
  const std::vector<std::int32_t> low{0, 1, 2, 3};
  const std::vector<std::int32_t> high{4, 5, 6, 7};
  const std::vector<std::int32_t> next_low{8, 9, 10, 11};
  const std::vector<std::int32_t> next_high{12, 13, 14, 15};
  EXPECT_EQ(cables_between(topology, low, high).size(), 16U);
  EXPECT_EQ(cables_between(topology, high, next_high).size(), 1U);
  EXPECT_EQ(cables_between(topology, low, next_low).size(), 1U);
  EXPECT_TRUE(cables_between(topology, high, next_low).empty())
      << "equal positions only: groups follow as low, high, high, low";
}

}  // namespace
}  // namespace lpu::interconnect
