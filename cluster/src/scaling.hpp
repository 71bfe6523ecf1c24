#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json.hpp>

namespace lpu::cluster {

/// One point of a curve: a machine of so many devices and what it does. What is not known, or does not exist, is null.
struct ScalingRow {
  std::string curve;  ///< S: one user. X: the best micro-batch; X_b4: micro-batch 4. X_rep: replicas of X's instances
  std::string system;
  std::string model;
  std::string compute;
  std::string kv;
  std::int32_t context = 0;
  std::int32_t devices = 0;
  std::optional<bool> filled;      ///< compiled and verified; false: cost model; null: a GPU has no program
  std::optional<std::int32_t> n0;  ///< of the curve
  std::optional<std::int64_t> users_saturating;
  std::optional<std::int64_t> users_fit;
  std::optional<double> token_latency_us;
  std::optional<std::int32_t> tp, pp, micro_batch;
  std::optional<std::int64_t> users;
  std::optional<double> slo_tpot_ms;
  std::optional<double> tokens_per_second_per_user;
  std::optional<double> tokens_per_second;  ///< null: no partition fits and meets the SLO
  std::optional<double> efficiency_total;   ///< of X, X_b… and X_rep from N0 on
  std::int32_t replicas = 1;
  std::optional<std::int64_t> jitter_cycles_max;
  std::optional<double> occupancy;  ///< MXM: share of its plane-cycles; GPU: share of time that the slowest stage works
  std::optional<double> latency_quality;
  std::optional<double> published_over_predicted;
  std::string tier;  ///< of a GPU's model; empty: an LPU
  std::optional<double> power_kw;
  std::optional<double> tokens_per_second_per_kw;
  std::optional<double> capex_usd;
  std::string fingerprint;  ///< of the execution, or empty
};

[[nodiscard]] boost::json::object to_json(const ScalingRow& row);
/// A header and a line a row: exactly the keys of to_json(); null is empty.
[[nodiscard]] std::string to_csv(std::span<const ScalingRow> rows);

/// What X(N) says about scaling (ARCHITECTURE.md, "What we claim").
enum class Verdict : std::uint8_t {
  kNearLinear,    ///< E_total >= 0.90 at every grid point in [N0, 8 N0]
  kNo,            ///< below that at one of them
  kNotSaturated,  ///< above 1.05 at one of them: N0 was no fair start
  kNeverFits,     ///< no N of the grid holds the saturating users
  kNeverMeets,    ///< no N of the grid meets the SLO
  kGridEnds,      ///< good as far as the grid goes, which is not 8 N0
  kNotCompiled,   ///< it would rest on a point of the cost model
};
[[nodiscard]] std::string_view words(Verdict verdict);

/// [X(N)/N] ÷ [X(N0)/N0].
[[nodiscard]] double efficiency(double rate, std::int32_t devices, double rate_at_n0, std::int32_t n0);

/// Sets n0 and efficiency_total of every row of one curve, which is in ascending order of devices.
/// @param n0  none: its smallest N where the saturating users fit
/// @return    what the curve says
Verdict judge(std::span<ScalingRow> curve, std::optional<std::int32_t> n0 = std::nullopt);

/// The best number of replicas of a curve's own points at each of its N; rows with curve X_rep.
[[nodiscard]] std::vector<ScalingRow> replicate(std::span<const ScalingRow> curve);

}  // namespace lpu::cluster
