#include "lpu/interconnect/gather.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/interconnect/link_timing.hpp"
#include "lpu/interconnect/route.hpp"
#include "test_chip.hpp"

namespace lpu::interconnect {
namespace {

using node::Cycles;

std::vector<std::int32_t> chips_from(std::int32_t first, std::int32_t count) {
  std::vector<std::int32_t> chips(static_cast<std::size_t>(count));
  std::iota(chips.begin(), chips.end(), first);
  return chips;
}

TEST(Gather, GroupIsReadOffTheWires) {
  const Topology topology = make_topology(test::tsp_v1(), 64);
  const GatherGroup in_node = gather_group(topology, chips_from(8, 8));
  EXPECT_EQ(in_node.nodes, 1);
  EXPECT_EQ(in_node.chips_per_node, 8);
  const GatherGroup two_nodes = gather_group(topology, chips_from(16, 16));
  EXPECT_EQ(two_nodes.chips, 16);
  EXPECT_EQ(two_nodes.nodes, 2);
  EXPECT_EQ(two_nodes.cables_per_node_pair, 4);
  EXPECT_EQ(two_nodes.cable_ends_per_chip, 1);
  EXPECT_EQ(gather_group(topology, std::vector<std::int32_t>{1, 9}).cables_per_node_pair, 0)
      << "position 1 has none to the next";
}

TEST(Gather, InANodeIsDirect) {
  const node::ChipSpec chip = test::tsp_v1();
  const GatherGroup group{.chips = 8, .nodes = 1, .chips_per_node = 8};
  const std::optional<GatherCost> cost = choose_gather(chip, group, 4);
  ASSERT_TRUE(cost.has_value());
  EXPECT_EQ(cost->kind, GatherKind::kDirect);
  EXPECT_EQ(cost->time, Cycles(217 + 299 + 24 * 4));
  EXPECT_EQ(cost->busiest_link, 4);
  EXPECT_FALSE(gather_cost(GatherKind::kTwoLevel, chip, group, 4).has_value());
}

TEST(Gather, ASingleChipHasNothingToGather) {
  const std::optional<GatherCost> cost = choose_gather(test::tsp_v1(), GatherGroup{}, 100);
  ASSERT_TRUE(cost.has_value());
  EXPECT_EQ(cost->kind, GatherKind::kNothing);
  EXPECT_EQ(cost->time, Cycles(0));
  EXPECT_EQ(to_text(cost->kind), "nothing");
}

TEST(Gather, RingInBothDirectionsTakesHalfTheSteps) {
  const GatherGroup group{.chips = 8, .nodes = 1, .chips_per_node = 8};
  const std::optional<GatherCost> few = gather_cost(GatherKind::kRing, test::tsp_v1(), group, 4);
  ASSERT_TRUE(few.has_value());
  EXPECT_EQ(few->time, Cycles(4 * 516 + 24 * 4));  // a step lasts as long as a hop
  const std::optional<GatherCost> many = gather_cost(GatherKind::kRing, test::tsp_v1(), group, 100);
  ASSERT_TRUE(many.has_value());
  EXPECT_EQ(many->time, Cycles(516 + 4 * 2400));  // the links are never idle
  EXPECT_EQ(many->busiest_link, 400);
}

TEST(Gather, TwoNodesWithFourCablesTakeTwoLevels) {
  const GatherGroup group{
      .chips = 16, .nodes = 2, .chips_per_node = 8, .cables_per_node_pair = 4, .cable_ends_per_chip = 1};
  const std::optional<GatherCost> cost = choose_gather(test::tsp_v1(), group, 4);
  ASSERT_TRUE(cost.has_value());
  EXPECT_EQ(cost->kind, GatherKind::kTwoLevel);
  EXPECT_EQ(cost->time, Cycles(3 * 516 + 24 * 8));  // 8 chips x 4 vectors over 4 cables
  EXPECT_EQ(cost->busiest_link, 4 + 8);
}

TEST(Gather, NodesThatAreNotJoinedHaveNoClosedForm) {
  const GatherGroup group{.chips = 16, .nodes = 2, .chips_per_node = 8, .cables_per_node_pair = 0};
  EXPECT_FALSE(choose_gather(test::tsp_v1(), group, 4).has_value());
}

TEST(GatherProperty, TheChosenKindIsTheCheapestAndTimeGrowsWithVectors) {
  const node::ChipSpec chip = test::tsp_v1();
  for (const std::int32_t chips : {2, 3, 5, 7, 8, 16, 24, 64}) {
    const Topology topology = make_topology(chip, std::max(chips, 8));
    const GatherGroup group = gather_group(topology, chips_from(0, chips));
    Cycles last(0);
    for (std::int64_t vectors = 1; vectors <= 300; ++vectors) {
      const std::optional<GatherCost> best = choose_gather(chip, group, vectors);
      ASSERT_TRUE(best.has_value());
      for (const GatherKind kind : {GatherKind::kDirect, GatherKind::kRing, GatherKind::kTwoLevel}) {
        const std::optional<GatherCost> other = gather_cost(kind, chip, group, vectors);
        ASSERT_TRUE(!other || best->time <= other->time);
      }
      ASSERT_GE(best->time, last);
      last = best->time;
    }
  }
}

/// A link's vectors, one after the other: when each starts, and from when on the far end may forward it.
class Wire {
 public:
  explicit Wire(const node::ChipSpec& chip) : chip_(&chip) {}
  std::int64_t carry(std::int64_t ready) {
    const std::int64_t start = std::max(ready, free_);
    free_ = start + chip_->link_serialisation.count();
    return start + (chip_->link_flight + chip_->c2c_endpoint).count();
  }

 private:
  const node::ChipSpec* chip_;
  std::int64_t free_ = 0;
};

// Two-level gather played vector by vector over the wires of a real system: the closed form must be within 5%.
TEST(GatherProperty, TwoLevelClosedFormFollowsThePlayedGather) {
  const node::ChipSpec chip = test::tsp_v1();
  for (const auto& [system, nodes] : {std::pair(64, 2),
                                      std::pair(64, 8),
                                      std::pair(72, 3),
                                      std::pair(264, 2),
                                      std::pair(128, 4),
                                      std::pair(576, 2),
                                      std::pair(576, 8)}) {
    const Topology topology = make_topology(chip, system);
    const std::vector<std::int32_t> group_chips = chips_from(0, 8 * nodes);
    const GatherGroup group = gather_group(topology, group_chips);
    for (const std::int64_t vectors : {1, 2, 4, 8, 16, 52}) {
      std::map<std::pair<std::int32_t, std::int32_t>, Wire> wires;  // (chip, link)
      const auto carry = [&](std::int32_t from, std::int32_t link, std::int64_t ready) {
        return wires.try_emplace({from, link}, chip).first->second.carry(ready);
      };
      const auto link_to = [&](std::int32_t from, std::int32_t to) {
        return cables_between(topology, std::vector{from}, std::vector{to}).front().from_link;
      };
      std::int64_t end = 0;
      // Inside each node: every chip to every other; seen(chip, owner, vector) is when it may go on.
      std::map<std::tuple<std::int32_t, std::int32_t, std::int64_t>, std::int64_t> seen;
      for (const std::int32_t owner : group_chips) {
        for (std::int64_t vector = 0; vector < vectors; ++vector) {
          seen[{owner, owner, vector}] = 0;
          for (std::int32_t other = owner - owner % 8; other < owner - owner % 8 + 8; ++other) {
            if (other != owner) {
              const std::int64_t time = carry(owner, link_to(owner, other), 0);
              seen[{other, owner, vector}] = time;
              end = std::max(end, time);
            }
          }
        }
      }
      // Between nodes, dealt round the cables in the order of the vectors; then inside the other node.
      std::vector<std::tuple<std::int64_t, std::int32_t>> arrivals;
      for (std::int32_t from = 0; from < nodes; ++from) {
        for (std::int32_t to = 0; to < nodes; ++to) {
          if (from == to) {
            continue;
          }
          const std::vector<Cable> cables = cables_between(topology, chips_from(8 * from, 8), chips_from(8 * to, 8));
          std::size_t turn = 0;
          for (std::int64_t vector = 0; vector < vectors; ++vector) {
            for (const std::int32_t owner : chips_from(8 * from, 8)) {
              const Cable& cable = cables[turn++ % cables.size()];
              arrivals.emplace_back(carry(cable.from_chip, cable.from_link, seen.at({cable.from_chip, owner, vector})),
                                    cable.to_chip);
            }
          }
        }
      }
      std::sort(arrivals.begin(), arrivals.end());
      for (const auto& [time, at] : arrivals) {
        for (std::int32_t other = at - at % 8; other < at - at % 8 + 8; ++other) {
          if (other != at) {
            end = std::max(end, carry(at, link_to(at, other), time));
          }
        }
      }
      const std::int64_t played = end + chip.link_serialisation.count();
      const std::optional<GatherCost> cost = gather_cost(GatherKind::kTwoLevel, chip, group, vectors);
      ASSERT_TRUE(cost.has_value());
      EXPECT_NEAR(
          static_cast<double>(cost->time.count()), static_cast<double>(played), 0.05 * static_cast<double>(played))
          << system << " chips, " << nodes << " nodes, " << vectors << " vectors";
    }
  }
}

}  // namespace
}  // namespace lpu::interconnect
