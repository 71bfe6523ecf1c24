#include "lpu/scheduler/well_formed.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <tuple>

#include "lpu/node/error.hpp"

namespace lpu::scheduler {
namespace {

using node::Instruction;
using node::OperandKind;
using node::Unit;

constexpr std::int64_t kMost32 = std::numeric_limits<std::int32_t>::max();
/// Sizes beyond these would only make a consumer allocate without end.
constexpr std::int64_t kMostExperts = 1 << 16;
constexpr std::int64_t kMostPositions = 1 << 24;
constexpr std::int64_t kMostTokens = 1 << 24;
constexpr std::int64_t kMostChips = 1 << 20;
constexpr std::int64_t kMostUsers = 1 << 20;

/// Collects the first fault of one record; the checks after it do nothing.
class Checker {
 public:
  Checker(Record record, std::int32_t text, std::int64_t index) {
    fault_.record = record;
    fault_.text = text;
    fault_.index = index;
  }

  Checker& range(const std::string& field, std::int64_t found, std::int64_t least, std::int64_t most) {
    if (!has_failed_ && (found < least || found > most)) {
      fail(field,
           std::to_string(found),
           most < least ? "nothing: the list is empty" : std::to_string(least) + " to " + std::to_string(most));
    }
    return *this;
  }
  Checker& index(const std::string& field, std::int64_t found, std::size_t size) {
    return range(field, found, 0, static_cast<std::int64_t>(size) - 1);
  }
  Checker& is(const std::string& field, bool holds, const std::string& found, const std::string& expected) {
    if (!has_failed_ && !holds) {
      fail(field, found, expected);
    }
    return *this;
  }
  [[nodiscard]] bool has_failed() const { return has_failed_; }
  [[nodiscard]] std::optional<FormFault> result() const {
    return has_failed_ ? std::optional<FormFault>(fault_) : std::nullopt;
  }

 private:
  void fail(const std::string& field, std::string found, std::string expected) {
    has_failed_ = true;
    fault_.field = field;
    fault_.found = std::move(found);
    fault_.expected = std::move(expected);
  }
  FormFault fault_;
  bool has_failed_ = false;
};

std::optional<FormFault> check_chip(const node::ChipSpec& chip) {
  Checker check(Record::kProgram, -1, -1);
  const auto at_least_one = [&check](const char* name, std::int64_t value) {
    check.range(std::string("chip.") + name, value, 1, kMost32);
  };
  check.range("chip.clock_hz", chip.clock.count(), 1, std::numeric_limits<std::int64_t>::max());
  at_least_one("superlanes", chip.superlanes);
  at_least_one("lanes_per_superlane", chip.lanes_per_superlane);
  at_least_one("vector_bytes", chip.vector_bytes);
  check.range("chip.slices_per_hemisphere", chip.slices_per_hemisphere, 1, 256);
  check.range("chip.banks_per_slice", chip.banks_per_slice, 1, 256);
  check.range("chip.vectors_per_slice", chip.vectors_per_slice, 1, 65536);
  check.range("chip.streams_per_direction", chip.streams_per_direction, 1, 256);
  check.range("chip.mxm_planes_per_hemisphere", chip.mxm_planes_per_hemisphere, 1, 256);
  at_least_one("mxm_rows", chip.mxm_rows);
  at_least_one("mxm_columns", chip.mxm_columns);
  at_least_one("mxm_install_columns_per_cycle", chip.mxm_install_columns_per_cycle);
  check.range("chip.mxm_accumulators_per_plane", chip.mxm_accumulators_per_plane, 1, 65536);
  check.range("chip.vxm_alus", chip.vxm_alus, 1, 255);
  at_least_one("sxm_streams_per_cycle", chip.sxm_streams_per_cycle);
  at_least_one("icu_queues", chip.icu_queues);
  at_least_one("fetch_bytes_per_cycle", chip.fetch_bytes_per_cycle);
  check.range("chip.instruction_bytes", chip.instruction_bytes, 0, 65536);
  check.range("chip.loop_bytes", chip.loop_bytes, 0, 65536);
  check.range("chip.slices_per_position", chip.slices_per_position, 1, 256);
  check.range("chip.vxm_position", chip.vxm_position, 0, 255);
  check.range("chip.sxm_position", chip.sxm_position, 0, 255);
  check.range("chip.mxm_position", chip.mxm_position, 0, 255);
  for (const auto& [name, value] : std::array<std::pair<const char*, node::Cycles>, 10>{
           {{"instruction_propagation_cycles", chip.instruction_propagation},
            {"vxm_latency_cycles", chip.vxm_latency},
            {"vxm_transcendental_latency_cycles", chip.vxm_transcendental_latency},
            {"mxm_latency_cycles", chip.mxm_latency},
            {"sxm_latency_cycles", chip.sxm_latency},
            {"link_serialisation_cycles", chip.link_serialisation},
            {"link_flight_cycles", chip.link_flight},
            {"c2c_endpoint_cycles", chip.c2c_endpoint},
            {"moe_routing_cycles", chip.moe_routing},
            {"pcie_latency_cycles", chip.pcie_latency}}}) {
    check.range(std::string("chip.") + name, value.count(), 0, kMost32);
  }
  check.range("chip.local_links", chip.local_links, 0, 16);
  check.range("chip.global_links", chip.global_links, 0, 16 - std::min(chip.local_links, 16));
  check.range("chip.link_queue_vectors", chip.link_queue_vectors, 1, kMost32);
  return check.result();
}

std::optional<FormFault> check_header(const ClusterProgram& program) {
  if (auto fault = check_chip(program.chip)) {
    return fault;
  }
  const node::IterationPlan& plan = program.plan;
  Checker check(Record::kProgram, -1, -1);
  check.range("chips", program.chips, 1, kMostChips)
      .range("tensor_parallel", program.tensor_parallel, 1, kMostChips)
      .range("pipeline_parallel", program.pipeline_parallel, 1, kMostChips)
      .range("user_slots", program.user_slots, 1, kMostUsers)
      .range("token_latency_cycles", program.token_latency, 0, std::int64_t{1} << 48U)
      .range("busy_span_cycles", program.busy_span, 0, kMost32)
      .range("clockwork.initiation_interval_cycles", plan.initiation_interval, 1, kMost32)
      .range("clockwork.token_period_cycles", plan.token_period, 0, std::int64_t{1} << 48U)
      .range("clockwork.micro_batch", plan.micro_batch, 1, program.user_slots)
      .range("clockwork.groups", plan.groups, 1, program.user_slots / std::max(plan.micro_batch, 1))
      .range("clockwork.context", plan.context, 1, kMostPositions)
      .range("clockwork.vocabulary", plan.vocabulary, 1, kMostTokens)
      .range("clockwork.experts", plan.experts, 0, kMostExperts)
      .range("clockwork.experts_per_token", plan.experts_per_token, 0, plan.experts)
      .range("clockwork.expert_slots", plan.expert_slots, 0, plan.experts)
      .is("initiation_interval",
          program.initiation_interval == plan.initiation_interval,
          std::to_string(program.initiation_interval),
          std::to_string(plan.initiation_interval) + ", the clockwork's")
      .is("bindings",
          program.bindings.size() >= static_cast<std::size_t>(program.chips),
          std::to_string(program.bindings.size()),
          std::to_string(program.chips) + " or more, one a chip, spares included");
  return check.result();
}

std::optional<FormFault> check_binding(const ClusterProgram& program, std::size_t at) {
  const node::ChipBinding& binding = program.bindings[at];
  const auto links = static_cast<std::size_t>(program.chip.links());
  Checker check(Record::kBinding, -1, static_cast<std::int64_t>(at));
  check.range("chip", binding.chip, static_cast<std::int64_t>(at), static_cast<std::int64_t>(at))
      .range("text", binding.text, -1, static_cast<std::int64_t>(program.texts.size()) - 1)
      .range("stage", binding.stage, binding.text < 0 ? -1 : 0, kMostChips)
      .range("group_position", binding.group_position, binding.text < 0 ? -1 : 0, kMostChips)
      .range("first_layer", binding.first_layer, binding.text < 0 ? -1 : 0, kMost32)
      .range("offset_cycles", binding.offset, 0, std::int64_t{1} << 48U)
      .is("peers",
          binding.peers.size() == links || (binding.text < 0 && binding.peers.empty()),
          std::to_string(binding.peers.size()),
          std::to_string(links) + ", one a link");
  for (std::size_t link = 0; link < binding.peers.size() && !check.has_failed(); ++link) {
    const std::string name = "peers[" + std::to_string(link) + "]";
    check.range(name + ".chip", binding.peers[link].chip, -1, static_cast<std::int64_t>(program.bindings.size()) - 1);
    check.range(name + ".link", binding.peers[link].link, -1, static_cast<std::int64_t>(links) - 1);
  }
  for (std::size_t slot = 0; slot < binding.slot_owner.size() && !check.has_failed(); ++slot) {
    check.range("slot_owner[" + std::to_string(slot) + "]", binding.slot_owner[slot], 0, kMostChips);
  }
  return check.result();
}

/// Lowest and highest of base + Σ i_l stride_l.
template <typename Count, typename Stride>
[[nodiscard]] std::pair<std::int64_t, std::int64_t> span_of(std::int64_t base,
                                                            const Count (&count)[3],
                                                            const Stride (&stride)[3]) {
  std::pair<std::int64_t, std::int64_t> span{base, base};
  for (std::size_t l = 0; l < 3; ++l) {
    const std::int64_t move = (std::int64_t{count[l]} - 1) * stride[l];
    (move < 0 ? span.first : span.second) += move;
  }
  return span;
}

struct Allowed {
  const char* what;
  std::int64_t units;
};
[[nodiscard]] Allowed units_of(Unit unit, const node::ChipSpec& chip) {
  switch (unit) {
    case Unit::kMem:
      return {"slice", chip.slices_per_hemisphere};
    case Unit::kMxm:
      return {"plane", chip.mxm_planes_per_hemisphere};
    case Unit::kVxm:
      return {"ALU", chip.vxm_alus};
    case Unit::kSxm:
      return {"SXM", 1};
    case Unit::kC2c:
      return {"link", chip.links()};
  }
  return {"", 0};
}

void check_operands(Checker& check,
                    const Instruction& instruction,
                    const node::ChipProgram& text,
                    std::int64_t streams) {
  for (std::size_t i = 0; i < instruction.operands.size() && !check.has_failed(); ++i) {
    const node::StreamOperand& operand = instruction.operands[i];
    if (operand.kind == OperandKind::kNone) {
      continue;
    }
    const std::string name = "operands[" + std::to_string(i) + "].";
    check.index(name + "tensor", operand.tensor, text.tensors.size());
    const auto rows = span_of(operand.row, instruction.count, operand.row_stride);
    check.range(name + "row", rows.first, -kMost32, kMost32).range(name + "row", rows.second, -kMost32, kMost32);
    if (operand.kind == OperandKind::kResident) {
      continue;
    }
    const std::int64_t sweep = (std::int64_t{instruction.count[2]} - 1) * operand.stream_stride;
    check.range(name + "streams", operand.streams, 1, streams)
        .range(name + "stream", operand.stream + std::min<std::int64_t>(sweep, 0), 0, streams - operand.streams)
        .range(name + "stream", operand.stream + std::max<std::int64_t>(sweep, 0), 0, streams - operand.streams);
  }
}

std::optional<FormFault> check_instruction(const ClusterProgram& program, std::int32_t t, std::size_t at) {
  const node::ChipProgram& text = program.texts[static_cast<std::size_t>(t)];
  const Instruction& instruction = text.instructions[at];
  Checker check(Record::kInstruction, t, static_cast<std::int64_t>(at));
  const auto [what, units] = units_of(node::info(instruction.opcode).unit, program.chip);
  std::int64_t last = instruction.start;
  std::int64_t instances = 1;
  for (std::size_t l = 0; l < 3; ++l) {
    const std::string loop = "[" + std::to_string(l) + "]";
    check.range("count" + loop, instruction.count[l], 1, 65535);
    check.range("period_cycles" + loop, instruction.period[l], 0, kMost32);
    last += (std::int64_t{instruction.count[l]} - 1) * instruction.period[l];
    instances *= instruction.count[l];
  }
  check.is("count", instances <= kMost32, std::to_string(instances) + " instances", "at most 2147483647")
      .is("period_cycles", last <= kMost32, "an instance at cycle " + std::to_string(last), "at most 2147483647");
  const auto index = span_of(instruction.index, instruction.count, instruction.index_stride);
  const bool is_vxm = node::info(instruction.opcode).unit == Unit::kVxm;
  check.is("unit_index",
           index.first >= 0 && index.second + (is_vxm ? std::max<int>(instruction.alus, 1) : 1) <= units,
           std::string(what) + " " + std::to_string(index.first < 0 ? index.first : index.second) +
               (is_vxm ? " and " + std::to_string(instruction.alus) + " ALUs" : ""),
           std::string(what) + " 0 to " + std::to_string(units - 1));
  check.index("base_register", instruction.base_register, text.registers.size());
  if (node::info(instruction.opcode).unit == Unit::kC2c) {
    check.index("transfer", instruction.transfer, text.transfers.size());
  }
  check_operands(check, instruction, text, program.chip.streams_per_direction);
  if (at > 0) {
    check.is("start_cycle",
             !comes_before(instruction, text.instructions[at - 1]),
             std::to_string(instruction.start) + " after " + std::to_string(text.instructions[at - 1].start),
             "order of (start, unit, index)");
  }
  return check.result();
}

void check_counts(Checker& check, const std::string& name, const std::vector<node::OperationCount>& counts) {
  for (std::size_t i = 0; i < counts.size() && !check.has_failed(); ++i) {
    const std::string field = name + "[" + std::to_string(i) + "].";
    check
        .is(field + "opcode",
            node::computes(counts[i].opcode) && (i == 0 || counts[i - 1].opcode < counts[i].opcode),
            std::string(node::info(counts[i].opcode).name),
            "operations that compute, each once, in the order of opcodes")
        .range(field + "vectors", counts[i].vectors, 1, kMost32);
  }
}

std::optional<FormFault> check_tensor(const node::ChipProgram& text, std::int32_t t, std::size_t at) {
  const node::Tensor& tensor = text.tensors[at];
  Checker check(Record::kTensor, t, static_cast<std::int64_t>(at));
  check.range("layer_slot", tensor.layer_slot, -kMost32 / 2, kMost32 / 2)
      .range("rows", tensor.rows, 0, kMost32)
      .range("rows_per_slot", tensor.rows_per_slot, tensor.owner == node::TensorOwner::kGathered ? 1 : 0, kMost32);
  for (std::size_t i = 0; i < tensor.sources.size() && !check.has_failed(); ++i) {
    check.index("sources[" + std::to_string(i) + "]", tensor.sources[i], text.tensors.size());
  }
  check_counts(check, "made_by", tensor.made_by);
  check_counts(check, "used_by", tensor.used_by);
  return check.result();
}

std::optional<FormFault> check_allocation(const ClusterProgram& program, std::int32_t t, std::size_t at) {
  const node::ChipProgram& text = program.texts[static_cast<std::size_t>(t)];
  const node::Allocation& allocation = text.allocations[at];
  Checker check(Record::kAllocation, t, static_cast<std::int64_t>(at));
  check.index("tensor", allocation.tensor, text.tensors.size())
      .index("base_register", allocation.base_register, text.registers.size());
  for (std::size_t l = 0; l < 3; ++l) {
    check.range("count[" + std::to_string(l) + "]", allocation.count[l], 1, program.chip.vectors());
    check.range("row_stride[" + std::to_string(l) + "]", allocation.row_stride[l], -kMost32, kMost32);
  }
  if (check.has_failed()) {
    return check.result();  // spans of absurd counts would overflow
  }
  const auto slices = span_of(allocation.slice, allocation.count, allocation.slice_stride);
  const auto addresses = span_of(allocation.address, allocation.count, allocation.address_stride);
  const auto rows = span_of(allocation.row, allocation.count, allocation.row_stride);
  check.range("slice", slices.first, 0, program.chip.slices_per_hemisphere - 1)
      .range("slice", slices.second, 0, program.chip.slices_per_hemisphere - 1)
      .range("address", addresses.first, 0, program.chip.vectors_per_slice - 1)
      .range("address", addresses.second, 0, program.chip.vectors_per_slice - 1)
      .range("row", rows.first, 0, kMost32)
      .range("row", rows.second, 0, kMost32);
  return check.result();
}

void check_table(Checker& check, const node::BaseRegister& base, std::int64_t least) {
  check.is("table",
           static_cast<std::int64_t>(base.table.size()) >= least,
           std::to_string(base.table.size()) + " entries",
           "at least " + std::to_string(least));
}

std::optional<FormFault> check_register(const ClusterProgram& program, std::int32_t t, std::size_t at) {
  const node::BaseRegister& base = program.texts[static_cast<std::size_t>(t)].registers[at];
  const node::IterationPlan& plan = program.plan;
  Checker check(Record::kRegister, t, static_cast<std::int64_t>(at));
  if (at == 0) {
    check.is("kind", base.kind == node::RegisterKind::kNone, "another kind", "none: register 0 is no register");
  }
  switch (base.kind) {
    case node::RegisterKind::kNone:
    case node::RegisterKind::kPosition:
      break;
    case node::RegisterKind::kBuffer:
      check.range("copies", base.copies, 1, program.chip.vectors_per_slice);
      break;
    case node::RegisterKind::kAppend:
      check.range("append.positions_per_tile", base.append.positions_per_tile, 1, kMostPositions)
          .range("append.planes", base.append.planes, 1, 256)
          .range("append.columns_per_cycle", base.append.columns_per_cycle, base.append.is_column ? 1 : 0, 65536);
      [[fallthrough]];
    case node::RegisterKind::kUser:
      check.range("user_in_batch", base.user_in_batch, 0, plan.micro_batch - 1);
      check_table(check, base, program.user_slots);
      break;
    case node::RegisterKind::kExpert:
      check.range("expert_slot", base.expert_slot, 0, plan.expert_slots - 1);
      check.range("experts", base.experts, plan.experts, plan.experts);
      break;
    case node::RegisterKind::kToken:
      check.range("user_in_batch", base.user_in_batch, 0, plan.micro_batch - 1);
      check.range("experts", base.experts, plan.vocabulary, plan.vocabulary);
      check_table(check, base, 1);
      break;
  }
  return check.result();
}

std::optional<FormFault> check_text(const ClusterProgram& program, std::int32_t t) {
  const node::ChipProgram& text = program.texts[static_cast<std::size_t>(t)];
  Checker check(Record::kText, t, -1);
  check.range("layers", text.layers, 0, kMost32 / 2)
      .range("makespan_cycles", text.makespan, 0, kMost32)
      .is("registers", !text.registers.empty(), "none", "register 0 of kind none at least")
      .range("registers", static_cast<std::int64_t>(text.registers.size()), 1, 65536)
      .range("tensors", static_cast<std::int64_t>(text.tensors.size()), 0, 65536)
      .range("transfers", static_cast<std::int64_t>(text.transfers.size()), 0, 65536);
  if (check.has_failed()) {
    return check.result();
  }
  const auto each = [](std::size_t size, const auto& one) {
    std::optional<FormFault> fault;
    for (std::size_t i = 0; i < size && !fault; ++i) {
      fault = one(i);
    }
    return fault;
  };
  auto fault = each(text.tensors.size(), [&](std::size_t i) { return check_tensor(text, t, i); });
  if (!fault) {
    fault = each(text.allocations.size(), [&](std::size_t i) { return check_allocation(program, t, i); });
  }
  if (!fault) {
    fault = each(text.registers.size(), [&](std::size_t i) { return check_register(program, t, i); });
  }
  if (!fault) {
    fault = each(text.transfers.size(), [&](std::size_t i) {
      return Checker(Record::kTransfer, t, static_cast<std::int64_t>(i))
          .range("layer_slot", text.transfers[i].layer_slot, -kMost32 / 2, kMost32 / 2)
          .range("vectors", text.transfers[i].vectors, 0, kMost32)
          .result();
    });
  }
  if (!fault) {
    fault = each(text.instructions.size(), [&](std::size_t i) { return check_instruction(program, t, i); });
  }
  return fault;
}

/// Each stage is one group of tensor_parallel chips, at positions 0, 1, ... Chips behind the last stage only forward;
/// one that belongs to a stage and has no text is another rank's.
std::optional<FormFault> check_groups(const ClusterProgram& program) {
  const auto stages = static_cast<std::size_t>(program.pipeline_parallel);
  const auto size = static_cast<std::size_t>(program.tensor_parallel);
  std::vector<std::vector<std::size_t>> groups(stages);
  for (std::size_t at = 0; at < program.bindings.size(); ++at) {
    const node::ChipBinding& binding = program.bindings[at];
    Checker check(Record::kBinding, -1, static_cast<std::int64_t>(at));
    check.range("stage", binding.stage, binding.text < 0 ? -1 : 0, program.pipeline_parallel);
    if (check.has_failed()) {
      return check.result();
    }
    if (binding.stage >= 0 && binding.stage < program.pipeline_parallel) {
      groups[static_cast<std::size_t>(binding.stage)].push_back(at);
    }
  }
  for (std::size_t stage = 0; stage < stages; ++stage) {
    const std::string chips = std::to_string(groups[stage].size()) + " chips of stage " + std::to_string(stage);
    Checker header(Record::kProgram, -1, -1);
    header
        .is("pipeline_parallel",
            !groups[stage].empty(),
            std::to_string(stages),
            std::to_string(stage) + ": no chip has stage " + std::to_string(stage))
        .is("tensor_parallel", groups[stage].size() == size, std::to_string(size), "the " + chips);
    if (header.has_failed()) {
      return header.result();
    }
    std::vector<bool> is_taken(size, false);
    for (const std::size_t at : groups[stage]) {
      const node::ChipBinding& binding = program.bindings[at];
      Checker check(Record::kBinding, -1, static_cast<std::int64_t>(at));
      check.range("group_position", binding.group_position, 0, program.tensor_parallel - 1);
      if (!check.has_failed()) {
        const auto position = static_cast<std::size_t>(binding.group_position);
        check.is("group_position",
                 !is_taken[position],
                 std::to_string(position) + ", which another chip of stage " + std::to_string(stage) + " has",
                 "each position once");
        is_taken[position] = true;
      }
      if (check.has_failed()) {
        return check.result();
      }
    }
  }
  return std::nullopt;
}

/// Experts of the clockwork against those that base registers choose among; a part of a program may hold none of these.
std::optional<FormFault> check_experts(const ClusterProgram& program) {
  const node::IterationPlan& plan = program.plan;
  std::int32_t slots = 0;
  for (const node::ChipProgram& text : program.texts) {
    for (const node::BaseRegister& base : text.registers) {
      slots = base.kind == node::RegisterKind::kExpert ? std::max(slots, base.expert_slot + 1) : slots;
    }
  }
  const bool is_whole = std::none_of(program.bindings.begin(), program.bindings.end(), [&](const auto& binding) {
    return binding.text < 0 && binding.stage >= 0 && binding.stage < program.pipeline_parallel;
  });
  const std::int64_t chosen =
      std::min<std::int64_t>(plan.experts, std::int64_t{plan.experts_per_token} * plan.micro_batch);
  Checker check(Record::kProgram, -1, -1);
  check
      .is("clockwork.experts",
          plan.experts == 0 || slots > 0 || !is_whole,
          std::to_string(plan.experts),
          "0: no base register chooses an expert")
      .is("clockwork.expert_slots",
          slots == 0 || slots == plan.expert_slots,
          std::to_string(plan.expert_slots),
          std::to_string(slots) + ", those of the base registers")
      .is("clockwork.experts_per_token",
          plan.expert_slots == plan.experts || plan.expert_slots == chosen,
          std::to_string(plan.experts_per_token) + " for " + std::to_string(plan.expert_slots) + " slots",
          "as many as fill the slots, those of all experts or of micro_batch tokens");
  return check.result();
}

[[nodiscard]] std::string record_name(Record record) {
  switch (record) {
    case Record::kProgram:
      return "program";
    case Record::kBinding:
      return "binding";
    case Record::kText:
      return "text";
    case Record::kTensor:
      return "tensor";
    case Record::kAllocation:
      return "allocation";
    case Record::kRegister:
      return "register";
    case Record::kTransfer:
      return "transfer";
    case Record::kInstruction:
      return "instruction";
  }
  return {};
}

}  // namespace

std::string FormFault::message() const {
  std::string out;
  if (text >= 0) {
    out += "text " + std::to_string(text) + ": ";
  }
  if (index >= 0) {
    out += record_name(record) + " " + std::to_string(index) + ": ";
  }
  return out + field + ": found " + found + "; expected " + expected;
}

std::optional<FormFault> find_form_fault(const ClusterProgram& program) {
  if (auto fault = check_header(program)) {
    return fault;
  }
  for (std::size_t i = 0; i < program.bindings.size(); ++i) {
    if (auto fault = check_binding(program, i)) {
      return fault;
    }
  }
  if (auto fault = check_groups(program)) {
    return fault;
  }
  for (std::size_t t = 0; t < program.texts.size(); ++t) {
    if (auto fault = check_text(program, static_cast<std::int32_t>(t))) {
      return fault;
    }
  }
  return check_experts(program);
}

void check_well_formed(const ClusterProgram& program) {
  if (const auto fault = find_form_fault(program)) {
    throw node::InputError(fault->message());
  }
}

bool comes_before(const Instruction& a, const Instruction& b) {
  return std::tuple(a.start, node::info(a.opcode).unit, a.index) <
         std::tuple(b.start, node::info(b.opcode).unit, b.index);
}

void sort_instructions(node::ChipProgram& text) {
  std::ranges::stable_sort(text.instructions, comes_before);
}

}  // namespace lpu::scheduler
