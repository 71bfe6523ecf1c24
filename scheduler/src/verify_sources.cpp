#include <algorithm>
#include <map>
#include <string>
#include <tuple>

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

void prove_operations(const TextFacts& facts, Findings& findings) {
  struct Count {
    std::int64_t found = 0;
    std::int64_t declared = 0;
    std::int32_t last_instruction = -1;
  };
  std::map<std::tuple<std::uint16_t, OperandKind, node::Opcode>, Count> counts;
  for (std::size_t i = 0; i < facts.text.instructions.size(); ++i) {
    const Instruction& instruction = facts.text.instructions[i];
    for (const StreamOperand& operand : instruction.operands) {
      if (node::computes(instruction.opcode) &&
          (operand.kind == OperandKind::kIn || operand.kind == OperandKind::kOut)) {
        Count& count = counts[{operand.tensor, operand.kind, instruction.opcode}];
        count.found += node::vectors_moved(instruction, operand);
        count.last_instruction = static_cast<std::int32_t>(i);
      }
    }
  }
  for (std::size_t t = 0; t < facts.text.tensors.size(); ++t) {
    const auto number = static_cast<std::uint16_t>(t);
    for (const node::OperationCount& made : facts.text.tensors[t].made_by) {
      counts[{number, OperandKind::kOut, made.opcode}].declared = made.vectors;
    }
    for (const node::OperationCount& used : facts.text.tensors[t].used_by) {
      counts[{number, OperandKind::kIn, used.opcode}].declared = used.vectors;
    }
  }
  for (const auto& [key, count] : counts) {
    if (count.found == count.declared) {
      continue;
    }
    const auto& [tensor, kind, opcode] = key;
    const std::int32_t at = count.last_instruction;
    const std::string operation(node::info(opcode).name);
    findings.add(at < 0 ? -1 : facts.text.instructions[static_cast<std::size_t>(at)].start,
                 at,
                 operation + (kind == OperandKind::kOut ? " gives " : " takes ") + std::to_string(count.found) +
                     " vectors of '" + facts.text.tensors[tensor].name + "'; the tensor declares " +
                     std::to_string(count.declared));
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
