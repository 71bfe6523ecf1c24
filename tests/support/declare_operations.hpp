#pragma once
#include <map>

#include "lpu/node/program.hpp"

namespace lpu::test {

/// Let every tensor of a text declare the operations that make and use it.
inline void declare_operations(node::ChipProgram& text) {
  const auto counts = [&](std::size_t tensor, node::OperandKind kind) {
    std::map<node::Opcode, std::int64_t> vectors;
    for (const node::Instruction& instruction : text.instructions) {
      for (const node::StreamOperand& operand : instruction.operands) {
        if (operand.kind == kind && operand.tensor == tensor && node::computes(instruction.opcode)) {
          vectors[instruction.opcode] += node::vectors_moved(instruction, operand);
        }
      }
    }
    std::vector<node::OperationCount> out;
    for (const auto& [opcode, number] : vectors) {
      out.push_back({.opcode = opcode, .vectors = number});
    }
    return out;
  };
  for (std::size_t t = 0; t < text.tensors.size(); ++t) {
    text.tensors[t].made_by = counts(t, node::OperandKind::kOut);
    text.tensors[t].used_by = counts(t, node::OperandKind::kIn);
  }
}

}  // namespace lpu::test
