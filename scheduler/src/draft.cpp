#include "draft.hpp"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <vector>

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

bool fuse(StageBuilder& builder, Template& first, const Template& second, Kept rows) {
  struct Pair {
    std::size_t write;
    std::size_t read;
  };
  const auto is_single = [](const Instruction& in) { return in.count[0] == 1 && in.count[1] == 1; };
  struct Candidate {
    Pair pair;
    std::int64_t taken;   // cycle of the second in which the row is at the VXM
    std::int64_t offset;  // by which the second would have to move for it
  };
  std::vector<Candidate> candidates;
  for (std::size_t r = 0; r < second.drafts.size(); ++r) {
    const Draft& read = second.drafts[r];
    if (read.instruction.opcode != Opcode::kRead || read.buffer < 0) {
      continue;
    }
    for (std::size_t w = 0; w < first.drafts.size(); ++w) {
      const Draft& write = first.drafts[w];
      if (write.instruction.opcode != Opcode::kWrite || write.buffer != read.buffer || !is_single(read.instruction) ||
          !is_single(write.instruction) || write.variable[0] < 0 ||
          write.instruction.operands[0].row != read.instruction.operands[0].row ||
          write.instruction.operands[0].direction != Direction::kOutward) {
        continue;
      }
      const std::int32_t distance = position_of(builder, read.buffer) - builder.chip().vxm_position;
      const std::int64_t taken = read.instruction.start + distance;
      candidates.push_back({{w, r}, taken, write.instruction.start - distance - taken});
    }
  }
  if (candidates.empty()) {
    return false;
  }
  // What is needed first goes on without a stop; rows that are read later than that come from SRAM, if they can by
  // then.
  const auto soonest = std::min_element(
      candidates.begin(), candidates.end(), [](const Candidate& x, const Candidate& y) { return x.taken < y.taken; });
  const std::int64_t offset = soonest->offset;
  std::vector<Pair> pairs;
  std::vector<bool> is_kept(first.drafts.size(), rows == Kept::kYes);
  for (const Candidate& candidate : candidates) {
    if (candidate.offset == offset) {
      pairs.push_back(candidate.pair);
      continue;
    }
    const Instruction& read = second.drafts[candidate.pair.read].instruction;
    const Instruction& write = first.drafts[candidate.pair.write].instruction;
    if (read.start + offset <= write.start + builder.chip().instruction_propagation.count()) {
      return false;
    }
    is_kept[candidate.pair.write] = true;
  }
  const Template unfused = first;
  const auto shift = static_cast<VariableId>(first.variables.size());
  std::map<VariableId, VariableId> taken_from;  // variable of the second to that of the first
  for (const Pair& pair : pairs) {
    taken_from[second.drafts[pair.read].variable[0]] = first.drafts[pair.write].variable[0];
  }
  first.variables.insert(first.variables.end(), second.variables.begin(), second.variables.end());
  for (std::size_t r = 0; r < second.drafts.size(); ++r) {
    if (std::any_of(pairs.begin(), pairs.end(), [&](const Pair& pair) { return pair.read == r; })) {
      continue;
    }
    Draft draft = second.drafts[r];
    draft.instruction.start = static_cast<std::int32_t>(draft.instruction.start + offset);
    for (std::size_t i = 0; i < draft.variable.size(); ++i) {
      if (draft.variable[i] < 0) {
        continue;
      }
      const auto found = taken_from.find(draft.variable[i]);
      if (found == taken_from.end()) {
        draft.variable[i] += shift;
      } else {
        draft.variable[i] = found->second;
        draft.instruction.operands[i].direction = Direction::kOutward;
      }
    }
    first.drafts.push_back(std::move(draft));
  }
  std::vector<std::size_t> gone;
  for (const Pair& pair : pairs) {
    if (is_kept[pair.write]) {
      continue;
    }
    gone.push_back(pair.write);
    const VariableId variable = first.drafts[pair.write].variable[0];
    for (Draft& draft : first.drafts) {
      for (std::size_t i = 0; i < draft.variable.size(); ++i) {
        if (draft.variable[i] == variable && draft.instruction.operands[i].kind == OperandKind::kOut) {
          draft.instruction.operands[i].reach = static_cast<std::uint8_t>(builder.chip().vxm_position);
        }
      }
    }
  }
  std::sort(gone.rbegin(), gone.rend());
  for (const std::size_t w : gone) {
    first.drafts.erase(first.drafts.begin() + static_cast<std::ptrdiff_t>(w));
  }
  first.sxm_trips += second.sxm_trips;
  first.activation_slots += second.activation_slots;
  if (second.not_before - offset > first.not_before) {
    first.not_before = second.not_before - offset;
    first.after = second.after;
  }
  first.reads_own_rows = true;
  if (!builder.fits_alone(first)) {
    first = unfused;
    return false;
  }
  return true;
}

}  // namespace lpu::scheduler
