#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include <boost/json.hpp>

#include "compiling.hpp"
#include "json_output.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/scheduler/assemble.hpp"
#include "lpu/scheduler/inspect.hpp"
#include "lpu/scheduler/program_file.hpp"
#include "verbs.hpp"
#include "version.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;
using node::InputError;

/// Chips of "A-B", which the program must have.
std::vector<std::int32_t> parse_chips(const std::string& flag,
                                      const std::string& text,
                                      const scheduler::ClusterProgram& program) {
  const auto [first, last] = parse_span(flag, text);
  if (last >= program.chips) {
    throw InputError("--" + flag + ": found " + text + "; expected chips from 0 to " +
                     std::to_string(program.chips - 1));
  }
  std::vector<std::int32_t> out;
  for (std::int64_t chip = first; chip <= last; ++chip) {
    out.push_back(static_cast<std::int32_t>(chip));
  }
  return out;
}

}  // namespace

node::ExitCode inspect_program(const CommandLine& line, const Console& console) {
  scheduler::ClusterProgram program = scheduler::load_program(program_file(line));
  scheduler::InspectOptions options;
  options.version = version();
  options.command = line.command;
  if (line.has("own-texts")) {
    program = scheduler::with_own_texts(program, parse_chips("own-texts", line.value("own-texts"), program));
  }
  if (line.has("trace-chips")) {
    options.chips = parse_chips("trace-chips", line.value("trace-chips"), program);
  }
  if (line.has("trace-cycles")) {
    options.cycles = parse_span("trace-cycles", line.value("trace-cycles"));
  }
  if (line.has("unit")) {
    options.unit = scheduler::parse_unit(line.value("unit"));
  }
  if (console.is_json()) {
    scheduler::inspect_json(program, options, std::cout);
  } else {
    scheduler::inspect(program, options, std::cout);
  }
  console.print("");  // checks that stdout took it all
  return node::ExitCode::kDone;
}

node::ExitCode assemble_program(const CommandLine& line, const Console& console) {
  const std::string listing = only_word(line, "one listing of inspect --json");
  const std::string file = output_file(line, ".lpuprog");
  const scheduler::ClusterProgram program = scheduler::assemble(listing);
  scheduler::save_program(program, file);
  json::object out = result_object(line);
  out["inputs"] = {{"listing", listing}};
  out["file"] = file;
  out["chips"] = program.chips;
  out["texts"] = program.texts.size();
  out["schedule_digest"] = node::to_hex(scheduler::schedule_digest(program));
  const std::string text = file + ": " + node::with_thousands(program.chips) + " chips, " +
                           std::to_string(program.texts.size()) + " distinct texts, schedule " +
                           node::to_hex(scheduler::schedule_digest(program)) + " (not verified)\n";
  console.print(console.is_json() ? pretty(out) + "\n" : text);
  return node::ExitCode::kDone;
}

}  // namespace lpu::cluster
