#include "draft.hpp"

#include <cstdlib>

#include "lpu/node/error.hpp"

namespace lpu::scheduler {

using node::Direction;
using node::Hemisphere;
using node::Instruction;
using node::Opcode;
using node::OperandKind;

node::StreamOperand operand(OperandKind kind, const Lane& lane, const Rows& rows, std::int32_t reach, unsigned held) {
  node::StreamOperand out;
  out.kind = kind;
  out.hemisphere = lane.hemisphere;
  out.direction = lane.direction;
  out.stream = static_cast<std::uint8_t>(lane.offset);
  out.streams = static_cast<std::uint8_t>(lane.streams);
  out.stream_stride = static_cast<std::int8_t>(lane.stream_stride);
  out.reach = static_cast<std::uint8_t>(reach);
  out.held = static_cast<std::uint8_t>(held & 7U);
  out.tensor = rows.tensor;
  out.row = rows.row;
  for (std::size_t loop = 0; loop < 3; ++loop) {
    LPU_CHECK(rows.step[loop] >= -32768 && rows.step[loop] <= 32767, "row stride");
    out.row_stride[loop] = static_cast<std::int16_t>(rows.step[loop]);
  }
  return out;
}

std::int32_t position_of(StageBuilder& builder, BufferId buffer) {
  return builder.chip().slice_position(builder.at(buffer).slice);
}

void add(Draft& draft, const node::StreamOperand& operand, VariableId variable) {
  for (std::size_t i = 0; i < draft.variable.size(); ++i) {
    if (draft.instruction.operands[i].kind == OperandKind::kNone) {
      draft.instruction.operands[i] = operand;
      draft.variable[i] = variable;
      return;
    }
  }
  LPU_CHECK(false, "an instruction has four operands");
}

Draft unit(Opcode opcode,
           std::int64_t at,
           Hemisphere hemisphere,
           std::int32_t index,
           std::int32_t alus,
           Repeat outer,
           Repeat inner) {
  Draft draft;
  Instruction& in = draft.instruction;
  in.opcode = opcode;
  in.start = static_cast<std::int32_t>(at);
  in.hemisphere = hemisphere;
  in.index = static_cast<std::uint8_t>(index);
  in.alus = static_cast<std::uint8_t>(alus);
  in.count[0] = static_cast<std::uint16_t>(outer.count);
  in.period[0] = outer.count > 1 ? outer.period : 0;
  in.count[1] = static_cast<std::uint16_t>(inner.count);
  in.period[1] = inner.count > 1 ? inner.period : 0;
  return draft;
}

namespace {

/// A scratch access: a group's rows at once, over the buffer's slices (loop 2).
Draft memory(StageBuilder& builder,
             Opcode opcode,
             BufferId id,
             std::int32_t row,
             std::int64_t at,
             std::int32_t other_end,
             const Lane& lane,
             Repeat outer,
             std::int32_t outer_step,
             Repeat inner,
             std::int32_t inner_step,
             std::int32_t width) {
  const Buffer& buffer = builder.at(id);
  LPU_CHECK(buffer.hemisphere == lane.hemisphere, builder.tensor_at(buffer.tensor).name + ": another hemisphere");
  const std::int32_t position = builder.chip().slice_position(buffer.slice);
  const std::int32_t distance = std::abs(position - other_end);
  const bool is_read = opcode == Opcode::kRead;
  Draft draft = unit(opcode, is_read ? at - distance : at + distance, buffer.hemisphere, buffer.slice, 0, outer, inner);
  Instruction& in = draft.instruction;
  const std::int32_t first = row - buffer.first_row;
  in.index = static_cast<std::uint8_t>(buffer.slice + first % buffer.width);
  in.address = static_cast<std::uint16_t>(first / buffer.width + buffer.phase);
  LPU_CHECK(
      outer_step % buffer.width == 0 && inner_step % buffer.width == 0 && (width == 1 || first % buffer.width == 0),
      builder.tensor_at(buffer.tensor).name + ": not a whole group");
  in.address_stride[0] = static_cast<std::int16_t>(outer_step / buffer.width);
  in.address_stride[1] = static_cast<std::int16_t>(inner_step / buffer.width);
  in.count[2] = static_cast<std::uint16_t>(width);
  in.index_stride[2] = 1;
  Lane own = lane;
  own.streams = 1;
  own.stream_stride = width > 1 ? 1 : 0;
  add(draft,
      operand(is_read ? OperandKind::kOut : OperandKind::kIn,
              own,
              {buffer.tensor, row, {outer_step, inner_step, width > 1 ? 1 : 0}},
              is_read ? other_end : 0),
      lane.variable);
  draft.buffer = id;
  return draft;
}

}  // namespace

Draft read_rows(StageBuilder& builder,
                BufferId buffer,
                std::int32_t row,
                std::int64_t at,
                std::int32_t target,
                const Lane& lane,
                Repeat outer,
                std::int32_t outer_step,
                Repeat inner,
                std::int32_t inner_step) {
  return memory(builder,
                Opcode::kRead,
                buffer,
                row,
                at,
                target,
                lane,
                outer,
                outer_step,
                inner,
                inner_step,
                builder.at(buffer).width);
}
Draft read_row(
    StageBuilder& builder, BufferId buffer, std::int32_t row, std::int64_t at, std::int32_t target, const Lane& lane) {
  return memory(builder, Opcode::kRead, buffer, row, at, target, lane, {}, 0, {}, 0, 1);
}
Draft write_rows(StageBuilder& builder,
                 BufferId buffer,
                 std::int32_t row,
                 std::int64_t at,
                 std::int32_t source,
                 const Lane& lane,
                 Repeat outer,
                 std::int32_t outer_step,
                 Repeat inner,
                 std::int32_t inner_step) {
  return memory(builder,
                Opcode::kWrite,
                buffer,
                row,
                at,
                source,
                lane,
                outer,
                outer_step,
                inner,
                inner_step,
                builder.at(buffer).width);
}
Draft write_row(
    StageBuilder& builder, BufferId buffer, std::int32_t row, std::int64_t at, std::int32_t source, const Lane& lane) {
  return memory(builder, Opcode::kWrite, buffer, row, at, source, lane, {}, 0, {}, 0, 1);
}

}  // namespace lpu::scheduler
