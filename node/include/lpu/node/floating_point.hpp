#pragma once

namespace lpu::node {

/// Sets this thread's arithmetic: round to nearest, subnormal numbers kept (neither flushed nor read as 0), no traps.
/// Whoever computes in the numeric plane calls it first: a launcher or a library may have left another mode.
void set_arithmetic_mode();

}  // namespace lpu::node
