#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lpu/node/program.hpp"

namespace lpu::node {

/// When iterations start and who they serve; equal on all chips.
///
/// Iteration k computes token k / groups of users [group * micro_batch, …), group = k mod groups. It starts at stage 0
/// at start(k) = group * initiation_interval + token * token_period.
struct IterationPlan {
  std::int64_t initiation_interval = 0;
  std::int64_t token_period = 0;  ///< of one user; >= the token's latency
  std::int32_t groups = 1;        ///< micro-batches in flight
  std::int32_t micro_batch = 1;
  std::int32_t context = 1;  ///< positions wrap at the bucket
  std::int32_t vocabulary = 1;
  std::int32_t experts = 0;  ///< 0: a dense model
  std::int32_t experts_per_token = 0;
  std::int32_t expert_slots =
      0;  ///< installs that a layer reserves: min(experts, experts_per_token * micro_batch), or experts
  std::uint64_t seed = 0;  ///< of the routing and of the tokens, in the timing plane

  [[nodiscard]] std::int64_t token(std::int64_t k) const { return k / groups; }
  [[nodiscard]] std::int32_t group(std::int64_t k) const { return static_cast<std::int32_t>(k % groups); }
  [[nodiscard]] std::int32_t position(std::int64_t k) const { return static_cast<std::int32_t>(token(k) % context); }
  [[nodiscard]] std::int64_t start(std::int64_t k) const {
    return group(k) * initiation_interval + token(k) * token_period;
  }
};

/// Period of one user's tokens when `groups` micro-batches are in flight: max(latency, groups * II); where iterations
/// of different tokens would then overlap on a chip at a distance that is no multiple of II, rounded up to one.
///
/// @param busy_span  longest time that one iteration occupies any one chip, cycles
[[nodiscard]] std::int64_t token_period(std::int64_t token_latency,
                                        std::int64_t initiation_interval,
                                        std::int64_t busy_span,
                                        std::int32_t groups);

/// Experts that iteration k installs in a layer, ascending, one per slot; slots beyond the distinct chosen ones run
/// idle (the lowest expert ids not chosen fill them, so that a slot always holds some expert). Timing plane: the choice
/// is a hash of (seed, user, position, layer); the numeric plane computes it.
[[nodiscard]] std::vector<std::int32_t> expert_slots(const IterationPlan& plan, std::int64_t k, std::int32_t layer);

/// Token that user slot `user` holds before iteration k (timing plane: a hash of seed, user, position).
[[nodiscard]] std::int32_t token_id(const IterationPlan& plan, std::int64_t k, std::int32_t user);

/// What a base register adds in iteration k. kExpert needs `experts` of the register's layer (expert_slots).
[[nodiscard]] Displacement displace(const BaseRegister& base,
                                    const IterationPlan& plan,
                                    std::int64_t k,
                                    std::span<const std::int32_t> experts);

/// What a kToken register adds for a token.
[[nodiscard]] Displacement displace_by_token(const BaseRegister& base, std::int32_t token);

/// Every displacement that a register can have, over iterations, users, positions and experts (reservations cover all).
/// kBuffer: one per copy. Disabled ones are not listed.
[[nodiscard]] std::vector<Displacement> all_displacements(const BaseRegister& base, std::int32_t context);

}  // namespace lpu::node
