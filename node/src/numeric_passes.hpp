#pragma once
#include <cstdint>
#include <vector>

#include "lpu/node/numeric_chip.hpp"
#include "lpu/node/numeric_value.hpp"

namespace lpu::node {

/// What a pass knows besides its operands.
struct PassContext {
  const NumericKernels* kernels = nullptr;
  const NumericModel* model = nullptr;
  std::int64_t position = 0;
  LanesPtr* in_order = nullptr;  ///< the last lanes 0, 1, 2, ... that a pass made: keys have the same
};

/// One instance of a VXM pass: the value of its first output (the others hold the same, or what merge() makes of it).
///
/// @param inputs  in the order of the operands; an operand of eight streams counts twice
/// @param east    per input: it came from the east
/// @param out     tensor of the output
/// @return nullptr where the opcode has no meaning in the numeric plane
[[nodiscard]] ValuePtr vector_pass(const PassContext& context,
                                   Opcode opcode,
                                   const std::vector<ValuePtr>& inputs,
                                   const std::vector<bool>& east,
                                   std::uint16_t out);

/// The scores' own largest number beside them, and the like: what an output other than the first holds.
[[nodiscard]] ValuePtr second_output(Opcode opcode, NumericRole role, const ValuePtr& first);

/// What a unit that accumulates over a loop keeps.
[[nodiscard]] ValuePtr merge(Opcode opcode, const ValuePtr& kept, const ValuePtr& next);

}  // namespace lpu::node
