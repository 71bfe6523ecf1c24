#include "lpu/scheduler/cluster_program.hpp"

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"

namespace lpu::scheduler {
namespace {

/// Folds fields one by one, so that neither padding nor the layout of a struct can enter the digest. Each record of a
/// list is folded on its own first: a processor works on several at a time (3.4 ms became 2.6 for Llama-2-70B on 576
/// chips).
class Folder {
 public:
  void add(std::int64_t x) { digest_ = node::mix(digest_ ^ static_cast<std::uint64_t>(x)); }
  void add(const std::string& text) { digest_ = node::fold(digest_, node::digest_text(text)); }
  /// Two 32-bit fields in one word.
  void add(std::int32_t high, std::int32_t low) {
    add(static_cast<std::int64_t>(static_cast<std::uint64_t>(static_cast<std::uint32_t>(high)) << 32U |
                                  static_cast<std::uint32_t>(low)));
  }
  template <typename Record, typename Fold>
  void add_list(const std::vector<Record>& records, Fold fold) {
    add(static_cast<std::int64_t>(records.size()));
    for (const Record& record : records) {
      Folder own;
      fold(own, record);
      add(static_cast<std::int64_t>(own.digest()));
    }
  }
  [[nodiscard]] std::uint64_t digest() const { return digest_; }

 private:
  std::uint64_t digest_ = 0;
};

void fold_chip(Folder& folder, const node::ChipSpec& chip) {
  // Power, prices and the host's PCIe way decide no cycle of a program; clock turns cycles into seconds only.
  for (const std::int64_t field : {std::int64_t{chip.superlanes},
                                   std::int64_t{chip.lanes_per_superlane},
                                   std::int64_t{chip.vector_bytes},
                                   std::int64_t{chip.slices_per_hemisphere},
                                   std::int64_t{chip.banks_per_slice},
                                   std::int64_t{chip.vectors_per_slice},
                                   std::int64_t{chip.streams_per_direction},
                                   std::int64_t{chip.mxm_planes_per_hemisphere},
                                   std::int64_t{chip.mxm_rows},
                                   std::int64_t{chip.mxm_columns},
                                   std::int64_t{chip.mxm_install_columns_per_cycle},
                                   std::int64_t{chip.mxm_accumulators_per_plane},
                                   std::int64_t{chip.vxm_alus},
                                   std::int64_t{chip.sxm_streams_per_cycle},
                                   std::int64_t{chip.icu_queues},
                                   std::int64_t{chip.fetch_bytes_per_cycle},
                                   std::int64_t{chip.instruction_bytes},
                                   std::int64_t{chip.loop_bytes},
                                   std::int64_t{chip.slices_per_position},
                                   std::int64_t{chip.vxm_position},
                                   std::int64_t{chip.sxm_position},
                                   std::int64_t{chip.mxm_position},
                                   chip.instruction_propagation.count(),
                                   chip.vxm_latency.count(),
                                   chip.vxm_transcendental_latency.count(),
                                   chip.mxm_latency.count(),
                                   chip.sxm_latency.count(),
                                   std::int64_t{chip.local_links},
                                   std::int64_t{chip.global_links},
                                   std::int64_t{chip.link_queue_vectors},
                                   chip.link_serialisation.count(),
                                   chip.link_latency().count(),
                                   chip.clock.count()}) {
    folder.add(field);
  }
  for (std::int32_t link = 0; link < chip.links(); ++link) {
    folder.add(static_cast<std::int64_t>(chip.link_hemisphere[static_cast<std::size_t>(link)]));
  }
}

void fold_plan(Folder& folder, const node::IterationPlan& plan) {
  folder.add(plan.initiation_interval);
  folder.add(plan.micro_batch, plan.context);
  folder.add(plan.vocabulary, plan.experts);
  folder.add(plan.experts_per_token, plan.expert_slots);
  folder.add(static_cast<std::int64_t>(plan.seed));
}

void fold_operand(Folder& folder, const node::StreamOperand& operand) {
  std::uint64_t word = static_cast<std::uint64_t>(operand.kind);
  word = word << 1U | static_cast<std::uint64_t>(operand.hemisphere);
  word = word << 1U | static_cast<std::uint64_t>(operand.direction);
  word = word << 8U | operand.stream;
  word = word << 8U | operand.streams;
  word = word << 8U | static_cast<std::uint8_t>(operand.stream_stride);
  word = word << 8U | operand.reach;
  word = word << 4U | operand.held;
  word = word << 1U | operand.is_registered;
  word = word << 16U | operand.tensor;
  folder.add(static_cast<std::int64_t>(word));
  folder.add(operand.row_stride[0], operand.row_stride[1]);
  folder.add(operand.row_stride[2], operand.row);
}

void fold_instruction(Folder& folder, const node::Instruction& instruction) {
  folder.add(instruction.start, instruction.period[0]);
  folder.add(instruction.period[1], instruction.period[2]);
  std::uint64_t word = static_cast<std::uint64_t>(instruction.opcode);
  word = word << 1U | static_cast<std::uint64_t>(instruction.hemisphere);
  word = word << 16U | instruction.count[0];
  word = word << 16U | instruction.count[1];
  word = word << 16U | instruction.count[2];
  folder.add(static_cast<std::int64_t>(word));
  word = instruction.index;
  word = word << 8U | instruction.alus;
  word = word << 8U | static_cast<std::uint8_t>(instruction.index_stride[0]);
  word = word << 8U | static_cast<std::uint8_t>(instruction.index_stride[1]);
  word = word << 8U | static_cast<std::uint8_t>(instruction.index_stride[2]);
  word = word << 16U | instruction.base_register;
  word = word << 8U | instruction.mode;
  folder.add(static_cast<std::int64_t>(word));
  folder.add(instruction.address_stride[0], instruction.address_stride[1]);
  folder.add(instruction.address_stride[2], instruction.address);
  folder.add(instruction.transfer, instruction.argument);
  for (std::size_t o = 0; o < instruction.operands.size(); ++o) {
    if (instruction.operands[o].kind != node::OperandKind::kNone) {
      folder.add(static_cast<std::int64_t>(o));
      fold_operand(folder, instruction.operands[o]);
    }
  }
}

void fold_tensor(Folder& folder, const node::Tensor& tensor) {
  folder.add(tensor.name);
  folder.add(static_cast<std::int32_t>(tensor.scope), static_cast<std::int32_t>(tensor.owner));
  folder.add(tensor.layer_slot, tensor.rows);
  folder.add(tensor.rows_per_slot, static_cast<std::int32_t>(tensor.sources.size()));
  for (const std::uint16_t source : tensor.sources) {
    folder.add(std::int64_t{source});
  }
  for (const auto* counts : {&tensor.made_by, &tensor.used_by}) {
    folder.add(static_cast<std::int64_t>(counts->size()));
    for (const node::OperationCount& count : *counts) {
      folder.add(static_cast<std::int64_t>(count.opcode));
      folder.add(count.vectors);
    }
  }
}

void fold_allocation(Folder& folder, const node::Allocation& allocation) {
  folder.add(std::int32_t{allocation.tensor},
             static_cast<std::int32_t>(allocation.hemisphere) << 16 | allocation.base_register);
  folder.add(allocation.row, allocation.slice);
  folder.add(std::int64_t{allocation.address});
  for (std::size_t l = 0; l < 3; ++l) {
    folder.add(allocation.count[l], allocation.row_stride[l]);
    folder.add(allocation.slice_stride[l], allocation.address_stride[l]);
  }
}

void fold_register(Folder& folder, const node::BaseRegister& base) {
  folder.add(static_cast<std::int32_t>(base.kind), base.copies);
  folder.add(base.stride, base.row_stride);
  folder.add(base.user_in_batch, base.expert_slot);
  folder.add(base.experts, base.layer_slot);
  const node::AppendMap& map = base.append;
  folder.add(map.is_column ? 1 : 0, map.positions_per_tile);
  folder.add(map.planes, map.hemisphere);
  folder.add(map.plane, map.columns);
  folder.add(map.slice_stride, map.first_column);
  folder.add(std::int64_t{map.columns_per_cycle});
  folder.add(map.round_stride, map.row_stride);
  folder.add(static_cast<std::int64_t>(base.table.size()));
  for (const node::Displacement& displacement : base.table) {
    folder.add(std::int32_t{displacement.slice} << 1 | (displacement.is_enabled ? 1 : 0), displacement.address);
    folder.add(std::int64_t{displacement.row});
  }
}

void fold_transfer(Folder& folder, const node::Transfer& transfer) {
  folder.add(transfer.name);
  folder.add(transfer.layer_slot, transfer.vectors);
}

void fold_text(Folder& folder, const node::ChipProgram& text) {
  folder.add_list(text.instructions, fold_instruction);
  folder.add_list(text.tensors, fold_tensor);
  folder.add_list(text.allocations, fold_allocation);
  folder.add_list(text.registers, fold_register);
  folder.add_list(text.transfers, fold_transfer);
  folder.add(text.layers, text.makespan);
}

void fold_binding(Folder& folder, const node::ChipBinding& binding) {
  folder.add(binding.chip, binding.text);
  folder.add(binding.stage, binding.group_position);
  folder.add(binding.first_layer, static_cast<std::int32_t>(binding.peers.size()));
  folder.add(binding.offset);
  for (const node::LinkPeer& peer : binding.peers) {
    folder.add(peer.chip, peer.link);
  }
  for (const std::int32_t owner : binding.slot_owner) {
    folder.add(std::int64_t{owner});
  }
}

}  // namespace

node::IterationPlan with_users(const ClusterProgram& program, std::int32_t users) {
  if (users < 1 || users > program.user_slots) {
    throw node::InputError("--users: found " + std::to_string(users) + "; expected 1 to " +
                           std::to_string(program.user_slots) + ", the users that the program holds KV for");
  }
  node::IterationPlan plan = program.plan;
  plan.groups = static_cast<std::int32_t>(node::ceil_div(users, plan.micro_batch));
  plan.token_period =
      node::token_period(program.token_latency, plan.initiation_interval, program.busy_span, plan.groups);
  return plan;
}

std::uint64_t schedule_digest(const ClusterProgram& program) {
  Folder folder;
  fold_chip(folder, program.chip);
  fold_plan(folder, program.plan);
  folder.add(program.chips, program.user_slots);
  folder.add(program.tensor_parallel, program.pipeline_parallel);
  folder.add(program.token_latency);
  folder.add(program.busy_span);
  folder.add_list(program.texts, fold_text);
  folder.add_list(program.bindings, fold_binding);
  return folder.digest();
}

}  // namespace lpu::scheduler
