#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// What a program is a list of; listings have one line for each.
enum class Record : std::uint8_t {
  kProgram,
  kBinding,
  kText,
  kTensor,
  kAllocation,
  kRegister,
  kTransfer,
  kInstruction
};

/// A field that no program can have: an index that names nothing, a unit that the chip does not have, a size of zero.
struct FormFault {
  Record record = Record::kProgram;
  std::int32_t text = -1;   ///< of what belongs to a text
  std::int64_t index = -1;  ///< of the element in its list
  std::string field;
  std::string found;
  std::string expected;
  [[nodiscard]] std::string message() const;  ///< "text 0: instruction 17: address: found …; expected …"
};

/// The first such field, or none. Says nothing about legality: a well-formed program may break every rule of
/// node/README.md, but it can be expanded without leaving an array or a 32-bit count. Includes the order of
/// instructions.
[[nodiscard]] std::optional<FormFault> find_form_fault(const ClusterProgram& program);

/// @throws node::InputError  FormFault::message()
void check_well_formed(const ClusterProgram& program);

/// The order of a text's instructions: (start, unit, index); equal ones keep their place.
[[nodiscard]] bool comes_before(const node::Instruction& a, const node::Instruction& b);
void sort_instructions(node::ChipProgram& text);

}  // namespace lpu::scheduler
