#include "lpu/cluster/run.hpp"

#include <exception>
#include <new>
#include <span>
#include <string>

#include <boost/json.hpp>

#include "command_line.hpp"
#include "configuration.hpp"
#include "console.hpp"
#include "json_output.hpp"
#include "lockstep.hpp"
#include "lpu/node/error.hpp"
#include "mpi_session.hpp"
#include "rank_group.hpp"
#include "stop_signal.hpp"
#include "verbs.hpp"
#include "version.hpp"

namespace lpu::cluster {
namespace {

using node::ExitCode;

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
  out["inputs"] = *line.verb == Verb::kRun        ? run_inputs(line)
                  : *line.verb == Verb::kGenerate ? generate_inputs(line)
                                                  : to_inputs(configure(line));
  console.print_line(pretty(out));
}

ExitCode do_verb(const CommandLine& line, const Console& console, RankGroup* group) {
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
      return run_in_lockstep(line, console, group);
    case Verb::kMutate:
      return mutate_program(line, console);
    case Verb::kAssemble:
      return assemble_program(line, console);
    case Verb::kGenerate:
      return generate_text(line, console, group);
    case Verb::kCompare:
      return compare_machines(line, console);
    case Verb::kDemo:
      return demonstrate(line, console, group);
  }
  return ExitCode::kBug;
}

Console make_console(const CommandLine& line) {
  return {line.has("json") ? OutputForm::kJson : OutputForm::kText,
          line.has("quiet") ? Verbosity::kQuiet : Verbosity::kNormal,
          line.value("log-level")};
}

/// Help, version and the like, or no verb at all: nothing is executed.
bool only_talks(const CommandLine& line) {
  return !line.verb || line.has("help") || line.has("version") || line.has("print-config");
}

ExitCode talk(const CommandLine& line, const Console& console) {
  if (line.has("help")) {
    console.print(help(line.verb));
  } else if (line.has("version")) {
    print_version(line, console);
  } else if (!line.verb) {
    console.print(help(std::nullopt));
    return ExitCode::kInput;
  } else {
    print_configuration(line, console);
  }
  return ExitCode::kDone;
}

/// What is wrong, as one line and an exit code. To be called in a handler.
Failure describe_error() {
  const auto failure = [](ExitCode code, const std::string& message) {
    return Failure{.exit_code = static_cast<std::int32_t>(code), .message = message};
  };
  try {
    throw;
  } catch (const node::InputError& error) {
    return failure(ExitCode::kInput, error.what());
  } catch (const node::ScheduleViolation& error) {
    Failure out = failure(ExitCode::kScheduleViolation, error.what());
    out.chip = error.violation().chip;
    out.cycle = error.violation().cycle;
    return out;
  } catch (const node::EnvironmentError& error) {
    return failure(ExitCode::kEnvironment, error.what());
  } catch (const std::bad_alloc&) {
    return failure(ExitCode::kEnvironment, "memory: found none left; expected room for the program");
  } catch (const node::BugError& error) {
    return failure(ExitCode::kBug, std::string("a broken invariant of ours: ") + error.what());
  } catch (const std::exception& error) {
    return failure(ExitCode::kBug, std::string("an unexpected error: ") + error.what());
  }
}

int complain_and_exit(const Failure& failure) {
  complain(failure.message);
  return failure.exit_code;
}

int do_on_ranks(const CommandLine& line, const Launch& launch) {
  if (line.has("save-state")) {
    catch_save_signal();  // launchers hand it to all ranks, and early
  }
  const MpiSession session;
  check_launch(launch, MpiSession::ranks());
  const Console console = make_console(line);
  RankGroup group(version() + " " + commit(), console);
  if (line.has("save-state")) {
    group.allow_saving();
  }
  try {
    const ExitCode code = group.rank() == 0 ? do_verb(line, console, &group) : follow(group, console);
    if (group.rank() == 0) {
      group.release(code);
    }
    return static_cast<int>(code);
  } catch (...) {
    Failure failure = describe_error();
    failure.rank = group.rank();
    if (group.has_started() || group.rank() != 0) {
      // What is wrong with an input is wrong whoever reads it.
      if (failure.exit_code != static_cast<std::int32_t>(ExitCode::kInput)) {
        failure.message = "[rank " + std::to_string(group.rank()) + "] " + failure.message;
      }
      group.fail(failure);
    }
    group.release(static_cast<ExitCode>(failure.exit_code));
    return complain_and_exit(failure);
  }
}

/// The verbs that all ranks take part in.
bool takes_ranks(const CommandLine& line) {
  return *line.verb == Verb::kRun || *line.verb == Verb::kGenerate || *line.verb == Verb::kDemo;
}

int do_line(const CommandLine& line, const Launch& launch) {
  if (only_talks(line) || !takes_ranks(line)) {
    if (launch.is_mpi && !launch.is_first) {
      // Rank 0 does it, and says it all, the exit code too: a launcher kills the rest as soon as one rank ends with
      // another code.
      return static_cast<int>(ExitCode::kDone);
    }
    const Console console = make_console(line);
    return static_cast<int>(only_talks(line) ? talk(line, console) : do_verb(line, console, nullptr));
  }
  // One rank speaks to nobody, and needs no MPI: that would take 6 MB and a third of a second.
  const bool is_alone = launch.tasks == 1 && !launch.source.empty();
  if (launch.is_mpi && !is_alone) {
    return do_on_ranks(line, launch);
  }
  check_launch(launch, 1);
  const Console console = make_console(line);
  return static_cast<int>(do_verb(line, console, nullptr));
}

}  // namespace

int run(int argc, char** argv) {
  const Launch launch = find_launch();
  try {
    const std::span<const char* const> arguments(argv + (argc > 0 ? 1 : 0),
                                                 static_cast<std::size_t>(argc > 0 ? argc - 1 : 0));
    return do_line(parse_command_line(arguments), launch);
  } catch (...) {
    const Failure failure = describe_error();
    if (!launch.is_first) {
      return launch.is_mpi ? static_cast<int>(ExitCode::kDone) : failure.exit_code;
    }
    return complain_and_exit(failure);
  }
}

}  // namespace lpu::cluster
