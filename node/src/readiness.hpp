#pragma once
#include <cstdint>
#include <span>

#include "lpu/node/burst_table.hpp"

namespace lpu::node {

/// Rows of iteration tensors are read N + 1 cycles after the last write of them at that place in the same iteration.
///
/// The distances are the same in every iteration and checked here; that the writes were executed is counted at run
/// time: the events of writes get a counter, those of reads the count that it must have reached.
/// @return counters
/// @throws ScheduleViolation  a row that is read too early
[[nodiscard]] std::size_t check_readiness(const ChipProgram& program,
                                          const ChipSpec& chip,
                                          std::int32_t chip_id,
                                          std::span<BurstEvent> events);

}  // namespace lpu::node
