#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <boost/json.hpp>

#include "compiling.hpp"
#include "json_output.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/scheduler/program_file.hpp"
#include "lpu/scheduler/verify.hpp"
#include "plan_report.hpp"
#include "verbs.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;
using scheduler::CompileRequest;
using scheduler::Objective;

json::object compiled_object(const CommandLine& line, const Configuration& configuration) {
  json::object out = result_object(line);
  out["inputs"] = to_inputs(configuration);
  return out;
}

/// `plan --json` answers also where the answer is no.
void print_misfit(const CommandLine& line,
                  const Console& console,
                  const Configuration& configuration,
                  const scheduler::DoesNotFit& misfit) {
  json::object out = compiled_object(line, configuration);
  out["fits"] = false;
  out["chips"] = configuration.request.chips;
  out["smallest_chips"] = misfit.smallest_chips() == 0 ? json::value(nullptr) : json::value(misfit.smallest_chips());
  out["reason"] = misfit.what();
  print_result(line, console, out, "");
}

/// One user, and a quarter, a half and all of those that saturate the pipeline or fit.
std::vector<std::int32_t> user_counts(const scheduler::ClusterProgram& program) {
  const std::int32_t most = program.user_slots;
  std::vector<std::int32_t> out = {1, std::max(most / 4, 1), std::max(most / 2, 1), most};
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

struct Pairs {
  json::array rows;
  Table table;
};

void add_pairs(Pairs& out, const CompileRequest& request, const scheduler::Compiled& compiled) {
  const scheduler::ClusterProgram& program = compiled.program;
  for (const std::int32_t users : user_counts(program)) {
    const Service service = serve(program, users);
    json::object row;
    row["objective"] = name(request.objective);
    row["tp"] = program.tensor_parallel;
    row["pp"] = program.pipeline_parallel;
    row["micro_batch"] = program.plan.micro_batch;
    row["users"] = users;
    row["initiation_interval_cycles"] = program.initiation_interval;
    row["token_latency_cycles"] = program.token_latency;
    row["token_latency_us"] = node::to_microseconds(node::Cycles(program.token_latency), program.chip.clock);
    row["token_period_cycles"] = service.token_period;
    row["tokens_per_second_per_user"] = service.tokens_per_second_per_user;
    row["tokens_per_second"] = service.tokens_per_second;
    out.rows.push_back(std::move(row));
    out.table.add({std::string(name(request.objective)),
                   std::to_string(program.tensor_parallel) + " x " + std::to_string(program.pipeline_parallel),
                   node::with_thousands(program.initiation_interval),
                   node::with_thousands(program.token_latency),
                   node::with_thousands(users),
                   rate_text(service.tokens_per_second_per_user),
                   rate_text(service.tokens_per_second)});
  }
}

/// Pairs of II and latency of both objectives: the empty machine and the loaded one.
Pairs find_pairs(const CompileRequest& request, const Console& console) {
  Pairs out;
  out.table.add({"objective", "TP x PP", "II", "latency", "users", "tokens/s a user", "tokens/s"});
  for (const Objective objective : {Objective::kLatency, Objective::kThroughput}) {
    CompileRequest variant = request;
    variant.objective = objective;
    variant.users.reset();
    add_pairs(out, variant, compile_and_verify(variant, console));
  }
  return out;
}

}  // namespace

node::ExitCode plan_model(const CommandLine& line, const Console& console) {
  refuse_words(line);
  static_cast<void>(output_folder(line));  // before the long part
  const Configuration configuration = configure(line);
  const CompileRequest& request = configuration.request;
  json::object object = compiled_object(line, configuration);
  std::string text;
  try {
    scheduler::Compiled compiled = compile_and_verify(request, console);
    compiled.report.users_fit = scheduler::fitting_users(request, compiled);
    const std::int32_t smallest = scheduler::smallest_chips(request);
    add_plan(object, request, compiled, smallest);
    text = plan_text(configuration, compiled, smallest);
    if (line.has("explain")) {
      text += "\n" + explain_text(request, compiled);
    }
    if (line.has("pareto")) {
      Pairs pairs = find_pairs(request, console);
      object["pareto"] = std::move(pairs.rows);
      text +=
          "\n  pairs of initiation interval and latency, in cycles (latency: the empty\n"
          "  machine; throughput: the loaded one); each tokens/s holds at its line's II\n" +
          pairs.table.text();
    }
  } catch (const scheduler::DoesNotFit& misfit) {
    if (console.is_json()) {
      print_misfit(line, console, configuration, misfit);
    }
    throw;
  }
  print_result(line, console, object, text);
  return node::ExitCode::kDone;
}

node::ExitCode compile_program(const CommandLine& line, const Console& console) {
  refuse_words(line);
  const std::string file = output_file(line, ".lpuprog");
  static_cast<void>(output_folder(line));
  const Configuration configuration = configure(line);
  scheduler::Compiled compiled = compile_and_verify(configuration.request, console);
  compiled.report.users_fit = scheduler::fitting_users(configuration.request, compiled);
  scheduler::save_program(compiled.program, file);
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(file));
  const std::int32_t smallest = scheduler::smallest_chips(configuration.request);
  json::object object = compiled_object(line, configuration);
  object["file"] = file;
  object["file_bytes"] = size;
  object["texts"] = compiled.program.texts.size();
  object["verified"] = true;
  add_plan(object, configuration.request, compiled, smallest);
  print_result(line,
               console,
               object,
               plan_text(configuration, compiled, smallest) + "\n  " + file + ": " +
                   node::approximate_bytes(node::Bytes(size)) + ", " + std::to_string(compiled.program.texts.size()) +
                   " distinct texts, verified\n");
  return node::ExitCode::kDone;
}

node::ExitCode verify_program(const CommandLine& line, const Console& console) {
  const std::string file = program_file(line);
  const auto most = static_cast<std::size_t>(parse_integer("most", line.value("most"), 1, 1'000'000));
  const scheduler::ClusterProgram program = scheduler::load_program(file);
  const std::vector<node::Violation> breaches = scheduler::verify(program, most);
  json::object object = result_object(line);
  object["inputs"] = {{"program", file}, {"most", most}};
  object["verified"] = breaches.empty();
  object["schedule_digest"] = node::to_hex(scheduler::schedule_digest(program));
  object["chips"] = program.chips;
  object["texts"] = program.texts.size();
  json::array list;
  for (const node::Violation& breach : breaches) {
    const auto known = [](std::int64_t value) { return value < 0 ? json::value(nullptr) : json::value(value); };
    list.push_back({{"chip", known(breach.chip)},
                    {"cycle", known(breach.cycle)},
                    {"instruction", known(breach.instruction)},
                    {"reason", breach.reason}});
  }
  object["breaches"] = std::move(list);
  std::string text;
  if (breaches.empty()) {
    text = file + ": free of conflicts: " + node::with_thousands(program.chips) + " chips, " +
           std::to_string(program.texts.size()) + " distinct texts, schedule " +
           node::to_hex(scheduler::schedule_digest(program)) + "\n";
  }
  console.print(console.is_json() ? pretty(object) + "\n" : text);
  if (breaches.empty()) {
    return node::ExitCode::kDone;
  }
  for (std::size_t i = 0; i + 1 < breaches.size(); ++i) {
    complain(breaches[i].message());
  }
  throw node::ScheduleViolation(breaches.back());
}

}  // namespace lpu::cluster
