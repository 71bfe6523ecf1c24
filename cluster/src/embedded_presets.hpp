#pragma once
#include <span>
#include <string_view>

namespace lpu::cluster {

/// A preset as the build embedded it.
struct PresetText {
  std::string_view kind;  ///< chips, gpus, nccl, systems, models
  std::string_view name;
  std::string_view text;  ///< JSON
};
[[nodiscard]] std::span<const PresetText> embedded_presets();

}  // namespace lpu::cluster
