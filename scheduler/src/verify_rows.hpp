#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "verify_facts.hpp"

namespace lpu::scheduler::proof {

/// Slice and address in one word; addresses off the chip have places too, but no row.
using Place = std::uint32_t;
inline constexpr Place kNowhere = ~Place{0};
[[nodiscard]] Place place_of(node::Hemisphere hemisphere, std::int32_t slice, std::int64_t address);

/// "west slice 3 address 17 by register 2".
[[nodiscard]] std::string place_name(const Instruction& instruction, std::int32_t slice, std::int64_t address);
/// " by register 2"; nothing for none.
[[nodiscard]] std::string register_name(std::int32_t base_register);

/// A row of a tensor where an allocation holds it, base registers left out.
struct StoredRow {
  Place place = kNowhere;
  std::int32_t row = 0;
  std::int32_t allocation = 0;
};

/// Finds where a row of a cache or of an iteration tensor lies. Two allocations that differ only in registers of one
/// image class count once.
class RowIndex {
 public:
  /// @return false: the allocations hold more than the chip, which findings say; nothing is indexed
  bool build(const TextFacts& facts, Findings& findings);

  /// Numbers (indices of at()) of the places that hold a row.
  struct Range {
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
  };
  [[nodiscard]] Range find(std::uint16_t tensor, std::int64_t row) const;
  [[nodiscard]] const StoredRow& at(std::uint32_t number) const { return stored_[number]; }
  /// The one at a place, in an allocation of an image class; range.end: none.
  [[nodiscard]] std::uint32_t find_in(const Range& range, Place place, std::int32_t image_class) const;
  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(stored_.size()); }
  /// Allocations that count, by tensor; those of static tensors too.
  [[nodiscard]] std::span<const std::int32_t> allocations() const { return allocations_; }

 private:
  struct TensorRows {
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
    std::int64_t lowest = 0;
    std::vector<std::uint32_t> begins;  ///< per row from lowest; empty: rows lie too far apart, search
  };
  void order(TensorRows& rows, std::int64_t highest);

  std::vector<StoredRow> stored_;
  std::vector<std::int32_t> image_classes_;  ///< per allocation
  std::vector<TensorRows> tensors_;
  std::vector<std::int32_t> allocations_;
};

/// Visit (slice, address, row) of an allocation's cells.
template <typename Visit>
void for_each_cell(const node::Allocation& allocation, Visit&& visit) {
  for (std::int32_t i = 0; i < allocation.count[0]; ++i) {
    for (std::int32_t j = 0; j < allocation.count[1]; ++j) {
      std::int32_t slice = allocation.slice + i * allocation.slice_stride[0] + j * allocation.slice_stride[1];
      std::int32_t address = allocation.address + i * allocation.address_stride[0] + j * allocation.address_stride[1];
      std::int32_t row = allocation.row + i * allocation.row_stride[0] + j * allocation.row_stride[1];
      for (std::int32_t k = 0; k < allocation.count[2]; ++k) {
        visit(slice, address, row);
        slice += allocation.slice_stride[2];
        address += allocation.address_stride[2];
        row += allocation.row_stride[2];
      }
    }
  }
}

}  // namespace lpu::scheduler::proof
