#include "comparison.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "configuration.hpp"
#include "console.hpp"
#include "lpu/interconnect/topology.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/quantity_text.hpp"
#include "plan_report.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;

constexpr std::int32_t kChipsOfNode = 8;
const std::vector<std::int32_t> kAllMicroBatches = {1, 2, 4, 8, 16, 32};

std::string curve_name(const MicroBatch& micro_batch) {
  return micro_batch ? "X_b" + std::to_string(*micro_batch) : "X";
}

/// A row's fields that do not depend on what was found.
ScalingRow blank_row(const CurveRequest& request, std::int32_t devices) {
  ScalingRow row;
  row.system = request.system.name;
  row.model = request.base.model.name;
  row.compute = name(request.base.compute);
  row.kv = name(request.base.kv);
  row.context = request.base.context;
  row.devices = devices;
  const double nodes = std::ceil(static_cast<double>(devices) / kChipsOfNode);
  if (request.system.node_power_milliwatts) {
    row.power_kw = nodes * static_cast<double>(*request.system.node_power_milliwatts) / 1e6;
  }
  if (request.system.node_price_usd) {
    row.capex_usd = nodes * static_cast<double>(*request.system.node_price_usd);
  }
  return row;
}

ScalingRow row_of(const CurveRequest& request, std::int32_t devices, const std::optional<LpuPoint>& point) {
  ScalingRow row = blank_row(request, devices);
  if (!point) {
    return row;
  }
  row.filled = point->is_filled;
  row.users_saturating = point->users_saturating;
  row.users_fit = point->users_fit;
  row.token_latency_us = point->latency_us(request.system.chip);
  row.tp = point->tensor_parallel;
  row.pp = point->pipeline_parallel;
  row.micro_batch = point->micro_batch;
  row.users = point->users;
  row.tokens_per_second_per_user = point->tokens_per_second_per_user;
  row.tokens_per_second = point->tokens_per_second;
  if (row.power_kw) {
    row.tokens_per_second_per_kw = point->tokens_per_second / *row.power_kw;
  }
  if (point->is_filled) {
    row.jitter_cycles_max = 0;  // by construction: verify has proved every arrival to the cycle
    row.occupancy = point->occupancy;
    if (point->report.latency_lower_bound > 0) {
      row.latency_quality =
          static_cast<double>(point->pace.token_latency) / static_cast<double>(point->report.latency_lower_bound);
    }
  }
  return row;
}

/// The kinds of points of a curve, N by N: which are compiled. For the claim those from N0 to 8 N0, as the cost model
/// sees N0; from the smallest N that fits where it sees none.
std::vector<PointKind> kinds_of_x(const CurveRequest& request, Filling filling) {
  if (filling == Filling::kAll) {
    return std::vector<PointKind>(request.grid.size(), PointKind::kFilled);
  }
  std::int32_t fitting = 0;
  std::int32_t saturated = 0;
  for (const std::int32_t devices : request.grid) {
    scheduler::CompileRequest sized = request.base;
    sized.chips = devices;
    const auto point = LpuPlanner(sized).best(kAllMicroBatches, request.slos_ms.front() * 1e3, PointKind::kHollow);
    fitting = fitting == 0 && point ? devices : fitting;
    saturated = saturated == 0 && point && point->is_saturated() ? devices : saturated;
  }
  const std::int64_t first = saturated > 0 ? saturated : fitting;
  std::vector<PointKind> out;
  for (const std::int32_t devices : request.grid) {
    const bool is_claimed = first > 0 && devices >= first && devices <= 8 * first;
    out.push_back(is_claimed ? PointKind::kHinted : PointKind::kHollow);
  }
  return out;
}

struct AtN {
  std::optional<LpuPoint> fastest;
  std::vector<std::optional<LpuPoint>> served;  ///< per micro-batch and SLO
};

void note_error(Curves& curves, const std::optional<LpuPoint>& point) {
  if (point && point->is_filled) {
    const double error = std::abs(point->estimated / point->tokens_per_second - 1);
    curves.model_error = std::max(curves.model_error.value_or(0), error);
    ++curves.compiled_points;
    curves.arrivals += point->arrivals;
  }
}

void judge_s(std::vector<ScalingRow>& rows, Curves& out) {
  const auto first =
      std::find_if(rows.begin(), rows.end(), [](const ScalingRow& row) { return row.tokens_per_second.has_value(); });
  CurveVerdict verdict{.curve = rows.front().curve,
                       .system = rows.front().system,
                       .model = rows.front().model,
                       .compute = rows.front().compute,
                       .is_model = !rows.front().tier.empty()};
  if (first != rows.end()) {
    verdict.n0 = first->devices;
    for (ScalingRow& row : rows) {
      row.n0 = first->devices;
      if (row.tokens_per_second) {
        verdict.speedup = *row.tokens_per_second / *first->tokens_per_second;
        verdict.speedup_at = row.devices;
      }
    }
  }
  out.verdicts.push_back(std::move(verdict));
}

CurveVerdict judge_x(std::vector<ScalingRow>& rows, std::optional<std::int32_t> n0) {
  const Verdict verdict = judge(rows, n0);
  const ScalingRow& any = rows.front();
  return {.curve = any.curve,
          .system = any.system,
          .model = any.model,
          .compute = any.compute,
          .slo_tpot_ms = any.slo_tpot_ms,
          .verdict = verdict,
          .n0 = any.n0,
          .is_model = !any.tier.empty()};
}

std::string text_or(const std::optional<double>& value, const std::string& none, auto format) {
  return value ? format(*value) : none;
}

/// A curve's table; the first column marks hollow points.
void add_table_row(Table& table, const ScalingRow& row) {
  if (!row.tokens_per_second) {
    table.add({"-", node::with_thousands(row.devices), "none fits or meets it"});
    return;
  }
  const std::string mark = !row.filled ? "m" : (*row.filled ? "*" : "o");
  std::string degrees = std::to_string(row.tp.value_or(0)) + "x" + std::to_string(row.pp.value_or(0));
  if (row.replicas > 1) {
    degrees = std::to_string(row.replicas) + "x(" + degrees + ")";
  }
  table.add({mark,
             node::with_thousands(row.devices),
             degrees,
             std::to_string(row.micro_batch.value_or(0)),
             node::with_thousands(row.users.value_or(0)),
             rate_text(*row.tokens_per_second_per_user),
             rate_text(*row.tokens_per_second),
             text_or(row.token_latency_us, "-", [](double us) { return node::fixed(us, 0); }),
             text_or(row.efficiency_total, "-", [](double e) { return node::fixed(e, 2); }),
             text_or(row.occupancy, "-", [](double share) { return node::fixed(100 * share, 0) + "%"; }),
             text_or(row.latency_quality, "-", [](double q) { return node::fixed(q, 2); }),
             row.fingerprint.empty() ? "-" : row.fingerprint.substr(0, 8)});
}

std::string slo_text(double slo_ms) {
  return node::shortest(slo_ms) + " ms";
}

bool is_same_curve(const ScalingRow& row, const CurveVerdict& verdict) {
  return row.curve == verdict.curve && row.system == verdict.system && row.model == verdict.model &&
         row.compute == verdict.compute && row.slo_tpot_ms == verdict.slo_tpot_ms &&
         row.tier.empty() != verdict.is_model;
}

/// The same figures at another SLO.
bool is_equal_but_for_slo(std::vector<ScalingRow> a, std::vector<ScalingRow> b) {
  for (std::vector<ScalingRow>* rows : {&a, &b}) {
    for (ScalingRow& row : *rows) {
      row.slo_tpot_ms.reset();
    }
  }
  return to_csv(a) == to_csv(b);
}

}  // namespace

json::object to_json(const CurveVerdict& verdict) {
  const auto known = [](const auto& value) { return value ? json::value(*value) : json::value(nullptr); };
  json::object out;
  out["curve"] = verdict.curve;
  out["system"] = verdict.system;
  out["model"] = verdict.model;
  out["compute"] = verdict.compute;
  out["slo_tpot_ms"] = known(verdict.slo_tpot_ms);
  out["verdict"] = verdict.verdict ? json::value(words(*verdict.verdict)) : json::value(nullptr);
  out["n0"] = known(verdict.n0);
  out["speedup"] = known(verdict.speedup);
  out["speedup_at_devices"] = verdict.speedup ? json::value(verdict.speedup_at) : json::value(nullptr);
  out["basis"] = verdict.is_model ? "model" : "programs";
  return out;
}

std::string to_text(const CurveVerdict& verdict) {
  std::string out = verdict.curve;
  if (verdict.slo_tpot_ms) {
    out += ", TPOT <= " + slo_text(*verdict.slo_tpot_ms);
  }
  out += ": ";
  if (verdict.verdict) {
    out += verdict.verdict == Verdict::kNearLinear || verdict.verdict == Verdict::kNo ? "near-linear? " : "";
    out += verdict.verdict == Verdict::kNearLinear ? "yes" : std::string(words(*verdict.verdict));
    out += verdict.n0 ? ", N0 = " + node::with_thousands(*verdict.n0) : "";
  } else if (verdict.speedup) {
    out += "S(" + node::with_thousands(verdict.speedup_at) + ") = " + node::fixed(*verdict.speedup, 2) +
           " against N0 = " + node::with_thousands(*verdict.n0) + "; never claimed linear";
  } else {
    out += "the model fits at no N";
  }
  return out + (verdict.is_model ? " (model)" : "");
}

void append(Curves& to, Curves&& from) {
  std::move(from.rows.begin(), from.rows.end(), std::back_inserter(to.rows));
  std::move(from.verdicts.begin(), from.verdicts.end(), std::back_inserter(to.verdicts));
  if (from.model_error) {
    to.model_error = std::max(to.model_error.value_or(0), *from.model_error);
  }
  to.compiled_points += from.compiled_points;
  to.arrivals += from.arrivals;
  std::move(from.refused.begin(), from.refused.end(), std::back_inserter(to.refused));
}

std::vector<std::int32_t> default_grid(std::int32_t chips) {
  std::vector<std::int32_t> out;
  for (const std::int32_t halves : {1, 2, 4, 8, 16, 32}) {
    const std::int32_t devices = chips * halves / 2;
    if (devices >= 1 && devices <= interconnect::kChipsMost) {
      out.push_back(devices);
    }
  }
  return out;
}

Curves judged(std::vector<std::vector<ScalingRow>> curves) {
  Curves out;
  std::vector<std::vector<ScalingRow>> all;
  for (std::vector<ScalingRow>& rows : curves) {
    if (rows.front().curve.starts_with("S")) {
      judge_s(rows, out);
      all.push_back(std::move(rows));
      continue;
    }
    if (rows.front().curve == "X_rep") {
      out.verdicts.push_back(judge_x(rows, all.back().front().n0));
      all.push_back(std::move(rows));
      continue;
    }
    out.verdicts.push_back(judge_x(rows, std::nullopt));
    const bool needs_replicas = rows.front().curve == "X" && rows.front().tier.empty();
    all.push_back(std::move(rows));
    if (needs_replicas) {
      std::vector<ScalingRow> copies = replicate(all.back());
      out.verdicts.push_back(judge_x(copies, all.back().front().n0));
      all.push_back(std::move(copies));
    }
  }
  for (std::vector<ScalingRow>& rows : all) {
    std::move(rows.begin(), rows.end(), std::back_inserter(out.rows));
  }
  return out;
}

Curves draw_lpu(const CurveRequest& request, Filling filling, const scheduler::Progress& progress) {
  const std::vector<PointKind> kinds = kinds_of_x(request, filling);
  std::vector<AtN> found(request.grid.size());
  std::mutex mutex;
  std::int32_t done = 0;
  Curves measured;
  in_parallel(static_cast<std::int32_t>(request.grid.size()), [&](std::int32_t task) {
    // The largest clusters take longest: they begin.
    const std::size_t i = request.grid.size() - 1 - static_cast<std::size_t>(task);
    scheduler::CompileRequest sized = request.base;
    sized.chips = request.grid[i];
    LpuPlanner planner(sized);
    found[i].fastest = planner.fastest(filling == Filling::kAll ? PointKind::kFilled : PointKind::kHollow);
    for (const MicroBatch& micro_batch : request.micro_batches) {
      const std::vector<std::int32_t> choice = micro_batch ? std::vector{*micro_batch} : kAllMicroBatches;
      for (const double slo : request.slos_ms) {
        const PointKind kind = micro_batch && filling == Filling::kClaim ? PointKind::kHollow : kinds[i];
        found[i].served.push_back(planner.best(choice, slo * 1e3, kind));
      }
    }
    const std::lock_guard lock(mutex);
    ++done;
    measured.refused.insert(measured.refused.end(), planner.refused().begin(), planner.refused().end());
    if (progress) {
      progress(static_cast<double>(done) / static_cast<double>(request.grid.size()),
               request.base.model.name + " on " + std::to_string(request.grid[i]) + " chips");
    }
  });

  std::vector<std::vector<ScalingRow>> curves(1);
  for (std::size_t i = 0; i < request.grid.size(); ++i) {
    ScalingRow row = row_of(request, request.grid[i], found[i].fastest);
    row.curve = "S";
    curves.front().push_back(std::move(row));
    note_error(measured, found[i].fastest);
  }
  std::size_t at = 0;
  for (const MicroBatch& micro_batch : request.micro_batches) {
    for (const double slo : request.slos_ms) {
      std::vector<ScalingRow>& curve = curves.emplace_back();
      for (std::size_t i = 0; i < request.grid.size(); ++i) {
        ScalingRow row = row_of(request, request.grid[i], found[i].served[at]);
        row.curve = curve_name(micro_batch);
        row.slo_tpot_ms = slo;
        curve.push_back(std::move(row));
        if (slo == request.slos_ms.front()) {
          note_error(measured, found[i].served[at]);
        }
      }
      ++at;
    }
  }
  Curves out = judged(std::move(curves));
  append(out, std::move(measured));
  return out;
}

Curves draw_gpu(const scheduler::GpuRequest& request,
                const std::vector<std::int32_t>& grid,
                const std::vector<double>& slos_ms) {
  const auto row_of_plan = [&](std::int32_t devices, const std::optional<scheduler::GpuPlan>& plan) {
    ScalingRow row;
    row.system = request.system.fabric.name;
    row.model = request.model.name;
    row.compute = name(request.compute);
    row.kv = name(request.kv);
    row.context = request.context;
    row.devices = devices;
    row.tier = name(request.tier);
    if (!plan) {
      return row;
    }
    row.users_saturating = plan->users_saturating;
    row.users_fit = plan->users_fit;
    row.token_latency_us = plan->tpot_us;
    row.tp = plan->partition.tensor_parallel;
    row.pp = plan->partition.pipeline_parallel;
    row.micro_batch = plan->partition.micro_batch;
    row.users = plan->users;
    row.tokens_per_second_per_user = plan->tokens_per_second_per_user;
    row.tokens_per_second = plan->tokens_per_second;
    row.replicas = plan->replicas;
    row.occupancy = plan->pipeline_busy;
    row.power_kw = plan->power_kw;
    row.tokens_per_second_per_kw = plan->tokens_per_second / plan->power_kw;
    row.capex_usd = plan->price_usd;
    return row;
  };
  std::vector<std::vector<ScalingRow>> curves(1);
  for (const std::int32_t devices : grid) {
    curves.front().push_back(row_of_plan(devices, scheduler::fastest_gpu_plan(request, devices)));
    curves.front().back().curve = "S";
  }
  // Tensor parallelism alone, beyond a node too: what the wires between nodes cost one user.
  scheduler::GpuRequest wide = request;
  wide.crosses_nodes = true;
  std::vector<ScalingRow>& by_degree = curves.emplace_back();
  for (const std::int32_t degree : {1, 2, 4, 8, 16, 32}) {
    std::optional<scheduler::GpuPlan> plan;
    try {
      plan = scheduler::gpu_plan(wide, {.tensor_parallel = degree});
    } catch (const node::InputError&) {  // too few for the model, or more than its heads
    }
    by_degree.push_back(row_of_plan(degree, plan));
    by_degree.back().curve = "S_tp";
  }
  for (const double slo : slos_ms) {
    std::vector<ScalingRow> one, many;
    for (const std::int32_t devices : grid) {
      one.push_back(row_of_plan(devices, scheduler::best_gpu_plan(request, devices, slo * 1e3)));
      many.push_back(row_of_plan(devices, scheduler::best_replicated_gpu_plan(request, devices, slo * 1e3)));
      one.back().curve = "X";
      many.back().curve = "X_rep";
      one.back().slo_tpot_ms = many.back().slo_tpot_ms = slo;
    }
    curves.push_back(std::move(one));
    curves.push_back(std::move(many));
  }
  return judged(std::move(curves));
}

void append(Comparison& to, Comparison&& from) {
  append(to.curves, std::move(from.curves));
  std::move(from.waterfalls.begin(), from.waterfalls.end(), std::back_inserter(to.waterfalls));
  std::move(from.published.begin(), from.published.end(), std::back_inserter(to.published));
  std::move(from.speedups.begin(), from.speedups.end(), std::back_inserter(to.speedups));
}

void add_details(Comparison& comparison,
                 const CurveRequest& request,
                 const std::vector<scheduler::GpuRequest>& gpus,
                 std::int32_t chips,
                 Filling filling) {
  scheduler::CompileRequest base = request.base;
  base.chips = chips;
  const std::optional<LpuPoint> own = LpuPlanner(base).fastest(PointKind::kFilled);
  if (own) {
    for (ScalingRow& row : comparison.curves.rows) {
      if (row.curve == "S" && row.tier.empty() && row.devices == chips && !row.filled.value_or(true)) {
        ScalingRow filled = row_of(request, chips, own);
        filled.curve = row.curve;
        filled.n0 = row.n0;
        row = std::move(filled);
        note_error(comparison.curves, own);
      }
    }
    comparison.waterfalls.push_back(lpu_waterfall(*own, base, request.system.name));
  }
  for (scheduler::GpuRequest gpu : gpus) {
    const auto engine = scheduler::fastest_gpu_plan(gpu, chips);
    gpu.tier = scheduler::GpuTier::kRoofline;
    const auto roofline = scheduler::fastest_gpu_plan(gpu, chips);
    if (!engine || !roofline) {
      continue;
    }
    comparison.waterfalls.push_back(gpu_waterfall(*engine, gpu.model.name, gpu.system.fabric.name));
    if (own && own->report.latency_lower_bound > 0) {
      const double bound_us =
          1e6 * static_cast<double>(own->report.latency_lower_bound) / static_cast<double>(base.chip.clock.count());
      comparison.speedups.push_back({.model = gpu.model.name,
                                     .lpu = request.system.name,
                                     .gpu = gpu.system.fabric.name,
                                     .lpu_devices = own->tensor_parallel * own->pipeline_parallel,
                                     .gpu_devices = engine->partition.devices(),
                                     .ideal_over_ideal = roofline->tpot_us / bound_us,
                                     .predicted_over_engine = engine->tpot_us / own->period_us});
    }
  }
  std::vector<PublishedOverPredicted> published = validate_published(base, filling == Filling::kAll);
  for (ScalingRow& row : comparison.curves.rows) {
    for (const PublishedOverPredicted& one : published) {
      const bool is_path = one.experts.empty() || one.experts == name(base.experts);
      if (row.curve == "S" && row.tier.empty() && row.model == one.model && row.compute == one.compute && is_path &&
          row.devices == one.published.chips && row.filled.value_or(false)) {
        row.published_over_predicted = one.middle();
      }
    }
  }
  std::move(published.begin(), published.end(), std::back_inserter(comparison.published));
}

void add_comparison(json::object& out, const Comparison& comparison) {
  json::array rows;
  for (const ScalingRow& row : comparison.curves.rows) {
    rows.push_back(to_json(row));
  }
  out["rows"] = std::move(rows);
  json::array verdicts;
  for (const CurveVerdict& verdict : comparison.curves.verdicts) {
    verdicts.push_back(to_json(verdict));
  }
  out["verdicts"] = std::move(verdicts);
  json::array waterfalls;
  for (const Waterfall& waterfall : comparison.waterfalls) {
    waterfalls.push_back(to_json(waterfall));
  }
  out["waterfall"] = std::move(waterfalls);
  out["validation"] = to_json(comparison.published);
  json::array speedups;
  for (const SpeedUp& one : comparison.speedups) {
    speedups.push_back({{"model", one.model},
                        {"lpu", one.lpu},
                        {"gpu", one.gpu},
                        {"lpu_devices", one.lpu_devices},
                        {"gpu_devices", one.gpu_devices},
                        {"ideal_over_ideal", one.ideal_over_ideal},
                        {"predicted_over_engine", one.predicted_over_engine},
                        {"published_over_measured", nullptr}});
  }
  out["speedups"] = std::move(speedups);
  const Curves& curves = comparison.curves;
  out["cost_model"] = {{"compiled_points", curves.compiled_points},
                       {"error_max", curves.model_error ? json::value(*curves.model_error) : json::value(nullptr)},
                       {"arrivals_checked", curves.arrivals}};
}

std::string to_text(const Comparison& comparison) {
  const Curves& curves = comparison.curves;
  std::string out;
  if (!curves.rows.empty()) {
    const ScalingRow& any = curves.rows.front();
    out += any.model + ", " + any.compute + ", KV " + any.kv + ", context " + node::with_thousands(any.context) +
           "\n* compiled and verified, o cost model, m closed form of a GPU. b: micro-batch.\n"
           "us: one token. E: E_total. MXM: its busy share. lq: latency over its bound.\nrun: fingerprint\n\n";
  }
  out += to_text(curves);
  if (curves.model_error) {
    out += "\nCost model: off by at most " + node::fixed(100 * *curves.model_error, 1) + " % at " +
           std::to_string(curves.compiled_points) +
           " compiled points; no verdict rests on it.\nJitter: 0 (by construction; " +
           node::with_thousands(curves.arrivals) + " arrivals checked)\n";
  }
  if (!comparison.waterfalls.empty()) {
    out += "\n" + to_text(comparison.waterfalls);
  }
  if (!comparison.published.empty()) {
    out += "\n" + to_text(comparison.published);
  }
  if (!comparison.speedups.empty()) {
    Table table;
    table.add({"faster", "LPU", "GPU", "ideal/ideal", "ours/engine", "published/measured"});
    for (const SpeedUp& one : comparison.speedups) {
      table.add({one.model,
                 std::to_string(one.lpu_devices),
                 std::to_string(one.gpu_devices) + " " + one.gpu,
                 node::fixed(one.ideal_over_ideal, 1),
                 node::fixed(one.predicted_over_engine, 1),
                 "n/a"});
    }
    out += "\n" + table.text();
  }
  return out;
}

std::string to_text(const Curves& curves) {
  std::string out;
  std::vector<ScalingRow> last;
  std::string last_curve;
  for (const CurveVerdict& verdict : curves.verdicts) {
    std::vector<ScalingRow> rows;
    std::copy_if(curves.rows.begin(), curves.rows.end(), std::back_inserter(rows), [&](const ScalingRow& row) {
      return is_same_curve(row, verdict);
    });
    const std::string title = verdict.system + ", " + to_text(verdict) + "\n";
    if (verdict.curve == last_curve && is_equal_but_for_slo(rows, last)) {
      out += title + "  (the same points)\n";
      continue;
    }
    last = rows;
    last_curve = verdict.curve;
    Table table("");
    table.add({"", "N", "TPxPP", "b", "users", "tok/s/user", "tok/s", "us", "E", "MXM", "lq", "run"});
    for (const ScalingRow& row : rows) {
      add_table_row(table, row);
    }
    out += title + table.text();
  }
  return out;
}

void in_parallel(std::int32_t count, const std::function<void(std::int32_t)>& task) {
  std::atomic<std::int32_t> next{0};
  std::mutex mutex;
  std::exception_ptr first;
  const auto work = [&] {
    for (std::int32_t i = next++; i < count; i = next++) {
      try {
        task(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) {
          first = std::current_exception();
        }
        next = count;
      }
    }
  };
  const auto threads =
      std::min<std::int32_t>(count, static_cast<std::int32_t>(std::max(1U, std::thread::hardware_concurrency())));
  {
    std::vector<std::jthread> others;
    for (std::int32_t i = 1; i < threads; ++i) {
      others.emplace_back(work);
    }
    work();
  }
  if (first) {
    std::rethrow_exception(first);
  }
}

}  // namespace lpu::cluster
