#include <algorithm>
#include <tuple>

#include "verify_memory.hpp"

namespace lpu::scheduler::proof {
namespace {

using node::Allocation;
using node::RegisterKind;
using node::TensorScope;

/// Cells of one displaced allocation along one of its loops, in one slice.
struct Segment {
  std::int32_t slice = 0;                            ///< of the chip
  std::int32_t lowest = 0, highest = 0, stride = 1;  ///< addresses; stride 0: several rows in one cell
  std::int32_t row = 0, row_stride = 0;              ///< from the lowest address up
  std::uint16_t tensor = 0;
  std::int32_t user = 0;  ///< slot, of caches
  std::int32_t allocation = 0;
  bool lasts = true;

  [[nodiscard]] auto extent() const { return std::tuple(slice, lowest, highest); }
  /// Where two are alike they are one: the same rows, named by two allocations.
  [[nodiscard]] auto content() const {
    return std::tuple(slice, lowest, highest, stride, row, row_stride, tensor, user, lasts);
  }
};

class CellProof {
 public:
  CellProof(const TextFacts& facts, const RowIndex& index, Findings& findings)
      : facts_(facts), index_(index), findings_(findings), is_sound_(facts.text.allocations.size(), false) {}

  /// Segments whose extents do not meet hold different cells; only where some do are the slice's cells looked at one by
  /// one.
  std::vector<bool> run() {
    for (const std::int32_t number : index_.allocations()) {
      if (is_inside(number) && is_per_user(number)) {
        is_sound_[static_cast<std::size_t>(number)] = true;
        add_segments(number);
      }
    }
    std::stable_sort(
        segments_.begin(), segments_.end(), [](const Segment& a, const Segment& b) { return a.extent() < b.extent(); });
    for (std::size_t begin = 0; begin < segments_.size();) {
      std::size_t end = begin;
      while (end < segments_.size() && segments_[end].slice == segments_[begin].slice) {
        ++end;
      }
      if (may_meet(begin, end)) {
        prove_slice(begin, end);
      }
      begin = end;
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

  void add_segments(std::int32_t number) {
    const Allocation& a = at(number);
    std::size_t along = 0;
    for (std::size_t l = 1; l < 3; ++l) {
      const bool is_better = a.slice_stride[l] == 0 && (a.slice_stride[along] != 0 || a.count[l] > a.count[along]);
      along = is_better ? l : along;
    }
    if (a.slice_stride[along] != 0) {
      Allocation rest = a;  // every loop changes the slice: cells are segments
      add_rest(number, rest, {.count = 1});
      return;
    }
    Allocation rest = a;
    rest.count[along] = 1;
    add_rest(
        number, rest, {.count = a.count[along], .stride = a.address_stride[along], .row_stride = a.row_stride[along]});
  }

  struct Along {
    std::int32_t count = 1;
    std::int32_t stride = 0;
    std::int32_t row_stride = 0;
  };

  void add_rest(std::int32_t number, const Allocation& rest, const Along& along) {
    const node::TensorScope scope = tensor_of(number).scope;
    const node::BaseRegister& base = facts_.text.registers[rest.base_register];
    const std::int32_t first_slice = static_cast<std::int32_t>(rest.hemisphere) * facts_.chip.slices_per_hemisphere;
    const std::int32_t span = (along.count - 1) * along.stride;
    Segment segment{.tensor = rest.tensor,
                    .user = scope == TensorScope::kCache ? base.user_in_batch : 0,
                    .allocation = number,
                    .lasts = scope != TensorScope::kIteration};
    const bool is_one_row = along.stride == 0 && along.row_stride == 0;
    segment.stride = along.count == 1 || is_one_row ? 1 : std::abs(along.stride);
    segment.row_stride = along.stride < 0 ? -along.row_stride : along.row_stride;
    for (const Displacement& d : images_of(number)) {
      for_each_cell(rest, [&](std::int32_t slice, std::int32_t address, std::int32_t row) {
        segment.slice = first_slice + slice + d.slice;
        segment.lowest = address + d.address + std::min(span, 0);
        segment.highest = address + d.address + std::max(span, 0);
        segment.row = row + d.row + (span < 0 ? (along.count - 1) * along.row_stride : 0);
        segments_.push_back(segment);
      });
      segment.user += scope == TensorScope::kCache ? facts_.program.plan.micro_batch : 0;
    }
  }

  [[nodiscard]] bool may_meet(std::size_t begin, std::size_t end) const {
    std::int32_t lasting = -1;
    std::int32_t scratch = -1;
    for (std::size_t i = begin; i < end; ++i) {
      const Segment& segment = segments_[i];
      if (i > begin && segment.content() == segments_[i - 1].content()) {
        continue;
      }
      if (segment.lowest <= lasting || (segment.lasts && (segment.lowest <= scratch || segment.stride == 0))) {
        return true;
      }
      std::int32_t& highest = segment.lasts ? lasting : scratch;
      highest = std::max(highest, segment.highest);
    }
    return false;
  }

  void prove_slice(std::size_t begin, std::size_t end) {
    std::vector<const Segment*> holders(static_cast<std::size_t>(facts_.chip.vectors_per_slice), nullptr);
    for (const bool lasts : {true, false}) {
      for (std::size_t i = begin; i < end; ++i) {
        if (segments_[i].lasts == lasts) {
          hold(segments_[i], holders);
        }
      }
    }
  }

  void hold(const Segment& segment, std::vector<const Segment*>& holders) {
    bool is_reported = false;
    for (std::int32_t address = segment.lowest; address <= segment.highest; address += std::max(segment.stride, 1)) {
      const Segment*& holder = holders[static_cast<std::size_t>(address)];
      const bool is_apart = holder == nullptr || (segment.lasts && is_same_row(segment, *holder, address));
      if ((!is_apart || (segment.stride == 0 && segment.lasts)) && !is_reported) {
        is_reported = true;
        report_shared(segment, holder == nullptr ? segment : *holder, address);
      }
      if (segment.lasts && holder == nullptr) {
        holder = &segment;
      }
    }
  }

  [[nodiscard]] static bool is_same_row(const Segment& a, const Segment& b, std::int32_t address) {
    const auto row = [address](const Segment& s) {
      return std::int64_t{s.row} + std::int64_t{address - s.lowest} / std::max(s.stride, 1) * s.row_stride;
    };
    return a.tensor == b.tensor && a.user == b.user && row(a) == row(b);
  }

  void report_shared(const Segment& segment, const Segment& holder, std::int32_t address) {
    const node::Tensor& other = facts_.text.tensors[holder.tensor];
    std::string reason = name(segment.allocation) + " and one of '" + other.name + "'";
    if (other.scope == TensorScope::kCache) {
      reason += " (user slot " + std::to_string(holder.user) + ")";
    }
    findings_.add(-1,
                  -1,
                  reason + " both hold " + name_of(at(segment.allocation).hemisphere) + " slice " +
                      std::to_string(segment.slice % facts_.chip.slices_per_hemisphere) + " address " +
                      std::to_string(address));
  }

  const TextFacts& facts_;
  const RowIndex& index_;
  Findings& findings_;
  std::vector<bool> is_sound_;
  std::vector<Segment> segments_;
};

}  // namespace

std::vector<bool> prove_cells(const TextFacts& facts, const RowIndex& index, Findings& findings) {
  return CellProof(facts, index, findings).run();
}

}  // namespace lpu::scheduler::proof
