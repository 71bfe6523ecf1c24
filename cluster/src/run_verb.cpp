#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <boost/json.hpp>
#include <spdlog/spdlog.h>

#include "compiling.hpp"
#include "configuration.hpp"
#include "json_output.hpp"
#include "lockstep.hpp"
#include "lpu/cluster/run_program.hpp"
#include "lpu/interconnect/topology.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/field_reader.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/suggestion.hpp"
#include "lpu/scheduler/program_file.hpp"
#include "plan_report.hpp"
#include "ranks_report.hpp"
#include "stop_signal.hpp"
#include "test_faults.hpp"
#include "trace.hpp"
#include "verbs.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;
using node::InputError;

/// A program to execute, and the record of where it comes from.
struct Job {
  scheduler::ClusterProgram program;
  json::object inputs;
};

/// A recorded run of a program file stands for its flags; a recorded compilation is read by configure().
CommandLine with_recorded_run(const CommandLine& typed) {
  CommandLine line = with_recorded_flags(typed);
  if (!line.has("config") || line.has("program")) {
    return line;
  }
  const node::FieldReader inputs = node::FieldReader::load(line.value("config")).object("inputs");
  if (!inputs.has("program")) {
    return line;
  }
  line.values.erase("config");
  line.values["program"] = inputs.text("program");
  std::vector<std::string> settings = inputs.texts("set");
  settings.insert(settings.end(), line.settings.begin(), line.settings.end());
  line.settings = std::move(settings);
  return line;
}

/// Flags that say what to compile have no meaning beside a program.
void refuse_compiling_flags(const CommandLine& line) {
  constexpr std::array<std::string_view, 16> kFlags = {"model",
                                                       "system",
                                                       "chip",
                                                       "chips",
                                                       "tp",
                                                       "pp",
                                                       "micro-batch",
                                                       "context",
                                                       "compute",
                                                       "kv",
                                                       "experts",
                                                       "objective",
                                                       "sampling",
                                                       "search-orders",
                                                       "seed",
                                                       "config"};
  for (const std::string_view flag : kFlags) {
    if (line.has(flag)) {
      throw InputError("--" + std::string(flag) +
                       ": found beside --program; expected one of them (the program holds the rest)");
    }
  }
}

json::value parsed_inputs(const scheduler::ClusterProgram& program) {
  json::error_code error;
  json::value inputs = json::parse(program.inputs, error);
  return error ? json::value(nullptr) : inputs;
}

/// The record of a run that executes a program file.
json::object program_inputs(const CommandLine& line, const scheduler::ClusterProgram& program) {
  json::object out;
  out["program"] = line.value("program");
  out["set"] = json::value_from(line.settings);
  out["compiled_from"] = parsed_inputs(program);
  return out;
}

Job load_job(const CommandLine& line, const Console& console) {
  const std::vector<node::Setting> settings = parse_settings(line.settings);
  Job out;
  out.program = scheduler::load_program(line.value("program"));
  out.inputs = program_inputs(line, out.program);
  if (!line.has("no-verify")) {
    require_legal(out.program, console);
  }
  // The program is legal for the chip that it was compiled for; a setting changes the machine beneath it.
  node::apply_chip_settings(out.program.chip, settings);
  return out;
}

Job compile_job(const CommandLine& line, const Console& console) {
  const Configuration configuration = configure(line);
  Job out;
  out.inputs = to_inputs(configuration);
  if (line.has("no-verify")) {
    ProgressLine progress(console);
    out.program = scheduler::compile(configuration.request, progress.callback()).program;
  } else {
    out.program = compile_and_verify(configuration.request, console).program;
  }
  return out;
}

std::int32_t users_of(const CommandLine& line, const scheduler::ClusterProgram& program) {
  const std::string text = line.value("users");
  if (text == "saturating") {
    return program.user_slots;
  }
  return static_cast<std::int32_t>(parse_integer("users", text, 1, 1'000'000));
}

json::object to_json(const Occupancy& occupancy) {
  return {{"mxm", occupancy.mxm},
          {"vxm", occupancy.vxm},
          {"sxm", occupancy.sxm},
          {"mem", occupancy.mem},
          {"c2c", occupancy.c2c}};
}

/// Occupancy of each chip, the load of each of its links and where it leads; shares in millionths: there are many.
json::array per_chip(const scheduler::ClusterProgram& program, const RunResult& result) {
  const auto rounded = [](double share) { return std::round(share * 1e6) / 1e6; };
  json::array out;
  for (const ChipFigures& chip : result.per_chip) {
    json::object occupancy = to_json(chip.occupancy);
    for (auto& unit : occupancy) {
      unit.value() = rounded(unit.value().as_double());
    }
    json::array links;
    for (const double share : chip.links) {
      links.emplace_back(rounded(share));
    }
    const node::ChipBinding& binding = program.bindings[static_cast<std::size_t>(chip.chip)];
    json::array peers;
    for (const node::LinkPeer& peer : binding.peers) {
      peers.emplace_back(peer.chip);
    }
    out.push_back({{"chip", chip.chip},
                   {"rank", chip.rank},
                   {"occupancy", occupancy},
                   {"links_busy", links},
                   {"links_to", peers}});
  }
  return out;
}

bool is_complete(const RunResult& result) {
  return result.ended_by_signal == 0 && result.stopped_before_token < 0;
}

json::object to_json(const CommandLine& line, const Job& job, const RunResult& result) {
  const scheduler::ClusterProgram& program = job.program;
  json::object out = result_object(line);
  out["inputs"] = job.inputs;
  out["model"] = program.model;
  out["chips"] = program.chips;
  out["chips_idle"] = result.chips_idle;
  out["tp"] = program.tensor_parallel;
  out["pp"] = program.pipeline_parallel;
  out["micro_batch"] = program.plan.micro_batch;
  out["users"] = result.users;
  out["tokens"] = result.tokens;
  out["context"] = program.plan.context;
  const json::value inputs =
      job.inputs.contains("compiled_from") ? job.inputs.at("compiled_from") : json::value(job.inputs);
  for (const std::string_view key : {"compute", "kv", "experts", "objective"}) {
    if (inputs.is_object() && inputs.get_object().contains(key)) {
      out[key] = inputs.get_object().at(key);
    }
  }
  out["token_latency_cycles"] = result.token_latency_cycles;
  out["token_latency_us"] = node::to_microseconds(node::Cycles(result.token_latency_cycles), program.chip.clock);
  out["token_period_cycles"] = result.token_period_cycles;
  out["tokens_per_second_per_user"] = result.tokens_per_second_per_user;
  out["tokens_per_second"] = result.tokens_per_second;
  out["initiation_interval_cycles"] = result.initiation_interval_cycles;
  out["initiation_interval_measured"] = result.is_interval_measured;
  out["clock_hz"] = program.chip.clock.count();
  out["schedule_digest"] = node::to_hex(result.schedule_digest);
  out["partial"] = !is_complete(result);
  if (result.ended_by_signal != 0) {
    out["ended_by_signal"] = result.ended_by_signal;
  }
  if (result.stopped_before_token >= 0) {
    out["state_saved"] = line.value("save-state");
    out["stopped_before_token"] = result.stopped_before_token;
  }
  if (result.resumed_at_token >= 0) {
    out["resumed_at_token"] = result.resumed_at_token;
  }
  out["iterations"] = result.iterations;
  out["iterations_planned"] = result.tokens * result.groups;
  out["fingerprint"] = is_complete(result) ? json::value(node::to_hex(result.fingerprint)) : json::value(nullptr);
  out["makespan_cycles"] = result.makespan_cycles;
  out["arrivals_checked"] = result.arrivals_checked;
  out["transfers"] = result.transfers;
  out["vectors_moved"] = result.vectors;
  out["messages_in_process"] = result.messages_in_process;
  out["messages_between_ranks"] = result.messages_between_ranks;
  out["bytes_between_ranks"] = result.bytes_between_ranks;
  out["bursts"] = result.bursts;
  out["jitter_cycles_max"] = result.jitter_cycles_max;
  out["occupancy"] = to_json(result.occupancy);
  out["link_busy_max"] = result.link_busy_max;
  out["checks"] = line.has("no-verify") ? "all" : "arrivals and readiness";
  add_ranks(out, result);
  out["wall_s"] = result.wall_s;
  out["chip_cycles_per_wall_s"] = result.chip_cycles_per_wall_s;
  out["wall_us_per_chip_token"] = result.wall_us_per_chip_token;
  out["chips_per_node"] = interconnect::kNodeChips;
  out["per_chip"] = per_chip(program, result);
  return out;
}

std::string to_text(const CommandLine& line, const Job& job, const RunResult& result) {
  const scheduler::ClusterProgram& program = job.program;
  const node::Hertz clock = program.chip.clock;
  const auto cycles = [&](std::int64_t count) { return node::cycles_with_time(node::Cycles(count), clock); };
  std::string out = program.model + " on " + std::to_string(program.chips) + " chips (" + program.chip.name + "): TP " +
                    std::to_string(program.tensor_parallel) + " x PP " + std::to_string(program.pipeline_parallel);
  out += result.chips_idle > 0 ? ", " + std::to_string(result.chips_idle) + " idle\n" : "\n";
  out += "  " + std::to_string(result.tokens) + " tokens for " + std::to_string(result.users) +
         (result.users == 1 ? " user" : " users") +
         " in lockstep, timing plane\n  (no weights loaded; SRAM accounted)\n";
  if (result.ended_by_signal != 0) {
    out += "  PARTIAL: ended by signal " + std::to_string(result.ended_by_signal) + " after " +
           node::with_thousands(result.iterations) + " of " + node::with_thousands(result.tokens * result.groups) +
           " iterations;\n  the figures are those of this part\n";
  }
  if (result.stopped_before_token >= 0) {
    out += "  STOPPED on request before token " + node::with_thousands(result.stopped_before_token) + " of " +
           node::with_thousands(result.tokens) + "; its state is saved:\n  go on with --resume " +
           line.value("save-state") + "; the figures are those of this part\n";
  }
  if (result.resumed_at_token >= 0) {
    out += "  resumed at token " + node::with_thousands(result.resumed_at_token) + " from a saved state\n";
  }
  if (!faults_of_environment().empty()) {
    out += "  faults planted for a test: " + faults_of_environment() + "\n";
  }
  if (!line.settings.empty()) {
    out += "  modified: " + wrapped(node::join(line.settings), 68, 12) + "\n";
  }
  out += "\n";
  Table table;
  table.add({"token latency", cycles(result.token_latency_cycles)});
  table.add({"initiation interval",
             cycles(result.initiation_interval_cycles) +
                 (result.is_interval_measured ? "" : " (one micro-batch: the program's own)")});
  table.add({"speed",
             rate_text(result.tokens_per_second_per_user) + " tokens/s a user, " + rate_text(result.tokens_per_second) +
                 " in all, at II " + node::with_thousands(result.initiation_interval_cycles)});
  table.add({"makespan", cycles(result.makespan_cycles)});
  table.add({"jitter",
             result.jitter_cycles_max == 0
                 ? "0 (by construction; " + node::with_thousands(result.arrivals_checked) + " arrivals checked)"
                 : node::with_thousands(result.jitter_cycles_max) + " cycles"});
  table.add(
      {"exchanged",
       node::with_thousands(result.transfers) + " transfers, " + node::with_thousands(result.vectors) + " vectors"});
  table.add({"messages",
             node::with_thousands(result.messages_in_process) + " in process, " +
                 node::with_thousands(result.messages_between_ranks) + " between ranks"});
  table.add({"occupancy",
             "MXM " + percent(result.occupancy.mxm) + ", VXM " + percent(result.occupancy.vxm) + ", SXM " +
                 percent(result.occupancy.sxm) + ", MEM " + percent(result.occupancy.mem) + ", C2C " +
                 percent(result.occupancy.c2c)});
  table.add({"schedule digest", node::to_hex(result.schedule_digest)});
  table.add({"fingerprint", is_complete(result) ? node::to_hex(result.fingerprint) : "n/a, not complete"});
  table.add({"ranks", ranks_text(result)});
  table.add({"wall time",
             node::fixed(result.wall_s, 2) + " s, " + node::fixed(result.wall_us_per_chip_token, 1) +
                 " us a chip and token"});
  return out + table.text();
}

void add_run_flags(json::object& inputs, const CommandLine& line, const json::value& users) {
  inputs["users"] = users;
  inputs["tokens"] = parse_integer("tokens", line.value("tokens"), 1, 1'000'000);
  inputs["no_verify"] = line.has("no-verify");
}

std::string progress_text(const RunProgress& at, const RunOptions& options, std::chrono::duration<double> wall) {
  const std::int64_t groups = std::max<std::int64_t>(1, at.iterations_total / options.tokens);
  std::string out = "run: token " + node::with_thousands(at.iterations / groups) + " of " +
                    node::with_thousands(options.tokens) + ", cycle " + node::with_thousands(at.cycle);
  if (at.iterations > 0 && wall.count() > 0) {
    const double left =
        wall.count() * static_cast<double>(at.iterations_total - at.iterations) / static_cast<double>(at.iterations);
    out += ", " + node::fixed(static_cast<double>(at.cycle) / wall.count() / 1e6, 2) + " M cycles/s, " +
           node::fixed(left, 0) + " s left";
  }
  return out;
}

/// --trace and the flags that narrow it; refuses a path that cannot be written.
TraceSelection parse_trace(const CommandLine& line) {
  TraceSelection out;
  out.is_wanted = line.has("trace");
  for (const std::string_view flag : {"trace-chips", "trace-cycles"}) {
    if (line.has(flag) && !out.is_wanted) {
      throw InputError("--" + std::string(flag) + ": found it without --trace; expected the file to write beside it");
    }
  }
  if (!out.is_wanted) {
    return out;
  }
  static_cast<void>(writable_file(line.value("trace"), "--trace", ".json"));
  constexpr std::int32_t kFirstNode = 7;
  out.last_chip = kFirstNode;
  if (line.has("trace-chips")) {
    const auto [first, last] = parse_span("trace-chips", line.value("trace-chips"));
    out.first_chip = static_cast<std::int32_t>(std::min<std::int64_t>(first, INT32_MAX));
    out.last_chip = static_cast<std::int32_t>(std::min<std::int64_t>(last, INT32_MAX));
  }
  if (line.has("trace-cycles")) {
    std::tie(out.first_cycle, out.last_cycle) = parse_span("trace-cycles", line.value("trace-cycles"));
  }
  return out;
}

void require_traced_chips(const TraceSelection& selection, const CommandLine& line, std::int32_t chips) {
  if (selection.first_chip >= chips) {
    throw InputError("--trace-chips: found " + line.value("trace-chips") + "; expected chips from 0 to " +
                     std::to_string(chips - 1));
  }
}

void write_trace(const CommandLine& line, const Console& console, const Trace& trace, const Job& job) {
  if (trace.left_out > 0) {
    console.log().warn("--trace: {} bursts were left out, {} are in it; --trace-chips and --trace-cycles select",
                       trace.left_out,
                       trace.bursts.size());
  }
  write_text_file(line.value("trace"), to_chrome_json(trace, job.program));
}

CommandLine effective_line(const CommandLine& typed) {
  refuse_words(typed);
  if (typed.has("program")) {
    refuse_compiling_flags(typed);
  }
  return with_recorded_run(typed);
}

}  // namespace

json::object run_inputs(const CommandLine& typed) {
  const CommandLine line = effective_line(typed);
  if (!line.has("program")) {
    json::object inputs = to_inputs(configure(line));
    add_run_flags(inputs, line, json::value(inputs["users"]));
    return inputs;
  }
  const scheduler::ClusterProgram program = scheduler::load_program(line.value("program"));
  json::object inputs = program_inputs(line, program);
  add_run_flags(inputs, line, users_of(line, program));
  return inputs;
}

namespace {

/// --save-state and --resume go together with a program that was proved: what is checked burst by burst is not saved.
void refuse_unproved_states(const CommandLine& line) {
  for (const std::string_view flag : {"save-state", "resume"}) {
    if (line.has(flag) && line.has("no-verify")) {
      throw InputError("--" + std::string(flag) +
                       ": found beside --no-verify; expected one of them (what every burst is checked against is no "
                       "part of a state)");
    }
  }
}

node::ExitCode exit_code(const RunResult& result) {
  if (result.ended_by_signal != 0) {
    return static_cast<node::ExitCode>(128 + result.ended_by_signal);
  }
  return result.stopped_before_token >= 0 ? node::ExitCode::kStateSaved : node::ExitCode::kDone;
}

}  // namespace

node::ExitCode run_in_lockstep(const CommandLine& typed, const Console& console, RankGroup* group) {
  static_cast<void>(output_folder(typed));  // before the long part
  const CommandLine line = effective_line(typed);
  const interconnect::Carrier carrier = parse_carrier(line.value("transport"));
  const TraceSelection selection = parse_trace(line);
  refuse_unproved_states(line);
  RankSettings settings{.carrier = carrier, .trace = selection, .numbers = {}, .save = {}, .saved = {}};
  if (line.has("save-state")) {
    settings.save = open_save_folder(line.value("save-state"));
    catch_save_signal();
  }
  RunOptions options;
  options.tokens = parse_integer("tokens", line.value("tokens"), 1, 1'000'000);
  Job job = line.has("program") ? load_job(line, console) : compile_job(line, console);
  options.users = users_of(line, job.program);
  options.checks = line.has("no-verify") ? Checks::kAll : Checks::kArrivals;
  add_run_flags(job.inputs, line, options.users);
  require_traced_chips(selection, line, job.program.chips);
  if (!faults_of_environment().empty()) {
    job.inputs["test_faults"] = faults_of_environment();
  }
  if (line.has("resume")) {
    settings.saved = load_saved_run(line.value("resume"), job.program, options);
  }
  ProgressLine progress(console);
  options.progress = [&, begin = std::chrono::steady_clock::now()](const RunProgress& at) {
    progress.show(static_cast<double>(at.iterations) / static_cast<double>(at.iterations_total),
                  progress_text(at, options, std::chrono::steady_clock::now() - begin));
  };
  const RankResult executed = group != nullptr ? run_on_ranks(job.program, options, settings, *group, console)
                                               : run_alone(job.program, options, settings);
  const RunResult& result = executed.run;
  if (selection.is_wanted) {
    write_trace(line, console, executed.trace, job);
  }
  print_result(line, console, to_json(line, job, result), to_text(line, job, result));
  return exit_code(result);
}

}  // namespace lpu::cluster
