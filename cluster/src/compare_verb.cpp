#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <boost/json.hpp>
#include <spdlog/spdlog.h>

#include "comparison.hpp"
#include "compiling.hpp"
#include "configuration.hpp"
#include "json_output.hpp"
#include "lpu/cluster/presets.hpp"
#include "lpu/interconnect/topology.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity_text.hpp"
#include "verbs.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;
using node::InputError;

std::vector<std::int32_t> read_grid(const CommandLine& line, const scheduler::CompileRequest& request) {
  if (!line.has("chips")) {
    const std::int32_t chips = request.chips > 0 ? request.chips : scheduler::smallest_chips(request);
    if (chips == 0) {
      throw InputError("--model: found " + request.model.name + ", which fits on no system; expected --chips LIST");
    }
    return default_grid(chips);
  }
  std::vector<std::int32_t> out;
  for (const std::string& word : parse_list("chips", line.value("chips"))) {
    out.push_back(static_cast<std::int32_t>(parse_integer("chips", word, 1, interconnect::kChipsMost)));
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::vector<MicroBatch> read_micro_batches(const CommandLine& line) {
  std::vector<MicroBatch> out;
  for (const std::string& word :
       parse_list("micro-batch", line.has("micro-batch") ? line.value("micro-batch") : "1,4,best")) {
    const MicroBatch micro_batch =
        word == "best" ? MicroBatch{}
                       : MicroBatch(static_cast<std::int32_t>(parse_integer("micro-batch", word, 1, 32)));
    if (std::find(out.begin(), out.end(), micro_batch) == out.end()) {
      out.push_back(micro_batch);
    }
  }
  return out;
}

std::vector<double> read_slos(const CommandLine& line) {
  constexpr double kLeast = 0.01;
  constexpr double kMost = 1e5;
  std::vector<double> out;
  for (const std::string& word :
       parse_list("slo-tpot-ms", line.has("slo-tpot-ms") ? line.value("slo-tpot-ms") : "2,5,10,20,50")) {
    char* end = nullptr;
    const double value = std::strtod(word.c_str(), &end);
    if (*end != '\0' || !(value >= kLeast && value <= kMost)) {
      throw InputError("--slo-tpot-ms: found " + word + "; expected milliseconds from 0.01 to 100000, without a unit");
    }
    out.push_back(value);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

/// The line as configure() reads it: lists are this verb's own.
CommandLine without_lists(const CommandLine& line) {
  CommandLine out = line;
  for (const char* flag : {"system", "chips", "micro-batch"}) {
    out.values.erase(flag);
  }
  return out;
}

LpuSystem read_system(const std::string& word, std::span<const node::Setting> settings) {
  const SystemPreset preset = load_system(word, "--system");
  LpuSystem out{.name = preset.name,
                .chip = load_chip(preset.chip, "--system").chip,
                .node_power_milliwatts = preset.node_power_milliwatts,
                .node_price_usd = preset.node_price_usd};
  std::vector<node::Setting> of_chip;
  std::copy_if(settings.begin(), settings.end(), std::back_inserter(of_chip), [](const node::Setting& setting) {
    return setting.path.starts_with("chip.") || setting.path.starts_with("link.");
  });
  node::apply_chip_settings(out.chip, of_chip);
  return out;
}

scheduler::GpuRequest gpu_request(const scheduler::CompileRequest& request,
                                  const std::string& word,
                                  std::span<const node::Setting> settings) {
  scheduler::GpuRequest out{.model = request.model,
                            .system = load_gpu_system(word, "--system").system,
                            .context = request.context,
                            .compute = request.compute,
                            .kv = request.kv};
  apply_gpu_settings(out.system, settings);
  return out;
}

json::array list_of(const std::vector<MicroBatch>& micro_batches) {
  json::array out;
  for (const MicroBatch& micro_batch : micro_batches) {
    out.push_back(micro_batch ? json::value(*micro_batch) : json::value("best"));
  }
  return out;
}

}  // namespace

node::ExitCode compare_machines(const CommandLine& line, const Console& console) {
  refuse_words(line);
  const std::string folder = output_folder(line);
  Configuration configuration = configure(without_lists(line));
  std::vector<node::Setting> settings;
  for (const node::Setting& setting : parse_settings(line.settings, true)) {
    if (!setting.path.starts_with("model.") && !setting.path.starts_with("system.")) {
      settings.push_back(setting);
    }
  }
  CurveRequest request{.base = configuration.request,
                       .system = {},
                       .grid = read_grid(line, configuration.request),
                       .micro_batches = read_micro_batches(line),
                       .slos_ms = read_slos(line)};
  const std::vector<std::string> systems =
      parse_list("system", line.has("system") ? line.value("system") : "rack-64,dgx-h100");
  std::vector<scheduler::GpuRequest> gpus;
  std::vector<LpuSystem> lpus;
  for (const std::string& word : systems) {
    if (is_gpu_system(word, "--system")) {
      gpus.push_back(gpu_request(configuration.request, word, settings));
    } else {
      lpus.push_back(read_system(word, settings));
    }
  }
  Comparison comparison;
  Curves& curves = comparison.curves;
  {
    ProgressLine progress(console);
    for (const LpuSystem& system : lpus) {
      request.system = system;
      request.base.chip = system.chip;
      append(curves, draw_lpu(request, Filling::kAll, progress.callback()));
    }
    for (const scheduler::GpuRequest& gpu : gpus) {
      append(curves, draw_gpu(gpu, request.grid, request.slos_ms));
    }
    if (!lpus.empty()) {
      progress.show(1, "waterfalls and published figures");
      request.system = lpus.front();
      request.base.chip = request.system.chip;
      add_details(comparison,
                  request,
                  gpus,
                  configuration.request.chips > 0 ? configuration.request.chips : request.grid.front(),
                  Filling::kAll);
    }
  }
  for (const std::string& breach : curves.refused) {
    console.log().warn("a program that the proof did not pass is no point: {}", breach);
  }

  json::object object = result_object(line);
  json::object inputs = to_inputs(configuration);
  inputs["system"] = json::value_from(systems);
  inputs["chips"] = json::value_from(request.grid);
  inputs["micro_batch"] = list_of(request.micro_batches);
  inputs["slo_tpot_ms"] = json::value_from(request.slos_ms);
  for (const char* decided_here : {"users", "objective"}) {
    inputs.erase(decided_here);
  }
  object["inputs"] = std::move(inputs);
  add_comparison(object, comparison);
  if (!folder.empty()) {
    write_text_file(std::filesystem::path(folder) / "scaling.csv", to_csv(curves.rows));
  }
  print_result(line, console, object, to_text(comparison));
  return node::ExitCode::kDone;
}

}  // namespace lpu::cluster
