#include "lpu/node/routing.hpp"

#include <algorithm>
#include <numeric>

#include "lpu/node/error.hpp"

namespace lpu::node {

std::vector<ExpertChoice> choose_experts(const NumericKernels& kernels,
                                         std::span<const float> logits,
                                         std::int64_t count) {
  LPU_CHECK(count > 0 && count <= static_cast<std::int64_t>(logits.size()), std::to_string(count) + " experts");
  std::vector<float> p(logits.size());
  kernels.exponentials(logits, kernels.maximum(logits), p);
  kernels.divide(p, softmax_sum(p, 0), p);

  std::vector<std::int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto probability = [&](std::int64_t expert) { return p[static_cast<std::size_t>(expert)]; };
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](std::int64_t a, std::int64_t b) {
    return probability(a) != probability(b) ? probability(a) > probability(b) : a < b;
  });
  std::sort(order.begin(), order.begin() + count);

  float total = 0.0F;
  for (std::int64_t i = 0; i < count; ++i) {
    total += probability(order[static_cast<std::size_t>(i)]);
  }
  std::vector<ExpertChoice> choices;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t expert = order[static_cast<std::size_t>(i)];
    choices.push_back({expert, probability(expert) / total});
  }
  return choices;
}

}  // namespace lpu::node
