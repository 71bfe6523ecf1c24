#include "plan_report.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "console.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/suggestion.hpp"
#include "schedule_hints.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;
using node::Cycles;
using scheduler::ClusterProgram;
using scheduler::Compiled;
using scheduler::LayerBudget;

struct Part {
  std::string_view key;
  std::string_view name;
  std::int64_t LayerBudget::*cycles;
};
constexpr Part kParts[] = {
    {"install", "weight install", &LayerBudget::install},
    {"activation_slots", "activation slots", &LayerBudget::activation_slots},
    {"fill", "fill and drain", &LayerBudget::fill},
    {"vxm", "VXM passes", &LayerBudget::vxm},
    {"sxm", "SXM passes", &LayerBudget::sxm},
    {"attention", "attention", &LayerBudget::attention},
    {"router", "router", &LayerBudget::router},
    {"wires_exposed", "wires, exposed", &LayerBudget::wires_exposed},
    {"waiting", "waiting for a unit", &LayerBudget::waiting},
};

/// Achieved over bound; not a number where there is no bound (null in JSON).
double quality(std::int64_t achieved, std::int64_t bound) {
  return bound > 0 ? static_cast<double>(achieved) / static_cast<double>(bound) : std::nan("");
}

std::string quality_text(std::int64_t achieved, std::int64_t bound) {
  return bound > 0 ? node::fixed(quality(achieved, bound), 3) : "n/a";
}

std::string percent(double share) {
  return node::fixed(100 * share, 1) + " %";
}

std::string time_of(std::int64_t cycles, node::Hertz clock) {
  const std::string both = node::cycles_with_time(Cycles(cycles), clock);
  return both.substr(both.find("= ") + 2);
}

/// Weights of the fullest chip over the install rate of all planes: below any schedule, above none; printed, not judged
/// by.
std::int64_t byte_bound(const Compiled& compiled) {
  const node::ChipSpec& chip = compiled.program.chip;
  const std::int64_t rate =
      std::int64_t{2} * chip.mxm_planes_per_hemisphere * chip.mxm_install_columns_per_cycle * chip.vector_bytes;
  return node::ceil_div(compiled.report.sram.weights.count(), rate);
}

std::string machine_words(const scheduler::CompileRequest& request) {
  return request.objective == scheduler::Objective::kLatency ? "empty machine" : "loaded";
}

std::string sram_line(const Compiled& compiled) {
  const scheduler::SramUse& sram = compiled.report.sram;
  const auto share =
      static_cast<double>(sram.total().count()) / static_cast<double>(compiled.program.chip.sram().count());
  return node::approximate_bytes(sram.total()) + " of " + node::approximate_bytes(compiled.program.chip.sram()) + " (" +
         percent(share) + ")";
}

/// The parts of what the fullest chip holds, in two lines.
std::array<std::string, 2> sram_parts(const Compiled& compiled) {
  const scheduler::SramUse& sram = compiled.report.sram;
  return {"weights " + node::approximate_bytes(sram.weights) + ", KV " + node::approximate_bytes(sram.kv),
          "activations " + node::approximate_bytes(sram.activations) + ", program " +
              node::approximate_bytes(sram.program)};
}

json::object to_json(const scheduler::SramUse& use) {
  return {{"weights", use.weights.count()},
          {"kv", use.kv.count()},
          {"activations", use.activations.count()},
          {"program", use.program.count()}};
}

}  // namespace

std::string rate_text(double per_second) {
  return per_second >= 100 ? node::with_thousands(std::llround(per_second)) : node::fixed(per_second, 2);
}

Service serve(const ClusterProgram& program, std::int32_t users) {
  Service out;
  out.users = users;
  out.token_period = scheduler::with_users(program, users).token_period;
  out.tokens_per_second_per_user =
      static_cast<double>(program.chip.clock.count()) / static_cast<double>(out.token_period);
  out.tokens_per_second = out.tokens_per_second_per_user * users;
  return out;
}

void add_plan(json::object& out,
              const scheduler::CompileRequest& request,
              const Compiled& compiled,
              std::int32_t smallest_chips) {
  const ClusterProgram& program = compiled.program;
  const scheduler::PlanReport& report = compiled.report;
  const Service service = serve(program, request.users.value_or(program.user_slots));
  out["fits"] = true;
  out["model"] = program.model;
  out["chips"] = program.chips;
  out["chips_idle"] = report.chips_idle;
  out["tp"] = program.tensor_parallel;
  out["pp"] = program.pipeline_parallel;
  out["micro_batch"] = program.plan.micro_batch;
  out["balance"] = report.balance;
  out["smallest_chips"] = smallest_chips == 0 ? json::value(nullptr) : json::value(smallest_chips);
  out["sram_bytes_used_max"] = report.sram.total().count();
  out["sram_bytes_per_chip"] = to_json(report.sram);
  out["sram_bytes"] = compiled.program.chip.sram().count();
  json::array stages;
  for (const scheduler::SramUse& use : report.sram_of_stage) {
    stages.emplace_back(to_json(use));
  }
  out["sram_bytes_per_chip_of_stage"] = std::move(stages);
  out["users"] = service.users;
  out["users_fit"] = report.users_fit;
  out["users_saturating"] = report.users_saturating;
  out["context"] = request.context;
  out["compute"] = name(request.compute);
  out["kv"] = name(request.kv);
  out["token_latency_cycles"] = program.token_latency;
  out["token_latency_us"] = node::to_microseconds(Cycles(program.token_latency), program.chip.clock);
  out["token_period_cycles"] = service.token_period;
  out["tokens_per_second_per_user"] = service.tokens_per_second_per_user;
  out["tokens_per_second"] = service.tokens_per_second;
  out["initiation_interval_cycles"] = program.initiation_interval;
  out["ii_lower_bound_cycles"] = report.ii_lower_bound;
  out["ii_quality"] = quality(program.initiation_interval, report.ii_lower_bound);
  out["objective"] = name(request.objective);
  out["latency_lower_bound_cycles"] = report.latency_lower_bound;
  out["latency_quality"] = quality(program.token_latency, report.latency_lower_bound);
  out["byte_bound_cycles"] = byte_bound(compiled);
  out["clock_hz"] = program.chip.clock.count();
  json::object budget;
  for (const Part& part : kParts) {
    budget[part.key] = report.budget.*part.cycles;
  }
  budget["wires_hidden"] = report.budget.wires_hidden;
  out["budget"] = std::move(budget);
  out["layer_cycles"] = report.budget.layer;
  out["layers_cycles"] = report.layers_cycles;
  out["hops_cycles"] = report.hops_cycles;
  out["ends_cycles"] = report.ends_cycles;
  if (report.hint) {
    out["schedule_hint"] = to_json(*report.hint);
  }
  out["schedule_digest"] = node::to_hex(scheduler::schedule_digest(program));
}

std::string plan_text(const Configuration& configuration, const Compiled& compiled, std::int32_t smallest_chips) {
  const scheduler::CompileRequest& request = configuration.request;
  const ClusterProgram& program = compiled.program;
  const scheduler::PlanReport& report = compiled.report;
  const node::Hertz clock = program.chip.clock;
  const Service service = serve(program, request.users.value_or(program.user_slots));

  std::string out = program.model + " on " + node::with_thousands(program.chips) +
                    (program.chips == 1 ? " chip (" : " chips (") + program.chip.name + "): TP " +
                    std::to_string(program.tensor_parallel) + " x PP " + std::to_string(program.pipeline_parallel);
  out += report.chips_idle > 0 ? ", " + node::with_thousands(report.chips_idle) + " idle\n" : "\n";
  out += "  " + std::string(name(request.compute)) + ", KV " + std::string(name(request.kv)) + ", context " +
         node::with_thousands(request.context) + ", micro-batch " + std::to_string(program.plan.micro_batch) +
         ", objective " + std::string(name(request.objective));
  out += request.model.experts > 0 ? ", experts " + std::string(name(request.experts)) + "\n" : "\n";
  if (!configuration.modified.empty()) {
    out += "  modified: " + wrapped(node::join(configuration.modified), 68, 12) + "\n";
  }
  out += "\n";

  Table bounds;
  bounds.add({"", "cycles", "time", "lower bound", "quality"});
  bounds.add({"token latency",
              node::with_thousands(program.token_latency),
              time_of(program.token_latency, clock),
              node::with_thousands(report.latency_lower_bound),
              quality_text(program.token_latency, report.latency_lower_bound)});
  bounds.add({"initiation interval",
              node::with_thousands(program.initiation_interval),
              time_of(program.initiation_interval, clock),
              node::with_thousands(report.ii_lower_bound),
              quality_text(program.initiation_interval, report.ii_lower_bound)});
  out += bounds.text() + "\n";

  Table speed;
  const std::string interval =
      "at II " + node::with_thousands(program.initiation_interval) + " (" + machine_words(request) + ")";
  speed.add({std::to_string(service.users) + (service.users == 1 ? " user" : " users"),
             rate_text(service.tokens_per_second_per_user),
             "tokens/s a user",
             interval});
  if (service.users > 1) {
    speed.add({"", rate_text(service.tokens_per_second), "tokens/s in all", interval});
  }
  out += speed.text() + "\n";

  Table room;
  room.add({"users",
            node::with_thousands(report.users_saturating) + " saturate the pipeline, " +
                node::with_thousands(report.users_fit) + " fit"});
  room.add({"SRAM, fullest chip", sram_line(compiled)});
  for (const std::string& parts : sram_parts(compiled)) {
    room.add({"", parts});
  }
  room.add({"balance of stages", node::fixed(report.balance, 3) + " (mean / slowest)"});
  room.add({"smallest cluster",
            smallest_chips == 0 ? "none"
                                : node::with_thousands(smallest_chips) + (smallest_chips == 1 ? " chip" : " chips")});
  return out + room.text();
}

std::string explain_text(const scheduler::CompileRequest& request, const Compiled& compiled) {
  const ClusterProgram& program = compiled.program;
  const scheduler::PlanReport& report = compiled.report;
  const node::Hertz clock = program.chip.clock;
  const auto layer = static_cast<double>(std::max<std::int64_t>(report.budget.layer, 1));
  const auto latency = static_cast<double>(program.token_latency);

  Table parts;
  parts.add({"one layer, by part", "cycles", "time", "share"});
  const Part* largest = &kParts[0];
  for (const Part& part : kParts) {
    const std::int64_t cycles = report.budget.*part.cycles;
    largest = cycles > report.budget.*largest->cycles ? &part : largest;
    parts.add({std::string(part.name),
               node::with_thousands(cycles),
               time_of(cycles, clock),
               percent(static_cast<double>(cycles) / layer)});
  }
  parts.add({"layer", node::with_thousands(report.budget.layer), time_of(report.budget.layer, clock), percent(1)});
  parts.add({"(wires, hidden)",
             node::with_thousands(report.budget.wires_hidden),
             time_of(report.budget.wires_hidden, clock)});

  Table way;
  way.add({"one token's way", "cycles", "time", "share"});
  const std::array<std::pair<std::string, std::int64_t>, 4> rows = {{
      {std::to_string(request.model.layers) + " layers", report.layers_cycles},
      {"hops between stages", report.hops_cycles},
      {"embedding, LM head, way back", report.ends_cycles},
      {"token latency", program.token_latency},
  }};
  for (const auto& [words, cycles] : rows) {
    way.add(
        {words, node::with_thousands(cycles), time_of(cycles, clock), percent(static_cast<double>(cycles) / latency)});
  }

  const std::array<std::pair<std::string_view, node::Bytes>, 4> sram = {{
      {"weights", report.sram.weights},
      {"KV", report.sram.kv},
      {"activations", report.sram.activations},
      {"program text", report.sram.program},
  }};
  const auto fullest =
      std::max_element(sram.begin(), sram.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  Table binds;
  binds.add({"what binds", ""});
  binds.add({"latency",
             std::string(largest->name) + ", " + percent(static_cast<double>(report.budget.*largest->cycles) / layer) +
                 " of a layer"});
  binds.add(
      {"interval",
       "its lower bound is " +
           percent(static_cast<double>(report.ii_lower_bound) / static_cast<double>(program.initiation_interval)) +
           " of it"});
  binds.add({"capacity",
             std::string(fullest->first) + ", " + node::approximate_bytes(fullest->second) + " of " +
                 node::approximate_bytes(program.chip.sram())});
  binds.add({"bytes", "weights / install rate: " + node::cycles_with_time(Cycles(byte_bound(compiled)), clock)});
  return parts.text() + "\n" + way.text() + "\n" + binds.text();
}

}  // namespace lpu::cluster
