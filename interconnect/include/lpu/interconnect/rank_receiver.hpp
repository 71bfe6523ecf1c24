#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lpu/node/port.hpp"

namespace lpu::interconnect {

/// A link end of a chip to which something was delivered.
struct Delivery {
  std::int32_t chip = -1;
  std::int32_t link = -1;
};

/// Which rank runs which chip.
struct ChipPlacement {
  std::int32_t rank = 0;              ///< this one
  std::vector<std::int32_t> rank_of;  ///< per chip; -1: nobody, the chip is idle; empty: all chips are here
  [[nodiscard]] bool is_here(std::int32_t chip) const {
    return rank_of.empty() || rank_of[static_cast<std::size_t>(chip)] == rank;
  }
};

/// Whoever takes what other ranks sent; each plane of an execution takes its own kinds of records.
///
/// An implementation returns whether what came is meant for it: a false ends the run.
class RankReceiver {
 public:
  RankReceiver() = default;
  RankReceiver(const RankReceiver&) = delete;
  RankReceiver& operator=(const RankReceiver&) = delete;
  RankReceiver(RankReceiver&&) = delete;
  RankReceiver& operator=(RankReceiver&&) = delete;
  virtual ~RankReceiver() = default;

  /// Timing plane: a message's header and value ids.
  [[nodiscard]] virtual bool accept(const Delivery& /*to*/,
                                    const node::MessageHeader& /*header*/,
                                    std::span<const std::uint64_t> /*values*/) {
    return false;
  }
  /// Numeric plane: a vector's bytes.
  [[nodiscard]] virtual bool accept_vector(const Delivery& /*to*/, std::span<const std::byte> /*vector*/) {
    return false;
  }
  /// Something for the rank itself.
  [[nodiscard]] virtual bool accept_note(std::span<const std::byte> /*note*/) { return false; }
};

}  // namespace lpu::interconnect
