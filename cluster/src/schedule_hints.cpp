#include "schedule_hints.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "configuration.hpp"
#include "embedded_presets.hpp"
#include "lpu/node/field_reader.hpp"

namespace lpu::cluster {
namespace {

using node::FieldReader;
using scheduler::Compute;
using scheduler::ExpertMode;
using scheduler::ScheduleHint;
using scheduler::StagePhases;

constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();

template <typename Enum, std::size_t n>
Enum read_word(const FieldReader& reader, std::string_view key, const std::array<Enum, n>& known) {
  const std::string text = reader.text(key);
  const auto found = std::find_if(known.begin(), known.end(), [&](Enum value) { return name(value) == text; });
  if (found == known.end()) {
    reader.fail(key, "a value that its flag takes");
  }
  return *found;
}

ScheduleHint read_hint(const FieldReader& reader) {
  const auto count = [&](std::string_view key, std::int64_t minimum) {
    return static_cast<std::int32_t>(reader.integer(key, minimum, kMost));
  };
  ScheduleHint out;
  out.compute = read_word(
      reader, "compute", std::array{Compute::kW8A8, Compute::kW8A16, Compute::kFp16, Compute::kFp32Reference});
  out.experts = read_word(reader, "experts", std::array{ExpertMode::kIndirect, ExpertMode::kAll});
  out.context = count("context", 1);
  out.micro_batch = count("micro_batch", 1);
  out.tensor_parallel = count("tp", 1);
  out.pipeline_parallel = count("pp", 1);
  out.user_slots = count("users", 1);
  out.interval = reader.integer("interval_cycles", 1, kMost);
  out.token_latency = reader.integer("token_latency_cycles", 1, std::numeric_limits<std::int64_t>::max());
  const FieldReader stages = reader.object("stages");
  for (const std::string& key : stages.keys()) {
    const FieldReader stage = stages.object(key);
    out.stages.push_back({.shortest = stage.integer("shortest_planned_cycles", 0, kMost),
                          .starts = stage.integers("window_starts_cycles", 0, kMost)});
    stage.refuse_other_keys();
  }
  reader.refuse_other_keys();
  return out;
}

}  // namespace

std::vector<ScheduleHint> shipped_hints(const std::string& model) {
  std::vector<ScheduleHint> out;
  for (const PresetText& preset : embedded_presets()) {
    if (preset.kind != "hints" || preset.name != model) {
      continue;
    }
    const FieldReader file = FieldReader::parse(preset.text, "hints/" + model + ".json");
    (void)file.text("description");
    const FieldReader hints = file.object("hints");
    for (const std::string& key : hints.keys()) {
      out.push_back(read_hint(hints.object(key)));
    }
    file.refuse_other_keys();
  }
  return out;
}

boost::json::object to_json(const ScheduleHint& hint) {
  boost::json::object stages;
  for (const StagePhases& stage : hint.stages) {
    stages[std::to_string(stages.size())] = {{"shortest_planned_cycles", stage.shortest},
                                             {"window_starts_cycles", boost::json::value_from(stage.starts)}};
  }
  boost::json::object out;
  out["compute"] = name(hint.compute);
  out["experts"] = name(hint.experts);
  out["context"] = hint.context;
  out["micro_batch"] = hint.micro_batch;
  out["tp"] = hint.tensor_parallel;
  out["pp"] = hint.pipeline_parallel;
  out["users"] = hint.user_slots;
  out["interval_cycles"] = hint.interval;
  out["token_latency_cycles"] = hint.token_latency;
  out["stages"] = std::move(stages);
  return out;
}

}  // namespace lpu::cluster
