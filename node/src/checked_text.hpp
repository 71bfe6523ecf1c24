#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "instances.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/iteration.hpp"
#include "lpu/node/program.hpp"

namespace lpu::node {

/// What happens at one moment of a burst. The order is that in which events of one cycle take effect.
enum class InstanceKind : std::uint8_t {
  kFetch,     ///< the burst as a whole
  kDispatch,  ///< the burst's first instance on one queue
  kSource,    ///< a Read or Receive: its value can be taken in the same cycle
  kDrain,
  kCompute,  ///< before an install: the buffer that it empties may be filled from this cycle on
  kOperate,  ///< VXM, SXM, install, send
  kWrite,
};

struct InstanceEvent {
  std::int32_t cycle = 0;  ///< relative to the iteration
  std::int32_t instruction = 0;
  LoopIndex at{};
  InstanceKind kind = InstanceKind::kFetch;
  std::uint8_t unused = 0;
  std::int32_t queue = 0;  ///< kDispatch
};

/// A row of SRAM: ((hemisphere * slices) + slice) * addresses + address.
using Place = std::int32_t;

/// What a place holds from the start.
struct Content {
  static constexpr std::uint16_t kNothing = 0xffff;
  std::uint16_t tensor = kNothing;
  std::uint16_t user = 0;  ///< caches
  std::int32_t row = 0;
};

/// Where an append puts its row, before displacement.
struct AppendTarget {
  std::int32_t instruction = 0;
  LoopIndex at{};
  std::uint16_t tensor = 0;
  std::int32_t row = 0;
};

struct CheckedTextTables {
  const ChipProgram* text = nullptr;
  const ChipSpec* chip = nullptr;
  std::vector<InstanceEvent> events;  ///< in (cycle, kind, instruction, at) order, but for:
  std::vector<std::int32_t> moving;   ///< MEM bursts whose register moves slices, and so cycles
  std::vector<Content> contents;      ///< per place
  std::vector<std::int32_t> dynamic;  ///< per place: index of its record in a chip's memory; -1: no iteration tensor
  std::int32_t dynamic_places = 0;
  std::vector<AppendTarget> append_targets;  ///< sorted by (instruction, at)
  std::vector<std::int32_t> base_offset;     ///< per tensor: first of its value bases
  std::int32_t value_bases = 0;
  std::int32_t queues = 0;
};

[[nodiscard]] inline Place make_place(Hemisphere hemisphere,
                                      std::int64_t slice,
                                      std::int64_t address,
                                      const ChipSpec& chip) {
  return static_cast<Place>(
      (static_cast<std::int64_t>(hemisphere) * chip.slices_per_hemisphere + slice) * chip.vectors_per_slice + address);
}
[[nodiscard]] bool is_in_sram(std::int64_t slice, std::int64_t address, const ChipSpec& chip);
/// "hemisphere W, slice 4, address 17"
[[nodiscard]] std::string describe(Place place, const ChipSpec& chip);
/// Whether the operand is taken or put in this instance (`held`).
[[nodiscard]] bool is_moved_here(const StreamOperand& operand, const Instruction& instruction, const LoopIndex& at);
/// Queue number of the ICU that an instance on unit number `unit` comes from.
[[nodiscard]] std::int32_t queue_of(const Instruction& instruction, std::int64_t unit, const ChipSpec& chip);
/// All instances of a MEM burst in one iteration, its dispatches included, in order of cycles.
void place_burst(const ChipProgram& text,
                 std::int32_t instruction,
                 std::int32_t displaced_slices,
                 const ChipSpec& chip,
                 std::vector<InstanceEvent>& events);
[[nodiscard]] InstanceKind kind_of(Opcode opcode);
[[nodiscard]] bool is_before(const InstanceEvent& a, const InstanceEvent& b);

/// What every single instruction may be: operands, streams, directions, sources, capacities of its unit.
/// @throws ScheduleViolation  the first one that may not
void check_instructions(const ChipProgram& text, const ChipSpec& chip, std::int32_t chip_id);

/// That each tensor is made and used by the operations, and in the numbers of vectors, that it declares.
/// @throws ScheduleViolation  the first one that is not, with the last instruction that makes or uses it
void check_operations(const ChipProgram& text, std::int32_t chip_id);

/// Resources of one text modulo the initiation interval, every displacement reserved.
/// @throws ScheduleViolation  a cell taken twice
void check_steady_state(const ChipProgram& text, const ChipSpec& chip, const IterationPlan& plan, std::int32_t chip_id);

}  // namespace lpu::node
