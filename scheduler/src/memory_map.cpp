#include "memory_map.hpp"

#include <algorithm>
#include <numeric>

#include "lpu/node/quantity.hpp"

namespace lpu::scheduler {

namespace {

constexpr std::int32_t kStripeSlices = 32;   // what a hemisphere's two planes take in a cycle
constexpr std::int64_t kUneven = 64;         // heights are even, and blocks do not fill every group to the brim
constexpr std::int64_t kUnevenNear = 192;    // more of it where two patterns share the far groups
constexpr std::int64_t kUnevenNarrow = 512;  // and more where experts are dealt over quarters of them

std::int32_t first_far(const node::ChipSpec& chip) {
  return (chip.slices_per_hemisphere - kStripeSlices) / chip.slices_per_position;
}

}  // namespace

std::int64_t MemoryMap::capacity(const node::ChipSpec& chip,
                                 Scratch scratch,
                                 std::int32_t slices,
                                 std::int64_t row_stripes) {
  const auto stripes = [&](std::int32_t taken) {  // that the rest of a near group is worth
    return std::max<std::int64_t>(0, chip.vectors_per_slice - taken) * chip.slices_per_position / kStripeSlices;
  };
  const std::int64_t others = first_far(chip) - 1;
  const std::int64_t first = stripes(scratch.rows + scratch.rotary_rows);
  const std::int64_t other = stripes(scratch.rows);
  // Narrow stripes lie over two near groups together, as high as the fuller one allows.
  const std::int64_t near = slices < kStripeSlices ? 2 * first + std::min(other, row_stripes) : first + others * other;
  return chip.vectors_per_slice + near - kUnevenNear;
}

MemoryMap::MemoryMap(const node::ChipSpec& chip, std::int64_t stripes, Scratch scratch, std::int32_t slices)
    : group_slices_(chip.slices_per_position),
      far_(first_far(chip)),
      capacity_(chip.vectors_per_slice),
      fill_(static_cast<std::size_t>(chip.slices_per_hemisphere / chip.slices_per_position), 0) {
  const auto even = [](std::int32_t rows) { return rows + rows % 2; };
  for (std::int32_t group = 0; group < far_; ++group) {
    fill_[static_cast<std::size_t>(group)] = even(scratch.rows + (group == 0 ? scratch.rotary_rows : 0));
  }
  scratch_ = fill_;
  if (stripes + kUneven > capacity_) {
    const std::int64_t uneven = slices < kStripeSlices ? kUnevenNarrow : kUnevenNear;
    near_left_ = (stripes + uneven - capacity_) * kStripeSlices;
    is_tight_ = true;
  }
}

std::int32_t MemoryMap::scratch_limit(std::int32_t slice) const {
  const auto group = static_cast<std::size_t>(slice / group_slices_);
  return fill_[group] == scratch_[group] ? capacity_ : scratch_[group];
}

std::vector<Run> MemoryMap::place(std::vector<std::int32_t> groups, std::int32_t height) {
  std::sort(groups.begin(), groups.end());
  std::vector<Run> out;
  std::int32_t first = 0;
  for (const std::int32_t group : groups) {
    const std::int32_t address = fill_[static_cast<std::size_t>(group)];
    const std::int32_t slice = group * group_slices_;
    if (!out.empty() && out.back().slice + out.back().slices == slice && out.back().address == address) {
      out.back().slices += group_slices_;
    } else {
      out.push_back({.first = first, .slices = group_slices_, .slice = slice, .address = address});
    }
    first += group_slices_;
    fill_[static_cast<std::size_t>(group)] += height;
  }
  return out;
}

std::vector<Run> MemoryMap::take(std::int32_t height, std::int32_t slices, bool may_be_near) {
  height += height % 2;
  const auto groups = static_cast<std::int32_t>(fill_.size());
  const std::int32_t wanted = slices / group_slices_;
  const auto fits = [&](std::int32_t group) { return fill_[static_cast<std::size_t>(group)] + height <= capacity_; };
  if (slices < kStripeSlices) {
    // Adjacent groups: the emptiest far ones, or near ones while some must be used.
    const bool is_near = may_be_near && near_left_ > 0;
    std::int32_t best = -1;
    // The nearest groups, so that the third keeps what the MXM reads between the rounds (activations).
    for (std::int32_t group = is_near ? 0 : groups - wanted; group >= (is_near ? 0 : far_); group -= wanted) {
      bool may = true;
      for (std::int32_t i = 0; i < wanted; ++i) {
        may = may && fits(group + i);
      }
      if (may && (best < 0 || fill_[static_cast<std::size_t>(group)] < fill_[static_cast<std::size_t>(best)])) {
        best = group;
      }
    }
    if (best < 0 && is_near) {
      near_left_ = 0;
      return take(height, slices, false);
    }
    if (best < 0) {
      return {};
    }
    if (is_near) {
      near_left_ -= std::int64_t{height} * slices;
    }
    std::vector<std::int32_t> chosen(static_cast<std::size_t>(wanted));
    std::iota(chosen.begin(), chosen.end(), best);
    return place(std::move(chosen), height);
  }
  std::vector<std::int32_t> order(static_cast<std::size_t>(groups - far_));
  std::iota(order.begin(), order.end(), far_);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return fill_[static_cast<std::size_t>(a)] < fill_[static_cast<std::size_t>(b)];
  });
  std::vector<std::int32_t> chosen;
  if (may_be_near && near_left_ > 0) {
    for (std::int32_t group = 0; group < far_; ++group) {
      if (fits(group)) {
        chosen.push_back(group);
      }
    }
    // The last near group holds what reductions write and read, step by step: it stays free where the others have room
    // for all that is to come.
    std::int64_t room = 0;
    for (std::int32_t group = 0; group + 1 < far_; ++group) {
      room += (std::int64_t{capacity_} - fill_[static_cast<std::size_t>(group)] - kUneven) * group_slices_;
    }
    if (chosen.size() > 1 && chosen.back() == far_ - 1 && near_left_ <= room) {
      chosen.pop_back();
    }
    near_left_ -= std::int64_t{height} * static_cast<std::int64_t>(chosen.size()) * group_slices_;
  }
  for (const std::int32_t group : order) {
    if (static_cast<std::int32_t>(chosen.size()) < wanted && fits(group)) {
      chosen.push_back(group);
    }
  }
  return static_cast<std::int32_t>(chosen.size()) < wanted ? std::vector<Run>{} : place(std::move(chosen), height);
}

std::vector<Run> MemoryMap::take_rows(std::int32_t entries,
                                      std::int32_t height,
                                      std::int32_t columns,
                                      bool beside_narrow) {
  const auto groups = static_cast<std::int32_t>(fill_.size());
  const std::int32_t last_near = far_ - 1;
  const auto left = [&](std::int32_t group) { return capacity_ - fill_[static_cast<std::size_t>(group)]; };
  const auto piece_height = [&](std::int32_t pieces) {
    const std::int64_t addresses = node::ceil_div(entries, columns * pieces) * height;
    return static_cast<std::int32_t>(addresses + addresses % 2);
  };
  std::int32_t stacked = 1;  // pieces in the last near group
  while (beside_narrow && (stacked + 1) * piece_height(groups + stacked) <= left(last_near) &&
         piece_height(groups + stacked) > height) {
    ++stacked;
  }
  const std::int32_t taken = piece_height(groups - 1 + stacked);
  std::vector<Run> out;
  for (std::int32_t group = 0; group < groups; ++group) {
    const std::int32_t pieces = group == last_near ? stacked : 1;
    if (pieces * taken > left(group)) {
      return {};
    }
    for (std::int32_t piece = 0; piece < pieces; ++piece) {
      out.push_back({.first = 0,
                     .slices = group_slices_,
                     .slice = group * group_slices_,
                     .address = fill_[static_cast<std::size_t>(group)] + piece * taken});
    }
  }
  for (std::int32_t group = 0; group < groups; ++group) {
    const std::int32_t height_taken = (group == last_near ? stacked : 1) * taken;
    fill_[static_cast<std::size_t>(group)] += height_taken;
    near_left_ -= group < far_ ? std::int64_t{height_taken} * group_slices_ : 0;
  }
  return out;
}

std::vector<Run> MemoryMap::rest(std::int32_t height, std::int64_t* users) const {
  std::int32_t fullest = 0;
  std::vector<std::int32_t> groups;
  for (std::int32_t group = far_; group < static_cast<std::int32_t>(fill_.size()); ++group) {
    fullest = std::max(fullest, fill_[static_cast<std::size_t>(group)]);
    groups.push_back(group);
  }
  *users = height > 0 ? (capacity_ - fullest) / height : 0;
  MemoryMap copy = *this;
  return copy.place(std::move(groups), 0);
}

}  // namespace lpu::scheduler
