#include <algorithm>
#include <numeric>
#include <tuple>

#include "verify_memory.hpp"

namespace lpu::scheduler::proof {
namespace {

using node::Allocation;
using node::RegisterKind;
using node::TensorScope;

/// Which iterations find a row in a cell: those with k mod copies == copy, or those of one user slot.
struct Variant {
  std::int32_t copy = 0;
  std::int32_t copies = 1;
  std::int32_t user_slot = -1;
};

/// A row of iterations in a cell of the chip.
struct Tenant {
  std::int64_t cell = 0;
  std::uint32_t stored = 0;
  Variant variant;
};

/// Whether two iterations that start m intervals apart (the second later where m > 0) can hold these two variants. They
/// are between 1 and |m| iterations apart: tokens of a user may start later than one interval after the last of its
/// group.
bool can_coincide(const Variant& a, const Variant& b, std::int64_t m, std::int32_t micro_batch) {
  if (a.user_slot >= 0 && b.user_slot >= 0) {
    return (a.user_slot / micro_batch == b.user_slot / micro_batch) ==
           (m == 0);  // a user's own iterations do not overlap
  }
  const std::int64_t common = std::gcd(a.copies, b.copies);
  const std::int64_t ahead = floor_mod(m >= 0 ? b.copy - a.copy : a.copy - b.copy, common);
  if (m == 0) {
    return ahead == 0;
  }
  return (ahead == 0 ? common : ahead) <= std::abs(m);
}

class LifeProof {
 public:
  LifeProof(const TextFacts& facts,
            const RowIndex& index,
            const std::vector<bool>& is_sound,
            const std::vector<Life>& lives,
            Findings& findings)
      : facts_(facts), index_(index), is_sound_(is_sound), lives_(lives), findings_(findings) {}

  void run() {
    for (std::uint32_t stored = 0; stored < index_.size(); ++stored) {
      const auto number = static_cast<std::size_t>(index_.at(stored).allocation);
      const node::Tensor& tensor = facts_.text.tensors[facts_.text.allocations[number].tensor];
      if (is_sound_[number] && tensor.scope == TensorScope::kIteration) {
        add_tenant(stored);
      }
    }
    prove_tenants();
  }

 private:
  [[nodiscard]] const Allocation& at(std::int32_t number) const {
    return facts_.text.allocations[static_cast<std::size_t>(number)];
  }
  [[nodiscard]] const RegisterFacts& base_of(std::int32_t number) const {
    return facts_.registers[at(number).base_register];
  }
  [[nodiscard]] std::int64_t cell(node::Hemisphere hemisphere, std::int32_t slice, std::int64_t address) const {
    return (static_cast<std::int64_t>(hemisphere) * facts_.chip.slices_per_hemisphere + slice) *
               facts_.chip.vectors_per_slice +
           address;
  }

  void add_tenant(std::uint32_t stored) {
    const Life& life = lives_[stored];
    if (life.writes.first_by < 0) {
      return;
    }
    const Allocation& a = at(index_.at(stored).allocation);
    const node::BaseRegister& base = facts_.text.registers[a.base_register];
    const Place corner = place_of(a.hemisphere, 0, 0);
    const Place slices = place_of(a.hemisphere, 1, 0) - corner;
    const Place offset = index_.at(stored).place - corner;
    const auto& images = *base_of(index_.at(stored).allocation).images;
    for (std::size_t i = 0; i < images.size(); ++i) {
      Variant variant;
      if (base.kind == RegisterKind::kBuffer) {
        variant = {.copy = static_cast<std::int32_t>(i), .copies = base.copies};
      } else if (base.kind == RegisterKind::kUser) {
        variant.user_slot = base.user_in_batch + static_cast<std::int32_t>(i) * facts_.program.plan.micro_batch;
      }
      tenants_.push_back({cell(a.hemisphere,
                               static_cast<std::int32_t>(offset / slices) + images[i].slice,
                               std::int64_t{offset % slices} + images[i].address),
                          stored,
                          variant});
    }
  }

  void prove_tenants() {
    std::stable_sort(
        tenants_.begin(), tenants_.end(), [](const Tenant& a, const Tenant& b) { return a.cell < b.cell; });
    for (std::size_t begin = 0; begin < tenants_.size() && !findings_.is_full();) {
      std::size_t end = begin + 1;
      while (end < tenants_.size() && tenants_[end].cell == tenants_[begin].cell) {
        ++end;
      }
      for (std::size_t a = begin; a < end; ++a) {
        for (std::size_t b = a; b < end; ++b) {
          prove_pair(tenants_[a], tenants_[b]);
        }
      }
      begin = end;
    }
  }

  [[nodiscard]] static std::int64_t end_of(const Life& life) {
    return life.reads.last_by < 0 ? life.writes.last : std::max(life.reads.last, life.writes.last);
  }

  /// Lives [a0, a1] and [b0, b1] + m intervals must be apart for every m that can be.
  void prove_pair(const Tenant& a, const Tenant& b) {
    const Life& x = lives_[a.stored];
    const Life& y = lives_[b.stored];
    const bool is_one = &a == &b;
    const std::int64_t interval = facts_.interval;
    const auto floor_div = [](std::int64_t n, std::int64_t d) { return (n - floor_mod(n, d)) / d; };
    const std::int64_t most = floor_div(end_of(x) - y.writes.first, interval);
    const std::int64_t least = -floor_div(end_of(y) - x.writes.first, interval);
    for (std::int64_t m = least; m <= most; ++m) {
      if ((is_one && m == 0) || !can_coincide(a.variant, b.variant, m, facts_.program.plan.micro_batch)) {
        continue;
      }
      const bool is_second_later = y.writes.first + m * interval >= x.writes.first;
      report_overwritten(is_second_later ? a : b, is_second_later ? b : a, is_second_later ? m : -m);
      return;
    }
  }

  /// @param m  the writer's iteration starts m intervals after the victim's
  void report_overwritten(const Tenant& victim, const Tenant& writer, std::int64_t m) {
    const auto value = [&](const Tenant& tenant) {
      return value_of(facts_, at(index_.at(tenant.stored).allocation).tensor, index_.at(tenant.stored).row);
    };
    const Life& lost = lives_[victim.stored];
    const Life& made = lives_[writer.stored];
    const bool is_read = lost.reads.last_by >= 0;
    std::string reason = "writes " + value(writer) + " over live " + value(victim);
    if (m != 0) {
      reason += " of the iteration " + std::to_string(std::abs(m)) + (m > 0 ? " earlier" : " later");
    }
    reason += is_read ? ", which " + name_of(facts_, lost.reads.last_by) + " still reads in cycle " +
                            std::to_string(lost.reads.last)
                      : ", which " + name_of(facts_, lost.writes.last_by) + " writes in cycle " +
                            std::to_string(lost.writes.last);
    findings_.add(made.writes.first, made.writes.first_by, reason);
  }

  const TextFacts& facts_;
  const RowIndex& index_;
  const std::vector<bool>& is_sound_;
  const std::vector<Life>& lives_;
  Findings& findings_;
  std::vector<Tenant> tenants_;
};

}  // namespace

void prove_places(const TextFacts& facts, const RowIndex& index, const std::vector<Life>& lives, Findings& findings) {
  const std::vector<bool> is_sound = prove_cells(facts, index, findings);
  LifeProof(facts, index, is_sound, lives, findings).run();
}

}  // namespace lpu::scheduler::proof
