#include "numeric_layout.hpp"

#include <algorithm>
#include <utility>

#include "lpu/node/quantity.hpp"

namespace lpu::scheduler {

namespace {
constexpr std::int32_t kRowLanes = 320;
}

node::LanesPtr LanesPool::shared(node::Lanes lanes) {
  const auto found = made_.find(lanes);
  if (found != made_.end()) {
    return *found;
  }
  lanes.shrink_to_fit();
  return *made_.insert(std::make_shared<const node::Lanes>(std::move(lanes))).first;
}

NumericLayout::NumericLayout(const ModelConfig& model,
                             const Shard& shard,
                             const node::ChipBinding& binding,
                             LanesPool& pool)
    : model_(model), shard_(shard), slot_owner_(binding.slot_owner), position_(binding.group_position), pool_(pool) {}

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

node::LanesPtr NumericLayout::known(
    Kind kind, Space space, std::int32_t first, std::int32_t second, const auto& make) const {
  const std::array<std::int32_t, 3> key{
      static_cast<std::int32_t>(kind) << 8U | static_cast<std::int32_t>(space), first, second};
  node::LanesPtr& out = known_[key];
  if (!out) {
    out = pool_.shared(make());
  }
  return out;
}

node::LanesPtr NumericLayout::gathered(Space space, std::int32_t slot, std::int32_t group) const {
  return known(Kind::kGathered, space, slot, group, [&] { return gathered_lanes(space, slot, group); });
}

node::LanesPtr NumericLayout::joined(Space space, std::int32_t half, std::int32_t tile) const {
  return known(Kind::kJoined, space, half, tile, [&] { return joined_lanes(space, half, tile); });
}

node::LanesPtr NumericLayout::row(Space space, std::int32_t half, std::int32_t tile) const {
  return known(Kind::kRow, space, half, tile, [&] { return row_lanes(space, half, tile); });
}

node::LanesPtr NumericLayout::head(std::int32_t local) const {
  return known(Kind::kHead, Space::kAttention, local, 0, [&] {
    const std::int64_t head = local < shard_.query_heads ? query_head(position_, local) : -1;
    node::Lanes lanes;
    for (std::int64_t d = 0; d < model_.head_dim; ++d) {
      lanes.push_back(head < 0 ? -1 : static_cast<std::int32_t>(head * model_.head_dim + d));
    }
    return lanes;
  });
}

node::LanesPtr NumericLayout::turned(std::int32_t place) const {
  return known(Kind::kTurned, Space::kAttention, place, 0, [&] {
    const std::int32_t west = (shard_.query_heads + 2 * shard_.kv_heads + 1) / 2;
    const std::int32_t head = place < west ? 2 * place : 2 * (place - west) + 1;
    node::Lanes lanes;
    for (std::int32_t d = 0; d < shard_.head_dim; ++d) {
      lanes.push_back(head * shard_.head_dim + d);
    }
    return lanes;
  });
}

node::Lanes NumericLayout::gathered_lanes(Space space, std::int32_t slot, std::int32_t group) const {
  const Packing& packed = packing(space);
  node::Lanes lanes;
  for (std::int32_t i = group * kRowLanes; i < std::min((group + 1) * kRowLanes, packed.elements); ++i) {
    lanes.push_back(element(space, slot, i));
  }
  return lanes;
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

node::Lanes NumericLayout::joined_lanes(Space space, std::int32_t half, std::int32_t tile) const {
  const node::Lanes all = half_lanes(space, half);
  const auto from = std::min(all.size(), static_cast<std::size_t>(tile) * kRowLanes);
  const auto to = std::min(all.size(), from + kRowLanes);
  return {all.begin() + static_cast<std::ptrdiff_t>(from), all.begin() + static_cast<std::ptrdiff_t>(to)};
}

node::Lanes NumericLayout::added(Space space, std::int32_t half, std::int32_t tile) const {
  const Packing& packed = packing(space);
  const std::int32_t whole = slots(half) * packed.full;
  if (tile < whole) {
    return gathered_lanes(space, first_slot(half) + tile / packed.full, tile % packed.full);
  }
  node::Lanes lanes;
  const std::int32_t each = shard_.rows(packed).slots_per_tile;
  const std::int32_t first = (tile - whole) * each;
  for (std::int32_t slot = first; slot < std::min(first + each, slots(half)); ++slot) {
    for (std::int32_t i = 0; i < packed.remainder; ++i) {
      lanes.push_back(element(space, first_slot(half) + slot, packed.full * kRowLanes + i));
    }
  }
  return lanes;
}

node::Lanes NumericLayout::row_lanes(Space space, std::int32_t half, std::int32_t tile) const {
  const Rowing rows = shard_.rows(packing(space));
  if (!rows.is_joined) {
    return added(space, half, tile);
  }
  if (!rows.shares_last || half == 0 || tile + 1 != rows.tiles[1]) {
    return joined_lanes(space, half, tile);
  }
  node::Lanes both = joined_lanes(space, 0, rows.tiles[0]);
  const node::Lanes own = joined_lanes(space, 1, tile);
  both.insert(both.end(), own.begin(), own.end());
  return both;
}

node::LanesPtr NumericLayout::tile(Space space, std::int32_t tile) const {
  const std::int32_t west = shard_.rows(packing(space)).tiles[0];
  return tile < west ? row(space, 0, tile) : row(space, 1, tile - west);
}

}  // namespace lpu::scheduler
