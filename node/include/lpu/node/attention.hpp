#pragma once
#include <cstdint>
#include <span>

#include "lpu/node/numeric_kernels.hpp"

namespace lpu::node {

/// One head's view of its cache: rows are the positions [first_position, first_position + keys.rows).
struct HeadCache {
  StoredMatrix keys;    ///< (positions, head dimension), fp32, rotated
  StoredMatrix values;  ///< (positions, head dimension), fp32
  std::int64_t first_position = 0;
};

/// softmax(scale · q Kᵀ) V of one query head: scores by `linear`, the global maximum, p = exp(score − maximum),
/// softmax_sum() and `weighted_sum` in blocks of 64 positions, times the sum's reciprocal. No running rescale.
///
/// @param query   (head dimension,), rotated
/// @param scores  scratch, (positions,)
/// @param out     (head dimension,)
void attend(const NumericKernels& kernels,
            std::span<const float> query,
            const HeadCache& cache,
            float scale,
            std::span<float> scores,
            std::span<float> out);

/// First position that a query at `position` sees: all of them, or the last `window` with its own (0: no window).
[[nodiscard]] std::int64_t first_visible(std::int64_t position, std::int64_t window);

}  // namespace lpu::node
