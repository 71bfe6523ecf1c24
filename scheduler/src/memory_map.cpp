#include "memory_map.hpp"

#include <algorithm>
#include <numeric>

namespace lpu::scheduler {

namespace {

constexpr std::int32_t kStripeSlices = 32;  // what a hemisphere's two planes take in a cycle
constexpr std::int64_t kUneven = 64;        // heights are even, and blocks do not fill every group to the brim
constexpr std::int64_t kUnevenNear = 192;   // more of it where two patterns share the far groups

std::int32_t first_far(const node::ChipSpec& chip) {
  return (chip.slices_per_hemisphere - kStripeSlices) / chip.slices_per_position;
}

}  // namespace

std::int64_t MemoryMap::capacity(const node::ChipSpec& chip, std::int32_t scratch) {
  const std::int32_t near_groups = first_far(chip);
  const std::int64_t near_height = std::max<std::int64_t>(0, chip.vectors_per_slice - scratch);
  return chip.vectors_per_slice + near_height * near_groups * chip.slices_per_position / kStripeSlices - kUnevenNear;
}

MemoryMap::MemoryMap(const node::ChipSpec& chip, std::int64_t stripes, std::int32_t scratch)
    : group_slices_(chip.slices_per_position),
      far_(first_far(chip)),
      capacity_(chip.vectors_per_slice),
      fill_(static_cast<std::size_t>(chip.slices_per_hemisphere / chip.slices_per_position), 0) {
  for (std::int32_t group = 0; group < far_; ++group) {
    fill_[static_cast<std::size_t>(group)] = scratch + scratch % 2;
  }
  if (stripes + kUneven > capacity_) {
    near_left_ = (stripes + kUnevenNear - capacity_) * kStripeSlices;
  }
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
    // The last near group holds what reductions write and read, step by step: it stays free where the others have room
    // for all that is to come.
    const std::int64_t room = std::int64_t{capacity_} - fill_.front() - kUneven;
    const std::int32_t near = near_left_ > room * (far_ - 1) * group_slices_ ? far_ : far_ - 1;
    if (std::all_of(
            fill_.begin(), fill_.begin() + near, [&](std::int32_t fill) { return fill + height <= capacity_; })) {
      chosen.resize(static_cast<std::size_t>(near));
      std::iota(chosen.begin(), chosen.end(), 0);
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

std::vector<Run> MemoryMap::take_everywhere(std::int32_t height) {
  height += height % 2;
  std::vector<std::int32_t> all(fill_.size());
  std::iota(all.begin(), all.end(), 0);
  for (const std::int32_t fill : fill_) {
    if (fill + height > capacity_) {
      return {};
    }
  }
  near_left_ -= std::int64_t{height} * far_ * group_slices_;
  return place(std::move(all), height);
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
