#pragma once
#include <cstdint>
#include <vector>

#include "verify_facts.hpp"
#include "verify_lane_map.hpp"
#include "verify_lanes.hpp"

namespace lpu::scheduler::proof {

/// One vector that a text puts on a link or takes off it, in an iteration.
struct LinkVector {
  std::int64_t cycle = 0;  ///< push or take
  std::int64_t link = 0;   ///< send: start of its service; receive: arrival that it states
  std::int32_t instruction = -1;
  std::uint16_t transfer = 0;
  std::uint16_t tensor = 0;
  std::uint16_t base_register = 0;  ///< 0: the row does not move
  std::int64_t row = 0;
};

/// A text's traffic on one link, each list in the link's order.
struct LinkTraffic {
  std::vector<LinkVector> sends;
  std::vector<LinkVector> receives;
};

/// What one end of each link knows by itself: queue depths at both ends, order, lengths of transfers. Services (in
/// which a vector has the link) are claimed in `table`: where none overlap, also across iterations, each vector leaves
/// as if its iteration were alone.
[[nodiscard]] std::vector<LinkTraffic> prove_link_ends(const TextFacts& facts,
                                                       const LaneMap& map,
                                                       LaneTable& table,
                                                       Findings& findings);

struct TextProof {
  TextFacts facts;
  std::vector<LinkTraffic> links;
};

/// Every link's two ends: wired to each other; each vector sent is received, in order, as the same transfer and the
/// same value, in the cycle that it arrives plus the wait that the receive states.
/// @param texts  per text; null where no chip runs it or its own proof failed
void prove_transfers(const ClusterProgram& program, const std::vector<const TextProof*>& texts, Findings& findings);

/// The chain of waits that leads from a receive back to its own chip, which sends only after it; empty: there is none.
[[nodiscard]] std::string find_circular_wait(const ClusterProgram& program,
                                             const std::vector<const TextProof*>& texts,
                                             std::int32_t chip,
                                             std::int32_t receive);

}  // namespace lpu::scheduler::proof
