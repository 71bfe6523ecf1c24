#include <span>
#include <string>
#include <utility>
#include <vector>

#include <boost/json.hpp>

#include "json_output.hpp"
#include "lpu/cluster/presets.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/suggestion.hpp"
#include "verbs.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;

/// A preset in the form that all kinds print in.
struct Listed {
  struct Field {
    std::string name;
    std::string value;  ///< with its unit
    std::string source;
    std::string doc;
  };
  std::string name;
  std::string description;
  std::vector<Field> fields;
};

std::string source_of(const std::map<std::string, std::string, std::less<>>& sources, std::string_view field) {
  const auto found = sources.find(field);
  return found == sources.end() ? std::string() : found->second;
}

Listed listed_chip(const std::string& name) {
  const node::ChipPreset preset = load_chip(name, "list chips");
  Listed out{preset.chip.name, preset.description, {}};
  for (const std::string& field : node::chip_field_names()) {
    std::string doc = "hemisphere that each link stands in";
    for (const node::ChipField& row : node::chip_fields()) {
      doc = row.name == field ? std::string(row.doc) : doc;
    }
    out.fields.push_back({field, node::chip_field_text(preset.chip, field), source_of(preset.sources, field), doc});
  }
  return out;
}

template <typename Spec>
std::vector<Listed::Field> listed_fields(const Spec& spec,
                                         std::span<const node::PresetField<Spec>> rows,
                                         const node::Sources& sources) {
  std::vector<Listed::Field> out;
  for (const node::PresetField<Spec>& row : rows) {
    out.push_back(
        {std::string(row.name), node::field_text(spec, row), source_of(sources, row.name), std::string(row.doc)});
  }
  return out;
}

Listed listed_gpu(const std::string& name) {
  const node::GpuPreset preset = load_gpu(name, "list gpus");
  return {preset.gpu.name, preset.description, listed_fields(preset.gpu, node::gpu_fields(), preset.sources)};
}

Listed listed_nccl(const std::string& name) {
  const interconnect::NcclPreset preset = load_nccl(name, "list nccl");
  return {
      preset.nccl.name, preset.description, listed_fields(preset.nccl, interconnect::nccl_fields(), preset.sources)};
}

Listed listed_system(const std::string& name) {
  if (is_gpu_system(name, "list systems")) {
    const GpuSystemPreset preset = load_gpu_system(name, "list systems");
    return {preset.system.fabric.name,
            preset.description,
            listed_fields(preset.system.fabric, interconnect::gpu_fabric_fields(), preset.sources)};
  }
  const SystemPreset preset = load_system(name, "list systems");
  Listed out{preset.name,
             preset.description,
             {{"chip", preset.chip, source_of(preset.sources, "chip"), "its chips' preset"},
              {"chips", std::to_string(preset.chips) + " chips", source_of(preset.sources, "chips"), "active ones"}}};
  if (preset.node_power_milliwatts) {
    out.fields.push_back({"node_power",
                          node::format_quantity(*preset.node_power_milliwatts, node::Dimension::kMilliWatts),
                          source_of(preset.sources, "node_power"),
                          "of 8 chips and their host, at most"});
  }
  if (preset.node_price_usd) {
    out.fields.push_back({"node_price",
                          node::format_quantity(*preset.node_price_usd, node::Dimension::kCount, "USD"),
                          source_of(preset.sources, "node_price"),
                          "of 8 chips and their host"});
  }
  return out;
}

Listed listed_model(const std::string& name) {
  const scheduler::ModelPreset preset = load_model(name, "list models");
  Listed out{preset.model.name, preset.description, {}};
  if (preset.chips > 0) {
    out.fields.push_back({"chips",
                          std::to_string(preset.chips) + " chips",
                          source_of(preset.sources, "chips"),
                          "default size of the system"});
  }
  for (const scheduler::ModelField& field : scheduler::model_fields()) {
    if (scheduler::is_used(preset.model, field.name)) {
      out.fields.push_back({std::string(field.name),
                            scheduler::model_field_text(preset.model, field.name),
                            preset.sources.empty() ? "config.json" : source_of(preset.sources, field.name),
                            std::string(field.doc)});
    }
  }
  out.fields.push_back({"parameters",
                        node::with_thousands(scheduler::parameters(preset.model)) + " weights",
                        "derived: from the fields above",
                        "tied embeddings counted once"});
  return out;
}

Listed listed(PresetKind kind, const std::string& name) {
  switch (kind) {
    case PresetKind::kChips:
      return listed_chip(name);
    case PresetKind::kGpus:
      return listed_gpu(name);
    case PresetKind::kNccl:
      return listed_nccl(name);
    case PresetKind::kSystems:
      return listed_system(name);
    case PresetKind::kModels:
      return listed_model(name);
  }
  return {};
}

json::object to_json(const Listed& preset) {
  json::object fields;
  for (const Listed::Field& field : preset.fields) {
    fields[field.name] = {{"value", field.value}, {"source", field.source}, {"doc", field.doc}};
  }
  return {{"name", preset.name}, {"description", preset.description}, {"fields", std::move(fields)}};
}

std::string all_fields(const Listed& preset) {
  constexpr std::size_t kIndent = 4;
  constexpr std::size_t kWidth = 80 - kIndent;
  std::string out = preset.name + ": " + preset.description + "\n";
  for (const Listed::Field& field : preset.fields) {
    out += "  " + wrapped(field.name + " = " + field.value, kWidth, kIndent) + "\n";
    out += std::string(kIndent, ' ') + wrapped(field.doc + " [" + field.source + "]", kWidth, kIndent) + "\n";
  }
  return out;
}

std::string models_table(const std::vector<std::string>& names) {
  Table table;
  table.add({"model", "layers", "hidden", "heads", "KV", "ffn", "MoE", "vocab", "size", "chips"});
  for (const std::string& name : names) {
    const scheduler::ModelPreset preset = load_model(name, "list models");
    const scheduler::ModelConfig& m = preset.model;
    const auto billions = static_cast<double>(scheduler::parameters(m)) / 1e9;
    table.add({m.name,
               std::to_string(m.layers),
               std::to_string(m.hidden),
               std::to_string(m.heads),
               std::to_string(m.kv_heads),
               std::to_string(m.ffn),
               m.experts == 0 ? "-" : std::to_string(m.experts_per_token) + " of " + std::to_string(m.experts),
               std::to_string(m.vocabulary),
               node::fixed(billions, billions < 100 ? 1 : 0) + " G",
               std::to_string(preset.chips)});
  }
  return table.text();
}

std::string systems_table(const std::vector<std::string>& names) {
  Table table;
  table.add({"system", "devices", "device", "what it is"});
  for (const std::string& name : names) {
    if (is_gpu_system(name, "list systems")) {
      const GpuSystemPreset gpus = load_gpu_system(name, "list systems");
      table.add({gpus.system.fabric.name, "any", gpus.system.gpu.name, gpus.description});
      continue;
    }
    const SystemPreset preset = load_system(name, "list systems");
    table.add({preset.name, std::to_string(preset.chips), preset.chip, preset.description});
  }
  return table.text() + "  --chips N wires 1 to 9280 chips of any kind by the same rule\n";
}

PresetKind parse_kind(const CommandLine& line) {
  const std::string word = line.words.empty() ? std::string() : line.words.front();
  std::vector<std::string> known;
  for (const PresetKind kind : kPresetKinds) {
    if (word == folder(kind)) {
      return kind;
    }
    known.emplace_back(folder(kind));
  }
  throw node::InputError("list: found " + (word.empty() ? "nothing after it" : word) + "; expected what to list" +
                         node::known_values(word, known));
}

}  // namespace

node::ExitCode list_presets(const CommandLine& line, const Console& console) {
  const PresetKind kind = parse_kind(line);
  const bool is_named = line.words.size() > 1;
  const std::vector<std::string> names =
      is_named ? std::vector<std::string>(line.words.begin() + 1, line.words.end()) : preset_names(kind);
  if (line.has("names")) {
    if (is_named || console.is_json()) {
      throw node::InputError("list: found --names with " + (is_named ? line.words[1] : std::string("--json")) +
                             "; expected it alone: a name a line, of all " + std::string(folder(kind)));
    }
    for (const std::string& name : names) {
      console.print_line(name);
    }
    return node::ExitCode::kDone;
  }
  if (console.is_json()) {
    json::object out = result_object(line);
    out["inputs"] = {{"kind", folder(kind)}, {"names", json::value_from(names)}};
    json::array presets;
    for (const std::string& name : names) {
      presets.push_back(to_json(listed(kind, name)));
    }
    out[folder(kind)] = std::move(presets);
    console.print_line(pretty(out));
    return node::ExitCode::kDone;
  }
  if (!is_named && kind == PresetKind::kModels) {
    console.print(models_table(names) +
                  "  size: weights, 10^9; chips: default system; MoE: experts a token\n  lpu_cluster list models NAME: "
                  "every field with unit and source\n");
  } else if (!is_named && kind == PresetKind::kSystems) {
    console.print(systems_table(names));
  } else {
    for (const std::string& name : names) {
      console.print(all_fields(listed(kind, name)));
    }
  }
  return node::ExitCode::kDone;
}

}  // namespace lpu::cluster
