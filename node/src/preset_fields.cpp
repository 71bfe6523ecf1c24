#include "lpu/node/preset_fields.hpp"

#include <array>
#include <charconv>
#include <cmath>

#include "lpu/node/quantity_text.hpp"

namespace lpu::node {
namespace {

/// A unit that may stand where values are held in another.
struct UnitRow {
  std::string_view held;
  std::string_view spelled;
  double scale;
};
constexpr UnitRow kUnits[] = {
    {"us", "us", 1},
    {"us", "ns", 1e-3},
    {"us", "ms", 1e3},
    {"GB/s", "GB/s", 1},
    {"GB/s", "MB/s", 1e-3},
    {"GB/s", "TB/s", 1e3},
    {"GB/s", "Gbit/s", 0.125},
    {"GB", "GB", 1},
    {"GB", "GiB", 1.073741824},
    {"GB", "TB", 1e3},
    {"B", "B", 1},
    {"B", "KiB", 1024},
    {"B", "MiB", 1048576},
    {"B", "GiB", 1073741824},
    {"TFLOP/s", "TFLOP/s", 1},
    {"TFLOP/s", "PFLOP/s", 1e3},
    {"W", "W", 1},
    {"W", "kW", 1e3},
    {"USD", "USD", 1},
};

/// Spellings of a unit; empty for a count and for a number without unit.
std::vector<std::string> spellings(std::string_view unit) {
  std::vector<std::string> out;
  for (const UnitRow& row : kUnits) {
    if (row.held == unit) {
      out.emplace_back(row.spelled);
    }
  }
  return out;
}

std::string unit_text(std::string_view unit) {
  return unit == kUnitOne ? std::string() : " " + std::string(unit);
}

std::string expectation(std::string_view unit, std::size_t count, double minimum, double maximum) {
  const std::string range = shortest(minimum) + " to " + shortest(maximum) + unit_text(unit);
  return count == 1   ? "a number from " + range
         : count == 0 ? "numbers from " + range
                      : std::to_string(count) + " numbers from " + range;
}

double scale_of(std::string_view found, std::string_view unit, const std::string& where, std::string_view text) {
  const std::vector<std::string> known = spellings(unit);
  if (known.empty()) {
    const bool is_singular = unit.ends_with('s') && found == unit.substr(0, unit.size() - 1);
    const bool is_plain = unit == kUnitOne && found.empty();
    if (found != unit && !is_singular && !is_plain) {
      throw InputError(where + ": found " + printable(text) + "; expected " +
                       (unit == kUnitOne ? "no unit" : "the unit " + std::string(unit) + " after the number"));
    }
    return 1;
  }
  for (const UnitRow& row : kUnits) {
    if (row.held == unit && row.spelled == found) {
      return row.scale;
    }
  }
  throw InputError(where + ": found " + printable(text) + "; expected a unit of " + join(known) +
                   (found.empty() ? " after the number" : did_you_mean(found, known)));
}

}  // namespace

std::vector<double> parse_numbers(std::string_view text,
                                  std::string_view unit,
                                  std::size_t count,
                                  double minimum,
                                  double maximum,
                                  const std::string& where) {
  std::vector<double> values;
  std::string_view rest = text;
  const auto skip_spaces = [&] { rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size())); };
  for (skip_spaces(); !rest.empty(); skip_spaces()) {
    double value = 0;
    const auto end = std::from_chars(rest.data(), rest.data() + rest.size(), value);
    if (end.ec != std::errc()) {
      break;
    }
    values.push_back(value);
    rest.remove_prefix(static_cast<std::size_t>(end.ptr - rest.data()));
  }
  if (values.empty() || (count > 0 && values.size() != count)) {
    throw InputError(where + ": found " + (text.empty() ? "nothing" : printable(text)) + "; expected " +
                     expectation(unit, count, minimum, maximum));
  }
  rest = rest.substr(0, rest.find_last_not_of(' ') + 1);
  const double scale = scale_of(rest, unit, where, text);
  for (double& value : values) {
    value *= scale;
    if (!(value >= minimum && value <= maximum)) {  // NaN too
      throw InputError(where + ": found " + printable(text) + "; expected " +
                       expectation(unit, count, minimum, maximum));
    }
  }
  return values;
}

std::string format_numbers(std::span<const double> values, std::string_view unit) {
  std::string out;
  for (const double value : values) {
    out += (out.empty() ? "" : " ") + shortest(value);
  }
  return out + unit_text(unit);
}

}  // namespace lpu::node
