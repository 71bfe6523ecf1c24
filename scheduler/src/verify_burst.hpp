#pragma once
#include <array>
#include <cstdint>

#include "lpu/node/instruction.hpp"
#include "verify_facts.hpp"

namespace lpu::scheduler::proof {

/// Instances of a burst (or of one of its operands) along one loop: an arithmetic progression of cycles on one unit
/// number and one stream.
struct Run {
  std::int64_t cycle = 0;  ///< first issue; MEM: as if at slice `index` (the diagonal's clock)
  std::int64_t period = 1;
  std::int32_t count = 1;
  std::int32_t index = 0;
  std::int32_t stream = 0;
  std::int64_t row = 0;
  std::int64_t row_stride = 0;
  std::int32_t address = 0;
  std::int32_t address_stride = 0;
};

struct Axis {
  std::int32_t count = 1;
  std::int64_t period = 0;
  std::int32_t index = 0, stream = 0, row = 0, address = 0;
};

/// A burst as a first point and three axes, an operand's held loops cut to the instance that they keep.
struct Burst {
  Run first;
  std::array<Axis, 3> axes{};
};

/// @param operand  none: the unit's own issues
[[nodiscard]] Burst make_burst(const Instruction& instruction, const StreamOperand* operand);

/// Loop to run along: one that stays on unit and stream, in consecutive cycles if there is one; -1: none.
[[nodiscard]] int inner_axis(const Burst& burst);

/// Visit every run of the burst; runs are disjoint and cover all instances.
template <typename Visit>
void for_each_run(const Burst& burst, Visit&& visit) {
  const int inner = inner_axis(burst);
  const std::size_t a = inner == 0 ? 1 : 0;
  const std::size_t b = inner == 2 ? 1 : 2;
  static constexpr Axis kNone{};
  const Axis& along = inner < 0 ? kNone : burst.axes[static_cast<std::size_t>(inner)];
  const Axis& c = inner < 0 ? burst.axes[1] : kNone;
  const auto advance = [](Run& run, const Axis& axis, std::int32_t i) {
    run.cycle += i * axis.period;
    run.index += i * axis.index;
    run.stream += i * axis.stream;
    run.row += std::int64_t{i} * axis.row;
    run.address += i * axis.address;
  };
  Run origin = burst.first;
  origin.period = along.period == 0 ? 1 : along.period;
  origin.count = along.count;
  origin.row_stride = along.row;
  origin.address_stride = along.address;
  for (std::int32_t i = 0; i < burst.axes[a].count; ++i) {
    for (std::int32_t j = 0; j < burst.axes[b].count; ++j) {
      for (std::int32_t k = 0; k < c.count; ++k) {
        Run run = origin;
        advance(run, burst.axes[a], i);
        advance(run, burst.axes[b], j);
        advance(run, c, k);
        visit(static_cast<const Run&>(run));
      }
    }
  }
}

/// The one stream operand of a memory or link instruction.
[[nodiscard]] const StreamOperand& only_operand(const Instruction& instruction);

/// +1: the stream of a memory instruction runs outward, so that slices farther out issue later.
[[nodiscard]] inline std::int32_t step(node::Direction direction) {
  return direction == node::Direction::kOutward ? 1 : -1;
}

/// Cycle at which a memory run issues on a slice.
[[nodiscard]] inline std::int64_t slice_cycle(const Instruction& instruction,
                                              const ChipSpec& chip,
                                              std::int64_t cycle,
                                              std::int32_t slice) {
  const std::int32_t downstream = chip.slice_position(slice) - chip.slice_position(instruction.index);
  return cycle + downstream * step(only_operand(instruction).direction);
}

}  // namespace lpu::scheduler::proof
