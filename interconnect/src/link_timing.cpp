#include "lpu/interconnect/link_timing.hpp"

#include <algorithm>

#include "lpu/node/error.hpp"

namespace lpu::interconnect {

using node::Cycles;

double encoding_overhead(const node::ChipSpec& chip) {
  return static_cast<double>(chip.link_overhead_bytes) /
         static_cast<double>(chip.vector_bytes + chip.link_overhead_bytes);
}

node::BytesPerSecond payload_rate(const node::ChipSpec& chip) {
  return node::BytesPerSecond(chip.vector_bytes * chip.clock.count() / chip.link_serialisation.count());
}

Cycles link_time(const node::ChipSpec& chip, std::int64_t vectors) {
  return vectors == 0 ? Cycles(0) : chip.link_flight + chip.link_serialisation * vectors;
}

Cycles hop_time(const node::ChipSpec& chip, std::int32_t hops, std::int64_t vectors) {
  if (hops == 0 || vectors == 0) {
    return Cycles(0);
  }
  return hops * (chip.link_flight + chip.c2c_endpoint) + chip.link_serialisation * vectors;
}

Cycles stored_hop_time(const node::ChipSpec& chip, std::int32_t hops, std::int64_t vectors) {
  if (hops == 0 || vectors == 0) {
    return Cycles(0);
  }
  return hop_time(chip, hops, vectors) + chip.link_serialisation * (hops - 1);
}

Departures depart(const node::ChipSpec& chip, std::span<const Cycles> pushes, Cycles free_from) {
  Departures departures;
  departures.starts.reserve(pushes.size());
  std::size_t started = 0;
  for (std::size_t vector = 0; vector < pushes.size(); ++vector) {
    const Cycles push = pushes[vector];
    LPU_CHECK(vector == 0 || pushes[vector - 1] < push, "one push a cycle");
    departures.starts.push_back(std::max(push, free_from));
    free_from = departures.starts.back() + chip.link_serialisation;
    while (started < departures.starts.size() && departures.starts[started] <= push) {
      ++started;
    }
    departures.most_waiting =
        std::max(departures.most_waiting, static_cast<std::int32_t>(departures.starts.size() - started));
  }
  return departures;
}

SplitCost split_over_detours(const node::ChipSpec& chip, std::int64_t vectors, std::int32_t detours) {
  SplitCost best{.time = hop_time(chip, 1, vectors), .direct_vectors = vectors};
  const std::int64_t longer = (chip.link_flight + chip.c2c_endpoint).count() / chip.link_serialisation.count();
  for (std::int32_t used = 1; used <= detours; ++used) {
    // Both ways end together where a detour takes (n − what the direct link sends meanwhile) / (ways).
    const std::int64_t balanced = std::max(vectors - longer, std::int64_t{0}) / (used + 1);
    for (std::int64_t each = std::max(balanced - 1, std::int64_t{1}); each <= balanced + 1; ++each) {
      const std::int64_t direct = vectors - used * each;
      if (direct < 0) {
        break;
      }
      const Cycles time = std::max(hop_time(chip, 1, direct), hop_time(chip, 2, each));
      if (time < best.time) {
        best = {.time = time, .direct_vectors = direct, .detours = used, .detour_vectors = each};
      }
    }
  }
  return best;
}

std::int64_t detour_crossover(const node::ChipSpec& chip, std::int32_t detours) {
  LPU_CHECK(detours >= 1, "no detour, no crossover");
  std::int64_t vectors = 1;
  while (split_over_detours(chip, vectors, detours).detours == 0) {
    ++vectors;
  }
  return vectors;
}

}  // namespace lpu::interconnect
