#include "lpu/node/iteration.hpp"

#include <algorithm>
#include <numeric>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"

namespace lpu::node {
namespace {

/// Where position p lies, seen from the (hemisphere, plane) and piece of one append register.
Displacement append_displacement(const BaseRegister& base, std::int32_t position) {
  const AppendMap& map = base.append;
  const std::int32_t tile = position / map.positions_per_tile;
  const std::int32_t column = position % map.positions_per_tile;
  const std::int32_t round = tile / (2 * map.planes);
  Displacement out;
  out.is_enabled = (tile / map.planes) % 2 == map.hemisphere && tile % map.planes == map.plane;
  out.address = static_cast<std::int16_t>(round * map.round_stride);
  out.row = (map.is_column ? position : tile) * map.row_stride;
  if (map.is_column) {
    const std::int32_t lane = column % map.columns_per_cycle;
    out.is_enabled = out.is_enabled && lane >= map.first_column && lane < map.first_column + map.columns;
    out.slice = static_cast<std::int16_t>((lane - map.first_column) * map.slice_stride);
    out.address = static_cast<std::int16_t>(out.address + column / map.columns_per_cycle);
  }
  return out;
}

Displacement sum(const Displacement& a, const Displacement& b) {
  return {.slice = static_cast<std::int16_t>(a.slice + b.slice),
          .address = static_cast<std::int16_t>(a.address + b.address),
          .row = a.row + b.row,
          .is_enabled = a.is_enabled && b.is_enabled};
}

std::size_t user_slot(const BaseRegister& base, const IterationPlan& plan, std::int64_t k) {
  const auto slot = static_cast<std::size_t>(plan.group(k) * plan.micro_batch + base.user_in_batch);
  LPU_CHECK(slot < base.table.size(), "user slot " + std::to_string(slot));
  return slot;
}

}  // namespace

Displacement displace_by_token(const BaseRegister& base, std::int32_t token) {
  const std::int32_t index = token / 2;
  const auto pieces = static_cast<std::int32_t>(base.table.size());
  Displacement out = base.table[static_cast<std::size_t>(index % pieces)];
  out.address = static_cast<std::int16_t>(out.address + index / pieces * base.stride);
  out.row += token * base.row_stride;
  out.is_enabled = token % 2 == base.append.hemisphere;
  return out;
}

std::int64_t token_period(std::int64_t token_latency,
                          std::int64_t initiation_interval,
                          std::int64_t busy_span,
                          std::int32_t groups) {
  const std::int64_t period = std::max(token_latency, groups * initiation_interval);
  if (groups == 1 || period - (groups - 1) * initiation_interval >= busy_span) {
    return period;
  }
  return ceil_div(period, initiation_interval) * initiation_interval;
}

std::vector<std::int32_t> expert_slots(const IterationPlan& plan, std::int64_t k, std::int32_t layer) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(plan.experts));
  std::iota(order.begin(), order.end(), 0);
  if (plan.expert_slots >= plan.experts) {
    return order;
  }
  std::vector<bool> is_chosen(order.size(), false);
  for (std::int32_t user = 0; user < plan.micro_batch; ++user) {
    // A partial shuffle: the first experts_per_token entries are this token's choice.
    std::vector<std::int32_t> draw = order;
    std::uint64_t state = fold(fold(fold(plan.seed, static_cast<std::uint64_t>(layer)),
                                    static_cast<std::uint64_t>(plan.group(k) * plan.micro_batch + user)),
                               static_cast<std::uint64_t>(plan.token(k)));
    for (std::size_t i = 0; i < static_cast<std::size_t>(plan.experts_per_token); ++i) {
      state = mix(state);
      std::swap(draw[i], draw[i + state % (draw.size() - i)]);
      is_chosen[static_cast<std::size_t>(draw[i])] = true;
    }
  }
  auto missing = plan.expert_slots - static_cast<std::int32_t>(std::count(is_chosen.begin(), is_chosen.end(), true));
  std::vector<std::int32_t> slots;
  for (const std::int32_t expert : order) {
    if (is_chosen[static_cast<std::size_t>(expert)] || missing-- > 0) {
      slots.push_back(expert);
    }
  }
  return slots;
}

std::int32_t token_id(const IterationPlan& plan, std::int64_t k, std::int32_t user) {
  const std::uint64_t hash =
      fold(fold(plan.seed, static_cast<std::uint64_t>(user)), static_cast<std::uint64_t>(plan.token(k)));
  return static_cast<std::int32_t>(hash % static_cast<std::uint64_t>(plan.vocabulary));
}

Displacement displace(const BaseRegister& base,
                      const IterationPlan& plan,
                      std::int64_t k,
                      std::span<const std::int32_t> experts) {
  switch (base.kind) {
    case RegisterKind::kNone:
      return {};
    case RegisterKind::kBuffer:
      return {.address = static_cast<std::int16_t>((k % base.copies) * base.stride)};
    case RegisterKind::kUser:
      return base.table[user_slot(base, plan, k)];
    case RegisterKind::kAppend:
      return sum(base.table[user_slot(base, plan, k)], append_displacement(base, plan.position(k)));
    case RegisterKind::kExpert: {
      LPU_CHECK(static_cast<std::size_t>(base.expert_slot) < experts.size(), "expert slot");
      const std::int32_t expert = experts[static_cast<std::size_t>(base.expert_slot)];
      return {.address = static_cast<std::int16_t>(expert * base.stride), .row = expert * base.row_stride};
    }
    case RegisterKind::kToken:
      return displace_by_token(base, token_id(plan, k, plan.group(k) * plan.micro_batch + base.user_in_batch));
    case RegisterKind::kPosition:
      return {.address = static_cast<std::int16_t>(plan.position(k) * base.stride),
              .row = plan.position(k) * base.row_stride};
  }
  return {};
}

std::vector<Displacement> all_displacements(const BaseRegister& base, std::int32_t context) {
  std::vector<Displacement> out;
  switch (base.kind) {
    case RegisterKind::kNone:
      out.push_back({});
      break;
    case RegisterKind::kBuffer:
      for (std::int32_t copy = 0; copy < base.copies; ++copy) {
        out.push_back({.address = static_cast<std::int16_t>(copy * base.stride)});
      }
      break;
    case RegisterKind::kUser:
      out = base.table;
      break;
    case RegisterKind::kAppend:
      for (std::int32_t position = 0; position < context; ++position) {
        const Displacement at = append_displacement(base, position);
        for (const Displacement& user : base.table) {
          if (at.is_enabled && user.is_enabled) {
            out.push_back(sum(user, at));
          }
        }
      }
      break;
    case RegisterKind::kExpert:
      for (std::int32_t expert = 0; expert < base.experts; ++expert) {
        out.push_back({.address = static_cast<std::int16_t>(expert * base.stride), .row = expert * base.row_stride});
      }
      break;
    case RegisterKind::kToken:
      for (std::int32_t token = base.append.hemisphere; token < base.experts; token += 2) {
        out.push_back(displace_by_token(base, token));
      }
      break;
    case RegisterKind::kPosition:
      for (std::int32_t position = 0; position < context; ++position) {
        out.push_back(
            {.address = static_cast<std::int16_t>(position * base.stride), .row = position * base.row_stride});
      }
      break;
  }
  return out;
}

}  // namespace lpu::node
