#include "lpu/cluster/run.hpp"

#include <cstdlib>
#include <exception>
#include <new>
#include <span>
#include <string>
#include <string_view>

#include <boost/json.hpp>

#include "command_line.hpp"
#include "configuration.hpp"
#include "console.hpp"
#include "json_output.hpp"
#include "lpu/node/error.hpp"
#include "verbs.hpp"
#include "version.hpp"

namespace lpu::cluster {
namespace {

using node::ExitCode;

/// Under a launcher every rank runs this program; the verbs of one rank are done, and print, on rank 0 alone.
bool is_idle_rank() {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK"}) {
    if (const char* rank = std::getenv(variable)) {  // NOLINT(concurrency-mt-unsafe): before any thread starts
      return std::string_view(rank) != "0";
    }
  }
  return false;
}

void print_version(const CommandLine& line, const Console& console) {
  if (console.is_json()) {
    boost::json::object out = result_object(line);
    out["commit"] = commit();
    out["mpi"] = mpi_library();
    out["compiler"] = compiler();
    console.print_line(pretty(out));
    return;
  }
  console.print("lpu_cluster " + version() + "\ncommit   " + commit() + "\nMPI      " + mpi_library() + "\ncompiler " +
                compiler() + "\n");
}

void print_configuration(const CommandLine& line, const Console& console) {
  boost::json::object out = result_object(line);
  out["inputs"] = *line.verb == Verb::kRun ? run_inputs(line) : to_inputs(configure(line));
  console.print_line(pretty(out));
}

ExitCode do_verb(const CommandLine& line, const Console& console) {
  switch (*line.verb) {
    case Verb::kList:
      return list_presets(line, console);
    case Verb::kPlan:
      return plan_model(line, console);
    case Verb::kCompile:
      return compile_program(line, console);
    case Verb::kVerify:
      return verify_program(line, console);
    case Verb::kInspect:
      return inspect_program(line, console);
    case Verb::kRun:
      return run_in_lockstep(line, console);
    case Verb::kMutate:
      return mutate_program(line, console);
    case Verb::kAssemble:
      return assemble_program(line, console);
  }
  return ExitCode::kBug;
}

ExitCode do_line(const CommandLine& line) {
  const Console console(line.has("json") ? OutputForm::kJson : OutputForm::kText,
                        line.has("quiet") ? Verbosity::kQuiet : Verbosity::kNormal,
                        line.value("log-level"));
  if (line.has("help")) {
    console.print(help(line.verb));
    return ExitCode::kDone;
  }
  if (line.has("version")) {
    print_version(line, console);
    return ExitCode::kDone;
  }
  if (!line.verb) {
    console.print(help(std::nullopt));
    return ExitCode::kInput;
  }
  if (line.has("print-config")) {
    print_configuration(line, console);
    return ExitCode::kDone;
  }
  return do_verb(line, console);
}

int report(ExitCode code, const std::string& message) {
  complain(message);
  return static_cast<int>(code);
}

}  // namespace

int run(int argc, char** argv) {
  if (is_idle_rank()) {
    // Rank 0 says it all, the exit code too: a launcher kills the rest as soon as one rank ends with another code.
    return static_cast<int>(ExitCode::kDone);
  }
  try {
    const std::span<const char* const> arguments(argv + (argc > 0 ? 1 : 0),
                                                 static_cast<std::size_t>(argc > 0 ? argc - 1 : 0));
    return static_cast<int>(do_line(parse_command_line(arguments)));
  } catch (const node::InputError& error) {
    return report(ExitCode::kInput, error.what());
  } catch (const node::ScheduleViolation& error) {
    return report(ExitCode::kScheduleViolation, error.what());
  } catch (const node::EnvironmentError& error) {
    return report(ExitCode::kEnvironment, error.what());
  } catch (const std::bad_alloc&) {
    return report(ExitCode::kEnvironment, "memory: found none left; expected room for the program");
  } catch (const node::BugError& error) {
    return report(ExitCode::kBug, std::string("a broken invariant of ours: ") + error.what());
  } catch (const std::exception& error) {
    return report(ExitCode::kBug, std::string("an unexpected error: ") + error.what());
  }
}

}  // namespace lpu::cluster
