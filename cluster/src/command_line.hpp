#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lpu::cluster {

enum class Verb : std::uint8_t {
  kList,
  kPlan,
  kCompile,
  kVerify,
  kInspect,
  kRun,
  kMutate,
  kAssemble,
  kGenerate,
  kCompare,
  kDemo
};

/// What a call of the program says, before any value is judged.
struct CommandLine {
  std::string command;  ///< as typed, for the record
  std::optional<Verb> verb;
  std::vector<std::string> words;                          ///< after the verb, without a flag
  std::map<std::string, std::string, std::less<>> values;  ///< flag without dashes -> value; switches: ""
  std::vector<std::string> settings;                       ///< each --set, in order

  [[nodiscard]] bool has(std::string_view flag) const { return values.find(flag) != values.end(); }
  /// The flag's value, or its default of the table.
  [[nodiscard]] std::string value(std::string_view flag) const;
};

/// @throws InputError  an unknown verb or flag (names the nearest), a flag of another verb, a value missing or given
/// twice
[[nodiscard]] CommandLine parse_command_line(std::span<const char* const> arguments);

[[nodiscard]] std::string_view name(Verb verb);
/// The general help, or that of a verb: usage, every flag with default, unit and range, examples.
[[nodiscard]] std::string help(std::optional<Verb> verb);

/// A flag's value as a whole number in [minimum, maximum]; `k` = 1,024.
/// @throws InputError  "--<flag>: found …; expected …"
[[nodiscard]] std::int64_t parse_integer(const std::string& flag,
                                         const std::string& text,
                                         std::int64_t minimum,
                                         std::int64_t maximum);

/// "a,b,c": its words, none of them empty.
/// @throws InputError  "--<flag>: found …; expected …"
[[nodiscard]] std::vector<std::string> parse_list(const std::string& flag, const std::string& text);

/// "A-B" or "A": two whole numbers, the smaller one first.
/// @throws InputError  "--<flag>: found …; expected …"
[[nodiscard]] std::pair<std::int64_t, std::int64_t> parse_span(const std::string& flag, const std::string& text);

}  // namespace lpu::cluster
