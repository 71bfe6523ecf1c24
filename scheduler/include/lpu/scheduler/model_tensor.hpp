#pragma once
#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "lpu/scheduler/model_config.hpp"

namespace lpu::scheduler {

enum class TensorKind : std::uint8_t {
  kEmbedding,      ///< (vocabulary, hidden)
  kAttentionNorm,  ///< (hidden,)
  kQuery,          ///< (heads * head_dim, hidden)
  kKey,            ///< (kv_heads * head_dim, hidden)
  kValue,          ///< (kv_heads * head_dim, hidden)
  kOutput,         ///< (hidden, heads * head_dim)
  kFfnNorm,        ///< (hidden,)
  kRouter,         ///< (experts, hidden); mixtures only
  kGate,           ///< (ffn, hidden), of one expert in a mixture
  kUp,             ///< (ffn, hidden), likewise
  kDown,           ///< (hidden, ffn), likewise
  kFinalNorm,      ///< (hidden,)
  kHead,           ///< (vocabulary, hidden); the embedding where the model ties them
};

/// Which weight tensor of a model.
struct ModelTensor {
  TensorKind kind = TensorKind::kEmbedding;
  std::int32_t layer = 0;   ///< [0, layers); 0 where the kind has no layer
  std::int32_t expert = 0;  ///< [0, experts); 0 where the kind has no expert
  auto operator<=>(const ModelTensor&) const = default;
};

struct TensorShape {
  std::int64_t rows = 1;
  std::int64_t columns = 0;
  bool is_vector = false;  ///< stored with one dimension
};
[[nodiscard]] TensorShape shape_of(const ModelConfig& model, const ModelTensor& tensor);

/// "model.layers.3.self_attn.q_proj.weight": as Hugging Face names it for the model's family.
[[nodiscard]] std::string name_of(const ModelConfig& model, const ModelTensor& tensor);

/// How many tensors a checkpoint of the model stores; a tied head is none.
[[nodiscard]] std::int64_t tensor_count(const ModelConfig& model);
/// The index-th of them, layer by layer.
/// @pre  0 <= index < tensor_count(model)
[[nodiscard]] ModelTensor tensor_at(const ModelConfig& model, std::int64_t index);

/// Frequencies of the rotary pairs, radians a position: theta^(−2i / head_dim), scaled as the model's `rope` says, then
/// rounded to fp32 and to the type that weights are stored in.
///
/// transformers holds them as a buffer of the model, and a bf16 model's buffer is bf16: against its float64 logits of
/// the shipped models the largest error is 3e-6 with this rounding, 5e-3 without.
/// @source Hugging Face transformers, modeling_rope_utils.py: default, linear, llama3
[[nodiscard]] std::vector<double> rotary_frequencies(const ModelConfig& model);

}  // namespace lpu::scheduler
