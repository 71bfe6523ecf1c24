#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lpu/node/chip_preset.hpp"
#include "lpu/node/gpu_spec.hpp"
#include "lpu/scheduler/gpu_plan.hpp"
#include "lpu/scheduler/model_preset.hpp"

namespace lpu::cluster {

enum class PresetKind : std::uint8_t { kChips, kGpus, kNccl, kSystems, kModels };
inline constexpr std::array<PresetKind, 5> kPresetKinds = {
    PresetKind::kChips, PresetKind::kGpus, PresetKind::kNccl, PresetKind::kSystems, PresetKind::kModels};

/// Folder under cluster/presets, and word after `list`: chips, gpus, nccl, systems, models.
[[nodiscard]] std::string_view folder(PresetKind kind);
/// Names of the presets that the program holds, in alphabetical order.
[[nodiscard]] std::vector<std::string> preset_names(PresetKind kind);

/// So many chips of one kind, wired by the rule for their number.
struct SystemPreset {
  std::string name;
  std::string description;
  std::string chip;  ///< preset's name, or a file's path (relative to the system's file)
  std::int32_t chips = 0;
  std::optional<std::int64_t> node_power_milliwatts;  ///< of a whole node of 8 chips, its host included
  std::optional<std::int64_t> node_price_usd;         ///< likewise
  std::map<std::string, std::string, std::less<>> sources;
};

/// GPUs, their fabric and NCCL, joined from the presets that the system's names (files beside the system's first).
struct GpuSystemPreset {
  scheduler::GpuSystem system;
  std::string description;
  node::Sources sources;  ///< of the fabric's fields
};

/// @param name_or_file  a preset's name, or the path of a JSON file
/// @throws InputError   "<where>: found <name>; expected a preset or a file; known: …", or what the file's reader says
[[nodiscard]] node::ChipPreset load_chip(const std::string& name_or_file, const std::string& where);
[[nodiscard]] SystemPreset load_system(const std::string& name_or_file, const std::string& where);
/// Whether it is a system of GPUs (kind gpu-system) rather than of chips.
[[nodiscard]] bool is_gpu_system(const std::string& name_or_file, const std::string& where);
[[nodiscard]] GpuSystemPreset load_gpu_system(const std::string& name_or_file, const std::string& where);
[[nodiscard]] node::GpuPreset load_gpu(const std::string& name_or_file, const std::string& where);
[[nodiscard]] interconnect::NcclPreset load_nccl(const std::string& name_or_file, const std::string& where);

/// Paths of apply_gpu_settings(): gpu.<field>, fabric.<field>, nccl.<field>.
[[nodiscard]] std::vector<std::string> gpu_setting_paths();
/// Applies those settings in their order; others are left alone. @throws InputError  "--set <path>: …"
void apply_gpu_settings(scheduler::GpuSystem& system, std::span<const node::Setting> settings);

/// A preset, one of the user's in the same form, a Hugging Face config.json, or a folder that holds one.
[[nodiscard]] scheduler::ModelPreset load_model(const std::string& name_or_file, const std::string& where);

}  // namespace lpu::cluster
