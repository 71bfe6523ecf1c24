#include "numeric_layout.hpp"

#include <algorithm>

#include "lpu/node/quantity.hpp"

namespace lpu::scheduler {

namespace {
constexpr std::int32_t kRowLanes = 320;
}

NumericLayout::NumericLayout(const ModelConfig& model,
                             const Shard& shard,
                             const ComputePath& path,
                             const node::ChipBinding& binding)
    : model_(model), shard_(shard), path_(path), slot_owner_(binding.slot_owner), position_(binding.group_position) {}

const Packing& NumericLayout::packing(Space space) const {
  return space == Space::kHidden ? shard_.hidden : space == Space::kFfn ? shard_.ffn : shard_.attention;
}

NumericLayout::Part NumericLayout::part(std::int64_t total, std::int32_t owner) const {
  const std::int64_t each = node::ceil_div(total, shard_.tensor_parallel);
  const std::int64_t first = std::min(total, owner * each);
  return {first, std::min(each, total - first)};
}

std::int64_t NumericLayout::kv_head(std::int32_t owner, std::int32_t local) const {
  const std::int64_t share = shard_.tensor_parallel / model_.kv_heads;  // chips that hold one KV head, beyond one each
  const std::int64_t head =
      shard_.tensor_parallel <= model_.kv_heads ? std::int64_t{owner} * shard_.kv_heads + local : owner / share;
  return head < model_.kv_heads ? head : -1;
}

std::int64_t NumericLayout::query_head(std::int32_t owner, std::int32_t local) const {
  const std::int64_t group = model_.query_heads_per_kv_head();
  if (shard_.tensor_parallel <= model_.kv_heads) {
    const std::int64_t kv = kv_head(owner, static_cast<std::int32_t>(local / group));
    return kv < 0 ? -1 : kv * group + local % group;
  }
  const std::int64_t kv = kv_head(owner, 0);
  const std::int64_t within =
      owner % (shard_.tensor_parallel / model_.kv_heads) * std::int64_t{shard_.query_heads} + local;
  return kv < 0 || within >= group ? -1 : kv * group + within;
}

std::int32_t NumericLayout::element(Space space, std::int32_t slot, std::int32_t index) const {
  const std::int32_t owner = slot_owner_[static_cast<std::size_t>(slot)];
  if (space == Space::kAttention) {
    const auto local = static_cast<std::int32_t>(index / model_.head_dim);
    const std::int64_t head = local < shard_.query_heads ? query_head(owner, local) : -1;
    return head < 0 ? -1 : static_cast<std::int32_t>(head * model_.head_dim + index % model_.head_dim);
  }
  const Part own = part(space == Space::kHidden ? model_.hidden : model_.ffn, owner);
  return index < own.count ? static_cast<std::int32_t>(own.first + index) : -1;
}

node::LanesPtr NumericLayout::shared(node::Lanes lanes) const {
  const auto known = made_.find(lanes);
  if (known != made_.end()) {
    return known->second;
  }
  return made_.emplace(lanes, std::make_shared<const node::Lanes>(lanes)).first->second;
}

node::LanesPtr NumericLayout::gathered(Space space, std::int32_t slot, std::int32_t group) const {
  const Packing& packed = packing(space);
  node::Lanes lanes;
  for (std::int32_t i = group * kRowLanes; i < std::min((group + 1) * kRowLanes, packed.elements); ++i) {
    lanes.push_back(element(space, slot, i));
  }
  return shared(std::move(lanes));
}

node::Lanes NumericLayout::half_lanes(Space space, std::int32_t half) const {
  node::Lanes lanes;
  for (std::int32_t slot = 0; slot < slots(half); ++slot) {
    for (std::int32_t i = 0; i < packing(space).elements; ++i) {
      lanes.push_back(element(space, first_slot(half) + slot, i));
    }
  }
  return lanes;
}

node::LanesPtr NumericLayout::joined(Space space, std::int32_t half, std::int32_t tile) const {
  const node::Lanes all = half_lanes(space, half);
  const auto from = std::min(all.size(), static_cast<std::size_t>(tile) * kRowLanes);
  const auto to = std::min(all.size(), from + kRowLanes);
  return shared({all.begin() + static_cast<std::ptrdiff_t>(from), all.begin() + static_cast<std::ptrdiff_t>(to)});
}

node::LanesPtr NumericLayout::added(Space space, std::int32_t half, std::int32_t tile) const {
  const Packing& packed = packing(space);
  const std::int32_t whole = slots(half) * packed.full;
  node::Lanes lanes;
  if (tile < whole) {
    return gathered(space, first_slot(half) + tile / packed.full, tile % packed.full);
  }
  const std::int32_t each = shard_.rows(packed).slots_per_tile;
  const std::int32_t first = (tile - whole) * each;
  for (std::int32_t slot = first; slot < std::min(first + each, slots(half)); ++slot) {
    for (std::int32_t i = 0; i < packed.remainder; ++i) {
      lanes.push_back(element(space, first_slot(half) + slot, packed.full * kRowLanes + i));
    }
  }
  return shared(std::move(lanes));
}

node::LanesPtr NumericLayout::row(Space space, std::int32_t half, std::int32_t tile) const {
  const std::array<std::int32_t, 4> key{static_cast<std::int32_t>(space), half, tile, 0};
  if (const auto known = known_.find(key); known != known_.end()) {
    return known->second;
  }
  const Rowing rows = shard_.rows(packing(space));
  node::LanesPtr out;
  if (!rows.is_joined) {
    out = added(space, half, tile);
  } else if (rows.shares_last && half == 1 && tile + 1 == rows.tiles[1]) {
    node::Lanes both = *joined(space, 0, rows.tiles[0]);
    const node::LanesPtr own = joined(space, 1, tile);
    both.insert(both.end(), own->begin(), own->end());
    out = shared(std::move(both));
  } else {
    out = joined(space, half, tile);
  }
  known_.emplace(key, out);
  return out;
}

node::LanesPtr NumericLayout::tile(Space space, std::int32_t tile) const {
  const std::int32_t west = shard_.rows(packing(space)).tiles[0];
  return tile < west ? row(space, 0, tile) : row(space, 1, tile - west);
}

node::Lanes NumericLayout::head(std::int32_t local) const {
  const std::int64_t head = local < shard_.query_heads ? query_head(position_, local) : -1;
  node::Lanes lanes;
  for (std::int64_t d = 0; d < model_.head_dim; ++d) {
    lanes.push_back(head < 0 ? -1 : static_cast<std::int32_t>(head * model_.head_dim + d));
  }
  return lanes;
}

}  // namespace lpu::scheduler
