#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "checked_text.hpp"
#include "lpu/node/numeric_value.hpp"

namespace lpu::node {

/// Rows of SRAM that were written, by their places: open addressing, 16 bytes an entry.
class PlaceMap {
 public:
  [[nodiscard]] bool find(Place place, Cell& cell) const {
    if (entries_.empty()) {
      return false;
    }
    const Entry& entry = entries_[slot(entries_, place)];
    if (entry.place != place) {
      return false;
    }
    cell = {entry.value, entry.part};
    return true;
  }
  void put(Place place, Cell cell) {
    if (8 * (used_ + 1) > 7 * entries_.size()) {
      grow();
    }
    Entry& entry = entries_[slot(entries_, place)];
    used_ += entry.place == place ? 0U : 1U;
    entry = {std::move(cell.value), cell.part, place};
  }
  /// Calls it with each place and its cell, in no order that means anything.
  template <typename Visit>
  void for_each(Visit&& visit) const {
    for (const Entry& entry : entries_) {
      if (entry.place != kNowhere) {
        visit(entry.place, Cell{entry.value, entry.part});
      }
    }
  }
  /// Gives the memory back.
  void clear() { *this = {}; }

 private:
  static constexpr Place kNowhere = -1;
  struct Entry {
    ValuePtr value;
    std::int32_t part = 0;
    Place place = kNowhere;
  };
  /// Where the place's entry is, or would be.
  [[nodiscard]] static std::size_t slot(const std::vector<Entry>& entries, Place place) {
    const std::size_t mask = entries.size() - 1;
    std::size_t at = (static_cast<std::uint32_t>(place) * std::uint32_t{2654435769U} >> 8U) & mask;
    while (entries[at].place != place && entries[at].place != kNowhere) {
      at = (at + 1) & mask;
    }
    return at;
  }
  void grow() {
    std::vector<Entry> larger(entries_.empty() ? 16 : 2 * entries_.size());
    for (Entry& entry : entries_) {
      if (entry.place != kNowhere) {
        const std::size_t at = slot(larger, entry.place);
        larger[at] = std::move(entry);
      }
    }
    entries_ = std::move(larger);
  }

  std::vector<Entry> entries_;  ///< a power of two
  std::size_t used_ = 0;
};

}  // namespace lpu::node
