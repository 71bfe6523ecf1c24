#pragma once
#include <cstdint>
#include <string>

#include <boost/json.hpp>

#include "command_line.hpp"
#include "console.hpp"
#include "lpu/node/error.hpp"

namespace lpu::cluster {

class RankGroup;

// One function a verb: does it and prints the result; what goes wrong is thrown.
[[nodiscard]] node::ExitCode list_presets(const CommandLine& line, const Console& console);
[[nodiscard]] node::ExitCode plan_model(const CommandLine& line, const Console& console);
[[nodiscard]] node::ExitCode compile_program(const CommandLine& line, const Console& console);
[[nodiscard]] node::ExitCode verify_program(const CommandLine& line, const Console& console);
[[nodiscard]] node::ExitCode inspect_program(const CommandLine& line, const Console& console);
/// @param group  the ranks that take part; nullptr: this process alone
[[nodiscard]] node::ExitCode run_in_lockstep(const CommandLine& line, const Console& console, RankGroup* group);
[[nodiscard]] node::ExitCode mutate_program(const CommandLine& line, const Console& console);
[[nodiscard]] node::ExitCode assemble_program(const CommandLine& line, const Console& console);
/// @param group  as for run_in_lockstep()
[[nodiscard]] node::ExitCode generate_text(const CommandLine& line, const Console& console, RankGroup* group);
[[nodiscard]] node::ExitCode demonstrate(const CommandLine& line, const Console& console, RankGroup* group);

/// What a shipped checkpoint says, and which execution said it.
struct GeneratedText {
  std::string text;  ///< prompt included
  std::uint64_t result_digest = 0;
  std::uint64_t fingerprint = 0;
  std::int32_t chips = 0, tp = 0, pp = 0, ranks = 1;
  int ended_by_signal = 0;
};
/// As `generate`, without printing.
[[nodiscard]] GeneratedText generate_shipped(const std::string& checkpoint_name,
                                             const std::string& prompt,
                                             std::int32_t new_tokens,
                                             std::int32_t chips,
                                             const Console& console,
                                             RankGroup* group);
[[nodiscard]] node::ExitCode compare_machines(const CommandLine& line, const Console& console);

/// Everything that decides the verb's outcome, in the form that --config reads.
[[nodiscard]] boost::json::object run_inputs(const CommandLine& line);
[[nodiscard]] boost::json::object generate_inputs(const CommandLine& line);

}  // namespace lpu::cluster
