#pragma once
#include <algorithm>
#include <cstdint>

#include "verify_burst.hpp"
#include "verify_facts.hpp"
#include "verify_lane_map.hpp"

namespace lpu::scheduler::proof {

/// A progression of values on one stream, by diagonal (outward cycle - position, inward cycle + position).
struct StreamRun {
  std::uint32_t lane = 0;
  std::int32_t instruction = 0;
  std::int64_t diagonal = 0;
  std::int64_t period = 1;
  std::int32_t count = 1;
  std::uint16_t tensor = 0;
  std::int64_t value_class = 0;
  std::int64_t row = 0;
  std::int64_t row_stride = 0;
  /// Outputs: registers that hold the value whatever the base register says; inputs: registers that it may be taken at.
  std::uint32_t registers = 0;
  /// Outputs: registers that it may occupy.
  std::uint32_t occupied = 0;
};

/// Bits lo..hi; none when hi < lo.
[[nodiscard]] constexpr std::uint32_t bits_between(std::int32_t lo, std::int32_t hi) {
  if (hi < lo || hi < 0 || lo > 31) {
    return 0;
  }
  lo = std::max(lo, 0);
  hi = std::min(hi, 31);
  return static_cast<std::uint32_t>(((std::uint64_t{1} << (hi - lo + 1)) - 1) << lo);
}

/// Visit the runs of one stream operand.
template <typename Visit>
void for_each_stream_run(
    const TextFacts& facts, const LaneMap& map, std::int32_t number, const StreamOperand& operand, Visit&& visit) {
  const Instruction& instruction = facts.text.instructions[static_cast<std::size_t>(number)];
  const ChipSpec& chip = facts.chip;
  const bool is_memory = node::info(instruction.opcode).unit == node::Unit::kMem;
  const bool is_output = operand.kind == node::OperandKind::kOut;
  const std::int32_t unit = node::unit_position(instruction, chip);
  const std::int64_t appears = is_output ? node::latency(instruction.opcode, chip).count() : 0;
  const auto kept = [&](std::int32_t position) {
    return operand.direction == node::Direction::kOutward ? bits_between(position, operand.reach)
                                                          : bits_between(operand.reach, position);
  };
  for_each_run(make_burst(instruction, &operand), [&](const Run& run) {
    StreamRun out{.instruction = number,
                  .diagonal = run.cycle + appears - step(operand.direction) * unit,
                  .period = run.period,
                  .count = run.count,
                  .tensor = operand.tensor,
                  .value_class = facts.value_class(instruction, operand),
                  .row = run.row,
                  .row_stride = run.row_stride};
    if (!is_memory) {
      out.registers = is_output ? kept(unit) : bits_between(unit, unit);
      out.occupied = out.registers;
    } else {
      out.registers = is_output ? ~0U : 0U;
      for (const PlaceShift& shift : facts.base(instruction).places) {
        const std::int32_t slice = run.index + shift.slice;
        if (slice < 0 || slice >= chip.slices_per_hemisphere) {
          continue;
        }
        const std::int32_t position = chip.slice_position(slice);
        if (is_output) {
          out.registers &= kept(position);
          out.occupied |= kept(position);
        } else {
          out.registers |= bits_between(position, position);
        }
      }
    }
    for (std::int32_t j = 0; j < operand.streams; ++j) {
      out.lane = map.stream(operand.hemisphere, operand.direction, run.stream + j);
      out.row = run.row + j;
      visit(static_cast<const StreamRun&>(out));
    }
  });
}

}  // namespace lpu::scheduler::proof
