#include "lpu/interconnect/route.hpp"

#include <algorithm>

#include "lpu/node/error.hpp"

namespace lpu::interconnect {
namespace {

void check_chip(const Topology& topology, std::int32_t chip) {
  LPU_CHECK(chip >= 0 && chip < topology.chips_with_spares, "chip outside the system");
}

}  // namespace

Route find_route(const Topology& topology, std::int32_t from, std::int32_t to) {
  return find_route(topology, from, to, [](std::int32_t) { return true; });
}

Route find_route(const Topology& topology,
                 std::int32_t from,
                 std::int32_t to,
                 const std::function<bool(std::int32_t)>& may_forward) {
  check_chip(topology, from);
  check_chip(topology, to);
  if (from == to) {
    return {};
  }
  // Breadth first, links ascending: chips are found in the lexicographic order of their routes.
  std::vector<Hop> found_by(static_cast<std::size_t>(topology.chips_with_spares));
  std::vector<std::int32_t> queue{from};
  found_by[static_cast<std::size_t>(from)] = {from, -1};
  for (std::size_t next = 0; next < queue.size(); ++next) {
    const std::int32_t chip = queue[next];
    if (chip != from && !may_forward(chip)) {
      continue;
    }
    const std::vector<node::LinkPeer>& ends = topology.peers[static_cast<std::size_t>(chip)];
    for (std::size_t link = 0; link < ends.size(); ++link) {
      const std::int32_t other = ends[link].chip;
      if (other < 0 || found_by[static_cast<std::size_t>(other)].chip >= 0) {
        continue;
      }
      found_by[static_cast<std::size_t>(other)] = {chip, static_cast<std::int32_t>(link)};
      if (other == to) {
        Route route;
        for (std::int32_t at = to; at != from; at = found_by[static_cast<std::size_t>(at)].chip) {
          route.push_back(found_by[static_cast<std::size_t>(at)]);
        }
        std::reverse(route.begin(), route.end());
        return route;
      }
      queue.push_back(other);
    }
  }
  return {};
}

std::vector<std::int32_t> hops_from(const Topology& topology, std::int32_t from) {
  check_chip(topology, from);
  std::vector<std::int32_t> hops(static_cast<std::size_t>(topology.chips_with_spares), -1);
  std::vector<std::int32_t> queue{from};
  hops[static_cast<std::size_t>(from)] = 0;
  for (std::size_t next = 0; next < queue.size(); ++next) {
    const std::int32_t chip = queue[next];
    for (const node::LinkPeer& end : topology.peers[static_cast<std::size_t>(chip)]) {
      if (end.chip >= 0 && hops[static_cast<std::size_t>(end.chip)] < 0) {
        hops[static_cast<std::size_t>(end.chip)] = hops[static_cast<std::size_t>(chip)] + 1;
        queue.push_back(end.chip);
      }
    }
  }
  return hops;
}

std::vector<Cable> cables_between(const Topology& topology,
                                  std::span<const std::int32_t> from,
                                  std::span<const std::int32_t> to) {
  std::vector<std::int32_t> targets(to.begin(), to.end());
  std::sort(targets.begin(), targets.end());
  std::vector<Cable> cables;
  for (const std::int32_t chip : from) {
    check_chip(topology, chip);
    const std::vector<node::LinkPeer>& ends = topology.peers[static_cast<std::size_t>(chip)];
    for (std::size_t link = 0; link < ends.size(); ++link) {
      if (ends[link].chip >= 0 && std::binary_search(targets.begin(), targets.end(), ends[link].chip)) {
        cables.push_back({chip, static_cast<std::int32_t>(link), ends[link].chip, ends[link].link});
      }
    }
  }
  return cables;
}

}  // namespace lpu::interconnect
