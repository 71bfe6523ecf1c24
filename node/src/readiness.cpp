#include "readiness.hpp"

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "instances.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

/// A row at a place (it may lie at several) in a cycle.
struct RowAccess {
  std::int64_t place = 0;
  std::int32_t row = 0;
  std::uint16_t tensor = 0;
  std::int64_t cycle = 0;
};

/// The last write of each row at each place: a table with open addressing, filled once.
class LastWrites {
 public:
  explicit LastWrites(std::size_t writes) : slots_(std::bit_ceil(2 * writes + 1)) {}

  void add(const RowAccess& write) {
    RowAccess& slot = slots_[find(write)];
    const std::int64_t before = slot.place == kFree ? write.cycle : slot.cycle;
    slot = write;
    slot.cycle = std::max(before, write.cycle);
  }
  /// nullptr: never written there.
  [[nodiscard]] const RowAccess* get(const RowAccess& read) const {
    const RowAccess& slot = slots_[find(read)];
    return slot.place == kFree ? nullptr : &slot;
  }

 private:
  static constexpr std::int64_t kFree = -1;
  struct Slot : RowAccess {
    Slot() { place = kFree; }
    Slot& operator=(const RowAccess& access) {
      RowAccess::operator=(access);
      return *this;
    }
  };
  [[nodiscard]] std::size_t find(const RowAccess& access) const {
    const auto row = static_cast<std::uint64_t>(access.row) << 16U | access.tensor;
    std::size_t at = mix(static_cast<std::uint64_t>(access.place) ^ row << 20U) & (slots_.size() - 1);
    while (slots_[at].place != kFree &&
           (slots_[at].place != access.place || slots_[at].row != access.row || slots_[at].tensor != access.tensor)) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return at;
  }
  std::vector<Slot> slots_;
};

class Readiness {
 public:
  Readiness(const ChipProgram& program, const ChipSpec& chip, std::int32_t chip_id)
      : program_(program),
        chip_(chip),
        chip_id_(chip_id),
        settle_(chip.instruction_propagation.count() + 1),
        is_fixed_(program.tensors.size(), true) {}

  std::size_t run(std::span<BurstEvent> events) {
    const LastWrites writes = collect_writes();
    std::vector<std::uint32_t> counter(program_.tensors.size(), 0);
    std::vector<std::uint32_t> seen(program_.tensors.size(), 0);
    std::uint32_t counters = 1;
    for (BurstEvent& event : events) {
      const Instruction& instruction = program_.instructions[static_cast<std::size_t>(event.instruction)];
      const std::uint16_t tensor = instruction.operands[0].tensor;
      if (!is_tracked(instruction) || !is_fixed_[tensor] || !has_fixed_rows(instruction)) {
        continue;
      }
      if (counter[tensor] == 0) {
        counter[tensor] = counters++;
      }
      event.argument = counter[tensor];
      if (instruction.opcode == Opcode::kWrite) {
        event.moment = BurstMoment::kWrite;
        ++seen[tensor];
      } else {
        event.moment = BurstMoment::kRead;
        event.argument |= std::min<std::uint32_t>(seen[tensor], 0xffffU) << 16U;
        check_read(writes, instruction, event.instruction);
      }
    }
    LPU_CHECK(counters < 65536, "iteration tensors of one text");
    return counters;
  }

 private:
  /// Reads and writes of iteration tensors. An append names the new value, but what it makes is a row of the cache.
  [[nodiscard]] bool is_tracked(const Instruction& instruction) const {
    return (instruction.opcode == Opcode::kRead || instruction.opcode == Opcode::kWrite) &&
           program_.registers[instruction.base_register].kind != RegisterKind::kAppend &&
           program_.tensors[instruction.operands[0].tensor].scope == TensorScope::kIteration;
  }
  /// Registers that move slices move cycles too: what they access is left to the checks of every instance.
  [[nodiscard]] bool has_fixed_rows(const Instruction& instruction) const {
    const RegisterKind kind = program_.registers[instruction.base_register].kind;
    return kind == RegisterKind::kNone || kind == RegisterKind::kBuffer;
  }

  template <typename Visit>
  void for_each_access(const Instruction& instruction, Visit visit) const {
    const StreamOperand& operand = instruction.operands[0];
    for_each_instance(instruction, [&](const LoopIndex& at) {
      const std::int64_t slice = unit_of(instruction, at);
      const std::int64_t address = affine(instruction.address, instruction.address_stride, at);
      visit(RowAccess{.place = place_key(instruction.hemisphere, slice, address),
                      .row = static_cast<std::int32_t>(affine(operand.row, operand.row_stride, at)),
                      .tensor = operand.tensor,
                      .cycle = issue_cycle(instruction, at, slice, chip_)});
    });
  }

  [[nodiscard]] LastWrites collect_writes() {
    std::size_t count = 0;
    for (const Instruction& instruction : program_.instructions) {
      if (instruction.opcode == Opcode::kWrite && is_tracked(instruction)) {
        count += static_cast<std::size_t>(instances(instruction));
        is_fixed_[instruction.operands[0].tensor] =
            is_fixed_[instruction.operands[0].tensor] && has_fixed_rows(instruction);
      }
    }
    LastWrites writes(count);
    for (const Instruction& instruction : program_.instructions) {
      if (instruction.opcode == Opcode::kWrite && is_tracked(instruction)) {
        for_each_access(instruction, [&](const RowAccess& write) { writes.add(write); });
      }
    }
    return writes;
  }

  void check_read(const LastWrites& writes, const Instruction& instruction, std::int32_t number) const {
    for_each_access(instruction, [&](const RowAccess& read) {
      const RowAccess* write = writes.get(read);
      if (write == nullptr || write->cycle + settle_ > read.cycle) {
        fail(read, write, number);
      }
    });
  }

  [[noreturn]] void fail(const RowAccess& read, const RowAccess* write, std::int32_t number) const {
    std::string when = "that nothing writes there";
    if (write != nullptr) {
      when = "that is written there in cycle " + std::to_string(write->cycle) + "; it can be read from cycle " +
             std::to_string(write->cycle + settle_) + " on";
    }
    throw ScheduleViolation({.chip = chip_id_,
                             .cycle = read.cycle,
                             .instruction = number,
                             .reason = "reads row " + std::to_string(read.row) + " of '" +
                                       program_.tensors[read.tensor].name + "' " + when});
  }

  const ChipProgram& program_;
  const ChipSpec& chip_;
  std::int32_t chip_id_;
  std::int64_t settle_;
  std::vector<bool> is_fixed_;  ///< per tensor
};

}  // namespace

std::size_t check_readiness(const ChipProgram& program,
                            const ChipSpec& chip,
                            std::int32_t chip_id,
                            std::span<BurstEvent> events) {
  return Readiness(program, chip, chip_id).run(events);
}

}  // namespace lpu::node
