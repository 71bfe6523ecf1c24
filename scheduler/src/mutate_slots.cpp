// Kinds that take a slot twice: unit, bank, stream; and too much fetched in one cycle.
//
// Where nothing of the program can be moved onto a taken slot without breaking another rule as well, a read is added:
// of a row that may be read in that cycle, to a stream register that is free, kept nowhere else. Nobody takes its
// value, so all that it breaks is what it was placed to break.

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <map>

#include "mutate_kinds.hpp"

namespace lpu::scheduler {
namespace {

using node::Direction;
using node::Hemisphere;
using node::Instruction;
using node::Opcode;
using node::OperandKind;
using node::Unit;

/// Places looked at before a kind gives up; only programs without any place need as many.
constexpr std::size_t kTries = 4000;

struct Readable {
  std::uint16_t tensor = 0;
  std::uint16_t base_register = 0;
  std::int64_t row = 0;
  std::int32_t address = 0;
};

/// Whether an instruction's base register leaves it on its slice.
[[nodiscard]] bool stays_on_slice(const TextView& view, const Instruction& instruction) {
  const node::RegisterKind kind = view.text().registers[instruction.base_register].kind;
  return kind == node::RegisterKind::kNone || kind == node::RegisterKind::kBuffer;
}

[[nodiscard]] Instruction make_read(const TextView& view,
                                    Hemisphere hemisphere,
                                    std::int32_t slice,
                                    std::int64_t cycle,
                                    const Readable& from,
                                    std::pair<Direction, std::int32_t> stream) {
  Instruction read;
  read.opcode = Opcode::kRead;
  read.hemisphere = hemisphere;
  read.index = static_cast<std::uint8_t>(slice);
  read.start = static_cast<std::int32_t>(cycle);
  read.address = static_cast<std::uint16_t>(from.address);
  read.base_register = from.base_register;
  node::StreamOperand& out = read.operands[0];
  out.kind = OperandKind::kOut;
  out.hemisphere = hemisphere;
  out.direction = stream.first;
  out.stream = static_cast<std::uint8_t>(stream.second);
  out.reach = static_cast<std::uint8_t>(view.chip().slice_position(slice));
  out.tensor = from.tensor;
  out.row = static_cast<std::int32_t>(from.row);
  return read;
}

/// A row of a bank of a slice that may be read in a cycle: written long enough ago and read again later, by accesses
/// with the same base register, which then takes all of them to another bank or none.
[[nodiscard]] std::optional<Readable> living_row(const TextView& view,
                                                 Hemisphere hemisphere,
                                                 std::int32_t slice,
                                                 std::int32_t bank,
                                                 std::int64_t cycle,
                                                 std::uint16_t base_register) {
  struct Life {
    std::int64_t written = std::numeric_limits<std::int64_t>::max();
    std::int64_t rewritten = std::numeric_limits<std::int64_t>::min();
    const Access* read = nullptr;
  };
  std::map<std::int32_t, Life> lives;
  for (const Access& access : view.accesses(hemisphere, slice)) {
    if (access.base_register != base_register || access.address % view.chip().banks_per_slice != bank ||
        view.text().tensors[access.tensor].scope != node::TensorScope::kIteration) {
      continue;
    }
    Life& life = lives[access.address];
    if (access.is_write) {
      life.written = std::min(life.written, access.cycle);
      life.rewritten = std::max(life.rewritten, access.cycle);
    } else if (access.is_whole && (life.read == nullptr || access.cycle > life.read->cycle)) {
      life.read = &access;
    }
  }
  for (const auto& [address, life] : lives) {
    const std::int64_t ready = life.rewritten + view.chip().instruction_propagation.count() + 1;
    if (life.written == life.rewritten && life.read != nullptr && ready <= cycle && cycle < life.read->cycle) {
      return Readable{
          .tensor = life.read->tensor, .base_register = base_register, .row = life.read->row, .address = address};
    }
  }
  return std::nullopt;
}

[[nodiscard]] Change insert_read(const Instruction& read,
                                 std::int64_t cycle,
                                 std::int32_t other,
                                 const std::string& why) {
  return [=](TextEditor& editor, Planted& planted) {
    const std::int32_t number = editor.insert(read);
    planted.site = {.chip = -1, .cycle = cycle, .instruction = editor.index_of(number)};
    planted.witnesses.push_back({.chip = -1, .cycle = cycle, .instruction = editor.index_of(other)});
    planted.description = "a read added: " + why;
  };
}

/// Two VXM bursts with a common cycle: the second goes to the first one's ALUs. Nothing else depends on ALU numbers.
[[nodiscard]] std::optional<Change> share_alus(const TextView& view, Draw& draw) {
  std::vector<std::pair<std::int64_t, std::int32_t>> issues;
  for (std::int32_t number = 0; number < view.size(); ++number) {
    if (view.unit(number) == Unit::kVxm && view.at(number).alus > 0) {
      for_each_instance(
          view.at(number), view.chip(), [&](const Instance& instance) { issues.emplace_back(instance.cycle, number); });
    }
  }
  std::ranges::sort(issues);
  std::vector<std::size_t> shared;
  for (std::size_t i = 1; i < issues.size(); ++i) {
    if (issues[i].first == issues[i - 1].first) {
      shared.push_back(i);
    }
  }
  if (shared.empty()) {
    return std::nullopt;
  }
  const std::size_t at = shared[draw.below(shared.size())];
  const std::int32_t kept = issues[at - 1].second;
  const std::int32_t moved = issues[at].second;
  Instruction edited = view.at(moved);
  edited.index = static_cast<std::uint8_t>(
      std::min<std::int32_t>(view.at(kept).index, view.chip().vxm_alus - std::int32_t{edited.alus}));
  // The first cycle that both issue in.
  std::int64_t cycle = issues[at].first;
  for (const std::size_t i : shared) {
    if (std::minmax(issues[i].second, issues[i - 1].second) == std::minmax(kept, moved)) {
      cycle = issues[i].first;
      break;
    }
  }
  const std::string why = name_of(view, moved) + " moved to ALU " + std::to_string(edited.index) + ", which " +
                          name_of(view, kept) + " takes in cycle " + std::to_string(cycle);
  return [=](TextEditor& editor, Planted& planted) {
    editor.replace(moved, edited);
    planted.site = {.chip = -1, .cycle = cycle, .instruction = editor.index_of(moved)};
    planted.witnesses.push_back({.chip = -1, .cycle = cycle, .instruction = editor.index_of(kept)});
    planted.description = why;
  };
}

/// The last access of a MEM instruction to its first slice: in its first cycle, a second access would also be a second
/// instruction that the slice's queue starts.
[[nodiscard]] const Access* last_access(const TextView& view, std::int32_t number) {
  const Instruction& instruction = view.at(number);
  const Access* last = nullptr;
  for (const Access& access : view.accesses(instruction.hemisphere, instruction.index)) {
    if (access.instruction == number && (last == nullptr || access.cycle > last->cycle)) {
      last = &access;
    }
  }
  return last;
}

/// A row that may be read beside an access, in its bank or in another one.
[[nodiscard]] std::optional<Readable> row_beside(const TextView& view, const Access& beside, bool same_bank) {
  const Instruction& instruction = view.at(beside.instruction);
  const std::int32_t banks = view.chip().banks_per_slice;
  const std::int32_t slice = instruction.index;
  const std::int32_t bank = (beside.address + (same_bank ? 0 : 1)) % banks;
  if (auto row = living_row(view, instruction.hemisphere, slice, bank, beside.cycle, beside.base_register)) {
    return row;
  }
  // A static row stays where it is: the access must stay in its bank too.
  std::uint32_t taken = 0;
  for (const Access& access : view.accesses(instruction.hemisphere, slice)) {
    taken |= access.instruction == beside.instruction && access.cycle == beside.cycle ? access.banks : 0U;
  }
  const auto row = view.static_row(instruction.hemisphere, slice, bank);
  if (!row || ((taken >> static_cast<unsigned>(bank) & 1U) != 0) != same_bank || std::popcount(taken) != 1) {
    return std::nullopt;
  }
  return Readable{.tensor = row->tensor, .base_register = 0, .row = row->row, .address = row->address};
}

/// A read of a row by the slice of an access and in its cycle, to a stream that is free.
[[nodiscard]] std::optional<Instruction> read_beside(const Ground& ground, const Access& beside, const Readable& row) {
  const TextView& view = ground.view;
  const Instruction& instruction = view.at(beside.instruction);
  const std::int32_t position = view.chip().slice_position(instruction.index);
  const auto stream = view.free_stream(instruction.hemisphere, position, beside.cycle, 1, {});
  if (!stream || beside.cycle < 0) {
    return std::nullopt;
  }
  const Instruction read = make_read(view, instruction.hemisphere, instruction.index, beside.cycle, row, *stream);
  return can_insert(ground, read) ? std::optional(read) : std::nullopt;
}

/// A read of a slice in a cycle in which a write has the same bank, or another read the port.
[[nodiscard]] std::optional<Change> second_access(const Ground& ground, Draw& draw, bool beside_write) {
  const TextView& view = ground.view;
  std::size_t tries = 0;
  for (const std::int32_t number : draw.round(view.size())) {
    const Instruction& instruction = view.at(number);
    if (instruction.opcode != (beside_write ? Opcode::kWrite : Opcode::kRead) || !stays_on_slice(view, instruction) ||
        ++tries > kTries) {
      continue;
    }
    const Access* beside = last_access(view, number);
    if (beside == nullptr) {
      continue;
    }
    const auto& others = view.accesses(instruction.hemisphere, instruction.index);
    const bool is_alone = std::ranges::all_of(others, [&](const Access& access) {
      return access.instruction == number || (access.cycle - beside->cycle) % view.interval() != 0;
    });
    const auto row = is_alone ? row_beside(view, *beside, beside_write) : std::nullopt;
    const auto read = row ? read_beside(ground, *beside, *row) : std::nullopt;
    if (read) {
      return insert_read(*read,
                         beside->cycle,
                         number,
                         "slice " + std::to_string(read->index) + ", address " + std::to_string(read->address) +
                             " in cycle " + std::to_string(read->start) + ", in which " + name_of(view, number) +
                             " has " + (beside_write ? "the bank" : "the read port"));
    }
  }
  return std::nullopt;
}

/// The row of an honest read, read a second time in the same cycle: same port, same bank.
[[nodiscard]] std::optional<Change> read_again(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  for (const std::int32_t number : draw.round(view.size())) {
    if (view.at(number).opcode != Opcode::kRead || !stays_on_slice(view, view.at(number))) {
      continue;
    }
    const Access* beside = last_access(view, number);
    if (beside == nullptr) {
      continue;
    }
    const Readable row{.tensor = beside->tensor,
                       .base_register = beside->base_register,
                       .row = beside->row,
                       .address = beside->address};
    if (const auto read = read_beside(ground, *beside, row)) {
      return insert_read(*read,
                         beside->cycle,
                         number,
                         "slice " + std::to_string(read->index) + " in cycle " + std::to_string(read->start) +
                             ", in which " + name_of(view, number) + " reads it");
    }
  }
  return std::nullopt;
}

std::optional<Change> find_unit(const Ground& ground, Draw& draw) {
  if (auto change = share_alus(ground.view, draw)) {
    return change;
  }
  auto change = second_access(ground, draw, false);
  return change ? change : read_again(ground, draw);
}

std::optional<Change> find_bank(const Ground& ground, Draw& draw) {
  auto change = second_access(ground, draw, true);
  return change ? change : read_again(ground, draw);
}

/// A value is kept on its stream until it runs into another one: the neighbour on the same diagonal.
[[nodiscard]] std::optional<Change> reach_too_far(const TextView& view, Draw& draw) {
  const std::vector<Flow>& flows = view.flows();
  const auto is_neighbour = [&](std::size_t i) {
    const Flow& a = flows[i - 1];
    const Flow& b = flows[i];
    return a.is_exact && b.is_exact && a.hemisphere == b.hemisphere && a.direction == b.direction &&
           a.stream == b.stream && a.diagonal == b.diagonal && a.instruction != b.instruction && a.high < b.low &&
           (a.tensor != b.tensor || a.row != b.row);
  };
  std::vector<std::size_t> places;
  for (std::size_t i = 1; i < flows.size(); ++i) {
    if (is_neighbour(i)) {
      places.push_back(i);
    }
  }
  if (places.empty()) {
    return std::nullopt;
  }
  const std::size_t at = places[draw.below(places.size())];
  const bool is_outward = flows[at].direction == Direction::kOutward;
  const Flow longer = is_outward ? flows[at - 1] : flows[at];
  const Flow hit = is_outward ? flows[at] : flows[at - 1];
  Instruction edited = view.at(longer.instruction);
  for (node::StreamOperand& operand : edited.operands) {
    const std::int32_t first = operand.stream;
    const std::int32_t sweep = (edited.count[2] - 1) * operand.stream_stride;
    if (operand.kind == OperandKind::kOut && operand.hemisphere == longer.hemisphere &&
        operand.direction == longer.direction && std::min(first, first + sweep) <= longer.stream &&
        longer.stream < std::max(first, first + sweep) + operand.streams) {
      operand.reach = static_cast<std::uint8_t>(hit.first_position());
      break;
    }
  }
  // The edit keeps every value of the burst that far: the first of them that runs into the same other one is seen.
  std::int64_t cycle = hit.cycle_at(hit.first_position());
  for (const std::size_t i : places) {
    const Flow& kept = is_outward ? flows[i - 1] : flows[i];
    const Flow& met = is_outward ? flows[i] : flows[i - 1];
    const bool is_reached = is_outward ? met.low <= hit.low : met.high >= hit.high;
    if (kept.instruction == longer.instruction && met.instruction == hit.instruction && is_reached) {
      cycle = std::min(cycle, met.cycle_at(met.first_position()));
    }
  }
  const std::string why = name_of(view, longer.instruction) + " kept on stream " + std::to_string(longer.stream) +
                          " up to position " + std::to_string(hit.first_position()) + ", where " +
                          name_of(view, hit.instruction) + " puts its own value in cycle " + std::to_string(cycle);
  return [=](TextEditor& editor, Planted& planted) {
    editor.replace(longer.instruction, edited);
    planted.site = {.chip = -1, .cycle = cycle, .instruction = editor.index_of(longer.instruction)};
    planted.witnesses.push_back({.chip = -1, .cycle = cycle, .instruction = editor.index_of(hit.instruction)});
    planted.description = why;
  };
}

/// A read by an idle slice, onto a place on which a value passes.
[[nodiscard]] std::optional<Change> read_into(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  const std::vector<Flow>& flows = view.flows();
  const std::int32_t a_position = view.chip().slices_per_position;
  std::size_t tries = 0;
  for (const std::int32_t at : draw.round(static_cast<std::int32_t>(flows.size()))) {
    const Flow& flow = flows[static_cast<std::size_t>(at)];
    if (++tries > kTries) {
      break;
    }
    if (!flow.is_exact) {
      continue;
    }
    for (std::int32_t slice = 0; slice < view.chip().slices_per_hemisphere; ++slice) {
      const std::int32_t position = 1 + slice / a_position;
      const std::int64_t cycle = flow.cycle_at(position);
      if (position < flow.low || position > flow.high || cycle < 0 || !view.is_idle(flow.hemisphere, slice, cycle, 1)) {
        continue;
      }
      const auto row = view.static_row(flow.hemisphere, slice, -1);
      if (!row || (row->tensor == flow.tensor && row->row == flow.row)) {
        continue;
      }
      const Readable from{.tensor = row->tensor, .base_register = 0, .row = row->row, .address = row->address};
      const Instruction read = make_read(view, flow.hemisphere, slice, cycle, from, {flow.direction, flow.stream});
      if (can_insert(ground, read)) {
        return insert_read(read,
                           cycle,
                           flow.instruction,
                           "stream " + std::to_string(flow.stream) + " at position " + std::to_string(position) +
                               " in cycle " + std::to_string(cycle) + ", where the value of " +
                               name_of(view, flow.instruction) + " stands");
      }
    }
  }
  return std::nullopt;
}

std::optional<Change> find_stream(const Ground& ground, Draw& draw) {
  const bool reach_first = draw.coin();
  auto change = reach_first ? reach_too_far(ground.view, draw) : read_into(ground, draw);
  if (!change) {
    change = reach_first ? read_into(ground, draw) : reach_too_far(ground.view, draw);
  }
  return change;
}

/// Shape of the reads that fill the fetch: 2^loops issues in consecutive cycles.
[[nodiscard]] Instruction loop_read(Instruction read, std::int32_t loops) {
  for (std::int32_t l = 0; l < loops; ++l) {
    read.count[l] = 2;
    read.period[l] = 1 << l;
  }
  return read;
}

/// For each slice, the cycles (modulo the interval) in which it does something.
[[nodiscard]] std::vector<std::vector<bool>> busy_slices(const TextView& view) {
  std::vector<std::vector<bool>> busy;
  for (const Hemisphere hemisphere : {Hemisphere::kWest, Hemisphere::kEast}) {
    for (std::int32_t slice = 0; slice < view.chip().slices_per_hemisphere; ++slice) {
      auto& cycles = busy.emplace_back(static_cast<std::size_t>(view.interval()), false);
      for (const Access& access : view.accesses(hemisphere, slice)) {
        cycles[static_cast<std::size_t>((access.cycle % view.interval() + view.interval()) % view.interval())] = true;
      }
    }
  }
  return busy;
}

/// Reads of idle slices that start in one cycle, each to a free stream.
[[nodiscard]] std::vector<Instruction> idle_reads(const TextView& view,
                                                  const std::vector<std::vector<bool>>& busy,
                                                  std::int64_t cycle,
                                                  std::int32_t loops,
                                                  std::size_t wanted) {
  const std::int64_t cycles = std::int64_t{1} << loops;
  const std::int32_t slices = view.chip().slices_per_hemisphere;
  std::vector<std::pair<Hemisphere, std::int32_t>> idle;
  for (std::size_t at = 0; at < busy.size(); ++at) {
    bool is_idle = true;
    for (std::int64_t c = cycle; c < cycle + cycles && is_idle; ++c) {
      is_idle = !busy[at][static_cast<std::size_t>(c % view.interval())];
    }
    const auto place = static_cast<std::int32_t>(at);
    if (is_idle) {
      idle.emplace_back(place < slices ? Hemisphere::kWest : Hemisphere::kEast, place % slices);
    }
  }
  std::vector<Instruction> reads;
  if (idle.size() < wanted) {
    return reads;
  }
  std::map<std::pair<Hemisphere, std::int32_t>, std::vector<std::pair<Direction, std::int32_t>>> taken;
  for (const auto& [hemisphere, slice] : idle) {
    const auto row = view.static_row(hemisphere, slice, -1);
    if (!row || reads.size() == wanted) {
      continue;
    }
    const std::int32_t position = view.chip().slice_position(slice);
    auto& streams = taken[{hemisphere, position}];
    if (const auto stream = view.free_stream(hemisphere, position, cycle, cycles, streams)) {
      streams.push_back(*stream);
      const Readable from{.tensor = row->tensor, .base_register = 0, .row = row->row, .address = row->address};
      reads.push_back(loop_read(make_read(view, hemisphere, slice, cycle, from, *stream), loops));
    }
  }
  return reads;
}

/// Whether so many bytes of program text more can be stored.
[[nodiscard]] bool can_store(const Ground& ground, std::int64_t bytes) {
  const node::ChipSpec& chip = ground.program.chip;
  const TextBudget budget = text_budget(chip, ground.view.text());
  const std::int64_t missing = budget.used + bytes - budget.held;
  return !budget.is_counted || missing <= 0 ||
         find_free_rows(
             ground.program, ground.view.text(), static_cast<std::int32_t>(node::ceil_div(missing, chip.vector_bytes)))
             .has_value();
}

[[nodiscard]] Change insert_reads(const std::vector<Instruction>& reads, std::int32_t cycle, std::int64_t bytes) {
  return [=](TextEditor& editor, Planted& planted) {
    editor.reserve(bytes);
    std::int32_t last = -1;
    for (const Instruction& read : reads) {
      last = editor.insert(read);
    }
    planted.site = {.chip = -1, .cycle = cycle, .instruction = editor.index_of(last)};
    for (std::size_t i = 0; i < editor.text().instructions.size(); ++i) {
      if (editor.text().instructions[i].start == cycle) {
        planted.witnesses.push_back({.chip = -1, .cycle = cycle, .instruction = static_cast<std::int32_t>(i)});
      }
    }
    planted.description =
        std::to_string(reads.size()) + " reads added that are fetched in cycle " + std::to_string(cycle);
  };
}

/// So many legal reads by idle slices in one cycle that their fetch is more than a cycle's.
std::optional<Change> find_fetch(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  const node::ChipSpec& chip = view.chip();
  const auto busy = busy_slices(view);
  std::size_t tries = 0;
  for (const std::int32_t loops : {3, 2}) {
    const std::int64_t bytes =
        std::max<std::int64_t>(chip.instruction_bytes + std::int64_t{loops} * chip.loop_bytes, 1);
    for (const std::int32_t cycle : draw.round(std::max(view.text().makespan - 8, 0))) {
      const std::int64_t room = chip.fetch_bytes_per_cycle - view.fetched(cycle, 0);
      const auto wanted = static_cast<std::size_t>(std::max<std::int64_t>(room, 0) / bytes + 1);
      const std::vector<Instruction> reads = idle_reads(view, busy, cycle, loops, wanted);
      const std::int64_t total = bytes * static_cast<std::int64_t>(wanted);
      if (reads.size() == wanted && can_store(ground, total)) {
        return insert_reads(reads, cycle, total);
      }
      tries += reads.empty() ? 0U : 1U;
      if (tries > kTries / 40) {
        return std::nullopt;
      }
    }
  }
  return std::nullopt;
}

constexpr std::array<TextKind, 4> kKinds{{
    {{"unit-twice", "a unit does two things in one cycle"}, find_unit},
    {{"bank-twice", "a bank has two accesses in one cycle"}, find_bank},
    {{"stream-twice", "two values in one stream register in one cycle"}, find_stream},
    {{"fetch-over-budget", "more instructions fetched in one cycle than the chip can"}, find_fetch},
}};

}  // namespace

std::span<const TextKind> slot_kinds() {
  return kKinds;
}

}  // namespace lpu::scheduler
