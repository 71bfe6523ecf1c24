#include "verify_burst.hpp"

#include "lpu/node/error.hpp"

namespace lpu::scheduler::proof {

using node::OperandKind;

Burst make_burst(const Instruction& instruction, const StreamOperand* operand) {
  Burst burst;
  burst.first.cycle = instruction.start;
  burst.first.index = instruction.index;
  burst.first.address = instruction.address;
  if (operand != nullptr) {
    burst.first.stream = operand->stream;
    burst.first.row = operand->row;
  }
  for (std::size_t l = 0; l < 3; ++l) {
    Axis axis{.count = instruction.count[l],
              .period = instruction.period[l],
              .index = instruction.index_stride[l],
              .stream = operand != nullptr && l == 2 ? operand->stream_stride : 0,
              .row = operand != nullptr ? operand->row_stride[l] : 0,
              .address = instruction.address_stride[l]};
    if (operand != nullptr && (operand->held >> l & 1U) != 0) {
      const std::int32_t kept = operand->kind == OperandKind::kOut ? axis.count - 1 : 0;
      burst.first.cycle += kept * axis.period;
      burst.first.index += kept * axis.index;
      burst.first.stream += kept * axis.stream;
      burst.first.row += std::int64_t{kept} * axis.row;
      burst.first.address += kept * axis.address;
      axis = Axis{};
    }
    burst.axes[l] = axis;
  }
  return burst;
}

int inner_axis(const Burst& burst) {
  int best = -1;
  const auto is_better = [&](const Axis& axis) {
    if (axis.count <= 1 || axis.period <= 0 || axis.index != 0 || axis.stream != 0) {
      return false;
    }
    if (best < 0) {
      return true;
    }
    const Axis& old = burst.axes[static_cast<std::size_t>(best)];
    if ((axis.period == 1) != (old.period == 1)) {
      return axis.period == 1;
    }
    return axis.count > old.count;
  };
  for (int l = 0; l < 3; ++l) {
    if (is_better(burst.axes[static_cast<std::size_t>(l)])) {
      best = l;
    }
  }
  return best;
}

const StreamOperand& only_operand(const Instruction& instruction) {
  for (const StreamOperand& operand : instruction.operands) {
    if (operand.kind == OperandKind::kIn || operand.kind == OperandKind::kOut) {
      return operand;
    }
  }
  LPU_CHECK(false, "an instruction without a stream operand");
  return instruction.operands[0];
}

}  // namespace lpu::scheduler::proof
