#include "lpu/node/sampling.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/numeric_kernels.hpp"

namespace lpu::node {
namespace {

/// Candidates that stay after top_k, in order, and their unnormalised probabilities.
struct Candidates {
  std::vector<std::int64_t> ids;
  std::vector<double> weights;
};

Candidates rank_candidates(std::span<const float> logits, const Sampling& sampling) {
  Candidates out;
  out.ids.resize(logits.size());
  std::iota(out.ids.begin(), out.ids.end(), 0);
  const auto logit = [&](std::int64_t id) { return logits[static_cast<std::size_t>(id)]; };
  std::sort(out.ids.begin(), out.ids.end(), [&](std::int64_t a, std::int64_t b) {
    return logit(a) != logit(b) ? logit(a) > logit(b) : a < b;
  });
  if (sampling.top_k > 0 && sampling.top_k < static_cast<std::int64_t>(out.ids.size())) {
    out.ids.resize(static_cast<std::size_t>(sampling.top_k));
  }
  const double largest = logit(out.ids.front());
  for (const std::int64_t id : out.ids) {
    out.weights.push_back(exponential(static_cast<float>((logit(id) - largest) / sampling.temperature)));
  }
  return out;
}

}  // namespace

double uniform_number(std::uint64_t seed, std::uint64_t request, std::uint64_t position) {
  const std::uint64_t bits = fold(fold(fold(0, seed), request), position);
  return static_cast<double>(bits >> 11U) * 0x1p-53;
}

std::int64_t sample(std::span<const float> logits,
                    const Sampling& sampling,
                    std::uint64_t request,
                    std::uint64_t position) {
  LPU_CHECK(!logits.empty(), "no logits");
  if (sampling.temperature == 0.0) {
    return arg_max(logits);
  }
  const Candidates candidates = rank_candidates(logits, sampling);
  const double all = std::accumulate(candidates.weights.begin(), candidates.weights.end(), 0.0);
  std::size_t kept = 0;
  double sum = 0.0;
  while (kept < candidates.ids.size() && (kept == 0 || sum < sampling.top_p * all)) {
    sum += candidates.weights[kept++];
  }
  const double threshold = uniform_number(sampling.seed, request, position) * sum;
  double below = 0.0;
  for (std::size_t i = 0; i + 1 < kept; ++i) {
    below += candidates.weights[i];
    if (threshold < below) {
      return candidates.ids[i];
    }
  }
  return candidates.ids[kept - 1];
}

}  // namespace lpu::node
