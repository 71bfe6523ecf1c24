#include <algorithm>
#include <numeric>
#include <set>

#include "lpu/node/digest.hpp"
#include "lpu/scheduler/well_formed.hpp"
#include "mutate_kinds.hpp"

namespace lpu::scheduler {
namespace {

constexpr std::string_view kProgramText = "program_text";

/// Calls visit(hemisphere, slice, address) for every row that allocations hold, displaced in every way.
template <typename Visit>
void for_each_held_row(const ClusterProgram& program, const node::ChipProgram& text, const Visit& visit) {
  std::vector<std::set<std::pair<std::int32_t, std::int32_t>>> shifts(text.registers.size());
  for (const node::Allocation& allocation : text.allocations) {
    auto& moves = shifts[allocation.base_register];
    if (moves.empty()) {
      for (const node::Displacement& one :
           node::all_displacements(text.registers[allocation.base_register], program.plan.context)) {
        moves.insert({one.slice, one.address});
      }
    }
    for (std::int32_t i = 0; i < allocation.count[0]; ++i) {
      for (std::int32_t j = 0; j < allocation.count[1]; ++j) {
        for (std::int32_t k = 0; k < allocation.count[2]; ++k) {
          const std::int32_t slice = allocation.slice + i * allocation.slice_stride[0] +
                                     j * allocation.slice_stride[1] + k * allocation.slice_stride[2];
          const std::int32_t address = allocation.address + i * allocation.address_stride[0] +
                                       j * allocation.address_stride[1] + k * allocation.address_stride[2];
          for (const auto& move : moves) {
            visit(allocation.hemisphere, slice + move.first, address + move.second);
          }
        }
      }
    }
  }
}

}  // namespace

std::uint64_t Draw::next() {
  state_ = node::mix(state_);
  return state_;
}
std::size_t Draw::below(std::size_t size) {
  return next() % size;
}
std::vector<std::int32_t> Draw::round(std::int32_t size) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(size));
  std::iota(out.begin(), out.end(), 0);
  if (size > 0) {
    std::ranges::rotate(out, out.begin() + static_cast<std::ptrdiff_t>(below(out.size())));
  }
  return out;
}

std::optional<FreeRows> find_free_rows(const ClusterProgram& program,
                                       const node::ChipProgram& text,
                                       std::int32_t rows) {
  const std::int32_t slices = program.chip.slices_per_hemisphere;
  const std::int32_t addresses = program.chip.vectors_per_slice;
  std::vector<std::vector<bool>> held(2 * static_cast<std::size_t>(slices),
                                      std::vector<bool>(static_cast<std::size_t>(addresses), false));
  for_each_held_row(program, text, [&](node::Hemisphere hemisphere, std::int32_t slice, std::int32_t address) {
    if (slice >= 0 && slice < slices && address >= 0 && address < addresses) {
      const std::size_t place =
          static_cast<std::size_t>(hemisphere) * static_cast<std::size_t>(slices) + static_cast<std::size_t>(slice);
      held[place][static_cast<std::size_t>(address)] = true;
    }
  });
  for (std::size_t at = 0; at < held.size(); ++at) {
    std::int32_t run = 0;
    for (std::int32_t address = addresses - 1; address >= 0; --address) {
      run = held[at][static_cast<std::size_t>(address)] ? 0 : run + 1;
      if (run == rows) {
        const auto place = static_cast<std::int32_t>(at);
        return FreeRows{.hemisphere = place < slices ? node::Hemisphere::kWest : node::Hemisphere::kEast,
                        .slice = place % slices,
                        .address = address};
      }
    }
  }
  return std::nullopt;
}

TextBudget text_budget(const node::ChipSpec& chip, const node::ChipProgram& text) {
  TextBudget budget;
  for (const node::Instruction& instruction : text.instructions) {
    budget.used += node::text_size(instruction, chip).count();
  }
  for (std::size_t t = 0; t < text.tensors.size(); ++t) {
    if (text.tensors[t].name == kProgramText) {
      budget.is_counted = true;
      budget.tensor = static_cast<std::uint16_t>(t);
    }
  }
  for (const node::Allocation& allocation : text.allocations) {
    if (budget.is_counted && allocation.tensor == budget.tensor) {
      budget.held += std::int64_t{allocation.count[0]} * allocation.count[1] * allocation.count[2] * chip.vector_bytes;
    }
  }
  return budget;
}

bool can_insert(const Ground& ground, const node::Instruction& instruction) {
  const node::ChipSpec& chip = ground.program.chip;
  const std::int64_t bytes = node::text_size(instruction, chip).count();
  if (ground.view.fetched(instruction.start, ground.view.interval()) + bytes > chip.fetch_bytes_per_cycle) {
    return false;
  }
  const TextBudget budget = text_budget(chip, ground.view.text());
  return !budget.is_counted || budget.used + bytes <= budget.held ||
         find_free_rows(ground.program, ground.view.text(), 1).has_value();
}

TextEditor::TextEditor(const ClusterProgram& program, node::ChipProgram& text)
    : program_(&program),
      text_(&text),
      order_(text.instructions.size()),
      next_(static_cast<std::int32_t>(text.instructions.size())) {
  std::iota(order_.begin(), order_.end(), 0);
}

void TextEditor::reserve(std::int64_t bytes) {
  const TextBudget budget = text_budget(program_->chip, *text_);
  const std::int64_t missing = budget.used + bytes - budget.held;
  if (!budget.is_counted || missing <= 0) {
    return;
  }
  const auto rows = static_cast<std::int32_t>(node::ceil_div(missing, program_->chip.vector_bytes));
  if (const auto free = find_free_rows(*program_, *text_, rows)) {
    node::Tensor& tensor = text_->tensors[budget.tensor];
    node::Allocation allocation;
    allocation.tensor = budget.tensor;
    allocation.hemisphere = free->hemisphere;
    allocation.slice = free->slice;
    allocation.address = free->address;
    allocation.row = tensor.rows;
    allocation.count[0] = rows;
    allocation.row_stride[0] = 1;
    allocation.address_stride[0] = 1;
    text_->allocations.push_back(allocation);
    tensor.rows += rows;
  }
}

void TextEditor::place(std::int32_t number, const node::Instruction& instruction) {
  auto& instructions = text_->instructions;
  const auto before = std::ranges::upper_bound(instructions, instruction, comes_before);
  const auto index = before - instructions.begin();
  instructions.insert(before, instruction);
  order_.insert(order_.begin() + index, number);
}

std::int32_t TextEditor::insert(const node::Instruction& instruction) {
  reserve(node::text_size(instruction, program_->chip).count());
  place(next_, instruction);
  return next_++;
}

void TextEditor::erase(std::int32_t number) {
  const std::int32_t index = index_of(number);
  text_->instructions.erase(text_->instructions.begin() + index);
  order_.erase(order_.begin() + index);
}

void TextEditor::replace(std::int32_t number, const node::Instruction& instruction) {
  const node::Instruction copy = instruction;  // it may stand in the text
  erase(number);
  place(number, copy);
}

std::int32_t TextEditor::index_of(std::int32_t number) const {
  const auto found = std::ranges::find(order_, number);
  return found == order_.end() ? -1 : static_cast<std::int32_t>(found - order_.begin());
}

std::vector<FaultSite> other_ends(const Ground& ground, const node::Instruction& instruction) {
  using node::Opcode;
  std::vector<FaultSite> ends;
  const Opcode opposite = instruction.opcode == Opcode::kSend ? Opcode::kReceive : Opcode::kSend;
  for_each_link(instruction, [&](std::int32_t link) {
    const node::LinkPeer peer = ground.binding().peers[static_cast<std::size_t>(link)];
    if (peer.chip < 0) {
      return;
    }
    const node::ChipBinding& binding = ground.program.bindings[static_cast<std::size_t>(peer.chip)];
    if (binding.text < 0) {
      return;
    }
    const auto& instructions = ground.program.texts[static_cast<std::size_t>(binding.text)].instructions;
    for (std::size_t i = 0; i < instructions.size(); ++i) {
      if (instructions[i].opcode == opposite && has_link(instructions[i], peer.link)) {
        ends.push_back({.chip = peer.chip, .cycle = -1, .instruction = static_cast<std::int32_t>(i)});
      }
    }
  });
  return ends;
}

std::string name_of(const TextView& view, std::int32_t number) {
  return "instruction " + std::to_string(number) + " (" + std::string(node::info(view.at(number).opcode).name) + ")";
}

}  // namespace lpu::scheduler
