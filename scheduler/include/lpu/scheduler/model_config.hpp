#pragma once
#include <cstdint>
#include <string>

#include "lpu/node/stored_type.hpp"

namespace lpu::scheduler {

enum class ModelFamily : std::uint8_t { kLlama, kMistral, kMixtral };
enum class RopeScaling : std::uint8_t { kNone, kLinear, kLlama3 };
using node::StoredType;

/// Rotary embedding, as Hugging Face `rope_theta` / `rope_scaling` / `rope_parameters` state it.
struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_frequency_factor = 1.0;       ///< llama3 only
  double high_frequency_factor = 4.0;      ///< llama3 only
  std::int64_t original_max_position = 0;  ///< llama3 only
};

/// A decoder-only transformer: everything that decides its graph, its bytes and its arithmetic.
struct ModelConfig {
  std::string name;
  ModelFamily family = ModelFamily::kLlama;
  std::int64_t hidden = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;  ///< query heads
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t ffn = 0;  ///< intermediate size, of one expert in a mixture
  std::int64_t vocabulary = 0;
  std::int64_t experts = 0;  ///< 0: dense
  std::int64_t experts_per_token = 0;
  std::int64_t max_position = 0;
  std::int64_t sliding_window = 0;  ///< 0: none
  double rms_epsilon = 1e-5;
  bool ties_embeddings = false;
  RopeConfig rope;
  StoredType stored_type = StoredType::kBfloat16;

  [[nodiscard]] std::int64_t query_heads_per_kv_head() const { return heads / kv_heads; }
};

}  // namespace lpu::scheduler
