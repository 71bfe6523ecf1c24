#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lpu/node/chip_preset.hpp"
#include "lpu/scheduler/model_preset.hpp"

namespace lpu::cluster {

enum class PresetKind : std::uint8_t { kChips, kSystems, kModels };

/// Folder under cluster/presets, and word after `list`: chips, systems, models.
[[nodiscard]] std::string_view folder(PresetKind kind);
/// Names of the presets that the program holds, in alphabetical order.
[[nodiscard]] std::vector<std::string> preset_names(PresetKind kind);

/// So many chips of one kind, wired by the rule for their number.
struct SystemPreset {
  std::string name;
  std::string description;
  std::string chip;  ///< preset's name, or a file's path (relative to the system's file)
  std::int32_t chips = 0;
  std::map<std::string, std::string, std::less<>> sources;
};

/// @param name_or_file  a preset's name, or the path of a JSON file
/// @throws InputError   "<where>: found <name>; expected a preset or a file; known: …", or what the file's reader says
[[nodiscard]] node::ChipPreset load_chip(const std::string& name_or_file, const std::string& where);
[[nodiscard]] SystemPreset load_system(const std::string& name_or_file, const std::string& where);
/// A preset, one of the user's in the same form, a Hugging Face config.json, or a folder that holds one.
[[nodiscard]] scheduler::ModelPreset load_model(const std::string& name_or_file, const std::string& where);

}  // namespace lpu::cluster
