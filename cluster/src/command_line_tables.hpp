#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "command_line.hpp"

namespace lpu::cluster {

// What the command line knows, as rows: the parser, --help, the man page and the completion are made from them.

struct VerbRow {
  Verb verb;
  std::string_view name;
  std::string_view usage;  ///< what stands between the verb and its flags
  std::string_view doc;
  std::string_view examples;
};

struct FlagRow {
  std::string_view name;
  std::string_view value_name;  ///< "N", "FILE"; empty: a switch
  std::string_view initial;     ///< default that value() returns; empty: none
  std::string_view shown;       ///< default as the help says it; empty: `initial`
  std::string_view range;       ///< with the unit
  std::string_view doc;
  std::uint32_t verbs;
  char letter = 0;  ///< short form; 0: none
};

struct ExitRow {
  std::string_view code;
  std::string_view when;
};

/// In the order of Verb.
[[nodiscard]] std::span<const VerbRow> verb_rows();
[[nodiscard]] std::span<const FlagRow> flag_rows();
[[nodiscard]] std::span<const ExitRow> exit_rows();

[[nodiscard]] bool is_flag_of(const FlagRow& flag, Verb verb);
[[nodiscard]] bool is_of_every_verb(const FlagRow& flag);
/// Default of a flag as the help says it.
[[nodiscard]] std::string_view shown_default(const FlagRow& flag);

/// What the program is, in a sentence, two lines.
inline constexpr std::string_view kSummary =
    "compiles a language model into one cycle-exact program per chip of\n"
    "a cluster of Language Processing Units, proves it, and executes it in lockstep.";

inline constexpr std::string_view kExamples =
    "  mpirun -np 64 lpu_cluster\n"
    "  lpu_cluster list models\n"
    "  lpu_cluster plan --model llama-2-70b --chips 576 --explain\n"
    "  lpu_cluster compile --model llama-3-8b -o llama.lpuprog\n"
    "  lpu_cluster run --program llama.lpuprog --tokens 32\n"
    "  lpu_cluster plan --help\n";

}  // namespace lpu::cluster
