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
};

[[noreturn]] inline void breach(const Site& site, std::string reason) {
  throw ScheduleViolation(
      {.chip = site.chip, .cycle = site.cycle, .instruction = site.instruction, .reason = std::move(reason)});
}

}  // namespace lpu::node
