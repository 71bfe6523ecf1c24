#include "selection.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "lpu/node/error.hpp"
#include "lpu/node/suggestion.hpp"
#include "program_fields.hpp"

namespace lpu::scheduler {

std::vector<std::int32_t> chips_of(const ClusterProgram& program, std::int32_t text) {
  std::vector<std::int32_t> chips;
  for (const node::ChipBinding& binding : program.bindings) {
    if (binding.text == text) {
      chips.push_back(binding.chip);
    }
  }
  return chips;
}

node::Direction stream_direction(const node::Instruction& instruction) {
  for (const node::StreamOperand& operand : instruction.operands) {
    if (operand.kind == node::OperandKind::kIn || operand.kind == node::OperandKind::kOut) {
      return operand.direction;
    }
  }
  return node::Direction::kOutward;
}

std::pair<std::int64_t, std::int64_t> issue_span(const node::Instruction& instruction, const node::ChipSpec& chip) {
  std::pair<std::int64_t, std::int64_t> span{instruction.start, instruction.start};
  const bool is_mem = node::info(instruction.opcode).unit == node::Unit::kMem;
  const std::int64_t sign = stream_direction(instruction) == node::Direction::kOutward ? 1 : -1;
  // Each corner of the index box; between them the positions of slices are monotone.
  for (unsigned corner = 0; corner < 8; ++corner) {
    std::int64_t cycle = instruction.start;
    std::int32_t slice = instruction.index;
    for (unsigned l = 0; l < 3; ++l) {
      const std::int32_t i = (corner >> l & 1U) != 0 ? instruction.count[l] - 1 : 0;
      cycle += std::int64_t{i} * instruction.period[l];
      slice += i * instruction.index_stride[l];
    }
    if (is_mem) {
      cycle += sign * (chip.slice_position(slice) - chip.slice_position(instruction.index));
    }
    span.first = std::min(span.first, cycle);
    span.second = std::max(span.second, cycle);
  }
  return span;
}

void check_chips(const ClusterProgram& program, std::span<const std::int32_t> chips) {
  for (const std::int32_t chip : chips) {
    if (chip < 0 || static_cast<std::size_t>(chip) >= program.bindings.size()) {
      throw node::InputError("found chip " + std::to_string(chip) + "; expected 0 to " +
                             std::to_string(program.bindings.size() - 1));
    }
  }
}

Selection::Selection(const ClusterProgram& program, const InspectOptions& options)
    : chip_(&program.chip),
      cycles_(options.cycles),
      unit_(options.unit),
      has_chip_(program.bindings.size(), options.chips.empty()),
      has_text_(program.texts.size(), options.chips.empty()) {
  check_chips(program, options.chips);
  for (const std::int32_t chip : options.chips) {
    const auto at = static_cast<std::size_t>(chip);
    has_chip_[at] = true;
    if (program.bindings[at].text >= 0) {
      has_text_[static_cast<std::size_t>(program.bindings[at].text)] = true;
    }
  }
}

bool Selection::has(const node::Instruction& instruction) const {
  if (unit_ && node::info(instruction.opcode).unit != *unit_) {
    return false;
  }
  if (!cycles_) {
    return true;
  }
  const auto [first, last] = issue_span(instruction, *chip_);
  return first <= cycles_->second && last >= cycles_->first;
}

ClusterProgram with_own_texts(const ClusterProgram& program, std::span<const std::int32_t> chips) {
  check_chips(program, chips);
  ClusterProgram out = program;
  std::vector<std::size_t> sharers(program.texts.size(), 0);
  for (const node::ChipBinding& binding : program.bindings) {
    if (binding.text >= 0) {
      ++sharers[static_cast<std::size_t>(binding.text)];
    }
  }
  for (const std::int32_t chip : chips) {
    node::ChipBinding& binding = out.bindings[static_cast<std::size_t>(chip)];
    // The last chip that is left with a text keeps it; one that has its own already is not listed again in `sharers`.
    if (binding.text < 0 || static_cast<std::size_t>(binding.text) >= sharers.size() ||
        sharers[static_cast<std::size_t>(binding.text)] < 2) {
      continue;
    }
    --sharers[static_cast<std::size_t>(binding.text)];
    out.texts.push_back(node::ChipProgram(out.texts[static_cast<std::size_t>(binding.text)]));
    binding.text = static_cast<std::int32_t>(out.texts.size()) - 1;
  }
  return out;
}

node::Unit parse_unit(std::string_view word) {
  std::vector<std::string> known;
  for (std::uint8_t i = 0; fields::is_enumerator<node::Unit>(i); ++i) {
    const auto unit = static_cast<node::Unit>(i);
    if (fields::spelling(unit) == word) {
      return unit;
    }
    known.emplace_back(fields::spelling(unit));
  }
  throw node::InputError("--unit: found " + std::string(word) + "; expected one of the chip's" +
                         node::known_values(word, known));
}

}  // namespace lpu::scheduler
