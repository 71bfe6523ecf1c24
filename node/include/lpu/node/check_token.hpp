#pragma once
#include <cstdint>
#include <span>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/program.hpp"

namespace lpu::node {

/// A user's next iteration reads by its token (node/README.md, "Tokens"): each chip that has kToken registers writes
/// the token of every user whom they name, and N + 1 cycles later at the earliest the next iteration reads by it.
///
/// @param period  shortest time between two iterations of a user, cycles
/// @throws ScheduleViolation  the first read, in chip order, that comes too early, or by a token that nobody writes
void check_token_loop(std::span<const ChipProgram> texts,
                      std::span<const ChipBinding> chips,
                      const ChipSpec& chip,
                      std::int64_t period);

}  // namespace lpu::node
