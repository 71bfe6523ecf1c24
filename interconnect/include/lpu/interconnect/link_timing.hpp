#pragma once
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "lpu/node/chip_spec.hpp"

namespace lpu::interconnect {

/// Share of the bytes on the wire that is no payload: 8 of 328.
[[nodiscard]] double encoding_overhead(const node::ChipSpec& chip);

/// Bytes of vectors that a link carries a second when it is never idle; whole cycles a vector make it less than the
/// rate.
[[nodiscard]] node::BytesPerSecond payload_rate(const node::ChipSpec& chip);

/// First bit in to last bit out of one link: flight + serialisation * n. 0 for no vectors.
[[nodiscard]] node::Cycles link_time(const node::ChipSpec& chip, std::int64_t vectors);

/// SRAM to SRAM over `hops` links, forwarded vector by vector: h (flight + endpoint) + serialisation * n. 0 for no
/// vectors.
[[nodiscard]] node::Cycles hop_time(const node::ChipSpec& chip, std::int32_t hops, std::int64_t vectors);

/// As hop_time, where a forwarding chip holds the whole vector before it sends it on (a Send reads what a Receive has
/// written): serialisation counts once more for each further hop.
[[nodiscard]] node::Cycles stored_hop_time(const node::ChipSpec& chip, std::int32_t hops, std::int64_t vectors);

/// What the queue at the sending end of a link makes of pushes.
struct Departures {
  std::vector<node::Cycles> starts;  ///< cycle in which the link starts each vector
  std::int32_t most_waiting = 0;     ///< vectors pushed and not yet started, at worst; legal up to link_queue_vectors
};

inline constexpr node::Cycles kAlwaysFree{std::numeric_limits<std::int64_t>::min()};

/// start_i = max(push_i, start_{i-1} + serialisation). A vector waits in the queue from its push until its start.
///
/// @param pushes     cycles, ascending, no two equal (checked)
/// @param free_from  cycle from which earlier traffic leaves the link free
[[nodiscard]] Departures depart(const node::ChipSpec& chip,
                                std::span<const node::Cycles> pushes,
                                node::Cycles free_from = kAlwaysFree);

/// Vectors from one chip to another, over their cable and over detours of two hops through further chips.
struct SplitCost {
  node::Cycles time{};
  std::int64_t direct_vectors = 0;
  std::int32_t detours = 0;         ///< used; 0: the minimal route alone
  std::int64_t detour_vectors = 0;  ///< most on one detour
};

/// The fastest split of n vectors, known at compile time from n alone; the fewest detours among equals.
///
/// @param detours  disjoint ones that exist: 6 between two chips of a whole node
[[nodiscard]] SplitCost split_over_detours(const node::ChipSpec& chip, std::int64_t vectors, std::int32_t detours);

/// Fewest vectors for which detours pay.
/// @pre detours >= 1 (checked)
[[nodiscard]] std::int64_t detour_crossover(const node::ChipSpec& chip, std::int32_t detours);

}  // namespace lpu::interconnect
