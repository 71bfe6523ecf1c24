#pragma once
#include <cstdint>
#include <vector>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/program.hpp"

namespace lpu::interconnect {

inline constexpr std::int32_t kNodeChips = 8;        ///< all-to-all over the local links
inline constexpr std::int32_t kRackActiveNodes = 8;  ///< a rack has one node more, the spare
inline constexpr std::int32_t kOneLevelChips = 264;  ///< up to here every node pair is joined; above: racks
inline constexpr std::int32_t kRacksMost = 145;      ///< 144 ports out of a rack, one for each other rack
inline constexpr std::int32_t kChipsMost = kRacksMost * kRackActiveNodes * kNodeChips;  ///< active chips: 9,280

/// How the chips of a system are joined, as a graph: chips and, for each of their links, what is plugged in at the far
/// end.
///
/// Chip id = 8 * node + position. Nodes are numbered in placement order: consecutive nodes are always joined directly,
/// and so a pipeline of stages follows the ids. Ids from `chips` on are idle spares, wired like the others (systems
/// with racks only): the rest of the last rack, then the spare node of each rack.
struct Topology {
  std::int32_t chips = 0;              ///< active, >= 1
  std::int32_t chips_with_spares = 0;  ///< >= chips
  std::int32_t chips_per_node = kNodeChips;
  std::int32_t racks = 1;                          ///< 1: one level, every node pair joined
  std::vector<std::vector<node::LinkPeer>> peers;  ///< (chips_with_spares, links of a chip)

  [[nodiscard]] std::int32_t nodes() const;  ///< that hold an active chip
  [[nodiscard]] std::int32_t nodes_with_spares() const;
  [[nodiscard]] std::int32_t node_of(std::int32_t chip) const { return chip / chips_per_node; }
  [[nodiscard]] std::int32_t position_of(std::int32_t chip) const { return chip % chips_per_node; }
  [[nodiscard]] std::int32_t rack_of(std::int32_t chip) const;
  [[nodiscard]] bool is_spare(std::int32_t chip) const { return chip >= chips; }
};

/// Wire a system of `chips` active chips.
///
/// Local link l of position j joins position j XOR (l + 1), the same link at both ends. Global cables join equal
/// positions. Up to 264 chips: ⌊32 / (nodes - 1)⌋ cables a node pair. Above: ⌈chips / 64⌉ whole racks of 8 + 1 nodes, 2
/// cables to each node of the rack, and each rack's 144 ports out spread evenly over the other racks (numbers of cables
/// differ by at most 1).
///
/// Cables to the next node in placement order leave each node from the same (position, link) and enter the next at the
/// same (position, link), across racks too. So all stages of a pipeline can share one program text. Equal link numbers
/// at both ends, the alternative, would make two texts of each (in a round-robin tournament one for each hop).
///
/// @param chips  1 to 9,280; a last node with fewer than 8 chips has fewer ports
/// @throws node::InputError  more chips than the wires reach, or a chip without 7 local and 4 global links
/// @complexity O(chips); 10,440 chips take 1.2 MB
[[nodiscard]] Topology make_topology(const node::ChipSpec& chip, std::int32_t chips);

}  // namespace lpu::interconnect
