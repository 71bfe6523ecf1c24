#pragma once
#include <string>

#include "lpu/node/field_reader.hpp"
#include "lpu/scheduler/model_config.hpp"

namespace lpu::scheduler {

/// Reads a Hugging Face `config.json` of model_type llama, mistral or mixtral.
///
/// Published variants mean the same: rope_theta at the top or in rope_parameters; rope_scaling (or rope_parameters)
/// with `type` or `rope_type`; head_dim absent, null or of its own; no num_key_value_heads; sliding_window null or a
/// number; torch_dtype or dtype. Keys that would change the arithmetic are refused, all others ignored.
///
/// @param name  of the model, for people; the file does not hold one
/// @throws InputError  missing, absurd or contradictory fields, another model_type, a quantised checkpoint
[[nodiscard]] ModelConfig read_hugging_face_config(const node::FieldReader& config, std::string name);

}  // namespace lpu::scheduler
