#include <algorithm>
#include <tuple>

#include "lowering.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"

namespace lpu::scheduler {

using node::Direction;
using node::Hemisphere;
using node::Opcode;
using node::OperandKind;
using node::OperatorPart;
using node::TensorOwner;
using node::TensorScope;

namespace {
constexpr std::int32_t kFloatStreams = 4;
// Scratch slices by role (taken modulo the slices that the stage keeps for scratch): what one pass reads and writes at
// a time lies in different slices.
constexpr std::int32_t kGatheredSlice = 0;
constexpr std::int32_t kOwnWestSlice = 0;
constexpr std::int32_t kGammaSlice = 4;
constexpr std::int32_t kActivationSlice = 8;
constexpr std::int32_t kScalarSlice = 8;
}  // namespace

TensorId Lowering::tensor(const std::string& name,
                          std::int32_t layer_slot,
                          std::int32_t rows,
                          std::vector<TensorId> sources,
                          TensorScope scope) {
  return builder_.tensor({.name = name,
                          .scope = scope,
                          .owner = TensorOwner::kChip,
                          .layer_slot = layer_slot,
                          .rows = rows,
                          .sources = std::move(sources)});
}

Gathered Lowering::gathered(const std::string& name,
                            std::int32_t layer_slot,
                            const Packing& packing,
                            std::vector<TensorId> sources,
                            std::int32_t alternate) {
  const std::int32_t per_slot = batch_ * rows_per_token(packing);
  const std::int32_t width = path_.wire_bytes;
  Gathered out;
  out.packing = packing;
  out.tensor = builder_.tensor({.name = name,
                                .scope = TensorScope::kIteration,
                                .owner = TensorOwner::kGathered,
                                .layer_slot = layer_slot,
                                .rows = per_slot * shard_.tensor_parallel,
                                .rows_per_slot = per_slot,
                                .sources = std::move(sources)});
  const std::int32_t slice = kGatheredSlice + (alternate % 2) * width;
  if (shard_.west_slots() > 0) {
    out.part[0] = builder_.buffer(out.tensor, Hemisphere::kWest, slice, width, shard_.west_slots() * per_slot);
    out.own_west = builder_.buffer(out.tensor,
                                   Hemisphere::kWest,
                                   kOwnWestSlice + 4 + (alternate % 2) * width,
                                   width,
                                   per_slot,
                                   own_slot() * per_slot);
  }
  out.part[1] = builder_.buffer(
      out.tensor, Hemisphere::kEast, slice, width, shard_.east_slots() * per_slot, own_slot() * per_slot);
  return out;
}

Activation Lowering::activation(const std::string& name,
                                std::int32_t layer_slot,
                                const Packing& packing,
                                const std::vector<TensorId>& sources) {
  Activation out;
  const std::int32_t width = path_.activation_streams;
  out.rows = shard_.rows(packing);
  for (std::size_t half = 0; half < 2; ++half) {
    out.tiles[half] = out.rows.tiles[half];
    if (out.tiles[half] == 0) {
      continue;
    }
    const std::int32_t rows = batch_ * out.tiles[half] * width;
    out.tensor[half] = tensor(name + (half == 0 ? ".west" : ".east"), layer_slot, rows, sources);
    for (const Hemisphere hemisphere : kHemispheres) {
      const std::int32_t slice = kActivationSlice + static_cast<std::int32_t>(half) * width;
      out.buffer[static_cast<std::size_t>(hemisphere)][half] =
          builder_.buffer(out.tensor[half], hemisphere, slice, width, rows);
    }
  }
  return out;
}

Lowering::GatherSend Lowering::gather_send(
    const Gathered& value, Hemisphere hemisphere, std::int32_t own_row, std::uint16_t transfer, OperatorPart part) {
  const node::ChipSpec& chip = builder_.chip();
  const bool is_west = hemisphere == Hemisphere::kWest;
  GatherSend out;
  out.shape.part = part;
  out.lead = chip.sxm_position - position_of(builder_, value.part[1]);
  const std::int32_t first = is_west ? 0 : kWestLocalLinks;
  const std::int32_t count = is_west ? west_links() : east_links();
  for (std::int32_t link = first; link < first + count; ++link) {
    out.links.push_back(link);
  }
  if (count <= 0) {
    return out;
  }
  const VariableId vector = out.shape.value(1);
  const Lane lane{.hemisphere = hemisphere, .variable = vector};
  out.shape.drafts.push_back(
      read_row(builder_, is_west ? value.own_west : value.part[1], own_row, out.lead, chip.sxm_position, lane));
  const node::Instruction& read = out.shape.drafts.back().instruction;
  Draft send =
      unit(Opcode::kSend, read.start + chip.sxm_position - chip.slice_position(read.index), hemisphere, first, 0);
  send.instruction.count[2] = static_cast<std::uint16_t>(count);
  send.instruction.index_stride[2] = 1;
  send.instruction.transfer = transfer;
  add(send, operand(OperandKind::kIn, lane, {value.tensor, own_row}, 0), vector);
  out.shape.drafts.push_back(std::move(send));
  return out;
}

bool Lowering::gather_take(const Gathered& value,
                           std::int32_t row_in_part,
                           const std::vector<std::int32_t>& links,
                           std::uint16_t transfer,
                           std::int64_t arrival,
                           PlacementId sent,
                           OperatorPart part) {
  const node::ChipSpec& chip = builder_.chip();
  LinkTable& table = builder_.links();
  const std::int32_t per_slot = batch_ * rows_per_token(value.packing);
  const std::int64_t longest = (chip.link_queue_vectors - 1) * chip.link_serialisation.count();
  // Links take their vectors one after another; two cycles apart where near weights leave each bank every second cycle.
  for (std::int64_t trial = 0; trial <= 2 * longest + 1; ++trial) {
    const std::int64_t wait = trial / 2;
    const auto pace = static_cast<std::int32_t>(1 + trial % 2);
    Template take;
    take.part = part;
    take.not_before = arrival + wait;
    take.after = sent;
    std::array<VariableId, 2> stream{-1, -1};
    std::vector<std::pair<std::int32_t, std::int64_t>> takes;
    for (const std::int32_t link : links) {
      const bool is_west = link < kWestLocalLinks;
      const std::int32_t stagger = pace * (is_west ? link : link - kWestLocalLinks);
      const Hemisphere hemisphere = is_west ? Hemisphere::kWest : Hemisphere::kEast;
      auto& variable = stream[static_cast<std::size_t>(hemisphere)];
      if (variable < 0) {
        variable = take.value(1);
      }
      const std::int32_t slot = is_west ? link : own_slot() + 1 + link - kWestLocalLinks;
      const Lane lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = variable};
      const BufferId buffer = value.part[static_cast<std::size_t>(hemisphere)];
      Draft in = unit(Opcode::kReceive, stagger, hemisphere, link, 0);
      in.instruction.transfer = transfer;
      in.instruction.argument = static_cast<std::int32_t>(wait + stagger);
      add(in,
          operand(
              OperandKind::kOut, lane, {value.tensor, slot * per_slot + row_in_part}, position_of(builder_, buffer)),
          variable);
      take.drafts.push_back(std::move(in));
      take.drafts.push_back(
          write_row(builder_, buffer, slot * per_slot + row_in_part, stagger, chip.sxm_position, lane));
      takes.emplace_back(link, arrival + wait + stagger);
    }
    const bool may = std::all_of(
        takes.begin(), takes.end(), [&](const auto& at) { return table.may_take(at.first, arrival, at.second); });
    if (may && builder_.try_place(take, arrival + wait, 1) >= 0) {
      for (const auto& [link, at] : takes) {
        table.receive(link, arrival, at);
      }
      return true;
    }
  }
  return false;
}

void Lowering::gather_row(
    Gathered& value, Hemisphere hemisphere, std::int32_t row_in_part, std::uint16_t transfer, OperatorPart part) {
  const std::int32_t own_row = own_slot() * batch_ * rows_per_token(value.packing) + row_in_part;
  const GatherSend send = gather_send(value, hemisphere, own_row, transfer, part);
  if (send.links.empty()) {
    return;
  }
  LinkTable& table = builder_.links();
  const std::int64_t ready = builder_.ready_time(send.shape);
  bool was_sent = false;
  for (std::int64_t start = ready; start < ready + search_span(); ++start) {
    const std::int64_t push = start + send.lead;
    const std::int64_t departs = table.start_of(send.links.front(), push);
    const bool is_free = departs >= 0 && std::all_of(send.links.begin(), send.links.end(), [&](std::int32_t link) {
                           return table.start_of(link, push) == departs;
                         });
    if (!is_free) {
      continue;
    }
    // The peers do the same at the same time: what is sent now must find its way into SRAM when it comes.
    const auto undo = builder_.checkpoint();
    const PlacementId sent = builder_.try_place(send.shape, start, 1);
    was_sent = was_sent || sent >= 0;
    const std::int64_t arrival = departs + builder_.chip().link_latency().count();
    if (sent >= 0 && gather_take(value, row_in_part, send.links, transfer, arrival, sent, part)) {
      builder_.keep();
      for (const std::int32_t link : send.links) {
        table.send(link, push, departs);
      }
      return;
    }
    builder_.restore(undo);
  }
  throw NoSchedule(was_sent ? "a receive" : "a send");
}

void Lowering::gather(Gathered& value, const std::string& name, std::int32_t layer_slot, OperatorPart part) {
  if (shard_.tensor_parallel == 1) {
    return;
  }
  const std::int32_t per_slot = batch_ * rows_per_token(value.packing);
  const std::uint16_t transfer = builder_.transfer(name, layer_slot, per_slot);
  for (std::int32_t row = 0; row < per_slot; ++row) {
    for (const Hemisphere hemisphere : kHemispheres) {
      gather_row(value, hemisphere, row, transfer, part);
    }
  }
}

Scalar Lowering::reduce(const std::string& name,
                        std::int32_t layer_slot,
                        TensorId partial,
                        const std::array<BufferId, 2>& parts,
                        std::int32_t first_row,
                        std::int32_t groups,
                        Opcode combine,
                        Opcode finish,
                        Hemisphere hemisphere,
                        OperatorPart part,
                        Template* before,
                        std::int32_t slice) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int64_t out_trip = chip.sxm_position - chip.vxm_position;
  const std::int32_t alu = 8 + 2 * static_cast<std::int32_t>(hemisphere);
  const std::int64_t step_latency = node::latency(combine, chip).count();
  const std::int64_t trip =
      step_latency + out_trip + chip.sxm_latency.count() + out_trip;  // VXM issue to next VXM issue
  constexpr std::int32_t kTrips = 3;
  std::array<TensorId, kTrips + 1> whole{};
  std::array<TensorId, kTrips> moved{};
  whole[0] = tensor(name + ".combined", layer_slot, kFloatStreams, {partial});
  for (std::size_t i = 0; i < kTrips; ++i) {
    moved[i] = tensor(name + ".moved" + std::to_string(i), layer_slot, kFloatStreams, {whole[i]});
    whole[i + 1] =
        tensor(i + 1 < kTrips ? name + ".folded" + std::to_string(i) : name, layer_slot, kFloatStreams, {moved[i]});
  }
  Scalar out{.tensor = whole[kTrips],
             .buffer = builder_.buffer(whole[kTrips], hemisphere, slice, kFloatStreams, kFloatStreams),
             .row = 0,
             .hemisphere = hemisphere};

  // Beside a vector that is read from bank 0 on in the cycle of the write.
  builder_.at(out.buffer).phase = slice == kScalarSlice ? 0 : 1;

  const auto lane = [&](VariableId value, Direction direction) {
    return Lane{.hemisphere = hemisphere, .direction = direction, .variable = value, .streams = kFloatStreams};
  };
  // The VXM operation of step i, issued at `at`; its input is whole or in SRAM.
  const auto begin = [&](Template& shape, std::int64_t at) {
    Draft first = unit(combine, at, hemisphere, alu, 2, {groups, 1});
    const std::int64_t last = at + groups - 1;
    for (const Hemisphere side : kHemispheres) {
      const BufferId buffer = parts[static_cast<std::size_t>(side)];
      if (buffer < 0) {
        continue;
      }
      const VariableId value = shape.value(kFloatStreams);
      const Lane in{.hemisphere = side, .direction = Direction::kInward, .variable = value, .streams = kFloatStreams};
      const std::int32_t row = builder_.at(buffer).first_row + first_row;
      shape.drafts.push_back(read_rows(builder_, buffer, row, at, chip.vxm_position, in, {groups, 1}, kFloatStreams));
      add(first, operand(OperandKind::kIn, in, {partial, row, {kFloatStreams, 0, 0}}, 0), value);
    }
    const VariableId made = shape.value(kFloatStreams);
    add(first,
        operand(
            OperandKind::kOut, lane(made, Direction::kOutward), {whole[0]}, chip.sxm_position, groups > 1 ? 1U : 0U),
        made);
    shape.drafts.push_back(std::move(first));
    return std::pair(made, last + step_latency);
  };
  const auto move = [&](Template& shape, std::size_t i, VariableId value, std::int64_t at_sxm, std::int32_t reach) {
    Draft step = unit(Opcode::kReduceStep, at_sxm, hemisphere, 0, 0);
    add(step, operand(OperandKind::kIn, lane(value, Direction::kOutward), {whole[i]}, 0), value);
    const VariableId back = shape.value(kFloatStreams);
    add(step, operand(OperandKind::kOut, lane(back, Direction::kInward), {moved[i]}, reach), back);
    shape.drafts.push_back(std::move(step));
    return back;
  };
  const auto fold = [&](Template& shape, std::size_t i, VariableId value, std::int64_t at, std::int32_t reach) {
    const Opcode opcode = i + 1 < kTrips ? combine : finish;
    Draft step = unit(opcode, at, hemisphere, alu, 2);
    add(step, operand(OperandKind::kIn, lane(value, Direction::kInward), {moved[i]}, 0), value);
    const VariableId made = shape.value(kFloatStreams);
    add(step, operand(OperandKind::kOut, lane(made, Direction::kOutward), {whole[i + 1]}, reach), made);
    shape.drafts.push_back(std::move(step));
    return made;
  };

  // In one flow, without touching SRAM between the trips; in a crowded interval this rarely finds three free diagonals.
  {
    Template shape;
    shape.part = part;
    shape.sxm_trips = kTrips * (out_trip + chip.sxm_latency.count() + out_trip);
    auto [value, at] = begin(shape, 0);
    std::int64_t vxm = at - step_latency;
    for (std::size_t i = 0; i < kTrips; ++i) {
      const VariableId back = move(shape, i, value, vxm + step_latency + out_trip, chip.vxm_position);
      vxm += trip;
      value = fold(shape, i, back, vxm, i + 1 < kTrips ? chip.sxm_position : position_of(builder_, out.buffer));
    }
    shape.drafts.push_back(write_rows(builder_,
                                      out.buffer,
                                      0,
                                      vxm + node::latency(finish, chip).count(),
                                      chip.vxm_position,
                                      lane(value, Direction::kOutward)));
    if (load_ == Load::kEmpty && before != nullptr) {
      const std::int64_t trips = before->sxm_trips;
      if (fuse(builder_, *before, shape, Kept::kNo)) {
        before->sxm_trips = std::max(trips, shape.sxm_trips);  // chains from one pass run side by side
        return out;
      }
    }
    if (before != nullptr && !before->drafts.empty()) {
      builder_.place(*before);
      before->drafts.clear();
    }
    if (builder_.period() == 0) {
      builder_.place(shape);
      return out;
    }
    if (builder_.try_place(shape, 0, kFlowAttempts) >= 0) {
      return out;
    }
  }
  // Trip by trip: what comes back from the SXM waits in SRAM until the next way out has a free diagonal.
  BufferId waiting = -1;
  for (std::size_t i = 0; i <= kTrips; ++i) {
    Template shape;
    shape.part = part;
    VariableId value = -1;
    std::int64_t ready = 0;
    if (i == 0) {
      std::tie(value, ready) = begin(shape, 0);
    } else {
      const VariableId back = shape.value(kFloatStreams);
      shape.drafts.push_back(read_rows(builder_, waiting, 0, 0, chip.vxm_position, lane(back, Direction::kInward)));
      value = fold(shape, i - 1, back, 0, i < kTrips ? chip.sxm_position : position_of(builder_, out.buffer));
      ready = node::latency(i < kTrips ? combine : finish, chip).count();
    }
    if (i == kTrips) {
      shape.drafts.push_back(
          write_rows(builder_, out.buffer, 0, ready, chip.vxm_position, lane(value, Direction::kOutward)));
    } else {
      waiting = builder_.buffer(moved[i], hemisphere, kScalarSlice, kFloatStreams, kFloatStreams);
      const std::int64_t at_sxm = ready + out_trip;
      const VariableId back = move(shape, i, value, at_sxm, position_of(builder_, waiting));
      shape.drafts.push_back(write_rows(
          builder_, waiting, 0, at_sxm + chip.sxm_latency.count(), chip.sxm_position, lane(back, Direction::kInward)));
    }
    builder_.place(shape);
  }
  return out;
}

void Lowering::place_rest(const Template& shape) {
  if (!shape.drafts.empty()) {
    builder_.place(shape);
  }
}

const Template& Lowering::chain(Template& before, const Template& shape, Kept rows) {
  if (before.drafts.empty()) {
    return shape;
  }
  if (fuse(builder_, before, shape, rows)) {
    return before;
  }
  builder_.place(before);
  return shape;
}

std::array<BufferId, 2> Lowering::partials(TensorId tensor, std::int32_t rows_per_side, std::int32_t slice) {
  return {builder_.buffer(tensor, Hemisphere::kWest, slice, kFloatStreams, rows_per_side, 0),
          builder_.buffer(tensor, Hemisphere::kEast, slice, kFloatStreams, rows_per_side, rows_per_side)};
}

void Lowering::scale_pass(const Gathered& value,
                          std::int32_t token,
                          const std::optional<Scalar>& scale,
                          const std::optional<Scalar>& quantum,
                          const Gamma* gamma,
                          const Activation& out,
                          TensorId intermediate,
                          OperatorPart part,
                          Template& before) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t made_width = path_.activation_streams;
  const std::int32_t per_token = rows_per_token(value.packing);
  const std::int32_t per_slot = batch_ * per_token;
  const Opcode last_opcode = quantum ? Opcode::kQuantise : Opcode::kConvert;
  const bool in_two = scale.has_value();
  // Pieces: runs of whole groups, then each joined remainder; both halves run side by side.
  struct Stretch {
    std::int32_t first_slot, slots, first_group, groups, tile;
    bool joins;
  };
  std::array<std::vector<Stretch>, 2> pieces;
  for (std::size_t half = 0; half < 2; ++half) {
    const std::int32_t slots = half == 0 ? shard_.west_slots() : shard_.east_slots();
    if (slots == 0) {
      continue;
    }
    if (value.packing.full > 0) {
      pieces[half].push_back({0, slots, 0, value.packing.full, 0, false});
    }
    if (value.packing.remainder > 0) {
      const std::int32_t joined = out.rows.slots_per_tile;
      for (std::int32_t slot = 0; slot < slots; slot += joined) {
        pieces[half].push_back({slot,
                                std::min(joined, slots - slot),
                                value.packing.full,
                                1,
                                slots * value.packing.full + slot / joined,
                                true});
      }
    }
  }
  const std::size_t steps = std::max(pieces[0].size(), pieces[1].size());
  for (std::size_t step = 0; step < steps; ++step) {
    Template shape;
    shape.part = part;
    VariableId scale_value = -1;
    VariableId quantum_value = -1;
    const std::int64_t second = in_two ? chip.vxm_latency.count() : 0;
    if (scale) {
      scale_value = shape.value(kFloatStreams);
      shape.drafts.push_back(read_rows(builder_,
                                       scale->buffer,
                                       scale->row,
                                       0,
                                       chip.vxm_position,
                                       {.hemisphere = scale->hemisphere,
                                        .direction = Direction::kInward,
                                        .variable = scale_value,
                                        .streams = kFloatStreams}));
    }
    if (quantum) {
      quantum_value = shape.value(kFloatStreams);
      shape.drafts.push_back(read_rows(builder_,
                                       quantum->buffer,
                                       quantum->row,
                                       second,
                                       chip.vxm_position,
                                       {.hemisphere = quantum->hemisphere,
                                        .direction = Direction::kInward,
                                        .variable = quantum_value,
                                        .streams = kFloatStreams}));
    }
    for (std::size_t half = 0; half < 2; ++half) {
      if (step >= pieces[half].size()) {
        continue;
      }
      const Stretch& piece = pieces[half][step];
      const Hemisphere hemisphere = kHemispheres[half];
      const std::int32_t slot_base = half == 0 ? 0 : own_slot();
      const std::int32_t row =
          (slot_base + piece.first_slot) * per_slot + token * per_token + piece.first_group * width;
      const Repeat groups{piece.groups, pass_period_};
      const Repeat slots{piece.slots, pass_period_ * piece.groups};
      const unsigned hold = piece.joins && piece.slots > 1 ? 1U : 0U;  // loop 0 runs over the joined slots
      const unsigned hold_scalar = (piece.slots > 1 ? 1U : 0U) | (piece.groups > 1 ? 2U : 0U);
      const auto alu = static_cast<std::int32_t>(half) * 2;

      const VariableId x = shape.value(width);
      const Lane x_lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = x, .streams = width};
      shape.drafts.push_back(
          read_rows(builder_, value.part[half], row, 0, chip.vxm_position, x_lane, slots, per_slot, groups, width));
      std::pair<Lane, Rows> input{x_lane, {value.tensor, row, {per_slot, width, 0}}};
      if (in_two) {
        Draft scaling = unit(Opcode::kScale, 0, hemisphere, alu, 2, slots, groups);
        add(scaling, operand(OperandKind::kIn, input.first, input.second, 0), x);
        if (gamma != nullptr) {
          const VariableId g = shape.value(width);
          const Lane g_lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = g, .streams = width};
          const std::int32_t g_row = (slot_base + piece.first_slot) * per_token + piece.first_group * width;
          shape.drafts.push_back(read_rows(
              builder_, gamma->rows[half], g_row, 0, chip.vxm_position, g_lane, slots, per_token, groups, width));
          add(scaling, operand(OperandKind::kIn, g_lane, {gamma->tensor, g_row, {per_token, width, 0}}, 0), g);
        }
        add(scaling,
            operand(OperandKind::kIn,
                    {.hemisphere = scale->hemisphere,
                     .direction = Direction::kInward,
                     .variable = scale_value,
                     .streams = kFloatStreams},
                    {scale->tensor, scale->row},
                    0,
                    hold_scalar),
            scale_value);
        const VariableId t = shape.value(kFloatStreams);
        const Lane t_lane{.hemisphere = hemisphere, .variable = t, .streams = kFloatStreams};
        const std::int32_t t_per_slot = kFloatStreams * value.packing.groups;
        const Rows t_rows{
            intermediate,
            ((slot_base + piece.first_slot) * batch_ + token) * t_per_slot + piece.first_group * kFloatStreams,
            {t_per_slot * batch_, kFloatStreams, 0}};
        add(scaling, operand(OperandKind::kOut, t_lane, t_rows, chip.vxm_position), t);
        shape.drafts.push_back(std::move(scaling));
        input = {t_lane, t_rows};
      }
      Draft finishing = unit(last_opcode, second, hemisphere, 4 + alu, 2, slots, groups);
      add(finishing, operand(OperandKind::kIn, input.first, input.second, 0), input.first.variable);
      if (quantum) {
        add(finishing,
            operand(OperandKind::kIn,
                    {.hemisphere = quantum->hemisphere,
                     .direction = Direction::kInward,
                     .variable = quantum_value,
                     .streams = kFloatStreams},
                    {quantum->tensor, quantum->row},
                    0,
                    hold_scalar),
            quantum_value);
      }
      const std::int64_t made_at =
          second + chip.vxm_latency.count() + (hold != 0 ? (piece.slots - 1) * slots.period : 0);
      const std::int32_t made_row = (token * out.tiles[half] + piece.tile) * made_width;
      const std::int32_t slot_step = piece.joins ? 0 : piece.groups * made_width;
      for (const Hemisphere side : kHemispheres) {
        const BufferId buffer = out.buffer[static_cast<std::size_t>(side)][half];
        const VariableId made = shape.value(made_width);
        const Lane made_lane{.hemisphere = side, .variable = made, .streams = made_width};
        add(finishing,
            operand(OperandKind::kOut,
                    made_lane,
                    {out.tensor[half], made_row, {slot_step, made_width, 0}},
                    position_of(builder_, buffer),
                    hold),
            made);
        shape.drafts.push_back(write_rows(builder_,
                                          buffer,
                                          made_row,
                                          made_at,
                                          chip.vxm_position,
                                          made_lane,
                                          piece.joins ? Repeat{} : slots,
                                          slot_step,
                                          piece.joins ? Repeat{} : groups,
                                          made_width));
      }
      shape.drafts.push_back(std::move(finishing));
    }
    builder_.place(chain(before, shape, steps > 1 ? Kept::kYes : Kept::kNo));
    before.drafts.clear();
  }
}

void Lowering::joined_pass(const Gathered& value,
                           std::int32_t token,
                           const std::optional<Scalar>& scale,
                           const std::optional<Scalar>& quantum,
                           const Gamma* gamma,
                           const Activation& out,
                           const std::string& name,
                           std::int32_t layer_slot,
                           OperatorPart part,
                           Template& before) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t made_width = path_.activation_streams;
  const std::int32_t per_token = rows_per_token(value.packing);
  const std::int32_t per_slot = batch_ * per_token;
  const std::int32_t lanes = chip.vector_bytes;
  const std::array<std::int32_t, 2> slots{shard_.west_slots(), shard_.east_slots()};

  // One step: a group enters the SXM and, where it fills a row, the row leaves for the VXM.
  struct Step {
    std::int32_t row = -1;  ///< of the gathered tensor; -1: nothing enters (flush)
    std::int32_t gamma_row = 0;
    std::int32_t tile = -1;  ///< -1: no row is full yet
  };
  std::array<std::vector<Step>, 2> steps;
  std::array<bool, 2> has_rest{};
  for (std::size_t half = 0; half < 2; ++half) {
    const std::int32_t base = half == 0 ? 0 : own_slot();
    std::int32_t filled = 0;
    std::int32_t tile = 0;
    for (std::int32_t slot = 0; slot < slots[half]; ++slot) {
      for (std::int32_t group = 0; group < value.packing.groups; ++group) {
        filled += group < value.packing.full ? lanes : value.packing.remainder;
        Step step{.row = (base + slot) * per_slot + token * per_token + group * width,
                  .gamma_row = (base + slot) * per_token + group * width};
        if (filled >= lanes) {
          filled -= lanes;
          step.tile = tile++;
        }
        steps[half].push_back(step);
      }
    }
    has_rest[half] = filled > 0;
    if (filled > 0 && !out.rows.shares_last) {
      steps[half].push_back({.tile = tile});
    }
  }
  const std::size_t count = std::max(steps[0].size(), steps[1].size()) + (out.rows.shares_last ? 1 : 0);
  std::vector<TensorId> entering_sources{value.tensor};
  TensorId entering = value.tensor;
  if (scale) {
    entering = tensor(
        name + ".scaled", layer_slot, shard_.tensor_parallel * per_slot, {value.tensor, gamma->tensor, scale->tensor});
  }
  std::array<TensorId, 2> joined{};
  for (std::size_t half = 0; half < 2; ++half) {
    if (slots[half] > 0) {
      joined[half] =
          tensor(name + (half == 0 ? ".west" : ".east"), layer_slot, (out.tiles[half] + 1) * width, {entering});
    }
  }
  TensorId together = 0;
  if (out.rows.shares_last) {
    together = tensor(name + ".together", layer_slot, kFloatStreams, {joined[0], joined[1]});
    builder_.add_source(out.tensor[1], together);
  }
  for (std::size_t half = 0; half < 2; ++half) {
    if (out.tiles[half] > 0) {
      builder_.add_source(out.tensor[half], joined[half]);
    }
  }
  // Whole rows of a slice group are read at once; the scaled value goes straight on to the SXM.
  const std::int64_t to_sxm = chip.sxm_position - chip.vxm_position;
  const std::int64_t at_sxm = scale ? chip.vxm_latency.count() + to_sxm : chip.sxm_position;
  const std::int64_t at_vxm = at_sxm + chip.sxm_latency.count() + to_sxm;
  // Alone, all steps follow one another in one template, the scaling as one burst right behind the reduction of its
  // scale.
  const bool flows = scale && load_ == Load::kEmpty;
  Template whole;
  whole.part = part;
  std::array<VariableId, 2> entered{-1, -1};
  if (flows) {
    entered = scale_burst(whole, value, token, *scale, *gamma, entering, part);
  } else {
    place_rest(before);
  }
  std::int64_t previous = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Template alone;
    alone.part = part;
    Template& shape = flows ? whole : alone;
    const std::int64_t step_at = flows ? static_cast<std::int64_t>(i) : 0;
    const bool is_shared = out.rows.shares_last && i + 1 == count;
    VariableId scale_value = -1;
    if (scale && !flows && !is_shared) {
      scale_value = shape.value(kFloatStreams);
      shape.drafts.push_back(read_rows(builder_,
                                       scale->buffer,
                                       scale->row,
                                       0,
                                       chip.vxm_position,
                                       {.hemisphere = scale->hemisphere,
                                        .direction = Direction::kInward,
                                        .variable = scale_value,
                                        .streams = kFloatStreams}));
    }
    bool is_used_scale = false;
    std::array<std::pair<Lane, Rows>, 2> rows_out;
    std::array<bool, 2> has_row{};
    for (std::size_t half = 0; half < 2; ++half) {
      if (slots[half] == 0 || (!is_shared && i >= steps[half].size()) || (is_shared && !has_rest[half])) {
        continue;
      }
      const Step step = is_shared ? Step{.tile = half == 0 ? out.tiles[0] : out.tiles[1] - 1} : steps[half][i];
      const Hemisphere hemisphere = kHemispheres[half];
      Draft packing = unit(Opcode::kPack, at_sxm + step_at, hemisphere, 0, 0);
      if (step.row >= 0 && flows) {
        const Lane lane{.hemisphere = hemisphere, .variable = entered[half], .streams = width};
        add(packing, operand(OperandKind::kIn, lane, {entering, step.row}, 0), entered[half]);
      } else if (step.row >= 0) {
        const VariableId x = shape.value(width);
        Lane lane{.hemisphere = hemisphere, .variable = x, .streams = width};
        if (scale) {
          is_used_scale = true;
          lane.direction = Direction::kInward;
          shape.drafts.push_back(read_rows(builder_, value.part[half], step.row, 0, chip.vxm_position, lane));
          const VariableId g = shape.value(width);
          const Lane g_lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = g, .streams = width};
          shape.drafts.push_back(read_rows(builder_, gamma->rows[half], step.gamma_row, 0, chip.vxm_position, g_lane));
          Draft scaling = unit(Opcode::kScale, 0, hemisphere, static_cast<std::int32_t>(half) * 2, 2);
          add(scaling, operand(OperandKind::kIn, lane, {value.tensor, step.row}, 0), x);
          add(scaling, operand(OperandKind::kIn, g_lane, {gamma->tensor, step.gamma_row}, 0), g);
          add(scaling,
              operand(OperandKind::kIn,
                      {.hemisphere = scale->hemisphere,
                       .direction = Direction::kInward,
                       .variable = scale_value,
                       .streams = kFloatStreams},
                      {scale->tensor, scale->row},
                      0),
              scale_value);
          const VariableId scaled = shape.value(width);
          const Lane scaled_lane{.hemisphere = hemisphere, .variable = scaled, .streams = width};
          add(scaling, operand(OperandKind::kOut, scaled_lane, {entering, step.row}, chip.sxm_position), scaled);
          shape.drafts.push_back(std::move(scaling));
          add(packing, operand(OperandKind::kIn, scaled_lane, {entering, step.row}, 0), scaled);
        } else {
          shape.drafts.push_back(read_rows(builder_, value.part[half], step.row, at_sxm, chip.sxm_position, lane));
          add(packing, operand(OperandKind::kIn, lane, {entering, step.row}, 0), x);
        }
      }
      if (step.tile >= 0) {
        const VariableId row = shape.value(width);
        const Lane lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = row, .streams = width};
        const Rows rows{joined[half], step.tile * width};
        add(packing, operand(OperandKind::kOut, lane, rows, chip.vxm_position), row);
        rows_out[half] = {lane, rows};
        has_row[half] = true;
      }
      shape.drafts.push_back(std::move(packing));
    }
    LPU_CHECK(
        is_used_scale || scale_value < 0 ||
            std::none_of(steps.begin(), steps.end(), [&](const auto& s) { return i < s.size() && s[i].row >= 0; }),
        name);
    if (scale_value >= 0 && !is_used_scale) {
      shape.drafts.erase(shape.drafts.begin());
    }
    std::int64_t finish_at = at_vxm + step_at;
    if (is_shared) {
      Draft adding = unit(Opcode::kAdd, finish_at, Hemisphere::kWest, 8, 1);
      for (std::size_t half = 0; half < 2; ++half) {
        add(adding,
            operand(OperandKind::kIn, rows_out[half].first, rows_out[half].second, 0),
            rows_out[half].first.variable);
      }
      const VariableId t = shape.value(kFloatStreams);
      const Lane lane{.hemisphere = Hemisphere::kEast, .variable = t, .streams = kFloatStreams};
      add(adding, operand(OperandKind::kOut, lane, {together}, chip.vxm_position), t);
      shape.drafts.push_back(std::move(adding));
      rows_out[1] = {lane, {together}};
      has_row = {false, true};
      finish_at += chip.vxm_latency.count();
    }
    VariableId quantum_value = -1;
    for (std::size_t half = 0; half < 2; ++half) {
      if (!has_row[half]) {
        continue;
      }
      const std::int32_t tile = is_shared ? out.tiles[1] - 1 : steps[half][i].tile;
      Draft finishing = unit(quantum ? Opcode::kQuantise : Opcode::kConvert,
                             finish_at,
                             kHemispheres[half],
                             4 + 2 * static_cast<std::int32_t>(half),
                             2);
      add(finishing,
          operand(OperandKind::kIn, rows_out[half].first, rows_out[half].second, 0),
          rows_out[half].first.variable);
      if (quantum) {
        const bool is_first = quantum_value < 0;
        if (is_first) {
          quantum_value = shape.value(kFloatStreams);
        }
        const Lane lane{.hemisphere = quantum->hemisphere,
                        .direction = Direction::kInward,
                        .variable = quantum_value,
                        .streams = kFloatStreams};
        if (is_first) {
          shape.drafts.push_back(
              read_rows(builder_, quantum->buffer, quantum->row, finish_at, chip.vxm_position, lane));
        }
        add(finishing, operand(OperandKind::kIn, lane, {quantum->tensor, quantum->row}, 0), quantum_value);
      }
      const std::int32_t made_row = (token * out.tiles[half] + tile) * made_width;
      for (const Hemisphere side : kHemispheres) {
        const BufferId buffer = out.buffer[static_cast<std::size_t>(side)][half];
        const VariableId made = shape.value(made_width);
        const Lane lane{.hemisphere = side, .variable = made, .streams = made_width};
        add(finishing,
            operand(OperandKind::kOut, lane, {out.tensor[half], made_row}, position_of(builder_, buffer)),
            made);
        shape.drafts.push_back(
            write_rows(builder_, buffer, made_row, finish_at + chip.vxm_latency.count(), chip.vxm_position, lane));
      }
      shape.drafts.push_back(std::move(finishing));
    }
    if (!flows) {
      const PlacementId id = builder_.place(shape, previous);
      previous = builder_.placement(id).start + 1;
    }
  }
  if (flows) {
    builder_.place(chain(before, whole, Kept::kNo));
  }
}

std::array<VariableId, 2> Lowering::scale_burst(Template& shape,
                                                const Gathered& value,
                                                std::int32_t token,
                                                const Scalar& scale,
                                                const Gamma& gamma,
                                                TensorId scaled,
                                                OperatorPart part) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t per_token = rows_per_token(value.packing);
  const std::int32_t per_slot = batch_ * per_token;
  shape.part = part;
  const VariableId factor = shape.value(kFloatStreams);
  const Lane factor_lane{
      .hemisphere = scale.hemisphere, .direction = Direction::kInward, .variable = factor, .streams = kFloatStreams};
  shape.drafts.push_back(read_rows(builder_, scale.buffer, scale.row, 0, chip.vxm_position, factor_lane));
  std::array<VariableId, 2> out{-1, -1};
  for (std::size_t half = 0; half < 2; ++half) {
    const std::int32_t slots_count = half == 0 ? shard_.west_slots() : shard_.east_slots();
    if (slots_count == 0) {
      continue;
    }
    const Hemisphere hemisphere = kHemispheres[half];
    const std::int32_t base = half == 0 ? 0 : own_slot();
    const std::int32_t row = base * per_slot + token * per_token;
    const std::int32_t gamma_row = base * per_token;
    const Repeat groups{value.packing.groups, 1};
    const Repeat slots{slots_count, value.packing.groups};
    const unsigned hold = (slots_count > 1 ? 1U : 0U) | (value.packing.groups > 1 ? 2U : 0U);
    const VariableId x = shape.value(width);
    const VariableId g = shape.value(width);
    out[half] = shape.value(width);
    const Lane x_lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = x, .streams = width};
    const Lane g_lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = g, .streams = width};
    const Lane out_lane{.hemisphere = hemisphere, .variable = out[half], .streams = width};
    shape.drafts.push_back(
        read_rows(builder_, value.part[half], row, 0, chip.vxm_position, x_lane, slots, per_slot, groups, width));
    shape.drafts.push_back(read_rows(
        builder_, gamma.rows[half], gamma_row, 0, chip.vxm_position, g_lane, slots, per_token, groups, width));
    Draft scaling = unit(Opcode::kScale, 0, hemisphere, static_cast<std::int32_t>(half) * 2, 2, slots, groups);
    add(scaling, operand(OperandKind::kIn, x_lane, {value.tensor, row, {per_slot, width, 0}}, 0), x);
    add(scaling, operand(OperandKind::kIn, g_lane, {gamma.tensor, gamma_row, {per_token, width, 0}}, 0), g);
    add(scaling, operand(OperandKind::kIn, factor_lane, {scale.tensor, scale.row}, 0, hold), factor);
    add(scaling,
        operand(OperandKind::kOut, out_lane, {scaled, row, {per_slot, width, 0}}, chip.sxm_position),
        out[half]);
    shape.drafts.push_back(std::move(scaling));
  }
  return out;
}

Activation Lowering::normalise(const std::string& name,
                               std::int32_t layer_slot,
                               Gathered& residual,
                               const Gathered* update) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t per_token = rows_per_token(residual.packing);
  const std::int32_t per_slot = batch_ * per_token;

  Gamma gamma;
  gamma.tensor = tensor(name + ".gamma", layer_slot, per_token * shard_.tensor_parallel, {}, TensorScope::kStatic);
  for (std::size_t half = 0; half < 2; ++half) {
    const std::int32_t slots = half == 0 ? shard_.west_slots() : shard_.east_slots();
    if (slots > 0) {
      gamma.rows[half] = builder_.static_buffer(gamma.tensor,
                                                kHemispheres[half],
                                                kGammaSlice,
                                                width,
                                                slots * per_token,
                                                0,
                                                1,
                                                half == 0 ? 0 : own_slot() * per_token);
    }
  }
  Gathered sum = residual;
  if (update != nullptr) {
    sum = gathered(name + ".residual", layer_slot, residual.packing, {residual.tensor, update->tensor}, 0);
  }
  const TensorId squares =
      tensor(name + ".squares", layer_slot, batch_ * 2 * kFloatStreams, {sum.tensor, gamma.tensor});
  const TensorId largest =
      path_.quantises ? tensor(name + ".largest", layer_slot, batch_ * 2 * kFloatStreams, {sum.tensor, gamma.tensor})
                      : TensorId{0};
  const std::array<BufferId, 2> square_rows = partials(squares, batch_ * kFloatStreams);
  const std::array<BufferId, 2> largest_rows =
      path_.quantises ? partials(largest, batch_ * kFloatStreams, 4) : std::array<BufferId, 2>{-1, -1};
  std::vector<TensorId> sources{sum.tensor, gamma.tensor};

  const TensorId scaled = tensor(
      name + ".scaled", layer_slot, batch_ * shard_.tensor_parallel * residual.packing.groups * kFloatStreams, sources);
  std::vector<TensorId> act_sources{scaled};
  const Activation out = activation(name + ".out", layer_slot, residual.packing, act_sources);

  const std::int32_t most_slots = std::max(shard_.west_slots(), shard_.east_slots());
  for (std::int32_t token = 0; token < batch_; ++token) {
    Template shape;
    shape.part = OperatorPart::kVxm;
    for (std::size_t half = 0; half < 2; ++half) {
      const std::int32_t slots_count = half == 0 ? shard_.west_slots() : shard_.east_slots();
      if (slots_count == 0) {
        continue;
      }
      const Hemisphere hemisphere = kHemispheres[half];
      const std::int32_t slot_base = half == 0 ? 0 : own_slot();
      const Repeat groups{residual.packing.groups, pass_period_};
      const Repeat slots{slots_count, pass_period_ * residual.packing.groups};
      const std::int32_t row = slot_base * per_slot + token * per_token;
      const auto side = static_cast<std::int32_t>(half);
      const Rows rows{sum.tensor, row, {per_slot, width, 0}};
      VariableId value = shape.value(width);
      Lane lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = value, .streams = width};
      // Both halves end together, so that what they accumulate can go on side by side.
      const std::int64_t begin = (most_slots - slots_count) * std::int64_t{slots.period};
      std::int64_t at = begin;
      if (update != nullptr) {
        Draft adding = unit(Opcode::kAdd, begin, hemisphere, side, 1, slots, groups);
        for (const Gathered* term : {static_cast<const Gathered*>(&residual), update}) {
          const VariableId x = shape.value(width);
          const Lane x_lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = x, .streams = width};
          shape.drafts.push_back(read_rows(
              builder_, term->part[half], row, begin, chip.vxm_position, x_lane, slots, per_slot, groups, width));
          add(adding, operand(OperandKind::kIn, x_lane, {term->tensor, row, {per_slot, width, 0}}, 0), x);
        }
        lane.direction = Direction::kOutward;
        at = begin + chip.vxm_latency.count();
        add(adding, operand(OperandKind::kOut, lane, rows, position_of(builder_, sum.part[half])), value);
        shape.drafts.push_back(std::move(adding));
        shape.drafts.push_back(
            write_rows(builder_, sum.part[half], row, at, chip.vxm_position, lane, slots, per_slot, groups, width));
      } else {
        shape.drafts.push_back(
            read_rows(builder_, sum.part[half], row, begin, chip.vxm_position, lane, slots, per_slot, groups, width));
      }
      const VariableId g = shape.value(width);
      const Lane g_lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = g, .streams = width};
      const std::int32_t g_row = slot_base * per_token;
      shape.drafts.push_back(
          read_rows(builder_, gamma.rows[half], g_row, at, chip.vxm_position, g_lane, slots, per_token, groups, width));
      Draft squaring = unit(Opcode::kSquareAccumulate, at, hemisphere, 2 + 3 * side, 3, slots, groups);
      add(squaring, operand(OperandKind::kIn, lane, rows, 0), value);
      add(squaring, operand(OperandKind::kIn, g_lane, {gamma.tensor, g_row, {per_token, width, 0}}, 0), g);
      const unsigned hold = (slots_count > 1 ? 1U : 0U) | (residual.packing.groups > 1 ? 2U : 0U);
      const std::int64_t done = at + std::int64_t{slots_count - 1} * (slots_count > 1 ? slots.period : 0) +
                                std::int64_t{residual.packing.groups - 1} * pass_period_ + chip.vxm_latency.count();
      const std::int32_t partial_row = (side * batch_ + token) * kFloatStreams;
      const auto keep = [&](TensorId partial, const std::array<BufferId, 2>& buffers) {
        const VariableId made = shape.value(kFloatStreams);
        const Lane made_lane{.hemisphere = hemisphere, .variable = made, .streams = kFloatStreams};
        add(squaring,
            operand(OperandKind::kOut, made_lane, {partial, partial_row}, position_of(builder_, buffers[half]), hold),
            made);
        shape.drafts.push_back(write_rows(builder_, buffers[half], partial_row, done, chip.vxm_position, made_lane));
      };
      keep(squares, square_rows);
      if (path_.quantises) {
        keep(largest, largest_rows);
      }
      shape.drafts.push_back(std::move(squaring));
    }
    const auto live = [&](const std::array<BufferId, 2>& buffers) {
      return std::array<BufferId, 2>{shard_.west_slots() > 0 ? buffers[0] : -1, buffers[1]};
    };
    const std::string suffix = batch_ > 1 ? ".token" + std::to_string(token) : "";
    const Scalar scale = reduce(name + ".scale" + suffix,
                                layer_slot,
                                squares,
                                live(square_rows),
                                token * kFloatStreams,
                                1,
                                Opcode::kSum,
                                Opcode::kReciprocalSquareRoot,
                                Hemisphere::kWest,
                                OperatorPart::kVxm,
                                &shape);
    std::optional<Scalar> quantum;
    if (path_.quantises) {
      quantum = reduce(name + ".quantum" + suffix,
                       layer_slot,
                       largest,
                       live(largest_rows),
                       token * kFloatStreams,
                       1,
                       Opcode::kMaximum,
                       Opcode::kReciprocal,
                       Hemisphere::kEast,
                       OperatorPart::kVxm,
                       &shape,
                       out.rows.is_joined ? kGatheredSlice : kScalarSlice);  // rows are written beside it step by step
      builder_.add_source(out, quantum->tensor);
    }
    builder_.add_source(scaled, scale.tensor);
    if (out.rows.is_joined) {
      joined_pass(
          sum, token, scale, quantum, &gamma, out, name + ".joined" + suffix, layer_slot, OperatorPart::kVxm, shape);
    } else {
      scale_pass(sum, token, scale, quantum, &gamma, out, scaled, OperatorPart::kVxm, shape);
    }
  }
  residual = sum;
  return out;
}

Activation Lowering::requantise(const std::string& name, std::int32_t layer_slot, const Gathered& value) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t per_token = rows_per_token(value.packing);
  const std::int32_t per_slot = batch_ * per_token;
  const Activation out = activation(name + ".out", layer_slot, value.packing, {value.tensor});
  TensorId largest = 0;
  std::array<BufferId, 2> rows{-1, -1};
  if (path_.quantises) {
    largest = tensor(name + ".largest", layer_slot, batch_ * 2 * kFloatStreams, {value.tensor});
    rows = partials(largest, batch_ * kFloatStreams);
  }
  const std::int32_t most_slots = std::max(shard_.west_slots(), shard_.east_slots());
  for (std::int32_t token = 0; token < batch_; ++token) {
    std::optional<Scalar> quantum;
    Template shape;
    if (path_.quantises) {
      shape.part = OperatorPart::kVxm;
      for (std::size_t half = 0; half < 2; ++half) {
        const std::int32_t slots_count = half == 0 ? shard_.west_slots() : shard_.east_slots();
        if (slots_count == 0) {
          continue;
        }
        const Hemisphere hemisphere = kHemispheres[half];
        const auto side = static_cast<std::int32_t>(half);
        const std::int32_t row = (half == 0 ? 0 : own_slot()) * per_slot + token * per_token;
        const Repeat groups{value.packing.groups, pass_period_};
        const Repeat slots{slots_count, pass_period_ * value.packing.groups};
        const std::int64_t begin = (most_slots - slots_count) * std::int64_t{slots.period};
        const VariableId x = shape.value(width);
        const Lane x_lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = x, .streams = width};
        shape.drafts.push_back(read_rows(
            builder_, value.part[half], row, begin, chip.vxm_position, x_lane, slots, per_slot, groups, width));
        Draft maximum = unit(Opcode::kMaximum, begin, hemisphere, 2 * side, 2, slots, groups);
        add(maximum, operand(OperandKind::kIn, x_lane, {value.tensor, row, {per_slot, width, 0}}, 0), x);
        const unsigned hold = (slots_count > 1 ? 1U : 0U) | (value.packing.groups > 1 ? 2U : 0U);
        const VariableId made = shape.value(kFloatStreams);
        const Lane made_lane{.hemisphere = hemisphere, .variable = made, .streams = kFloatStreams};
        const std::int32_t partial_row = (side * batch_ + token) * kFloatStreams;
        add(maximum,
            operand(OperandKind::kOut, made_lane, {largest, partial_row}, position_of(builder_, rows[half]), hold),
            made);
        const std::int64_t done = begin + std::int64_t{slots_count - 1} * (slots_count > 1 ? slots.period : 0) +
                                  std::int64_t{value.packing.groups - 1} * pass_period_ + chip.vxm_latency.count();
        shape.drafts.push_back(write_rows(builder_, rows[half], partial_row, done, chip.vxm_position, made_lane));
        shape.drafts.push_back(std::move(maximum));
      }
      const std::string suffix = batch_ > 1 ? ".token" + std::to_string(token) : "";
      quantum = reduce(name + ".quantum" + suffix,
                       layer_slot,
                       largest,
                       {shard_.west_slots() > 0 ? rows[0] : -1, rows[1]},
                       token * kFloatStreams,
                       1,
                       Opcode::kMaximum,
                       Opcode::kReciprocal,
                       Hemisphere::kEast,
                       OperatorPart::kVxm,
                       &shape);
      builder_.add_source(out, quantum->tensor);
    }
    if (out.rows.is_joined) {
      joined_pass(value,
                  token,
                  std::nullopt,
                  quantum,
                  nullptr,
                  out,
                  name + ".joined" + (batch_ > 1 ? ".token" + std::to_string(token) : ""),
                  layer_slot,
                  OperatorPart::kVxm,
                  shape);
    } else {
      scale_pass(value, token, std::nullopt, quantum, nullptr, out, 0, OperatorPart::kVxm, shape);
    }
  }
  return out;
}

}  // namespace lpu::scheduler
