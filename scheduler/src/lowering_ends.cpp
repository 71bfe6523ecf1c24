#include <algorithm>

#include "lowering.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"

// Both ends of the loop: the embedding's row of the token at stage 0, and the LM head with its arg-max at the last
// stage.

namespace lpu::scheduler {

using node::Direction;
using node::Hemisphere;
using node::Opcode;
using node::OperandKind;
using node::OperatorPart;
using node::TensorScope;

namespace {

constexpr std::int32_t kFloatStreams = 4;
constexpr std::int32_t kStripe = 32;
constexpr std::int32_t kLogitSlice = 0;

}  // namespace

void Lowering::declare_embedding() {
  if (!stage_.has_embedding) {
    return;
  }
  const EmbeddingRows layout = embedding_rows(shard_, path_);
  const std::int32_t height = layout.height;
  const auto vocabulary = static_cast<std::int32_t>(request_.model.vocabulary);
  embedding_ = tensor("embedding", 0, vocabulary * height * layout.slices, {}, TensorScope::kStatic);
  const auto entries = static_cast<std::int32_t>(node::ceil_div(vocabulary, 2));  // of a hemisphere
  std::vector<Run> runs;
  if (memory_.wants_near()) {
    const std::int32_t columns = builder_.chip().slices_per_position / layout.slices;
    runs = memory_.take_rows(entries, height, columns, path_.stored_slices < kStripe);
  }
  if (runs.empty()) {
    runs = memory_.take(static_cast<std::int32_t>(node::ceil_div(entries, kStripe / layout.slices)) * height, kStripe);
  }
  if (runs.empty()) {
    throw DoesNotFit(
        "found no SRAM for the embedding beside the other weights of a stage; expected slices with as much left", 0);
  }
  std::vector<node::Displacement> pieces;
  const std::int32_t base = runs.front().slice;
  for (const Run& run : runs) {
    for (std::int32_t slice = run.slice; slice < run.slice + run.slices; slice += layout.slices) {
      pieces.push_back(
          {.slice = static_cast<std::int16_t>(slice - base), .address = static_cast<std::int16_t>(run.address)});
    }
  }
  embedding_slice_ = base;
  embedding_layout_ = layout;
  for (std::int32_t token = 0; token < batch_; ++token) {
    for (const Hemisphere hemisphere : kHemispheres) {
      node::BaseRegister made{.kind = node::RegisterKind::kToken,
                              .stride = height,
                              .row_stride = height * layout.slices,
                              .user_in_batch = token,
                              .experts = vocabulary,
                              .append = {},
                              .table = pieces};
      made.append.hemisphere = static_cast<std::int32_t>(hemisphere);
      const std::uint16_t id = builder_.base_register(made);
      token_registers_.push_back(id);
      node::Allocation rows{.tensor = embedding_, .hemisphere = hemisphere, .base_register = id, .slice = base};
      rows.count[0] = height;
      rows.row_stride[0] = layout.slices;
      rows.address_stride[0] = 1;
      rows.count[1] = layout.slices;
      rows.row_stride[1] = 1;
      rows.slice_stride[1] = 1;
      builder_.allocation(rows);
    }
  }
}

void Lowering::embed() {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t bytes = path_.weight_bytes;
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t per_address = embedding_layout_.slices / bytes;  // groups in one address of a piece
  const std::int32_t groups = shard_.hidden.groups;
  residual_.own_west = ensure_own_west(residual_);
  builder_.add_source(residual_.tensor, embedding_);
  const std::int32_t farthest = chip.slice_position(chip.slices_per_hemisphere - 1);
  for (std::int32_t token = 0; token < batch_; ++token) {
    for (std::int32_t first = 0; first < groups; first += per_address) {
      const std::int32_t count = std::min(per_address, groups - first);
      Template shape;
      shape.part = OperatorPart::kEnds;
      Draft select = unit(Opcode::kSelect, farthest, Hemisphere::kWest, 12, 4, {}, {count, 1});
      for (const Hemisphere hemisphere : kHemispheres) {
        const std::uint16_t id =
            token_registers_[static_cast<std::size_t>(2 * token + static_cast<std::int32_t>(hemisphere))];
        // Whatever slice the row lies in, it passes the VXM in the same cycle.
        const VariableId value = shape.value(bytes);
        const Lane lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = value, .streams = bytes};
        const std::int32_t row = first / per_address * embedding_layout_.slices;
        Draft read = unit(Opcode::kRead,
                          farthest - chip.slice_position(embedding_slice_),
                          hemisphere,
                          embedding_slice_,
                          0,
                          {},
                          {count, 1});
        node::Instruction& in = read.instruction;
        in.base_register = id;
        in.address = static_cast<std::uint16_t>(first / per_address);
        in.index_stride[1] = static_cast<std::int8_t>(bytes);
        in.count[2] = static_cast<std::uint16_t>(bytes);
        in.index_stride[2] = 1;
        read.reach.both_banks = true;
        read.reach.slices.clear();
        for (const node::Displacement& piece : builder_.register_at(id).table) {
          if (std::find(read.reach.slices.begin(), read.reach.slices.end(), piece.slice) == read.reach.slices.end()) {
            read.reach.slices.push_back(piece.slice);
          }
        }
        Lane one = lane;
        one.streams = 1;
        one.stream_stride = bytes > 1 ? 1 : 0;
        auto out = operand(OperandKind::kOut, one, {embedding_, row, {0, bytes, bytes > 1 ? 1 : 0}}, chip.vxm_position);
        out.is_registered = 1;
        add(read, out, value);
        shape.drafts.push_back(std::move(read));
        auto taken = operand(OperandKind::kIn, lane, {embedding_, row, {0, bytes, 0}}, 0);
        taken.is_registered = 1;
        select.instruction.base_register = id;
        add(select, taken, value);
      }
      const std::int32_t made_row = (own_slot() * batch_ + token) * rows_per_token(shard_.hidden) + first * width;
      for (const Hemisphere hemisphere : kHemispheres) {
        const BufferId buffer = hemisphere == Hemisphere::kWest ? residual_.own_west : residual_.part[1];
        const VariableId made = shape.value(width);
        const Lane lane{.hemisphere = hemisphere, .variable = made, .streams = width};
        add(select,
            operand(
                OperandKind::kOut, lane, {residual_.tensor, made_row, {0, width, 0}}, position_of(builder_, buffer)),
            made);
        shape.drafts.push_back(write_rows(builder_,
                                          buffer,
                                          made_row,
                                          farthest + chip.vxm_latency.count(),
                                          chip.vxm_position,
                                          lane,
                                          {},
                                          0,
                                          {count, 1},
                                          width));
      }
      shape.drafts.push_back(std::move(select));
      builder_.place(shape);
    }
  }
}

void Lowering::predict() {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t slot = stage_.layer(stage_.blocks - 1) - stage_.layer(0);
  const std::int32_t width = path_.wire_bytes;
  if (update_) {
    gather(*update_, update_name_, slot, OperatorPart::kEnds);
  }
  const Activation input = normalise("final_norm", slot, residual_, update_ ? &*update_ : nullptr);
  Product product = multiply_by_block(head_, slot, input);
  const std::vector<Place> all_places = places(false);

  struct Part {
    std::size_t block, place, side;
    std::int32_t index;  ///< among the parts of its side
  };
  std::vector<Part> parts;
  std::array<std::int32_t, 2> counts{0, 0};
  std::int32_t left = shard_.vocabulary.elements;
  for (std::size_t b = 0; b < head_.blocks.size(); ++b) {
    for (std::size_t p = 0; p < all_places.size() && left > 0; ++p) {
      const auto side = static_cast<std::size_t>(all_places[p].front().hemisphere);
      parts.push_back({b, p, side, counts[side]++});
      left -= std::min(left, columns_per_place(head_.blocks[b].columns, path_));
    }
  }
  const std::int32_t most = std::max(counts[0], counts[1]);
  Packing one;
  one.elements = chip.vector_bytes;
  one.full = one.groups = 1;
  Gathered candidates = gathered("candidate", slot, one, {}, 0);
  candidates.own_west = ensure_own_west(candidates);
  std::vector<TensorId> logits_of;
  std::vector<std::array<BufferId, 2>> rows_of;
  for (std::int32_t token = 0; token < batch_; ++token) {
    const TensorId logits =
        tensor("logits.token" + std::to_string(token), slot, 2 * most * kFloatStreams, {product.sums});
    std::array<BufferId, 2> rows{-1, -1};
    for (std::size_t side = 0; side < 2; ++side) {
      if (counts[side] > 0) {
        rows[side] = builder_.buffer(logits,
                                     kHemispheres[side],
                                     kLogitSlice,
                                     kFloatStreams,
                                     counts[side] * kFloatStreams,
                                     static_cast<std::int32_t>(side) * most * kFloatStreams);
      }
    }
    logits_of.push_back(logits);
    rows_of.push_back(rows);
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    const Sums sum = sums_of(product, part.block);
    for (std::size_t token = 0; token < rows_of.size(); ++token) {
      const BufferId rows = rows_of[token][part.side];
      Template shape;
      shape.part = OperatorPart::kEnds;
      shape.not_before = sum.drain_from;
      shape.after = sum.placement;
      const std::int64_t at = chip.mxm_position - chip.vxm_position;
      Draft dequantise = unit(Opcode::kDequantise, at, kHemispheres[part.side], 12, 4);
      for (const auto& [lane, input_rows] :
           drain(shape, sum, all_places[part.place], static_cast<std::int32_t>(token))) {
        add(dequantise, operand(OperandKind::kIn, lane, input_rows, 0), lane.variable);
      }
      const VariableId made = shape.value(kFloatStreams);
      const Lane lane{.hemisphere = kHemispheres[part.side], .variable = made, .streams = kFloatStreams};
      const std::int32_t row = builder_.at(rows).first_row + part.index * kFloatStreams;
      add(dequantise, operand(OperandKind::kOut, lane, {logits_of[token], row}, position_of(builder_, rows)), made);
      shape.drafts.push_back(std::move(dequantise));
      shape.drafts.push_back(write_rows(builder_, rows, row, at + chip.vxm_latency.count(), chip.vxm_position, lane));
      hold_until(sum.holding, builder_.placement(builder_.place(shape)).start);
    }
    if (i + 1 == parts.size() || parts[i + 1].block != part.block) {
      for (std::size_t p = part.place + 1; p < all_places.size(); ++p) {
        discard(sum, all_places[p], OperatorPart::kEnds);
      }
      release(sum);
    }
  }
  for (std::int32_t token = 0; token < batch_; ++token) {
    const std::string suffix = ".token" + std::to_string(token);
    const TensorId logits = logits_of[static_cast<std::size_t>(token)];
    const std::array<BufferId, 2>& rows = rows_of[static_cast<std::size_t>(token)];
    // The largest logit; then, among the lanes that hold it, the lowest id.
    const std::array<std::string, 2> what{"logit.largest", "token.candidate"};
    std::array<Scalar, 2> best;
    for (std::size_t i = 0; i < 2; ++i) {
      const TensorId partial = tensor(what[i] + ".partial" + suffix, slot, 2 * kFloatStreams, {logits});
      const std::array<BufferId, 2> partial_rows = partials(partial, kFloatStreams);
      Template shape;
      shape.part = OperatorPart::kEnds;
      for (std::size_t side = 0; side < 2; ++side) {
        const std::int32_t count = counts[side];
        if (count == 0) {
          continue;
        }
        const Hemisphere hemisphere = kHemispheres[side];
        const VariableId x = shape.value(kFloatStreams);
        const Lane lane{
            .hemisphere = hemisphere, .direction = Direction::kInward, .variable = x, .streams = kFloatStreams};
        const std::int32_t first = builder_.at(rows[side]).first_row;
        shape.drafts.push_back(
            read_rows(builder_, rows[side], first, 0, chip.vxm_position, lane, paced(count), kFloatStreams));
        Draft running = unit(i == 0 ? Opcode::kMaximum : Opcode::kCompareExchange,
                             0,
                             hemisphere,
                             2 * static_cast<std::int32_t>(side),
                             2,
                             paced(count));
        add(running, operand(OperandKind::kIn, lane, {logits, first, {kFloatStreams, 0, 0}}, 0), x);
        if (i == 1) {
          builder_.add_source(partial, best[0].tensor);
          const VariableId top = shape.value(kFloatStreams);
          const Lane top_lane{.hemisphere = best[0].hemisphere,
                              .direction = Direction::kInward,
                              .variable = top,
                              .streams = kFloatStreams};
          if (side == 0 || counts[0] == 0) {
            shape.drafts.push_back(read_rows(builder_, best[0].buffer, 0, 0, chip.vxm_position, top_lane));
            top_variable_ = top;
          } else {
            shape.variables.pop_back();
          }
          Lane shared = top_lane;
          shared.variable = top_variable_;
          add(running, operand(OperandKind::kIn, shared, {best[0].tensor}, 0, count > 1 ? 1U : 0U), top_variable_);
        }
        const VariableId made = shape.value(kFloatStreams);
        const Lane made_lane{.hemisphere = hemisphere, .variable = made, .streams = kFloatStreams};
        const std::int32_t row = static_cast<std::int32_t>(side) * kFloatStreams;
        add(running,
            operand(OperandKind::kOut,
                    made_lane,
                    {partial, row},
                    position_of(builder_, partial_rows[side]),
                    count > 1 ? 1U : 0U),
            made);
        shape.drafts.push_back(write_rows(builder_,
                                          partial_rows[side],
                                          row,
                                          std::int64_t{count - 1} * pass_period_ + chip.vxm_latency.count(),
                                          chip.vxm_position,
                                          made_lane));
        shape.drafts.push_back(std::move(running));
      }
      builder_.place(shape);
      best[i] = reduce(what[i] + suffix,
                       slot,
                       partial,
                       {counts[0] == 0 ? -1 : partial_rows[0], counts[1] == 0 ? -1 : partial_rows[1]},
                       0,
                       1,
                       i == 0 ? Opcode::kMaximum : Opcode::kCompareExchange,
                       Opcode::kMaximum,
                       kHemispheres[i],
                       OperatorPart::kEnds);
    }
    Template shape;
    shape.part = OperatorPart::kEnds;
    Draft join = unit(Opcode::kConvert, 0, Hemisphere::kWest, 12, 2);
    for (const Scalar& scalar : best) {
      const VariableId x = shape.value(kFloatStreams);
      const Lane lane{
          .hemisphere = scalar.hemisphere, .direction = Direction::kInward, .variable = x, .streams = kFloatStreams};
      shape.drafts.push_back(read_rows(builder_, scalar.buffer, 0, 0, chip.vxm_position, lane));
      add(join, operand(OperandKind::kIn, lane, {scalar.tensor}, 0), x);
      builder_.add_source(candidates.tensor, scalar.tensor);
    }
    const std::int32_t own_row = (own_slot() * batch_ + token) * width;
    for (const Hemisphere hemisphere : kHemispheres) {
      const BufferId buffer = hemisphere == Hemisphere::kWest ? candidates.own_west : candidates.part[1];
      const VariableId made = shape.value(width);
      const Lane lane{.hemisphere = hemisphere, .variable = made, .streams = width};
      add(join, operand(OperandKind::kOut, lane, {candidates.tensor, own_row}, position_of(builder_, buffer)), made);
      shape.drafts.push_back(write_rows(builder_, buffer, own_row, chip.vxm_latency.count(), chip.vxm_position, lane));
    }
    shape.drafts.push_back(std::move(join));
    builder_.place(shape);
  }
  gather(candidates, "gather.candidate", slot, OperatorPart::kEnds);

  // The best of all chips' candidates: the new token, one row a user, on every chip of the stage.
  token_ = builder_.tensor({.name = "token",
                            .owner = node::TensorOwner::kReplicated,
                            .layer_slot = slot,
                            .rows = batch_,
                            .sources = {candidates.tensor}});
  const TensorId halves = tensor("token.halves", slot, 2 * batch_ * width, {candidates.tensor});
  builder_.add_source(token_, halves);
  for (std::size_t side = 0; side < 2; ++side) {
    token_rows_[side] = builder_.buffer(token_, kHemispheres[side], 6, 1, batch_);
  }
  for (std::int32_t token = 0; token < batch_; ++token) {
    Template shape;
    shape.part = OperatorPart::kEnds;
    std::int64_t second = 0;
    const std::array<std::int32_t, 2> side_slots{shard_.west_slots(), shard_.east_slots()};
    second = std::max(side_slots[0], side_slots[1]) - 1 + chip.vxm_latency.count();
    Draft final = unit(Opcode::kCompareExchange, second, Hemisphere::kWest, 8, 2);
    for (std::size_t side = 0; side < 2; ++side) {
      if (side_slots[side] == 0) {
        continue;
      }
      const Hemisphere hemisphere = kHemispheres[side];
      const std::int32_t per_slot = batch_ * width;
      const std::int32_t row = (side == 0 ? 0 : own_slot()) * per_slot + token * width;
      const std::int64_t at = std::max(side_slots[0], side_slots[1]) - side_slots[side];
      const VariableId x = shape.value(width);
      const Lane lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = x, .streams = width};
      shape.drafts.push_back(read_rows(
          builder_, candidates.part[side], row, at, chip.vxm_position, lane, {side_slots[side], 1}, per_slot));
      Draft running =
          unit(Opcode::kCompareExchange, at, hemisphere, 2 * static_cast<std::int32_t>(side), 2, {side_slots[side], 1});
      add(running, operand(OperandKind::kIn, lane, {candidates.tensor, row, {per_slot, 0, 0}}, 0), x);
      const VariableId made = shape.value(width);
      const Lane made_lane{.hemisphere = hemisphere, .variable = made, .streams = width};
      const std::int32_t half_row = (static_cast<std::int32_t>(side) * batch_ + token) * width;
      add(running,
          operand(OperandKind::kOut, made_lane, {halves, half_row}, chip.vxm_position, side_slots[side] > 1 ? 1U : 0U),
          made);
      add(final, operand(OperandKind::kIn, made_lane, {halves, half_row}, 0), made);
      shape.drafts.push_back(std::move(running));
    }
    for (std::size_t side = 0; side < 2; ++side) {
      const VariableId made = shape.value(1);
      const Lane lane{.hemisphere = kHemispheres[side], .variable = made};
      add(final, operand(OperandKind::kOut, lane, {token_, token}, position_of(builder_, token_rows_[side])), made);
      shape.drafts.push_back(
          write_rows(builder_, token_rows_[side], token, second + chip.vxm_latency.count(), chip.vxm_position, lane));
    }
    shape.drafts.push_back(std::move(final));
    last_placement_ = builder_.place(shape);
  }
}

}  // namespace lpu::scheduler
