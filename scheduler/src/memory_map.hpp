#pragma once
#include <cstdint>
#include <vector>

#include "lpu/node/chip_spec.hpp"

namespace lpu::scheduler {

/// Consecutive slices that hold part of a stripe: columns [first, first + slices) of it, at `address`.
struct Run {
  std::int32_t first = 0;
  std::int32_t slices = 0;
  std::int32_t slice = 0;
  std::int32_t address = 0;
};

/// Addresses that scratch keeps in the near groups.
struct Scratch {
  std::int32_t rows = 0;         ///< in each
  std::int32_t rotary_rows = 0;  ///< in the first one besides: a row a position
};

/// Where weights and KV lie: stripes over groups of slices (a group: the slices of one stream register position).
///
/// A stripe is what both planes of a hemisphere take in a cycle: 32 slices, 8 groups. The 8 far groups hold all of it
/// while it fits, so that weights never meet the scratch in the 3 near ones. What does not fit puts some stripes on the
/// near groups and 5 of the far ones, as few as will do: while those install, scratch finds its slices busy. Scratch
/// has the lowest addresses of the near groups. Both hemispheres are laid out alike.
class MemoryMap {
 public:
  /// @param stripes  addresses of weight stripes plus KV of all users
  /// @param slices   of a stripe (32, or 8)
  MemoryMap(const node::ChipSpec& chip, std::int64_t stripes, Scratch scratch, std::int32_t slices);

  /// Addresses of stripes that surely find a place.
  /// @param slices        of a stripe (32, or 8: narrow ones leave the last near group to what is read row by row)
  /// @param row_stripes   of them, what is read row by row
  [[nodiscard]] static std::int64_t capacity(const node::ChipSpec& chip,
                                             Scratch scratch,
                                             std::int32_t slices,
                                             std::int64_t row_stripes);

  /// Take `height` addresses of a stripe of `slices` (32, or 8) slices; empty when nothing is left.
  /// @param may_be_near  whether the near groups may be used (see wants_near)
  [[nodiscard]] std::vector<Run> take(std::int32_t height, std::int32_t slices, bool may_be_near = false);
  /// Take room for `entries` of `height` addresses in `columns` of every group: for what is read row by row, in pieces
  /// of equal height (the result's runs, each one group wide). Beside narrow stripes the last near group takes as many
  /// pieces as it has room for.
  /// @return empty when a group has not enough left
  [[nodiscard]] std::vector<Run> take_rows(std::int32_t entries,
                                           std::int32_t height,
                                           std::int32_t columns,
                                           bool beside_narrow);
  /// The rest of the far groups: base of each, and how many users of `height` addresses fit above.
  [[nodiscard]] std::vector<Run> rest(std::int32_t height, std::int64_t* users) const;
  /// Slices, from 0, of the near groups.
  [[nodiscard]] std::int32_t scratch_slices() const { return far_ * group_slices_; }
  /// Addresses, from 0, that scratch has in a near slice: all where nothing else lies there.
  [[nodiscard]] std::int32_t scratch_limit(std::int32_t slice) const;
  /// Whether the next stripes should use the near groups: cut them into some pieces then, so that far groups fill
  /// evenly.
  [[nodiscard]] bool wants_near() const { return near_left_ > 0; }
  /// Whether the far groups do not hold everything.
  [[nodiscard]] bool is_tight() const { return is_tight_; }

 private:
  [[nodiscard]] std::vector<Run> place(std::vector<std::int32_t> groups, std::int32_t height);

  std::int32_t group_slices_;
  std::int32_t far_;  ///< first far group
  std::int32_t capacity_;
  std::int64_t near_left_ = 0;  ///< vectors a hemisphere that still must find a place in the near groups
  bool is_tight_ = false;
  std::vector<std::int32_t> fill_;     ///< per group, addresses taken
  std::vector<std::int32_t> scratch_;  ///< of them, by scratch
};

}  // namespace lpu::scheduler
