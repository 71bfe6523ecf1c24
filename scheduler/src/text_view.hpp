#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// One issue of an instruction.
struct Instance {
  std::array<std::int32_t, 3> i{};
  std::int64_t cycle = 0;
  std::int32_t unit = 0;  ///< slice, plane, first ALU, link
};

/// A value on its way: where it stands at position p in cycle `diagonal` + p (outward) or `diagonal` - p (inward).
struct Flow {
  std::int32_t instruction = -1;
  node::Hemisphere hemisphere = node::Hemisphere::kWest;
  node::Direction direction = node::Direction::kOutward;
  std::int32_t stream = 0;
  std::int32_t low = 0;  ///< positions, both ends included
  std::int32_t high = 0;
  std::int64_t diagonal = 0;
  std::uint16_t tensor = 0;
  std::int64_t row = 0;
  bool is_exact = true;  ///< false: a register moves its source; it stands on part of the positions

  [[nodiscard]] std::int64_t cycle_at(std::int32_t position) const {
    return direction == node::Direction::kOutward ? diagonal + position : diagonal - position;
  }
  [[nodiscard]] std::int32_t first_position() const { return direction == node::Direction::kOutward ? low : high; }
};

/// A read or write of one row.
struct Access {
  std::int32_t instruction = -1;
  bool is_write = false;
  bool is_whole = true;  ///< false: a masked write, or one that a register moves or disables
  std::int64_t cycle = 0;
  std::int32_t address = 0;
  std::uint16_t base_register = 0;
  std::uint16_t tensor = 0;
  std::int64_t row = 0;
  std::uint32_t banks = 0;  ///< bit b: bank b may be taken
};

/// Completion of a tile in a plane's weight buffer.
struct TileInstall {
  std::int64_t cycle = 0;
  std::int32_t instruction = -1;
  node::StreamOperand tile;  ///< kind, tensor, row, is_registered
  std::uint16_t base_register = 0;

  [[nodiscard]] bool is_same_tile(const TileInstall& other) const {
    return tile.tensor == other.tile.tensor && tile.row == other.tile.row &&
           tile.is_registered == other.tile.is_registered &&
           (tile.is_registered == 0 || base_register == other.base_register);
  }
};

/// What one text does, expanded where somebody asks: a plain enumeration of instances, for the mutator. It is written
/// for this purpose alone and shares nothing with the scheduler or with verify().
class TextView {
 public:
  TextView(const ClusterProgram& program, const node::ChipProgram& text);

  [[nodiscard]] const node::ChipSpec& chip() const { return *chip_; }
  [[nodiscard]] const node::ChipProgram& text() const { return *text_; }
  [[nodiscard]] std::int64_t interval() const { return interval_; }
  [[nodiscard]] const node::Instruction& at(std::int32_t instruction) const {
    return text_->instructions[static_cast<std::size_t>(instruction)];
  }
  [[nodiscard]] std::int32_t size() const { return static_cast<std::int32_t>(text_->instructions.size()); }
  [[nodiscard]] node::Unit unit(std::int32_t instruction) const { return node::info(at(instruction).opcode).unit; }

  /// All flows, in (hemisphere, direction, stream, diagonal, low) order; made on the first call.
  [[nodiscard]] const std::vector<Flow>& flows() const;
  /// Flows that stand at a place in a cycle, of this iteration (interval 0) or of any (modulo the interval).
  [[nodiscard]] std::vector<Flow> standing(node::Hemisphere hemisphere,
                                           node::Direction direction,
                                           std::int32_t stream,
                                           std::int32_t position,
                                           std::int64_t cycle,
                                           std::int64_t interval) const;
  /// A (direction, stream) on which nothing stands at a position in cycles [cycle, cycle + cycles), in any iteration;
  /// the streams in `taken` are left out.
  [[nodiscard]] std::optional<std::pair<node::Direction, std::int32_t>> free_stream(
      node::Hemisphere hemisphere,
      std::int32_t position,
      std::int64_t cycle,
      std::int64_t cycles,
      const std::vector<std::pair<node::Direction, std::int32_t>>& taken) const;

  /// All accesses of a slice; made on the first call.
  [[nodiscard]] const std::vector<Access>& accesses(node::Hemisphere hemisphere, std::int32_t slice) const;
  /// Whether a slice does nothing at all in cycles [cycle, cycle + cycles), in any iteration.
  [[nodiscard]] bool is_idle(node::Hemisphere hemisphere,
                             std::int32_t slice,
                             std::int64_t cycle,
                             std::int64_t cycles) const;
  /// A row of static data in a slice and bank (-1: any), with its address.
  struct StaticRow {
    std::uint16_t tensor = 0;
    std::int32_t row = 0;
    std::int32_t address = 0;
  };
  [[nodiscard]] std::optional<StaticRow> static_row(node::Hemisphere hemisphere,
                                                    std::int32_t slice,
                                                    std::int32_t bank) const;

  /// Tiles of one plane in the order of their completion within an iteration.
  [[nodiscard]] std::vector<TileInstall> installs(node::Hemisphere hemisphere, std::int32_t plane) const;

  /// Instructions that take a value of a producing instruction's first instance, with the cycle in which they do.
  [[nodiscard]] std::vector<std::pair<std::int32_t, std::int64_t>> consumers(std::int32_t producer) const;

  /// Bytes that are fetched in a cycle, of this iteration (interval 0) or of all (modulo the interval).
  [[nodiscard]] std::int64_t fetched(std::int64_t cycle, std::int64_t interval) const;

 private:
  using SliceKey = std::pair<node::Hemisphere, std::int32_t>;
  void add_flows(std::int32_t instruction) const;
  [[nodiscard]] Flow flow_of(std::int32_t instruction,
                             const node::StreamOperand& operand,
                             const Instance& instance) const;
  [[nodiscard]] std::optional<StaticRow> row_in(const node::Allocation& allocation,
                                                std::int32_t slice,
                                                std::int32_t bank) const;
  void make_accesses() const;

  const node::ChipSpec* chip_;
  const node::ChipProgram* text_;
  std::int64_t interval_;
  std::int32_t context_;
  mutable std::vector<Flow> flows_;
  mutable std::map<SliceKey, std::vector<Access>> accesses_;
  mutable bool has_accesses_ = false;
};

/// Calls visit(instance) in the order of indices, loop 2 innermost. MEM: each at its slice's own cycle.
template <typename Visit>
void for_each_instance(const node::Instruction& instruction, const node::ChipSpec& chip, const Visit& visit);

[[nodiscard]] std::int64_t row_at(const node::StreamOperand& operand, const Instance& instance);
/// Whether a held operand takes or gives a value in an instance.
[[nodiscard]] bool is_active(const node::Instruction& instruction,
                             const node::StreamOperand& operand,
                             const Instance& instance);
/// The first instance.
[[nodiscard]] Instance first_instance(const node::Instruction& instruction);
/// Calls visit(link) for each link of a C2C instruction.
template <typename Visit>
void for_each_link(const node::Instruction& instruction, const Visit& visit) {
  for (std::int32_t i = 0; i < instruction.count[2]; ++i) {
    visit(instruction.index + i * instruction.index_stride[2]);
  }
}
[[nodiscard]] bool has_link(const node::Instruction& instruction, std::int32_t link);
[[nodiscard]] std::int32_t position_of(const node::Instruction& instruction,
                                       const node::ChipSpec& chip,
                                       std::int32_t unit);
/// +1 where a MEM instruction's stream runs outward, else -1.
[[nodiscard]] std::int32_t sign_of(const node::Instruction& instruction);

template <typename Visit>
void for_each_instance(const node::Instruction& instruction, const node::ChipSpec& chip, const Visit& visit) {
  const bool is_mem = node::info(instruction.opcode).unit == node::Unit::kMem;
  const std::int32_t home = is_mem ? chip.slice_position(instruction.index) : 0;
  const std::int32_t sign = is_mem ? sign_of(instruction) : 0;
  Instance instance;
  for (instance.i[0] = 0; instance.i[0] < instruction.count[0]; ++instance.i[0]) {
    for (instance.i[1] = 0; instance.i[1] < instruction.count[1]; ++instance.i[1]) {
      for (instance.i[2] = 0; instance.i[2] < instruction.count[2]; ++instance.i[2]) {
        instance.cycle = instruction.start;
        instance.unit = instruction.index;
        for (std::size_t l = 0; l < 3; ++l) {
          instance.cycle += std::int64_t{instance.i[l]} * instruction.period[l];
          instance.unit += instance.i[l] * instruction.index_stride[l];
        }
        if (is_mem) {
          instance.cycle += std::int64_t{sign} * (chip.slice_position(instance.unit) - home);
        }
        visit(static_cast<const Instance&>(instance));
      }
    }
  }
}

}  // namespace lpu::scheduler
