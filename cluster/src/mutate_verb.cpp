#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <boost/json.hpp>

#include "compiling.hpp"
#include "json_output.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/scheduler/mutate.hpp"
#include "lpu/scheduler/program_file.hpp"
#include "verbs.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;

json::value known(std::int64_t value) {
  return value < 0 ? json::value(nullptr) : json::value(value);
}

json::object to_json(const scheduler::FaultSite& site) {
  return {{"chip", known(site.chip)},
          {"cycle", known(site.cycle)},
          {"last_cycle", known(site.last_cycle)},
          {"instruction", known(site.instruction)}};
}

/// All kinds; with a program, which of them have a place in it.
node::ExitCode list_kinds(const CommandLine& line, const Console& console) {
  const bool has_program = line.has("program") || !line.words.empty();
  const std::string file = has_program ? program_file(line) : std::string();
  const std::vector<scheduler::MutationOffer> offers =
      has_program ? scheduler::list_mutations(scheduler::load_program(file)) : scheduler::list_mutations();
  json::object out = result_object(line);
  out["inputs"] = {{"program", has_program ? json::value(file) : json::value(nullptr)}};
  json::array kinds;
  std::string text;
  for (const scheduler::MutationOffer& offer : offers) {
    kinds.push_back({{"name", offer.name}, {"applies", offer.applies}, {"doc", offer.doc}});
    text += "  " + std::string(offer.name) + (offer.applies ? "" : "  (has no place in this program)") + "\n      " +
            wrapped(offer.doc, 74, 6) + "\n";
  }
  out["kinds"] = std::move(kinds);
  console.print(console.is_json() ? pretty(out) + "\n" : text);
  return node::ExitCode::kDone;
}

}  // namespace

node::ExitCode mutate_program(const CommandLine& line, const Console& console) {
  if (line.has("list")) {
    return list_kinds(line, console);
  }
  const std::string source = program_file(line);
  if (!line.has("kind")) {
    throw node::InputError("--kind: found nothing; expected a kind of lpu_cluster mutate --list");
  }
  const std::string kind = line.value("kind");
  const std::int64_t seed = parse_integer("seed", line.value("seed"), 0, std::numeric_limits<std::int64_t>::max());
  const std::string file = output_file(line, ".lpuprog");
  const scheduler::ClusterProgram program = scheduler::load_program(source);
  require_legal(program, console);
  const scheduler::Mutant mutant = scheduler::mutate(program, kind, static_cast<std::uint64_t>(seed));
  scheduler::save_program(mutant.program, file);

  json::object out = result_object(line);
  out["inputs"] = {{"program", source}, {"kind", kind}, {"seed", seed}};
  out["file"] = file;
  out["kind"] = mutant.planted.kind;
  out["description"] = mutant.planted.description;
  out["planted"] = to_json(mutant.planted.site);
  json::array witnesses;
  for (const scheduler::FaultSite& site : mutant.planted.witnesses) {
    witnesses.push_back(to_json(site));
  }
  out["witnesses"] = std::move(witnesses);
  out["schedule_digest"] = node::to_hex(scheduler::schedule_digest(mutant.program));
  console.print(console.is_json() ? pretty(out) + "\n"
                                  : file + ": " + mutant.planted.kind + ": " + mutant.planted.description + "\n");
  return node::ExitCode::kDone;
}

}  // namespace lpu::cluster
