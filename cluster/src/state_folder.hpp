#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lpu/node/sealed_file.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::cluster {

/// Where a state is saved: a folder that all hosts see. Each rank writes its chips to a file of its own; the manifest,
/// written last, names all files with their digests, so that a state is whole or is not there. What an earlier
/// manifest names stays until the next one lies on the disk.
struct SaveOrder {
  std::string folder;
  std::int64_t number = 1;  ///< of the state: one more than any file in the folder has
};

/// A rank's file of a state.
struct SavedPart {
  std::string file;  ///< name in the folder
  std::uint64_t digest = 0;
  std::int32_t chips = 0;
};

/// What is saved decides how the files begin, so that one is never read as the other.
struct StateKind {
  node::FileKind manifest;
  node::FileKind part;
};

/// Makes the folder where there is none, and looks for its next number.
/// @throws node::InputError  it cannot be made, or written
[[nodiscard]] SaveOrder open_save_folder(const std::filesystem::path& folder);

/// Writes the file of one rank.
/// @throws node::EnvironmentError  disk full and the like
[[nodiscard]] SavedPart write_part(
    const StateKind& kind, const SaveOrder& order, std::int32_t rank, const std::string& body, std::int32_t chips);
/// Makes the parts a state, and removes what earlier states left.
/// @param body  names the parts
void write_manifest(const StateKind& kind,
                    const SaveOrder& order,
                    const std::string& body,
                    const std::vector<SavedPart>& parts);

[[nodiscard]] std::filesystem::path manifest_in(const std::filesystem::path& folder);
/// @return body
/// @throws node::InputError  no state; a manifest that is damaged, or of another kind
[[nodiscard]] std::string read_manifest(const StateKind& kind, const std::filesystem::path& folder);
/// @return body
/// @throws node::InputError  a file that is missing, damaged, or another than the manifest names
[[nodiscard]] std::string read_part(const StateKind& kind, const std::filesystem::path& folder, const SavedPart& part);
/// Ids, ascending.
[[nodiscard]] std::vector<std::int32_t> chips_at_work(const scheduler::ClusterProgram& program);
/// @throws node::InputError  a state of other chips than those at work in a program
void require_chips(const std::string& name,
                   const std::vector<std::int32_t>& found,
                   const std::vector<std::int32_t>& expected);

}  // namespace lpu::cluster
