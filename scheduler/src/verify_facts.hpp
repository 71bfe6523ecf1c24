#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lpu/node/error.hpp"
#include "lpu/scheduler/cluster_program.hpp"

/// Parts of verify(). Nothing here is shared with what schedules.
namespace lpu::scheduler::proof {

using node::ChipProgram;
using node::ChipSpec;
using node::Displacement;
using node::Instruction;
using node::StreamOperand;

[[nodiscard]] constexpr std::int64_t floor_mod(std::int64_t a, std::int64_t b) {
  return (a % b + b) % b;
}

/// Breaches found so far; keeps the first few thousand, so that a wholly broken program ends in seconds.
class Findings {
 public:
  void set_chip(std::int32_t chip) { chip_ = chip; }
  void add(std::int64_t cycle, std::int32_t instruction, std::string reason);
  void add_at(std::int32_t chip, std::int64_t cycle, std::int32_t instruction, std::string reason);
  [[nodiscard]] bool is_full() const { return violations_.size() >= kMost; }
  [[nodiscard]] bool is_empty() const { return violations_.empty(); }
  /// In (chip, cycle, instruction) order; those without a cycle last of their chip.
  [[nodiscard]] std::vector<node::Violation> sorted(std::size_t most);

 private:
  static constexpr std::size_t kMost = 2000;
  std::int32_t chip_ = -1;
  std::vector<node::Violation> violations_;
};

/// Slice that a register moves an access to, and the banks that its address displacements turn bank 0 into.
struct PlaceShift {
  std::int32_t slice = 0;
  std::uint32_t banks = 1;  ///< bit b: some displacement is b mod banks_per_slice
};

/// What a base register does to places, rows and values.
struct RegisterFacts {
  std::vector<PlaceShift> places;  ///< one per distinct slice displacement
  /// Displacements that address distinct copies, in an order that registers of one image class share: per copy, user
  /// slot (those of user_in_batch), expert, token. kAppend: empty.
  std::shared_ptr<const std::vector<Displacement>> images;
  /// kAppend: where positions fall, without the user's part; equal places listed once.
  std::shared_ptr<const std::vector<Displacement>> appends;
  std::shared_ptr<const std::vector<bool>> appends_at;  ///< kAppend: per position, whether it falls here at all
  /// Registers of one class move an access alike, whenever they hold the same copy, user, expert or token: what lies in
  /// an allocation of one lies in that of the other.
  std::int32_t image_class = 0;  ///< 0: nothing moves
  std::int32_t row_class = 0;    ///< 0: rows stay; equal: rows move alike (same expert slot, user, token)
  std::int32_t user_class = 0;   ///< user_in_batch + 1 where the register selects a user of a batch of several, else 0
  std::vector<std::int64_t> row_key;  ///< what row_class stands for, comparable between texts; empty: rows stay
  std::int64_t row_lowest = 0;        ///< of all displacements
  std::int64_t row_highest = 0;
  bool may_be_disabled = false;
};

/// A text and what its checks need to know; outlived by the program.
struct TextFacts {
  const ClusterProgram& program;
  const ChipSpec& chip;
  const ChipProgram& text;
  std::int64_t interval = 1;
  std::vector<RegisterFacts> registers;

  [[nodiscard]] const RegisterFacts& base(const Instruction& instruction) const {
    return registers[instruction.base_register];
  }
  /// Which displacement is part of the operand's value: rows of different classes are different values.
  [[nodiscard]] std::int64_t value_class(const Instruction& instruction, const StreamOperand& operand) const;
};

[[nodiscard]] TextFacts gather_facts(const ClusterProgram& program, const ChipProgram& text);

/// "instruction 12 (read)".
[[nodiscard]] std::string name_of(const TextFacts& facts, std::int32_t instruction);
/// "'wq' row 12".
[[nodiscard]] std::string value_of(const TextFacts& facts,
                                   std::uint16_t tensor,
                                   std::int64_t row,
                                   std::int64_t value_class = 0);
[[nodiscard]] std::string name_of(node::Hemisphere hemisphere);
[[nodiscard]] std::string name_of(node::Direction direction);
/// " of the iteration m later", or nothing when m is 0.
[[nodiscard]] std::string iterations_later(std::int64_t m);

}  // namespace lpu::scheduler::proof
