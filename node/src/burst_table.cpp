#include "lpu/node/burst_table.hpp"

#include <algorithm>
#include <string>
#include <tuple>

#include "instances.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"
#include "readiness.hpp"

namespace lpu::node {
namespace {

constexpr std::uint64_t to_word(std::int64_t x) {
  return static_cast<std::uint64_t>(x);
}

std::int64_t last_issue(const Instruction& instruction, const ChipSpec& chip) {
  const bool is_memory = instruction.opcode == Opcode::kRead || instruction.opcode == Opcode::kWrite;
  std::int64_t last = instruction.start;
  Instruction moving = instruction;
  for (std::size_t l = 0; l < 3; ++l) {
    if (instruction.index_stride[l] == 0 || !is_memory) {
      last += std::int64_t{instruction.count[l] - 1} * instruction.period[l];
      moving.count[l] = 1;
    }
  }
  // Loops over slices may issue their last instance anywhere.
  moving.start = static_cast<std::int32_t>(last);
  for_each_instance(
      moving, [&](const LoopIndex& at) { last = std::max(last, issue_cycle(moving, at, unit_of(moving, at), chip)); });
  return last;
}

std::uint64_t operand_word(const StreamOperand& operand) {
  std::uint64_t word = to_word(static_cast<std::int64_t>(operand.kind));
  word = word << 8U | static_cast<std::uint64_t>(operand.hemisphere);
  word = word << 8U | static_cast<std::uint64_t>(operand.direction);
  word = word << 8U | operand.stream;
  word = word << 8U | operand.streams;
  word = word << 8U | static_cast<std::uint8_t>(operand.stream_stride);
  word = word << 8U | operand.reach;
  word = word << 8U | static_cast<std::uint64_t>(operand.held << 1U | operand.is_registered);
  std::uint64_t strides = 0;
  for (const std::int16_t stride : operand.row_stride) {
    strides = strides << 16U | static_cast<std::uint16_t>(stride);
  }
  return mix(mix(mix(word) ^ strides) ^ to_word(operand.row));
}

/// All of an instruction but its start, its tensors and its transfer, which differ in number from text to text.
std::uint64_t static_word(const Instruction& instruction) {
  std::uint64_t word = to_word(static_cast<std::int64_t>(instruction.opcode));
  word = word << 8U | static_cast<std::uint64_t>(instruction.hemisphere);
  word = word << 8U | instruction.index;
  word = word << 8U | instruction.alus;
  word = word << 8U | instruction.mode;
  word = word << 16U | instruction.address;
  std::uint64_t digest = mix(word);
  for (std::size_t l = 0; l < 3; ++l) {
    word = to_word(instruction.period[l]) << 32U;
    word |= std::uint64_t{instruction.count[l]} << 16U | static_cast<std::uint16_t>(instruction.address_stride[l]);
    digest = mix(digest ^ word) + static_cast<std::uint8_t>(instruction.index_stride[l]);
  }
  digest = mix(digest ^ to_word(instruction.argument));
  for (const StreamOperand& operand : instruction.operands) {
    if (operand.kind != OperandKind::kNone) {
      digest = fold(digest, operand_word(operand));
    }
  }
  return digest;
}

UnitCycles cycles_of(const Instruction& instruction) {
  const std::int64_t count = instances(instruction);
  const Opcode opcode = instruction.opcode;
  switch (info(opcode).unit) {
    case Unit::kMem:
      return opcode == Opcode::kRead ? UnitCycles{.reads = count} : UnitCycles{.writes = count};
    case Unit::kMxm:
      return opcode == Opcode::kInstall   ? UnitCycles{.installs = count}
             : opcode == Opcode::kCompute ? UnitCycles{.computes = count}
                                          : UnitCycles{.drains = count};
    case Unit::kVxm:
      return {.alus = count * instruction.alus};
    case Unit::kSxm:
      return {.sxm = count};
    case Unit::kC2c:
      return opcode == Opcode::kSend ? UnitCycles{.sends = count} : UnitCycles{.receives = count};
  }
  return {};
}

/// Every operand names rows that its tensor has.
void check_rows(const ChipProgram& program, std::int32_t chip_id) {
  for (std::size_t at = 0; at < program.instructions.size(); ++at) {
    const Instruction& instruction = program.instructions[at];
    for (const StreamOperand& operand : instruction.operands) {
      if (operand.kind == OperandKind::kNone) {
        continue;
      }
      std::int64_t low = operand.row;
      std::int64_t high = operand.row + (operand.kind == OperandKind::kResident ? 0 : operand.streams - 1);
      for (std::size_t l = 0; l < 3; ++l) {
        const std::int64_t far = std::int64_t{instruction.count[l] - 1} * operand.row_stride[l];
        (far < 0 ? low : high) += far;
      }
      const Tensor& tensor = program.tensors[operand.tensor];
      if (low < 0 || high >= tensor.rows) {
        throw ScheduleViolation({.chip = chip_id,
                                 .cycle = instruction.start,
                                 .instruction = static_cast<std::int32_t>(at),
                                 .reason = "names rows " + std::to_string(low) + " to " + std::to_string(high) +
                                           " of '" + tensor.name + "', which has " + std::to_string(tensor.rows)});
      }
    }
  }
}

}  // namespace

UnitCycles& UnitCycles::operator+=(const UnitCycles& other) {
  installs += other.installs;
  computes += other.computes;
  drains += other.drains;
  alus += other.alus;
  sxm += other.sxm;
  reads += other.reads;
  writes += other.writes;
  sends += other.sends;
  receives += other.receives;
  return *this;
}

std::int64_t effect_end(const Instruction& instruction, const ChipSpec& chip) {
  const std::int64_t last = last_issue(instruction, chip);
  if (instruction.opcode == Opcode::kWrite) {
    return last + chip.instruction_propagation.count() + 1;
  }
  return last + latency(instruction.opcode, chip).count() + 1;
}

std::int32_t user_in_batch(const ChipProgram& program, const Instruction& instruction) {
  const BaseRegister& base = program.registers[instruction.base_register];
  switch (base.kind) {
    case RegisterKind::kUser:
    case RegisterKind::kAppend:
    case RegisterKind::kToken:
      return base.user_in_batch;
    case RegisterKind::kNone:
    case RegisterKind::kBuffer:
    case RegisterKind::kExpert:
    case RegisterKind::kPosition:
      return 0;
  }
  return 0;
}

BurstTable::BurstTable(const ChipProgram& program, const ChipSpec& chip, std::int32_t chip_id)
    : program_(&program), chip_(&chip) {
  check_rows(program, chip_id);
  collect_bases();
  events_.reserve(program.instructions.size() + program.instructions.size() / 8);
  for (std::size_t at = 0; at < program.instructions.size(); ++at) {
    add_events(static_cast<std::int32_t>(at));
    effect_end_ = std::max(effect_end_, node::effect_end(program.instructions[at], chip));
  }
  std::sort(events_.begin(), events_.end(), [](const BurstEvent& a, const BurstEvent& b) {
    return std::tie(a.cycle, a.unit, a.moment, a.instruction) < std::tie(b.cycle, b.unit, b.moment, b.instruction);
  });
  check_transfers(chip_id);
  counters_ = check_readiness(program, chip, chip_id, events_);
}

std::span<const WirePart> BurstTable::parts(const WireBurst& burst) const {
  return std::span(parts_).subspan(static_cast<std::size_t>(burst.first_part), static_cast<std::size_t>(burst.parts));
}

std::span<const WireVector> BurstTable::vectors(const WirePart& part) const {
  return std::span(vectors_).subspan(static_cast<std::size_t>(part.first), static_cast<std::size_t>(part.count));
}

namespace {

std::uint64_t row_in_part(const Tensor& tensor, std::int64_t row) {
  return to_word(tensor.owner == TensorOwner::kGathered ? row % tensor.rows_per_slot : row);
}

}  // namespace

void BurstTable::collect_bases() {
  std::int32_t users = 1;
  for (const BaseRegister& base : program_->registers) {
    users = std::max(users, base.user_in_batch + 1);
  }
  // Every (slot, user) that a tensor could have gets a number; those that are used get an entry.
  std::int32_t numbers = 0;
  for (const Tensor& tensor : program_->tensors) {
    const std::int32_t slots = tensor.owner == TensorOwner::kGathered
                                   ? static_cast<std::int32_t>(ceil_div(tensor.rows, tensor.rows_per_slot))
                                   : 1;
    const std::int32_t users_of_tensor = tensor.scope == TensorScope::kCache ? users : 1;
    numbering_.push_back({.first = numbers, .users = users_of_tensor});
    numbers += slots * users_of_tensor;
  }
  const std::vector<bool> is_used = used_numbers(numbers);
  base_of_.assign(is_used.size(), 0);
  bases_.assign(1, {});
  for (const TensorScope scope : {TensorScope::kIteration, TensorScope::kCache, TensorScope::kStatic}) {
    first_cache_base_ = scope == TensorScope::kCache ? bases_.size() : first_cache_base_;
    first_static_base_ = scope == TensorScope::kStatic ? bases_.size() : first_static_base_;
    for (std::size_t tensor = 0; tensor < program_->tensors.size(); ++tensor) {
      if (program_->tensors[tensor].scope == scope) {
        add_bases(static_cast<std::uint16_t>(tensor), is_used);
      }
    }
  }
  LPU_CHECK(bases_.size() < 65536, "value bases of one text");
}

std::vector<bool> BurstTable::used_numbers(std::int32_t numbers) const {
  std::vector<bool> is_used(static_cast<std::size_t>(numbers), false);
  for (const Instruction& instruction : program_->instructions) {
    const bool is_wire = info(instruction.opcode).unit == Unit::kC2c;
    for (const StreamOperand& operand : instruction.operands) {
      if (operand.kind == OperandKind::kNone) {
        continue;
      }
      is_used[number_of(instruction, operand, operand.row)] = true;
      if (is_wire && program_->tensors[operand.tensor].owner == TensorOwner::kGathered) {
        for_each_instance(instruction, [&](const LoopIndex& at) {
          is_used[number_of(instruction, operand, affine(operand.row, operand.row_stride, at))] = true;
        });
      }
    }
  }
  return is_used;
}

void BurstTable::add_bases(std::uint16_t tensor, const std::vector<bool>& is_used) {
  const std::uint64_t name = digest_text(program_->tensors[tensor].name);
  const auto end = tensor + std::size_t{1} < numbering_.size()
                       ? static_cast<std::size_t>(numbering_[tensor + std::size_t{1}].first)
                       : is_used.size();
  const auto first = static_cast<std::size_t>(numbering_[tensor].first);
  for (std::size_t at = first; at < end; ++at) {
    if (is_used[at]) {
      const auto within = static_cast<std::int32_t>(at - first);
      base_of_[at] = static_cast<std::uint16_t>(bases_.size());
      bases_.push_back({.tensor = tensor,
                        .slot = within / numbering_[tensor].users,
                        .user_in_batch = within % numbering_[tensor].users,
                        .name = name});
    }
  }
}

std::size_t BurstTable::number_of(const Instruction& instruction,
                                  const StreamOperand& operand,
                                  std::int64_t row) const {
  const Tensor& tensor = program_->tensors[operand.tensor];
  const Numbering& numbering = numbering_[operand.tensor];
  std::int64_t number = numbering.first;
  if (tensor.owner == TensorOwner::kGathered) {
    number += row / tensor.rows_per_slot * numbering.users;
  }
  if (tensor.scope == TensorScope::kCache && operand.is_registered != 0) {
    number += user_in_batch(*program_, instruction);
  }
  return static_cast<std::size_t>(number);
}

void BurstTable::add_events(std::int32_t at) {
  const Instruction& instruction = program_->instructions[static_cast<std::size_t>(at)];
  const Unit unit = info(instruction.opcode).unit;
  BurstEvent event;
  event.word = static_word(instruction);
  event.cycle = instruction.start;
  event.instruction = at;
  event.base_register = instruction.base_register;
  event.unit = static_cast<std::uint8_t>(unit);
  for (std::size_t o = 0; o < instruction.operands.size(); ++o) {
    const StreamOperand& operand = instruction.operands[o];
    if (operand.kind != OperandKind::kNone) {
      event.bases[o] = base_of_[number_of(instruction, operand, operand.row)];
    }
  }
  unit_cycles_ += cycles_of(instruction);
  if (unit == Unit::kC2c) {
    add_wire(at, event);
    return;
  }
  events_.push_back(event);
}

void BurstTable::add_wire(std::int32_t at, const BurstEvent& first) {
  const Instruction& instruction = program_->instructions[static_cast<std::size_t>(at)];
  const StreamOperand& operand = instruction.operands[0];
  const Tensor& tensor = program_->tensors[operand.tensor];
  std::vector<std::pair<std::int32_t, WireVector>> by_link;
  by_link.reserve(static_cast<std::size_t>(instances(instruction)));
  for_each_instance(instruction, [&](const LoopIndex& i) {
    const std::int64_t row = affine(operand.row, operand.row_stride, i);
    by_link.emplace_back(
        static_cast<std::int32_t>(unit_of(instruction, i)),
        WireVector{.row_mix = mix(row_in_part(tensor, row)),
                   .cycle = static_cast<std::int32_t>(affine(instruction.start, instruction.period, i)),
                   .row = static_cast<std::int32_t>(row),
                   .base = base_of_[number_of(instruction, operand, row)]});
  });
  const auto is_before = [](const auto& a, const auto& b) {
    return std::tie(a.first, a.second.cycle) < std::tie(b.first, b.second.cycle);
  };
  if (!std::is_sorted(by_link.begin(), by_link.end(), is_before)) {
    std::stable_sort(by_link.begin(), by_link.end(), is_before);
  }
  WireBurst burst{.instruction = at,
                  .first_part = static_cast<std::int32_t>(parts_.size()),
                  .argument = instruction.argument,
                  .transfer = digest_text(program_->transfers[instruction.transfer].name),
                  .displaced_by = operand.is_registered != 0 ? instruction.base_register : std::uint16_t{0}};
  std::int32_t last = instruction.start;
  for (const auto& [link, vector] : by_link) {
    if (burst.parts == 0 || parts_.back().link != link) {
      parts_.push_back({.link = link, .first = static_cast<std::int32_t>(vectors_.size())});
      ++burst.parts;
    }
    ++parts_.back().count;
    vectors_.push_back(vector);
    last = std::max(last, vector.cycle);
  }
  BurstEvent event = first;
  event.argument = static_cast<std::uint32_t>(wire_bursts_.size());
  event.word = fold(event.word, burst.transfer);
  const bool is_send = instruction.opcode == Opcode::kSend;
  event.moment = is_send ? BurstMoment::kSendOpens : BurstMoment::kReceiveOpens;
  events_.push_back(event);
  event.moment = is_send ? BurstMoment::kSendCloses : BurstMoment::kReceiveCloses;
  event.cycle = last;
  events_.push_back(event);
  wire_bursts_.push_back(burst);
}

void BurstTable::check_transfers(std::int32_t chip_id) const {
  struct Load {
    std::uint16_t transfer;
    bool is_send;
    std::int32_t link;
    std::int32_t count;
    std::int32_t instruction;
  };
  std::vector<Load> loads;
  for (const WireBurst& burst : wire_bursts_) {
    const Instruction& instruction = program_->instructions[static_cast<std::size_t>(burst.instruction)];
    for (const WirePart& part : parts(burst)) {
      loads.push_back(
          {instruction.transfer, instruction.opcode == Opcode::kSend, part.link, part.count, burst.instruction});
    }
  }
  const auto key = [](const Load& load) { return std::tie(load.transfer, load.is_send, load.link); };
  std::stable_sort(loads.begin(), loads.end(), [&](const Load& a, const Load& b) { return key(a) < key(b); });
  for (std::size_t i = 0; i < loads.size();) {
    std::int32_t carried = 0;
    const std::size_t first = i;
    for (; i < loads.size() && key(loads[i]) == key(loads[first]); ++i) {
      carried += loads[i].count;
    }
    const Transfer& transfer = program_->transfers[loads[first].transfer];
    if (carried != transfer.vectors) {
      throw ScheduleViolation(
          {.chip = chip_id,
           .cycle = program_->instructions[static_cast<std::size_t>(loads[first].instruction)].start,
           .instruction = loads[first].instruction,
           .reason = std::string(loads[first].is_send ? "sends " : "receives ") + std::to_string(carried) +
                     " vectors of transfer '" + transfer.name + "' on link " + std::to_string(loads[first].link) +
                     ", which has " + std::to_string(transfer.vectors)});
    }
  }
}

}  // namespace lpu::node
