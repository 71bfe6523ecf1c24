#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/field_reader.hpp"
#include "lpu/node/quantity_text.hpp"

namespace lpu::node {

/// One field of ChipSpec as presets, listings and `--set` know it.
struct ChipField {
  std::string_view name;  ///< as the member of ChipSpec
  Dimension dimension;
  std::string_view noun;  ///< kCount: what is counted
  std::int64_t minimum;
  std::int64_t maximum;
  std::string_view doc;
};

/// Every numeric field, in the order of ChipSpec. `link_hemisphere`, a list of words, stands apart.
[[nodiscard]] std::span<const ChipField> chip_fields();
/// Names of all fields, `link_hemisphere` included.
[[nodiscard]] std::vector<std::string> chip_field_names();
/// A field's value with its unit, as a preset spells it: "217 cycles".
[[nodiscard]] std::string chip_field_text(const ChipSpec& chip, std::string_view field);

/// A chip with the origin of each constant.
struct ChipPreset {
  ChipSpec chip;
  std::string description;
  std::map<std::string, std::string, std::less<>> sources;  ///< field name -> source
};

/// Reads `{"kind": "chip", "name": …, "description": …, "<field>": {"value": "217 cycles", "source": …}, …}`.
///
/// Every field must be there, with value and source; a value whose unit matters carries it. A number may stand with a
/// separate "unit": {"value": 217, "unit": "cycles", "source": …}.
///
/// @throws InputError  missing, unknown or out of range, fields that contradict each other; file and path named
[[nodiscard]] ChipPreset load_chip_preset(const FieldReader& reader);

/// Reads `{"name": …, "<field>": "217 cycles", …}`: a chip as an effective configuration records it, without sources.
[[nodiscard]] ChipSpec load_effective_chip(const FieldReader& reader);

/// A change on top of a preset: `path` = `value`, as after `--set`.
struct Setting {
  std::string path;   ///< chip.<field>, link.<…>, chip.sram
  std::string value;  ///< with its unit
};

/// Paths that apply_chip_settings() knows: chip.<field> for every field, chip.sram, and the short link.rate,
/// link.flight, link.serialisation, link.endpoint, link.queue.
[[nodiscard]] std::vector<std::string> chip_setting_paths();

/// Applies settings in their order and checks the outcome.
///
/// chip.sram sets vectors_per_slice (rounded down to whole rows in every slice and bank). link.rate sets the
/// serialisation of a vector with its overhead, rounded up to cycles; where only the serialisation or the clock
/// changes, the rate follows.
///
/// @throws InputError  "--set <path>: …"
void apply_chip_settings(ChipSpec& chip, std::span<const Setting> settings);

/// @throws InputError  "<where>…: found …" for the first field out of range or at odds with another
void check_chip(const ChipSpec& chip, const std::string& where);

/// Cycles that one vector and its overhead take at the link's rate, rounded up.
[[nodiscard]] Cycles serialisation_at_rate(const ChipSpec& chip);

}  // namespace lpu::node
