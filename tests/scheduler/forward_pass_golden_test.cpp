#include <algorithm>
#include <cmath>
#include <fstream>
#include <numbers>
#include <string>
#include <vector>

#include <boost/json.hpp>
#include <gtest/gtest.h>

#include "checkpoint_writer.hpp"
#include "forward_pass.hpp"
#include "random_models.hpp"

namespace lpu::scheduler {
namespace {

namespace json = boost::json;
using test::bits_of;

std::vector<std::int64_t> integers(const json::value& value) {
  return json::value_to<std::vector<std::int64_t>>(value);
}

class ShippedModel : public testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] static std::string folder() { return std::string(LPU_MODELS "/") + GetParam(); }
  [[nodiscard]] static json::array cases() {
    const json::value golden = json::parse(test::read_bytes(std::string(LPU_GOLDEN "/") + GetParam() + ".json"));
    return golden.at("cases").as_array();
  }
};
INSTANTIATE_TEST_SUITE_P(Shakespeare,
                         ShippedModel,
                         testing::Values("shakespeare-llama-4m", "shakespeare-mixtral-5m"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(ShippedModel, HoldsFiniteWeights) {
  EXPECT_NO_THROW(Checkpoint::open(folder()).refuse_non_finite());
}

/// Logits after the prompt, and the tokens that follow it greedily.
struct Text {
  std::vector<float> logits;
  std::vector<std::int64_t> ids;
};
Text generate(test::ForwardPass pass, const std::vector<std::int64_t>& prompt, std::size_t count) {
  Text out;
  std::vector<float> logits;
  for (const std::int64_t token : prompt) {
    logits = pass.step(token);
  }
  out.logits = logits;
  while (out.ids.size() < count) {
    out.ids.push_back(node::arg_max(logits));
    logits = pass.step(out.ids.back());
  }
  return out;
}

TEST_P(ShippedModel, SaysWhatTransformersSaysOnEveryTarget) {
  const Checkpoint checkpoint = Checkpoint::open(folder());
  double largest_error = 0.0;
  for (const json::value& reference : cases()) {
    const std::vector<std::int64_t> prompt = integers(reference.at("prompt_ids"));
    const std::vector<std::int64_t> expected = integers(reference.at("new_ids"));
    const auto logits = json::value_to<std::vector<double>>(reference.at("logits_after_prompt"));
    std::vector<float> of_the_first_target;
    for (const node::SimdTarget target : node::supported_simd_targets()) {
      const Text text = generate(test::ForwardPass(checkpoint, target), prompt, expected.size());
      EXPECT_EQ(text.ids, expected) << reference.at("prompt") << " on " << node::name_of(target);
      ASSERT_EQ(text.logits.size(), logits.size());
      for (std::size_t id = 0; id < logits.size(); ++id) {
        largest_error = std::max(largest_error, std::abs(text.logits[id] - logits[id]));
      }
      of_the_first_target = of_the_first_target.empty() ? text.logits : of_the_first_target;
      EXPECT_EQ(bits_of(text.logits), bits_of(of_the_first_target)) << node::name_of(target);
    }
  }
  EXPECT_LE(largest_error, 1e-4);
  RecordProperty("largest_error", std::to_string(largest_error));
  std::printf("%s: largest error of a logit %.2g\n", GetParam(), largest_error);
}

/// The same decoder in float64 with libm and without a cache: nothing shared with the kernels but the weights.
class Reference {
 public:
  explicit Reference(const Checkpoint& checkpoint) : checkpoint_(checkpoint), model_(checkpoint.model()) {
    for (std::int64_t pair = 0; pair < model_.head_dim / 2; ++pair) {
      frequencies_.push_back(as_stored(frequency(pair)));
    }
  }

  /// Logits after the last token.
  [[nodiscard]] std::vector<double> logits(const std::vector<std::int64_t>& tokens) const {
    std::vector<std::vector<double>> x;
    for (const std::int64_t token : tokens) {
      const std::vector<float> row = checkpoint_.rows({}, token, 1);
      x.emplace_back(row.begin(), row.end());
    }
    for (std::int32_t layer = 0; layer < model_.layers; ++layer) {
      attend(x, layer);
      for (std::vector<double>& row : x) {
        const std::vector<double> y = normed(row, {TensorKind::kFfnNorm, layer});
        add(row, model_.experts == 0 ? feed_forward(y, layer, 0) : mixture(y, layer));
      }
    }
    return product({TensorKind::kHead}, normed(x.back(), {TensorKind::kFinalNorm}));
  }

 private:
  using Row = std::vector<double>;
  static void add(Row& x, const Row& y) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] += y[i];
    }
  }
  [[nodiscard]] Row product(const ModelTensor& tensor, const Row& x) const {
    const TensorShape shape = shape_of(model_, tensor);
    const std::vector<float> weights = checkpoint_.rows(tensor, 0, shape.rows);
    Row y(static_cast<std::size_t>(shape.rows));
    for (std::size_t i = 0; i < weights.size(); ++i) {
      y[i / x.size()] += static_cast<double>(weights[i]) * x[i % x.size()];
    }
    return y;
  }
  [[nodiscard]] Row normed(const Row& x, const ModelTensor& tensor) const {
    double squares = 0.0;
    for (const double value : x) {
      squares += value * value;
    }
    const std::vector<float> weight = checkpoint_.rows(tensor, 0, 1);
    Row y(x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      y[i] *= static_cast<double>(weight[i]) / std::sqrt(squares / static_cast<double>(x.size()) + model_.rms_epsilon);
    }
    return y;
  }
  /// The nearest of all numbers of the stored type.
  [[nodiscard]] double as_stored(double value) const {
    if (model_.stored_type == StoredType::kFloat32) {
      return static_cast<float>(value);
    }
    float best = 0.0F;
    for (std::uint16_t word = 0; word < 0x7c00U; ++word) {
      float candidate = 0.0F;
      node::numeric_kernels(node::SimdTarget::kScalar)
          .widen(std::as_bytes(std::span(&word, 1)).data(), model_.stored_type, {&candidate, 1});
      best = std::abs(candidate - value) < std::abs(best - value) ? candidate : best;
    }
    return best;
  }
  /// As transformers writes it: inverse frequencies, wave lengths, three bands.
  [[nodiscard]] double frequency(std::int64_t pair) const {
    const RopeConfig& rope = model_.rope;
    const double plain =
        1.0 / std::pow(rope.theta, 2.0 * static_cast<double>(pair) / static_cast<double>(model_.head_dim));
    if (rope.scaling == RopeScaling::kNone) {
      return plain;
    }
    const double wave = 2.0 * std::numbers::pi / plain;
    const auto original = static_cast<double>(rope.original_max_position);
    if (rope.scaling == RopeScaling::kLinear || wave > original / rope.low_frequency_factor) {
      return plain / rope.factor;
    }
    if (wave < original / rope.high_frequency_factor) {
      return plain;
    }
    const double smooth =
        (original / wave - rope.low_frequency_factor) / (rope.high_frequency_factor - rope.low_frequency_factor);
    return (1.0 - smooth) * plain / rope.factor + smooth * plain;
  }
  void rotate(Row& heads, std::size_t position) const {
    const auto width = static_cast<std::size_t>(model_.head_dim);
    for (std::size_t at = 0; at < heads.size(); at += width) {
      for (std::size_t i = 0; i < width / 2; ++i) {
        const double angle = static_cast<double>(position) * frequencies_[i];
        const double a = heads[at + i];
        const double b = heads[at + i + width / 2];
        heads[at + i] = a * std::cos(angle) - b * std::sin(angle);
        heads[at + i + width / 2] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  void attend(std::vector<Row>& x, std::int32_t layer) const {
    std::vector<Row> queries;
    std::vector<Row> keys;
    std::vector<Row> values;
    for (std::size_t t = 0; t < x.size(); ++t) {
      const Row y = normed(x[t], {TensorKind::kAttentionNorm, layer});
      queries.push_back(product({TensorKind::kQuery, layer}, y));
      keys.push_back(product({TensorKind::kKey, layer}, y));
      values.push_back(product({TensorKind::kValue, layer}, y));
      rotate(queries.back(), t);
      rotate(keys.back(), t);
    }
    for (std::size_t t = 0; t < x.size(); ++t) {
      add(x[t], product({TensorKind::kOutput, layer}, heads_of(queries[t], keys, values, t)));
    }
  }
  [[nodiscard]] Row heads_of(const Row& query,
                             const std::vector<Row>& keys,
                             const std::vector<Row>& values,
                             std::size_t position) const {
    const auto width = static_cast<std::size_t>(model_.head_dim);
    const auto group = static_cast<std::size_t>(model_.query_heads_per_kv_head());
    const auto window = static_cast<std::size_t>(model_.sliding_window);
    const std::size_t first = window == 0 || position < window ? 0 : position - window + 1;
    Row out(query.size());
    for (std::size_t head = 0; head < query.size() / width; ++head) {
      const std::size_t kv = head / group * width;
      double sum = 0.0;
      for (std::size_t t = first; t <= position; ++t) {
        double score = 0.0;
        for (std::size_t d = 0; d < width; ++d) {
          score += query[head * width + d] * keys[t][kv + d];
        }
        const double p = std::exp(score / std::sqrt(static_cast<double>(width)));
        sum += p;
        for (std::size_t d = 0; d < width; ++d) {
          out[head * width + d] += p * values[t][kv + d];
        }
      }
      for (std::size_t d = 0; d < width; ++d) {
        out[head * width + d] /= sum;
      }
    }
    return out;
  }
  [[nodiscard]] Row feed_forward(const Row& x, std::int32_t layer, std::int32_t expert) const {
    Row gate = product({TensorKind::kGate, layer, expert}, x);
    const Row up = product({TensorKind::kUp, layer, expert}, x);
    for (std::size_t i = 0; i < gate.size(); ++i) {
      gate[i] = gate[i] / (1.0 + std::exp(-gate[i])) * up[i];
    }
    return product({TensorKind::kDown, layer, expert}, gate);
  }
  [[nodiscard]] Row mixture(const Row& x, std::int32_t layer) const {
    const Row logits = product({TensorKind::kRouter, layer}, x);
    std::vector<std::size_t> order(logits.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
    }
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
    order.resize(static_cast<std::size_t>(model_.experts_per_token));
    double sum = 0.0;
    for (const std::size_t expert : order) {
      sum += std::exp(logits[expert]);
    }
    Row out(x.size());
    for (const std::size_t expert : order) {
      Row y = feed_forward(x, layer, static_cast<std::int32_t>(expert));
      for (std::size_t i = 0; i < y.size(); ++i) {
        out[i] += std::exp(logits[expert]) / sum * y[i];
      }
    }
    return out;
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& model_;
  std::vector<double> frequencies_;
};

class RandomCheckpoint : public testing::TestWithParam<test::RandomModel> {};
INSTANTIATE_TEST_SUITE_P(Shapes, RandomCheckpoint, testing::ValuesIn(test::random_models()), [](const auto& test) {
  return std::string(test.param.name);
});

TEST_P(RandomCheckpoint, GivesTheLogitsOfFloat64OnEveryTarget) {
  const test::TemporaryFolder folder;
  test::write_checkpoint(
      folder.path(), GetParam().model, test::random_tensors(GetParam().model, GetParam().type, 40), 3);
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  const Reference reference(checkpoint);
  std::vector<test::ForwardPass> passes;
  for (const node::SimdTarget target : node::supported_simd_targets()) {
    passes.emplace_back(checkpoint, target);
  }
  test::Sequence sequence(41);
  std::vector<std::int64_t> tokens;
  for (int i = 0; i < 80; ++i) {  // over one softmax block and the window
    tokens.push_back(static_cast<std::int64_t>(sequence.bits() % 91));
    std::vector<float> first;
    for (test::ForwardPass& pass : passes) {
      const std::vector<float> logits = pass.step(tokens.back());
      first = first.empty() ? logits : first;
      ASSERT_EQ(bits_of(logits), bits_of(first)) << "position " << i;
    }
    if (i % 13 != 0 && i != 79) {
      continue;
    }
    const std::vector<double> exact = reference.logits(tokens);
    for (std::size_t id = 0; id < exact.size(); ++id) {
      ASSERT_NEAR(first[id], exact[id], 1e-4) << "position " << i << ", token " << id;
    }
  }
}

}  // namespace
}  // namespace lpu::scheduler
