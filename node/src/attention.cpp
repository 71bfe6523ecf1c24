#include "lpu/node/attention.hpp"

#include <algorithm>

#include "lpu/node/error.hpp"

namespace lpu::node {

void attend(const NumericKernels& kernels,
            std::span<const float> query,
            const HeadCache& cache,
            float scale,
            std::span<float> scores,
            std::span<float> out) {
  LPU_CHECK(!scores.empty() && static_cast<std::int64_t>(scores.size()) == cache.keys.rows, "one score a position");
  kernels.linear(cache.keys, query, scores);
  kernels.multiply(scores, scale, scores);
  kernels.exponentials(scores, kernels.maximum(scores), scores);
  kernels.weighted_sum(scores, cache.first_position, cache.values, out);
  kernels.multiply(out, 1.0F / softmax_sum(scores, cache.first_position), out);
}

std::int64_t first_visible(std::int64_t position, std::int64_t window) {
  return window == 0 ? 0 : std::max<std::int64_t>(0, position - window + 1);
}

}  // namespace lpu::node
