#include "lpu/interconnect/link_timing.hpp"

#include <algorithm>
#include <initializer_list>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"
#include "test_chip.hpp"

namespace lpu::interconnect {
namespace {

using node::Cycles;

std::vector<Cycles> cycles(std::initializer_list<std::int64_t> counts) {
  std::vector<Cycles> out;
  for (const std::int64_t count : counts) {
    out.emplace_back(count);
  }
  return out;
}

TEST(LinkTiming, PayloadIsWhatWholeCyclesAVectorLeave) {
  EXPECT_EQ(payload_rate(test::tsp_v1()).count(), 12'000'000'000);
}

TEST(LinkTiming, AForwardedStreamPaysSerialisationOnce) {
  const node::ChipSpec chip = test::tsp_v1();
  EXPECT_EQ(hop_time(chip, 1, 1), Cycles(217 + 299 + 24));
  EXPECT_EQ(hop_time(chip, 3, 10), Cycles(3 * (217 + 299) + 24 * 10));
  EXPECT_EQ(hop_time(chip, 0, 10), Cycles(0));
  EXPECT_EQ(hop_time(chip, 2, 0), Cycles(0));
  EXPECT_EQ(stored_hop_time(chip, 1, 10), hop_time(chip, 1, 10));
  EXPECT_EQ(stored_hop_time(chip, 3, 1), 3 * hop_time(chip, 1, 1));
}

// A hop that the chip itself executes: Read and Send, the link, Receive and Write, then N until the row can be read.
TEST(LinkTiming, HopAgreesWithTheChipsOwnPath) {
  const node::ChipSpec chip = test::tsp_v1();
  EXPECT_EQ(chip.c2c_memory_path() + chip.link_latency(), hop_time(chip, 1, 1));
}

TEST(LinkTiming, VectorsPushedEachCycleStartOneSerialisationApart) {
  const Departures departures = depart(test::tsp_v1(), cycles({100, 101, 102, 103}));
  EXPECT_EQ(departures.starts, cycles({100, 124, 148, 172}));
  EXPECT_EQ(departures.most_waiting, 3);
}

TEST(LinkTiming, TheFifthWaitingVectorIsOneTooMany) {
  const node::ChipSpec chip = test::tsp_v1();
  EXPECT_EQ(depart(chip, cycles({0, 1, 2, 3, 4})).most_waiting, chip.link_queue_vectors);
  EXPECT_EQ(depart(chip, cycles({0, 1, 2, 3, 4, 5})).most_waiting, chip.link_queue_vectors + 1);
  EXPECT_EQ(depart(chip, cycles({0, 1, 2, 3, 4, 24})).most_waiting, chip.link_queue_vectors) << "one has left by then";
}

TEST(LinkTiming, EarlierTrafficHoldsTheFirstVectorBack) {
  const Departures departures = depart(test::tsp_v1(), cycles({10, 200}), Cycles(50));
  EXPECT_EQ(departures.starts, cycles({50, 200}));
  EXPECT_EQ(departures.most_waiting, 1);
}

TEST(LinkTiming, TwoPushesInOneCycleAreABug) {
  EXPECT_THROW(static_cast<void>(depart(test::tsp_v1(), cycles({7, 7}))), node::BugError);
}

TEST(Split, SmallMessagesKeepToTheirCable) {
  const SplitCost cost = split_over_detours(test::tsp_v1(), 10, 6);
  EXPECT_EQ(cost.detours, 0);
  EXPECT_EQ(cost.direct_vectors, 10);
  EXPECT_EQ(cost.time, hop_time(test::tsp_v1(), 1, 10));
}

TEST(SplitProperty, NoOtherSplitIsFaster) {
  const node::ChipSpec chip = test::tsp_v1();
  for (std::int64_t vectors = 0; vectors <= 200; ++vectors) {
    for (std::int32_t detours = 0; detours <= 6; ++detours) {
      const SplitCost cost = split_over_detours(chip, vectors, detours);
      Cycles best = hop_time(chip, 1, vectors);
      for (std::int32_t used = 1; used <= detours; ++used) {
        for (std::int64_t direct = 0; direct < vectors; ++direct) {
          const std::int64_t each = node::ceil_div(vectors - direct, used);
          best = std::min(best, std::max(hop_time(chip, 1, direct), hop_time(chip, 2, each)));
        }
      }
      ASSERT_EQ(cost.time, best) << vectors << " vectors, " << detours << " detours";
      ASSERT_EQ(cost.direct_vectors + cost.detours * cost.detour_vectors, vectors);
    }
  }
}

TEST(SplitProperty, BeyondTheCrossoverDetoursAlwaysPay) {
  const node::ChipSpec chip = test::tsp_v1();
  const std::int64_t crossover = detour_crossover(chip, 6);
  for (std::int64_t vectors = 0; vectors <= 1000; ++vectors) {
    ASSERT_EQ(split_over_detours(chip, vectors, 6).detours > 0, vectors >= crossover) << vectors;
  }
}

}  // namespace
}  // namespace lpu::interconnect
