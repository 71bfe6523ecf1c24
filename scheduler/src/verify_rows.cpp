#include "verify_rows.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <set>

namespace lpu::scheduler::proof {
namespace {

using node::Allocation;

auto geometry(const Allocation& a, std::int32_t image_class) {
  std::array<std::int64_t, 19> key{};
  std::size_t at = 0;
  for (const std::int64_t value : {std::int64_t{a.tensor},
                                   static_cast<std::int64_t>(a.hemisphere),
                                   std::int64_t{image_class},
                                   std::int64_t{a.row},
                                   std::int64_t{a.slice},
                                   std::int64_t{a.address}}) {
    key[at++] = value;
  }
  for (std::size_t l = 0; l < 3; ++l) {
    key[at++] = a.count[l];
    key[at++] = a.row_stride[l];
    key[at++] = a.slice_stride[l];
    key[at++] = a.address_stride[l];
  }
  return key;
}

}  // namespace

Place place_of(node::Hemisphere hemisphere, std::int32_t slice, std::int64_t address) {
  constexpr std::int64_t kAddresses = std::int64_t{1} << 18U;
  const std::int64_t shifted = address + 65536;
  const std::int32_t column = slice + 1024;
  if (shifted < 0 || shifted >= kAddresses || column < 0 || column >= 4096) {
    return kNowhere;
  }
  return static_cast<Place>(((static_cast<std::int64_t>(hemisphere) << 12U) + column) * kAddresses + shifted);
}

std::string register_name(std::int32_t base_register) {
  return base_register == 0 ? std::string() : " by register " + std::to_string(base_register);
}

std::string place_name(const Instruction& instruction, std::int32_t slice, std::int64_t address) {
  return name_of(instruction.hemisphere) + " slice " + std::to_string(slice) + " address " + std::to_string(address) +
         register_name(instruction.base_register);
}

std::uint32_t RowIndex::find_in(const Range& range, Place place, std::int32_t image_class) const {
  std::uint32_t stored = range.begin;
  while (stored < range.end && (stored_[stored].place != place ||
                                image_classes_[static_cast<std::size_t>(stored_[stored].allocation)] != image_class)) {
    ++stored;
  }
  return stored;
}

bool RowIndex::build(const TextFacts& facts, Findings& findings) {
  const auto& allocations = facts.text.allocations;
  std::set<std::array<std::int64_t, 19>> seen;
  std::int64_t cells = 0;
  for (std::size_t i = 0; i < allocations.size(); ++i) {
    const Allocation& a = allocations[i];
    image_classes_.push_back(facts.registers[a.base_register].image_class);
    const std::int64_t own = std::int64_t{a.count[0]} * a.count[1];
    cells += own > facts.chip.vectors() ? own : own * a.count[2];
    if (cells > 4 * facts.chip.vectors()) {
      findings.add(-1,
                   -1,
                   "allocation " + std::to_string(i) + " of '" + facts.text.tensors[a.tensor].name +
                       "': allocations hold more than " + std::to_string(cells) + " rows; the chip has " +
                       std::to_string(facts.chip.vectors()));
      return false;
    }
    // An append's places are those of the user's cache, which its own allocation lists.
    if (facts.text.registers[a.base_register].kind != node::RegisterKind::kAppend &&
        seen.insert(geometry(a, facts.registers[a.base_register].image_class)).second) {
      allocations_.push_back(static_cast<std::int32_t>(i));
    }
  }
  std::stable_sort(allocations_.begin(), allocations_.end(), [&](std::int32_t a, std::int32_t b) {
    return allocations[static_cast<std::size_t>(a)].tensor < allocations[static_cast<std::size_t>(b)].tensor;
  });
  tensors_.resize(facts.text.tensors.size());
  for (std::size_t i = 0; i < allocations_.size();) {
    const std::uint16_t tensor = allocations[static_cast<std::size_t>(allocations_[i])].tensor;
    const bool is_static = facts.text.tensors[tensor].scope == node::TensorScope::kStatic;
    TensorRows& rows = tensors_[tensor];
    rows.begin = size();
    std::int32_t lowest = std::numeric_limits<std::int32_t>::max();
    std::int32_t highest = std::numeric_limits<std::int32_t>::min();
    for (; i < allocations_.size() && allocations[static_cast<std::size_t>(allocations_[i])].tensor == tensor; ++i) {
      if (is_static) {
        continue;
      }
      const Allocation& a = allocations[static_cast<std::size_t>(allocations_[i])];
      for_each_cell(a, [&](std::int32_t slice, std::int32_t address, std::int32_t row) {
        stored_.push_back({place_of(a.hemisphere, slice, address), row, allocations_[i]});
        lowest = std::min(lowest, row);
        highest = std::max(highest, row);
      });
    }
    rows.end = size();
    if (rows.end > rows.begin) {
      rows.lowest = lowest;
      order(rows, highest);
    }
  }
  return true;
}

void RowIndex::order(TensorRows& rows, std::int64_t highest) {
  const std::int64_t range = highest - rows.lowest + 1;
  const auto begin = stored_.begin() + rows.begin;
  const auto end = stored_.begin() + rows.end;
  if (range > 4 * std::int64_t{rows.end - rows.begin} + 4096) {
    std::stable_sort(begin, end, [](const StoredRow& a, const StoredRow& b) { return a.row < b.row; });
    return;
  }
  rows.begins.assign(static_cast<std::size_t>(range) + 1, 0);
  for (auto at = begin; at != end; ++at) {
    ++rows.begins[static_cast<std::size_t>(at->row - rows.lowest) + 1];
  }
  for (std::size_t row = 0; row < static_cast<std::size_t>(range); ++row) {
    rows.begins[row + 1] += rows.begins[row];
  }
  const std::vector<StoredRow> unordered(begin, end);
  std::vector<std::uint32_t> next(rows.begins.begin(), rows.begins.end() - 1);
  for (const StoredRow& stored : unordered) {
    stored_[rows.begin + next[static_cast<std::size_t>(stored.row - rows.lowest)]++] = stored;
  }
}

RowIndex::Range RowIndex::find(std::uint16_t tensor, std::int64_t row) const {
  const TensorRows& rows = tensors_[tensor];
  const std::int64_t at = row - rows.lowest;
  if (at < 0 || rows.begin == rows.end) {
    return {};
  }
  if (!rows.begins.empty()) {
    if (at + 1 >= static_cast<std::int64_t>(rows.begins.size())) {
      return {};
    }
    return {rows.begin + rows.begins[static_cast<std::size_t>(at)],
            rows.begin + rows.begins[static_cast<std::size_t>(at) + 1]};
  }
  const auto begin = stored_.begin() + rows.begin;
  const auto end = stored_.begin() + rows.end;
  const auto first = std::lower_bound(begin, end, row, [](const StoredRow& a, std::int64_t r) { return a.row < r; });
  const auto last = std::upper_bound(first, end, row, [](std::int64_t r, const StoredRow& a) { return r < a.row; });
  return {static_cast<std::uint32_t>(first - stored_.begin()), static_cast<std::uint32_t>(last - stored_.begin())};
}

}  // namespace lpu::scheduler::proof
