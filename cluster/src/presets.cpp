#include "lpu/cluster/presets.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>

#include "embedded_presets.hpp"
#include "lpu/interconnect/topology.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/sourced_value.hpp"
#include "lpu/node/suggestion.hpp"
#include "lpu/scheduler/model_reader.hpp"

namespace lpu::cluster {
namespace {

namespace fs = std::filesystem;
using node::FieldReader;
using node::InputError;

constexpr std::array<std::string_view, 5> kFolders = {"chips", "gpus", "nccl", "systems", "models"};
constexpr std::array<std::string_view, 5> kNouns = {"chip", "GPU", "NCCL", "system", "model"};
constexpr std::string_view kGpuSystem = "gpu-system";
constexpr std::string_view kGpuPrefix = "gpu.";
constexpr std::string_view kFabricPrefix = "fabric.";
constexpr std::string_view kNcclPrefix = "nccl.";

bool looks_like_path(const std::string& text) {
  return text.find('/') != std::string::npos || text.ends_with(".json") || text == "." || text == "..";
}

/// The preset's text, or the file's.
FieldReader open(PresetKind kind, const std::string& name_or_file, const std::string& where) {
  for (const PresetText& preset : embedded_presets()) {
    if (preset.kind == folder(kind) && preset.name == name_or_file) {
      return FieldReader::parse(preset.text, name_or_file);
    }
  }
  std::error_code error;
  const bool is_there = fs::exists(name_or_file, error);
  if (is_there || name_or_file.ends_with(".json")) {
    const fs::path path(name_or_file);
    return FieldReader::load(kind == PresetKind::kModels && fs::is_directory(path, error) ? path / "config.json"
                                                                                          : path);
  }
  throw InputError(where + ": found " +
                   (name_or_file.empty()            ? "nothing"
                    : looks_like_path(name_or_file) ? "no file or folder " + name_or_file
                                                    : name_or_file) +
                   "; expected a " + std::string(kNouns[static_cast<std::size_t>(kind)]) + " preset or a file" +
                   node::known_values(fs::path(name_or_file).filename().string(), preset_names(kind)));
}

/// What people call the model of a config.json: its folder's name.
std::string model_name(const std::string& name_or_file) {
  std::error_code error;
  fs::path path = fs::absolute(name_or_file, error).lexically_normal();
  if (!path.has_filename()) {
    path = path.parent_path();
  }
  if (!fs::is_directory(path, error)) {
    path = path.filename() == "config.json" ? path.parent_path() : path.replace_extension();
  }
  const std::string name = path.filename().string();
  return name.empty() ? "model" : name;
}

/// A preset that a system names: a file of the user's own lies beside the system's file.
std::string beside(const FieldReader& system, const std::string& named) {
  const fs::path file = fs::path(system.file()).parent_path() / named;
  std::error_code error;
  return looks_like_path(named) && fs::path(named).is_relative() && fs::exists(file, error) ? file.string() : named;
}

}  // namespace

std::string_view folder(PresetKind kind) {
  return kFolders[static_cast<std::size_t>(kind)];
}

std::vector<std::string> preset_names(PresetKind kind) {
  std::vector<std::string> out;
  for (const PresetText& preset : embedded_presets()) {
    if (preset.kind == folder(kind)) {
      out.emplace_back(preset.name);
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

node::ChipPreset load_chip(const std::string& name_or_file, const std::string& where) {
  return node::load_chip_preset(open(PresetKind::kChips, name_or_file, where));
}

SystemPreset load_system(const std::string& name_or_file, const std::string& where) {
  const FieldReader reader = open(PresetKind::kSystems, name_or_file, where);
  if (reader.text("kind") != "system") {
    reader.fail("kind", reader.text("kind") == kGpuSystem ? "system: one of chips, not of GPUs" : "system");
  }
  SystemPreset out;
  out.name = reader.text("name");
  out.description = reader.text("description");
  const node::SourcedValue chip = node::read_sourced(reader, "chip");
  const node::SourcedValue chips = node::read_sourced(reader, "chips");
  const auto optional = [&](const char* key, node::Dimension dimension, std::string_view noun) {
    std::optional<std::int64_t> value;
    if (reader.has(key)) {
      const node::SourcedValue field = node::read_sourced(reader, key);
      value = node::parse_quantity(field.value, dimension, field.where, noun);
      out.sources[key] = field.source;
    }
    return value;
  };
  out.node_power_milliwatts = optional("node_power", node::Dimension::kMilliWatts, {});
  out.node_price_usd = optional("node_price", node::Dimension::kCount, "USD");
  reader.refuse_other_keys();
  out.chip = beside(reader, chip.value);
  const std::int64_t count = node::parse_quantity(chips.value, node::Dimension::kCount, chips.where, "chips");
  if (count < 1 || count > interconnect::kChipsMost) {
    throw InputError(chips.where + ": found " + chips.value + "; expected 1 to " +
                     std::to_string(interconnect::kChipsMost) + " chips");
  }
  out.chips = static_cast<std::int32_t>(count);
  out.sources["chip"] = chip.source;
  out.sources["chips"] = chips.source;
  return out;
}

bool is_gpu_system(const std::string& name_or_file, const std::string& where) {
  return open(PresetKind::kSystems, name_or_file, where).text("kind") == kGpuSystem;
}

GpuSystemPreset load_gpu_system(const std::string& name_or_file, const std::string& where) {
  const FieldReader reader = open(PresetKind::kSystems, name_or_file, where);
  interconnect::GpuFabricPreset fabric = interconnect::load_gpu_fabric_preset(reader);
  fabric.fabric.gpu = beside(reader, fabric.fabric.gpu);
  fabric.fabric.nccl = beside(reader, fabric.fabric.nccl);
  GpuSystemPreset out;
  out.system.gpu = load_gpu(fabric.fabric.gpu, reader.where("gpu")).gpu;
  out.system.nccl = load_nccl(fabric.fabric.nccl, reader.where("nccl")).nccl;
  out.system.fabric = std::move(fabric.fabric);
  out.description = std::move(fabric.description);
  out.sources = std::move(fabric.sources);
  return out;
}

node::GpuPreset load_gpu(const std::string& name_or_file, const std::string& where) {
  return node::load_gpu_preset(open(PresetKind::kGpus, name_or_file, where));
}

interconnect::NcclPreset load_nccl(const std::string& name_or_file, const std::string& where) {
  return interconnect::load_nccl_preset(open(PresetKind::kNccl, name_or_file, where));
}

std::vector<std::string> gpu_setting_paths() {
  std::vector<std::string> out = node::field_paths(node::gpu_fields(), kGpuPrefix);
  for (std::string& path : node::field_paths(interconnect::gpu_fabric_fields(), kFabricPrefix)) {
    // Which GPU and which NCCL a system has is another system.
    if (path != "fabric.gpu" && path != "fabric.nccl") {
      out.push_back(std::move(path));
    }
  }
  for (std::string& path : node::field_paths(interconnect::nccl_fields(), kNcclPrefix)) {
    out.push_back(std::move(path));
  }
  return out;
}

void apply_gpu_settings(scheduler::GpuSystem& system, std::span<const node::Setting> settings) {
  for (const node::Setting& setting : settings) {
    if (setting.path == "fabric.gpu" || setting.path == "fabric.nccl") {
      throw InputError("--set " + setting.path + ": found " + setting.value +
                       "; expected another system: --system FILE");
    }
  }
  node::apply_field_settings(system.gpu, node::gpu_fields(), kGpuPrefix, settings);
  node::apply_field_settings(system.fabric, interconnect::gpu_fabric_fields(), kFabricPrefix, settings);
  node::apply_field_settings(system.nccl, interconnect::nccl_fields(), kNcclPrefix, settings);
  if (!settings.empty()) {
    node::check_gpu(system.gpu, "--set gpu.");
    interconnect::check_gpu_fabric(system.fabric, "--set fabric.");
  }
}

scheduler::ModelPreset load_model(const std::string& name_or_file, const std::string& where) {
  const FieldReader reader = open(PresetKind::kModels, name_or_file, where);
  if (reader.has("kind")) {
    return scheduler::load_model_preset(reader);
  }
  scheduler::ModelPreset out;
  out.model = scheduler::read_hugging_face_config(reader, model_name(name_or_file));
  out.description = "Hugging Face config";
  return out;
}

}  // namespace lpu::cluster
