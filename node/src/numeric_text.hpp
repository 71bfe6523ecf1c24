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
static_assert(sizeof(Step) == 16, "a text has a hundred thousand of them");

[[nodiscard]] inline bool is_before(const Step& a, const Step& b) {
  return std::tie(a.cycle, a.kind, a.instruction, a.at) < std::tie(b.cycle, b.kind, b.instruction, b.at);
}

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
  std::vector<Step> steps;            ///< of bursts that no register moves from slice to slice
  std::vector<std::int32_t> moving;   ///< the others
  std::vector<StaticRun> statics;     ///< by place; no place is in two
  std::vector<std::int32_t> keepers;  ///< per instruction: which of those that keep something between instances; -1
  std::int32_t kept = 0;              ///< of them

  /// @return false: no static row lies there
  [[nodiscard]] bool find_static(Place place, StaticRow& found) const;
};

/// Adds the instances of a burst, its slices displaced, but for what the numeric plane has no use for.
void add_steps(const ChipProgram& text,
               std::int32_t instruction,
               std::int32_t displaced_slices,
               const ChipSpec& chip,
               std::vector<Step>& steps);

}  // namespace lpu::node
