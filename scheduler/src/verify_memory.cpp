#include "verify_memory.hpp"

#include <algorithm>
#include <optional>

#include "verify_appends.hpp"
#include "verify_burst.hpp"
#include "verify_static.hpp"

namespace lpu::scheduler::proof {

void AccessSpan::include(std::int64_t earliest, std::int64_t latest, std::int32_t by) {
  if (first_by < 0 || earliest < first) {
    first = earliest;
    first_by = by;
  }
  if (last_by < 0 || latest > last) {
    last = latest;
    last_by = by;
  }
}

namespace {

using node::Opcode;
using node::RegisterKind;
using node::TensorScope;

class AccessProof {
 public:
  AccessProof(const TextFacts& facts, const RowIndex& index, Findings& findings)
      : facts_(facts),
        index_(index),
        findings_(findings),
        lives_(index.size()),
        static_rows_(facts, index.allocations()),
        appends_(facts, index, lives_, findings) {}

  std::vector<Life> run() {
    for (const Opcode opcode : {Opcode::kWrite, Opcode::kRead}) {
      for (std::size_t i = 0; i < facts_.text.instructions.size() && !findings_.is_full(); ++i) {
        if (facts_.text.instructions[i].opcode == opcode) {
          burst(static_cast<std::int32_t>(i));
        }
      }
    }
    appends_.prove_coverage();
    prove_order();
    return std::move(lives_);
  }

 private:
  void burst(std::int32_t number) {
    const Instruction& instruction = facts_.text.instructions[static_cast<std::size_t>(number)];
    const StreamOperand& operand = only_operand(instruction);
    const node::Tensor& tensor = facts_.text.tensors[operand.tensor];
    if (instruction.opcode == Opcode::kWrite && tensor.scope == TensorScope::kStatic) {
      findings_.add(instruction.start, number, "writes to '" + tensor.name + "', which is static");
      return;
    }
    const bool is_append = facts_.text.registers[instruction.base_register].kind == RegisterKind::kAppend;
    if (!is_append && facts_.base(instruction).row_class != 0 && operand.is_registered == 0) {
      findings_.add(instruction.start,
                    number,
                    "names a row of '" + tensor.name + "' that does not move with base register " +
                        std::to_string(instruction.base_register));
      return;
    }
    if (is_append && instruction.opcode == Opcode::kRead) {
      findings_.add(instruction.start, number, "reads through an append register; reads of a cache name its user's");
      return;
    }
    if (tensor.scope == TensorScope::kStatic) {
      if (const std::optional<Run> at = static_rows_.find_outside(instruction, operand)) {
        const std::optional<std::string> place = static_rows_.place_of_row(operand.tensor, at->row);
        report(number, operand, *at, place.value_or(""));
      }
      return;
    }
    bool is_fine = true;
    for_each_run(make_burst(instruction, &operand), [&](const Run& run) {
      for (std::int32_t i = 0; i < run.count && is_fine; ++i) {
        Run one = run;
        one.cycle += i * run.period;
        one.row += i * run.row_stride;
        one.address += i * run.address_stride;
        is_fine = is_append ? appends_.append(number, one) : access(number, operand, one);
      }
    });
  }

  bool access(std::int32_t number, const StreamOperand& operand, const Run& at) {
    const Instruction& instruction = facts_.text.instructions[static_cast<std::size_t>(number)];
    const RowIndex::Range range = index_.find(operand.tensor, at.row);
    const std::uint32_t stored = index_.find_in(
        range, place_of(instruction.hemisphere, at.index, at.address), facts_.base(instruction).image_class);
    if (stored < range.end) {
      note(stored, number, instruction, at);
      return true;
    }
    report(number, operand, at, range.begin == range.end ? "" : place_of_stored(range.begin));
    return false;
  }

  /// @param place  where the row lies; empty: nowhere
  void report(std::int32_t number, const StreamOperand& operand, const Run& at, const std::string& place) {
    const Instruction& instruction = facts_.text.instructions[static_cast<std::size_t>(number)];
    findings_.add(slice_cycle(instruction, facts_.chip, at.cycle, at.index),
                  number,
                  std::string(instruction.opcode == Opcode::kRead ? "reads " : "writes ") +
                      value_of(facts_, operand.tensor, at.row) + " at " +
                      place_name(instruction, at.index, at.address) +
                      (place.empty() ? ", in no allocation: nothing holds that row"
                                     : ", outside its allocation: the row lies at " + place));
  }

  [[nodiscard]] const node::Allocation& allocation_of(std::uint32_t stored) const {
    return facts_.text.allocations[static_cast<std::size_t>(index_.at(stored).allocation)];
  }

  [[nodiscard]] std::string place_of_stored(std::uint32_t stored) const {
    const node::Allocation& allocation = allocation_of(stored);
    const std::int64_t offset = std::int64_t{index_.at(stored).place} - place_of(allocation.hemisphere, 0, 0);
    const std::int64_t addresses =
        std::int64_t{place_of(allocation.hemisphere, 1, 0)} - place_of(allocation.hemisphere, 0, 0);
    return name_of(allocation.hemisphere) + " slice " + std::to_string(offset / addresses) + " address " +
           std::to_string(offset % addresses) + register_name(allocation.base_register);
  }

  /// Over the slices that the register may select, the earliest and the latest cycle count.
  void note(std::uint32_t stored, std::int32_t number, const Instruction& instruction, const Run& at) {
    Life& life = lives_[stored];
    const bool is_write = instruction.opcode == Opcode::kWrite;
    for (const PlaceShift& shift : facts_.base(instruction).places) {
      if (const std::int32_t slice = at.index + shift.slice; slice >= 0 && slice < facts_.chip.slices_per_hemisphere) {
        const std::int64_t cycle = slice_cycle(instruction, facts_.chip, at.cycle, slice);
        (is_write ? life.writes : life.reads).include(cycle, cycle, number);
      }
    }
    life.plain_writes += is_write && (instruction.mode & node::kWriteMasked) == 0 ? 1 : 0;
  }

  void prove_order() {
    const std::int64_t settle = facts_.chip.instruction_propagation.count() + 1;
    for (std::uint32_t stored = 0; stored < index_.size() && !findings_.is_full(); ++stored) {
      const Life& life = lives_[stored];
      const std::uint16_t tensor = allocation_of(stored).tensor;
      const bool is_iteration = facts_.text.tensors[tensor].scope == TensorScope::kIteration;
      const auto value = [&] { return value_of(facts_, tensor, index_.at(stored).row); };
      if (life.reads.first_by >= 0 && life.writes.first_by < 0 && is_iteration) {
        findings_.add(
            life.reads.first, life.reads.first_by, "reads " + value() + ", which this iteration never writes there");
      } else if (life.reads.first_by >= 0 && life.writes.first_by >= 0 &&
                 life.reads.first < life.writes.last + settle) {
        findings_.add(life.reads.first,
                      life.reads.first_by,
                      "reads " + value() + " " + std::to_string(life.writes.last + settle - life.reads.first) +
                          " cycles too early: " + name_of(facts_, life.writes.last_by) + " writes it in cycle " +
                          std::to_string(life.writes.last) + ", it can be read from cycle " +
                          std::to_string(life.writes.last + settle) + " on");
      }
      if (is_iteration && life.plain_writes > 1) {
        findings_.add(life.writes.last,
                      life.writes.last_by,
                      "overwrites " + value() + ", which " + name_of(facts_, life.writes.first_by) +
                          " has written in cycle " + std::to_string(life.writes.first));
      }
    }
  }

  const TextFacts& facts_;
  const RowIndex& index_;
  Findings& findings_;
  std::vector<Life> lives_;
  StaticRows static_rows_;
  AppendProof appends_;
};

}  // namespace

std::vector<Life> prove_accesses(const TextFacts& facts, const RowIndex& index, Findings& findings) {
  return AccessProof(facts, index, findings).run();
}

}  // namespace lpu::scheduler::proof
