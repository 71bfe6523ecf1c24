#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lpu/node/chip_preset.hpp"
#include "lpu/node/field_reader.hpp"
#include "lpu/scheduler/model_config.hpp"

namespace lpu::scheduler {

/// One field of ModelConfig as presets, listings and `--set model.<name>` know it.
struct ModelField {
  std::string_view name;
  std::string_view unit;  ///< noun of a count, "1" of a number, "word" of a choice
  std::string_view doc;
};

[[nodiscard]] std::span<const ModelField> model_fields();
/// Whether the field decides anything in this model: the numbers of a rope scaling only where it is used.
[[nodiscard]] bool is_used(const ModelConfig& model, std::string_view field);
/// A field's value with its unit, as a preset spells it: "8192 elements", "1e-05", "llama3".
[[nodiscard]] std::string model_field_text(const ModelConfig& model, std::string_view field);

/// A model with the origin of each figure and the number of chips it is planned on by default.
struct ModelPreset {
  ModelConfig model;
  std::string description;
  std::int32_t chips = 0;  ///< default system size; 0: the smallest that holds the model
  std::map<std::string, std::string, std::less<>> sources;  ///< field name -> source; empty for a config.json
};

/// Reads `{"kind": "model", "name": …, "<field>": {"value": "8192 elements", "source": …}, …}`; fields of a rope
/// scaling that the model does not use may be left out.
/// @throws InputError  missing, unknown or out of range, fields that contradict each other; file and path named
[[nodiscard]] ModelPreset load_model_preset(const node::FieldReader& reader);

/// Reads `{"name": …, "<field>": "8192 elements", …}`: a model as an effective configuration records it.
[[nodiscard]] ModelConfig load_effective_model(const node::FieldReader& reader);

/// "model.<field>" for every field.
[[nodiscard]] std::vector<std::string> model_setting_paths();

/// Applies `model.<field>` settings in their order and checks the outcome.
/// @throws InputError  "--set <path>: …"
void apply_model_settings(ModelConfig& model, std::span<const node::Setting> settings);

/// @throws InputError  "<where><field>: found …" for the first field out of range or at odds with another
void check_model(const ModelConfig& model, const std::string& where);

/// Weights of the model, tied embeddings counted once.
[[nodiscard]] std::int64_t parameters(const ModelConfig& model);

}  // namespace lpu::scheduler
