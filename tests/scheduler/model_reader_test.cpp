#include "lpu/scheduler/model_reader.hpp"

#include <string>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"

namespace lpu::scheduler {
namespace {

constexpr const char* kLlama =
    R"("model_type": "llama", "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8,
  "num_key_value_heads": 4, "intermediate_size": 640, "vocab_size": 256, "max_position_embeddings": 1024,
  "rms_norm_eps": 1e-05, "hidden_act": "silu")";

/// The base with more keys; a key given again stands for the base's.
ModelConfig read(const std::string& more) {
  std::string text = std::string("{") + kLlama;
  for (std::size_t begin = more.find('"'); begin != std::string::npos && !more.empty();) {
    const std::string key = more.substr(begin, more.find('"', begin + 1) - begin + 1);
    const std::size_t old = text.find(key + ":");
    if (old != std::string::npos) {
      const std::size_t end = text.find(',', old);
      text.erase(old, end == std::string::npos ? std::string::npos : end - old + 1);
      if (end == std::string::npos) {
        text.erase(text.find_last_of(','));
      }
    }
    break;
  }
  text += (more.empty() ? "" : ", ") + more + "}";
  return read_hugging_face_config(node::FieldReader::parse(text, "config.json"), "m");
}

std::string message_of(const std::string& more) {
  try {
    static_cast<void>(read(more));
  } catch (const node::InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(HuggingFaceConfig, ReadsTheBase) {
  const ModelConfig model = read("");
  EXPECT_EQ(model.hidden, 256);
  EXPECT_EQ(model.kv_heads, 4);
  EXPECT_EQ(model.head_dim, 32);
  EXPECT_EQ(model.rope.theta, 1e4);
  EXPECT_EQ(model.sliding_window, 0);
  EXPECT_FALSE(model.ties_embeddings);
  EXPECT_EQ(model.experts, 0);
}

TEST(HuggingFaceConfig, RopeThetaAtTheTopOrInParameters) {
  EXPECT_EQ(read(R"("rope_theta": 500000.0)").rope.theta, 5e5);
  EXPECT_EQ(read(R"("rope_parameters": {"rope_theta": 500000, "rope_type": "default"})").rope.theta, 5e5);
  EXPECT_EQ(read(R"("rope_parameters": {"rope_theta": 500000})").rope.theta, 5e5);
  EXPECT_EQ(
      read(R"("rope_theta": 500000, "rope_parameters": {"rope_theta": 500000, "rope_type": "default"})").rope.theta,
      5e5);
  EXPECT_EQ(message_of(R"("rope_theta": 10000, "rope_parameters": {"rope_theta": 500000, "rope_type": "default"})"),
            "config.json:rope_parameters.rope_theta: found 500000; expected 10000, as rope_theta has it");
}

TEST(HuggingFaceConfig, RopeScalingOfBothSpellings) {
  for (const char* key : {"type", "rope_type"}) {
    const RopeConfig rope = read(std::string(R"("rope_scaling": {")") + key + R"(": "linear", "factor": 2.0})").rope;
    EXPECT_EQ(rope.scaling, RopeScaling::kLinear);
    EXPECT_EQ(rope.factor, 2.0);
  }
  const RopeConfig llama3 = read(R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192})")
                                .rope;
  EXPECT_EQ(llama3.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(llama3.original_max_position, 8192);
  EXPECT_EQ(read(R"("rope_scaling": null)").rope.scaling, RopeScaling::kNone);
}

TEST(HuggingFaceConfig, OtherRopeScalingIsRefusedByName) {
  EXPECT_EQ(message_of(R"("rope_scaling": {"type": "yarn", "factor": 4.0})"),
            "config.json:rope_scaling.type: found \"yarn\"; expected a rope scaling that this program computes; known: "
            "default, "
            "linear, llama3");
  EXPECT_EQ(
      message_of(R"("rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})"),
      "config.json:rope_parameters.rope_type: found \"dynamic\"; expected a rope scaling that this program computes; "
      "known: default, linear, llama3");
  EXPECT_EQ(message_of(R"("rope_scaling": {"type": "linear"})"),
            "config.json:rope_scaling.factor: found no such field; expected a number from 1 to 10000");
  EXPECT_EQ(message_of(R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
    "high_freq_factor": 1.0, "original_max_position_embeddings": 8192})"),
            "config.json:rope_scaling.low_freq_factor: found 4; expected less than high_freq_factor, 1");
}

TEST(HuggingFaceConfig, HeadDimensions) {
  EXPECT_EQ(read(R"("head_dim": null)").head_dim, 32);
  EXPECT_EQ(read(R"("head_dim": 64)").head_dim, 64);
  EXPECT_EQ(message_of(R"("head_dim": 33)"), "config.json:head_dim: found 33; expected an even number (rotary pairs)");
  EXPECT_EQ(read(R"("num_key_value_heads": null)").kv_heads, 8);
  EXPECT_EQ(message_of(R"("num_key_value_heads": 3)"),
            "config.json:num_key_value_heads: found 3; expected a divisor of num_attention_heads, 8");
  EXPECT_EQ(message_of(R"("hidden_size": 250)"),
            "config.json:num_attention_heads: found 8; expected a number of heads that cuts hidden_size, 250, into "
            "equal even "
            "parts, or a head_dim");
}

TEST(HuggingFaceConfig, NoKeyValueHeadsMeansOneForEachQueryHead) {
  std::string text = std::string("{") + kLlama + "}";
  const std::string key = "\"num_key_value_heads\": 4,";
  text.erase(text.find(key), key.size());
  EXPECT_EQ(read_hugging_face_config(node::FieldReader::parse(text, "config.json"), "m").kv_heads, 8);
}

TEST(HuggingFaceConfig, SlidingWindowNullOrANumber) {
  EXPECT_EQ(read(R"("sliding_window": null)").sliding_window, 0);
  EXPECT_EQ(read(R"("sliding_window": 4096)").sliding_window, 4096);
  EXPECT_EQ(message_of(R"("sliding_window": -1)"),
            "config.json:sliding_window: found -1; expected a whole number from 1 to 1073741824");
}

TEST(HuggingFaceConfig, StoredTypeOfBothSpellings) {
  EXPECT_EQ(read(R"("torch_dtype": "float16")").stored_type, StoredType::kFloat16);
  EXPECT_EQ(read(R"("dtype": "float32")").stored_type, StoredType::kFloat32);
  EXPECT_EQ(
      message_of(R"("dtype": "float8_e4m3fn")"),
      "config.json:dtype: found \"float8_e4m3fn\"; expected a type that checkpoints are stored in; known: bfloat16, "
      "float16, float32");
}

TEST(HuggingFaceConfig, TiedEmbeddings) {
  EXPECT_TRUE(read(R"("tie_word_embeddings": true)").ties_embeddings);
}

TEST(HuggingFaceConfig, QuantisedCheckpointIsRefusedByMethod) {
  EXPECT_EQ(
      message_of(R"("quantization_config": {"quant_method": "gptq", "bits": 4})"),
      "config.json:quantization_config.quant_method: found \"gptq\"; expected a checkpoint without quantization_config "
      "(--compute chooses the bits)");
  EXPECT_EQ(message_of(R"("quantization_config": null)"), "accepted");
}

TEST(HuggingFaceConfig, OtherModelTypeIsRefusedByName) {
  EXPECT_EQ(message_of(R"("model_type": "qwen2")"),
            "config.json:model_type: found \"qwen2\"; expected a model type that this program schedules; known: llama, "
            "mistral, mixtral");
}

struct Arithmetic {
  const char* name;
  const char* key;
  const char* message;
};
class OtherArithmetic : public testing::TestWithParam<Arithmetic> {};
TEST_P(OtherArithmetic, IsRefused) {
  EXPECT_EQ(message_of(GetParam().key), GetParam().message);
}
INSTANTIATE_TEST_SUITE_P(
    Keys,
    OtherArithmetic,
    testing::Values(
        Arithmetic{"Activation",
                   R"("hidden_act": "gelu")",
                   "config.json:hidden_act: found \"gelu\"; expected \"silu\" or \"swish\", or no such field"},
        Arithmetic{"AttentionBias",
                   R"("attention_bias": true)",
                   "config.json:attention_bias: found true; expected false, or no such field"},
        Arithmetic{
            "MlpBias", R"("mlp_bias": true)", "config.json:mlp_bias: found true; expected false, or no such field"},
        Arithmetic{"PartialRotary",
                   R"("partial_rotary_factor": 0.5)",
                   "config.json:partial_rotary_factor: found 0.5; expected 1, or no such field"},
        Arithmetic{"Softcapping",
                   R"("attn_logit_softcapping": 50.0)",
                   "config.json:attn_logit_softcapping: found 50; expected no such field"},
        Arithmetic{"LogitScaling",
                   R"("logits_scaling": 8)",
                   "config.json:logits_scaling: found 8; expected 1, or no such field"},
        Arithmetic{"MixedLayers",
                   R"("layer_types": ["full_attention", "sliding_attention"])",
                   "config.json:layer_types: found \"sliding_attention\"; expected full_attention in every layer, or "
                   "sliding_attention in every layer"},
        Arithmetic{"Experts",
                   R"("num_local_experts": 8)",
                   "config.json:num_local_experts: found 8; expected no experts in model_type llama"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(HuggingFaceConfig, KeysWithoutArithmeticAreIgnored) {
  EXPECT_EQ(
      message_of(R"("transformers_version": "5.0", "use_cache": true, "pretraining_tp": 1, "attention_bias": false,
    "bos_token_id": 0, "eos_token_id": [1, 2], "something_new": {"a": 1})"),
      "accepted");
}

TEST(HuggingFaceConfig, MissingAndAbsurdFields) {
  EXPECT_EQ(message_of(R"("num_hidden_layers": null)"),
            "config.json:num_hidden_layers: found null; expected a whole number from 1 to 10000");
  EXPECT_EQ(message_of(R"("vocab_size": 0)"),
            "config.json:vocab_size: found 0; expected a whole number from 2 to 16777216");
  EXPECT_EQ(message_of(R"("intermediate_size": "640")"),
            "config.json:intermediate_size: found \"640\"; expected a whole number from 1 to 16777216");
  EXPECT_EQ(message_of(R"("rms_norm_eps": -1)"),
            "config.json:rms_norm_eps: found -1; expected a number from 1e-12 to 0.1");
}

TEST(HuggingFaceConfig, Mixture) {
  EXPECT_EQ(message_of(R"("model_type": "mixtral", "num_local_experts": 8)"),
            "config.json:num_experts_per_tok: found no such field; expected a whole number from 1 to 8");
  const ModelConfig model = read(R"("model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2)");
  EXPECT_EQ(model.experts, 8);
  EXPECT_EQ(model.rope.theta, 1e6);
}

}  // namespace
}  // namespace lpu::scheduler
