#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace lpu::cluster {

/// Names of the checkpoints that come with the program.
[[nodiscard]] std::span<const std::string_view> shipped_models();

/// Whether the name is that of a checkpoint that comes with the program.
[[nodiscard]] bool is_shipped_model(const std::string& name);

/// The folder or file that --checkpoint means: that of a shipped model (beside the program, in
/// ../share/lpu_cluster/models), or the path as it stands.
/// @throws InputError  neither a shipped model nor a path that leads somewhere
[[nodiscard]] std::filesystem::path find_checkpoint(const std::string& name_or_path);

}  // namespace lpu::cluster
