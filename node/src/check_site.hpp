#pragma once
#include <cstdint>
#include <string>
#include <utility>

#include "lpu/node/error.hpp"

namespace lpu::node {

/// Where on a chip something is being checked.
struct Site {
  std::int32_t chip = -1;
  std::int64_t cycle = 0;  ///< common clock
  std::int32_t instruction = -1;
  std::int64_t iteration = 0;
  std::int64_t iteration_start = 0;  ///< on the chip, common clock
};

[[noreturn]] inline void breach(const Site& site, std::string reason) {
  if (site.iteration_start != 0) {
    reason += " (iteration " + std::to_string(site.iteration) + ", its cycle " +
              std::to_string(site.cycle - site.iteration_start) + ")";
  }
  throw ScheduleViolation(
      {.chip = site.chip, .cycle = site.cycle, .instruction = site.instruction, .reason = std::move(reason)});
}

}  // namespace lpu::node
