#pragma once
#include <array>
#include <cstdint>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/instruction.hpp"

namespace lpu::node {

/// Which instance of a burst: the index of each loop.
using LoopIndex = std::array<std::uint16_t, 3>;

[[nodiscard]] inline std::int64_t affine(std::int64_t base, const auto& stride, const LoopIndex& at) {
  return base + std::int64_t{at[0]} * stride[0] + std::int64_t{at[1]} * stride[1] + std::int64_t{at[2]} * stride[2];
}

/// Calls visit(at) for every instance, loop 2 fastest.
template <typename Visit>
void for_each_instance(const Instruction& instruction, Visit visit) {
  LoopIndex at{};
  for (at[0] = 0; at[0] < instruction.count[0]; ++at[0]) {
    for (at[1] = 0; at[1] < instruction.count[1]; ++at[1]) {
      for (at[2] = 0; at[2] < instruction.count[2]; ++at[2]) {
        visit(at);
      }
    }
  }
}

[[nodiscard]] inline std::int64_t unit_of(const Instruction& instruction, const LoopIndex& at) {
  return affine(instruction.index, instruction.index_stride, at);
}

/// Issue cycle, relative to the iteration, on slice `slice` (MEM) or wherever the instance is.
[[nodiscard]] inline std::int64_t issue_cycle(const Instruction& instruction,
                                              const LoopIndex& at,
                                              std::int64_t slice,
                                              const ChipSpec& chip) {
  const std::int64_t cycle = affine(instruction.start, instruction.period, at);
  if (instruction.opcode != Opcode::kRead && instruction.opcode != Opcode::kWrite) {
    return cycle;
  }
  const std::int64_t shift =
      chip.slice_position(static_cast<std::int32_t>(slice)) - chip.slice_position(instruction.index);
  return instruction.operands[0].direction == Direction::kOutward ? cycle + shift : cycle - shift;
}

/// A row of SRAM as a number, also where it lies outside; the displacement of a base register is not in it.
[[nodiscard]] inline std::int64_t place_key(Hemisphere hemisphere, std::int64_t slice, std::int64_t address) {
  return (static_cast<std::int64_t>(hemisphere) << 50) + (slice << 25) + address;
}

}  // namespace lpu::node
