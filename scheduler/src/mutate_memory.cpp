// Kinds that break what memory holds: addresses, lifetimes, registers, the budget of the program text.

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <tuple>

#include "mutate_kinds.hpp"

namespace lpu::scheduler {
namespace {

using node::Allocation;
using node::Instruction;
using node::Opcode;
using node::RegisterKind;
using node::Unit;

using Span = std::pair<std::int32_t, std::int32_t>;  // lowest, highest

template <typename Count, typename Stride>
[[nodiscard]] Span span_of(std::int32_t base, const Count (&count)[3], const Stride (&stride)[3]) {
  Span span{base, base};
  for (std::size_t l = 0; l < 3; ++l) {
    const std::int32_t move = (std::int32_t{count[l]} - 1) * stride[l];
    (move < 0 ? span.first : span.second) += move;
  }
  return span;
}

/// Lowest and highest address of a tensor's allocations in one hemisphere, of any register.
[[nodiscard]] Span address_box(const node::ChipProgram& text, std::uint16_t tensor, node::Hemisphere hemisphere) {
  Span box{std::numeric_limits<std::int32_t>::max(), std::numeric_limits<std::int32_t>::min()};
  for (const Allocation& allocation : text.allocations) {
    if (allocation.tensor == tensor && allocation.hemisphere == hemisphere) {
      const Span span = span_of(allocation.address, allocation.count, allocation.address_stride);
      box = {std::min(box.first, span.first), std::max(box.second, span.second)};
    }
  }
  return box;
}

/// Highest address that a register adds to one.
[[nodiscard]] std::int32_t highest_shift(const ClusterProgram& program, const node::BaseRegister& base) {
  std::int32_t highest = 0;
  for (const node::Displacement& displacement : node::all_displacements(base, program.plan.context)) {
    highest = std::max<std::int32_t>(highest, displacement.address);
  }
  return highest;
}

[[nodiscard]] Change replace_with(std::int32_t number,
                                  const Instruction& edited,
                                  std::int64_t cycle,
                                  const std::string& why) {
  return [=](TextEditor& editor, Planted& planted) {
    editor.replace(number, edited);
    planted.site = {.chip = -1, .cycle = cycle, .instruction = editor.index_of(number)};
    planted.description = why;
  };
}

/// A read goes past the last address, or before the first, of everything that its tensor has in the hemisphere; the
/// bank stays. Every instance is then outside.
std::optional<Change> find_outside(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  const std::int32_t addresses = view.chip().vectors_per_slice;
  const std::int32_t banks = view.chip().banks_per_slice;
  for (const std::int32_t number : draw.round(view.size())) {
    Instruction edited = view.at(number);
    if (edited.opcode != Opcode::kRead || view.text().registers[edited.base_register].kind == RegisterKind::kToken) {
      continue;
    }
    const Span box = address_box(view.text(), edited.operands[0].tensor, edited.hemisphere);
    const Span span = span_of(edited.address, edited.count, edited.address_stride);
    if (box.second < box.first) {
      continue;
    }
    // By whole banks, so that the lowest instance lies above the box, or the highest below it.
    const std::int32_t up = (box.second - span.first) / banks * banks + banks;
    const std::int32_t down = (span.second - box.first) / banks * banks + banks;
    const std::int32_t shift = highest_shift(ground.program, view.text().registers[edited.base_register]);
    std::int32_t move = 0;
    if (span.second + up + shift < addresses) {
      move = up;
    } else if (span.first - down >= 0) {
      move = -down;
    } else {
      continue;
    }
    const std::string why = name_of(view, number) + " moved from address " + std::to_string(edited.address) + " to " +
                            std::to_string(edited.address + move) + ", outside of '" +
                            view.text().tensors[edited.operands[0].tensor].name + "'";
    edited.address = static_cast<std::uint16_t>(edited.address + move);
    return replace_with(number, edited, edited.start, why);
  }
  return std::nullopt;
}

/// A row of an iteration: written once, read later, by accesses with one base register.
struct Life {
  std::uint16_t tensor = 0;
  std::int64_t row = 0;
  std::int64_t written = std::numeric_limits<std::int64_t>::max();
  std::int64_t rewritten = std::numeric_limits<std::int64_t>::min();
  std::vector<std::pair<std::int64_t, std::int32_t>> reads;  ///< cycle, instruction
};
using Lives = std::map<std::pair<std::uint16_t, std::int32_t>, Life>;  // by register and address

[[nodiscard]] Lives lives_of(const TextView& view, node::Hemisphere hemisphere, std::int32_t slice) {
  Lives lives;
  for (const Access& access : view.accesses(hemisphere, slice)) {
    const RegisterKind kind = view.text().registers[access.base_register].kind;
    if (view.text().tensors[access.tensor].scope != node::TensorScope::kIteration || !access.is_whole ||
        (kind != RegisterKind::kNone && kind != RegisterKind::kBuffer)) {
      continue;
    }
    Life& life = lives[{access.base_register, access.address}];
    if (access.is_write) {
      life.written = std::min(life.written, access.cycle);
      life.rewritten = std::max(life.rewritten, access.cycle);
    } else {
      life.tensor = access.tensor;
      life.row = access.row;
      life.reads.emplace_back(access.cycle, access.instruction);
    }
  }
  return lives;
}

/// Where a value that a write takes can be written a second time, by a slice that it passes on its way.
struct Passing {
  std::int32_t slice = 0;
  std::int64_t cycle = 0;
};

[[nodiscard]] std::vector<Passing> passing_slices(const TextView& view, const Instruction& write, const Flow& flow) {
  std::vector<Passing> out;
  for (std::int32_t slice = 0; slice < view.chip().slices_per_hemisphere; ++slice) {
    const std::int32_t position = view.chip().slice_position(slice);
    if (slice != write.index && flow.low <= position && position <= flow.high && flow.cycle_at(position) >= 0) {
      out.push_back({.slice = slice, .cycle = flow.cycle_at(position)});
    }
  }
  return out;
}

/// A row that is live on a slice while the value passes, and the first instruction that would read it afterwards.
struct LivePlace {
  std::uint16_t base_register = 0;
  std::int32_t address = 0;
  FaultSite reader;
};

[[nodiscard]] FaultSite next_reader(const Life& life, std::int64_t after) {
  FaultSite reader{.chip = -1, .cycle = std::numeric_limits<std::int64_t>::max(), .instruction = -1};
  for (const auto& [cycle, number] : life.reads) {
    if (cycle > after && cycle < reader.cycle) {
      reader = {.chip = -1, .cycle = cycle, .instruction = number};
    }
  }
  return reader;
}

[[nodiscard]] std::optional<LivePlace> live_place(const TextView& view,
                                                  const Instruction& write,
                                                  const Passing& passing) {
  const std::int64_t n = view.chip().instruction_propagation.count();
  const auto is_free = [&](std::int32_t address) {
    const auto bank = static_cast<unsigned>(address % view.chip().banks_per_slice);
    return std::ranges::none_of(view.accesses(write.hemisphere, passing.slice), [&](const Access& access) {
      return (access.cycle - passing.cycle) % view.interval() == 0 &&
             (access.is_write || (access.banks >> bank & 1U) != 0);
    });
  };
  for (const auto& [place, life] : lives_of(view, write.hemisphere, passing.slice)) {
    const bool is_other = life.tensor != write.operands[0].tensor || life.row != write.operands[0].row;
    if (life.written != life.rewritten || life.written + n >= passing.cycle || !is_other || !is_free(place.second)) {
      continue;
    }
    const FaultSite reader = next_reader(life, passing.cycle);
    if (reader.instruction >= 0) {
      return LivePlace{.base_register = place.first, .address = place.second, .reader = reader};
    }
  }
  return std::nullopt;
}

/// The first vector of a write, written by another slice into another row.
[[nodiscard]] Instruction second_write(const Instruction& write, const Passing& passing, const LivePlace& place) {
  Instruction second = write;
  second.index = static_cast<std::uint8_t>(passing.slice);
  second.start = static_cast<std::int32_t>(passing.cycle);
  second.address = static_cast<std::uint16_t>(place.address);
  second.base_register = place.base_register;
  for (std::size_t l = 0; l < 3; ++l) {
    second.count[l] = 1;
    second.period[l] = 0;
    second.index_stride[l] = 0;
    second.address_stride[l] = 0;
    second.operands[0].row_stride[l] = 0;
  }
  second.operands[0].stream_stride = 0;
  second.operands[0].held = 0;
  return second;
}

[[nodiscard]] Change write_over(const Instruction& second, const FaultSite& reader) {
  Allocation home;
  home.tensor = second.operands[0].tensor;
  home.hemisphere = second.hemisphere;
  home.base_register = second.base_register;
  home.row = second.operands[0].row;
  home.slice = second.index;
  home.address = second.address;
  return [=](TextEditor& editor, Planted& planted) {
    const std::int32_t added = editor.insert(second);
    editor.text().allocations.push_back(home);
    planted.site = {.chip = -1, .cycle = second.start, .instruction = editor.index_of(added)};
    planted.witnesses.push_back(
        {.chip = -1, .cycle = reader.cycle, .instruction = editor.index_of(reader.instruction)});
    planted.description = "a write added: slice " + std::to_string(second.index) + ", address " +
                          std::to_string(second.address) + " in cycle " + std::to_string(second.start) +
                          ", whose row is read in cycle " + std::to_string(reader.cycle);
  };
}

/// Whether a write is of an iteration's whole rows, in one slice whatever its register adds.
[[nodiscard]] bool is_plain_write(const TextView& view, const Instruction& write) {
  const RegisterKind kind = view.text().registers[write.base_register].kind;
  return write.opcode == Opcode::kWrite && (write.mode & node::kWriteMasked) == 0 &&
         (kind == RegisterKind::kNone || kind == RegisterKind::kBuffer) &&
         view.text().tensors[write.operands[0].tensor].scope == node::TensorScope::kIteration;
}

/// A value is also written where another one is still needed, into an allocation of its own: all that is wrong is that
/// the two lie in one row at the same time.
std::optional<Change> find_overwritten(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  for (const std::int32_t number : draw.round(view.size())) {
    const Instruction& write = view.at(number);
    if (!is_plain_write(view, write)) {
      continue;
    }
    const node::StreamOperand& operand = write.operands[0];
    const std::int32_t position = view.chip().slice_position(write.index);
    const auto standing =
        view.standing(operand.hemisphere, operand.direction, operand.stream, position, write.start, 0);
    if (standing.size() != 1 || !standing.front().is_exact) {
      continue;
    }
    for (const Passing& passing : passing_slices(view, write, standing.front())) {
      if (const auto place = live_place(view, write, passing)) {
        const Instruction second = second_write(write, passing, *place);
        if (can_insert(ground, second)) {
          return write_over(second, place->reader);
        }
      }
    }
  }
  return std::nullopt;
}

/// Reads of two expert slots exchange their base registers; who takes the values still names its own slot's. Slots
/// never hold the same expert.
std::optional<Change> find_experts(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  const auto base_of = [&](const Instruction& instruction) -> const node::BaseRegister& {
    return view.text().registers[instruction.base_register];
  };
  const auto is_expert_read = [&](const Instruction& instruction) {
    return instruction.opcode == Opcode::kRead && instruction.operands[0].is_registered != 0 &&
           base_of(instruction).kind == RegisterKind::kExpert && base_of(instruction).row_stride != 0;
  };
  const auto are_alike = [&](const Instruction& a, const Instruction& b) {
    const node::BaseRegister& x = base_of(a);
    const node::BaseRegister& y = base_of(b);
    return a.operands[0].tensor == b.operands[0].tensor && x.layer_slot == y.layer_slot && x.stride == y.stride &&
           x.row_stride == y.row_stride && x.expert_slot != y.expert_slot && a.hemisphere == b.hemisphere;
  };
  for (const std::int32_t number : draw.round(view.size())) {
    if (!is_expert_read(view.at(number))) {
      continue;
    }
    for (const std::int32_t other : draw.round(view.size())) {
      if (!is_expert_read(view.at(other)) || !are_alike(view.at(number), view.at(other))) {
        continue;
      }
      Instruction a = view.at(number);
      Instruction b = view.at(other);
      std::swap(a.base_register, b.base_register);
      std::vector<std::pair<std::int32_t, std::int64_t>> takers = view.consumers(number);
      for (const auto& taker : view.consumers(other)) {
        takers.push_back(taker);
      }
      const std::string why = name_of(view, number) + " and " + name_of(view, other) +
                              " with each other's expert slot, " + std::to_string(base_of(b).expert_slot) + " and " +
                              std::to_string(base_of(a).expert_slot);
      return [=](TextEditor& editor, Planted& planted) {
        editor.replace(number, a);
        editor.replace(other, b);
        planted.site = {.chip = -1, .cycle = a.start, .instruction = editor.index_of(number)};
        planted.witnesses.push_back({.chip = -1, .cycle = b.start, .instruction = editor.index_of(other)});
        for (const auto& [taker, cycle] : takers) {
          planted.witnesses.push_back({.chip = -1, .cycle = cycle, .instruction = editor.index_of(taker)});
        }
        planted.description = why;
      };
    }
  }
  return std::nullopt;
}

/// Cycle in which a burst's last instance issues.
[[nodiscard]] std::int64_t last_issue(const Instruction& burst) {
  std::int64_t cycle = burst.start;
  for (std::size_t loop = 0; loop < 3; ++loop) {
    cycle += std::int64_t{burst.count[loop] - 1} * burst.period[loop];
  }
  return cycle;
}

/// Every instance of the burst is at fault, so that any of them may be what is seen.
[[nodiscard]] FaultSite whole_burst(const Instruction& burst, std::int32_t instruction) {
  return {.chip = -1, .cycle = burst.start, .last_cycle = last_issue(burst), .instruction = instruction};
}

/// A read of a user's cache through the register of another user of the micro-batch. The row is the other user's, and
/// what takes it names its own.
[[nodiscard]] std::optional<Change> read_other_user(const TextView& view, std::int32_t number) {
  Instruction edited = view.at(number);
  const std::vector<node::BaseRegister>& registers = view.text().registers;
  const node::BaseRegister& own = registers[edited.base_register];
  const auto other = std::ranges::find_if(registers, [&](const node::BaseRegister& base) {
    return base.kind == RegisterKind::kUser && base.user_in_batch != own.user_in_batch;
  });
  if (edited.opcode != Opcode::kRead || own.kind != RegisterKind::kUser || other == registers.end()) {
    return std::nullopt;
  }
  edited.base_register = static_cast<std::uint16_t>(other - registers.begin());
  const std::string why = name_of(view, number) + " of user " + std::to_string(other->user_in_batch) +
                          "'s cache instead of user " + std::to_string(own.user_in_batch) + "'s";
  std::vector<std::pair<std::int32_t, Instruction>> takers;
  for (const auto& [taker, cycle] : view.consumers(number)) {
    takers.emplace_back(taker, view.at(taker));
  }
  return [=](TextEditor& editor, Planted& planted) {
    editor.replace(number, edited);
    planted.site = whole_burst(edited, editor.index_of(number));
    for (const auto& [taker, burst] : takers) {
      planted.witnesses.push_back(whole_burst(burst, editor.index_of(taker)));
    }
    planted.description = why;
  };
}

/// An access of a user's cache goes to another row of the bank, or to another user's. A row of a tensor lies in one
/// place of an allocation, so the row that the operand names is not there.
std::optional<Change> find_cache(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  const std::int32_t banks = view.chip().banks_per_slice;
  for (const std::int32_t number : draw.round(view.size())) {
    Instruction edited = view.at(number);
    const node::BaseRegister& base = view.text().registers[edited.base_register];
    const bool is_append = base.kind == RegisterKind::kAppend;
    if (view.unit(number) != Unit::kMem || !(is_append || base.kind == RegisterKind::kUser) ||
        (!is_append && view.text().tensors[edited.operands[0].tensor].scope != node::TensorScope::kCache)) {
      continue;
    }
    if (draw.coin()) {
      if (auto change = read_other_user(view, number)) {
        return change;
      }
    }
    const Span span = span_of(edited.address, edited.count, edited.address_stride);
    const std::int32_t highest = span.second + highest_shift(ground.program, base);
    if (span.first < banks && highest + banks >= view.chip().vectors_per_slice) {
      continue;
    }
    const std::int32_t move = highest + banks < view.chip().vectors_per_slice ? banks : -banks;
    const std::string why = name_of(view, number) + " moved from address " + std::to_string(edited.address) + " to " +
                            std::to_string(edited.address + move) + " of the user's cache";
    edited.address = static_cast<std::uint16_t>(edited.address + move);
    return [=](TextEditor& editor, Planted& planted) {
      editor.replace(number, edited);
      planted.site = whole_burst(edited, editor.index_of(number));
      planted.description = why;
    };
  }
  return std::nullopt;
}

/// The allocation of the program text loses rows until it is one short.
std::optional<Change> find_text(const Ground& ground, Draw& /*draw*/) {
  const node::ChipSpec& chip = ground.program.chip;
  const TextBudget budget = text_budget(chip, ground.view.text());
  if (!budget.is_counted || budget.used == 0 || budget.held < budget.used) {
    return std::nullopt;
  }
  const std::int64_t spare = (budget.held - budget.used) / chip.vector_bytes + 1;
  return [=](TextEditor& editor, Planted& planted) {
    node::ChipProgram& text = editor.text();
    std::int64_t missing = spare;
    for (std::size_t i = text.allocations.size(); i-- > 0 && missing > 0;) {
      Allocation& allocation = text.allocations[i];
      if (allocation.tensor != budget.tensor) {
        continue;
      }
      const std::int64_t rows = std::int64_t{allocation.count[0]} * allocation.count[1] * allocation.count[2];
      std::int32_t& count = *std::ranges::max_element(allocation.count);
      const auto turns = static_cast<std::int32_t>(node::ceil_div(missing, rows / count));
      if (turns >= count) {
        missing -= rows;
        text.allocations.erase(text.allocations.begin() + static_cast<std::ptrdiff_t>(i));
      } else {
        missing -= turns * (rows / count);
        count -= turns;
      }
    }
    const TextBudget after = text_budget(chip, text);
    text.tensors[budget.tensor].rows = static_cast<std::int32_t>(after.held / chip.vector_bytes);
    planted.site = {};
    planted.description = "program text of " + std::to_string(budget.used) + " bytes in rows for " +
                          std::to_string(after.held) + " bytes";
  };
}

constexpr std::array<TextKind, 5> kKinds{{
    {{"address-outside", "a read leaves the allocation of its tensor"}, find_outside},
    {{"live-data-overwritten", "a row is overwritten before its last reader"}, find_overwritten},
    {{"experts-swapped", "two expert slots read each other's expert"}, find_experts},
    {{"wrong-kv-address", "a user's cache is read or written at another row, or another user's is read"}, find_cache},
    {{"text-over-budget", "the program text does not fit into its allocation"}, find_text},
}};

}  // namespace

std::span<const TextKind> memory_kinds() {
  return kKinds;
}

}  // namespace lpu::scheduler
