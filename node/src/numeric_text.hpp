#pragma once
#include <cstdint>
#include <tuple>
#include <vector>

#include "checked_text.hpp"
#include "lpu/node/numeric_chip.hpp"

namespace lpu::node {

/// An instance of a burst and when it takes effect.
struct Step {
  std::int32_t cycle = 0;  ///< relative to the iteration
  std::int32_t instruction = 0;
  LoopIndex at{};
  InstanceKind kind = InstanceKind::kFetch;
};

[[nodiscard]] inline bool is_before(const Step& a, const Step& b) {
  return std::tie(a.cycle, a.kind, a.instruction, a.at) < std::tie(b.cycle, b.kind, b.instruction, b.at);
}

/// An instance as it is stored: a text has a hundred thousand of them.
struct StoredStep {
  std::uint32_t instruction = 0;
  std::uint32_t ordinal = 0;  ///< of the burst's instances, loop 2 fastest
};

struct NumericText::Tables {
  /// Rows of a static tensor at addresses one behind the other.
  struct StaticRun {
    Place place = 0;
    std::int32_t places = 1;
    std::int32_t row = 0;
    std::int32_t row_stride = 0;
    std::uint16_t tensor = 0;
  };
  struct StaticRow {
    std::uint16_t tensor = 0;
    std::int32_t row = 0;
  };

  const ChipProgram* text = nullptr;
  std::vector<StoredStep> steps;      ///< of bursts that no register moves from slice to slice
  std::vector<std::int32_t> moving;   ///< the others
  std::vector<StaticRun> statics;     ///< by place; no place is in two
  std::vector<std::int32_t> keepers;  ///< per instruction: which of those that keep something between instances; -1
  std::int32_t kept = 0;              ///< of them

  /// @return false: no static row lies there
  [[nodiscard]] bool find_static(Place place, StaticRow& found) const;
};

/// The instances of bursts, each with its slices displaced, in the order in which they take effect.
struct DisplacedBurst {
  std::int32_t instruction = 0;
  std::int32_t slices = 0;
};
[[nodiscard]] std::vector<StoredStep> steps_of(const ChipProgram& text,
                                               const std::vector<DisplacedBurst>& bursts,
                                               const ChipSpec& chip);

/// @param slices  by which the burst is displaced
[[nodiscard]] inline Step read_step(const ChipProgram& text,
                                    const StoredStep& stored,
                                    std::int32_t slices,
                                    const ChipSpec& chip) {
  const Instruction& burst = text.instructions[stored.instruction];
  const std::uint32_t rest = stored.ordinal / burst.count[2];
  const LoopIndex at{static_cast<std::uint16_t>(rest / burst.count[1]),
                     static_cast<std::uint16_t>(rest % burst.count[1]),
                     static_cast<std::uint16_t>(stored.ordinal % burst.count[2])};
  return {.cycle = static_cast<std::int32_t>(issue_cycle(burst, at, unit_of(burst, at) + slices, chip)),
          .instruction = static_cast<std::int32_t>(stored.instruction),
          .at = at,
          .kind = kind_of(burst.opcode)};
}

}  // namespace lpu::node
