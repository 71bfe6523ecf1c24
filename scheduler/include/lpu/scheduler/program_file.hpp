#pragma once
#include <filesystem>
#include <string>
#include <string_view>

#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// Write `*.lpuprog`: magic, version, digest, cereal portable binary body. Temporary name, sync, rename.
/// @throws node::InputError the folder cannot be written; node::EnvironmentError disk full
void save_program(const ClusterProgram& program, const std::filesystem::path& file);

/// @throws node::InputError not a program file, another version, a digest that does not match (any flipped byte, any
///         truncation), or a well-formedness fault
[[nodiscard]] ClusterProgram load_program(const std::filesystem::path& file);

/// The content of a program file, and the inverse: what is sent to other ranks instead of stored.
///
/// @param name  how messages call the bytes
/// @throws node::InputError  as load_program()
[[nodiscard]] std::string to_bytes(const ClusterProgram& program);
[[nodiscard]] ClusterProgram from_bytes(std::string_view bytes, const std::string& name);

}  // namespace lpu::scheduler
