#include "numeric_state.hpp"

#include <bit>
#include <memory>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

constexpr float kNegativeZero = -0.0F;

ChipSpec chip() {
  ChipSpec out;
  out.slices_per_hemisphere = 4;
  out.vectors_per_slice = 8;
  return out;
}

/// Two values of one layout in the four rows of each, and a row that was written with nothing.
PlaceMap cache() {
  const LanesPtr lanes = std::make_shared<const Lanes>(Lanes{4, -1, 7});
  PlaceMap out;
  for (std::int32_t v = 0; v < 2; ++v) {
    auto value = make_counted<NumericValue>();
    value->lanes = lanes;
    value->label = 10 + v;
    value->numbers = {1.5F, kNegativeZero, static_cast<float>(v)};
    const ValuePtr shared = std::move(value);
    for (std::int32_t part = 0; part < 4; ++part) {
      out.put(40 - 8 * v + part, {shared, part});
    }
  }
  out.put(63, {nullptr, 0});
  return out;
}

Cell cell_at(const PlaceMap& map, Place place) {
  Cell out;
  EXPECT_TRUE(map.find(place, out)) << place;
  return out;
}

TEST(NumericSnapshot, SharedValuesAndLanesAreInItOnceInTheOrderOfPlaces) {
  const NumericSnapshot state = snapshot_of(cache());
  EXPECT_EQ(state.lanes, (std::vector<Lanes>{{4, -1, 7}}));
  ASSERT_EQ(state.values.size(), 2U);
  EXPECT_EQ(state.values[0].label, 11);
  ASSERT_EQ(state.rows.size(), 9U);
  EXPECT_EQ(state.rows.front().place, 32);
  EXPECT_EQ(state.rows.back().place, 63);
  EXPECT_EQ(state.rows.back().value, -1);
}

TEST(NumericSnapshot, ACacheMadeOfItHoldsTheSameBitsAndSharesThem) {
  const PlaceMap made = cache_of(snapshot_of(cache()), chip(), 0);
  const Cell first = cell_at(made, 40);
  const Cell last = cell_at(made, 43);
  EXPECT_EQ(first.value, last.value);
  EXPECT_EQ(last.part, 3);
  EXPECT_EQ(first.value->label, 10);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(first.value->numbers[1]), std::bit_cast<std::uint32_t>(kNegativeZero));
  EXPECT_EQ(first.value->lanes, cell_at(made, 32).value->lanes);
  EXPECT_EQ(cell_at(made, 63).value, nullptr);
  Cell none;
  EXPECT_FALSE(made.find(0, none));
}

TEST(NumericSnapshot, AStateThatNoChipCanHaveIsRefused) {
  const auto refused = [](auto&& change) {
    NumericSnapshot bad = snapshot_of(cache());
    change(bad);
    EXPECT_THROW(static_cast<void>(cache_of(bad, chip(), 3)), InputError);
  };
  refused([](NumericSnapshot& state) { state.rows[0].place = 64; });
  refused([](NumericSnapshot& state) { state.rows[0].place = -1; });
  refused([](NumericSnapshot& state) { state.rows[0].value = 2; });
  refused([](NumericSnapshot& state) { state.rows[0].value = -2; });
  refused([](NumericSnapshot& state) { state.rows[0].part = -1; });
  refused([](NumericSnapshot& state) { state.values[1].lanes = 1; });
  refused([](NumericSnapshot& state) { state.values[0].numbers.pop_back(); });
}

}  // namespace
}  // namespace lpu::node
