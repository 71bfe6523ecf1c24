#include "lpu_points.hpp"

#include <algorithm>
#include <utility>

#include "lpu/node/burst_table.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"
#include "lpu/scheduler/verify.hpp"

namespace lpu::cluster {
namespace {

using scheduler::Compiled;
using scheduler::CompileRequest;
using scheduler::Estimate;
using scheduler::Objective;
using scheduler::Pace;

/// KV is allocated for some more users than the cost model says saturate.
constexpr double kRoomForUsers = 1.5;

double microseconds(std::int64_t cycles, const node::ChipSpec& chip) {
  return node::to_microseconds(node::Cycles(cycles), chip.clock);
}

void set_rates(LpuPoint& point, std::int64_t period, const node::ChipSpec& chip) {
  point.period_us = microseconds(period, chip);
  point.tokens_per_second_per_user = static_cast<double>(chip.clock.count()) / static_cast<double>(period);
  point.tokens_per_second = point.tokens_per_second_per_user * point.users;
}

/// By the cost model.
LpuPoint hollow_point(const Estimate& estimate, Objective objective, const node::ChipSpec& chip) {
  const Pace& pace = objective == Objective::kLatency ? estimate.empty : estimate.loaded;
  LpuPoint out{.tensor_parallel = estimate.tensor_parallel,
               .pipeline_parallel = estimate.pipeline_parallel,
               .micro_batch = estimate.micro_batch,
               .objective = objective,
               .pace = pace,
               .users = std::min(estimate.users_fit, users_saturating(pace, estimate.micro_batch)),
               .users_fit = estimate.users_fit,
               .users_saturating = users_saturating(estimate.loaded, estimate.micro_batch)};
  set_rates(out, token_period(pace, out.micro_batch, out.users), chip);
  out.estimated = out.tokens_per_second;
  return out;
}

double rate(const Estimate& estimate, Objective objective, const node::ChipSpec& chip) {
  return hollow_point(estimate, objective, chip).tokens_per_second;
}

/// MXM plane-cycles and received vectors of one iteration, all chips together.
void count_units(const scheduler::ClusterProgram& program, LpuPoint& point) {
  std::vector<std::int64_t> chips_of(program.texts.size(), 0);
  std::int64_t chips = 0;
  std::vector<std::int32_t> example(program.texts.size(), -1);
  for (const node::ChipBinding& binding : program.bindings) {
    if (binding.text >= 0) {
      ++chips;
      ++chips_of[static_cast<std::size_t>(binding.text)];
      example[static_cast<std::size_t>(binding.text)] = binding.chip;
    }
  }
  std::int64_t planes = 0;
  for (std::size_t text = 0; text < program.texts.size(); ++text) {
    const node::BurstTable table(program.texts[text], program.chip, example[text]);
    const node::UnitCycles& units = table.unit_cycles();
    planes += chips_of[text] * std::max({units.installs, units.computes, units.drains});
    point.arrivals += chips_of[text] * units.receives;
  }
  const double groups = static_cast<double>(node::ceil_div(point.users, std::int64_t{point.micro_batch}));
  const double cycles = point.period_us * static_cast<double>(program.chip.clock.count()) / 1e6 *
                        static_cast<double>(chips) * 2 * program.chip.mxm_planes_per_hemisphere;
  point.occupancy = static_cast<double>(planes) * groups / cycles;
}

/// Compiles and proves. A hint's schedule is built for as many users as saturate it, where memory and its phases allow.
/// @throws ScheduleViolation  the proof found a breach
Compiled compile_verified(const CompileRequest& request) {
  Compiled out = scheduler::compile(request);
  if (request.objective == Objective::kThroughput && !request.may_search) {
    out = scheduler::saturated(request, std::move(out));
  }
  const std::vector<node::Violation> breaches = scheduler::verify(out.program, 1);
  if (!breaches.empty()) {
    node::Violation breach = breaches.front();
    breach.reason += " (" + out.program.model + ", TP " + std::to_string(out.program.tensor_parallel) + " x PP " +
                     std::to_string(out.program.pipeline_parallel) + " of " + std::to_string(out.program.chips) +
                     " chips, micro-batch " + std::to_string(request.micro_batch) + ", " +
                     std::to_string(out.program.user_slots) + " users, " +
                     (request.objective == Objective::kLatency ? "objective latency)" : "objective throughput)");
    throw node::ScheduleViolation(breach);
  }
  return out;
}

LpuPoint filled_point(const Compiled& compiled, const CompileRequest& request, std::int32_t users) {
  const scheduler::ClusterProgram& program = compiled.program;
  LpuPoint out{.tensor_parallel = program.tensor_parallel,
               .pipeline_parallel = program.pipeline_parallel,
               .micro_batch = program.plan.micro_batch,
               .objective = request.objective,
               .pace = {program.initiation_interval, program.token_latency},
               .users = users,
               .users_fit = compiled.report.users_fit,
               .users_saturating = compiled.report.users_saturating,
               .is_filled = true,
               .schedule_digest = scheduler::schedule_digest(program),
               .report = compiled.report};
  set_rates(out, scheduler::with_users(program, users).token_period, program.chip);
  count_units(program, out);
  return out;
}

/// The better of two machines, if it meets the SLO.
const LpuPoint* better(const std::optional<LpuPoint>& a, const std::optional<LpuPoint>& b, double slo_us) {
  const LpuPoint* best = nullptr;
  for (const std::optional<LpuPoint>* point : {&a, &b}) {
    if (*point && (*point)->period_us <= slo_us &&
        (best == nullptr || (*point)->tokens_per_second > best->tokens_per_second)) {
      best = &**point;
    }
  }
  return best;
}

}  // namespace

double LpuPoint::latency_us(const node::ChipSpec& chip) const {
  return microseconds(pace.token_latency, chip);
}

const std::vector<Estimate>& LpuPlanner::estimates(std::int32_t micro_batch) {
  const auto [found, is_new] = estimates_.try_emplace(micro_batch);
  if (is_new) {
    CompileRequest request = request_;
    request.micro_batch = micro_batch;
    found->second = scheduler::estimate_partitions(request);
  }
  return found->second;
}

std::optional<LpuPoint> LpuPlanner::compile_point(const Estimate& estimate, Objective objective, bool may_search) {
  constexpr std::int32_t kTries = 16;
  constexpr double kFewer = 0.97;
  const LpuPoint expected = hollow_point(estimate, objective, request_.chip);
  CompileRequest request = request_;
  request.objective = objective;
  request.tensor_parallel = estimate.tensor_parallel;
  request.pipeline_parallel = estimate.pipeline_parallel;
  request.micro_batch = estimate.micro_batch;
  request.may_search = may_search;
  const auto whole = [&](double users) {
    const auto groups = static_cast<std::int32_t>(users / estimate.micro_batch);
    return std::max(1, groups) * estimate.micro_batch;
  };
  std::int32_t fit = estimate.users_fit;
  std::int32_t users = std::min(fit, whole(kRoomForUsers * expected.users));
  const bool follows_hint = objective == Objective::kThroughput && !may_search;
  if (follows_hint) {
    users = hint_of(estimate)->user_slots;  // beside other KV the same phases may lead nowhere
  }
  for (std::int32_t i = 0; i < kTries; ++i) {
    request.users = users;
    try {
      const Compiled compiled = compile_verified(request);
      if (follows_hint) {
        fit = compiled.program.user_slots;  // the most that a program was built for
      }
      const std::int32_t wanted = std::min(compiled.report.users_saturating, fit);
      if (wanted > compiled.program.user_slots) {
        users = wanted;  // more users saturate it than the cost model thought
        continue;
      }
      LpuPoint point = filled_point(compiled, request, wanted);
      point.users_fit = fit;
      point.estimated = expected.tokens_per_second;
      return point;
    } catch (const scheduler::DoesNotFit&) {
      // The cost model of the fit does not know where KV may lie: what is built is what fits.
      fit = std::min(fit, whole(kFewer * users));
      users = fit;
    } catch (const node::InputError&) {
      return std::nullopt;  // no cables, or no schedule
    } catch (const node::ScheduleViolation& breach) {
      refused_.emplace_back(breach.what());
      return std::nullopt;
    }
  }
  return std::nullopt;
}

const LpuPlanner::Both& LpuPlanner::compiled(const Estimate& estimate, bool may_search) {
  const Key key{estimate.tensor_parallel, estimate.pipeline_parallel, estimate.micro_batch, may_search};
  const auto [found, is_new] = compiled_.try_emplace(key);
  Both& both = found->second;
  if (!is_new) {
    return both;
  }
  // A loaded pipeline is no faster for one token than an empty one: fewer users cannot saturate it.
  const std::int32_t fewest = scheduler::users_saturating(
      {estimate.loaded.initiation_interval, estimate.empty.token_latency}, estimate.micro_batch);
  const bool is_worth_loading = fewest <= estimate.users_fit || rate(estimate, Objective::kThroughput, request_.chip) >
                                                                    rate(estimate, Objective::kLatency, request_.chip);
  if (is_worth_loading) {
    both.loaded = compile_point(estimate, Objective::kThroughput, may_search);
  }
  if (!both.loaded || !both.loaded->is_saturated()) {
    both.empty = compile_point(estimate, Objective::kLatency, may_search);
  }
  if (both.empty) {
    both.empty->users_saturating = both.loaded ? both.loaded->users_saturating : fewest;
  }
  return both;
}

const scheduler::ScheduleHint* LpuPlanner::hint_of(const Estimate& estimate) const {
  const scheduler::ScheduleHint* out = nullptr;
  for (const scheduler::ScheduleHint& hint : request_.hints) {
    if (hint.tensor_parallel == estimate.tensor_parallel && hint.pipeline_parallel == estimate.pipeline_parallel &&
        hint.micro_batch == estimate.micro_batch && hint.compute == request_.compute &&
        hint.context == request_.context && hint.experts == request_.experts &&
        (out == nullptr || hint.user_slots > out->user_slots)) {
      out = &hint;
    }
  }
  return out;
}

std::optional<LpuPoint> LpuPlanner::best(const std::vector<std::int32_t>& micro_batches,
                                         double slo_us,
                                         PointKind kind,
                                         std::size_t most) {
  struct Candidate {
    const Estimate* estimate;
    LpuPoint expected;
  };
  std::vector<Candidate> candidates;
  for (const std::int32_t micro_batch : micro_batches) {
    for (const Estimate& estimate : estimates(micro_batch)) {
      const std::optional<LpuPoint> empty = hollow_point(estimate, Objective::kLatency, request_.chip);
      const std::optional<LpuPoint> loaded = hollow_point(estimate, Objective::kThroughput, request_.chip);
      if (const LpuPoint* best = better(empty, loaded, slo_us)) {
        candidates.push_back({&estimate, *best});
      }
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.expected.tokens_per_second > b.expected.tokens_per_second;
  });
  if (candidates.empty()) {
    return std::nullopt;
  }
  const LpuPoint hollow = candidates.front().expected;
  if (kind == PointKind::kHollow) {
    return hollow;
  }
  const bool may_search = kind == PointKind::kFilled;
  if (!may_search) {
    std::erase_if(candidates, [&](const Candidate& candidate) { return hint_of(*candidate.estimate) == nullptr; });
  }
  // Best first: while the cost model hopes for more from the next one than what is compiled does.
  std::optional<LpuPoint> out;
  for (std::size_t i = 0; i < std::min(candidates.size(), most); ++i) {
    if (out && out->tokens_per_second >= candidates[i].expected.tokens_per_second) {
      break;
    }
    const Both& both = compiled(*candidates[i].estimate, may_search);
    const LpuPoint* best = better(both.empty, both.loaded, slo_us);
    if (best != nullptr && (!out || best->tokens_per_second > out->tokens_per_second)) {
      out = *best;
    }
  }
  return out || may_search ? out : std::optional(hollow);
}

std::optional<LpuPoint> LpuPlanner::fastest(PointKind kind) {
  const std::vector<Estimate>& known = estimates(1);
  const auto first = std::min_element(known.begin(), known.end(), [](const Estimate& a, const Estimate& b) {
    return a.empty.token_latency < b.empty.token_latency;
  });
  if (first == known.end()) {
    return std::nullopt;
  }
  LpuPoint expected = hollow_point(*first, Objective::kLatency, request_.chip);
  expected.users = 1;
  set_rates(expected, expected.pace.token_latency, request_.chip);
  if (kind == PointKind::kHollow) {
    return expected;
  }
  CompileRequest request = request_;
  request.objective = Objective::kLatency;
  request.micro_batch = 1;
  request.users = 1;
  try {
    LpuPoint point = filled_point(compile_verified(request), request, 1);
    point.estimated = expected.tokens_per_second;
    return point;
  } catch (const node::InputError&) {
    return std::nullopt;
  }
}

}  // namespace lpu::cluster
