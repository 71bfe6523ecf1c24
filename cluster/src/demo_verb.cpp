#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/json.hpp>
#include <spdlog/spdlog.h>

#include "comparison.hpp"
#include "compiling.hpp"
#include "configuration.hpp"
#include "json_output.hpp"
#include "lockstep.hpp"
#include "lpu/cluster/presets.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity_text.hpp"
#include "plan_report.hpp"
#include "ranks_report.hpp"
#include "verbs.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;

constexpr const char* kLpu = "rack-64";
constexpr const char* kGpu = "dgx-h100";
constexpr double kSloMs = 5;

/// Seconds of the steps, for people and results.json.
class Steps {
 public:
  void end(std::string name) {
    const auto now = std::chrono::steady_clock::now();
    seconds_.emplace_back(std::move(name), std::chrono::duration<double>(now - last_).count());
    last_ = now;
  }
  [[nodiscard]] json::object to_json() const {
    json::object out;
    for (const auto& [name, seconds] : seconds_) {
      out[name] = seconds;
    }
    return out;
  }
  [[nodiscard]] std::string text() const {
    std::string out;
    for (const auto& [name, seconds] : seconds_) {
      out += (out.empty() ? "" : ", ") + name + " " + node::fixed(seconds, 1) + " s";
    }
    return out;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  std::vector<std::pair<std::string, double>> seconds_;
};

/// The configuration of a compiling verb for one of the demo's models.
Configuration configure_model(const CommandLine& line, const std::string& model) {
  CommandLine own;
  own.verb = Verb::kPlan;
  own.values["model"] = model;
  if (line.has("search-orders")) {
    own.values["search-orders"] = line.value("search-orders");
  }
  return configure(own);
}

/// One user's decode steps in lockstep over the ranks, each transfer exchanged.
RunResult run_lockstep(const Configuration& configuration,
                       std::int64_t tokens,
                       const Console& console,
                       RankGroup* group) {
  scheduler::ClusterProgram program = compile_and_verify(configuration.request, console).program;
  ProgressLine progress(console);
  RunOptions options;
  options.tokens = tokens;
  options.progress = [&](const RunProgress& at) {
    progress.show(static_cast<double>(at.iterations) / static_cast<double>(at.iterations_total),
                  program.model + " in lockstep: cycle " + node::with_thousands(at.cycle));
  };
  return group != nullptr ? run_on_ranks(program, options, {}, *group, console).run : run_program(program, options);
}

json::object lockstep_json(const std::string& model, const RunResult& run) {
  return {{"model", model},
          {"chips", run.chips},
          {"ranks", run.ranks},
          {"ranks_idle", run.ranks_idle},
          {"tokens", run.tokens},
          {"token_latency_cycles", run.token_latency_cycles},
          {"tokens_per_second_per_user", run.tokens_per_second_per_user},
          {"arrivals_checked", run.arrivals_checked},
          {"transfers", run.transfers},
          {"jitter_cycles_max", run.jitter_cycles_max},
          {"schedule_digest", node::to_hex(run.schedule_digest)},
          {"fingerprint", node::to_hex(run.fingerprint)},
          {"wall_s", run.wall_s}};
}

std::string lockstep_text(const std::string& model, const RunResult& run) {
  std::string out = "  " + model + ": " + node::with_thousands(run.chips) + " chips on " + std::to_string(run.ranks) +
                    (run.ranks == 1 ? " rank" : " ranks");
  out += run.ranks_idle > 0 ? " (" + std::to_string(run.ranks_idle) + " idle), " : ", ";
  out += std::to_string(run.tokens) + " tokens of one user, no weights loaded\n";
  out += "    " + rate_text(run.tokens_per_second_per_user) + " tokens/s predicted; " +
         node::with_thousands(run.arrivals_checked) + " arrivals checked; jitter " +
         std::to_string(run.jitter_cycles_max) + " cycles (by construction)\n";
  out += "    " + node::with_thousands(run.transfers) + " transfers exchanged in " + node::fixed(run.wall_s, 1) +
         " s of wall time; fingerprint " + node::to_hex(run.fingerprint) + "\n";
  return out;
}

void mark_executed(Curves& curves, const std::string& model, const RunResult& run) {
  for (ScalingRow& row : curves.rows) {
    const bool is_run = row.curve == "S" && row.tier.empty() && row.model == model &&
                        row.tp.value_or(0) * row.pp.value_or(0) == run.chips && row.filled.value_or(false);
    if (is_run) {
      row.fingerprint = node::to_hex(run.fingerprint);
      row.jitter_cycles_max = run.jitter_cycles_max;
    }
  }
}

[[nodiscard]] node::ExitCode interrupted(int signal) {
  return static_cast<node::ExitCode>(128 + signal);
}

std::vector<std::string> models_of(const CommandLine& line) {
  return line.has("model") ? parse_list("model", line.value("model"))
                           : std::vector<std::string>{"llama-2-70b", "mixtral-8x7b", "llama-3-8b"};
}

}  // namespace

node::ExitCode demonstrate(const CommandLine& line, const Console& console, RankGroup* group) {
  refuse_words(line);
  CommandLine writing = line;
  writing.values.emplace("output-dir", ".");
  const std::filesystem::path folder = output_folder(writing);
  std::vector<Configuration> configurations;
  for (const std::string& model : models_of(line)) {
    configurations.push_back(configure_model(line, model));
  }
  Steps steps;
  json::object object = result_object(line);
  object["inputs"] = {{"models", json::value_from(models_of(line))},
                      {"system", json::array{kLpu, kGpu}},
                      {"slo_tpot_ms", json::array{kSloMs}},
                      {"search_orders", configurations.front().request.search_orders}};
  const auto say = [&](const std::string& text) {
    if (!console.is_json()) {
      console.print(text);
    }
  };

  // (a) Real tokens, twice.
  constexpr const char* kShipped = "shakespeare-mixtral-5m";
  constexpr const char* kPrompt = "ROMEO:";
  constexpr std::int32_t kNewTokens = 40;
  constexpr std::int32_t kChips = 64;
  const GeneratedText one = generate_shipped(kShipped, kPrompt, kNewTokens, 1, console, nullptr);
  const GeneratedText many = generate_shipped(kShipped, kPrompt, kNewTokens, kChips, console, group);
  if (one.ended_by_signal != 0 || many.ended_by_signal != 0) {
    return interrupted(std::max(one.ended_by_signal, many.ended_by_signal));
  }
  LPU_CHECK(one.result_digest == many.result_digest && one.text == many.text,
            "numbers that depend on the partition: " + node::to_hex(one.result_digest) + " on one chip, " +
                node::to_hex(many.result_digest) + " on " + std::to_string(many.chips));
  say("1. Real tokens: " + std::string(kShipped) + " on " + std::to_string(many.chips) + " chips, TP " +
      std::to_string(many.tp) + " x PP " + std::to_string(many.pp) + ", " + std::to_string(many.ranks) +
      (many.ranks == 1 ? " rank" : " ranks") + "\n\n" + many.text + "\n\n  result digest " +
      node::to_hex(many.result_digest) + " on " + std::to_string(many.chips) +
      " chips and on one: equal bit for bit, both computed\n\n");
  object["text"] = {{"text", many.text},
                    {"result_digest", node::to_hex(many.result_digest)},
                    {"result_digest_one_chip", node::to_hex(one.result_digest)},
                    {"fingerprint", node::to_hex(many.fingerprint)},
                    {"chips", many.chips},
                    {"ranks", many.ranks}};
  steps.end("text");

  // (b) The timing plane in lockstep.
  constexpr std::int64_t kTokens = 8;
  say("2. Lockstep: every chip its own program, every transfer exchanged\n\n");
  json::array lockstep;
  std::vector<std::pair<std::string, RunResult>> runs;
  for (auto configuration = configurations.rbegin(); configuration != configurations.rend(); ++configuration) {
    const std::string& model = configuration->request.model.name;
    if (configuration->request.model.experts > 0 && configurations.size() > 1) {
      continue;  // one rack, and the largest cluster
    }
    RunResult run = run_lockstep(*configuration, kTokens, console, group);
    if (run.ended_by_signal != 0) {
      return interrupted(run.ended_by_signal);
    }
    say(lockstep_text(model, run));
    lockstep.push_back(lockstep_json(model, run));
    runs.emplace_back(model, std::move(run));
  }
  object["lockstep"] = std::move(lockstep);
  steps.end("lockstep");

  // (c) The curves.
  say("\n3. Scaling: one instance over N devices, every user's TPOT <= 5 ms\n\n");
  Comparison comparison;
  const SystemPreset lpu = load_system(kLpu, "--system");
  const scheduler::GpuSystem gpu = load_gpu_system(kGpu, "--system").system;
  {
    ProgressLine progress(console);
    for (const Configuration& configuration : configurations) {
      const CurveRequest request{.base = configuration.request,
                                 .system = {.name = lpu.name,
                                            .chip = configuration.request.chip,
                                            .node_power_milliwatts = lpu.node_power_milliwatts,
                                            .node_price_usd = lpu.node_price_usd},
                                 .grid = default_grid(configuration.request.chips),
                                 .micro_batches = {MicroBatch{}},
                                 .slos_ms = {kSloMs}};
      const scheduler::GpuRequest rival{.model = configuration.request.model,
                                        .system = gpu,
                                        .context = configuration.request.context,
                                        .compute = configuration.request.compute,
                                        .kv = configuration.request.kv};
      Comparison own;
      own.curves = draw_lpu(request, Filling::kClaim, progress.callback());
      append(own.curves, draw_gpu(rival, request.grid, request.slos_ms));
      add_details(own, request, {rival}, configuration.request.chips, Filling::kClaim);
      for (const auto& [model, run] : runs) {
        mark_executed(own.curves, model, run);
      }
      say(to_text(own) + "\n");
      append(comparison, std::move(own));
    }
  }
  for (const std::string& breach : comparison.curves.refused) {
    console.log().warn("a program that the proof did not pass is no point: {}", breach);
  }
  add_comparison(object, comparison);
  steps.end("curves");
  object["wall_s"] = steps.to_json();
  write_text_file(folder / "scaling.csv", to_csv(comparison.curves.rows));
  write_text_file(folder / "results.json", pretty(object) + "\n");
  say("4. Written: " + (folder / "results.json").string() + ", " + (folder / "scaling.csv").string() +
      "\n   pictures: scripts/scaling_report.py " + (folder / "results.json").string() +
      "\n   every curve compiled: lpu_cluster compare --model NAME\n   wall time: " + steps.text() + "\n");
  if (console.is_json()) {
    console.print(pretty(object) + "\n");
  }
  return node::ExitCode::kDone;
}

}  // namespace lpu::cluster
