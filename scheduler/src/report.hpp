#pragma once
#include <cstdint>
#include <vector>

#include "lowering.hpp"
#include "lpu/scheduler/compile.hpp"

namespace lpu::scheduler {

/// Cycles of some blocks' critical path by part: walked back from the last value that they make to
/// what each step waited for. The parts sum to `layer` exactly.
[[nodiscard]] LayerBudget layer_budget(const StageBuilder& builder, const std::vector<Lowering::Span>& blocks);

}  // namespace lpu::scheduler
