#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <tuple>

#include "declare_operations.hpp"
#include "lpu/node/quantity.hpp"
#include "lpu/scheduler/cluster_program.hpp"
#include "test_chip.hpp"

namespace lpu::test {

/// Size of a hand-built program: a ring of stages, each a group of chips that gather and multiply in every phase.
struct RingShape {
  std::int32_t stages = 1;
  std::int32_t group = 2;     ///< chips of a stage, 1 to 8
  std::int32_t phases = 1;    ///< gather, then GEMM
  std::int32_t vectors = 2;   ///< n: rows of each chip's part, 1 to 64
  std::int32_t fillers = 0;   ///< pairs of one-shot bursts (read, VXM) per phase
  std::int32_t copies = 1;    ///< of the buffers of an iteration
  std::int64_t interval = 0;  ///< initiation interval; 0: the makespan
  std::int32_t user_slots = 8;
};

/// Builds one stage's text. One phase of it, n vectors, L the link's latency, W and E the hemispheres:
///
///     x_p   W slice 0 ──► VXM add ──► g_p rows 0..n-1 to W and E slice 4 ──► send to all peers of the group
///     g_p   rows n.. from the peers ──► W and E slices 8 to 11
///     w_p   W slices 12 to 27 ──► install 20 cycles;  g_p rows n.. (or own) ──► n sums of n computes ──► drain
///     y_p   4 streams ──► VXM convert ──► x_{p+1} to W slice 0
///
/// Every instruction starts when the one before it lets it, so that any of them one cycle earlier breaks a rule.
class StageBuilder {
 public:
  StageBuilder(const RingShape& shape, const node::ChipSpec& chip, bool is_first)
      : shape_(shape),
        chip_(chip),
        is_first_(is_first),
        latency_(static_cast<std::int32_t>(chip.link_latency().count())) {
    text_.registers.resize(2);
    text_.registers[1].kind = node::RegisterKind::kBuffer;
    text_.registers[1].copies = shape.copies;
    text_.registers[1].stride = 512;
    text_.layers = 1;
  }

  node::ChipProgram build() {
    const bool is_ring = shape_.stages > 1;
    std::uint16_t x = 0;
    std::int32_t at = 0;
    if (is_first_) {
      x = add_tensor("embedding", node::TensorScope::kStatic, shape_.vectors);
      allocate(x, node::Hemisphere::kWest, 0, 0, 0, 0);
    } else {
      x = add_tensor(hidden(), node::TensorScope::kIteration, shape_.vectors);
      text_.tensors[x].layer_slot = -1;
      receive_hop(x, 0, 0);
      at = 24 * (shape_.vectors - 1) + 11 + 21;
    }
    for (std::int32_t phase = 0; phase < shape_.phases; ++phase) {
      std::tie(x, at) = add_phase(phase, x, at);
    }
    if (is_ring) {
      hop_push_ = at + 11;
      read(node::Hemisphere::kWest,
           0,
           x_address(shape_.phases),
           at,
           x,
           {.stream = 3, .reach = 12},
           {shape_.vectors, 24},
           1);
      const auto transfer = add_transfer("hop", shape_.vectors);
      send(x, 7, 1, {.stream = 3}, at + 11, transfer);
    }
    return text_;
  }

  /// Push cycle of the first vector that leaves for the next stage.
  [[nodiscard]] std::int32_t hop_push() const { return hop_push_; }

  /// The token's way back: stage 0 takes what the last stage sends, `arrival` cycles after its own start.
  void receive_token(node::ChipProgram& text, std::int32_t arrival) {
    text_ = text;
    const std::uint16_t token = add_tensor(hidden(), node::TensorScope::kIteration, shape_.vectors);
    text_.tensors[token].layer_slot = shape_.stages - 1;
    receive_hop(token, arrival, 448);
    text = text_;
  }

  void finish(node::ChipProgram& text) {
    std::int64_t bytes = 0;
    for (const node::Instruction& instruction : text.instructions) {
      bytes += node::text_size(instruction, chip_).count();
    }
    const auto rows = static_cast<std::int32_t>(node::ceil_div(bytes, chip_.vector_bytes));
    text.tensors.push_back({.name = "program_text", .scope = node::TensorScope::kStatic, .rows = rows, .sources = {}});
    node::Allocation allocation;
    allocation.tensor = static_cast<std::uint16_t>(text.tensors.size() - 1);
    allocation.hemisphere = node::Hemisphere::kEast;
    allocation.slice = 43;
    allocation.count[0] = rows;
    allocation.row_stride[0] = 1;
    allocation.address_stride[0] = 1;
    text.allocations.push_back(allocation);
    std::stable_sort(text.instructions.begin(), text.instructions.end(), [](const auto& a, const auto& b) {
      return std::tuple{a.start, node::info(a.opcode).unit, a.index} <
             std::tuple{b.start, node::info(b.opcode).unit, b.index};
    });
    for (const node::Instruction& i : text.instructions) {
      std::int32_t last = i.start + 1;
      for (std::size_t l = 0; l < 3; ++l) {
        last += (i.count[l] - 1) * i.period[l];
      }
      text.makespan =
          std::max(text.makespan, last + 14 + static_cast<std::int32_t>(node::latency(i.opcode, chip_).count()));
    }
    declare_operations(text);
  }

 private:
  struct Stream {
    std::uint8_t stream = 0;
    std::uint8_t reach = 0;
    std::uint8_t streams = 1;
    std::int8_t stride = 0;
    node::Direction direction = node::Direction::kOutward;
  };
  struct Loop {
    std::int32_t count = 1;
    std::int32_t period = 0;
  };

  [[nodiscard]] std::string hidden() const { return "x" + std::to_string(shape_.phases); }
  static std::int32_t x_address(std::int32_t phase) { return phase * 64; }

  std::uint16_t add_tensor(const std::string& name,
                           node::TensorScope scope,
                           std::int32_t rows,
                           std::vector<std::uint16_t> sources = {}) {
    text_.tensors.push_back({.name = name, .scope = scope, .rows = rows, .sources = std::move(sources)});
    return static_cast<std::uint16_t>(text_.tensors.size() - 1);
  }

  std::uint16_t add_transfer(const std::string& name, std::int32_t vectors) {
    text_.transfers.push_back({.name = name, .vectors = vectors});
    return static_cast<std::uint16_t>(text_.transfers.size() - 1);
  }

  /// n rows of a tensor, one after the other.
  void allocate(std::uint16_t tensor,
                node::Hemisphere hemisphere,
                std::int32_t slice,
                std::int32_t address,
                std::int32_t row,
                std::uint16_t base_register) {
    node::Allocation out;
    out.tensor = tensor;
    out.hemisphere = hemisphere;
    out.base_register = base_register;
    out.row = row;
    out.slice = slice;
    out.address = address;
    out.count[0] = shape_.vectors;
    out.row_stride[0] = 1;
    out.address_stride[0] = 1;
    text_.allocations.push_back(out);
  }

  static node::StreamOperand operand(node::OperandKind kind,
                                     node::Hemisphere hemisphere,
                                     std::uint16_t tensor,
                                     std::int32_t row,
                                     const Stream& stream,
                                     std::int16_t stride = 1) {
    node::StreamOperand out;
    out.kind = kind;
    out.hemisphere = hemisphere;
    out.direction = stream.direction;
    out.stream = stream.stream;
    out.streams = stream.streams;
    out.stream_stride = stream.stride;
    out.reach = stream.reach;
    out.tensor = tensor;
    out.row = row;
    out.row_stride[0] = stride;
    return out;
  }

  node::Instruction& add(
      node::Opcode opcode, node::Hemisphere hemisphere, std::int32_t index, std::int32_t start, Loop loop) {
    node::Instruction out;
    out.opcode = opcode;
    out.hemisphere = hemisphere;
    out.index = static_cast<std::uint8_t>(index);
    out.start = start;
    out.count[0] = static_cast<std::uint16_t>(loop.count);
    out.period[0] = loop.count > 1 ? loop.period : 0;
    text_.instructions.push_back(out);
    return text_.instructions.back();
  }

  node::Instruction& read(node::Hemisphere hemisphere,
                          std::int32_t slice,
                          std::int32_t address,
                          std::int32_t start,
                          std::uint16_t tensor,
                          const Stream& stream,
                          Loop loop,
                          std::uint16_t base_register) {
    node::Instruction& out = add(node::Opcode::kRead, hemisphere, slice, start, loop);
    out.address = static_cast<std::uint16_t>(address);
    out.address_stride[0] = 1;
    out.base_register = base_register;
    out.operands[0] = operand(node::OperandKind::kOut, hemisphere, tensor, 0, stream);
    return out;
  }

  node::Instruction& write(node::Hemisphere hemisphere,
                           std::int32_t slice,
                           std::int32_t address,
                           std::int32_t start,
                           std::uint16_t tensor,
                           const Stream& stream,
                           Loop loop) {
    node::Instruction& out = add(node::Opcode::kWrite, hemisphere, slice, start, loop);
    out.address = static_cast<std::uint16_t>(address);
    out.address_stride[0] = 1;
    out.base_register = 1;
    out.operands[0] = operand(node::OperandKind::kIn, hemisphere, tensor, 0, stream);
    return out;
  }

  void send(std::uint16_t tensor,
            std::int32_t link,
            std::int32_t links,
            const Stream& stream,
            std::int32_t start,
            std::uint16_t transfer) {
    const node::Hemisphere hemisphere = chip_.link_hemisphere[static_cast<std::size_t>(link)];
    node::Instruction& out = add(node::Opcode::kSend, hemisphere, link, start, {shape_.vectors, 24});
    out.count[2] = static_cast<std::uint16_t>(links);
    out.index_stride[2] = 1;
    out.transfer = transfer;
    out.operands[0] = operand(node::OperandKind::kIn, hemisphere, tensor, 0, stream);
  }

  /// Takes n vectors from each of `links` links and writes those of link + i to slice + i.
  void receive(std::uint16_t tensor,
               std::int32_t row,
               std::int32_t link,
               std::int32_t links,
               std::int32_t slice,
               std::int32_t address,
               std::int32_t start,
               std::uint16_t transfer) {
    const node::Hemisphere hemisphere = chip_.link_hemisphere[static_cast<std::size_t>(link)];
    const std::int32_t position = chip_.slice_position(slice);
    const Stream stream{
        .stream = 8, .reach = static_cast<std::uint8_t>(position), .stride = 1, .direction = node::Direction::kInward};
    node::Instruction& out = add(node::Opcode::kReceive, hemisphere, link, start, {shape_.vectors, 24});
    out.count[2] = static_cast<std::uint16_t>(links);
    out.index_stride[2] = 1;
    out.transfer = transfer;
    out.operands[0] = operand(node::OperandKind::kOut, hemisphere, tensor, row, stream);
    out.operands[0].row_stride[2] = static_cast<std::int16_t>(shape_.vectors);
    node::Instruction& in =
        write(hemisphere, slice, address, start + chip_.sxm_position - position, tensor, stream, {shape_.vectors, 24});
    in.count[2] = static_cast<std::uint16_t>(links);
    in.index_stride[2] = 1;
    in.operands[0].row = row;
    in.operands[0].row_stride[2] = static_cast<std::int16_t>(shape_.vectors);
    for (std::int32_t i = 0; i < links; ++i) {
      allocate(tensor, hemisphere, slice + i, address, row + i * shape_.vectors, 1);
    }
  }

  void receive_hop(std::uint16_t tensor, std::int32_t start, std::int32_t address) {
    receive(tensor, 0, 8, 1, 0, address, start, add_transfer("hop", shape_.vectors));
  }

  std::pair<std::uint16_t, std::int32_t> add_phase(std::int32_t phase, std::uint16_t x, std::int32_t begin) {
    using enum node::Hemisphere;
    const std::int32_t n = shape_.vectors;
    const std::string suffix = std::to_string(phase);
    const std::uint16_t g = add_tensor("g" + suffix, node::TensorScope::kIteration, n * shape_.group, {x});
    text_.tensors[g].owner = node::TensorOwner::kGathered;
    text_.tensors[g].rows_per_slot = n;
    const std::int32_t address = x_address(phase);
    const bool is_static = text_.tensors[x].scope == node::TensorScope::kStatic;
    read(kWest,
         0,
         address,
         begin,
         x,
         {.stream = 0, .direction = node::Direction::kInward},
         {n, 1},
         is_static ? std::uint16_t{0} : std::uint16_t{1});
    node::Instruction& add_x = add(node::Opcode::kAdd, kWest, 0, begin + 1, {n, 1});
    add_x.alus = 1;
    add_x.operands[0] =
        operand(node::OperandKind::kIn, kWest, x, 0, {.stream = 0, .direction = node::Direction::kInward});
    add_x.operands[1] = operand(node::OperandKind::kOut, kWest, g, 0, {.stream = 1, .reach = 2});
    add_x.operands[2] = operand(node::OperandKind::kOut, kEast, g, 0, {.stream = 1, .reach = 2});
    for (const node::Hemisphere hemisphere : {kWest, kEast}) {
      write(hemisphere, 4, address, begin + 8, g, {.stream = 1}, {n, 1});
      allocate(g, hemisphere, 4, address, 0, 1);
    }
    // A part goes out at 24 cycles a vector, so the last written row is no limit; the first is.
    const std::int32_t out = begin + 8 + 21;
    std::int32_t ready = begin + 8 + n - 1 + 21;
    if (shape_.group > 1) {
      const std::uint16_t transfer = add_transfer("gather" + suffix, n);
      const std::int32_t peers = shape_.group - 1;
      const std::int32_t west = std::min(peers, 4);
      for (const auto& [hemisphere, link, links] : {std::tuple{kWest, 0, west}, std::tuple{kEast, 4, peers - west}}) {
        if (links > 0) {
          read(hemisphere, 4, address, out, g, {.stream = 2, .reach = 12}, {n, 24}, 1);
          send(g, link, links, {.stream = 2}, out + 10, transfer);
          receive(g, n * (link + 1), link, links, 8, address, out + 10 + latency_, transfer);
        }
      }
      ready = out + 10 + latency_ + 24 * (n - 1) + 9 + 21;
    }
    add_fillers(out, phase);
    return add_gemm(phase, g, ready);
  }

  void add_fillers(std::int32_t begin, std::int32_t phase) {
    using enum node::Hemisphere;
    if (shape_.fillers == 0) {
      return;
    }
    const std::uint16_t filler =
        add_tensor("filler" + std::to_string(phase), node::TensorScope::kStatic, shape_.vectors);
    allocate(filler, kEast, 0, x_address(phase), 0, 0);
    for (std::int32_t i = 0; i < shape_.fillers; ++i) {
      const std::int32_t start = begin + 4 * i;
      const Stream stream{.stream = 20, .direction = node::Direction::kInward};
      read(kEast, 0, x_address(phase), start, filler, stream, {1, 0}, 0);
      node::Instruction& copy = add(node::Opcode::kCopy, kEast, 8, start + 1, {1, 0});
      copy.alus = 1;
      copy.operands[0] = operand(node::OperandKind::kIn, kEast, filler, 0, stream);
    }
  }

  std::pair<std::uint16_t, std::int32_t> add_gemm(std::int32_t phase, std::uint16_t g, std::int32_t ready) {
    using enum node::Hemisphere;
    constexpr std::int32_t kGroups = 20;
    constexpr std::int32_t kSlices = 16;
    const std::int32_t n = shape_.vectors;
    const std::string suffix = std::to_string(phase);
    const std::uint16_t w = add_tensor("w" + suffix, node::TensorScope::kStatic, kGroups * kSlices);
    const std::uint16_t y = add_tensor("y" + suffix, node::TensorScope::kIteration, 4 * n, {g, w});
    const std::uint16_t x = add_tensor("x" + std::to_string(phase + 1), node::TensorScope::kIteration, n, {y});
    // The activations come as soon as they can be read; the tile is complete one cycle before the first of them.
    const std::int32_t compute = ready + (shape_.group > 1 ? 10 : 11);
    const std::int32_t install = compute - kGroups;

    node::Instruction& weights =
        read(kWest, 12, phase * 32, install - 9, w, {.stream = 16, .reach = 13, .stride = 1}, {kGroups, 1}, 0);
    weights.count[2] = kSlices;
    weights.index_stride[2] = 1;
    weights.operands[0].row_stride[0] = kSlices;
    weights.operands[0].row_stride[2] = 1;
    node::Allocation tile;
    tile.tensor = w;
    tile.slice = 12;
    tile.address = phase * 32;
    tile.count[0] = kGroups;
    tile.count[1] = kSlices;
    tile.row_stride[0] = kSlices;
    tile.row_stride[1] = 1;
    tile.slice_stride[1] = 1;
    tile.address_stride[0] = 1;
    text_.allocations.push_back(tile);
    node::Instruction& fill = add(node::Opcode::kInstall, kWest, 0, install, {1, 0});
    fill.count[1] = kGroups;
    fill.period[1] = 1;
    fill.operands[0] = operand(node::OperandKind::kIn, kWest, w, 0, {.stream = 16, .streams = kSlices}, 0);
    fill.operands[0].row_stride[1] = kSlices;
    fill.operands[1] = operand(node::OperandKind::kResident, kWest, w, 0, {}, 0);

    const std::int32_t slice = shape_.group > 1 ? 8 : 4;
    const std::int32_t row = shape_.group > 1 ? n : 0;
    const auto loop_rows = [&](node::Instruction& instruction) {
      instruction.count[1] = static_cast<std::uint16_t>(n);
      instruction.period[1] = n > 1 ? 1 : 0;
      instruction.operands[0].row = row;
      instruction.operands[0].row_stride[0] = 0;
      instruction.operands[0].row_stride[1] = 1;
    };
    node::Instruction& activations =
        read(kWest, slice, x_address(phase), ready, g, {.stream = 0, .reach = 13}, {n, n}, 1);
    loop_rows(activations);
    activations.address_stride[0] = 0;
    activations.address_stride[1] = 1;
    node::Instruction& multiply = add(node::Opcode::kCompute, kWest, 0, compute, {n, n});
    multiply.operands[0] = operand(node::OperandKind::kIn, kWest, g, 0, {.stream = 0});
    loop_rows(multiply);
    multiply.address_stride[0] = 1;
    multiply.mode = node::kComputeOverwrites | 0x02;
    multiply.operands[1] = operand(node::OperandKind::kResident, kWest, w, 0, {}, 0);

    const std::int32_t drain = compute + n - 1 + static_cast<std::int32_t>(chip_.mxm_latency.count());
    const Stream sums{.stream = 4, .streams = 4, .direction = node::Direction::kInward};
    node::Instruction& drained = add(node::Opcode::kDrain, kWest, 0, drain, {n, n});
    drained.address_stride[0] = 1;
    drained.argument = n;
    drained.operands[0] = operand(node::OperandKind::kOut, kWest, y, 0, sums, 4);
    node::Instruction& convert = add(node::Opcode::kConvert, kWest, 1, drain + 13, {n, n});
    convert.alus = 2;
    convert.operands[0] = operand(node::OperandKind::kIn, kWest, y, 0, sums, 4);
    convert.operands[1] = operand(node::OperandKind::kOut, kWest, x, 0, {.stream = 1, .reach = 1});
    write(kWest, 0, x_address(phase + 1), drain + 13 + 5 + 1, x, {.stream = 1}, {n, n});
    allocate(x, kWest, 0, x_address(phase + 1), 0, 1);
    return {x, drain + 13 + 5 + 1 + n * (n - 1) + 21};
  }

  RingShape shape_;
  node::ChipSpec chip_;
  bool is_first_;
  std::int32_t latency_;
  std::int32_t hop_push_ = 0;
  node::ChipProgram text_;
};

/// A legal cluster program: `stages` groups of `group` chips; every stage hands its hidden rows to the next over global
/// link 7, which arrives on link 8; the last hands them back to the first.
inline scheduler::ClusterProgram make_ring(const RingShape& shape, const node::ChipSpec& chip = tsp_v1()) {
  scheduler::ClusterProgram out;
  out.chip = chip;
  out.model = "ring";
  out.inputs = "{}";
  out.chips = shape.stages * shape.group;
  out.tensor_parallel = shape.group;
  out.pipeline_parallel = shape.stages;
  out.user_slots = shape.user_slots;
  StageBuilder first(shape, chip, true);
  StageBuilder other(shape, chip, false);
  out.texts.push_back(first.build());
  std::int64_t offset = 0;
  std::vector<std::int64_t> offsets(1, 0);
  if (shape.stages > 1) {
    out.texts.push_back(other.build());
    std::int32_t push = first.hop_push();
    for (std::int32_t stage = 1; stage < shape.stages; ++stage) {
      offset += push + chip.link_latency().count();
      offsets.push_back(offset);
      push = other.hop_push();
    }
    first.receive_token(out.texts[0], static_cast<std::int32_t>(offset + push + chip.link_latency().count()));
  }
  for (node::ChipProgram& text : out.texts) {
    first.finish(text);
    out.busy_span = std::max<std::int64_t>(out.busy_span, text.makespan);
  }
  // The last write is that of the returned token, or of the last hidden rows.
  for (const node::Instruction& instruction : out.texts[0].instructions) {
    if (instruction.opcode == node::Opcode::kWrite) {
      const std::int64_t last = instruction.start + (instruction.count[0] - 1) * instruction.period[0];
      out.token_latency = std::max(out.token_latency, last + chip.instruction_propagation.count() + 1);
    }
  }
  out.plan.initiation_interval = shape.interval > 0 ? shape.interval : out.busy_span;
  out.initiation_interval = out.plan.initiation_interval;
  out.plan.token_period = out.token_latency;
  out.plan.context = 128;
  out.plan.vocabulary = 32000;
  out.plan.seed = 1;
  for (std::int32_t stage = 0; stage < shape.stages; ++stage) {
    for (std::int32_t position = 0; position < shape.group; ++position) {
      node::ChipBinding binding;
      binding.chip = stage * shape.group + position;
      binding.text = stage == 0 ? 0 : 1;
      binding.stage = stage;
      binding.group_position = position;
      binding.first_layer = stage;
      binding.offset = offsets[static_cast<std::size_t>(stage)];
      binding.peers.resize(static_cast<std::size_t>(chip.links()));
      binding.slot_owner.push_back(position);
      for (std::int32_t link = 0; link < shape.group - 1; ++link) {
        const std::int32_t peer = (position + link + 1) % shape.group;
        binding.peers[static_cast<std::size_t>(link)] = {.chip = stage * shape.group + peer,
                                                         .link = shape.group - 2 - link};
        binding.slot_owner.push_back(peer);
      }
      if (shape.stages > 1) {
        const std::int32_t next = (stage + 1) % shape.stages;
        const std::int32_t previous = (stage + shape.stages - 1) % shape.stages;
        binding.peers[7] = {.chip = next * shape.group + position, .link = 8};
        binding.peers[8] = {.chip = previous * shape.group + position, .link = 7};
      }
      out.bindings.push_back(binding);
    }
  }
  return out;
}

}  // namespace lpu::test
