#pragma once
#include <cereal/types/vector.hpp>

#include "lpu/node/emulator.hpp"

// cereal finds these by the namespaces of their arguments.
namespace lpu::node {

template <typename Archive>
void serialize(Archive& archive, UnitCycles& units) {
  archive(units.installs, units.computes, units.drains, units.alus, units.sxm);
  archive(units.reads, units.writes, units.sends, units.receives);
}
template <typename Archive>
void serialize(Archive& archive, ChipMeasures& measures) {
  archive(measures.iterations, measures.arrivals_checked, measures.transfers, measures.vectors, measures.bursts);
  archive(measures.end, measures.latency, measures.interval_min, measures.interval_max);
  archive(measures.period_min, measures.period_max, measures.units, measures.link_busy);
}

}  // namespace lpu::node
