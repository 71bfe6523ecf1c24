#pragma once
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "lpu/node/attention.hpp"
#include "lpu/node/elementary.hpp"
#include "lpu/node/numeric_kernels.hpp"
#include "lpu/node/routing.hpp"
#include "lpu/scheduler/checkpoint.hpp"

namespace lpu::test {

/// A decoder, token by token, as plain composition of the kernels: what the chips of a cluster must compute together,
/// bit for bit. Only tests have one.
class ForwardPass {
 public:
  ForwardPass(scheduler::Checkpoint checkpoint, node::SimdTarget target)
      : checkpoint_(std::move(checkpoint)),
        kernels_(node::numeric_kernels(target)),
        model_(checkpoint_.model()),
        frequencies_(scheduler::rotary_frequencies(model_)),
        keys_(static_cast<std::size_t>(model_.layers)),
        values_(keys_.size()) {}

  /// Logits after the token, which stands at the next position.
  [[nodiscard]] std::vector<float> step(std::int64_t token) {
    std::vector<float> x = checkpoint_.rows({}, token, 1);
    for (std::int32_t layer = 0; layer < model_.layers; ++layer) {
      add(x, attention(normed(x, {scheduler::TensorKind::kAttentionNorm, layer}), layer));
      const std::vector<float> y = normed(x, {scheduler::TensorKind::kFfnNorm, layer});
      add(x, model_.experts == 0 ? feed_forward(y, layer, 0) : mixture(y, layer));
    }
    ++position_;
    return product({scheduler::TensorKind::kHead}, normed(x, {scheduler::TensorKind::kFinalNorm}));
  }

 private:
  [[nodiscard]] std::vector<float> product(const scheduler::ModelTensor& tensor, std::span<const float> x) const {
    const node::StoredMatrix weights = checkpoint_.matrix(tensor);
    std::vector<float> y(static_cast<std::size_t>(weights.rows));
    kernels_.linear(weights, x, y);
    return y;
  }
  [[nodiscard]] std::vector<float> normed(const std::vector<float>& x, const scheduler::ModelTensor& tensor) const {
    std::vector<float> y(x.size());
    const float factor = node::rms_factor(kernels_, x, static_cast<float>(model_.rms_epsilon));
    kernels_.scale(x, factor, checkpoint_.rows(tensor, 0, 1), y);
    return y;
  }
  void add(std::vector<float>& x, const std::vector<float>& y) const { kernels_.add(x, y, x); }

  void rotate(std::vector<float>& heads) const {
    const auto width = static_cast<std::size_t>(model_.head_dim);
    std::vector<float> cosine(width / 2);
    std::vector<float> sine(width / 2);
    node::rotary_angles(position_, frequencies_, cosine, sine);
    for (std::size_t at = 0; at < heads.size(); at += width) {
      kernels_.rotate(std::span(heads).subspan(at, width), cosine, sine);
    }
  }
  [[nodiscard]] node::StoredMatrix cache_of(const std::vector<float>& cache, std::int64_t kv_head) const {
    const std::int64_t first = node::first_visible(position_, model_.sliding_window);
    const std::int64_t row = model_.kv_heads * model_.head_dim;
    const float* begin = cache.data() + first * row + kv_head * model_.head_dim;
    return {reinterpret_cast<const std::byte*>(begin),
            node::StoredType::kFloat32,
            position_ + 1 - first,
            model_.head_dim,
            4 * row};
  }
  [[nodiscard]] std::vector<float> attention(const std::vector<float>& x, std::int32_t layer) {
    std::vector<float> query = product({scheduler::TensorKind::kQuery, layer}, x);
    std::vector<float> key = product({scheduler::TensorKind::kKey, layer}, x);
    const std::vector<float> value = product({scheduler::TensorKind::kValue, layer}, x);
    rotate(query);
    rotate(key);
    std::vector<float>& keys = keys_[static_cast<std::size_t>(layer)];
    std::vector<float>& values = values_[static_cast<std::size_t>(layer)];
    keys.insert(keys.end(), key.begin(), key.end());
    values.insert(values.end(), value.begin(), value.end());
    const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(model_.head_dim)));
    std::vector<float> out(query.size());
    for (std::int64_t head = 0; head < model_.heads; ++head) {
      const std::int64_t kv_head = head / model_.query_heads_per_kv_head();
      const node::HeadCache cache = {
          cache_of(keys, kv_head), cache_of(values, kv_head), node::first_visible(position_, model_.sliding_window)};
      std::vector<float> scores(static_cast<std::size_t>(cache.keys.rows));
      const auto at = static_cast<std::size_t>(head * model_.head_dim);
      const auto width = static_cast<std::size_t>(model_.head_dim);
      node::attend(
          kernels_, std::span(query).subspan(at, width), cache, scale, scores, std::span(out).subspan(at, width));
    }
    return product({scheduler::TensorKind::kOutput, layer}, out);
  }
  [[nodiscard]] std::vector<float> feed_forward(const std::vector<float>& x,
                                                std::int32_t layer,
                                                std::int32_t expert) const {
    std::vector<float> gate = product({scheduler::TensorKind::kGate, layer, expert}, x);
    kernels_.gated(gate, product({scheduler::TensorKind::kUp, layer, expert}, x), gate);
    return product({scheduler::TensorKind::kDown, layer, expert}, gate);
  }
  [[nodiscard]] std::vector<float> mixture(const std::vector<float>& x, std::int32_t layer) const {
    std::vector<float> sum(x.size());
    const std::vector<float> logits = product({scheduler::TensorKind::kRouter, layer}, x);
    for (const node::ExpertChoice& choice : node::choose_experts(kernels_, logits, model_.experts_per_token)) {
      kernels_.accumulate(choice.weight, feed_forward(x, layer, static_cast<std::int32_t>(choice.expert)), sum);
    }
    return sum;
  }

  scheduler::Checkpoint checkpoint_;
  const node::NumericKernels& kernels_;
  const scheduler::ModelConfig& model_;
  std::vector<double> frequencies_;
  std::vector<std::vector<float>> keys_;  ///< a layer: (positions, kv_heads * head_dim)
  std::vector<std::vector<float>> values_;
  std::int64_t position_ = 0;
};

}  // namespace lpu::test
