#include "lpu/scheduler/compile.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <tuple>

#include "bounds.hpp"
#include "hop_plan.hpp"
#include "interval_search.hpp"
#include "lowering.hpp"
#include "lpu/interconnect/route.hpp"
#include "lpu/interconnect/topology.hpp"
#include "lpu/node/quantity.hpp"
#include "lpu/scheduler/model_preset.hpp"
#include "partition.hpp"
#include "placement.hpp"
#include "report.hpp"
#include "token_return.hpp"

namespace lpu::scheduler {

using node::ceil_div;

DoesNotFit::DoesNotFit(const std::string& message, std::int32_t smallest)
    : InputError(message), smallest_chips_(smallest) {}

namespace {

/// Stages that may share one text: the same blocks, ends and cables.
struct StageKind {
  std::int32_t phase = 0;  ///< block kind that it begins with
  std::int32_t blocks = 0;
  bool has_embedding = false;
  bool has_head = false;
  HopPlan entry, exit;
  bool operator==(const StageKind&) const = default;
};

struct ScheduledStage {
  StageKind kind;
  LowerStage lower;
  std::unique_ptr<Lowering> lowering;
  std::vector<std::int32_t> classes;             ///< per group position: the first position with the same text
  std::map<std::int32_t, std::int32_t> text_of;  ///< class to index in ClusterProgram::texts
};

/// Budget of a layer from one block of each kind; blocks that do not begin their stage are preferred, since the gather
/// before the others belongs to the hop.
LayerBudget typical_layer(const std::vector<ScheduledStage>& kinds) {
  LayerBudget sum;
  for (const Block block : {Block::kAttention, Block::kGateUp, Block::kDown}) {
    const Lowering* best = nullptr;
    std::size_t at = 0;
    for (const ScheduledStage& kind : kinds) {
      const std::vector<Lowering::Span>& spans = kind.lowering->spans();
      for (std::size_t i = 0; i < spans.size(); ++i) {
        if (spans[i].block == block && (best == nullptr || (at == 0 && i > 0))) {
          best = kind.lowering.get();
          at = i;
        }
      }
    }
    const LayerBudget one = layer_budget(best->builder(), {best->spans()[at]});
    sum.install += one.install;
    sum.activation_slots += one.activation_slots;
    sum.fill += one.fill;
    sum.vxm += one.vxm;
    sum.sxm += one.sxm;
    sum.attention += one.attention;
    sum.router += one.router;
    sum.wires_exposed += one.wires_exposed;
    sum.waiting += one.waiting;
    sum.wires_hidden += one.wires_hidden;
    sum.layer += one.layer;
  }
  return sum;
}

/// Interval of an empty machine: one iteration of the longest stage.
std::int64_t empty_interval(const std::vector<ScheduledStage>& kinds) {
  std::int64_t interval = 0;
  for (const ScheduledStage& kind : kinds) {
    interval = std::max(interval, kind.lowering->builder().end_of_all());
  }
  return interval;
}

/// The same stages in an empty machine.
std::vector<ScheduledStage> lower_alone(const std::vector<ScheduledStage>& kinds) {
  std::vector<ScheduledStage> out;
  for (const ScheduledStage& kind : kinds) {
    out.push_back({.kind = kind.kind,
                   .lower = kind.lower,
                   .lowering = kind.lower(Load::kEmpty, 0, {}),
                   .classes = kind.classes,
                   .text_of = {}});
  }
  return out;
}

/// Schedule all kinds as a hint says.
/// @return whether it leads to a schedule; if not, the kinds are as they were
bool follow(std::vector<ScheduledStage>& kinds, const ScheduleHint& hint) {
  if (hint.stages.size() != kinds.size()) {
    return false;
  }
  std::vector<std::unique_ptr<Lowering>> scheduled;
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    scheduled.push_back(schedule_at(kinds[k].lower, *kinds[k].lowering, hint.interval, hint.stages[k]).lowering);
    if (!scheduled.back()) {
      return false;
    }
  }
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    kinds[k].lowering = std::move(scheduled[k]);
  }
  return true;
}

/// The hints for what is being scheduled, those for the most similar number of users first.
std::vector<const ScheduleHint*> hints_for(const CompileRequest& request, const ScheduleHint& wanted) {
  std::vector<const ScheduleHint*> out;
  const auto what = [](const ScheduleHint& hint) {
    return std::tie(
        hint.compute, hint.experts, hint.context, hint.micro_batch, hint.tensor_parallel, hint.pipeline_parallel);
  };
  for (const ScheduleHint& hint : request.hints) {
    if (request.search_orders == 0 && what(hint) == what(wanted)) {
      out.push_back(&hint);
    }
  }
  std::stable_sort(out.begin(), out.end(), [&](const ScheduleHint* a, const ScheduleHint* b) {
    return std::abs(a->user_slots - wanted.user_slots) < std::abs(b->user_slots - wanted.user_slots);
  });
  return out;
}

/// Schedule all kinds for one interval: that of a hint, else the first at which the search finds a place for the stage
/// with the longest windows and then for all others; one iteration after the other where that is no longer. The search
/// begins 9.6 % above the bound (below, hardly one order in hundreds has a place for everything) and goes up in steps
/// of 1 %, doubled up to 8 %.
/// @param bound  that no interval can beat: little more than it is where the search begins, if the windows leave slack
/// @param least  where the search begins at the earliest
/// @param found  in: what is searched for; out: what was found
/// @return the interval
std::int64_t crowd(std::vector<ScheduledStage>& kinds,
                   const CompileRequest& request,
                   std::int64_t bound,
                   std::int64_t least,
                   ScheduleHint& found,
                   const Progress& progress) {
  constexpr std::int32_t kOrders = 64;
  constexpr double kOverBound = 1.096;
  constexpr double kLeastSlack = 1.01;
  constexpr double kFirstSlack = 1.035;
  constexpr double kFirstStep = 0.01;
  constexpr double kLargestStep = 0.08;
  constexpr double kTwice = 2;  // so far from the windows' length the iterations hardly overlap
  const std::int32_t orders = request.search_orders > 0 ? request.search_orders : kOrders;
  for (const ScheduleHint* hint : hints_for(request, found)) {
    if (hint->interval >= std::max(bound, least) && hint->interval % link_grid(request) == 0 && follow(kinds, *hint)) {
      found.interval = hint->interval;
      found.stages = hint->stages;
      return found.interval;
    }
  }
  if (!request.may_search) {
    throw NoSchedule("no hint leads to a schedule");
  }
  std::vector<std::size_t> by_length(kinds.size());
  std::iota(by_length.begin(), by_length.end(), std::size_t{0});
  std::sort(by_length.begin(), by_length.end(), [&](std::size_t a, std::size_t b) {
    return windows_length(*kinds[a].lowering) > windows_length(*kinds[b].lowering);
  });
  const auto windows = static_cast<double>(windows_length(*kinds[by_length.front()].lowering));
  double interval =
      std::max(std::clamp(static_cast<double>(bound) * kOverBound, windows * kLeastSlack, windows * kFirstSlack),
               static_cast<double>(std::max(bound, least)));
  double step = kFirstStep;
  std::vector<ScheduledInterval> scheduled(kinds.size());
  std::vector<ScheduledStage> alone;
  std::size_t done = 0;
  while (done < kinds.size()) {
    const std::int64_t whole = ceil_div(static_cast<std::int64_t>(interval), link_grid(request)) * link_grid(request);
    const std::size_t k = by_length[done];
    scheduled[k] = schedule_interval(kinds[k].lower, *kinds[k].lowering, whole, orders, request.seed + k);
    if (scheduled[k].lowering) {
      ++done;
    } else {
      interval = std::max(interval * (1 + step), interval + 1);
      step = std::min(2 * step, kLargestStep);
      done = 0;
      if (interval > windows * kTwice && alone.empty()) {
        alone = lower_alone(kinds);
      }
      if (!alone.empty() && static_cast<std::int64_t>(interval) >= empty_interval(alone)) {
        kinds = std::move(alone);
        return std::max(empty_interval(kinds), least);
      }
    }
    if (progress) {
      progress(static_cast<double>(done) / static_cast<double>(kinds.size()), "interval " + std::to_string(whole));
    }
  }
  found.interval = ceil_div(static_cast<std::int64_t>(interval), link_grid(request)) * link_grid(request);
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    kinds[k].lowering = std::move(scheduled[k].lowering);
    found.stages.push_back(std::move(scheduled[k].phases));
  }
  return found.interval;
}

std::string list_of(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) {
    out += (out.empty() ? "" : "; ") + line;
  }
  return out;
}

/// Columns of the widest product that must stand in one place (plane, or plane pair).
std::int64_t place_columns(const CompileRequest& request) {
  return make_path(request.compute, request.kv, request.chip).tile_columns;
}

/// What the lowering takes for granted of a chip, as fields of the preset: it lays rows over groups of four slices,
/// stripes over eight of these, and numbers the ALUs of its chains.
void check_chip(const node::ChipSpec& chip, std::vector<std::string>& faults) {
  struct Limit {
    const char* field;
    std::int32_t found;
    std::int32_t least;
    bool is_exact;
  };
  for (const Limit& limit : {
           Limit{"superlanes", chip.superlanes, 20, true},
           Limit{"lanes_per_superlane", chip.lanes_per_superlane, 16, true},
           Limit{"slices_per_hemisphere", chip.slices_per_hemisphere, 44, false},
           Limit{"slices_per_position", chip.slices_per_position, 4, true},
           Limit{"banks_per_slice", chip.banks_per_slice, 2, true},
           Limit{"streams_per_direction", chip.streams_per_direction, 32, false},
           Limit{"mxm_planes_per_hemisphere", chip.mxm_planes_per_hemisphere, 2, true},
           Limit{"mxm_rows", chip.mxm_rows, 320, true},
           Limit{"mxm_columns", chip.mxm_columns, 320, true},
           Limit{"mxm_install_columns_per_cycle", chip.mxm_install_columns_per_cycle, 16, true},
           Limit{"vxm_alus", chip.vxm_alus, 16, false},
           Limit{"sxm_streams_per_cycle", chip.sxm_streams_per_cycle, 16, false},
       }) {
    if (limit.is_exact ? limit.found != limit.least : limit.found < limit.least) {
      faults.push_back("chip." + std::string(limit.field) + ": found " + std::to_string(limit.found) + "; expected " +
                       (limit.is_exact ? "" : "at least ") + std::to_string(limit.least) +
                       ", for which programs can be made");
    }
  }
}

/// Everything about the request that no program exists for, at once.
void check_request(const CompileRequest& request) {
  check_model(request.model, "model.");
  std::vector<std::string> faults;
  check_chip(request.chip, faults);
  const auto complain = [&](bool is_fault, const std::string& what) {
    if (is_fault) {
      faults.push_back(what);
    }
  };
  const KvType expected = request.compute == Compute::kW8A8            ? KvType::kInt8
                          : request.compute == Compute::kFp32Reference ? KvType::kFp32
                                                                       : KvType::kFp16;
  const auto kv_name = [](KvType kv) {
    return std::string(kv == KvType::kInt8 ? "int8" : kv == KvType::kFp16 ? "fp16" : "fp32");
  };
  complain(request.kv != expected,
           "kv: found " + kv_name(request.kv) + "; expected the compute path's, " + kv_name(expected) +
               " (int8 with w8a8, fp16 with w8a16 and fp16, fp32 with fp32ref)");
  for (const auto& [name, columns] :
       {std::pair("head_dim", request.model.head_dim), std::pair("experts", request.model.experts)}) {
    complain(columns > place_columns(request),
             std::string(name) + ": found " + std::to_string(columns) + "; expected at most a tile's columns, " +
                 std::to_string(place_columns(request)));
  }
  complain(request.micro_batch < 1 || request.micro_batch > 32,
           "micro-batch: found " + std::to_string(request.micro_batch) + "; expected 1 to 32");
  complain(request.context < 1 || request.context > request.model.max_position,
           "context: found " + std::to_string(request.context) + "; expected 1 to the model's " +
               std::to_string(request.model.max_position) + " positions");
  CompileRequest alone = request;  // each limit for itself
  alone.micro_batch = 1;
  const Scratch scratch = scratch_of(alone, {.first_block = 0, .blocks = 1});
  complain(
      request.context <= request.model.max_position && scratch.rows + request.context > request.chip.vectors_per_slice,
      "context: found " + std::to_string(request.context) + "; expected at most " +
          std::to_string(std::max(0, request.chip.vectors_per_slice - scratch.rows)) +
          ": the rotary table keeps a row a position in one slice, beside " + std::to_string(scratch.rows) +
          " of scratch");
  complain(request.users && *request.users < 1,
           "users: found " + std::to_string(request.users.value_or(0)) + "; expected at least 1");
  complain(request.chips < 0 || request.chips > interconnect::kChipsMost,
           "chips: found " + std::to_string(request.chips) + "; expected 1 to " +
               std::to_string(interconnect::kChipsMost) + ", or 0 for the fewest that do");
  if (request.tensor_parallel) {
    const std::int32_t tp = *request.tensor_parallel;
    complain(tp < 1 || tp > 8 || (tp & (tp - 1)) != 0,
             "tp: found " + std::to_string(tp) + "; expected 1, 2, 4 or 8 (chips of one node)");
  }
  const std::int64_t wanted = std::int64_t{request.tensor_parallel.value_or(1)} * request.pipeline_parallel.value_or(1);
  complain(request.chips > 0 && wanted > request.chips,
           "tp x pp: found " + std::to_string(wanted) + " chips; expected at most " + std::to_string(request.chips));
  if (request.pipeline_parallel) {
    complain(*request.pipeline_parallel < 1 || *request.pipeline_parallel > 3 * request.model.layers,
             "pp: found " + std::to_string(*request.pipeline_parallel) + "; expected 1 to " +
                 std::to_string(3 * request.model.layers) + " (three cuts a layer)");
  }
  // Any unit of the chip may be given work, and each takes its instructions from queues of its own (node/README.md,
  // "ICU").
  const node::ChipSpec& chip = request.chip;
  const std::int32_t queues = 2 * chip.slices_per_hemisphere + 2 * 3 * chip.mxm_planes_per_hemisphere + chip.vxm_alus +
                              2 * 3 + 2 * chip.links();
  complain(chip.icu_queues < queues,
           "chip.icu_queues: found " + std::to_string(chip.icu_queues) + "; expected at least " +
               std::to_string(queues) + ", those of its units");
  if (!faults.empty()) {
    throw node::InputError(list_of(faults));
  }
}

struct Partitioning {
  std::int32_t tensor_parallel = 0;
  std::int32_t pipeline_parallel = 0;
  std::vector<Stage> stages;
  double cost = 0;  ///< cycles: a token's latency, or the slowest stage's interval
};

/// Cost model of the search: installs and slots of every block, plus per layer what waits for wires and vector units.
std::optional<Partitioning> evaluate(const CompileRequest& request,
                                     const ComputePath& path,
                                     std::int32_t tp,
                                     std::int32_t pp) {
  const Shard shard = make_shard(request.model, tp, request.chip);
  Partitioning out{.tensor_parallel = tp, .pipeline_parallel = pp, .stages = cut_stages(request, shard, path, pp)};
  if (!fits(request, shard, path, out.stages)) {
    return std::nullopt;
  }
  double slowest = 0;
  double total = 0;
  for (const Stage& stage : out.stages) {
    double busy = 0;
    for (std::int32_t i = 0; i < stage.blocks; ++i) {
      busy += static_cast<double>(block_cycles(request, shard, path, stage.block(i)));
    }
    slowest = std::max(slowest, busy);
    total += busy;
  }
  const auto hop = static_cast<double>((request.chip.link_flight + request.chip.c2c_endpoint).count());
  const auto service = static_cast<double>(request.chip.link_serialisation.count());
  const auto rows = [&](const Packing& packing) {
    return static_cast<double>(packing.groups * path.wire_bytes * request.micro_batch) * service;
  };
  const double wires = tp == 1 ? 0 : 4 * hop + rows(shard.attention) + 3 * rows(shard.hidden);
  const double vectors = 1'900.0 + 8.0 * shard.tiles(shard.hidden);
  total +=
      static_cast<double>(request.model.layers) * (wires + vectors) + (pp - 1) * (2.0 * hop + 2 * rows(shard.hidden));
  out.cost = request.objective == Objective::kLatency ? total : slowest * 1e6 + total;
  return out;
}

/// Every partition that fits by the model, the cheapest first.
std::vector<Partitioning> rank_partitions(const CompileRequest& request, const ComputePath& path) {
  std::vector<Partitioning> out;
  for (const Degrees& degrees : possible_degrees(request)) {
    if (std::optional<Partitioning> found =
            evaluate(request, path, degrees.tensor_parallel, degrees.pipeline_parallel)) {
      out.push_back(std::move(*found));
    }
  }
  std::stable_sort(
      out.begin(), out.end(), [](const Partitioning& a, const Partitioning& b) { return a.cost < b.cost; });
  return out;
}

bool has_partition(const CompileRequest& request, const ComputePath& path) {
  return !rank_partitions(request, path).empty();
}

/// The most users, and the longest context, that the same chips would do with; nothing where neither helps alone.
std::string what_would_fit(const CompileRequest& given, const ComputePath& path) {
  std::string out;
  CompileRequest request = given;
  std::int32_t low = 0;  // in micro-batches
  std::int32_t high = user_slots(given) / given.micro_batch;
  while (high - low > 1) {
    const std::int32_t middle = low + (high - low) / 2;
    request.users = middle * given.micro_batch;
    (has_partition(request, path) ? low : high) = middle;
  }
  if (low > 0) {
    out += ", or with fewer --users (" + std::to_string(low * given.micro_batch) + " at most)";
  }
  request = given;
  while (request.context > 1) {
    request.context /= 2;
    if (has_partition(request, path)) {
      return out + ", or with --context " + std::to_string(request.context);
    }
  }
  return out;
}

std::string shortage(const CompileRequest& request, const ComputePath& path, std::int32_t smallest) {
  const ModelConfig& m = request.model;
  const double per_layer = static_cast<double>(m.hidden * m.head_dim * (2 * m.heads + 2 * m.kv_heads) +
                                               3 * m.hidden * m.ffn * std::max<std::int64_t>(m.experts, 1));
  const double parameters =
      per_layer * static_cast<double>(m.layers) + 2.0 * static_cast<double>(m.vocabulary * m.hidden);
  const auto giga = [](double x) {
    std::string text = std::to_string(x / 1e9);
    return text.substr(0, text.find('.') + 2) + " GB";
  };
  const std::int32_t chips = request.chips > 0 ? request.chips : interconnect::kChipsMost;
  std::string out = m.name + ": found " + giga(parameters * path.weight_bytes) + " of weights and " +
                    std::to_string(user_slots(request)) +
                    (user_slots(request) == 1 ? " user's KV at context " : " users' KV at context ") +
                    std::to_string(request.context) + "; expected no more than " + std::to_string(chips) +
                    " chips hold (" + giga(static_cast<double>(request.chip.sram().count()) * chips) + "); fits";
  out += smallest > 0 ? " on " + std::to_string(smallest) + " chips" : " on no system";
  if (path.weight_bytes > 1) {
    out += ", or with 8-bit weights (--compute w8a8 or w8a16)";
  }
  return out + what_would_fit(request, path);
}

}  // namespace

std::int32_t smallest_chips(const CompileRequest& request) {
  const ComputePath path = make_path(request.compute, request.kv, request.chip);
  std::int32_t best = 0;
  for (const std::int32_t tp : {1, 2, 4, 8}) {
    if (tp != request.tensor_parallel.value_or(tp)) {
      continue;
    }
    // Fewest stages that fit: memory shrinks as stages are added, so bisect.
    const auto most = static_cast<std::int32_t>(3 * request.model.layers);
    std::int32_t high = request.pipeline_parallel.value_or(most);
    std::int32_t low = request.pipeline_parallel ? high - 1 : 0;
    if (!evaluate(request, path, tp, high)) {
      continue;
    }
    while (high - low > 1) {
      const std::int32_t middle = (low + high) / 2;
      (evaluate(request, path, tp, middle) ? high : low) = middle;
    }
    const std::int32_t groups_per_node = 8 / tp;
    const std::int32_t chips =
        high <= groups_per_node ? high * tp : (high / groups_per_node) * 8 + high % groups_per_node * tp;
    if (best == 0 || chips < best) {
      best = chips;
    }
  }
  return best;
}

namespace {

/// Texts that no chip runs any more, since the token's way back gave it one of its own.
void drop_unused_texts(ClusterProgram& program) {
  std::vector<std::int32_t> number(program.texts.size(), -1);
  std::vector<node::ChipProgram> used;
  for (std::size_t text = 0; text < program.texts.size(); ++text) {
    const bool is_used = std::any_of(program.bindings.begin(), program.bindings.end(), [&](const auto& binding) {
      return binding.text == static_cast<std::int32_t>(text);
    });
    if (is_used) {
      number[text] = static_cast<std::int32_t>(used.size());
      used.push_back(std::move(program.texts[text]));
    }
  }
  program.texts = std::move(used);
  for (node::ChipBinding& binding : program.bindings) {
    binding.text = binding.text < 0 ? -1 : number[static_cast<std::size_t>(binding.text)];
  }
}

/// @param least  interval below which nothing is tried; out: the one that was scheduled
Compiled build(const CompileRequest& request,
               const ComputePath& path,
               const Partitioning& chosen,
               std::int64_t& least,
               const Progress& progress) {
  const interconnect::Topology topology = interconnect::make_topology(request.chip, request.chips);
  const Shard shard = make_shard(request.model, chosen.tensor_parallel, request.chip);
  const std::vector<std::vector<std::int32_t>> groups =
      place_groups(topology, chosen.tensor_parallel, chosen.pipeline_parallel);
  std::vector<HopPlan> hops;
  for (std::size_t s = 0; s + 1 < groups.size(); ++s) {
    hops.push_back(plan_hop(topology, groups[s], groups[s + 1]));
  }

  Compiled out;
  ClusterProgram& program = out.program;
  program.chip = request.chip;
  program.inputs = request.inputs;
  program.model = request.model.name;
  program.chips = request.chips;
  program.tensor_parallel = chosen.tensor_parallel;
  program.pipeline_parallel = chosen.pipeline_parallel;
  program.user_slots = user_slots(request);

  // Distinct stages, each scheduled once.
  std::vector<ScheduledStage> kinds;
  std::vector<std::size_t> kind_of;
  for (std::size_t s = 0; s < chosen.stages.size(); ++s) {
    const Stage& stage = chosen.stages[s];
    StageKind kind{.phase = stage.first_block % 3,
                   .blocks = stage.blocks,
                   .has_embedding = stage.has_embedding,
                   .has_head = stage.has_head,
                   .entry = s > 0 ? hops[s - 1] : HopPlan{},
                   .exit = s < hops.size() ? hops[s] : HopPlan{}};
    const auto found =
        std::find_if(kinds.begin(), kinds.end(), [&](const ScheduledStage& k) { return k.kind == kind; });
    kind_of.push_back(static_cast<std::size_t>(found - kinds.begin()));
    if (found == kinds.end()) {
      kinds.push_back({.kind = kind, .lower = {}, .lowering = nullptr, .classes = {}, .text_of = {}});
      ScheduledStage& made = kinds.back();
      made.lower = [&, kind, stage](Load load, std::int64_t period, Lowering::WindowPlan plan) {
        const auto stripes =
            stripes_of(request, path, stage_memory(request, shard, path, stage), stage, program.user_slots);
        LPU_CHECK(stripes.has_value(), "a stage that was found to fit");
        auto lowering = std::make_unique<Lowering>(
            request,
            shard,
            path,
            stage,
            MemoryMap(request.chip, *stripes, scratch_of(request, stage), path.stored_slices),
            program.user_slots,
            load,
            period,
            std::move(plan),
            kind.entry,
            kind.exit);
        lowering->run();
        return lowering;
      };
      made.lowering = made.lower(request.objective == Objective::kLatency ? Load::kEmpty : Load::kLoaded, 0, {});
      made.classes = made.lowering->builder().text_classes(chosen.tensor_parallel);
      if (progress) {
        progress(static_cast<double>(s + 1) / static_cast<double>(chosen.stages.size()),
                 "stage " + std::to_string(s + 1));
      }
    }
  }
  const std::int64_t bound = interval_lower_bound(request, shard, path, chosen.stages, hops);
  ScheduleHint hint{.compute = request.compute,
                    .experts = request.experts,
                    .context = request.context,
                    .micro_batch = request.micro_batch,
                    .tensor_parallel = chosen.tensor_parallel,
                    .pipeline_parallel = chosen.pipeline_parallel,
                    .user_slots = program.user_slots,
                    .interval = 0,
                    .token_latency = 0,
                    .stages = {}};
  const std::int64_t interval = request.objective == Objective::kLatency
                                    ? std::max(empty_interval(kinds), least)
                                    : crowd(kinds, request, bound, least, hint, progress);
  least = interval;
  program.initiation_interval = interval;
  program.plan = {.initiation_interval = interval,
                  .token_period = 0,
                  .groups = 1,
                  .micro_batch = request.micro_batch,
                  .context = request.context,
                  .vocabulary = static_cast<std::int32_t>(request.model.vocabulary),
                  .experts = static_cast<std::int32_t>(request.model.experts),
                  .experts_per_token = static_cast<std::int32_t>(request.model.experts_per_token),
                  .expert_slots = static_cast<std::int32_t>(
                      request.experts == ExpertMode::kAll
                          ? request.model.experts
                          : std::min(request.model.experts, request.model.experts_per_token * request.micro_batch)),
                  .seed = request.seed};
  for (ScheduledStage& kind : kinds) {
    for (std::int32_t p = 0; p < chosen.tensor_parallel; ++p) {
      if (kind.classes[static_cast<std::size_t>(p)] == p) {
        kind.text_of[p] = static_cast<std::int32_t>(program.texts.size());
        program.texts.push_back(kind.lowering->builder().finish(interval, p, kind.lowering->scratch_limits()));
        program.texts.back().layers = chosen.stages.front().blocks / 3 + 1;
      }
    }
    kind.lowering->forget_reservations();
  }
  // Bindings: idle chips first, then the stages' chips in their places.
  for (std::int32_t c = 0; c < topology.chips_with_spares; ++c) {
    program.bindings.push_back(
        {.chip = c, .text = -1, .stage = -1, .peers = topology.peers[static_cast<std::size_t>(c)], .slot_owner = {}});
  }
  std::int64_t offset = 0;
  for (std::size_t s = 0; s < chosen.stages.size(); ++s) {
    const ScheduledStage& kind = kinds[kind_of[s]];
    for (std::int32_t p = 0; p < chosen.tensor_parallel; ++p) {
      node::ChipBinding& binding = program.bindings[static_cast<std::size_t>(groups[s][static_cast<std::size_t>(p)])];
      binding.text = kind.text_of.at(kind.classes[static_cast<std::size_t>(p)]);
      binding.stage = static_cast<std::int32_t>(s);
      binding.group_position = p;
      binding.first_layer = chosen.stages[s].layer(0);
      binding.offset = offset;
      binding.slot_owner = slot_owners(shard, p);
    }
    if (!chosen.stages[s].has_head) {
      offset += kind.lowering->hop_departure() + request.chip.link_latency().count();
    }
  }
  const std::int32_t return_hops = return_token(program, topology);
  program.busy_span = 0;
  for (const node::ChipProgram& text : program.texts) {
    program.busy_span = std::max<std::int64_t>(program.busy_span, text.makespan);
  }
  program.plan.token_period = program.token_latency;

  // The report: each figure off the schedule.
  PlanReport& report = out.report;
  report.chips_idle = request.chips - chosen.tensor_parallel * chosen.pipeline_parallel;
  double busy_sum = 0;
  double busy_most = 0;
  for (std::size_t s = 0; s < chosen.stages.size(); ++s) {
    const Stage& stage = chosen.stages[s];
    const StageMemory memory = stage_memory(request, shard, path, stage);
    double busy = 0;
    for (std::int32_t i = 0; i < stage.blocks; ++i) {
      busy += static_cast<double>(block_cycles(request, shard, path, stage.block(i)));
    }
    busy_sum += busy;
    busy_most = std::max(busy_most, busy);
    const ScheduledStage& kind = kinds[kind_of[s]];
    const std::vector<Lowering::Span>& spans = kind.lowering->spans();
    const std::int64_t begin = spans.front().start;
    const std::int64_t end = spans.back().end;
    report.layers_cycles += end - begin;
    if (s == 0) {
      report.ends_cycles += begin;
    } else {
      report.hops_cycles += begin;
    }
    if (!stage.has_head) {
      report.hops_cycles += kind.lowering->hop_departure() + request.chip.link_latency().count() - end;
    }
    const auto& text = program.texts[static_cast<std::size_t>(kind.text_of.begin()->second)];
    SramUse use;
    use.weights = node::Bytes(memory.weight_bytes);
    use.kv = node::Bytes(memory.kv_bytes_per_user * program.user_slots);
    std::int64_t rows = 0;
    for (const node::Allocation& a : text.allocations) {
      const node::Tensor& tensor = text.tensors[a.tensor];
      const std::int64_t count = std::int64_t{a.count[0]} * a.count[1] * a.count[2];
      if (tensor.name == "program_text") {
        use.program = node::Bytes(count * request.chip.vector_bytes);
      } else if (tensor.scope == node::TensorScope::kIteration) {
        rows += count * text.registers[a.base_register].copies;
      } else if (tensor.name == "rotary_table") {
        rows += count * request.context;
      } else if (tensor.name.find(".gamma") != std::string::npos) {
        rows += count;
      }
    }
    use.activations = node::Bytes(rows * request.chip.vector_bytes);
    report.sram_of_stage.push_back(use);
    if (use.total() > report.sram.total()) {
      report.sram = use;
    }
  }
  if (!hint.stages.empty()) {
    hint.token_latency = program.token_latency;
    report.hint = std::move(hint);
  }
  report.budget = typical_layer(kinds);
  report.ii_lower_bound = bound;
  report.latency_lower_bound = latency_lower_bound(request, shard, path, chosen.stages, hops, return_hops);
  report.ends_cycles = program.token_latency - report.layers_cycles - report.hops_cycles;
  report.balance = busy_sum / static_cast<double>(chosen.stages.size()) / busy_most;
  report.users_fit = most_users(request, shard, path, chosen.pipeline_parallel);
  report.users_saturating =
      static_cast<std::int32_t>(ceil_div(program.token_latency, program.initiation_interval)) * request.micro_batch;
  drop_unused_texts(program);
  return out;
}

/// The shortest interval that also has room for the token's way back.
Compiled build(const CompileRequest& request,
               const ComputePath& path,
               const Partitioning& chosen,
               const Progress& progress) {
  constexpr std::int32_t kLonger = 32;
  constexpr std::int64_t kStep = 50;  // a fiftieth
  std::int64_t least = 0;
  for (std::int32_t i = 0;; ++i) {
    try {
      return build(request, path, chosen, least, progress);
    } catch (const NoWayBack& none) {
      LPU_CHECK(i < kLonger, none.what());
      least += least / kStep + 1;
    }
  }
}

/// Compile for a number of users that is known.
Compiled compile_for(const CompileRequest& given, const Progress& progress) {
  constexpr std::size_t kTries = 8;
  CompileRequest request = given;
  const ComputePath path = make_path(request.compute, request.kv, request.chip);
  if (request.chips == 0) {
    request.chips = smallest_chips(request);
  }
  const std::vector<Partitioning> partitions = rank_partitions(request, path);
  if (partitions.empty()) {
    const std::int32_t smallest = smallest_chips(given);
    throw DoesNotFit(shortage(request, path, smallest), smallest);
  }
  // The model of the fit knows neither cables nor what scratch a schedule takes: the cheapest that can be built.
  for (std::size_t i = 0;; ++i) {
    try {
      return build(request, path, partitions[i], progress);
    } catch (const DoesNotFit& full) {
      if (i + 1 == std::min(partitions.size(), kTries)) {
        throw DoesNotFit(request.model.name + ": " + full.what() + " (TP " +
                             std::to_string(partitions[i].tensor_parallel) + " x PP " +
                             std::to_string(partitions[i].pipeline_parallel) +
                             "); fits on more chips, or with fewer --users or a shorter --context",
                         0);
      }
    } catch (const node::InputError&) {
      if (i + 1 == std::min(partitions.size(), kTries)) {
        throw;
      }
    } catch (const NoSchedule& none) {
      if (i + 1 == std::min(partitions.size(), kTries)) {
        throw node::InputError(request.model.name + ": found no schedule on this chip, not even for one token alone (" +
                               none.what() + "); expected a chip with more of it");
      }
    }
  }
}

/// Of all users that KV is allocated for, as far as they saturate the pipeline.
double tokens_per_cycle(const Compiled& compiled) {
  const std::int32_t users = std::min(compiled.program.user_slots, compiled.report.users_saturating);
  return users / static_cast<double>(with_users(compiled.program, users).token_period);
}

}  // namespace

Compiled compile(const CompileRequest& given, const Progress& progress) {
  check_request(given);
  if (given.users) {
    return compile_for(given, progress);
  }
  CompileRequest request = given;
  request.users = given.micro_batch;
  return saturated(given, compile_for(request, progress), progress);
}

Compiled saturated(const CompileRequest& given, Compiled built, const Progress& progress) {
  // How many users saturate a pipeline follows from its schedule, and that from the memory which their KV leaves.
  constexpr std::int32_t kRounds = 8;
  constexpr std::int32_t kPrecision = 50;  // a fiftieth
  CompileRequest request = given;
  request.chips = built.program.chips;
  request.tensor_parallel = built.program.tensor_parallel;
  request.pipeline_parallel = built.program.pipeline_parallel;
  // The fit is an estimate, mostly right: where it is not, halve the distance between what was built and what was not.
  std::int32_t most = built.report.users_fit;
  std::int32_t failed = 0;
  for (std::int32_t round = 0; round < kRounds; ++round) {
    const std::int32_t users = built.program.user_slots;
    if (failed > 0) {
      const std::int32_t half = (failed - users) / 2 / given.micro_batch * given.micro_batch;
      most = half > users / kPrecision ? users + half : users;
    }
    request.users = std::min(built.report.users_saturating, most);
    if (*request.users <= users) {
      break;
    }
    try {
      Compiled more = compile_for(request, progress);
      if (tokens_per_cycle(more) > tokens_per_cycle(built)) {
        built = std::move(more);
        continue;
      }
    } catch (const node::InputError&) {  // it does not fit, or has no schedule
    }
    failed = *request.users;
  }
  return built;
}

std::int32_t fitting_users(const CompileRequest& given, const Compiled& compiled) {
  constexpr std::int32_t kPrecision = 50;  // a fiftieth
  CompileRequest request = given;
  request.objective = Objective::kLatency;
  request.chips = compiled.program.chips;
  request.tensor_parallel = compiled.program.tensor_parallel;
  request.pipeline_parallel = compiled.program.pipeline_parallel;
  const std::int32_t batch = request.micro_batch;
  const auto fits = [&](std::int32_t groups) {
    request.users = groups * batch;
    try {
      (void)compile_for(request, {});
      return true;
    } catch (const node::InputError&) {
      return false;
    }
  };
  // Mostly the model of the memory is right or nearly so: from there down in growing steps, then halving.
  std::int32_t low = compiled.program.user_slots / batch;
  std::int32_t high = std::max(low, compiled.report.users_fit / batch) + 1;
  for (std::int32_t step = 1; high - low > 1; step *= 2) {
    const std::int32_t next = std::max(high - step, low + 1);
    if (fits(next)) {
      low = next;
      break;
    }
    high = next;
  }
  while (high - low > 1 + low / kPrecision) {
    const std::int32_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low * batch;
}

}  // namespace lpu::scheduler
