#pragma once
#include <cstdint>
#include <memory>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/emulator.hpp"
#include "lpu/node/iteration.hpp"
#include "lpu/node/program.hpp"

namespace lpu::node {

struct CheckedTextTables;  // private to node

/// A program text expanded to its instances, shared by all chips that run it, for execution with every rule checked.
///
/// What no iteration changes is checked here, once: allocations and SRAM budget, every access against them, program
/// text, sources of values, reach of streams, capacities, and resources modulo the initiation interval. Text, chip and
/// plan must outlive it.
class CheckedText {
 public:
  /// @pre the text is well-formed
  /// @param chip_id  named in violations: a chip that runs the text
  /// @throws ScheduleViolation  cycles in it are relative to the iteration
  CheckedText(const ChipProgram& text, const ChipSpec& chip, const IterationPlan& plan, std::int32_t chip_id);
  ~CheckedText();
  CheckedText(CheckedText&&) noexcept;
  CheckedText& operator=(CheckedText&&) noexcept;
  CheckedText(const CheckedText&) = delete;
  CheckedText& operator=(const CheckedText&) = delete;

  [[nodiscard]] const CheckedTextTables& tables() const { return *tables_; }

 private:
  std::unique_ptr<CheckedTextTables> tables_;
};

/// One chip that checks every rule of node/README.md while it runs, instance by instance: who holds each port, bank,
/// stream register, ALU, MXM plane, link end and queue in each cycle; which value stands on each stream, in each row of
/// SRAM, in each weight buffer; what each accumulator sums; how long each link queue is.
///
/// It lets an Emulator run ahead and follows it: messages, arrivals, fold and measures are the emulator's.
class CheckedChip {
 public:
  /// All arguments must outlive it.
  CheckedChip(const CheckedText& text,
              const ChipSpec& chip,
              const ChipBinding& binding,
              const IterationPlan& plan,
              std::int64_t iterations,
              Emulator& emulator);
  ~CheckedChip();
  CheckedChip(CheckedChip&&) noexcept;
  CheckedChip& operator=(CheckedChip&&) noexcept;
  CheckedChip(const CheckedChip&) = delete;
  CheckedChip& operator=(const CheckedChip&) = delete;

  /// As Emulator::run(), then checks every cycle that lies behind it.
  /// @throws ScheduleViolation  the earliest breach that can be seen; cycles are those of the common clock
  ChipState run();

 private:
  class Checker;
  std::unique_ptr<Checker> checker_;
  Emulator* emulator_;
};

}  // namespace lpu::node
