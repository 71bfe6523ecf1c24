#pragma once
#include <cstdint>
#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <cereal/archives/portable_binary.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "state_folder.hpp"

// The bodies of a state's files: cereal portable binary.
namespace lpu::cluster {

template <typename Archive>
void serialize(Archive& archive, SavedPart& part) {
  archive(part.file, part.digest, part.chips);
}

template <typename... Content>
std::string to_body(const Content&... content) {
  std::ostringstream out;
  {
    cereal::PortableBinaryOutputArchive archive(out);
    (archive(content), ...);
  }
  return std::move(out).str();
}

/// @throws node::InputError  no such content
template <typename... Content>
void from_body(std::string_view body, const std::string& name, Content&... content) {
  std::istringstream in{std::string(body)};
  try {
    cereal::PortableBinaryInputArchive archive(in);
    (archive(content), ...);
  } catch (const std::exception&) {  // cereal's, or a length that no memory holds
    throw node::InputError(name + ": found a body that ends too early; expected all of a saved state");
  }
}

/// The chips that a part holds.
/// @throws node::InputError  as read_part(); chips of another program, or not as many as the manifest says
template <typename Chip>
std::vector<Chip> read_chips(const StateKind& kind,
                             const std::filesystem::path& folder,
                             const SavedPart& part,
                             std::uint64_t schedule_digest) {
  const std::string name = (folder / part.file).string();
  std::uint64_t digest = 0;
  std::vector<Chip> chips;
  from_body(read_part(kind, folder, part), name, digest, chips);
  if (digest != schedule_digest || chips.size() != static_cast<std::size_t>(part.chips)) {
    throw node::InputError(name + ": found " + std::to_string(chips.size()) + " chips of the program " +
                           node::to_hex(digest) + "; expected " + std::to_string(part.chips) + " of " +
                           node::to_hex(schedule_digest));
  }
  return chips;
}

}  // namespace lpu::cluster
