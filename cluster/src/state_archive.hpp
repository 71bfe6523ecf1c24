#pragma once
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

#include <cereal/archives/portable_binary.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>

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

}  // namespace lpu::cluster
