#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/estimate.hpp"

namespace lpu::cluster {

/// What so many chips do for so many users.
struct LpuPoint {
  std::int32_t tensor_parallel = 0;
  std::int32_t pipeline_parallel = 0;
  std::int32_t micro_batch = 1;
  scheduler::Objective objective = scheduler::Objective::kLatency;  ///< empty machine, or loaded
  scheduler::Pace pace;
  std::int32_t users = 1;
  std::int32_t users_fit = 0;
  /// Of the loaded machine with these degrees, whichever of the two serves here; where even an empty one's latency
  /// takes more users than fit, so many: at least.
  std::int32_t users_saturating = 0;
  double period_us = 0;  ///< time per output token
  double tokens_per_second_per_user = 0;
  double tokens_per_second = 0;

  bool is_filled = false;     ///< compiled and verified; what follows is known only then
  double estimated = 0;       ///< tokens/s by the cost model, of the same degrees, micro-batch and objective
  double occupancy = 0;       ///< share of all MXM plane-cycles of the chips that hold the model
  std::int64_t arrivals = 0;  ///< vectors received in an iteration, on all chips: each proved by verify
  std::uint64_t schedule_digest = 0;
  scheduler::PlanReport report{};

  [[nodiscard]] double latency_us(const node::ChipSpec& chip) const;
  [[nodiscard]] bool is_saturated() const { return users_saturating <= users_fit; }
};

enum class PointKind : std::uint8_t {
  kFilled,  ///< compiled and verified
  kHinted,  ///< likewise, of the partitions whose search ships as a hint; hollow where none leads to a point
  kHollow,  ///< by the cost model
};

/// Finds what a cluster of one size does best. Everything that it compiles is verified, and compiled once.
class LpuPlanner {
 public:
  /// @param request  model, chip, chips, context, compute path; degrees where they are given
  explicit LpuPlanner(scheduler::CompileRequest request) : request_(std::move(request)) {}

  /// The most tokens/s of one instance with TPOT <= slo_us, over TP, PP, micro-batch, and the empty or the loaded
  /// machine. The cost model ranks; a few of the first are compiled, and the best of these that meets the SLO counts.
  /// @param micro_batches  to choose from
  /// @param candidates     compiled at most
  /// @return  nothing fits and meets the SLO
  [[nodiscard]] std::optional<LpuPoint> best(const std::vector<std::int32_t>& micro_batches,
                                             double slo_us,
                                             PointKind kind,
                                             std::size_t candidates = 3);

  /// One user, objective latency, as `plan` has it.
  [[nodiscard]] std::optional<LpuPoint> fastest(PointKind kind);

  /// Programs that the compiler made and the proof did not pass: none of them is a point.
  [[nodiscard]] const std::vector<std::string>& refused() const { return refused_; }

 private:
  using Key = std::tuple<std::int32_t, std::int32_t, std::int32_t, bool>;  ///< TP, PP, micro-batch, may search
  struct Both {
    std::optional<LpuPoint> empty, loaded;
  };
  [[nodiscard]] const std::vector<scheduler::Estimate>& estimates(std::int32_t micro_batch);
  /// What a search for the partition found, with the most users; none: null.
  [[nodiscard]] const scheduler::ScheduleHint* hint_of(const scheduler::Estimate& estimate) const;
  [[nodiscard]] const Both& compiled(const scheduler::Estimate& estimate, bool may_search);
  [[nodiscard]] std::optional<LpuPoint> compile_point(const scheduler::Estimate& estimate,
                                                      scheduler::Objective objective,
                                                      bool may_search);

  scheduler::CompileRequest request_;
  std::map<std::int32_t, std::vector<scheduler::Estimate>> estimates_;
  std::map<Key, Both> compiled_;
  std::vector<std::string> refused_;
};

}  // namespace lpu::cluster
