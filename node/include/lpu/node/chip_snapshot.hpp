#pragma once
#include <cstdint>
#include <vector>

#include "lpu/node/emulator.hpp"

namespace lpu::node {

/// Where an Emulator stands when all that starts before some cycle of the common clock was executed, and nothing else:
/// with program, plan and the messages that lie in its mailboxes this is all that its future depends on. What follows
/// from the number of an iteration (value bases, displacements) is not in it.
struct ChipSnapshot {
  /// An iteration that has begun and not ended.
  struct Flight {
    std::int64_t iteration = 0;
    std::uint64_t next_event = 0;  ///< of the BurstTable
    std::vector<std::uint32_t> writes;
  };
  /// A burst whose vectors are under way on one link.
  struct Transit {
    std::int64_t iteration = 0;  ///< one of the flights
    std::int32_t link = 0;
    bool is_send = false;
    std::uint64_t burst = 0;    ///< of BurstTable::wire_bursts
    std::uint64_t vectors = 0;  ///< sent or taken
    std::uint64_t fold = 0;
    std::uint64_t last_fold = 0;
  };
  std::uint64_t fold = 0;
  std::int64_t next_iteration = 0;
  std::vector<Flight> flights;          ///< by iteration, ascending
  std::vector<Transit> transits;        ///< by link, in the order in which they opened
  std::vector<std::int64_t> free_at;    ///< per link: first cycle in which a vector may start
  std::vector<std::int32_t> taken;      ///< per link: vectors of the oldest message
  std::vector<std::int64_t> group_end;  ///< per group: end of its latest iteration
  std::int64_t previous_end = 0;
  ChipMeasures measures;
};

}  // namespace lpu::node
