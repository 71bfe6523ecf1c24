#pragma once
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
[[nodiscard]] node::ExitCode compare_machines(const CommandLine& line, const Console& console);

/// Everything that decides the verb's outcome, in the form that --config reads.
[[nodiscard]] boost::json::object run_inputs(const CommandLine& line);
[[nodiscard]] boost::json::object generate_inputs(const CommandLine& line);

}  // namespace lpu::cluster
