#include "lowering.hpp"

#include <algorithm>

#include "lpu/node/error.hpp"

namespace lpu::scheduler {

using node::OperatorPart;

std::int64_t link_grid(const CompileRequest& request) {
  constexpr std::int32_t kCrowdedBatch = 4;
  return request.micro_batch < kCrowdedBatch ? 1 : request.chip.link_serialisation.count();
}

Lowering::Lowering(const CompileRequest& request,
                   const Shard& shard,
                   const ComputePath& path,
                   const Stage& stage,
                   MemoryMap memory,
                   std::int32_t user_slots,
                   Load load,
                   std::int64_t period,
                   WindowPlan plan,
                   HopPlan entry,
                   HopPlan exit)
    : request_(request),
      shard_(shard),
      path_(path),
      stage_(stage),
      memory_(std::move(memory)),
      users_(user_slots),
      load_(load),
      plan_(std::move(plan)),
      batch_(request.micro_batch),
      builder_(request.chip, period, memory_.scratch_slices(), period > 0 ? link_grid(request) : 1),
      entry_(std::move(entry)),
      exit_(std::move(exit)) {
  // Values of four bytes fill a slice group: two operands of a pass then share their slices, one in two cycles each.
  constexpr std::int32_t kSlicesOfAnOperand = 2;
  pass_period_ = path.wire_bytes > kSlicesOfAnOperand ? 2 : 1;
  const std::int64_t experts = request.model.experts;
  expert_slots_ = static_cast<std::int32_t>(
      request.experts == ExpertMode::kAll ? experts
                                          : std::min(experts, request.model.experts_per_token * request.micro_batch));
}

std::vector<std::int32_t> Lowering::scratch_limits() const {
  std::vector<std::int32_t> out;
  for (std::int32_t slice = 0; slice < memory_.scratch_slices(); ++slice) {
    out.push_back(memory_.scratch_limit(slice));
  }
  return out;
}

void Lowering::declare_all() {
  const LayerLinears linears = layer_linears(request_.model, shard_, path_);
  const auto experts = static_cast<std::int32_t>(request_.model.experts);
  const std::int32_t first_layer = stage_.layer(0);
  // The largest blocks first: what is left for them shrinks fastest.
  declare_embedding();
  if (stage_.has_head) {
    head_ = declare("head", stage_.layer(stage_.blocks - 1) - first_layer, head_linear(shard_, path_), 0);
  }
  for (std::int32_t i = 0; i < stage_.blocks; ++i) {
    const std::int32_t slot = stage_.layer(i) - first_layer;
    std::vector<Matrix> block;
    switch (stage_.block(i)) {
      case Block::kAttention:
        block.push_back(declare("qkv", slot, linears.qkv, 0));
        block.push_back(declare("output", slot, linears.output, 0));
        break;
      case Block::kGateUp:
        block.push_back(declare("gate_up", slot, linears.gate_up, experts));
        if (experts > 0) {
          block.push_back(declare("router", slot, in_one_place(linears.router, path_), 0));
        }
        break;
      case Block::kDown:
        block.push_back(declare("down", slot, linears.down, experts));
        break;
    }
    matrices_.push_back(std::move(block));
  }
  declare_cache();
}

std::string Lowering::hidden_name(std::int32_t expert) const {
  return request_.model.experts > 0 ? "ffn_hidden.slot" + std::to_string(expert) : "ffn_hidden";
}

void Lowering::expect_ports() {
  if (stage_.block(0) != Block::kDown) {
    return;
  }
  for (std::int32_t expert = 0; expert < slots(); ++expert) {
    hidden_.push_back(gathered(hidden_name(expert), 0, shard_.ffn, {}, 0));
  }
  if (request_.model.experts > 0) {
    routing_ = gathered("routing", 0, routing_packing(), {}, 1);
  }
}

std::vector<Gathered*> Lowering::extra_ports() {
  // In the order in which they become ready: a hop sends value by value.
  std::vector<Gathered*> out;
  if (routing_) {
    out.push_back(&*routing_);
  }
  for (Gathered& hidden : hidden_) {
    out.push_back(&hidden);
  }
  return out;
}

void Lowering::lower_block(std::int32_t index) {
  const std::int32_t layer = stage_.layer(index);
  const std::int32_t slot = layer - stage_.layer(0);
  std::vector<Matrix>& matrices = matrices_[static_cast<std::size_t>(index)];
  const auto gathered_update = [&]() -> const Gathered* {
    if (!update_) {
      return nullptr;
    }
    gather(*update_, update_name_, slot, OperatorPart::kWires);
    return &*update_;
  };
  switch (stage_.block(index)) {
    case Block::kAttention: {
      const Activation input = normalise("attention_norm", slot, residual_, gathered_update());
      std::int32_t cache_index = 0;
      for (std::int32_t i = 0; i < index; ++i) {
        cache_index += stage_.block(i) == Block::kAttention ? 1 : 0;
      }
      Gathered attended = attention(slot, multiply_by_block(matrices[0], slot, input), cache_index);
      gather(attended, "gather.attention", slot, OperatorPart::kWires);
      const Activation heads = requantise("attention.rows", slot, attended);
      Gathered output = gathered("attention_output", slot, shard_.hidden, {}, 1);
      project("attention_output",
              slot,
              multiply_by_block(matrices[1], slot, heads),
              node::Opcode::kDequantise,
              false,
              output,
              OperatorPart::kVxm);
      update_ = output;
      update_name_ = "gather.attention_output";
      break;
    }
    case Block::kGateUp: {
      const Activation input = normalise("ffn_norm", slot, residual_, gathered_update());
      update_.reset();
      if (request_.model.experts > 0) {
        route(slot, matrices[1], input);
      }
      for (std::int32_t expert = 0; expert < slots(); ++expert) {
        Gathered hidden = gathered(hidden_name(expert), slot, shard_.ffn, {}, 0);
        if (index + 1 == stage_.blocks) {
          hidden.own_west = ensure_own_west(hidden);  // it leaves over links of both hemispheres
        }
        project(hidden_name(expert),
                slot,
                multiply_by_block(matrices[0], slot, input, expert),
                node::Opcode::kSiluMultiply,
                true,
                hidden,
                OperatorPart::kVxm);
        hidden_.push_back(hidden);
      }
      break;
    }
    case Block::kDown: {
      for (std::int32_t expert = 0; expert < slots(); ++expert) {
        Gathered& hidden = hidden_[static_cast<std::size_t>(expert)];
        gather(hidden, "gather." + hidden_name(expert), slot, OperatorPart::kWires);
      }
      if (index == 0) {
        // Needed only after this block: the hidden vectors go first.
        gather(residual_, "gather.residual", 0, OperatorPart::kWires);
      }
      Gathered output;
      if (request_.model.experts > 0) {
        output = combine(slot, matrices[0]);
      } else {
        const Activation input = requantise("ffn.rows", slot, hidden_.front());
        output = gathered("ffn_output", slot, shard_.hidden, {}, 1);
        project("ffn_output",
                slot,
                multiply_by_block(matrices[0], slot, input),
                node::Opcode::kDequantise,
                false,
                output,
                OperatorPart::kVxm);
      }
      hidden_.clear();
      routing_.reset();
      update_ = output;
      update_name_ = "gather.ffn_output";
      break;
    }
  }
}

void Lowering::run() {
  declare_all();
  reserve_windows();
  residual_ = gathered("residual", 0, shard_.hidden, {}, 0);
  expect_ports();
  if (stage_.has_embedding) {
    embed();
  } else {
    enter();
  }
  if (stage_.block(0) != Block::kDown) {
    gather(residual_, "gather.residual", 0, OperatorPart::kHop);
  }
  first_block_start_ = builder_.end_of_all();
  for (std::int32_t i = 0; i < stage_.blocks; ++i) {
    const std::int64_t before = builder_.end_of_all();
    const auto first = static_cast<PlacementId>(builder_.placements().size());
    lower_block(i);
    spans_.push_back({.block = stage_.block(i),
                      .layer = stage_.layer(i),
                      .first = first,
                      .last = static_cast<PlacementId>(builder_.placements().size()) - 1,
                      .start = before,
                      .end = builder_.end_of_all()});
  }
  if (stage_.has_head) {
    predict();
  } else {
    leave();
  }
}

}  // namespace lpu::scheduler
