#include "lpu/scheduler/model_tensor.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "lpu/node/elementary.hpp"
#include "lpu/node/error.hpp"

namespace lpu::scheduler {
namespace {

enum class Place : std::uint8_t { kFront, kLayer, kExpert, kBack };

using Size = std::int64_t (*)(const ModelConfig&);
constexpr Size kOne = [](const ModelConfig&) -> std::int64_t { return 1; };
constexpr Size kVocabulary = [](const ModelConfig& m) { return m.vocabulary; };
constexpr Size kHidden = [](const ModelConfig& m) { return m.hidden; };
constexpr Size kFfn = [](const ModelConfig& m) { return m.ffn; };
constexpr Size kExperts = [](const ModelConfig& m) { return m.experts; };
constexpr Size kHeadsWide = [](const ModelConfig& m) { return m.heads * m.head_dim; };
constexpr Size kKvHeadsWide = [](const ModelConfig& m) { return m.kv_heads * m.head_dim; };

struct Row {
  TensorKind kind;
  Place place;
  std::string_view name;     ///< of a dense model, behind "model.layers.<layer>." where the kind has a layer
  std::string_view mixture;  ///< of a mixture, where it has another name; behind "…experts.<expert>." for an expert's
  Size rows;
  Size columns;
};
/// In the order of TensorKind. A row without a name is not in dense models.
constexpr std::array<Row, 13> kRows = {{
    {TensorKind::kEmbedding, Place::kFront, "model.embed_tokens.weight", "", kVocabulary, kHidden},
    {TensorKind::kAttentionNorm, Place::kLayer, "input_layernorm.weight", "", kOne, kHidden},
    {TensorKind::kQuery, Place::kLayer, "self_attn.q_proj.weight", "", kHeadsWide, kHidden},
    {TensorKind::kKey, Place::kLayer, "self_attn.k_proj.weight", "", kKvHeadsWide, kHidden},
    {TensorKind::kValue, Place::kLayer, "self_attn.v_proj.weight", "", kKvHeadsWide, kHidden},
    {TensorKind::kOutput, Place::kLayer, "self_attn.o_proj.weight", "", kHidden, kHeadsWide},
    {TensorKind::kFfnNorm, Place::kLayer, "post_attention_layernorm.weight", "", kOne, kHidden},
    {TensorKind::kRouter, Place::kLayer, "", "block_sparse_moe.gate.weight", kExperts, kHidden},
    {TensorKind::kGate, Place::kExpert, "mlp.gate_proj.weight", "w1.weight", kFfn, kHidden},
    {TensorKind::kUp, Place::kExpert, "mlp.up_proj.weight", "w3.weight", kFfn, kHidden},
    {TensorKind::kDown, Place::kExpert, "mlp.down_proj.weight", "w2.weight", kHidden, kFfn},
    {TensorKind::kFinalNorm, Place::kBack, "model.norm.weight", "", kOne, kHidden},
    {TensorKind::kHead, Place::kBack, "lm_head.weight", "", kVocabulary, kHidden},
}};

const Row& row_of(TensorKind kind) {
  return kRows[static_cast<std::size_t>(kind)];
}

bool is_stored(const ModelConfig& model, const Row& row) {
  return row.kind == TensorKind::kHead ? !model.ties_embeddings : model.experts > 0 || !row.name.empty();
}

std::int64_t experts_of(const ModelConfig& model) {
  return model.experts > 0 ? model.experts : 1;
}

/// Tensors of this row in one layer, or in the model where the row has no layer.
std::int64_t copies(const ModelConfig& model, const Row& row) {
  return !is_stored(model, row) ? 0 : row.place == Place::kExpert ? experts_of(model) : 1;
}

/// Tensors of all rows at the place, or of a layer (expert rows with it).
std::int64_t copies_at(const ModelConfig& model, Place place) {
  std::int64_t count = 0;
  for (const Row& row : kRows) {
    if (row.place == place || (place == Place::kLayer && row.place == Place::kExpert)) {
      count += copies(model, row);
    }
  }
  return count;
}

}  // namespace

TensorShape shape_of(const ModelConfig& model, const ModelTensor& tensor) {
  const Row& row = row_of(tensor.kind);
  return {row.rows(model), row.columns(model), row.rows == kOne};
}

std::string name_of(const ModelConfig& model, const ModelTensor& tensor) {
  const Row& row = row_of(tensor.kind);
  if (row.place == Place::kFront || row.place == Place::kBack) {
    return std::string(row.name);
  }
  std::string name = "model.layers." + std::to_string(tensor.layer) + ".";
  if (model.experts == 0 || row.mixture.empty()) {
    return name.append(row.name);
  }
  if (row.place == Place::kExpert) {
    name += "block_sparse_moe.experts." + std::to_string(tensor.expert) + ".";
  }
  return name.append(row.mixture);
}

std::int64_t tensor_count(const ModelConfig& model) {
  return copies_at(model, Place::kFront) + model.layers * copies_at(model, Place::kLayer) +
         copies_at(model, Place::kBack);
}

ModelTensor tensor_at(const ModelConfig& model, std::int64_t index) {
  LPU_CHECK(index >= 0 && index < tensor_count(model), std::to_string(index));
  const std::int64_t front = copies_at(model, Place::kFront);
  const std::int64_t of_a_layer = copies_at(model, Place::kLayer);
  const std::int64_t in_layers = index - front;
  const bool is_in_layers = in_layers >= 0 && in_layers < model.layers * of_a_layer;
  std::int64_t rest = is_in_layers ? in_layers % of_a_layer : index;
  if (in_layers >= model.layers * of_a_layer) {
    rest = in_layers - model.layers * of_a_layer;
  }
  for (const Row& row : kRows) {
    const bool is_layer_row = row.place == Place::kLayer || row.place == Place::kExpert;
    const bool is_here = is_in_layers ? is_layer_row : row.place == (in_layers < 0 ? Place::kFront : Place::kBack);
    if (!is_here) {
      continue;
    }
    const std::int64_t count = copies(model, row);
    if (rest < count) {
      return {row.kind,
              is_in_layers ? static_cast<std::int32_t>(in_layers / of_a_layer) : 0,
              static_cast<std::int32_t>(rest)};
    }
    rest -= count;
  }
  LPU_CHECK(false, std::to_string(index));
  return {};
}

namespace {

double scaled_frequency(const RopeConfig& rope, double frequency) {
  constexpr double kTurn = 0x1.921fb54442d18p+2;  // 2 pi
  switch (rope.scaling) {
    case RopeScaling::kNone:
      return frequency;
    case RopeScaling::kLinear:
      return frequency / rope.factor;
    case RopeScaling::kLlama3: {
      // Turns of the pair over the original context: few are scaled, many are kept, a ramp lies between.
      const double turns = static_cast<double>(rope.original_max_position) * frequency / kTurn;
      const double ramp =
          (turns - rope.low_frequency_factor) / (rope.high_frequency_factor - rope.low_frequency_factor);
      const double kept = std::clamp(ramp, 0.0, 1.0);
      return (1.0 - kept) * (frequency / rope.factor) + kept * frequency;
    }
  }
  return frequency;
}

}  // namespace

std::vector<double> rotary_frequencies(const ModelConfig& model) {
  std::vector<double> out;
  for (std::int64_t i = 0; i < model.head_dim / 2; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(model.head_dim);
    const double frequency = scaled_frequency(model.rope, node::power(model.rope.theta, exponent));
    out.push_back(node::rounded_to(model.stored_type, static_cast<float>(frequency)));
  }
  return out;
}

}  // namespace lpu::scheduler
