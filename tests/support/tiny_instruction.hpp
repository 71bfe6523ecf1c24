#pragma once
#include <initializer_list>

#include "lpu/node/instruction.hpp"
#include "test_chip.hpp"

namespace lpu::test {

/// A west operand; inputs need no reach.
inline node::StreamOperand operand(
    node::OperandKind kind, node::Direction direction, int stream, int streams, int tensor, int row, int reach = 0) {
  node::StreamOperand out;
  out.kind = kind;
  out.direction = direction;
  out.stream = static_cast<std::uint8_t>(stream);
  out.streams = static_cast<std::uint8_t>(streams);
  out.tensor = static_cast<std::uint16_t>(tensor);
  out.row = row;
  out.reach = static_cast<std::uint8_t>(reach);
  return out;
}

/// A west instruction of one instance.
inline node::Instruction instruction(
    node::Opcode opcode, int start, int index, int address, std::initializer_list<node::StreamOperand> operands) {
  node::Instruction out;
  out.opcode = opcode;
  out.start = start;
  out.index = static_cast<std::uint8_t>(index);
  out.address = static_cast<std::uint16_t>(address);
  out.alus = node::info(opcode).unit == node::Unit::kVxm ? 1 : 0;
  std::size_t at = 0;
  for (const node::StreamOperand& one : operands) {
    out.operands[at++] = one;
  }
  return out;
}

}  // namespace lpu::test
