#include <algorithm>
#include <array>
#include <cstdlib>

#include "verify_memory.hpp"

namespace lpu::scheduler::proof {
namespace {

using node::Allocation;
using node::RegisterKind;
using node::TensorScope;

/// Cells of one displaced allocation in one slice: what its loops that stay there run over.
struct Extent {
  std::int32_t lowest = 0, highest = 0;
  std::int32_t address = 0, row = 0;  ///< where the loops begin
  std::int32_t user = 0;              ///< slot, of caches
  std::int32_t allocation = 0;
  bool lasts = true;
};

/// The allocation's loops that stay in a slice.
Allocation staying(const Allocation& a) {
  Allocation out = a;
  for (std::size_t l = 0; l < 3; ++l) {
    out.count[l] = a.slice_stride[l] == 0 ? a.count[l] : 1;
  }
  return out;
}

/// Whether a slice's cells are surely different: each loop steps over all that the finer ones run through.
bool are_distinct(const Allocation& stay) {
  std::array<std::size_t, 3> loops{0, 1, 2};
  std::sort(loops.begin(), loops.end(), [&](std::size_t a, std::size_t b) {
    return std::abs(stay.address_stride[a]) < std::abs(stay.address_stride[b]);
  });
  std::int64_t reach = 0;
  for (const std::size_t l : loops) {
    if (stay.count[l] > 1 && std::abs(std::int64_t{stay.address_stride[l]}) <= reach) {
      return false;
    }
    reach += std::abs(std::int64_t{stay.address_stride[l]}) * (stay.count[l] - 1);
  }
  return true;
}

class CellProof {
 public:
  CellProof(const TextFacts& facts, const RowIndex& index, Findings& findings)
      : facts_(facts),
        index_(index),
        findings_(findings),
        is_sound_(facts.text.allocations.size(), false),
        is_distinct_(facts.text.allocations.size(), true),
        extents_(static_cast<std::size_t>(2 * facts.chip.slices_per_hemisphere)) {}

  /// Extents that do not meet hold different cells; only where some do are the slice's cells looked at one by one.
  std::vector<bool> run() {
    for (const std::int32_t number : index_.allocations()) {
      if (is_inside(number) && is_per_user(number)) {
        is_sound_[static_cast<std::size_t>(number)] = true;
        add_extents(number);
      }
    }
    for (std::vector<Extent>& slice : extents_) {
      const auto is_lower = [](const Extent& a, const Extent& b) { return a.lowest < b.lowest; };
      if (!std::is_sorted(slice.begin(), slice.end(), is_lower)) {
        std::stable_sort(slice.begin(), slice.end(), is_lower);
      }
      if (may_meet(slice)) {
        prove_slice(slice);
      }
    }
    return std::move(is_sound_);
  }

 private:
  [[nodiscard]] const Allocation& at(std::int32_t number) const {
    return facts_.text.allocations[static_cast<std::size_t>(number)];
  }
  [[nodiscard]] const node::Tensor& tensor_of(std::int32_t number) const {
    return facts_.text.tensors[at(number).tensor];
  }
  [[nodiscard]] const std::vector<Displacement>& images_of(std::int32_t number) const {
    return *facts_.registers[at(number).base_register].images;
  }
  [[nodiscard]] std::string name(std::int32_t number) const {
    return "allocation " + std::to_string(number) + " of '" + tensor_of(number).name + "'";
  }

  /// All its displaced cells are cells of the chip.
  bool is_inside(std::int32_t number) {
    const Allocation& a = at(number);
    std::int64_t low_slice = a.slice, high_slice = a.slice, low_address = a.address, high_address = a.address;
    for (std::size_t l = 0; l < 3; ++l) {
      const std::int64_t slices = std::int64_t{a.count[l] - 1} * a.slice_stride[l];
      const std::int64_t addresses = std::int64_t{a.count[l] - 1} * a.address_stride[l];
      (slices < 0 ? low_slice : high_slice) += slices;
      (addresses < 0 ? low_address : high_address) += addresses;
    }
    for (const Displacement& d : images_of(number)) {
      if (low_slice + d.slice < 0 || high_slice + d.slice >= facts_.chip.slices_per_hemisphere ||
          low_address + d.address < 0 || high_address + d.address >= facts_.chip.vectors_per_slice) {
        findings_.add(-1,
                      -1,
                      name(number) + " reaches slices " + std::to_string(low_slice + d.slice) + " to " +
                          std::to_string(high_slice + d.slice) + ", addresses " +
                          std::to_string(low_address + d.address) + " to " + std::to_string(high_address + d.address) +
                          ": outside the chip");
        return false;
      }
    }
    return true;
  }

  /// Users of different groups are in flight together: a cache needs a register that tells them apart.
  bool is_per_user(std::int32_t number) {
    const RegisterKind kind = facts_.text.registers[at(number).base_register].kind;
    if (tensor_of(number).scope != TensorScope::kCache || kind == RegisterKind::kUser ||
        facts_.program.user_slots <= facts_.program.plan.micro_batch) {
      return true;
    }
    findings_.add(
        -1, -1, name(number) + " is the same for all " + std::to_string(facts_.program.user_slots) + " users");
    return false;
  }

  void add_extents(std::int32_t number) {
    const Allocation& a = at(number);
    Allocation moving = a;
    const Allocation stay = staying(a);
    std::int32_t lowest = 0;
    std::int32_t highest = 0;
    for (std::size_t l = 0; l < 3; ++l) {
      moving.count[l] = a.slice_stride[l] == 0 ? 1 : a.count[l];
      const std::int32_t moved = (stay.count[l] - 1) * stay.address_stride[l];
      (moved < 0 ? lowest : highest) += moved;
    }
    is_distinct_[static_cast<std::size_t>(number)] = are_distinct(stay);
    const std::int32_t first_slice = static_cast<std::int32_t>(a.hemisphere) * facts_.chip.slices_per_hemisphere;
    const bool is_cache = tensor_of(number).scope == TensorScope::kCache;
    Extent extent{.user = is_cache ? facts_.text.registers[a.base_register].user_in_batch : 0,
                  .allocation = number,
                  .lasts = tensor_of(number).scope != TensorScope::kIteration};
    for (const Displacement& d : images_of(number)) {
      for_each_cell(moving, [&](std::int32_t slice, std::int32_t address, std::int32_t row) {
        extent.address = address + d.address;
        extent.lowest = extent.address + lowest;
        extent.highest = extent.address + highest;
        extent.row = row + d.row;
        const std::int64_t of_chip = std::int64_t{first_slice} + slice + d.slice;
        extents_[static_cast<std::size_t>(of_chip)].push_back(extent);
      });
      extent.user += is_cache ? facts_.program.plan.micro_batch : 0;
    }
  }

  [[nodiscard]] bool may_meet(const std::vector<Extent>& slice) const {
    std::int32_t lasting = -1;
    std::int32_t scratch = -1;
    for (const Extent& extent : slice) {
      const bool is_folded = extent.lasts && !is_distinct_[static_cast<std::size_t>(extent.allocation)];
      if (extent.lowest <= lasting || (extent.lasts && extent.lowest <= scratch) || is_folded) {
        return true;
      }
      std::int32_t& highest = extent.lasts ? lasting : scratch;
      highest = std::max(highest, extent.highest);
    }
    return false;
  }

  /// What a cell holds for good.
  struct Holder {
    const Extent* extent = nullptr;
    std::int32_t row = 0;
  };

  void prove_slice(const std::vector<Extent>& slice) {
    holders_.assign(static_cast<std::size_t>(facts_.chip.vectors_per_slice), Holder{});
    for (const bool lasts : {true, false}) {
      for (const Extent& extent : slice) {
        if (extent.lasts == lasts) {
          hold(extent, static_cast<std::int32_t>((&slice - extents_.data()) % facts_.chip.slices_per_hemisphere));
        }
      }
    }
  }

  void hold(const Extent& extent, std::int32_t slice) {
    Allocation stay = staying(at(extent.allocation));
    stay.address = extent.address;
    stay.row = extent.row;
    bool is_reported = false;
    for_each_cell(stay, [&](std::int32_t, std::int32_t address, std::int32_t row) {
      Holder& holder = holders_[static_cast<std::size_t>(address)];
      const bool is_one_row = extent.lasts && holder.extent != nullptr && holder.row == row &&
                              holder.extent->user == extent.user && at(holder.extent->allocation).tensor == stay.tensor;
      if (holder.extent != nullptr && !is_one_row && !is_reported) {
        is_reported = true;
        report_shared(extent, *holder.extent, slice, address);
      }
      if (extent.lasts && holder.extent == nullptr) {
        holder = {&extent, row};
      }
    });
  }

  void report_shared(const Extent& extent, const Extent& holder, std::int32_t slice, std::int32_t address) {
    const node::Tensor& other = tensor_of(holder.allocation);
    std::string reason = name(extent.allocation) + " and one of '" + other.name + "'";
    if (other.scope == TensorScope::kCache) {
      reason += " (user slot " + std::to_string(holder.user) + ")";
    }
    findings_.add(-1,
                  -1,
                  reason + " both hold " + name_of(at(extent.allocation).hemisphere) + " slice " +
                      std::to_string(slice) + " address " + std::to_string(address));
  }

  const TextFacts& facts_;
  const RowIndex& index_;
  Findings& findings_;
  std::vector<bool> is_sound_;
  std::vector<bool> is_distinct_;
  std::vector<std::vector<Extent>> extents_;  ///< per slice of the chip
  std::vector<Holder> holders_;
};

}  // namespace

std::vector<bool> prove_cells(const TextFacts& facts, const RowIndex& index, Findings& findings) {
  return CellProof(facts, index, findings).run();
}

}  // namespace lpu::scheduler::proof
