#pragma once
#include <filesystem>
#include <string>

#include "lpu/node/field_reader.hpp"

namespace lpu::test {

/// A preset's file, for tests below the floor that embeds them.
inline node::FieldReader preset_file(const std::string& kind, const std::string& name) {
  return node::FieldReader::load(std::filesystem::path(LPU_PRESETS) / kind / (name + ".json"));
}

}  // namespace lpu::test
