#include <algorithm>

#include "lowering.hpp"
#include "lpu/node/error.hpp"

// A mixture of experts: router, softmax and top-k by vector passes, then as many expert installs as the stage reserves,
// each from the base registers that the routing loads; the outputs are added in ascending slot, that is in ascending
// expert id.

namespace lpu::scheduler {

using node::Direction;
using node::Hemisphere;
using node::Opcode;
using node::OperandKind;
using node::OperatorPart;

namespace {

constexpr std::int32_t kFloatStreams = 4;
constexpr std::int32_t kLogitSlice = 8;
constexpr std::int32_t kPartialSlice = 4;

}  // namespace

Packing Lowering::routing_packing() const {
  Packing out;
  out.elements = builder_.chip().vector_bytes;
  out.full = out.groups = 1;
  return out;
}

void Lowering::route(std::int32_t layer_slot, const Matrix& router, const Activation& input) {
  const node::ChipSpec& chip = builder_.chip();
  Product product = multiply_by_block(router, layer_slot, input);
  const Sums sum = sums_of(product, 0);
  const std::vector<Place> all_places = places(false);
  for (std::size_t p = 1; p < all_places.size(); ++p) {
    discard(sum, all_places[p], OperatorPart::kRouter);
  }
  LPU_CHECK(router.blocks.size() == 1 && request_.model.experts <= sum.columns,
            "the router's logits stand in one plane");
  Gathered routing = gathered("routing", layer_slot, routing_packing(), {}, 1);
  routing.own_west = ensure_own_west(routing);
  const std::int32_t width = path_.wire_bytes;
  for (std::int32_t token = 0; token < batch_; ++token) {
    const std::string suffix = ".token" + std::to_string(token);
    // Exponentials, the k largest of them by two compare-exchange passes, their sum's reciprocal, the weights.
    const std::array<Opcode, 4> steps{
        Opcode::kExponential, Opcode::kCompareExchange, Opcode::kCompareExchange, Opcode::kReciprocal};
    TensorId from = tensor("router.logits" + suffix, layer_slot, kFloatStreams, {sum.tensor});
    BufferId rows = builder_.buffer(from, Hemisphere::kWest, kLogitSlice, kFloatStreams, kFloatStreams);
    const std::int64_t at = chip.mxm_position - chip.vxm_position;
    std::int64_t begin = 0;
    {
      Template shape;
      shape.part = OperatorPart::kRouter;
      shape.not_before = sum.drain_from;
      shape.after = sum.placement;
      Draft dequantise = unit(Opcode::kDequantise, at, Hemisphere::kWest, 12, 4);
      for (const auto& [lane, input_rows] : drain(shape, sum, all_places.front(), token)) {
        add(dequantise, operand(OperandKind::kIn, lane, input_rows, 0), lane.variable);
      }
      const VariableId made = shape.value(kFloatStreams);
      const Lane lane{.hemisphere = Hemisphere::kWest, .variable = made, .streams = kFloatStreams};
      add(dequantise, operand(OperandKind::kOut, lane, {from}, position_of(builder_, rows)), made);
      shape.drafts.push_back(std::move(dequantise));
      shape.drafts.push_back(write_rows(builder_, rows, 0, at + chip.vxm_latency.count(), chip.vxm_position, lane));
      const Placement& placed = builder_.placement(builder_.place(shape));
      hold_until(sum.holding, placed.start);
      begin = placed.end;
    }
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const TensorId to = tensor("router.step" + std::to_string(i) + suffix, layer_slot, kFloatStreams, {from});
      const BufferId target = builder_.buffer(to, Hemisphere::kWest, kLogitSlice, kFloatStreams, kFloatStreams);
      Template shape;
      shape.part = OperatorPart::kRouter;
      const VariableId x = shape.value(kFloatStreams);
      const Lane in{
          .hemisphere = Hemisphere::kWest, .direction = Direction::kInward, .variable = x, .streams = kFloatStreams};
      shape.drafts.push_back(read_rows(builder_, rows, 0, 0, chip.vxm_position, in));
      Draft pass = unit(steps[i], 0, Hemisphere::kWest, 12, 4);
      add(pass, operand(OperandKind::kIn, in, {from}, 0), x);
      const VariableId made = shape.value(kFloatStreams);
      const Lane out{.hemisphere = Hemisphere::kWest, .variable = made, .streams = kFloatStreams};
      add(pass, operand(OperandKind::kOut, out, {to}, position_of(builder_, target)), made);
      shape.drafts.push_back(std::move(pass));
      shape.drafts.push_back(
          write_rows(builder_, target, 0, node::latency(steps[i], chip).count(), chip.vxm_position, out));
      builder_.place(shape);
      from = to;
      rows = target;
    }
    // Weights and expert ids; the chip's figure for the whole of it is an assumption that these few passes do not
    // reach.
    Template shape;
    shape.part = OperatorPart::kRouter;
    const VariableId x = shape.value(kFloatStreams);
    const Lane in{
        .hemisphere = Hemisphere::kWest, .direction = Direction::kInward, .variable = x, .streams = kFloatStreams};
    shape.drafts.push_back(read_rows(builder_, rows, 0, 0, chip.vxm_position, in));
    Draft pass = unit(Opcode::kMultiply, 0, Hemisphere::kWest, 12, 4);
    add(pass, operand(OperandKind::kIn, in, {from}, 0), x);
    builder_.add_source(routing.tensor, from);
    const std::int32_t own_row = (own_slot() * batch_ + token) * width;
    const std::int64_t settle = chip.vxm_latency.count() + 2 + chip.instruction_propagation.count();
    for (const Hemisphere hemisphere : kHemispheres) {
      const BufferId target = hemisphere == Hemisphere::kWest ? routing.own_west : routing.part[1];
      const VariableId made = shape.value(width);
      const Lane lane{.hemisphere = hemisphere, .variable = made, .streams = width};
      add(pass, operand(OperandKind::kOut, lane, {routing.tensor, own_row}, position_of(builder_, target)), made);
      shape.drafts.push_back(write_rows(builder_, target, own_row, chip.vxm_latency.count(), chip.vxm_position, lane));
    }
    shape.drafts.push_back(std::move(pass));
    builder_.place(shape, begin + chip.moe_routing.count() - settle);
  }
  release(sum);
  routing_ = routing;
}

Gathered Lowering::combine(std::int32_t layer_slot, const Matrix& down) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::vector<Place> all_places = places(false);
  Gathered out = gathered("ffn_output", layer_slot, shard_.hidden, {}, 1);
  struct Part {
    std::size_t block, place;
  };
  std::vector<Part> parts;
  std::vector<std::int64_t> lanes;
  PartPlan plan;
  TensorId partial = 0;
  std::vector<BufferId> partial_rows;
  for (std::int32_t expert = 0; expert < slots(); ++expert) {
    const std::string suffix = ".slot" + std::to_string(expert);
    const Activation input = requantise("ffn.rows" + suffix, layer_slot, hidden_[static_cast<std::size_t>(expert)]);
    Product product = multiply_by_block(down, layer_slot, input, expert);
    if (expert == 0) {
      std::int64_t left = out.packing.elements;
      for (std::size_t b = 0; b < down.blocks.size(); ++b) {
        for (std::size_t p = 0; p < all_places.size() && left > 0; ++p) {
          lanes.push_back(std::min<std::int64_t>(left, columns_per_place(down.blocks[b].columns, path_)));
          left -= lanes.back();
          parts.push_back({b, p});
        }
      }
      plan = plan_parts("ffn_output", layer_slot, lanes, {}, out.packing);
    }
    const bool is_first = expert == 0;
    const bool is_last = expert + 1 == slots();
    const auto rows = static_cast<std::int32_t>(parts.size()) * batch_ * kFloatStreams;
    const TensorId weighted =
        tensor("ffn_output.weighted" + suffix, layer_slot, rows, {product.sums, routing_->tensor});
    const TensorId added =
        is_first ? weighted : tensor("ffn_output.added" + suffix, layer_slot, rows, {weighted, partial});
    std::vector<BufferId> next_rows;
    std::vector<std::int64_t> last(static_cast<std::size_t>(batch_), 0);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const Hemisphere hemisphere = all_places[parts[i].place].front().hemisphere;
      const Sums sum = sums_of(product, parts[i].block);
      for (std::int32_t token = 0; token < batch_; ++token) {
        Template shape;
        shape.part = OperatorPart::kVxm;
        shape.not_before = sum.drain_from;
        shape.after = sum.placement;
        const std::int64_t at = chip.mxm_position - chip.vxm_position;
        const std::int32_t row = (static_cast<std::int32_t>(i) * batch_ + token) * kFloatStreams;
        Draft weighing = unit(Opcode::kDequantise, at, Hemisphere::kWest, 8, 4);
        for (const auto& [lane, input_rows] : drain(shape, sum, all_places[parts[i].place], token)) {
          add(weighing, operand(OperandKind::kIn, lane, input_rows, 0), lane.variable);
        }
        const std::int32_t routing_row = (own_slot() * batch_ + token) * width;
        const VariableId w = shape.value(width);
        const Lane w_lane{
            .hemisphere = Hemisphere::kEast, .direction = Direction::kInward, .variable = w, .streams = width};
        shape.drafts.push_back(read_rows(builder_, routing_->part[1], routing_row, at, chip.vxm_position, w_lane));
        add(weighing, operand(OperandKind::kIn, w_lane, {routing_->tensor, routing_row}, 0), w);
        const VariableId t = shape.value(kFloatStreams);
        const Lane t_lane{.hemisphere = hemisphere, .variable = t, .streams = kFloatStreams};
        std::int64_t second = at + chip.vxm_latency.count();
        std::vector<std::pair<Lane, Rows>> terms{{t_lane, {weighted, row}}};
        const bool is_kept = is_first && !is_last;
        BufferId kept = -1;
        if (!is_last) {
          kept = builder_.buffer(added, hemisphere, kPartialSlice, kFloatStreams, kFloatStreams, row);
          next_rows.push_back(kept);
        }
        add(weighing,
            operand(
                OperandKind::kOut, t_lane, {weighted, row}, is_kept ? position_of(builder_, kept) : chip.vxm_position),
            t);
        shape.drafts.push_back(std::move(weighing));
        if (is_kept) {
          shape.drafts.push_back(write_rows(builder_, kept, row, second, chip.vxm_position, t_lane));
          hold_until(sum.holding, builder_.placement(builder_.place(shape)).start);
          continue;
        }
        if (!is_first) {
          const BufferId before = partial_rows[i * static_cast<std::size_t>(batch_) + static_cast<std::size_t>(token)];
          const VariableId y = shape.value(kFloatStreams);
          const Lane y_lane{
              .hemisphere = hemisphere, .direction = Direction::kInward, .variable = y, .streams = kFloatStreams};
          shape.drafts.push_back(read_rows(builder_, before, row, second, chip.vxm_position, y_lane));
          terms.push_back({y_lane, {partial, row}});
        }
        if (is_last) {
          const TensorId target = plan.packs ? plan.part : out.tensor;
          builder_.add_source(target, weighted);
          if (!is_first) {
            builder_.add_source(target, partial);
          }
          if (plan.packs) {
            builder_.add_source(out.tensor, plan.part);
          }
          emit_part(shape,
                    second,
                    terms,
                    is_first ? Opcode::kConvert : Opcode::kAdd,
                    plan,
                    static_cast<std::int32_t>(i),
                    token,
                    out);
          const PlacementId id = builder_.place(shape, plan.packs ? last[static_cast<std::size_t>(token)] + 2 : 0);
          last[static_cast<std::size_t>(token)] = builder_.placement(id).start;
          hold_until(sum.holding, builder_.placement(id).start);
          continue;
        }
        Draft adding = unit(Opcode::kAdd, second, hemisphere, 12, 2);
        for (const auto& [lane, term] : terms) {
          add(adding, operand(OperandKind::kIn, lane, term, 0), lane.variable);
        }
        const VariableId made = shape.value(kFloatStreams);
        const Lane lane{.hemisphere = hemisphere, .variable = made, .streams = kFloatStreams};
        add(adding, operand(OperandKind::kOut, lane, {added, row}, position_of(builder_, kept)), made);
        shape.drafts.push_back(std::move(adding));
        shape.drafts.push_back(
            write_rows(builder_, kept, row, second + chip.vxm_latency.count(), chip.vxm_position, lane));
        hold_until(sum.holding, builder_.placement(builder_.place(shape)).start);
      }
      if (i + 1 == parts.size() || parts[i + 1].block != parts[i].block) {
        for (std::size_t p = parts[i].place + 1; p < all_places.size(); ++p) {
          discard(sum, all_places[p], OperatorPart::kVxm);
        }
        release(sum);
      }
    }
    partial = added;
    partial_rows = std::move(next_rows);
  }
  return out;
}

}  // namespace lpu::scheduler
