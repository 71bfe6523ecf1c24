#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lpu/scheduler/cluster_program.hpp"
#include "lpu/scheduler/mutate.hpp"
#include "text_view.hpp"

namespace lpu::scheduler {

/// Numbers from a seed: the same on every machine.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : state_(seed) {}
  [[nodiscard]] std::uint64_t next();
  [[nodiscard]] std::size_t below(std::size_t size);  ///< size > 0
  [[nodiscard]] bool coin() { return below(2) == 1; }
  /// 0 … size - 1, from a drawn one on, round.
  [[nodiscard]] std::vector<std::int32_t> round(std::int32_t size);

 private:
  std::uint64_t state_;
};

/// Where a kind looks for a place.
struct Ground {
  const ClusterProgram& program;
  std::int32_t chip;
  const TextView& view;
  [[nodiscard]] const node::ChipBinding& binding() const { return program.bindings[static_cast<std::size_t>(chip)]; }
};

/// Rows in which nothing lies, whatever registers add.
struct FreeRows {
  node::Hemisphere hemisphere = node::Hemisphere::kWest;
  std::int32_t slice = 0;
  std::int32_t address = 0;
};
[[nodiscard]] std::optional<FreeRows> find_free_rows(const ClusterProgram& program,
                                                     const node::ChipProgram& text,
                                                     std::int32_t rows);

/// Bytes of program text, and bytes of the allocations that hold it; no `program_text`: nothing is counted.
struct TextBudget {
  bool is_counted = false;
  std::uint16_t tensor = 0;
  std::int64_t used = 0;
  std::int64_t held = 0;
};
[[nodiscard]] TextBudget text_budget(const node::ChipSpec& chip, const node::ChipProgram& text);

/// Whether a burst more can be fetched in a cycle, and its text stored.
[[nodiscard]] bool can_insert(const Ground& ground, const node::Instruction& instruction);

/// A text while it is edited: keeps the order of instructions and room for the program text. Instructions are known by
/// numbers that do not change: those before the edits, then one more for each insertion.
class TextEditor {
 public:
  TextEditor(const ClusterProgram& program, node::ChipProgram& text);
  [[nodiscard]] node::ChipProgram& text() { return *text_; }
  /// Room for so many bytes of program text more, in new allocations if need be.
  void reserve(std::int64_t bytes);
  std::int32_t insert(const node::Instruction& instruction);
  void erase(std::int32_t number);
  void replace(std::int32_t number, const node::Instruction& instruction);
  /// Index of an instruction in the edited text; -1: erased.
  [[nodiscard]] std::int32_t index_of(std::int32_t number) const;

 private:
  void place(std::int32_t number, const node::Instruction& instruction);

  const ClusterProgram* program_;
  node::ChipProgram* text_;
  std::vector<std::int32_t> order_;  ///< number of the instruction at each index
  std::int32_t next_;
};

/// What a kind does to one chip's text. It fills sites and description; chip -1 in a site stands for the edited chip.
using Change = std::function<void(TextEditor& editor, Planted& planted)>;
using FindChange = std::optional<Change> (*)(const Ground& ground, Draw& draw);

/// A kind that edits one chip's text.
struct TextKind {
  MutationKind kind;
  FindChange find = nullptr;
};
[[nodiscard]] std::span<const TextKind> slot_kinds();
[[nodiscard]] std::span<const TextKind> memory_kinds();
[[nodiscard]] std::span<const TextKind> unit_kinds();
[[nodiscard]] std::span<const TextKind> wire_kinds();

/// The other ends of a send or receive: instructions of the peers that do the opposite on its links, in any cycle.
[[nodiscard]] std::vector<FaultSite> other_ends(const Ground& ground, const node::Instruction& instruction);

/// "instruction 12 (read)", by the number before the edits.
[[nodiscard]] std::string name_of(const TextView& view, std::int32_t number);

}  // namespace lpu::scheduler
