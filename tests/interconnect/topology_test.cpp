#include "lpu/interconnect/topology.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/interconnect/route.hpp"
#include "lpu/node/error.hpp"
#include "test_chip.hpp"

namespace lpu::interconnect {
namespace {

Topology make(std::int32_t chips) {
  return make_topology(test::tsp_v1(), chips);
}

std::vector<std::int32_t> chips_of_node(const Topology& topology, std::int32_t node) {
  const std::int32_t first = node * topology.chips_per_node;
  const std::int32_t last = std::min(first + topology.chips_per_node, topology.chips_with_spares);
  std::vector<std::int32_t> chips(static_cast<std::size_t>(last - first));
  std::iota(chips.begin(), chips.end(), first);
  return chips;
}

/// (position, link) at both ends of each cable that leads from one node to another.
using Ends = std::set<std::tuple<std::int32_t, std::int32_t, std::int32_t, std::int32_t>>;
Ends ends_between(const Topology& topology, std::int32_t from, std::int32_t to) {
  Ends ends;
  for (const Cable& cable : cables_between(topology, chips_of_node(topology, from), chips_of_node(topology, to))) {
    ends.insert(
        {topology.position_of(cable.from_chip), cable.from_link, topology.position_of(cable.to_chip), cable.to_link});
  }
  return ends;
}

/// Cables a pair (smaller first) of nodes, or of racks.
using PairCounts = std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t>;
template <typename PlaceOf>
PairCounts count_pairs(const Topology& topology, PlaceOf place_of) {
  PairCounts counts;
  for (std::int32_t chip = 0; chip < topology.chips_with_spares; ++chip) {
    for (const node::LinkPeer& end : topology.peers[static_cast<std::size_t>(chip)]) {
      if (end.chip > chip && place_of(chip) != place_of(end.chip)) {
        ++counts[std::minmax(place_of(chip), place_of(end.chip))];
      }
    }
  }
  return counts;
}

/// Every size up to 264, and every number of racks.
std::vector<std::int32_t> many_sizes() {
  std::vector<std::int32_t> sizes(kOneLevelChips);
  std::iota(sizes.begin(), sizes.end(), 1);
  for (std::int32_t chips = kOneLevelChips + 1; chips <= kChipsMost; chips += 61) {
    sizes.push_back(chips);
  }
  sizes.push_back(kChipsMost);
  return sizes;
}

TEST(Topology, LocalLinksAreTheSameNumberAtBothEndsAndReachTheWholeNode) {
  const Topology topology = make(8);
  for (std::int32_t chip = 0; chip < 8; ++chip) {
    for (std::int32_t link = 0; link < 7; ++link) {
      const node::LinkPeer& end = topology.peers.at(static_cast<std::size_t>(chip)).at(static_cast<std::size_t>(link));
      EXPECT_EQ(end.chip, chip ^ (link + 1));
      EXPECT_EQ(end.link, link);
    }
    for (std::size_t link = 7; link < 11; ++link) {
      EXPECT_EQ(topology.peers.at(static_cast<std::size_t>(chip)).at(link).chip, -1);
    }
  }
}

TEST(Topology, SmallSystemsJoinEveryPairOfChips) {
  for (const std::int32_t chips : {1, 2, 3, 5, 7, 8}) {
    const Topology topology = make(chips);
    EXPECT_EQ(topology.nodes(), 1);
    EXPECT_EQ(topology.chips_with_spares, chips);
    for (std::int32_t chip = 0; chip < chips; ++chip) {
      const std::vector<std::int32_t> hops = hops_from(topology, chip);
      EXPECT_EQ(std::count(hops.begin(), hops.end(), 1), chips - 1) << chips;
    }
  }
}

TEST(Topology, OneLevelGivesEveryNodePairTheSameNumberOfCables) {
  for (std::int32_t nodes = 2; nodes <= 33; ++nodes) {
    const Topology topology = make(8 * nodes);
    const PairCounts counts = count_pairs(topology, [&](std::int32_t chip) { return topology.node_of(chip); });
    ASSERT_EQ(static_cast<std::int32_t>(counts.size()), nodes * (nodes - 1) / 2) << nodes;
    for (const auto& [pair, cables] : counts) {
      ASSERT_EQ(cables, 32 / (nodes - 1)) << nodes << " nodes, pair " << pair.first << ", " << pair.second;
    }
  }
}

TEST(Topology, FourCablesOfANodePairLieOnFourChipsInBothHalvesAndBothHemispheres) {
  const Topology topology = make(64);
  for (std::int32_t to = 1; to < 8; ++to) {
    std::set<std::int32_t> positions;
    std::int32_t east = 0;
    std::int32_t upper_half = 0;
    for (const auto& [position, link, far_position, far_link] : ends_between(topology, 0, to)) {
      EXPECT_EQ(position, far_position);
      EXPECT_EQ(test::tsp_v1().link_hemisphere.at(static_cast<std::size_t>(link)),
                test::tsp_v1().link_hemisphere.at(static_cast<std::size_t>(far_link)));
      positions.insert(position);
      east += link >= 9 ? 1 : 0;
      upper_half += position >= 4 ? 1 : 0;
    }
    EXPECT_EQ(positions.size(), 4U) << to;
    EXPECT_EQ(east, 2) << to;
    EXPECT_EQ(upper_half, 2) << to;
  }
}

TEST(Topology, RackHasTwoCablesToEachNodeAndSpreadsItsPortsEvenlyOverTheOtherRacks) {
  for (std::int32_t racks = 5; racks <= 145; ++racks) {
    const Topology topology = make(64 * racks);
    ASSERT_EQ(topology.racks, racks);
    ASSERT_EQ(topology.chips_with_spares, 72 * racks);
    const PairCounts nodes = count_pairs(topology, [&](std::int32_t chip) { return topology.node_of(chip); });
    std::int32_t pairs_within = 0;
    for (const auto& [pair, cables] : nodes) {
      if (topology.rack_of(8 * pair.first) == topology.rack_of(8 * pair.second)) {
        ++pairs_within;
        ASSERT_EQ(cables, 2) << racks << " racks, nodes " << pair.first << ", " << pair.second;
      }
    }
    ASSERT_EQ(pairs_within, racks * 36);
    const PairCounts between = count_pairs(topology, [&](std::int32_t chip) { return topology.rack_of(chip); });
    ASSERT_EQ(static_cast<std::int32_t>(between.size()), racks * (racks - 1) / 2);
    std::int32_t total = 0;
    for (const auto& [pair, cables] : between) {
      ASSERT_GE(cables, 144 / (racks - 1)) << racks;
      ASSERT_LE(cables, 144 / (racks - 1) + 1) << racks;
      total += cables;
    }
    ASSERT_GE(2 * total, 143 * racks) << "at most one port of a rack stays free";
  }
}

TEST(Topology, CablesBetweenRacksJoinNodesOfEqualIndexOrTheTwoEndsOfPlacementOrder) {
  const Topology topology = make(576);
  const auto index_of = [&](std::int32_t chip) {
    const std::int32_t node = topology.node_of(chip);
    return node < 72 ? node % 8 : 8;
  };
  std::int32_t equal = 0;
  std::int32_t crossing = 0;
  for (std::int32_t chip = 0; chip < topology.chips_with_spares; ++chip) {
    for (const node::LinkPeer& end : topology.peers[static_cast<std::size_t>(chip)]) {
      if (end.chip > chip && topology.rack_of(end.chip) != topology.rack_of(chip)) {
        EXPECT_EQ(topology.position_of(chip), topology.position_of(end.chip));
        if (index_of(chip) == index_of(end.chip)) {
          ++equal;
        } else {
          ++crossing;
          EXPECT_EQ(std::min(index_of(chip), index_of(end.chip)), 0);
          EXPECT_EQ(std::max(index_of(chip), index_of(end.chip)), 7);
        }
      }
    }
  }
  EXPECT_EQ(equal, 9 * 68);
  EXPECT_EQ(crossing, 9 * 4);
}

TEST(Topology, SparesAreWiredAndCountedBeyondTheActiveChips) {
  const Topology topology = make(300);  // 5 racks; 37.5 of 40 active nodes in use
  EXPECT_EQ(topology.chips, 300);
  EXPECT_EQ(topology.nodes(), 38);
  EXPECT_EQ(topology.chips_with_spares, 360);
  EXPECT_FALSE(topology.is_spare(299));
  EXPECT_TRUE(topology.is_spare(300));
  EXPECT_EQ(topology.rack_of(299), 4);
  EXPECT_EQ(topology.rack_of(320), 0);  // spare node of rack 0
  EXPECT_EQ(topology.rack_of(359), 4);
  const std::vector<std::int32_t> hops = hops_from(topology, 0);
  EXPECT_EQ(std::count(hops.begin(), hops.end(), -1), 0);
}

TEST(Topology, TooManyChipsNameTheLimit) {
  EXPECT_EQ(make(9280).chips_with_spares, 10440);
  for (const std::int32_t chips : {0, -8, 9281}) {
    try {
      static_cast<void>(make(chips));
      FAIL() << chips;
    } catch (const node::InputError& error) {
      EXPECT_EQ(std::string(error.what()),
                "chips: found " + std::to_string(chips) +
                    "; expected 1 to 9280 (145 racks of 64 active chips is what the wires reach)");
    }
  }
}

TEST(Topology, AChipWithOtherLinksIsRefused) {
  node::ChipSpec chip = test::tsp_v1();
  chip.global_links = 3;
  EXPECT_THROW(static_cast<void>(make_topology(chip, 8)), node::InputError);
}

TEST(Topology, LargestSystemIsWiredWithin50Milliseconds) {
  const auto begin = std::chrono::steady_clock::now();
  const Topology topology = make(kChipsMost);
  const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(taken.count(), 50.0);
}

TEST(TopologyProperty, EveryCableIsSymmetricAndNoChipIsItsOwnPeer) {
  for (const std::int32_t chips : many_sizes()) {
    const Topology topology = make(chips);
    ASSERT_EQ(static_cast<std::int32_t>(topology.peers.size()), topology.chips_with_spares);
    for (std::int32_t chip = 0; chip < topology.chips_with_spares; ++chip) {
      const std::vector<node::LinkPeer>& ends = topology.peers[static_cast<std::size_t>(chip)];
      ASSERT_EQ(ends.size(), 11U);
      for (std::int32_t link = 0; link < 11; ++link) {
        const node::LinkPeer& end = ends[static_cast<std::size_t>(link)];
        ASSERT_EQ(end.chip < 0, end.link < 0);
        if (end.chip >= 0) {
          const node::LinkPeer& back =
              topology.peers.at(static_cast<std::size_t>(end.chip))[static_cast<std::size_t>(end.link)];
          ASSERT_NE(end.chip, chip);
          ASSERT_EQ(std::pair(back.chip, back.link), std::pair(chip, link)) << chips << " chips";
          ASSERT_EQ(topology.node_of(chip) == topology.node_of(end.chip), link < 7);
        }
      }
    }
  }
}

// Consecutive nodes in placement order, racks included, share at least one cable whose two ends stand at the same
// (position, link) in every hop of the system. Also with a last node of fewer chips.
TEST(TopologyProperty, EveryHopInPlacementOrderUsesTheSamePorts) {
  std::vector<std::int32_t> sizes(kOneLevelChips - 8);
  std::iota(sizes.begin(), sizes.end(), 9);
  for (std::int32_t chips = kOneLevelChips + 8; chips <= kChipsMost; chips += 8) {
    sizes.push_back(chips);
  }
  for (const std::int32_t chips : sizes) {
    const Topology topology = make(chips);
    Ends common = ends_between(topology, 0, 1);
    for (std::int32_t node = 1; node + 1 < topology.nodes(); ++node) {
      const Ends here = ends_between(topology, node, node + 1);
      Ends both;
      std::set_intersection(common.begin(), common.end(), here.begin(), here.end(), std::inserter(both, both.end()));
      common = both;
    }
    const bool is_short = chips % 8 != 0;
    const std::size_t expected = chips > 64 * 143 || is_short ? 1U
                                 : topology.racks > 1         ? 2U
                                                              : static_cast<std::size_t>(32 / (topology.nodes() - 1));
    ASSERT_GE(common.size(), expected) << chips << " chips";
    for (const auto& [position, link, far_position, far_link] : common) {
      ASSERT_EQ(position, far_position);
    }
  }
}

TEST(TopologyProperty, OneLevelIsThreeHopsAcross) {
  for (std::int32_t chips = 1; chips <= kOneLevelChips; ++chips) {
    const Topology topology = make(chips);
    std::int32_t most = 0;
    for (std::int32_t chip = 0; chip < chips; ++chip) {
      const std::vector<std::int32_t> hops = hops_from(topology, chip);
      ASSERT_EQ(*std::min_element(hops.begin(), hops.end()), 0) << "not reached, " << chips << " chips";
      most = std::max(most, *std::max_element(hops.begin(), hops.end()));
    }
    // A short last node meets every other one where it has the ports for that.
    const std::int32_t in_last = chips - 8 * (topology.nodes() - 1);
    ASSERT_LE(most, 4 * in_last >= topology.nodes() - 1 ? 3 : 5) << chips << " chips";
  }
}

// Racks look alike, so the routes from rack 0 (its spare included) are all there are.
TEST(TopologyProperty, HopsAcrossSystemsOfRacks) {
  struct Row {
    std::int32_t chips;
    std::int32_t hops;
  };
  for (const Row& row :
       {Row{320, 5}, Row{576, 5}, Row{640, 5}, Row{768, 5}, Row{1024, 6}, Row{2304, 6}, Row{4608, 6}, Row{9280, 7}}) {
    const Topology topology = make(row.chips);
    std::int32_t most = 0;
    for (std::int32_t chip = 0; chip < topology.chips_with_spares; ++chip) {
      if (topology.rack_of(chip) == 0) {
        const std::vector<std::int32_t> hops = hops_from(topology, chip);
        ASSERT_EQ(*std::min_element(hops.begin(), hops.end()), 0);
        most = std::max(most, *std::max_element(hops.begin(), hops.end()));
      }
    }
    EXPECT_EQ(most, row.hops) << row.chips << " chips";
  }
}

}  // namespace
}  // namespace lpu::interconnect
