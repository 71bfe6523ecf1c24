#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "lpu/scheduler/cluster_program.hpp"
#include "lpu/scheduler/inspect.hpp"

namespace lpu::scheduler {

/// Chips that run a text, ascending.
[[nodiscard]] std::vector<std::int32_t> chips_of(const ClusterProgram& program, std::int32_t text);

/// First and last cycle in which an instruction issues, relative to the iteration. A base register that displaces
/// slices moves MEM instances further along the diagonal; that is not counted.
[[nodiscard]] std::pair<std::int64_t, std::int64_t> issue_span(const node::Instruction& instruction,
                                                               const node::ChipSpec& chip);

/// Direction of the stream that a MEM instruction reads to or writes from.
[[nodiscard]] node::Direction stream_direction(const node::Instruction& instruction);

/// What InspectOptions select of one program.
class Selection {
 public:
  /// @throws node::InputError  a chip that the program does not have
  Selection(const ClusterProgram& program, const InspectOptions& options);
  [[nodiscard]] bool has_chip(std::int32_t chip) const { return has_chip_[static_cast<std::size_t>(chip)]; }
  [[nodiscard]] bool has_text(std::size_t text) const { return has_text_[text]; }
  [[nodiscard]] bool has(const node::Instruction& instruction) const;

 private:
  const node::ChipSpec* chip_;
  std::optional<std::pair<std::int64_t, std::int64_t>> cycles_;
  std::optional<node::Unit> unit_;
  std::vector<bool> has_chip_;
  std::vector<bool> has_text_;
};

/// @throws node::InputError  a chip that the program does not have
void check_chips(const ClusterProgram& program, std::span<const std::int32_t> chips);

}  // namespace lpu::scheduler
