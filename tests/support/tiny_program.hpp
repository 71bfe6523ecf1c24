#pragma once
#include "declare_operations.hpp"
#include "lpu/scheduler/cluster_program.hpp"
#include "tiny_instruction.hpp"

namespace lpu::test {

/// Tensors of tiny_program().
enum TinyTensor : std::uint16_t { kEmbedding, kX, kWeights, kSums, kY, kText };

inline node::Allocation cells(TinyTensor tensor, int slice, int address, int row, int count = 1) {
  node::Allocation out;
  out.tensor = tensor;
  out.slice = slice;
  out.address = address;
  out.row = row;
  out.count[0] = count;
  out.row_stride[0] = 1;
  out.address_stride[0] = 1;
  return out;
}

/// Two chips that run one text: x is copied from a table, multiplied by a tile of 32 columns, and the product
/// exchanged.
///
///     cycle   0  read e            (slice 0, inward)      at the VXM in 1
///             1  copy -> x         (VXM)                  at slice 8 in 9
///             9  write x           (slice 8)              readable from 30
///            10  read w            (slices 28 .. 43)      at the MXM in 15, 16
///            15  install w         (plane 0)              complete in 16
///            30  read x            (slice 8, outward)     at the MXM in 40
///            40  compute           (plane 0)              drains from 80
///            80  drain y32         (4 streams, inward)    at the VXM in 93
///            93  dequantise -> y   (VXM)                  at slice 9 in 101
///           101  write y           (slice 9)              readable from 122
///           122  read y            (slice 9, outward)     at link 0 in 131
///           131  send y            (link 0)               arrives in 131 + 497 = 628
///           628  receive y of peer (link 0)               at slice 10 in 637
///           637  write it          (slice 10)
inline scheduler::ClusterProgram tiny_program() {
  using node::Allocation;
  using node::ChipProgram;
  using node::Instruction;
  using node::Opcode;
  using node::TensorOwner;
  using node::TensorScope;
  using enum node::OperandKind;
  using enum node::Direction;
  scheduler::ClusterProgram out;
  out.chip = tsp_v1();
  out.model = "tiny";
  out.chips = 2;
  out.tensor_parallel = 2;
  out.initiation_interval = 640;
  out.plan.initiation_interval = 640;
  out.plan.token_period = 640;
  out.token_latency = 640;
  out.busy_span = 640;
  ChipProgram& text = out.texts.emplace_back();
  text.layers = 1;
  text.makespan = 640;
  text.tensors = {
      {.name = "e", .scope = TensorScope::kStatic, .owner = TensorOwner::kReplicated, .rows = 1, .sources = {}},
      {.name = "x", .owner = TensorOwner::kReplicated, .rows = 4, .sources = {kEmbedding}},
      {.name = "w", .scope = TensorScope::kStatic, .rows = 64, .sources = {}},
      {.name = "y32", .rows = 16, .sources = {kX, kWeights}},
      {.name = "y", .owner = TensorOwner::kGathered, .rows = 2, .rows_per_slot = 1, .sources = {kSums}},
      {.name = "program_text", .scope = TensorScope::kStatic, .rows = 4, .sources = {}},
  };
  text.registers.emplace_back();
  text.transfers.push_back({.name = "gather y", .layer_slot = 0, .vectors = 1});
  Allocation weights = cells(kWeights, 28, 0, 0, 2);
  weights.row_stride[0] = 16;
  weights.count[1] = 16;
  weights.row_stride[1] = 1;
  weights.slice_stride[1] = 1;
  text.allocations = {cells(kEmbedding, 0, 0, 0),
                      cells(kX, 8, 0, 0),
                      weights,
                      cells(kY, 9, 0, 0),
                      cells(kY, 10, 0, 1),
                      cells(kText, 20, 0, 0, 4)};
  Instruction read_weights = instruction(Opcode::kRead, 10, 28, 0, {operand(kOut, kOutward, 0, 1, kWeights, 0, 13)});
  read_weights.count[0] = 2;
  read_weights.period[0] = 1;
  read_weights.address_stride[0] = 1;
  read_weights.operands[0].row_stride[0] = 16;
  read_weights.count[2] = 16;
  read_weights.index_stride[2] = 1;
  read_weights.operands[0].row_stride[2] = 1;
  read_weights.operands[0].stream_stride = 1;
  Instruction install =
      instruction(Opcode::kInstall,
                  15,
                  0,
                  0,
                  {operand(kIn, kOutward, 0, 16, kWeights, 0), operand(kResident, kOutward, 0, 1, kWeights, 0)});
  install.count[1] = 2;
  install.period[1] = 1;
  install.operands[0].row_stride[1] = 16;
  Instruction compute =
      instruction(Opcode::kCompute,
                  40,
                  0,
                  0,
                  {operand(kIn, kOutward, 16, 1, kX, 0), operand(kResident, kOutward, 0, 1, kWeights, 0)});
  compute.mode = node::kComputeOverwrites;
  Instruction drain = instruction(Opcode::kDrain, 80, 0, 0, {operand(kOut, kInward, 0, 4, kSums, 0, 0)});
  drain.argument = 1;
  text.instructions = {
      instruction(Opcode::kRead, 0, 0, 0, {operand(kOut, kInward, 0, 1, kEmbedding, 0, 0)}),
      instruction(Opcode::kCopy,
                  1,
                  0,
                  0,
                  {operand(kIn, kInward, 0, 1, kEmbedding, 0), operand(kOut, kOutward, 16, 1, kX, 0, 3)}),
      instruction(Opcode::kWrite, 9, 8, 0, {operand(kIn, kOutward, 16, 1, kX, 0)}),
      read_weights,
      install,
      instruction(Opcode::kRead, 30, 8, 0, {operand(kOut, kOutward, 16, 1, kX, 0, 13)}),
      compute,
      drain,
      instruction(Opcode::kDequantise,
                  93,
                  0,
                  0,
                  {operand(kIn, kInward, 0, 4, kSums, 0), operand(kOut, kOutward, 17, 1, kY, 0, 3)}),
      instruction(Opcode::kWrite, 101, 9, 0, {operand(kIn, kOutward, 17, 1, kY, 0)}),
      instruction(Opcode::kRead, 122, 9, 0, {operand(kOut, kOutward, 17, 1, kY, 0, 12)}),
      instruction(Opcode::kSend, 131, 0, 0, {operand(kIn, kOutward, 17, 1, kY, 0)}),
      instruction(Opcode::kReceive, 628, 0, 0, {operand(kOut, kInward, 5, 1, kY, 1, 3)}),
      instruction(Opcode::kWrite, 637, 10, 0, {operand(kIn, kInward, 5, 1, kY, 1)}),
  };
  for (int chip = 0; chip < 2; ++chip) {
    node::ChipBinding binding;
    binding.chip = chip;
    binding.group_position = chip;
    binding.peers.assign(static_cast<std::size_t>(out.chip.links()), node::LinkPeer{});
    binding.peers[0] = {.chip = 1 - chip, .link = 0};
    binding.slot_owner = {chip, 1 - chip};
    out.bindings.push_back(binding);
  }
  declare_operations(text);
  return out;
}

/// Names of tiny_program()'s instructions.
enum TinyInstruction : int {
  kReadE,
  kCopyX,
  kWriteX,
  kReadW,
  kInstallW,
  kReadX,
  kComputeY,
  kDrainY,
  kDequantiseY,
  kWriteY,
  kReadY,
  kSendY,
  kReceiveY,
  kWritePeer,
  kTinyInstructions
};

}  // namespace lpu::test
