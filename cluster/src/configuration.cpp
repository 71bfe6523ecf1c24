#include "configuration.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>
#include <optional>
#include <utility>

#include "json_output.hpp"
#include "lpu/cluster/presets.hpp"
#include "lpu/interconnect/topology.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/field_reader.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/suggestion.hpp"
#include "lpu/scheduler/model_preset.hpp"
#include "schedule_hints.hpp"

namespace lpu::cluster {
namespace {

using node::FieldReader;
using node::InputError;
using scheduler::Compute;
using scheduler::ExpertMode;
using scheduler::KvType;
using scheduler::Objective;
using scheduler::Sampling;

template <typename Enum>
struct Word {
  Enum value;
  std::string_view name;
};
constexpr std::array<Word<Compute>, 4> kComputes = {{
    {Compute::kW8A8, "w8a8"},
    {Compute::kW8A16, "w8a16"},
    {Compute::kFp16, "fp16"},
    {Compute::kFp32Reference, "fp32ref"},
}};
constexpr std::array<Word<KvType>, 3> kKvTypes = {{
    {KvType::kInt8, "int8"},
    {KvType::kFp16, "fp16"},
    {KvType::kFp32, "fp32"},
}};
constexpr std::array<Word<ExpertMode>, 2> kExpertModes = {
    {{ExpertMode::kIndirect, "indirect"}, {ExpertMode::kAll, "all"}}};
constexpr std::array<Word<Objective>, 2> kObjectives = {
    {{Objective::kLatency, "latency"}, {Objective::kThroughput, "throughput"}}};
constexpr std::array<Word<Sampling>, 2> kSamplings = {{{Sampling::kChip, "chip"}, {Sampling::kHost, "host"}}};

template <typename Table>
auto parse_word(const Table& table, const std::string& flag, const std::string& text) {
  std::vector<std::string> known;
  for (const auto& word : table) {
    if (word.name == text) {
      return word.value;
    }
    known.emplace_back(word.name);
  }
  throw InputError("--" + flag + ": found " + text + "; expected one of the known words" +
                   node::known_values(text, known));
}

template <typename Table, typename Enum>
std::string_view word_of(const Table& table, Enum value) {
  for (const auto& word : table) {
    if (word.value == value) {
      return word.name;
    }
  }
  return "?";
}

constexpr std::string_view kSaturating = "saturating";
constexpr std::string_view kSystemChips = "system.chips";
constexpr std::string_view kSystemChip = "system.chip";

/// Inputs of a recorded configuration and the flags that they stand for.
struct InputKey {
  std::string_view key;
  std::string_view flag;
};
constexpr InputKey kInputKeys[] = {
    {"chips", "chips"},
    {"tp", "tp"},
    {"pp", "pp"},
    {"micro_batch", "micro-batch"},
    {"users", "users"},
    {"context", "context"},
    {"compute", "compute"},
    {"kv", "kv"},
    {"experts", "experts"},
    {"objective", "objective"},
    {"sampling", "sampling"},
    {"search_orders", "search-orders"},
    {"seed", "seed"},
    {"tokens", "tokens"},
    {"checkpoint", "checkpoint"},
    {"prompt_ids", "prompt-ids"},
    {"max_new_tokens", "max-new-tokens"},
    {"temperature", "temperature"},
    {"top_k", "top-k"},
    {"top_p", "top-p"},
};

/// A recorded configuration: the flags that it stands for, and what it holds in full.
struct Recorded {
  std::optional<scheduler::ModelConfig> model;
  std::optional<node::ChipSpec> chip;
  std::string system;
  std::vector<std::string> modified;
};

FieldReader recorded_inputs(const CommandLine& line) {
  return FieldReader::load(line.value("config")).object("inputs");
}

Recorded read_recorded(const CommandLine& line) {
  Recorded out;
  if (!line.has("config")) {
    return out;
  }
  const FieldReader inputs = recorded_inputs(line);
  for (const InputKey& row : kInputKeys) {
    static_cast<void>(inputs.has(row.key));  // with_recorded_flags() reads it
  }
  if (inputs.has("model")) {
    out.model = scheduler::load_effective_model(inputs.object("model"));
  }
  if (inputs.has("chip")) {
    out.chip = node::load_effective_chip(inputs.object("chip"));
  }
  if (inputs.has("system")) {
    out.system = inputs.text("system");
  }
  out.modified = inputs.texts("modified");
  static_cast<void>(inputs.has("no_verify"));  // likewise
  inputs.refuse_other_keys();
  return out;
}

std::vector<node::Setting> settings_of(const std::vector<node::Setting>& all,
                                       std::string_view first,
                                       std::string_view second) {
  std::vector<node::Setting> out;
  std::copy_if(all.begin(), all.end(), std::back_inserter(out), [&](const node::Setting& setting) {
    return setting.path.starts_with(first) || setting.path.starts_with(second);
  });
  return out;
}

/// "; did you mean chip.sram?" for a field alone, too.
std::string nearest_path(const std::string& path, const std::vector<std::string>& paths) {
  for (const std::string_view first : {"chip.", "link.", "model.", "system."}) {
    const std::string whole = std::string(first) + path;
    if (std::find(paths.begin(), paths.end(), whole) != paths.end()) {
      return "; did you mean " + whole + "?";
    }
  }
  return node::did_you_mean(path, paths);
}

std::optional<std::int32_t> optional_degree(const CommandLine& line, const std::string& flag) {
  if (!line.has(flag)) {
    return std::nullopt;
  }
  return static_cast<std::int32_t>(parse_integer(flag, line.value(flag), 1, interconnect::kChipsMost));
}

std::int32_t read_context(const CommandLine& line, const scheduler::ModelConfig& model) {
  constexpr std::int64_t kDefault = 1024;
  if (!line.has("context")) {
    return static_cast<std::int32_t>(std::min(kDefault, model.max_position));
  }
  const std::int64_t context = parse_integer("context", line.value("context"), 1, 1LL << 20U);
  if (context > model.max_position) {
    throw InputError("--context: found " + line.value("context") + "; expected at most the model's " +
                     std::to_string(model.max_position) + " positions");
  }
  return static_cast<std::int32_t>(context);
}

KvType read_kv(const CommandLine& line, Compute compute) {
  if (line.has("kv")) {
    return parse_word(kKvTypes, "kv", line.value("kv"));
  }
  switch (compute) {
    case Compute::kW8A8:
      return KvType::kInt8;
    case Compute::kW8A16:
    case Compute::kFp16:
      return KvType::kFp16;
    case Compute::kFp32Reference:
      return KvType::kFp32;
  }
  return KvType::kInt8;
}

std::optional<std::int32_t> read_users(const CommandLine& line) {
  const std::string text = line.value("users");
  if (text == kSaturating) {
    return std::nullopt;
  }
  const std::size_t letters =
      static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return c >= 'a' && c <= 'z'; }));
  if (letters > 1) {
    const std::vector<std::string> known = {std::string(kSaturating)};
    throw InputError("--users: found " + text + "; expected 1 to 1000000, or saturating" +
                     node::did_you_mean(text, known));
  }
  return static_cast<std::int32_t>(parse_integer("users", text, 1, 1'000'000));
}

/// Chip and size of the system; every source that may name them, the strongest first.
void choose_system(const CommandLine& line,
                   const Recorded& recorded,
                   const std::vector<node::Setting>& settings,
                   std::int32_t model_chips,
                   Configuration& out) {
  std::string chip = line.value("chip");
  std::int32_t system_chips = 0;
  out.system = recorded.system;
  if (line.has("system")) {
    const SystemPreset system = load_system(line.value("system"), "--system");
    out.system = system.name;
    system_chips = system.chips;
    chip = chip.empty() ? system.chip : chip;
  }
  for (const node::Setting& setting : settings) {
    if (setting.path == kSystemChips) {
      const std::int64_t count =
          node::parse_quantity(setting.value, node::Dimension::kCount, "--set " + setting.path, "chips");
      if (count < 1 || count > interconnect::kChipsMost) {
        throw InputError("--set " + setting.path + ": found " + setting.value + "; expected 1 to " +
                         std::to_string(interconnect::kChipsMost) + " chips");
      }
      system_chips = static_cast<std::int32_t>(count);
    } else if (setting.path == kSystemChip) {
      chip = setting.value;
    }
  }
  if (chip.empty() && recorded.chip) {
    out.request.chip = *recorded.chip;
  } else {
    out.request.chip = load_chip(chip.empty() ? "tsp-v1" : chip, line.has("chip") ? "--chip" : "--system").chip;
  }
  out.request.chips = optional_degree(line, "chips").value_or(system_chips > 0 ? system_chips : model_chips);
}

}  // namespace

std::string_view name(Compute compute) {
  return word_of(kComputes, compute);
}
std::string_view name(KvType kv) {
  return word_of(kKvTypes, kv);
}
std::string_view name(ExpertMode mode) {
  return word_of(kExpertModes, mode);
}
std::string_view name(Objective objective) {
  return word_of(kObjectives, objective);
}
std::string_view name(Sampling sampling) {
  return word_of(kSamplings, sampling);
}

std::vector<node::Setting> parse_settings(const std::vector<std::string>& settings, bool has_gpus) {
  std::vector<std::string> paths = node::chip_setting_paths();
  const std::vector<std::string> of_model = scheduler::model_setting_paths();
  paths.insert(paths.end(), of_model.begin(), of_model.end());
  paths.emplace_back(kSystemChips);
  paths.emplace_back(kSystemChip);
  if (has_gpus) {
    const std::vector<std::string> of_gpus = gpu_setting_paths();
    paths.insert(paths.end(), of_gpus.begin(), of_gpus.end());
  }
  std::vector<node::Setting> out;
  for (const std::string& text : settings) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos) {
      throw InputError("--set: found " + text + "; expected path=value, such as chip.sram=500MB");
    }
    node::Setting setting{text.substr(0, equals), text.substr(equals + 1)};
    if (std::find(paths.begin(), paths.end(), setting.path) == paths.end()) {
      throw InputError("--set " + setting.path +
                       ": found an unknown path; expected chip.<field>, link.<field>, "
                       "model.<field> or system.chips" +
                       nearest_path(setting.path, paths));
    }
    out.push_back(std::move(setting));
  }
  return out;
}

CommandLine with_recorded_flags(const CommandLine& typed) {
  CommandLine line = typed;
  if (!line.has("config")) {
    return line;
  }
  const FieldReader inputs = recorded_inputs(line);
  for (const InputKey& row : kInputKeys) {
    if (inputs.has(row.key) && !line.has(row.flag)) {
      line.values.emplace(row.flag, inputs.literal(row.key));
    }
  }
  if (inputs.has("no_verify") && inputs.boolean("no_verify")) {
    line.values.emplace("no-verify", "");
  }
  return line;
}

Configuration configure(const CommandLine& typed) {
  const CommandLine line = with_recorded_flags(typed);
  const std::vector<node::Setting> settings = parse_settings(line.settings);
  const Recorded recorded = read_recorded(line);
  Configuration out;
  std::int32_t model_chips = 0;
  if (line.has("model") || !recorded.model) {
    const scheduler::ModelPreset preset = load_model(line.value("model"), "--model");
    out.request.model = preset.model;
    model_chips = preset.chips;
  } else {
    out.request.model = *recorded.model;
  }
  choose_system(line, recorded, settings, model_chips, out);
  scheduler::apply_model_settings(out.request.model, settings_of(settings, "model.", "model."));
  node::apply_chip_settings(out.request.chip, settings_of(settings, "chip.", "link."));
  out.modified = recorded.modified;
  out.modified.insert(out.modified.end(), line.settings.begin(), line.settings.end());

  scheduler::CompileRequest& request = out.request;
  request.tensor_parallel = optional_degree(line, "tp");
  request.pipeline_parallel = optional_degree(line, "pp");
  request.micro_batch = static_cast<std::int32_t>(parse_integer("micro-batch", line.value("micro-batch"), 1, 1024));
  request.users = read_users(line);
  request.context = read_context(line, request.model);
  request.compute = parse_word(kComputes, "compute", line.value("compute"));
  request.kv = read_kv(line, request.compute);
  request.experts = parse_word(kExpertModes, "experts", line.value("experts"));
  request.objective = parse_word(kObjectives, "objective", line.value("objective"));
  request.sampling = parse_word(kSamplings, "sampling", line.value("sampling"));
  if (request.sampling == Sampling::kHost) {
    throw InputError("--sampling: found host; expected chip: no program takes the way through the host");
  }
  request.search_orders =
      static_cast<std::int32_t>(parse_integer("search-orders", line.value("search-orders"), 0, 1'000'000));
  request.hints = shipped_hints(request.model.name);
  request.seed = static_cast<std::uint64_t>(
      parse_integer("seed", line.value("seed"), 0, std::numeric_limits<std::int64_t>::max()));
  request.inputs = compact(to_inputs(out));
  return out;
}

boost::json::object to_inputs(const Configuration& configuration) {
  const scheduler::CompileRequest& request = configuration.request;
  const auto optional = [](const std::optional<std::int32_t>& value) {
    return value ? boost::json::value(*value) : boost::json::value(nullptr);
  };
  boost::json::object model;
  model["name"] = request.model.name;
  for (const scheduler::ModelField& field : scheduler::model_fields()) {
    if (scheduler::is_used(request.model, field.name)) {
      model[field.name] = scheduler::model_field_text(request.model, field.name);
    }
  }
  boost::json::object chip;
  chip["name"] = request.chip.name;
  for (const std::string& field : node::chip_field_names()) {
    chip[field] = node::chip_field_text(request.chip, field);
  }
  boost::json::object out;
  out["model"] = std::move(model);
  out["system"] = configuration.system.empty() ? boost::json::value(nullptr) : boost::json::value(configuration.system);
  out["chip"] = std::move(chip);
  out["chips"] = request.chips == 0 ? boost::json::value(nullptr) : boost::json::value(request.chips);
  out["tp"] = optional(request.tensor_parallel);
  out["pp"] = optional(request.pipeline_parallel);
  out["micro_batch"] = request.micro_batch;
  out["users"] = request.users ? boost::json::value(*request.users) : boost::json::value(kSaturating);
  out["context"] = request.context;
  out["compute"] = name(request.compute);
  out["kv"] = name(request.kv);
  out["experts"] = name(request.experts);
  out["objective"] = name(request.objective);
  out["sampling"] = name(request.sampling);
  out["search_orders"] = request.search_orders;
  out["seed"] = request.seed;
  out["modified"] = boost::json::value_from(configuration.modified);
  return out;
}

}  // namespace lpu::cluster
