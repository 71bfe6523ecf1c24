#include "lpu/scheduler/model_reader.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "lpu/node/error.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/suggestion.hpp"
#include "lpu/scheduler/model_preset.hpp"

namespace lpu::scheduler {
namespace {

using node::FieldReader;
using node::InputError;

constexpr std::int64_t kMany = 1LL << 24U;
constexpr std::int64_t kLongestContext = 1LL << 30U;

std::string quoted(const std::string& text) {
  return '"' + text + '"';
}

ModelFamily read_family(const FieldReader& config) {
  const std::string type = config.text("model_type");
  if (type == "llama") {
    return ModelFamily::kLlama;
  }
  if (type == "mistral") {
    return ModelFamily::kMistral;
  }
  if (type == "mixtral") {
    return ModelFamily::kMixtral;
  }
  static const std::vector<std::string> kKnown = {"llama", "mistral", "mixtral"};
  config.fail("model_type", "a model type that this program schedules" + node::known_values(type, kKnown));
}

void refuse_quantised(const FieldReader& config) {
  if (!config.has("quantization_config")) {
    return;
  }
  const std::string expected = "; expected a checkpoint without quantization_config (--compute chooses the bits)";
  if (config.has_object("quantization_config")) {
    const FieldReader quantisation = config.object("quantization_config");
    if (quantisation.has("quant_method")) {
      throw InputError(quantisation.where("quant_method") + ": found " + quantisation.shown("quant_method") + expected);
    }
  }
  throw InputError(config.where("quantization_config") + ": found a method without a name" + expected);
}

/// Keys that change what a layer computes, with the values that leave it as it is.
struct ArithmeticKey {
  std::string_view key;
  std::array<std::string_view, 2> neutral;  ///< as JSON; an empty one is unused; absent and null are always neutral
};
constexpr ArithmeticKey kArithmeticKeys[] = {
    {"hidden_act", {"\"silu\"", "\"swish\""}},
    {"hidden_activation", {"\"silu\"", "\"swish\""}},
    {"attention_bias", {"false", ""}},
    {"attention_out_bias", {"false", ""}},
    {"qkv_bias", {"false", ""}},
    {"use_bias", {"false", ""}},
    {"mlp_bias", {"false", ""}},
    {"lm_head_bias", {"false", ""}},
    {"partial_rotary_factor", {"1", ""}},
    {"rotary_pct", {"1", ""}},
    {"attn_logit_softcapping", {"", ""}},
    {"final_logit_softcapping", {"", ""}},
    {"logits_soft_cap", {"", ""}},
    {"router_logit_softcapping", {"", ""}},
    {"query_pre_attn_scalar", {"", ""}},
    {"attention_multiplier", {"", ""}},
    {"embedding_multiplier", {"1", ""}},
    {"residual_multiplier", {"1", ""}},
    {"logits_scaling", {"1", ""}},
    {"logit_scale", {"1", ""}},
    {"scale_emb", {"1", ""}},
    {"scale_depth", {"", ""}},
    {"clip_qkv", {"", ""}},
    {"use_qk_norm", {"false", ""}},
    {"qk_norm", {"false", ""}},
    {"qk_layernorm", {"false", ""}},
    {"attention_sinks", {"false", ""}},
    {"attention_chunk_size", {"", ""}},
    {"no_rope_layers", {"[]", ""}},
    {"no_rope_layer_interval", {"", ""}},
    {"position_embedding_type", {"\"rope\"", "\"rotary\""}},
    {"alibi", {"false", ""}},
    {"use_bidirectional_attention", {"false", ""}},
    {"is_causal", {"true", ""}},
    {"is_encoder_decoder", {"false", ""}},
    {"add_cross_attention", {"false", ""}},
    {"norm_topk_prob", {"true", ""}},
    {"shared_expert_intermediate_size", {"0", ""}},
    {"n_shared_experts", {"0", ""}},
    {"num_shared_experts", {"0", ""}},
    {"mlp_only_layers", {"[]", ""}},
    {"decoder_sparse_step", {"1", ""}},
    {"rms_norm_add_unit_offset", {"false", ""}},
};

void refuse_other_arithmetic(const FieldReader& config) {
  for (const ArithmeticKey& row : kArithmeticKeys) {
    if (!config.has(row.key)) {
      continue;
    }
    const std::string found = config.shown(row.key);
    if (found == row.neutral[0] || found == row.neutral[1]) {
      continue;
    }
    std::string expected(row.neutral[0]);
    if (!row.neutral[1].empty()) {
      expected += " or " + std::string(row.neutral[1]);
    }
    config.fail(row.key, expected.empty() ? "no such field" : expected + ", or no such field");
  }
}

void refuse_mixed_layers(const FieldReader& config) {
  const std::vector<std::string> types = config.texts("layer_types");
  for (const std::string& type : types) {
    if (type != types.front() || (type != "full_attention" && type != "sliding_attention")) {
      throw InputError(config.where("layer_types") + ": found " + quoted(type) +
                       "; expected full_attention in every layer, or sliding_attention in every layer");
    }
  }
}

constexpr double kSmallestTheta = 1.0;
constexpr double kLargestTheta = 1e12;

std::optional<double> read_theta(const FieldReader& object) {
  return object.has("rope_theta") ? std::optional(object.number("rope_theta", kSmallestTheta, kLargestTheta))
                                  : std::nullopt;
}

/// The object that states the scaling: `rope_type` (or its older name `type`) and the factors.
void read_scaling(const FieldReader& object, RopeConfig& rope) {
  const std::string_view key = object.has("rope_type") ? "rope_type" : "type";
  const std::string type = object.text(key);
  if (object.has("partial_rotary_factor") && object.number("partial_rotary_factor", 0.0, 1.0) < 1.0) {
    object.fail("partial_rotary_factor", "1, or no such field");
  }
  if (type == "default") {
    rope.scaling = RopeScaling::kNone;
    return;
  }
  if (type != "linear" && type != "llama3") {
    static const std::vector<std::string> kKnown = {"default", "linear", "llama3"};
    object.fail(key, "a rope scaling that this program computes" + node::known_values(type, kKnown));
  }
  rope.factor = object.number("factor", 1.0, 1e4);
  rope.scaling = RopeScaling::kLinear;
  if (type == "llama3") {
    rope.scaling = RopeScaling::kLlama3;
    rope.low_frequency_factor = object.number("low_freq_factor", 1e-3, 1e4);
    rope.high_frequency_factor = object.number("high_freq_factor", 1e-3, 1e4);
    rope.original_max_position = object.integer("original_max_position_embeddings", 1, kLongestContext);
    if (rope.low_frequency_factor >= rope.high_frequency_factor) {
      object.fail("low_freq_factor", "less than high_freq_factor, " + node::shortest(rope.high_frequency_factor));
    }
  }
}

RopeConfig read_rope(const FieldReader& config, ModelFamily family) {
  RopeConfig rope;
  std::optional<double> theta = read_theta(config);
  std::string theta_at = "rope_theta";
  std::optional<RopeScaling> first_scaling;
  for (const std::string_view key : {"rope_parameters", "rope_scaling"}) {
    if (!config.has(key)) {
      continue;
    }
    const FieldReader object = config.object(key);
    if (object.has_object("full_attention") || object.has_object("sliding_attention")) {
      throw InputError(object.where() + ": found one set for each layer type; expected one for all layers");
    }
    if (const std::optional<double> inner = read_theta(object)) {
      if (theta && *theta != *inner) {
        object.fail("rope_theta", node::shortest(*theta) + ", as " + theta_at + " has it");
      }
      theta = inner;
      theta_at = std::string(key) + ".rope_theta";
    }
    // rope_parameters may hold theta alone.
    if (key == "rope_scaling" || object.has("rope_type") || object.has("type")) {
      read_scaling(object, rope);
      if (first_scaling && *first_scaling != rope.scaling) {
        throw InputError(object.where() +
                         ": found another scaling than in rope_parameters; expected the same, or one of them");
      }
      first_scaling = rope.scaling;
    }
  }
  // Defaults of the configuration classes that wrote the published files without the key.
  rope.theta = theta.value_or(family == ModelFamily::kMixtral ? 1e6 : 1e4);
  return rope;
}

StoredType read_stored_type(const FieldReader& config) {
  const std::string_view key = config.has("dtype") ? "dtype" : "torch_dtype";
  if (!config.has(key)) {
    return StoredType::kBfloat16;
  }
  std::string type = config.text(key);
  if (type.starts_with("torch.")) {
    type.erase(0, 6);
  }
  if (type == "bfloat16") {
    return StoredType::kBfloat16;
  }
  if (type == "float16" || type == "half") {
    return StoredType::kFloat16;
  }
  if (type == "float32" || type == "float") {
    return StoredType::kFloat32;
  }
  static const std::vector<std::string> kKnown = {"bfloat16", "float16", "float32"};
  config.fail(key, "a type that checkpoints are stored in" + node::known_values(type, kKnown));
}

void read_heads(const FieldReader& config, ModelConfig& model) {
  model.heads = config.integer("num_attention_heads", 1, 65'536);
  model.kv_heads = config.has("num_key_value_heads") ? config.integer("num_key_value_heads", 1, 65'536) : model.heads;
  if (model.heads % model.kv_heads != 0) {
    config.fail("num_key_value_heads", "a divisor of num_attention_heads, " + std::to_string(model.heads));
  }
  if (config.has("head_dim")) {
    model.head_dim = config.integer("head_dim", 2, 65'536);
    if (model.head_dim % 2 != 0) {
      config.fail("head_dim", "an even number (rotary pairs)");
    }
    return;
  }
  if (model.hidden % model.heads != 0 || (model.hidden / model.heads) % 2 != 0) {
    config.fail("num_attention_heads",
                "a number of heads that cuts hidden_size, " + std::to_string(model.hidden) +
                    ", into equal even parts, or a head_dim");
  }
  model.head_dim = model.hidden / model.heads;
}

}  // namespace

ModelConfig read_hugging_face_config(const FieldReader& config, std::string name) {
  ModelConfig model;
  model.name = std::move(name);
  model.family = read_family(config);
  refuse_quantised(config);
  refuse_other_arithmetic(config);
  refuse_mixed_layers(config);
  model.hidden = config.integer("hidden_size", 1, 1LL << 20U);
  model.layers = config.integer("num_hidden_layers", 1, 10'000);
  read_heads(config, model);
  model.ffn = config.integer("intermediate_size", 1, kMany);
  model.vocabulary = config.integer("vocab_size", 2, kMany);
  model.max_position = config.integer("max_position_embeddings", 1, kLongestContext);
  model.rms_epsilon = config.number("rms_norm_eps", 1e-12, 0.1);
  model.ties_embeddings = config.has("tie_word_embeddings") && config.boolean("tie_word_embeddings");
  const bool uses_window = !config.has("use_sliding_window") || config.boolean("use_sliding_window");
  if (uses_window && config.has("sliding_window")) {
    model.sliding_window = config.integer("sliding_window", 1, kLongestContext);
  }
  if (model.family == ModelFamily::kMixtral) {
    model.experts = config.integer("num_local_experts", 1, 4096);
    model.experts_per_token = config.integer("num_experts_per_tok", 1, model.experts);
  } else if (config.has("num_local_experts") && config.integer("num_local_experts", 0, 4096) > 1) {
    config.fail("num_local_experts", "no experts in model_type " + config.text("model_type"));
  }
  model.rope = read_rope(config, model.family);
  model.stored_type = read_stored_type(config);
  check_model(model, config.where() + ":");
  return model;
}

}  // namespace lpu::scheduler
