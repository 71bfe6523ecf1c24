#include <algorithm>
#include <map>
#include <tuple>

#include "lpu/node/iteration.hpp"
#include "verify_facts.hpp"

namespace lpu::scheduler::proof {
namespace {

using node::BaseRegister;
using node::RegisterKind;

/// Numbers things by what they are made of: 1, 2, … in order of first appearance.
class Numbering {
 public:
  std::int32_t operator()(std::vector<std::int64_t> key) {
    return numbers_.try_emplace(std::move(key), static_cast<std::int32_t>(numbers_.size()) + 1).first->second;
  }

 private:
  std::map<std::vector<std::int64_t>, std::int32_t> numbers_;
};

bool moves_rows(const std::vector<Displacement>& displacements) {
  return std::any_of(displacements.begin(), displacements.end(), [](const Displacement& d) { return d.row != 0; });
}

void append_rows(std::vector<std::int64_t>& key, const std::vector<Displacement>& table) {
  if (moves_rows(table)) {
    for (const Displacement& d : table) {
      key.push_back(d.row);
    }
  }
}

void add_places(std::vector<std::int64_t>& key, const std::vector<Displacement>& table) {
  for (const Displacement& d : table) {
    key.push_back(d.slice);
    key.push_back(d.address);
    key.push_back(d.row);
  }
}

/// What the row displacement is a function of; empty: rows stay.
std::vector<std::int64_t> row_key(const BaseRegister& base) {
  std::vector<std::int64_t> key{static_cast<std::int64_t>(base.kind)};
  switch (base.kind) {
    case RegisterKind::kNone:
    case RegisterKind::kBuffer:
      return {};
    case RegisterKind::kUser:
      if (!moves_rows(base.table)) {
        return {};
      }
      key.push_back(base.user_in_batch);
      break;
    case RegisterKind::kAppend:
      if (base.append.row_stride == 0 && !moves_rows(base.table)) {
        return {};
      }
      key.insert(key.end(),
                 {base.append.is_column ? 1 : 0,
                  base.append.row_stride,
                  base.append.is_column ? 0 : base.append.positions_per_tile});
      break;
    case RegisterKind::kExpert:
      if (base.row_stride == 0) {
        return {};
      }
      key.insert(key.end(), {base.expert_slot, base.layer_slot, base.row_stride});
      break;
    case RegisterKind::kToken:
      if (base.row_stride == 0 && !moves_rows(base.table)) {
        return {};
      }
      key.insert(key.end(), {base.user_in_batch, base.row_stride});
      break;
    case RegisterKind::kPosition:
      if (base.row_stride == 0) {
        return {};
      }
      key.push_back(base.row_stride);
      break;
  }
  append_rows(key, base.table);
  return key;
}

/// What an access's place and row are a function of, given the copy, user, expert, token or position; empty: nothing
/// moves.
std::vector<std::int64_t> image_key(const BaseRegister& base, std::size_t index) {
  std::vector<std::int64_t> key{static_cast<std::int64_t>(base.kind)};
  switch (base.kind) {
    case RegisterKind::kNone:
      return {};
    case RegisterKind::kBuffer:
      if (base.copies == 1) {
        return {};
      }
      key.insert(key.end(), {base.copies, base.stride});
      break;
    case RegisterKind::kUser:
      key.push_back(base.user_in_batch);
      add_places(key, base.table);
      break;
    case RegisterKind::kAppend:
      key.push_back(static_cast<std::int64_t>(index));
      break;
    case RegisterKind::kExpert:
      key.insert(key.end(), {base.stride, base.row_stride, base.experts});
      break;
    case RegisterKind::kToken:
      key.insert(key.end(), {base.stride, base.row_stride, base.experts, base.append.hemisphere});
      add_places(key, base.table);
      break;
    case RegisterKind::kPosition:
      key.insert(key.end(), {base.stride, base.row_stride});
      break;
  }
  return key;
}

std::vector<PlaceShift> place_shifts(const std::vector<Displacement>& displacements, std::int32_t banks) {
  std::vector<PlaceShift> out;
  for (const Displacement& d : displacements) {
    // Neighbours mostly share a slice; the few slices that there are make a search cheap.
    if (out.empty() || out.back().slice != d.slice) {
      const auto known = std::find_if(out.begin(), out.end(), [&](const PlaceShift& p) { return p.slice == d.slice; });
      if (known != out.end()) {
        std::rotate(known, known + 1, out.end());
      } else {
        out.push_back({d.slice, 0});
      }
    }
    out.back().banks |= 1U << floor_mod(d.address, banks);
  }
  if (out.empty()) {
    out.push_back({});
  }
  std::sort(out.begin(), out.end(), [](const PlaceShift& a, const PlaceShift& b) { return a.slice < b.slice; });
  return out;
}

/// Every sum of a user's displacement and a position's.
std::vector<PlaceShift> sums(const std::vector<PlaceShift>& a, const std::vector<PlaceShift>& b, std::int32_t banks) {
  std::vector<Displacement> all;
  for (const PlaceShift& x : a) {
    for (const PlaceShift& y : b) {
      for (std::int32_t i = 0; i < banks; ++i) {
        for (std::int32_t j = 0; j < banks; ++j) {
          if ((x.banks >> i & 1U) != 0 && (y.banks >> j & 1U) != 0) {
            all.push_back({.slice = static_cast<std::int16_t>(x.slice + y.slice),
                           .address = static_cast<std::int16_t>((i + j) % banks)});
          }
        }
      }
    }
  }
  return place_shifts(all, banks);
}

/// Displacements and what follows from them alone.
struct Listed {
  std::shared_ptr<const std::vector<Displacement>> displacements;
  std::vector<PlaceShift> places;
  std::int64_t row_lowest = 0;
  std::int64_t row_highest = 0;
  bool may_be_disabled = false;
  std::shared_ptr<const std::vector<bool>> appends_at;
};

Listed list(std::vector<Displacement> displacements, std::int32_t banks) {
  Listed out;
  out.places = place_shifts(displacements, banks);
  for (const Displacement& d : displacements) {
    out.row_lowest = std::min<std::int64_t>(out.row_lowest, d.row);
    out.row_highest = std::max<std::int64_t>(out.row_highest, d.row);
    out.may_be_disabled = out.may_be_disabled || !d.is_enabled;
  }
  out.displacements = std::make_shared<const std::vector<Displacement>>(std::move(displacements));
  return out;
}

/// Displacements of a kAppend register with the user's part left out: equal ones once, and which positions have one.
std::vector<Displacement> place_appends(BaseRegister base, std::int32_t context, std::vector<bool>& is_here) {
  base.table.assign(1, Displacement{});
  base.user_in_batch = 0;
  const node::IterationPlan one_user{.context = context};
  std::vector<Displacement> places;
  for (std::int32_t position = 0; position < context; ++position) {
    const Displacement at = node::displace(base, one_user, position, {});
    is_here.push_back(at.is_enabled);
    if (at.is_enabled) {
      places.push_back(at);
    }
  }
  const auto key = [](const Displacement& d) { return std::tuple{d.row, d.slice, d.address}; };
  std::sort(places.begin(), places.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  places.erase(
      std::unique(places.begin(), places.end(), [&](const auto& a, const auto& b) { return key(a) == key(b); }),
      places.end());
  return places;
}

/// Displacements of the user slots that the register's user_in_batch can be.
std::vector<Displacement> own_slots(const BaseRegister& base, std::int32_t micro_batch) {
  std::vector<Displacement> out;
  for (std::size_t slot = static_cast<std::size_t>(base.user_in_batch); slot < base.table.size();
       slot += static_cast<std::size_t>(micro_batch)) {
    out.push_back(base.table[slot]);
  }
  return out;
}

/// Lists displacements once for all registers that differ in nothing that decides them.
class Lister {
 public:
  explicit Lister(const ClusterProgram& program) : program_(program) {}

  const Listed& all(const BaseRegister& base) {
    std::vector<std::int64_t> key{static_cast<std::int64_t>(base.kind),
                                  base.copies,
                                  base.stride,
                                  base.row_stride,
                                  base.experts,
                                  base.append.hemisphere};
    add_table(key, base.table);
    return listed(std::move(key), [&] { return node::all_displacements(base, program_.plan.context); });
  }

  const Listed& users(const BaseRegister& base) {
    std::vector<std::int64_t> key{-1};
    add_table(key, base.table);
    return listed(std::move(key), [&] { return base.table; });
  }

  const Listed& positions(const BaseRegister& base) {
    const node::AppendMap& map = base.append;
    std::vector<bool> is_here;
    Listed& out = listed({-2,
                          map.is_column ? 1 : 0,
                          map.positions_per_tile,
                          map.planes,
                          map.hemisphere,
                          map.plane,
                          map.columns,
                          map.slice_stride,
                          map.first_column,
                          map.columns_per_cycle,
                          map.round_stride,
                          map.row_stride},
                         [&] { return place_appends(base, program_.plan.context, is_here); });
    if (out.appends_at == nullptr) {
      out.appends_at = std::make_shared<const std::vector<bool>>(std::move(is_here));
    }
    return out;
  }

 private:
  static void add_table(std::vector<std::int64_t>& key, const std::vector<Displacement>& table) {
    for (const Displacement& d : table) {
      key.push_back((std::int64_t{d.slice} << 17U) + std::int64_t{d.address} * 2 + (d.is_enabled ? 1 : 0));
      key.push_back(d.row);
    }
  }
  template <typename Make>
  Listed& listed(std::vector<std::int64_t> key, Make&& make) {
    auto [slot, is_new] = listed_.try_emplace(std::move(key));
    if (is_new) {
      slot->second = list(make(), program_.chip.banks_per_slice);
    }
    return slot->second;
  }

  const ClusterProgram& program_;
  std::map<std::vector<std::int64_t>, Listed> listed_;
};

RegisterFacts register_facts(const BaseRegister& base, const ClusterProgram& program, Lister& lister) {
  RegisterFacts facts;
  const bool selects_user = base.kind == RegisterKind::kUser || base.kind == RegisterKind::kAppend;
  facts.user_class = selects_user && program.plan.micro_batch > 1 ? base.user_in_batch + 1 : 0;
  if (base.kind == RegisterKind::kAppend) {
    const Listed& users = lister.users(base);
    const Listed& positions = lister.positions(base);
    facts.images = std::make_shared<const std::vector<Displacement>>();
    facts.appends = positions.displacements;
    facts.appends_at = positions.appends_at;
    facts.places = positions.displacements->empty()
                       ? positions.places
                       : sums(users.places, positions.places, program.chip.banks_per_slice);
    facts.row_lowest = users.row_lowest + positions.row_lowest;
    facts.row_highest = users.row_highest + positions.row_highest;
    facts.may_be_disabled = true;
    return facts;
  }
  const Listed& all = lister.all(base);
  facts.places = all.places;
  facts.row_lowest = all.row_lowest;
  facts.row_highest = all.row_highest;
  facts.may_be_disabled = all.may_be_disabled || base.kind == RegisterKind::kToken;
  facts.images = base.kind == RegisterKind::kUser
                     ? std::make_shared<const std::vector<Displacement>>(own_slots(base, program.plan.micro_batch))
                     : all.displacements;
  return facts;
}

}  // namespace

TextFacts gather_facts(const ClusterProgram& program, const ChipProgram& text) {
  TextFacts facts{
      .program = program, .chip = program.chip, .text = text, .interval = program.initiation_interval, .registers = {}};
  Numbering rows;
  Numbering images;
  Lister lister(program);
  for (std::size_t i = 0; i < text.registers.size(); ++i) {
    const BaseRegister& base = text.registers[i];
    RegisterFacts made = register_facts(base, program, lister);
    std::vector<std::int64_t> image = image_key(base, i);
    made.row_key = row_key(base);
    made.row_class = made.row_key.empty() ? 0 : rows(made.row_key);
    made.image_class = image.empty() ? 0 : images(std::move(image));
    facts.registers.push_back(std::move(made));
  }
  return facts;
}

}  // namespace lpu::scheduler::proof
