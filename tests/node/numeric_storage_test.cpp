#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/node/counted_pointer.hpp"
#include "lpu/node/numeric_value.hpp"
#include "place_map.hpp"
#include "stream_rings.hpp"

namespace lpu::node {
namespace {

ValuePtr number(float value) {
  auto out = make_counted<NumericValue>();
  out->numbers = {value};
  return out;
}

struct Watched final : Counted {
  explicit Watched(int& alive) : alive_(&alive) { ++alive; }
  Watched(const Watched& other) : Counted(other), alive_(other.alive_) { ++*alive_; }
  Watched& operator=(const Watched&) = delete;
  ~Watched() { --*alive_; }

 private:
  int* alive_;
};

TEST(CountedPointer, TheLastOwnerDeletesAndACopyOfTheObjectHasNone) {
  int alive = 0;
  {
    CountedPointer<Watched> first = make_counted<Watched>(alive);
    CountedPointer<const Watched> second = first;
    first = make_counted<Watched>(*second);
    EXPECT_EQ(alive, 2);
    second = nullptr;
    EXPECT_EQ(alive, 1);
    second = std::move(first);
    EXPECT_EQ(alive, 1);
  }
  EXPECT_EQ(alive, 0);
}

TEST(PlaceMap, RowsAreFoundAfterItHasGrownAndReplacedWherePutAgain) {
  PlaceMap map;
  constexpr Place kPlaces = 1'000;
  for (Place place = 0; place < kPlaces; ++place) {
    map.put(place * 4'096, {number(static_cast<float>(place)), place % 4});
  }
  map.put(0, {number(-1.0F), 3});
  for (Place place = 0; place < kPlaces; ++place) {
    Cell cell;
    ASSERT_TRUE(map.find(place * 4'096, cell)) << place;
    EXPECT_EQ(cell.value->numbers.front(), place == 0 ? -1.0F : static_cast<float>(place));
    EXPECT_EQ(cell.part, place == 0 ? 3 : place % 4);
  }
  Cell cell;
  EXPECT_FALSE(map.find(1, cell));
  map.clear();
  EXPECT_FALSE(map.find(0, cell));
}

TEST(StreamRings, WhatIsOnItsWayGoesWithTheChipAndNothingElseIsThereForTheNextOne) {
  ChipSpec chip;
  chip.streams_per_direction = 32;
  StreamRings rings(chip);
  StreamOperand outward;
  outward.direction = Direction::kOutward;
  StreamOperand inward;
  inward.direction = Direction::kInward;
  inward.hemisphere = Hemisphere::kEast;
  const auto early = StreamRings::diagonal(outward, 100, 4);
  const auto late = StreamRings::diagonal(inward, 200, 10);
  rings.put(early, 3, {number(1.0F), 0});
  rings.put(late, 31, {number(2.0F), 2});
  const auto riders = rings.riders(200);
  ASSERT_EQ(riders.size(), 1U);  // the other has passed the last slice
  rings.clear();
  EXPECT_EQ(rings.find(late, 31), nullptr);
  rings.bring_back(riders);
  const Cell* cell = rings.find(StreamRings::diagonal(inward, 203, 7), 31);
  ASSERT_NE(cell, nullptr);
  EXPECT_EQ(cell->value->numbers.front(), 2.0F);
  EXPECT_EQ(cell->part, 2);
  EXPECT_EQ(rings.find(early, 3), nullptr);
}

TEST(WeightTile, ColumnsSideBySideAreOneRun) {
  WeightColumns weights;
  weights.columns.resize(6);
  auto matrix = make_counted<NumericValue>();
  matrix->weights = &weights;
  const ValuePtr value = std::move(matrix);
  WeightTile tile;
  tile.push_back({value, 0});
  tile.push_back({value, 4});
  tile.push_back({value, 16});
  tile.push_back({number(1.0F), 0});
  ASSERT_EQ(tile.runs.size(), 3U);
  EXPECT_EQ(tile.runs[0].columns, 2);
  EXPECT_EQ(tile.runs[1].columns, 1);
}

}  // namespace
}  // namespace lpu::node
