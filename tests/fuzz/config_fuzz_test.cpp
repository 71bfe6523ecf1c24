// Can a configuration crash the readers? Every mutant is accepted or refused with a message of one line.
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "lpu/interconnect/gpu_fabric.hpp"
#include "lpu/node/chip_preset.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/gpu_spec.hpp"
#include "lpu/scheduler/model_preset.hpp"
#include "lpu/scheduler/model_reader.hpp"

namespace lpu {
namespace {

constexpr std::uint64_t kSeed = 20240607;
constexpr int kMutants = 5000;

using Read = std::function<void(const node::FieldReader&)>;

/// Flips, drops, doubles and swaps a few bytes, or puts a token where it does not belong.
std::string mutated(std::string text, std::uint64_t seed) {
  static constexpr std::string_view kTokens[] = {
      "null", "-1", "1e999", "\"\"", "{}", "[]", "true", "0", "9999999", "1e-9", "{", "\"k", "\"\\u0\"", ","};
  std::uint64_t random = node::mix(seed);
  const auto below = [&](std::size_t limit) {
    random = node::mix(random);
    return static_cast<std::size_t>(random % limit);
  };
  for (std::size_t edits = 1 + below(4); edits > 0 && !text.empty(); --edits) {
    const std::size_t at = below(text.size());
    switch (below(4)) {
      case 0:
        text[at] = static_cast<char>(below(256));
        break;
      case 1:
        text.erase(at, 1 + below(20));
        break;
      case 2:
        text.insert(at, text.substr(below(text.size()), below(30)));
        break;
      default:
        text.replace(at, 1 + below(6), kTokens[below(std::size(kTokens))]);
        break;
    }
  }
  return text;
}

void expect_no_crash(const std::string& text, const Read& read) {
  int refused = 0;
  for (int i = 0; i < kMutants; ++i) {
    const std::uint64_t seed = kSeed + static_cast<std::uint64_t>(i);
    try {
      read(node::FieldReader::parse(mutated(text, seed), "f.json"));
    } catch (const node::InputError& error) {
      ++refused;
      EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos)
          << "seed " << seed << ": " << error.what();
    }
  }
  EXPECT_GT(refused, kMutants / 2);
}

TEST(ConfigFuzz, ChipPreset) {
  expect_no_crash(node::read_text_file(LPU_PRESETS "/chips/tsp-v1.json"),
                  [](const node::FieldReader& reader) { static_cast<void>(node::load_chip_preset(reader)); });
}

TEST(ConfigFuzz, GpuPreset) {
  expect_no_crash(node::read_text_file(LPU_PRESETS "/gpus/h100-80g-sxm.json"),
                  [](const node::FieldReader& reader) { static_cast<void>(node::load_gpu_preset(reader)); });
}

TEST(ConfigFuzz, GpuSystem) {
  expect_no_crash(node::read_text_file(LPU_PRESETS "/systems/dgx-h100.json"), [](const node::FieldReader& reader) {
    static_cast<void>(interconnect::load_gpu_fabric_preset(reader));
  });
}

TEST(ConfigFuzz, ModelPreset) {
  expect_no_crash(node::read_text_file(LPU_PRESETS "/models/mixtral-8x7b.json"),
                  [](const node::FieldReader& reader) { static_cast<void>(scheduler::load_model_preset(reader)); });
}

TEST(ConfigFuzz, HuggingFaceConfig) {
  expect_no_crash(
      R"({"model_type": "mixtral", "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 4, "intermediate_size": 640, "vocab_size": 256, "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-05, "hidden_act": "silu", "num_local_experts": 8, "num_experts_per_tok": 2, "dtype": "bfloat16",
    "rope_parameters": {"rope_theta": 1e6, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, "sliding_window": null, "layer_types": []})",
      [](const node::FieldReader& reader) { static_cast<void>(scheduler::read_hugging_face_config(reader, "m")); });
}

TEST(ConfigFuzz, QuantityText) {
  for (int i = 0; i < kMutants; ++i) {
    const std::string text = mutated("12.5 GB/s", kSeed + static_cast<std::uint64_t>(i));
    for (const node::Dimension dimension :
         {node::Dimension::kBytesPerSecond, node::Dimension::kCycles, node::Dimension::kCount}) {
      try {
        EXPECT_GE(node::parse_quantity(text, dimension, "here", "things", node::Hertz(900'000'000)), 0);
      } catch (const node::InputError&) {
        continue;
      }
    }
  }
}

}  // namespace
}  // namespace lpu
