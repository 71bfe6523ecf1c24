#pragma once
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// What of a program is listed; by default all of it.
struct InspectOptions {
  std::vector<std::int32_t> chips{};  ///< ids; empty: all. A text is listed once, with the chips that share it
  /// Instructions that issue in [first, last], cycles of the iteration on its chip.
  std::optional<std::pair<std::int64_t, std::int64_t>> cycles{};
  std::optional<node::Unit> unit{};
  std::string version{};  ///< of the program that lists; in the first line of a JSON listing
  std::string command{};  ///< likewise

  [[nodiscard]] bool selects_all() const { return chips.empty() && !cycles && !unit; }
};

/// A listing for people: header, bindings, then each text as an assembly listing (scheduler/README.md, "Listing").
/// @throws node::InputError  a chip that the program does not have
void inspect(const ClusterProgram& program, const InspectOptions& options, std::ostream& out);

/// A listing for programs: one JSON object a line (scheduler/README.md, "Listing"). Without a selection, assemble()
/// turns it back into the same program.
/// @throws node::InputError  a chip that the program does not have
void inspect_json(const ClusterProgram& program, const InspectOptions& options, std::ostream& out);

/// The same program, in which each of these chips has a text that no other chip shares: what somebody needs who wants
/// to edit one chip's instructions alone. Chips without a text stay so.
/// @throws node::InputError  a chip that the program does not have
[[nodiscard]] ClusterProgram with_own_texts(const ClusterProgram& program, std::span<const std::int32_t> chips);

/// "mem", "mxm", "vxm", "sxm", "c2c".
/// @throws node::InputError  another word
[[nodiscard]] node::Unit parse_unit(std::string_view word);

/// One line of the listing for people, without index and time: "mem  W12   read  …". For messages.
[[nodiscard]] std::string describe(const node::Instruction& instruction,
                                   const node::ChipProgram& text,
                                   const node::ChipSpec& chip);

}  // namespace lpu::scheduler
