#include "report.hpp"

#include <algorithm>

namespace lpu::scheduler {

using node::OperatorPart;

namespace {

void charge(LayerBudget& budget, OperatorPart part, std::int64_t cycles) {
  switch (part) {
    case OperatorPart::kInstall:
      budget.install += cycles;
      break;
    case OperatorPart::kActivationSlots:
      budget.activation_slots += cycles;
      break;
    case OperatorPart::kFill:
      budget.fill += cycles;
      break;
    case OperatorPart::kSxm:
      budget.sxm += cycles;
      break;
    case OperatorPart::kAttention:
      budget.attention += cycles;
      break;
    case OperatorPart::kRouter:
      budget.router += cycles;
      break;
    case OperatorPart::kWires:
    case OperatorPart::kHop:
      budget.wires_exposed += cycles;
      break;
    case OperatorPart::kWaiting:
      budget.waiting += cycles;
      break;
    case OperatorPart::kVxm:
    case OperatorPart::kEnds:
      budget.vxm += cycles;
      break;
  }
}

/// Placement that ends last among those up to `last`.
PlacementId latest(const StageBuilder& builder, PlacementId last) {
  PlacementId best = 0;
  for (PlacementId id = 0; id <= last; ++id) {
    if (builder.placement(id).end >= builder.placement(best).end) {
      best = id;
    }
  }
  return best;
}

void walk(const StageBuilder& builder, const Lowering::Span& block, LayerBudget& budget) {
  std::int64_t until = block.end;
  PlacementId at = latest(builder, block.last);
  while (until > block.start) {
    const Placement& placed = builder.placement(at);
    const std::int64_t from =
        placed.cause >= 0 ? std::clamp(builder.placement(placed.cause).end, block.start, until) : block.start;
    std::int64_t work = until - from;
    const std::int64_t waited =
        std::clamp<std::int64_t>(placed.start - std::max(placed.earliest, block.start), 0, work);
    charge(budget, OperatorPart::kWaiting, waited);
    work -= waited;
    if (placed.part == OperatorPart::kInstall) {
      const std::int64_t slots = std::min(placed.activation_slots, work);
      const std::int64_t install = std::min(placed.install, work - slots);
      charge(budget, OperatorPart::kActivationSlots, slots);
      charge(budget, OperatorPart::kInstall, install);
      charge(budget, OperatorPart::kFill, work - slots - install);
    } else {
      const std::int64_t trips = std::min(placed.sxm_trips, work);
      charge(budget, OperatorPart::kSxm, trips);
      charge(budget, placed.part, work - trips);
    }
    until = from;
    if (placed.cause < 0) {
      break;
    }
    at = placed.cause;
  }
}

}  // namespace

LayerBudget layer_budget(const StageBuilder& builder, const std::vector<Lowering::Span>& blocks) {
  LayerBudget budget;
  for (const Lowering::Span& block : blocks) {
    walk(builder, block, budget);
    budget.layer += block.end - block.start;
  }
  std::int64_t wires = 0;
  for (const Lowering::Span& block : blocks) {
    for (PlacementId id = block.first; id <= block.last; ++id) {
      const Placement& placed = builder.placement(id);
      if (placed.part == OperatorPart::kWires && placed.cause >= 0) {
        wires += builder.chip().link_serialisation.count();
      }
    }
  }
  budget.wires_hidden = std::max<std::int64_t>(0, wires / 2 - budget.wires_exposed);
  return budget;
}

}  // namespace lpu::scheduler
