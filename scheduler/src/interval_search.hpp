#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "lowering.hpp"

namespace lpu::scheduler {

/// Lower a stage: load, interval (0: one iteration alone), windows at their phases.
using LowerStage = std::function<std::unique_ptr<Lowering>(Load, std::int64_t, Lowering::WindowPlan)>;

/// Cycles that the windows of a stage hold the install ports in one iteration: no interval is shorter.
[[nodiscard]] std::int64_t windows_length(const Lowering& reference);

/// A stage that was scheduled for an interval, and the phases of its planned windows, by which it is lowered again
/// alike.
struct ScheduledInterval {
  std::unique_ptr<Lowering> lowering;  ///< none: no place for everything was found
  StagePhases phases;
};

/// Lower a stage at phases that were found before.
/// @return no lowering where they are not of this stage, or leave something without a place
[[nodiscard]] ScheduledInterval schedule_at(const LowerStage& lower,
                                            const Lowering& reference,
                                            std::int64_t interval,
                                            const StagePhases& phases);

/// Find an order of the windows round the interval for which everything else finds its place, and of those the one with
/// the shortest way through the stage.
///
/// Orders are ranked by a coarse critical path (each group of windows becomes ready a fixed delay after the one before
/// it); a local search improves them, and the best few are lowered for real. Deterministic: no clock decides.
///
/// @param reference  the stage lowered loaded but alone: its windows and what they wait for
/// @param orders     orders lowered for real, at most
/// @return no lowering when none of them has a place for everything
[[nodiscard]] ScheduledInterval schedule_interval(
    const LowerStage& lower, const Lowering& reference, std::int64_t interval, std::int32_t orders, std::uint64_t seed);

}  // namespace lpu::scheduler
