#include "dealing.hpp"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "lpu/scheduler/program_file.hpp"
#include "rank_log.hpp"
#include "test_program.hpp"

namespace lpu::cluster {
namespace {

scheduler::ClusterProgram ring(std::int32_t stages, std::int32_t group) {
  return test::make_ring({.stages = stages, .group = group, .phases = 1, .vectors = 2});
}

TEST(Dealing, WholeStagesWhereThereAreNotMoreRanks) {
  EXPECT_EQ(deal(ring(3, 2), 1).rank_of, std::vector<std::int32_t>(6, 0));
  EXPECT_EQ(deal(ring(3, 2), 2).rank_of, (std::vector<std::int32_t>{0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(deal(ring(3, 2), 3).rank_of, (std::vector<std::int32_t>{0, 0, 1, 1, 2, 2}));
}

TEST(Dealing, SlicesOfOneStageWhereThereAreMore) {
  EXPECT_EQ(deal(ring(2, 4), 3).rank_of, (std::vector<std::int32_t>{0, 0, 0, 0, 1, 1, 2, 2}));
  EXPECT_EQ(deal(ring(1, 4), 3).rank_of, (std::vector<std::int32_t>{0, 0, 1, 2}));
  const Dealing most = deal(ring(2, 4), 11);
  EXPECT_EQ(most.rank_of, (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(most.ranks_used, 8);
}

TEST(DealingProperty, EveryRankUpToTheLastOneUsedHasChipsOfNeighbouringStages) {
  for (const std::int32_t stages : {1, 2, 5}) {
    for (const std::int32_t group : {1, 3, 8}) {
      const scheduler::ClusterProgram program = ring(stages, group);
      for (std::int32_t ranks = 1; ranks <= stages * group + 2; ++ranks) {
        const Dealing dealing = deal(program, ranks);
        EXPECT_LE(dealing.ranks_used, ranks);
        EXPECT_EQ(dealing.ranks_used == ranks, ranks <= stages * group) << stages << " x " << group << ", " << ranks;
        EXPECT_TRUE(std::is_sorted(dealing.rank_of.begin(), dealing.rank_of.end()));
        const std::set<std::int32_t> used(dealing.rank_of.begin(), dealing.rank_of.end());
        EXPECT_EQ(*used.begin(), 0);
        EXPECT_EQ(*used.rbegin(), dealing.ranks_used - 1);
        EXPECT_EQ(static_cast<std::int32_t>(used.size()), dealing.ranks_used);
      }
    }
  }
}

TEST(Dealing, APartHasTheTextsOfItsChipsAndIsAProgram) {
  const scheduler::ClusterProgram program = ring(3, 2);
  const Dealing dealing = deal(program, 8);
  for (std::int32_t rank = 0; rank < 8; ++rank) {
    const scheduler::ClusterProgram part =
        scheduler::from_bytes(scheduler::to_bytes(part_of(program, dealing, rank)), "part");
    EXPECT_EQ(part.texts.size(), rank < 6 ? 1U : 0U);
    for (std::size_t chip = 0; chip < 6; ++chip) {
      const bool is_here = dealing.rank_of[chip] == rank;
      EXPECT_EQ(part.bindings[chip].text, is_here ? 0 : -1);
      if (is_here) {
        const auto text = static_cast<std::size_t>(program.bindings[chip].text);
        EXPECT_EQ(part.texts[0].instructions.size(), program.texts[text].instructions.size());
      }
    }
  }
}

TEST(Dealing, PairsAreThoseThatTheWiresJoinWithRoomForWhatTheySend) {
  // Three stages of two chips, a chip a rank: each sends its 2 vectors to its neighbour in the group, and to the next
  // stage.
  const scheduler::ClusterProgram program = ring(3, 2);
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> found;
  for (const interconnect::PairLoad& pair : pair_loads(program, deal(program, 6), 4)) {
    found[{pair.from, pair.to}] = pair.bytes;
  }
  EXPECT_EQ(found.size(), 12U);
  for (std::int32_t rank = 0; rank < 6; ++rank) {
    // One iteration of each of 4 micro-batches, and one more: 5 x 2 vectors, each at most a message of 16 + 48 + 8
    // bytes.
    const std::int64_t bytes = std::int64_t{10} * (16 + static_cast<std::int64_t>(sizeof(node::MessageHeader)) + 8);
    EXPECT_EQ((found[{rank, rank ^ 1}]), bytes) << rank;
    EXPECT_EQ((found[{rank, (rank + 2) % 6}]), bytes) << rank;
  }
  EXPECT_TRUE(pair_loads(program, deal(program, 1), 4).empty());
}

TEST(Dealing, NumbersNeedMoreRoomAndTheWayToRankZeroAndBack) {
  const scheduler::ClusterProgram program = ring(3, 2);
  const Dealing dealing = deal(program, 6);
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> before;
  for (const interconnect::PairLoad& pair : pair_loads(program, dealing, 1)) {
    before[{pair.from, pair.to}] = pair.bytes;
  }
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> found;
  for (const interconnect::PairLoad& pair : with_numbers(pair_loads(program, dealing, 1), program, dealing)) {
    found[{pair.from, pair.to}] = pair.bytes;
  }
  for (const auto& [pair, bytes] : before) {
    EXPECT_GT(found[pair], bytes);
  }
  for (const std::int32_t rank : {1, 4, 5}) {  // the rest of the first stage, and the last
    EXPECT_TRUE(found.contains({rank, 0})) << rank;
    EXPECT_TRUE(found.contains({0, rank})) << rank;
  }
}

TEST(RankLog, RanksAreNamedAsRanges) {
  EXPECT_EQ(rank_list({3}), "rank 3");
  EXPECT_EQ(rank_list({7, 2, 0, 1, 1}), "ranks 0-2, 7");
  EXPECT_EQ(rank_list({5, 3}), "ranks 3, 5");
}

}  // namespace
}  // namespace lpu::cluster
