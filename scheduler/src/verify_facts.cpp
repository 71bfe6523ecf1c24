#include "verify_facts.hpp"

#include <algorithm>
#include <tuple>

namespace lpu::scheduler::proof {

void Findings::add(std::int64_t cycle, std::int32_t instruction, std::string reason) {
  add_at(chip_, cycle, instruction, std::move(reason));
}

void Findings::add_at(std::int32_t chip, std::int64_t cycle, std::int32_t instruction, std::string reason) {
  if (!is_full()) {
    violations_.push_back({.chip = chip, .cycle = cycle, .instruction = instruction, .reason = std::move(reason)});
  }
}

std::vector<node::Violation> Findings::sorted(std::size_t most) {
  const auto key = [](const node::Violation& v) { return std::tuple{v.chip, v.cycle < 0, v.cycle, v.instruction}; };
  std::stable_sort(
      violations_.begin(), violations_.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  if (violations_.size() > most) {
    violations_.resize(most);
  }
  return std::move(violations_);
}

std::int64_t TextFacts::value_class(const Instruction& instruction, const StreamOperand& operand) const {
  const RegisterFacts& own = base(instruction);
  const bool is_cache = text.tensors[operand.tensor].scope == node::TensorScope::kCache;
  return (operand.is_registered != 0 ? std::int64_t{own.row_class} << 24U : 0) + (is_cache ? own.user_class : 0);
}

std::string name_of(const TextFacts& facts, std::int32_t instruction) {
  const Instruction& at = facts.text.instructions[static_cast<std::size_t>(instruction)];
  return "instruction " + std::to_string(instruction) + " (" + std::string(node::info(at.opcode).name) + ")";
}

std::string value_of(const TextFacts& facts, std::uint16_t tensor, std::int64_t row, std::int64_t value_class) {
  std::string out = "'" + facts.text.tensors[tensor].name + "' row " + std::to_string(row);
  for (std::size_t i = 1; value_class != 0 && i < facts.registers.size(); ++i) {
    const bool is_it = facts.registers[i].row_class == value_class >> 24U &&
                       ((value_class & 0xffffff) == 0 || facts.registers[i].user_class == (value_class & 0xffffff));
    if (is_it) {
      return out + " by register " + std::to_string(i);
    }
  }
  return out;
}

std::string name_of(node::Hemisphere hemisphere) {
  return hemisphere == node::Hemisphere::kWest ? "west" : "east";
}
std::string name_of(node::Direction direction) {
  return direction == node::Direction::kOutward ? "outward" : "inward";
}

std::string iterations_later(std::int64_t m) {
  if (m == 0) {
    return {};
  }
  return " of the iteration " + std::to_string(m) + " later";
}

}  // namespace lpu::scheduler::proof
