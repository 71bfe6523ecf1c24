#include <algorithm>

#include "verify_streams.hpp"

namespace lpu::scheduler::proof {

using node::OperandKind;

void prove_sources(const TextFacts& facts, Findings& findings) {
  for (std::size_t i = 0; i < facts.text.instructions.size(); ++i) {
    const Instruction& instruction = facts.text.instructions[i];
    for (const StreamOperand& out : instruction.operands) {
      if (out.kind != OperandKind::kOut) {
        continue;
      }
      const node::Tensor& made = facts.text.tensors[out.tensor];
      for (const StreamOperand& in : instruction.operands) {
        if (in.kind == OperandKind::kIn &&
            std::find(made.sources.begin(), made.sources.end(), in.tensor) == made.sources.end()) {
          findings.add(instruction.start,
                       static_cast<std::int32_t>(i),
                       "makes '" + made.name + "' from '" + facts.text.tensors[in.tensor].name +
                           "', which is none of its sources");
        }
      }
    }
  }
}

void prove_rows(const TextFacts& facts, Findings& findings) {
  for (std::size_t i = 0; i < facts.text.instructions.size(); ++i) {
    const Instruction& instruction = facts.text.instructions[i];
    const RegisterFacts& base = facts.base(instruction);
    for (const StreamOperand& operand : instruction.operands) {
      if (operand.kind == OperandKind::kNone) {
        continue;
      }
      const node::Tensor& tensor = facts.text.tensors[operand.tensor];
      std::int64_t lowest = operand.row;
      std::int64_t highest =
          std::int64_t{operand.row} + (operand.kind == OperandKind::kResident ? 0 : operand.streams - 1);
      for (std::size_t l = 0; l < 3; ++l) {
        const std::int64_t moved = std::int64_t{operand.row_stride[l]} * (instruction.count[l] - 1);
        (moved < 0 ? lowest : highest) += moved;
      }
      if (operand.is_registered != 0) {
        lowest += base.row_lowest;
        highest += base.row_highest;
      }
      if (lowest < 0 || highest >= tensor.rows) {
        findings.add(instruction.start,
                     static_cast<std::int32_t>(i),
                     "names rows " + std::to_string(lowest) + " to " + std::to_string(highest) + " of '" + tensor.name +
                         "', which has " + std::to_string(tensor.rows));
      }
    }
  }
}

}  // namespace lpu::scheduler::proof
