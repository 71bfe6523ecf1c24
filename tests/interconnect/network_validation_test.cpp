#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/interconnect/link_timing.hpp"
#include "lpu/interconnect/route.hpp"
#include "lpu/interconnect/topology.hpp"
#include "lpu/node/quantity.hpp"
#include "test_chip.hpp"
#include "validation.hpp"

namespace lpu::interconnect {
namespace {

using node::Cycles;

/// The longest of the shortest routes from the chips of the first rack (all racks are wired alike); spares included.
Route longest_route(const Topology& topology) {
  std::int32_t from = 0;
  std::int32_t to = 0;
  std::int32_t most = -1;
  for (std::int32_t chip = 0; chip < topology.chips_with_spares; ++chip) {
    if (topology.rack_of(chip) != 0) {
      continue;
    }
    const std::vector<std::int32_t> hops = hops_from(topology, chip);
    const auto farthest = std::max_element(hops.begin(), hops.end());
    if (*farthest > most) {
      most = *farthest;
      from = chip;
      to = static_cast<std::int32_t>(farthest - hops.begin());
    }
  }
  return find_route(topology, from, to);
}

std::int32_t chip_of(std::int32_t node, std::int32_t position) {
  return 8 * node + position;
}

double microseconds(Cycles cycles) {
  return node::to_microseconds(cycles, test::tsp_v1().clock);
}

// The queue of the link and the latency of the chip model, against the published flight and serialisation.
TEST(NetworkValidation, R5StreamOfVectorsOverOneLink) {
  node::ChipSpec chip = test::tsp_v1();
  chip.c2c_endpoint = Cycles(0);
  for (const std::int64_t vectors : {1, 2, 10, 320}) {
    std::vector<Cycles> pushes;
    for (std::int64_t vector = 0; vector < vectors; ++vector) {
      pushes.emplace_back(vector == 0 ? 0 : 24 * vector - 3);  // ahead of its turn: the queue sets the pace
    }
    const Departures departures = depart(chip, pushes);
    const Cycles last = departures.starts.back() + chip.link_latency();
    EXPECT_EQ(last, link_time(chip, vectors));
    EXPECT_LE(departures.most_waiting, chip.link_queue_vectors);
    test::check_figure(
        {.name = "R5 one link, stream of " + std::to_string(vectors) + " vectors",
         .unit = "cycles",
         .expected = static_cast<double>(217 + 24 * vectors),
         .measured = static_cast<double>(last.count()),
         .tolerance = 0.0,
         .source = "flight 217 (mean; secondary), 24 a vector (derived: 328 B at 12.5 GB/s and 900 MHz)"});
  }
}

// The reduce hop is not the forward hop of the preset: it holds an addition on each chip. From memory, so labelled.
TEST(NetworkValidation, R6ThreeHopAllReduceOf264ChipsFromMemory) {
  const double reduce_hop_us = 0.722;  // Abts et al., ISCA 2022, from memory
  const Route route = longest_route(make_topology(test::tsp_v1(), 264));
  test::check_figure({.name = "R6 all-reduce of a small tensor over 264 chips",
                      .unit = "us",
                      .expected = 2.1,
                      .measured = static_cast<double>(route.size()) * reduce_hop_us,
                      .tolerance = 0.10,
                      .source = "Abts et al., ISCA 2022 (from memory)"});
}

// Published: at most 5 hops and under 3 us, in a node counted as one router of 32 ports. So counted, the farthest chips
// are 3 cables between nodes apart, with a local hop at either end. Counted in links that a vector travels, chips
// inside the nodes on the way included, this wiring needs up to 7: the figure is then missed, and says so.
TEST(NetworkValidation, R7WorstCaseOfTheLargestSystem) {
  const node::ChipSpec chip = test::tsp_v1();
  const Topology topology = make_topology(chip, kChipsMost);
  // Breadth first over nodes.
  std::vector<std::int32_t> cables(static_cast<std::size_t>(topology.nodes_with_spares()), -1);
  std::int32_t most_cables = 0;
  for (std::int32_t source = 0; source < topology.nodes_with_spares(); ++source) {
    if (topology.rack_of(8 * source) != 0) {
      continue;
    }
    std::fill(cables.begin(), cables.end(), -1);
    std::vector<std::int32_t> queue{source};
    cables[static_cast<std::size_t>(source)] = 0;
    for (std::size_t next = 0; next < queue.size(); ++next) {
      for (std::int32_t position = 0; position < 8; ++position) {
        for (const node::LinkPeer& end : topology.peers[static_cast<std::size_t>(chip_of(queue[next], position))]) {
          const std::int32_t other = topology.node_of(end.chip);
          if (end.chip >= 0 && cables[static_cast<std::size_t>(other)] < 0) {
            cables[static_cast<std::size_t>(other)] = cables[static_cast<std::size_t>(queue[next])] + 1;
            queue.push_back(other);
          }
        }
      }
    }
    ASSERT_EQ(queue.size(), cables.size());
    most_cables = std::max(most_cables, *std::max_element(cables.begin(), cables.end()));
  }
  const std::int32_t router_hops = most_cables + 2;
  const double router_time = microseconds(hop_time(chip, router_hops, 1));
  std::printf(
      "validation | R7 10,440 chips, nodes as routers | expected <= 5 hops, < 3 us | measured %d hops, %.3f us | "
      "bound | ISCA 2022, abstract (3 us primary; 5 hops secondary)\n",
      router_hops,
      router_time);
  EXPECT_LE(router_hops, 5);
  EXPECT_LT(router_time, 3.0);

  const Route route = longest_route(topology);
  const auto hops = static_cast<std::int32_t>(route.size());
  const double time = microseconds(hop_time(chip, hops, 1));
  const double stored = microseconds(stored_hop_time(chip, hops, 1));
  node::ChipSpec wires_alone = chip;
  wires_alone.c2c_endpoint = Cycles(0);
  const double flight = microseconds(hop_time(wires_alone, hops, 1));
  std::printf(
      "validation | R7 10,440 chips, every link counted | expected <= 5 hops, < 3 us | measured %d hops, %.3f us "
      "(%.3f us where forwarders store, %.3f us with endpoint 0) | MISSED by %+.1f%% | as above\n",
      hops,
      time,
      stored,
      flight,
      100 * (time - 3.0) / 3.0);
  EXPECT_EQ(hops, 7) << "known and printed; a change here is a change of the wiring";
  EXPECT_LT(flight, 3.0);
}

TEST(NetworkValidation, R8EncodingOverhead) {
  const node::ChipSpec chip = test::tsp_v1();
  test::check_figure({.name = "R8 encoding overhead",
                      .unit = "%",
                      .expected = 100.0 * 8 / 328,
                      .measured = 100 * encoding_overhead(chip),
                      .tolerance = 0.0,
                      .source = "8 B a vector (secondary)"});
  EXPECT_NEAR(100 * encoding_overhead(chip), 2.44, 0.005);
}

TEST(NetworkValidation, R9NonMinimalRoutesPayFrom8KilobytesInANode) {
  const node::ChipSpec chip = test::tsp_v1();
  const Topology topology = make_topology(chip, 8);
  std::int32_t detours = 0;  // chips that stand between chips 0 and 1
  for (std::int32_t between = 2; between < 8; ++between) {
    const Route route = find_route(topology, 0, 1, [&](std::int32_t other) { return other == between; });
    const std::vector<std::int32_t> middle{between};
    const std::vector<std::int32_t> ends{0, 1};
    detours += route.size() == 1 && cables_between(topology, ends, middle).size() == 2 ? 1 : 0;
  }
  ASSERT_EQ(detours, 6);
  const std::int64_t crossover = detour_crossover(chip, detours);
  EXPECT_EQ(split_over_detours(chip, crossover - 1, detours).detours, 0);
  test::check_figure({.name = "R9 crossover of minimal and non-minimal routes",
                      .unit = "B",
                      .expected = 8192,
                      .measured = static_cast<double>(crossover * chip.vector_bytes),
                      .tolerance = 0.5,  // 4 to 12 kB
                      .source = "no gain below 8 kB (secondary)"});
}

TEST(NetworkValidation, R10LatencyAcrossOneRackFromMemory) {
  const node::ChipSpec chip = test::tsp_v1();
  const Route route = longest_route(make_topology(chip, 64));
  test::check_figure({.name = "R10 latency across a rack of 64 chips",
                      .unit = "us",
                      .expected = 1.6,
                      .measured = microseconds(hop_time(chip, static_cast<std::int32_t>(route.size()), 1)),
                      .tolerance = 0.25,
                      .source = "product brief (from memory)"});
}

}  // namespace
}  // namespace lpu::interconnect
