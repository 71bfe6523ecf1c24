#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <boost/json.hpp>

#include "lpu/cluster/presets.hpp"
#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/gpu_plan.hpp"
#include "lpu_points.hpp"
#include "published.hpp"
#include "scaling.hpp"
#include "waterfall.hpp"

namespace lpu::cluster {

/// An LPU system whose curves are drawn: its kind of chip, and what a node of 8 takes and costs.
struct LpuSystem {
  std::string name;
  node::ChipSpec chip;
  std::optional<std::int64_t> node_power_milliwatts;
  std::optional<std::int64_t> node_price_usd;
};

/// A curve over micro-batches; none: the best at each N.
using MicroBatch = std::optional<std::int32_t>;

/// What is drawn for one model on one LPU system.
struct CurveRequest {
  scheduler::CompileRequest base;  ///< model, context, compute path, KV type, experts, seed, search
  LpuSystem system;
  std::vector<std::int32_t> grid;  ///< devices, ascending
  std::vector<MicroBatch> micro_batches;
  std::vector<double> slos_ms;
};

/// Which points are compiled.
enum class Filling : std::uint8_t {
  kAll,
  kClaim,  ///< X at the best micro-batch from N0 to 8 N0, where hints ship
};

/// What a curve says.
struct CurveVerdict {
  std::string curve, system, model, compute;
  std::optional<double> slo_tpot_ms{};
  std::optional<Verdict> verdict{};  ///< none: S, which is no claim
  std::optional<std::int32_t> n0{};
  std::optional<double> speedup{};  ///< S: TPOT(N0) ÷ TPOT(largest N)
  std::int32_t speedup_at = 0;      ///< that N
  bool is_model = false;            ///< a GPU's: no program stands behind it
};
[[nodiscard]] boost::json::object to_json(const CurveVerdict& verdict);
/// "X at TPOT <= 5 ms: near-linear from N0 = 256"
[[nodiscard]] std::string to_text(const CurveVerdict& verdict);

struct Curves {
  std::vector<ScalingRow> rows;  ///< curve by curve, ascending in devices
  std::vector<CurveVerdict> verdicts;
  std::optional<double> model_error;  ///< of the cost model's tokens/s, largest over the compiled points
  std::int32_t compiled_points = 0;
  std::int64_t arrivals = 0;         ///< proved, an iteration of each compiled point
  std::vector<std::string> refused;  ///< programs that the proof did not pass
};
void append(Curves& to, Curves&& from);

/// Model's default chips times 1/2, 1, 2, 4, 8 and 16, as far as systems go.
[[nodiscard]] std::vector<std::int32_t> default_grid(std::int32_t chips);

/// S, X for every micro-batch and SLO, X_rep: points in parallel on the cores of this host.
/// @param progress  share of the points, and what was done last
[[nodiscard]] Curves draw_lpu(const CurveRequest& request, Filling filling, const scheduler::Progress& progress);

/// The same of a GPU system: its closed form has no program, so nothing is filled. S is the fastest on at most N, X_rep
/// searches its own replicas.
[[nodiscard]] Curves draw_gpu(const scheduler::GpuRequest& request,
                              const std::vector<std::int32_t>& grid,
                              const std::vector<double>& slos_ms);

/// Adds verdicts and efficiencies to curves of one system and model; X_rep, where it is not among them, is made of X.
[[nodiscard]] Curves judged(std::vector<std::vector<ScalingRow>> curves);

/// One user on two machines, in three ways (ARCHITECTURE.md, "What we claim").
struct SpeedUp {
  std::string model, lpu, gpu;
  std::int32_t lpu_devices = 0, gpu_devices = 0;
  double ideal_over_ideal = 0;       ///< our bound against the GPU's roofline
  double predicted_over_engine = 0;  ///< our prediction against tier B
};

/// Everything that compare and demo write.
struct Comparison {
  Curves curves;
  std::vector<Waterfall> waterfalls;
  std::vector<PublishedOverPredicted> published;
  std::vector<SpeedUp> speedups;
};

void append(Comparison& to, Comparison&& from);

/// Waterfalls, speed-ups and published figures of one model. The row of S at `chips` is compiled if it was not; rows of
/// published points get their ratio.
/// @param chips  of the LPU: the model's default
void add_details(Comparison& comparison,
                 const CurveRequest& request,
                 const std::vector<scheduler::GpuRequest>& gpus,
                 std::int32_t chips,
                 Filling filling);

/// `rows`, `verdicts`, `waterfall`, `validation`, `speedups`, `cost_model`.
void add_comparison(boost::json::object& out, const Comparison& comparison);
/// The same for people, at most 80 columns.
[[nodiscard]] std::string to_text(const Comparison& comparison);

/// One table of at most 80 columns a model and SLO, with the verdict under each curve.
[[nodiscard]] std::string to_text(const Curves& curves);

/// Calls task(0) to task(count - 1) on as many threads as this host has cores. The first exception is thrown again
/// when all have ended.
void in_parallel(std::int32_t count, const std::function<void(std::int32_t)>& task);

}  // namespace lpu::cluster
