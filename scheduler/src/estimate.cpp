#include "lpu/scheduler/estimate.hpp"

#include <algorithm>
#include <limits>

#include "bounds.hpp"
#include "lpu/interconnect/topology.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"
#include "partition.hpp"
#include "placement.hpp"

namespace lpu::scheduler {
namespace {

using node::ceil_div;

/// One token alone over its lower bound: 1.065 (Llama-2-70B, TP 8 x PP 72) to 1.096 (Llama-3-8B, TP 8 x PP 8).
constexpr double kEmptyOverBound = 1.08;
/// Where the search for an interval begins, and nearly always ends: over the bound, and over the windows' length.
constexpr double kLoadedOverBound = 1.096;
constexpr double kLeastOverWindows = 1.01;
constexpr double kMostOverWindows = 1.035;
/// What a token of a loaded pipeline waits for its turns, in intervals a layer: 0.6 to 2.1, by the search's luck.
constexpr double kTurnsOfLayer = 1.2;

std::int64_t scaled(std::int64_t cycles, double factor) {
  return static_cast<std::int64_t>(static_cast<double>(cycles) * factor);
}

/// Cycles that installs and activation slots hold the MXM of the slowest stage.
double windows_length(const CompileRequest& request,
                      const Shard& shard,
                      const ComputePath& path,
                      const std::vector<Stage>& stages) {
  std::int64_t longest = 0;
  for (const Stage& stage : stages) {
    std::int64_t busy = stage.has_head ? install_cycles(head_linear(shard, path), path) : 0;
    for (std::int32_t i = 0; i < stage.blocks; ++i) {
      busy += block_cycles(request, shard, path, stage.block(i));
    }
    longest = std::max(longest, busy);
  }
  return static_cast<double>(longest);
}

/// Cables between consecutive stages; throws where there are none.
std::vector<HopPlan> plan_hops(const interconnect::Topology& topology, const Degrees& degrees) {
  const auto groups = place_groups(topology, degrees.tensor_parallel, degrees.pipeline_parallel);
  std::vector<HopPlan> out;
  for (std::size_t stage = 0; stage + 1 < groups.size(); ++stage) {
    out.push_back(plan_hop(topology, groups[stage], groups[stage + 1]));
  }
  return out;
}

Estimate estimate(const CompileRequest& request,
                  const ComputePath& path,
                  const Degrees& degrees,
                  const std::vector<Stage>& stages,
                  const std::vector<HopPlan>& hops) {
  const Shard shard = make_shard(request.model, degrees.tensor_parallel, request.chip);
  Estimate out{.tensor_parallel = degrees.tensor_parallel,
               .pipeline_parallel = degrees.pipeline_parallel,
               .micro_batch = request.micro_batch,
               .users_fit = *request.users,
               .empty = {},
               .loaded = {}};
  const std::int32_t return_hops = degrees.pipeline_parallel > 1 ? 1 : 0;
  std::vector<std::int64_t> of_stage(stages.size(), 0);
  std::int64_t latency = 0;
  for (const PathStep& step : latency_path(request, shard, path, stages, hops, return_hops)) {
    of_stage[static_cast<std::size_t>(step.stage)] += step.cycles;
    latency += step.cycles;
  }
  out.empty = {.initiation_interval = scaled(*std::max_element(of_stage.begin(), of_stage.end()), kEmptyOverBound),
               .token_latency = scaled(latency, kEmptyOverBound)};
  const auto bound = static_cast<double>(interval_lower_bound(request, shard, path, stages, hops));
  const double windows = windows_length(request, shard, path, stages);
  const auto interval = static_cast<std::int64_t>(
      std::max(bound, std::clamp(bound * kLoadedOverBound, windows * kLeastOverWindows, windows * kMostOverWindows)));
  out.loaded = {.initiation_interval = interval,
                .token_latency = out.empty.token_latency +
                                 scaled(interval, kTurnsOfLayer * static_cast<double>(request.model.layers))};
  return out;
}

}  // namespace

std::int32_t users_saturating(const Pace& pace, std::int32_t micro_batch) {
  return static_cast<std::int32_t>(ceil_div(pace.token_latency, pace.initiation_interval)) * micro_batch;
}

std::int64_t token_period(const Pace& pace, std::int32_t micro_batch, std::int32_t users) {
  return std::max(pace.token_latency, ceil_div(users, std::int64_t{micro_batch}) * pace.initiation_interval);
}

std::vector<Estimate> estimate_partitions(const CompileRequest& request) {
  const ComputePath path = make_path(request.compute, request.kv, request.chip);
  const interconnect::Topology topology = interconnect::make_topology(request.chip, request.chips);
  std::vector<Estimate> out;
  for (const Degrees& degrees : possible_degrees(request)) {
    CompileRequest full = request;  // stages are cut so that as many users fit as can
    const Shard shard = make_shard(request.model, degrees.tensor_parallel, request.chip);
    full.users = most_users(request, shard, path, degrees.pipeline_parallel);
    if (*full.users < request.micro_batch) {
      continue;
    }
    try {
      const std::vector<Stage> stages = cut_stages(full, shard, path, degrees.pipeline_parallel);
      out.push_back(estimate(full, path, degrees, stages, plan_hops(topology, degrees)));
    } catch (const node::InputError&) {
      continue;  // no cable joins these stages
    }
  }
  return out;
}

}  // namespace lpu::scheduler
