#include "numeric_state.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

/// What a snapshot says must be possible: it may come from a file.
void require(bool holds, std::int32_t id, const char* what) {
  if (!holds) {
    throw InputError("saved state of chip " + std::to_string(id) + ": found " + what +
                     " that no chip has; expected a state of this program");
  }
}

/// @return index of a nullable pointer among those that have been met, of which the list gets the content; -1: null
template <typename Pointer, typename List, typename Copy>
std::int32_t index_of(const Pointer& pointer, std::map<const void*, std::int32_t>& met, List& list, const Copy& copy) {
  if (!pointer) {
    return -1;
  }
  const auto [found, is_new] = met.try_emplace(pointer.get(), static_cast<std::int32_t>(list.size()));
  if (is_new) {
    list.push_back(copy(*pointer));
  }
  return found->second;
}

ValuePtr value_of(const NumericSnapshot::Value& from, const std::vector<LanesPtr>& lanes, std::int32_t id) {
  require(from.lanes >= -1 && from.lanes < static_cast<std::int32_t>(lanes.size()), id, "lanes");
  require(from.packed == Packed::kNo || from.packed == Packed::kCandidate || from.packed == Packed::kChoices,
          id,
          "a kind of value");
  auto out = make_counted<NumericValue>();
  if (from.lanes >= 0) {
    out->lanes = lanes[static_cast<std::size_t>(from.lanes)];
    require(from.numbers.size() == 1 || from.numbers.size() == out->lanes->size(), id, "numbers");
  }
  out->label = from.label;
  out->numbers = from.numbers;
  out->packed = from.packed;
  return out;
}

}  // namespace

NumericSnapshot snapshot_of(const PlaceMap& cache) {
  NumericSnapshot out;
  std::vector<std::pair<Place, Cell>> cells;
  cache.for_each([&](Place place, Cell cell) { cells.emplace_back(place, std::move(cell)); });
  std::sort(cells.begin(), cells.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::map<const void*, std::int32_t> lanes;
  std::map<const void*, std::int32_t> values;
  for (const auto& [place, cell] : cells) {
    const std::int32_t value = index_of(cell.value, values, out.values, [&](const NumericValue& from) {
      LPU_CHECK(
          from.weights == nullptr && from.terms.empty() && from.choices.empty() && !from.has_factor && from.token < 0,
          "a value in a cache that is more than numbers");
      return NumericSnapshot::Value{
          .label = from.label,
          .lanes = index_of(from.lanes, lanes, out.lanes, [](const Lanes& content) { return content; }),
          .numbers = from.numbers,
          .packed = from.packed};
    });
    out.rows.push_back({.place = place, .value = value, .part = cell.part});
  }
  return out;
}

PlaceMap cache_of(const NumericSnapshot& from, const ChipSpec& chip, std::int32_t id) {
  std::vector<LanesPtr> lanes;
  for (const Lanes& content : from.lanes) {
    lanes.push_back(std::make_shared<const Lanes>(content));
  }
  std::vector<ValuePtr> values;
  for (const NumericSnapshot::Value& value : from.values) {
    values.push_back(value_of(value, lanes, id));
  }
  PlaceMap out;
  for (const NumericSnapshot::Row& row : from.rows) {
    require(row.place >= 0 && row.place < chip.vectors(), id, "a place in SRAM");
    require(row.value >= -1 && row.value < static_cast<std::int32_t>(values.size()), id, "a value");
    require(row.part >= 0, id, "a part of a value");
    out.put(row.place, {row.value < 0 ? nullptr : values[static_cast<std::size_t>(row.value)], row.part});
  }
  return out;
}

}  // namespace lpu::node
