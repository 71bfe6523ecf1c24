#pragma once
#include <cstdint>
#include <span>

namespace lpu::node {

/// How the next token is drawn.
struct Sampling {
  double temperature = 0.0;  ///< 0: the largest logit; else >= 1e-3
  std::int64_t top_k = 0;    ///< 0: all; else that many candidates stay
  double top_p = 1.0;        ///< (0, 1]: the fewest candidates whose probabilities reach it stay
  std::uint64_t seed = 0;
};

/// Token drawn from the logits; depends on its arguments alone.
///
/// Candidates stand in (logit descending, id ascending) order. p = exp((logit − largest) / temperature); top_k cuts
/// first, then top_p; sums are fp64, in that order. The draw is a counter-based number of (seed, request, position).
///
/// @param logits    (vocabulary,), finite
/// @param request   which user's text
/// @param position  of the token that is drawn
[[nodiscard]] std::int64_t sample(std::span<const float> logits,
                                  const Sampling& sampling,
                                  std::uint64_t request,
                                  std::uint64_t position);

/// In [0, 1), 53 random bits; the same for the same arguments.
[[nodiscard]] double uniform_number(std::uint64_t seed, std::uint64_t request, std::uint64_t position);

}  // namespace lpu::node
