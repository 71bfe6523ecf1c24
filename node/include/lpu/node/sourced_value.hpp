#pragma once
#include <string>
#include <string_view>

#include "lpu/node/field_reader.hpp"

namespace lpu::node {

/// A constant of a preset: {"value": "217 cycles", "source": …}, or {"value": 217, "unit": "cycles", "source": …}.
struct SourcedValue {
  std::string value;   ///< as the file spells it, its unit included
  std::string source;  ///< where it comes from; never empty
  std::string where;   ///< "<file>:<path>.value"
};

/// Unit of a number without one ("1") and of a name ("word"): accepted in presets, not part of the value.
inline constexpr std::string_view kUnitOne = "1";
inline constexpr std::string_view kUnitWord = "word";

/// @throws InputError  the field, its value or its source is missing; any other key in it
[[nodiscard]] SourcedValue read_sourced(const FieldReader& reader, std::string_view key);

}  // namespace lpu::node
