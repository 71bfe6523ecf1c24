#include "lpu/node/quantity_text.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "lpu/node/error.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::node {
namespace {

__extension__ using Wide = __int128;

constexpr std::int64_t kMaximum = std::numeric_limits<std::int64_t>::max();

struct UnitRow {
  std::string_view name;
  std::int64_t scale;      ///< base units in one of it
  bool is_printed = true;  ///< format_quantity may choose it
};

constexpr UnitRow kByteUnits[] = {
    {"B", 1},
    {"kB", 1'000, false},
    {"KiB", 1LL << 10U},
    {"MB", 1'000'000},
    {"MiB", 1LL << 20U},
    {"GB", 1'000'000'000},
    {"GiB", 1LL << 30U},
    {"TB", 1'000'000'000'000},
    {"TiB", 1LL << 40U},
};
constexpr UnitRow kCycleUnits[] = {{"cycles", 1}, {"cycle", 1, false}};
constexpr UnitRow kHertzUnits[] = {{"Hz", 1}, {"kHz", 1'000}, {"MHz", 1'000'000}, {"GHz", 1'000'000'000, false}};
constexpr UnitRow kRateUnits[] = {
    {"B/s", 1},
    {"kB/s", 1'000},
    {"MB/s", 1'000'000},
    {"GB/s", 1'000'000'000},
    {"TB/s", 1'000'000'000'000, false},
    {"Gbit/s", 125'000'000, false},
};
constexpr UnitRow kPowerUnits[] = {{"mW", 1}, {"W", 1'000}, {"kW", 1'000'000, false}};
/// In picoseconds, so that a whole number stands for each.
constexpr UnitRow kTimeUnits[] = {{"ns", 1'000}, {"us", 1'000'000}, {"ms", 1'000'000'000}};

std::span<const UnitRow> units(Dimension dimension) {
  switch (dimension) {
    case Dimension::kCount:
      return {};
    case Dimension::kBytes:
      return kByteUnits;
    case Dimension::kCycles:
      return kCycleUnits;
    case Dimension::kHertz:
      return kHertzUnits;
    case Dimension::kBytesPerSecond:
      return kRateUnits;
    case Dimension::kMilliWatts:
      return kPowerUnits;
  }
  return {};
}

std::vector<std::string> names(std::span<const UnitRow> rows) {
  std::vector<std::string> out;
  for (const UnitRow& row : rows) {
    if (row.name != "cycle") {
      out.emplace_back(row.name);
    }
  }
  return out;
}

std::string list_of(const std::vector<std::string>& words) {
  std::string out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    out += (i == 0 ? "" : i + 1 == words.size() ? " or " : ", ") + words[i];
  }
  return out;
}

const UnitRow* find(std::span<const UnitRow> rows, std::string_view name) {
  for (const UnitRow& row : rows) {
    if (row.name == name) {
      return &row;
    }
  }
  return nullptr;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// A decimal number as mantissa / 10^decimals, and the text after it.
struct Decimal {
  Wide mantissa = 0;
  Wide divisor = 1;
  std::string_view unit;
};

struct Failure {
  const std::string& where;
  std::string_view text;
  [[noreturn]] void operator()(const std::string& expected) const {
    throw InputError(where + ": found " + (text.empty() ? "nothing" : printable(text)) + "; expected " + expected);
  }
};

Decimal read_decimal(std::string_view text, const Failure& fail, const std::string& example) {
  Decimal out;
  std::size_t at = 0;
  std::size_t digits = 0;
  bool is_fraction = false;
  for (; at < text.size(); ++at) {
    if (text[at] == '.' && !is_fraction && digits > 0) {
      is_fraction = true;
      continue;
    }
    if (!is_digit(text[at])) {
      break;
    }
    if (++digits > 24) {
      fail("at most 24 digits");
    }
    out.mantissa = out.mantissa * 10 + (text[at] - '0');
    if (is_fraction) {
      out.divisor *= 10;
    }
  }
  if (digits == 0 || text[at - 1] == '.') {
    fail("a number of 0 or more, such as " + example);
  }
  while (at < text.size() && text[at] == ' ') {
    ++at;
  }
  out.unit = text.substr(at);
  return out;
}

std::int64_t scaled(const Decimal& number, std::int64_t scale, const Failure& fail, std::string_view base) {
  // 24 digits x 2^40 stay below 2^127.
  const Wide product = number.mantissa * scale;
  if (product % number.divisor != 0) {
    fail("a whole number of " + std::string(base));
  }
  const Wide value = product / number.divisor;
  if (value > kMaximum) {
    fail("at most " + std::to_string(kMaximum) + " " + std::string(base));
  }
  return static_cast<std::int64_t>(value);
}

std::string_view base_name(Dimension dimension, std::string_view noun) {
  switch (dimension) {
    case Dimension::kCount:
      return noun.empty() ? "things" : noun;
    case Dimension::kBytes:
      return "bytes";
    case Dimension::kCycles:
      return "cycles";
    case Dimension::kHertz:
      return "Hz";
    case Dimension::kBytesPerSecond:
      return "B/s";
    case Dimension::kMilliWatts:
      return "mW";
  }
  return noun;
}

std::int64_t parse_count(const Decimal& number, std::string_view noun, const Failure& fail) {
  std::string_view unit = number.unit;
  std::int64_t scale = 1;
  if (unit == "k" || unit.starts_with("k ")) {
    scale = 1024;
    unit.remove_prefix(unit.size() > 1 ? 2 : 1);
  }
  const bool is_singular = noun.ends_with('s') && unit == noun.substr(0, noun.size() - 1);
  if (!unit.empty() && unit != noun && !is_singular) {
    fail(noun.empty() ? std::string("a plain number") : "a number of " + std::string(noun));
  }
  return scaled(number, scale, fail, base_name(Dimension::kCount, noun));
}

std::int64_t cycles_of_time(const Decimal& number, const UnitRow& unit, Hertz clock, const Failure& fail) {
  constexpr Wide kPicosecondsPerSecond = 1'000'000'000'000;
  if (number.mantissa > Wide{1} << 60U || clock.count() > 1'000'000'000'000) {
    fail("a time of at most 2^60 in its last digit");
  }
  // mantissa / divisor x scale picoseconds, in whole units of 1 / divisor first: no rounding but the last.
  const Wide picoseconds = number.mantissa * unit.scale;
  const Wide denominator = number.divisor * kPicosecondsPerSecond;
  // clock < 2^40 and picoseconds < 2^90: split, so that the product stays inside 127 bits.
  const Wide whole = picoseconds / denominator;
  const Wide rest = picoseconds % denominator;
  if (whole > kMaximum / std::max<std::int64_t>(clock.count(), 1)) {
    fail("a time that 64 bits of cycles hold");
  }
  // rest < 10^24 x 10^12 only for numbers of 24 decimals; scale both down together where needed.
  Wide numerator = rest;
  Wide shortened = denominator;
  while (numerator > (Wide{1} << 86U)) {
    numerator /= 10;
    shortened /= 10;
  }
  const Wide cycles = whole * clock.count() + (numerator * clock.count() + shortened - 1) / shortened;
  return static_cast<std::int64_t>(cycles);
}

std::string decimal_text(std::int64_t value, std::int64_t scale) {
  std::string out = std::to_string(value / scale);
  std::int64_t rest = value % scale;
  if (rest != 0) {
    out += '.';
    while (rest != 0) {
      rest *= 10;
      out += static_cast<char>('0' + rest / scale);
      rest %= scale;
    }
  }
  return out;
}

}  // namespace

std::int64_t parse_quantity(
    std::string_view text, Dimension dimension, const std::string& where, std::string_view noun, Hertz clock) {
  const Failure fail{where, text};
  const std::span<const UnitRow> rows = units(dimension);
  const std::string example =
      dimension == Dimension::kCount
          ? (noun.empty() ? std::string("8") : "8 " + std::string(noun))
          : "8 " + std::string(rows.back().name == "cycle" ? "cycles" : rows[rows.size() / 2].name);
  const Decimal number = read_decimal(text, fail, example);
  if (dimension == Dimension::kCount) {
    return parse_count(number, noun, fail);
  }
  std::vector<std::string> known = names(rows);
  const bool takes_time = dimension == Dimension::kCycles && clock.count() > 0;
  if (takes_time) {
    for (const std::string& name : names(kTimeUnits)) {
      known.push_back(name);
    }
  }
  if (number.unit.empty()) {
    fail("a unit after the number: append " + list_of(known));
  }
  if (const UnitRow* row = find(rows, number.unit)) {
    return scaled(number, row->scale, fail, base_name(dimension, noun));
  }
  if (const UnitRow* row = takes_time ? find(kTimeUnits, number.unit) : nullptr) {
    return cycles_of_time(number, *row, clock, fail);
  }
  fail("a unit of " + list_of(known) + did_you_mean(number.unit, known));
}

std::string format_quantity(std::int64_t value, Dimension dimension, std::string_view noun) {
  if (dimension == Dimension::kCount) {
    return std::to_string(value) + (noun.empty() ? "" : " " + std::string(noun));
  }
  const std::span<const UnitRow> rows = units(dimension);
  const UnitRow* best = &rows.front();
  const bool must_divide = dimension == Dimension::kBytes;  // KiB and MB do not follow one another by powers of ten
  for (const UnitRow& row : rows) {
    const bool fits = must_divide ? value % row.scale == 0 : value >= row.scale;
    if (row.is_printed && fits && value != 0) {
      best = &row;
    }
  }
  return decimal_text(value, best->scale) + " " + std::string(best->name);
}

std::string with_thousands(std::int64_t value) {
  std::string digits = std::to_string(value);
  const std::size_t first = value < 0 ? 1 : 0;
  for (std::size_t at = digits.size(); at > first + 3;) {
    at -= 3;
    digits.insert(at, 1, ',');
  }
  return digits;
}

std::string fixed(double value, int decimals) {
  std::array<char, 400> buffer{};
  const auto end =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed, decimals);
  return {buffer.data(), end.ptr};
}

std::string shortest(double value) {
  std::array<char, 64> buffer{};
  const bool is_whole = std::abs(value) < 1e15 && std::floor(value) == value;  // 500000, not 5e+05
  char* const begin = buffer.data();
  const auto end = is_whole ? std::to_chars(begin, begin + buffer.size(), value, std::chars_format::fixed)
                            : std::to_chars(begin, begin + buffer.size(), value);
  return {begin, end.ptr};
}

namespace {

/// Three significant digits, no exponent: 12.5, 2.41, 305.
std::string three_digits(double value) {
  const double size = std::abs(value);
  return fixed(value, size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}

}  // namespace

std::string cycles_with_time(Cycles cycles, Hertz clock) {
  const double us = to_microseconds(cycles, clock);
  const std::string time = us >= 1e6   ? three_digits(us / 1e6) + " s"
                           : us >= 1e3 ? three_digits(us / 1e3) + " ms"
                                       : three_digits(us) + " us";
  return with_thousands(cycles.count()) + " cycles = " + time;
}

std::string approximate_bytes(Bytes bytes) {
  static constexpr std::array<std::string_view, 6> kNames = {"B", "kB", "MB", "GB", "TB", "PB"};
  auto value = static_cast<double>(bytes.count());
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kNames.size()) {
    value /= 1000;
    ++unit;
  }
  return (unit == 0 ? std::to_string(bytes.count()) : three_digits(value)) + " " + std::string(kNames[unit]);
}

}  // namespace lpu::node
