#pragma once
#include <array>

#include "stage_builder.hpp"

namespace lpu::scheduler {

/// Loop of a draft: how often, how far apart in time.
struct Repeat {
  std::int32_t count = 1;
  std::int32_t period = 1;
};

/// An operand's rows: tensor, first row, step per loop.
struct Rows {
  TensorId tensor = 0;
  std::int32_t row = 0;
  std::array<std::int32_t, 3> step{0, 0, 0};
};

/// The streams a value travels on, as seen by one consumer or producer.
struct Lane {
  node::Hemisphere hemisphere = node::Hemisphere::kWest;
  node::Direction direction = node::Direction::kOutward;
  VariableId variable = -1;
  std::int32_t streams = 1;
  std::int32_t offset = 0;  ///< first stream, relative to the variable's choice (or absolute without one)
  std::int32_t stream_stride = 0;
};

[[nodiscard]] node::StreamOperand operand(
    node::OperandKind kind, const Lane& lane, const Rows& rows, std::int32_t reach, unsigned held = 0);

/// Read `groups` groups of a buffer's `width` rows, the first at tensor row `row`; the first group reaches the stream
/// register `target` in cycle `at` of the template.
[[nodiscard]] Draft read_rows(StageBuilder& builder,
                              BufferId buffer,
                              std::int32_t row,
                              std::int64_t at,
                              std::int32_t target,
                              const Lane& lane,
                              Repeat outer = {},
                              std::int32_t outer_step = 0,
                              Repeat inner = {},
                              std::int32_t inner_step = 0);
/// One row alone.
[[nodiscard]] Draft read_row(
    StageBuilder& builder, BufferId buffer, std::int32_t row, std::int64_t at, std::int32_t target, const Lane& lane);
/// Write what stands at register `source` in cycle `at` and later groups.
[[nodiscard]] Draft write_rows(StageBuilder& builder,
                               BufferId buffer,
                               std::int32_t row,
                               std::int64_t at,
                               std::int32_t source,
                               const Lane& lane,
                               Repeat outer = {},
                               std::int32_t outer_step = 0,
                               Repeat inner = {},
                               std::int32_t inner_step = 0);
[[nodiscard]] Draft write_row(
    StageBuilder& builder, BufferId buffer, std::int32_t row, std::int64_t at, std::int32_t source, const Lane& lane);
/// Stream register of a buffer's slices.
[[nodiscard]] std::int32_t position_of(StageBuilder& builder, BufferId buffer);

/// A VXM, SXM, MXM or C2C instruction; operands follow with add().
[[nodiscard]] Draft unit(node::Opcode opcode,
                         std::int64_t at,
                         node::Hemisphere hemisphere,
                         std::int32_t index,
                         std::int32_t alus,
                         Repeat outer = {},
                         Repeat inner = {});
void add(Draft& draft, const node::StreamOperand& operand, VariableId variable);

enum class Kept : std::uint8_t { kNo, kYes };

/// Let `second` take single rows that `first` sends from the VXM to SRAM off the stream, while they stand at the VXM:
/// the pass goes on without touching SRAM in between, and both become one template.
///
/// @param rows   kYes: the rows are written all the same, for others
/// @return       false, and nothing changed, where `second` reads none of first's rows, or one that SRAM has not got by
/// then, or where the two would meet (one writes a bank that the other reads)
bool fuse(StageBuilder& builder, Template& first, const Template& second, Kept rows);

}  // namespace lpu::scheduler
