#include "lpu/interconnect/topology.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "lpu/node/error.hpp"

namespace lpu::interconnect {
namespace {

constexpr std::int32_t kLocalLinks = kNodeChips - 1;
constexpr std::int32_t kGlobalLinks = 4;
constexpr std::int32_t kNodePorts = kNodeChips * kGlobalLinks;
constexpr std::int32_t kNodePairs = kNodePorts / 2;
constexpr std::int32_t kRackPairs = kNodePairs / 2;  // half of them stay in the rack, half leave it
constexpr std::int32_t kRackNodes = kRackActiveNodes + 1;
constexpr std::int32_t kCablesInRack = 2;  // to each other node of the rack

/// A global port of a node.
struct Port {
  std::int32_t position = 0;
  std::int32_t link = 0;
};

/// Two ports of one chip in one hemisphere. Nodes (or racks) in a circle, each with a cable from its `ahead` port to
/// the `back` port of the node d further on: one pair of ports serves one distance d.
struct PortPair {
  Port ahead;
  Port back;
};

/// Pair 0 to 15 of a node. Neighbouring numbers lie on different chips, far apart (so that both halves of a node, two
/// groups of four chips, get their share of few cables), and in alternating hemispheres. 0 to 7: one on each chip.
PortPair port_pair(std::int32_t number) {
  constexpr std::array<std::int32_t, kNodeChips> kSpread{0, 4, 2, 6, 1, 5, 3, 7};
  const std::int32_t position = kSpread.at(static_cast<std::size_t>(number % kNodeChips));
  const std::int32_t half = (number + number / kNodeChips) % 2;
  const std::int32_t link = kLocalLinks + 2 * half;
  return {.ahead = {position, link}, .back = {position, link + 1}};
}

class Wiring {
 public:
  Wiring(std::int32_t chips, std::int32_t chips_with_spares, std::int32_t racks, std::int32_t links) {
    topology_.chips = chips;
    topology_.chips_with_spares = chips_with_spares;
    topology_.racks = racks;
    topology_.peers.assign(static_cast<std::size_t>(chips_with_spares),
                           std::vector<node::LinkPeer>(static_cast<std::size_t>(links)));
  }

  /// Nothing happens where a node is short of that chip.
  void join(std::int32_t node_a, Port a, std::int32_t node_b, Port b) {
    const std::int32_t chip_a = node_a * kNodeChips + a.position;
    const std::int32_t chip_b = node_b * kNodeChips + b.position;
    if (chip_a >= topology_.chips_with_spares || chip_b >= topology_.chips_with_spares) {
      return;
    }
    node::LinkPeer& end_a = peer(chip_a, a.link);
    node::LinkPeer& end_b = peer(chip_b, b.link);
    LPU_CHECK(end_a.chip < 0 && end_b.chip < 0 && chip_a != chip_b, "a port is wired twice");
    end_a = {chip_b, b.link};
    end_b = {chip_a, a.link};
  }

  void join_locally() {
    for (std::int32_t chip = 0; chip < topology_.chips_with_spares; ++chip) {
      for (std::int32_t link = 0; link < kLocalLinks; ++link) {
        const std::int32_t position = chip % kNodeChips;
        const std::int32_t other = chip - position + (position ^ (link + 1));
        if (other < topology_.chips_with_spares) {
          peer(chip, link) = {other, link};
        }
      }
    }
  }

  [[nodiscard]] bool is_free(std::int32_t node, Port port) {
    const std::int32_t chip = node * kNodeChips + port.position;
    return chip < topology_.chips_with_spares && peer(chip, port.link).chip < 0;
  }

  [[nodiscard]] bool are_joined(std::int32_t node_a, std::int32_t node_b) {
    const std::int32_t first = node_a * kNodeChips;
    const std::int32_t last = std::min(first + kNodeChips, topology_.chips_with_spares);
    for (std::int32_t chip = first; chip < last; ++chip) {
      const std::vector<node::LinkPeer>& ends = topology_.peers[static_cast<std::size_t>(chip)];
      if (std::any_of(ends.begin() + kLocalLinks, ends.end(), [node_b](const node::LinkPeer& end) {
            return end.chip >= 0 && end.chip / kNodeChips == node_b;
          })) {
        return true;
      }
    }
    return false;
  }

  [[nodiscard]] Topology take() { return std::move(topology_); }

 private:
  node::LinkPeer& peer(std::int32_t chip, std::int32_t link) {
    return topology_.peers[static_cast<std::size_t>(chip)][static_cast<std::size_t>(link)];
  }

  Topology topology_;
};

Port nth_port(std::int32_t number) {
  return {.position = number / kGlobalLinks, .link = kLocalLinks + number % kGlobalLinks};
}

/// A last node with fewer chips lacks the ports that some nodes' cables would have taken: it meets those on what is
/// free.
void join_short_node(Wiring& wiring, std::int32_t nodes) {
  const std::int32_t last = nodes - 1;
  const auto first_free = [&wiring](std::int32_t node, auto&& also) {
    std::optional<Port> found;
    for (std::int32_t number = 0; number < kNodePorts && !found; ++number) {
      const Port port = nth_port(number);
      if (wiring.is_free(node, port) && also(port)) {
        found = port;
      }
    }
    return found;
  };
  for (std::int32_t other = last - 1; other >= 0; --other) {
    if (wiring.are_joined(last, other)) {
      continue;
    }
    const std::optional<Port> both = first_free(last, [&](Port port) { return wiring.is_free(other, port); });
    const std::optional<Port> mine = both ? both : first_free(last, [](Port) { return true; });
    const std::optional<Port> theirs = both ? both : first_free(other, [](Port) { return true; });
    if (mine && theirs) {
      wiring.join(last, *mine, other, *theirs);
    }
  }
}

/// Nodes in a circle. For each distance d < nodes / 2 one pair of ports a cable; at d = nodes / 2 one port a cable.
void join_one_level(Wiring& wiring, std::int32_t nodes) {
  const std::int32_t cables = kNodePorts / (nodes - 1);
  std::int32_t pair = 0;
  for (std::int32_t distance = 1; 2 * distance < nodes; ++distance) {
    for (std::int32_t copy = 0; copy < cables; ++copy, ++pair) {
      for (std::int32_t node = 0; node < nodes; ++node) {
        wiring.join(node, port_pair(pair).ahead, (node + distance) % nodes, port_pair(pair).back);
      }
    }
  }
  if (nodes % 2 == 0) {
    const std::int32_t pairs_left = kNodePairs - pair;
    for (std::int32_t copy = 0; copy < cables; ++copy) {
      const PortPair ports = port_pair(pair + copy % pairs_left);
      const Port port = copy < pairs_left ? ports.ahead : ports.back;
      for (std::int32_t node = 0; node < nodes / 2; ++node) {
        wiring.join(node, port, node + nodes / 2, port);
      }
    }
  }
}

/// Racks of nodes 0 to 7, active, and 8, the spare.
class RackWiring {
 public:
  RackWiring(Wiring& wiring, std::int32_t racks) : wiring_(wiring), racks_(racks) {
    // Cables to the rack at each distance in the circle of racks: all ports out are used (but one where it comes out
    // odd).
    const std::int32_t pairs = kRackNodes * kRackPairs;
    const std::int32_t cables = 2 * pairs / (racks - 1);
    const std::int32_t distances = (racks - 1) / 2;
    opposite_cables_ = racks % 2 == 0 ? cables : 0;
    const std::int32_t pairs_over = pairs - cables * distances - (opposite_cables_ + 1) / 2;
    for (std::int32_t distance = 1; distance <= distances; ++distance) {
      const std::int32_t count = cables + (distance <= pairs_over ? 1 : 0);
      distances_.insert(distances_.end(), static_cast<std::size_t>(count), distance);
    }
    crossings_ =
        std::min(kCablesInRack, static_cast<std::int32_t>(std::count(distances_.begin(), distances_.end(), 1)));
  }

  void join() {
    for (std::int32_t rack = 0; rack < racks_; ++rack) {
      join_within(rack);
    }
    join_between();
  }

 private:
  [[nodiscard]] std::int32_t node(std::int32_t rack, std::int32_t index) const {
    const std::int32_t in_circle = rack % racks_;
    return index < kRackActiveNodes ? kRackActiveNodes * in_circle + index : kRackActiveNodes * racks_ + in_circle;
  }

  /// The active nodes in a circle, pairs 0 to 5 for distances 1 to 3, one port of pairs 6 and 7 each for distance 4 and
  /// for the spare.
  void join_within(std::int32_t rack) {
    const std::int32_t half = kRackActiveNodes / 2;
    for (std::int32_t copy = 0; copy < kCablesInRack; ++copy) {
      for (std::int32_t index = 0; index < kRackActiveNodes; ++index) {
        for (std::int32_t distance = 1; distance < half; ++distance) {
          const PortPair ports = port_pair(kCablesInRack * (distance - 1) + copy);
          if (distance > 1 || index < kRackActiveNodes - 1 || copy >= crossings_) {
            wiring_.join(node(rack, index), ports.ahead, node(rack, (index + distance) % kRackActiveNodes), ports.back);
          }
        }
        const PortPair last = port_pair(kRackPairs - kCablesInRack + copy);
        if (index < half) {
          wiring_.join(node(rack, index), last.ahead, node(rack, index + half), last.ahead);
        }
        const PortPair spare = port_pair(index);
        wiring_.join(node(rack, index), last.back, node(rack, kRackActiveNodes), copy == 0 ? spare.ahead : spare.back);
      }
    }
  }

  /// Cables between racks join nodes of equal index, with one exception: where placement order leaves a rack, at node
  /// 7, it takes the ports that lead to the next node everywhere else, and so enters the next rack at node 0.
  ///
  ///     hop ports:    … 6 ─► 7 ═══════════► 0 ─► 1 …      instead of 7 ─► 0 of one rack
  ///     ports out:    7.ahead ─► 0.back of the same rack, 0.ahead ─► 7.back of another
  void join_between() {
    std::vector<std::int32_t> distances(distances_.begin() + crossings_, distances_.end());
    for (std::int32_t copy = 0; copy < crossings_; ++copy) {
      const PortPair hop = port_pair(copy);
      const PortPair out = port_pair(kRackPairs + copy);
      const std::int32_t last = kRackActiveNodes - 1;
      for (std::int32_t rack = 0; rack < racks_; ++rack) {
        wiring_.join(node(rack, last), hop.ahead, node(rack + 1, 0), hop.back);
        wiring_.join(node(rack, last), out.ahead, node(rack, 0), out.back);
        wiring_.join(node(rack, 0), out.ahead, node(rack + distances.back(), last), out.back);
      }
      distances.pop_back();
    }
    std::int32_t used = 0;
    std::int32_t opposite = 0;
    for (std::int32_t pair = kRackPairs; pair < kNodePairs; ++pair) {
      for (std::int32_t index = 0; index < kRackNodes; ++index) {
        const bool is_crossing = pair - kRackPairs < crossings_ && (index == 0 || index == kRackActiveNodes - 1);
        if (is_crossing) {
          continue;
        }
        if (used < static_cast<std::int32_t>(distances.size())) {
          join_circle(index, port_pair(pair), distances[static_cast<std::size_t>(used++)]);
          continue;
        }
        for (const Port port : {port_pair(pair).ahead, port_pair(pair).back}) {
          if (opposite++ < opposite_cables_) {
            join_opposite(index, port);
          }
        }
      }
    }
  }

  void join_circle(std::int32_t index, const PortPair& ports, std::int32_t distance) {
    for (std::int32_t rack = 0; rack < racks_; ++rack) {
      wiring_.join(node(rack, index), ports.ahead, node(rack + distance, index), ports.back);
    }
  }

  void join_opposite(std::int32_t index, Port port) {
    for (std::int32_t rack = 0; rack < racks_ / 2; ++rack) {
      wiring_.join(node(rack, index), port, node(rack + racks_ / 2, index), port);
    }
  }

  Wiring& wiring_;
  std::int32_t racks_;
  std::vector<std::int32_t> distances_;  // one entry a circle of cables, ascending
  std::int32_t opposite_cables_ = 0;
  std::int32_t crossings_ = 0;
};

}  // namespace

std::int32_t Topology::nodes() const {
  return (chips + chips_per_node - 1) / chips_per_node;
}

std::int32_t Topology::nodes_with_spares() const {
  return (chips_with_spares + chips_per_node - 1) / chips_per_node;
}

std::int32_t Topology::rack_of(std::int32_t chip) const {
  const std::int32_t node = node_of(chip);
  if (racks == 1) {
    return 0;
  }
  return node < racks * kRackActiveNodes ? node / kRackActiveNodes : node - racks * kRackActiveNodes;
}

Topology make_topology(const node::ChipSpec& chip, std::int32_t chips) {
  if (chip.local_links != kLocalLinks || chip.global_links != kGlobalLinks) {
    throw node::InputError("chip " + chip.name + ": found " + std::to_string(chip.local_links) + " local and " +
                           std::to_string(chip.global_links) +
                           " global links; expected 7 and 4, as nodes of 8 chips need");
  }
  if (chips < 1 || chips > kChipsMost) {
    throw node::InputError("chips: found " + std::to_string(chips) + "; expected 1 to " + std::to_string(kChipsMost) +
                           " (145 racks of 64 active chips is what the wires reach)");
  }
  if (chips <= kOneLevelChips) {
    const std::int32_t nodes = (chips + kNodeChips - 1) / kNodeChips;
    Wiring wiring(chips, chips, 1, chip.links());
    wiring.join_locally();
    if (nodes > 1) {
      join_one_level(wiring, nodes);
      if (chips % kNodeChips != 0) {
        join_short_node(wiring, nodes);
      }
    }
    return wiring.take();
  }
  const std::int32_t rack_chips = kRackActiveNodes * kNodeChips;
  const std::int32_t racks = (chips + rack_chips - 1) / rack_chips;
  Wiring wiring(chips, racks * kRackNodes * kNodeChips, racks, chip.links());
  wiring.join_locally();
  RackWiring(wiring, racks).join();
  return wiring.take();
}

}  // namespace lpu::interconnect
