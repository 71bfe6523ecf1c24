#include "placement.hpp"

#include <algorithm>
#include <numeric>
#include <optional>

#include "lpu/interconnect/route.hpp"
#include "lpu/node/error.hpp"

namespace lpu::scheduler {

namespace {

/// Whole TP groups that a node holds; 0 behind the last.
std::int32_t groups_on(const interconnect::Topology& topology, std::int32_t tensor_parallel, std::int32_t node) {
  const std::int32_t left = topology.chips - node * topology.chips_per_node;
  return std::clamp(left, 0, topology.chips_per_node) / tensor_parallel;
}

}  // namespace

std::vector<std::vector<std::int32_t>> place_groups(const interconnect::Topology& topology,
                                                    std::int32_t tensor_parallel,
                                                    std::int32_t stages) {
  std::vector<std::vector<std::int32_t>> out;
  const std::int32_t node_chips = topology.chips_per_node;
  for (std::int32_t node = 0; static_cast<std::int32_t>(out.size()) < stages && node * node_chips < topology.chips;
       ++node) {
    const std::int32_t groups = groups_on(topology, tensor_parallel, node);
    std::vector<std::int32_t> order(static_cast<std::size_t>(groups));
    std::iota(order.begin(), order.end(), 0);
    if (node % 2 == 1) {
      std::reverse(order.begin(), order.end());
    } else if (const std::int32_t next = groups_on(topology, tensor_parallel, node + 1); next > 0 && next < groups) {
      // A last node of fewer chips begins at its highest group: end at the one that stands where it does.
      std::rotate(order.begin() + next - 1, order.begin() + next, order.end());
    }
    for (std::size_t i = 0; i < order.size() && static_cast<std::int32_t>(out.size()) < stages; ++i) {
      std::vector<std::int32_t> chips;
      for (std::int32_t p = 0; p < tensor_parallel; ++p) {
        chips.push_back(node * node_chips + order[i] * tensor_parallel + p);
      }
      out.push_back(std::move(chips));
    }
  }
  LPU_CHECK(static_cast<std::int32_t>(out.size()) == stages, "stages than there are groups of chips");
  return out;
}

HopPlan plan_hop(const interconnect::Topology& topology,
                 const std::vector<std::int32_t>& from,
                 const std::vector<std::int32_t>& to) {
  const auto size = static_cast<std::int32_t>(from.size());
  std::vector<std::optional<Gateway>> cables(from.size());
  for (const interconnect::Cable& cable : interconnect::cables_between(topology, from, to)) {
    const auto a = std::find(from.begin(), from.end(), cable.from_chip) - from.begin();
    const auto b = std::find(to.begin(), to.end(), cable.to_chip) - to.begin();
    if (a == b && !cables[static_cast<std::size_t>(a)]) {
      cables[static_cast<std::size_t>(a)] = Gateway{static_cast<std::int32_t>(a), cable.from_link, cable.to_link};
    }
  }
  for (std::int32_t block = 1; block <= size; block *= 2) {
    HopPlan plan{.block = block, .gateways = {}};
    for (std::int32_t first = 0; first < size; first += block) {
      for (std::int32_t p = first; p < first + block; ++p) {
        if (cables[static_cast<std::size_t>(p)]) {
          plan.gateways.push_back(*cables[static_cast<std::size_t>(p)]);
          break;
        }
      }
    }
    if (static_cast<std::int32_t>(plan.gateways.size()) == size / block) {
      return plan;
    }
  }
  throw node::InputError(
      "tp: found " + std::to_string(size) + "; chips " + std::to_string(from.front()) + " and " +
      std::to_string(to.front()) +
      " lead neighbouring stages that no cable joins at equal positions; expected a larger tp, fewer "
      "stages or more chips");
}

std::vector<std::int32_t> slot_owners(const Shard& shard, std::int32_t position) {
  std::vector<std::int32_t> out;
  for (std::int32_t link = 0; link < shard.west_slots(); ++link) {
    out.push_back(position ^ (link + 1));
  }
  out.push_back(position);
  for (std::int32_t link = shard.west_slots(); link < shard.tensor_parallel - 1; ++link) {
    out.push_back(position ^ (link + 1));
  }
  return out;
}

}  // namespace lpu::scheduler
