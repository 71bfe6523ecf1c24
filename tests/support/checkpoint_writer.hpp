#pragma once
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "lpu/scheduler/model_config.hpp"
#include "lpu/scheduler/model_tensor.hpp"
#include "random_floats.hpp"
#include "temporary_folder.hpp"

namespace lpu::test {

/// A tensor as it is written into a safetensors file.
struct WrittenTensor {
  std::string name;
  std::string type;
  std::vector<std::int64_t> shape;
  std::string bytes;
};

[[nodiscard]] inline std::string header_entry(const WrittenTensor& tensor, std::int64_t begin, std::int64_t end) {
  std::string shape;
  for (const std::int64_t size : tensor.shape) {
    shape += (shape.empty() ? "" : ",") + std::to_string(size);
  }
  return "\"" + tensor.name + "\":{\"dtype\":\"" + tensor.type + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

[[nodiscard]] inline std::string length_bytes(std::uint64_t length) {
  std::string out;
  for (unsigned i = 0; i < 8; ++i) {
    out.push_back(static_cast<char>(length >> (8U * i) & 0xffU));
  }
  return out;
}

/// @param padding  spaces behind the header: any number is legal
[[nodiscard]] inline std::string tensor_file(const std::vector<WrittenTensor>& tensors, std::size_t padding = 0) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  std::string data;
  for (const WrittenTensor& tensor : tensors) {
    const auto begin = static_cast<std::int64_t>(data.size());
    data += tensor.bytes;
    header += "," + header_entry(tensor, begin, static_cast<std::int64_t>(data.size()));
  }
  header += "}" + std::string(padding, ' ');
  return length_bytes(header.size()) + header + data;
}

/// config.json of the model, as Hugging Face writes it.
[[nodiscard]] inline std::string config_text(const scheduler::ModelConfig& model) {
  using scheduler::ModelFamily;
  using scheduler::RopeScaling;
  const char* family = model.family == ModelFamily::kLlama     ? "llama"
                       : model.family == ModelFamily::kMistral ? "mistral"
                                                               : "mixtral";
  std::ostringstream out;
  out << R"({"model_type": ")" << family << R"(", "hidden_size": )" << model.hidden << R"(, "num_hidden_layers": )"
      << model.layers << R"(, "num_attention_heads": )" << model.heads << R"(, "num_key_value_heads": )"
      << model.kv_heads << R"(, "head_dim": )" << model.head_dim << R"(, "intermediate_size": )" << model.ffn
      << R"(, "vocab_size": )" << model.vocabulary << R"(, "max_position_embeddings": )" << model.max_position
      << R"(, "rms_norm_eps": )" << model.rms_epsilon << R"(, "rope_theta": )" << model.rope.theta
      << R"(, "tie_word_embeddings": )" << (model.ties_embeddings ? "true" : "false");
  if (model.experts > 0) {
    out << R"(, "num_local_experts": )" << model.experts << R"(, "num_experts_per_tok": )" << model.experts_per_token;
  }
  if (model.sliding_window > 0) {
    out << R"(, "sliding_window": )" << model.sliding_window;
  }
  if (model.rope.scaling == RopeScaling::kLinear) {
    out << R"(, "rope_scaling": {"type": "linear", "factor": )" << model.rope.factor << "}";
  } else if (model.rope.scaling == RopeScaling::kLlama3) {
    out << R"(, "rope_scaling": {"rope_type": "llama3", "factor": )" << model.rope.factor << R"(, "low_freq_factor": )"
        << model.rope.low_frequency_factor << R"(, "high_freq_factor": )" << model.rope.high_frequency_factor
        << R"(, "original_max_position_embeddings": )" << model.rope.original_max_position << "}";
  }
  out << "}";
  return out.str();
}

/// All tensors of the model: matrices of random numbers that keep activations near 1, norms near 1.
[[nodiscard]] inline std::vector<WrittenTensor> random_tensors(const scheduler::ModelConfig& model,
                                                               node::StoredType type,
                                                               std::uint64_t seed) {
  Sequence sequence(seed);
  std::vector<WrittenTensor> out;
  for (std::int64_t i = 0; i < scheduler::tensor_count(model); ++i) {
    const scheduler::ModelTensor tensor = scheduler::tensor_at(model, i);
    const scheduler::TensorShape shape = scheduler::shape_of(model, tensor);
    const float spread = shape.is_vector ? 0.0F : 2.0F / std::sqrt(static_cast<float>(shape.columns));
    std::vector<float> values(static_cast<std::size_t>(shape.rows * shape.columns));
    for (float& value : values) {
      value = shape.is_vector ? sequence.between(0.5F, 1.5F) : sequence.between(-spread, spread);
    }
    const char* name = type == node::StoredType::kFloat32    ? "F32"
                       : type == node::StoredType::kBfloat16 ? "BF16"
                                                             : "F16";
    out.push_back({scheduler::name_of(model, tensor),
                   name,
                   shape.is_vector ? std::vector{shape.columns} : std::vector{shape.rows, shape.columns},
                   stored(values, type)});
  }
  return out;
}

/// config.json and model.safetensors in the folder.
inline void write_checkpoint(const std::filesystem::path& folder,
                             const scheduler::ModelConfig& model,
                             const std::vector<WrittenTensor>& tensors,
                             std::size_t padding = 0) {
  write_bytes(folder / "config.json", config_text(model));
  write_bytes(folder / "model.safetensors", tensor_file(tensors, padding));
}

}  // namespace lpu::test
