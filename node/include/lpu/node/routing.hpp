#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lpu/node/numeric_kernels.hpp"

namespace lpu::node {

struct ExpertChoice {
  std::int64_t expert = 0;
  float weight = 0.0F;  ///< the chosen experts' weights sum to 1 within rounding
};

/// Softmax over all experts, the `count` largest (the lower id of equals), renormalised: each weight is p / Σ of the
/// chosen p, added in ascending id.
/// @param logits  (experts,)
/// @return        in ascending id: the order in which results are combined
[[nodiscard]] std::vector<ExpertChoice> choose_experts(const NumericKernels& kernels,
                                                       std::span<const float> logits,
                                                       std::int64_t count);

}  // namespace lpu::node
