#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lpu/node/chip_preset.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/field_reader.hpp"
#include "lpu/node/sourced_value.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::node {

using Sources = std::map<std::string, std::string, std::less<>>;  ///< field name -> where its value comes from

/// One field of a preset of measured numbers (a GPU, its fabric, its collectives): real numbers, lists of them, counts
/// or a word. What they are held in is part of the unit: "us", "GB/s", "GB", "TFLOP/s", "W", "USD", kUnitOne,
/// kUnitWord, or the noun of a count.
template <typename Spec>
struct PresetField {
  std::string_view name;
  std::string_view unit;
  double minimum = 0;
  double maximum = 0;
  std::string_view doc;
  std::variant<double Spec::*, std::int32_t Spec::*, std::vector<double> Spec::*, std::string Spec::*> member;
  std::size_t values = 1;  ///< of a list; 0: any number of them, or a word
};

/// Reads "0.6 1.9 3.4 us": `count` numbers (0: one or more) and the unit of them all, converted to `unit`; a time may
/// be given in ns, us or ms, a rate in MB/s, GB/s, TB/s or Gbit/s, and so on.
/// @throws InputError  "<where>: found <text>; expected …": count, unit or range
[[nodiscard]] std::vector<double> parse_numbers(std::string_view text,
                                                std::string_view unit,
                                                std::size_t count,
                                                double minimum,
                                                double maximum,
                                                const std::string& where);
/// As a preset spells it: "0.6 1.9 3.4 us".
[[nodiscard]] std::string format_numbers(std::span<const double> values, std::string_view unit);

template <typename Spec>
void set_field(Spec& spec, const PresetField<Spec>& field, std::string_view text, const std::string& where) {
  if (const auto* word = std::get_if<std::string Spec::*>(&field.member)) {
    if (text.empty()) {
      throw InputError(where + ": found nothing; expected a word");
    }
    spec.*(*word) = std::string(text);
    return;
  }
  const std::vector<double> values = parse_numbers(text, field.unit, field.values, field.minimum, field.maximum, where);
  if (const auto* number = std::get_if<double Spec::*>(&field.member)) {
    spec.*(*number) = values.front();
  } else if (const auto* count = std::get_if<std::int32_t Spec::*>(&field.member)) {
    if (values.front() != std::floor(values.front())) {
      throw InputError(where + ": found " + printable(text) + "; expected a whole number");
    }
    spec.*(*count) = static_cast<std::int32_t>(values.front());
  } else {
    spec.*std::get<std::vector<double> Spec::*>(field.member) = values;
  }
}

/// A field's value with its unit.
template <typename Spec>
std::string field_text(const Spec& spec, const PresetField<Spec>& field) {
  if (const auto* word = std::get_if<std::string Spec::*>(&field.member)) {
    return spec.*(*word);
  }
  std::vector<double> values;
  if (const auto* number = std::get_if<double Spec::*>(&field.member)) {
    values = {spec.*(*number)};
  } else if (const auto* count = std::get_if<std::int32_t Spec::*>(&field.member)) {
    values = {static_cast<double>(spec.*(*count))};
  } else {
    values = spec.*std::get<std::vector<double> Spec::*>(field.member);
  }
  return format_numbers(values, field.unit);
}

/// Reads every field, each `{"value": …, "source": …}`.
/// @throws InputError  a field that is missing or wrong; file and path named
template <typename Spec>
Sources read_fields(Spec& spec, std::span<const PresetField<Spec>> fields, const FieldReader& reader) {
  Sources sources;
  for (const PresetField<Spec>& field : fields) {
    const SourcedValue sourced = read_sourced(reader, field.name);
    set_field(spec, field, sourced.value, sourced.where);
    sources[std::string(field.name)] = sourced.source;
  }
  return sources;
}

/// Paths of `--set`: "<prefix><field>".
template <typename Spec>
std::vector<std::string> field_paths(std::span<const PresetField<Spec>> fields, std::string_view prefix) {
  std::vector<std::string> out;
  for (const PresetField<Spec>& field : fields) {
    out.push_back(std::string(prefix) + std::string(field.name));
  }
  return out;
}

/// Applies the settings whose path starts with `prefix`, in their order.
/// @throws InputError  "--set <path>: …"
template <typename Spec>
void apply_field_settings(Spec& spec,
                          std::span<const PresetField<Spec>> fields,
                          std::string_view prefix,
                          std::span<const Setting> settings) {
  for (const Setting& setting : settings) {
    if (!setting.path.starts_with(prefix)) {
      continue;
    }
    const std::string where = "--set " + setting.path;
    const std::string_view name = std::string_view(setting.path).substr(prefix.size());
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const auto& f) { return f.name == name; });
    if (field == fields.end()) {
      throw InputError(where + ": found an unknown path; expected a field of " +
                       std::string(prefix.substr(0, prefix.size() - 1)) +
                       did_you_mean(setting.path, field_paths(fields, prefix)));
    }
    set_field(spec, *field, setting.value, where);
  }
}

}  // namespace lpu::node
