#pragma once
#include <ostream>
#include <vector>

#include "lpu/scheduler/model_config.hpp"

namespace lpu::test {

[[nodiscard]] inline scheduler::ModelConfig small_model() {
  scheduler::ModelConfig model;
  model.hidden = 60;
  model.layers = 3;
  model.heads = 5;
  model.kv_heads = 1;
  model.head_dim = 12;
  model.ffn = 77;
  model.vocabulary = 91;
  model.max_position = 256;
  return model;
}

/// A shape that published models do not have, for random weights.
struct RandomModel {
  const char* name;
  scheduler::ModelConfig model;
  node::StoredType type;
};
inline void PrintTo(const RandomModel& model, std::ostream* out) {
  *out << model.name;
}
[[nodiscard]] inline std::vector<RandomModel> random_models() {
  std::vector<RandomModel> out(5, {"FiveQueriesAKeyTied", small_model(), node::StoredType::kBfloat16});
  out[0].model.ties_embeddings = true;
  out[1] = {"Llama3RopeOddFfn", small_model(), node::StoredType::kFloat32};
  out[1].model.rope = {.theta = 5e5,
                       .scaling = scheduler::RopeScaling::kLlama3,
                       .factor = 8.0,
                       .low_frequency_factor = 1.0,
                       .high_frequency_factor = 4.0,
                       .original_max_position = 64};
  out[2] = {"SixExpertsTopThree", small_model(), node::StoredType::kBfloat16};
  out[2].model.family = scheduler::ModelFamily::kMixtral;
  out[2].model.experts = 6;
  out[2].model.experts_per_token = 3;
  out[2].model.rope.theta = 1e6;
  out[3] = {"SlidingWindow", small_model(), node::StoredType::kFloat32};
  out[3].model.family = scheduler::ModelFamily::kMistral;
  out[3].model.sliding_window = 7;
  out[4] = {"LinearRopeManyHeads", small_model(), node::StoredType::kFloat16};
  out[4].model.heads = 6;
  out[4].model.kv_heads = 3;
  out[4].model.head_dim = 34;  // heads * head_dim is not hidden
  out[4].model.rope.scaling = scheduler::RopeScaling::kLinear;
  out[4].model.rope.factor = 2.0;
  return out;
}

}  // namespace lpu::test
