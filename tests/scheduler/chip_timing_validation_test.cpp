// Published times and sizes of the chip, from programs that verify() proves legal; each row with its tolerance.
#include <cstdint>
#include <string>

#include <gtest/gtest.h>

#include "declare_operations.hpp"
#include "lpu/node/quantity.hpp"
#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/verify.hpp"
#include "tiny_instruction.hpp"
#include "validation.hpp"

namespace lpu::scheduler {
namespace {

using namespace test;  // builders of single instructions
using node::Direction;
using node::Hemisphere;
using node::Instruction;
using node::Opcode;
using enum node::OperandKind;

/// One chip, one iteration at a time; tensor 0 is the program text.
class OneChip {
 public:
  OneChip() {
    program_.chip = tsp_v1();
    program_.model = "pass";
    program_.chips = 1;
    program_.initiation_interval = program_.plan.initiation_interval = program_.plan.token_period = kMakespan;
    program_.token_latency = program_.busy_span = kMakespan;
    node::ChipProgram& text = program_.texts.emplace_back();
    text.layers = 1;
    text.makespan = kMakespan;
    text.registers.emplace_back();
    const int rows = 8;
    place(tensor("program_text", node::TensorScope::kStatic, rows), Hemisphere::kWest, 27, 8000, rows);
    node::ChipBinding binding;
    binding.peers.assign(static_cast<std::size_t>(program_.chip.links()), node::LinkPeer{});
    binding.slot_owner = {0};
    program_.bindings.push_back(binding);
  }

  std::uint16_t tensor(const std::string& name,
                       node::TensorScope scope,
                       int rows,
                       std::vector<std::uint16_t> sources = {}) {
    auto& tensors = program_.texts[0].tensors;
    tensors.push_back({.name = name, .scope = scope, .rows = rows, .sources = std::move(sources)});
    return static_cast<std::uint16_t>(tensors.size() - 1);
  }
  node::Allocation& place(
      std::uint16_t tensor, Hemisphere hemisphere, int slice, int address, int rows, int first_row = 0) {
    node::Allocation out{
        .tensor = tensor, .hemisphere = hemisphere, .row = first_row, .slice = slice, .address = address};
    out.count[0] = rows;
    out.row_stride[0] = 1;
    out.address_stride[0] = 1;
    return program_.texts[0].allocations.emplace_back(out);
  }
  Instruction& add(const Instruction& instruction) { return program_.texts[0].instructions.emplace_back(instruction); }
  [[nodiscard]] ClusterProgram sorted() const {
    ClusterProgram out = program_;
    auto& instructions = out.texts[0].instructions;
    std::stable_sort(instructions.begin(), instructions.end(), [](const Instruction& a, const Instruction& b) {
      return std::tuple(a.start, node::info(a.opcode).unit, a.index, a.hemisphere) <
             std::tuple(b.start, node::info(b.opcode).unit, b.index, b.hemisphere);
    });
    declare_operations(out.texts[0]);
    return out;
  }
  [[nodiscard]] const node::ChipSpec& chip() const { return program_.chip; }
  [[nodiscard]] int position(int slice) const { return program_.chip.slice_position(slice); }

  static constexpr int kMakespan = 400;

 private:
  ClusterProgram program_;
};

std::string breaches(const ClusterProgram& program) {
  std::string out;
  for (const node::Violation& violation : verify(program, 20)) {
    out += "\n  " + violation.message();
  }
  return out;
}

/// The first cycle in which the written row may be read; checked: one cycle earlier breaks a rule of that very read.
template <typename WithRead>
int first_legal_read(WithRead&& program_with_read_at, int from, int to) {
  for (int cycle = from; cycle < to; ++cycle) {
    if (breaches(program_with_read_at(cycle)).empty()) {
      EXPECT_NE(breaches(program_with_read_at(cycle - 1)).find("read"), std::string::npos);
      return cycle;
    }
  }
  ADD_FAILURE() << "no legal read:" << breaches(program_with_read_at(to - 1));
  return to;
}

constexpr const char* kTransitSource =
    "Abts et al., ISCA 2020: T = N + d_func + delta (primary; N, d_func and positions: the preset's assumptions)";

/// MEM, unit, MEM in the west: a row leaves slice `from` in cycle 0 and comes to slice `to`.
ClusterProgram pass(Opcode opcode, int from, int to, int read_at) {
  OneChip one;
  const auto x = one.tensor("x", node::TensorScope::kStatic, 1);
  const auto y = one.tensor("y", node::TensorScope::kIteration, 1, {x});
  one.place(x, Hemisphere::kWest, from, 0, 1);
  one.place(y, Hemisphere::kWest, to, 0, 1);
  const bool is_vxm = node::info(opcode).unit == node::Unit::kVxm;
  const int unit = is_vxm ? one.chip().vxm_position : one.chip().sxm_position;
  const Direction there = is_vxm ? Direction::kInward : Direction::kOutward;
  const Direction back = is_vxm ? Direction::kOutward : Direction::kInward;
  const int at = std::abs(unit - one.position(from));
  const int latency = static_cast<int>(node::latency(opcode, one.chip()).count());
  const int written = at + latency + std::abs(unit - one.position(to));
  one.add(instruction(Opcode::kRead, 0, from, 0, {operand(kOut, there, 0, 1, x, 0, unit)}));
  one.add(instruction(
      opcode, at, 0, 0, {operand(kIn, there, 0, 1, x, 0), operand(kOut, back, 1, 1, y, 0, one.position(to))}));
  one.add(instruction(Opcode::kWrite, written, to, 0, {operand(kIn, back, 1, 1, y, 0)}));
  one.add(
      instruction(Opcode::kRead, read_at, to, 0, {operand(kOut, Direction::kOutward, 2, 1, y, 0, one.position(to))}));
  return one.sorted();
}

struct Pass {
  Opcode opcode;
  int from, to;
  int distance;  ///< delta: stream registers from slice to unit and from unit to slice
  int function;  ///< d_func
};

class TransitValidation : public testing::TestWithParam<Pass> {};

TEST_P(TransitValidation, R4PassTakesExactlyPropagationFunctionAndDistance) {
  const Pass& given = GetParam();
  const int propagation = 20;
  // One vector: it can be read in the cycle after the last superlane has it.
  const int expected = propagation + given.function + given.distance + 1;
  const int measured = first_legal_read(
      [&](int cycle) { return pass(given.opcode, given.from, given.to, cycle); }, expected - 15, expected + 15);
  check_figure({.name = "R4 pass of one vector through " + std::string(node::info(given.opcode).name),
                .unit = "cycles",
                .expected = static_cast<double>(expected),
                .measured = static_cast<double>(measured),
                .tolerance = 0,
                .source = kTransitSource});
}

// Slice i stands at 1 + i / 4, the VXM at 0, the SXM at 12.
INSTANTIATE_TEST_SUITE_P(Units,
                         TransitValidation,
                         testing::Values(Pass{Opcode::kCopy, 0, 4, 1 + 2, 5},
                                         Pass{Opcode::kAdd, 43, 8, 11 + 3, 5},
                                         Pass{Opcode::kExponential, 12, 0, 4 + 1, 10},
                                         Pass{Opcode::kReciprocalSquareRoot, 0, 40, 1 + 11, 10},
                                         Pass{Opcode::kRotate, 40, 0, 1 + 11, 10},
                                         Pass{Opcode::kReduceStep, 4, 8, 10 + 9, 10}));

/// A vector of slice 0 times a tile of 16 columns, its sum to slices 8 to 11; the tile was installed before.
ClusterProgram multiply(int leaves, int read_at) {
  OneChip one;
  const auto x = one.tensor("x", node::TensorScope::kStatic, 1);
  const auto w = one.tensor("w", node::TensorScope::kStatic, 16);
  const auto y = one.tensor("y", node::TensorScope::kIteration, 4, {x, w});
  one.place(x, Hemisphere::kWest, 0, 0, 1);
  for (const auto& [tensor, slice, rows] : {std::tuple{w, 28, 16}, std::tuple{y, 8, 4}}) {
    node::Allocation& cells = one.place(tensor, Hemisphere::kWest, slice, 0, rows);
    cells.address_stride[0] = 0;
    cells.slice_stride[0] = 1;
  }
  const int mxm = one.chip().mxm_position;
  const auto across = [](Instruction instruction, int slices) {
    instruction.count[2] = static_cast<std::uint16_t>(slices);
    instruction.index_stride[2] = 1;
    instruction.operands[0].row_stride[2] = 1;
    instruction.operands[0].stream_stride = 1;
    return instruction;
  };
  one.add(across(instruction(Opcode::kRead, 0, 28, 0, {operand(kOut, Direction::kOutward, 0, 1, w, 0, mxm)}), 16));
  one.add(instruction(
      Opcode::kInstall,
      mxm - one.position(28),
      0,
      0,
      {operand(kIn, Direction::kOutward, 0, 16, w, 0), operand(kResident, Direction::kOutward, 0, 1, w, 0)}));
  one.add(instruction(Opcode::kRead, leaves, 0, 0, {operand(kOut, Direction::kOutward, 16, 1, x, 0, mxm)}));
  const int compute = leaves + mxm - one.position(0);
  one.add(instruction(
              Opcode::kCompute,
              compute,
              0,
              0,
              {operand(kIn, Direction::kOutward, 16, 1, x, 0), operand(kResident, Direction::kOutward, 0, 1, w, 0)}))
      .mode = node::kComputeOverwrites;
  const int drain = compute + 40;
  one.add(instruction(Opcode::kDrain, drain, 0, 0, {operand(kOut, Direction::kInward, 0, 4, y, 0, one.position(8))}))
      .argument = 1;
  one.add(across(
      instruction(Opcode::kWrite, drain + mxm - one.position(8), 8, 0, {operand(kIn, Direction::kInward, 0, 1, y, 0)}),
      4));
  one.add(across(
      instruction(Opcode::kRead, read_at, 8, 0, {operand(kOut, Direction::kOutward, 8, 1, y, 0, one.position(8))}), 4));
  return one.sorted();
}

TEST(TransitValidation, R4PassThroughTheMxmTakesExactlyPropagationFunctionAndDistance) {
  const int leaves = 30;
  const int expected = 20 + 40 + (12 + 10) + 1;
  const int measured =
      first_legal_read(
          [&](int cycle) { return multiply(leaves, cycle); }, leaves + expected - 15, leaves + expected + 15) -
      leaves;
  check_figure({.name = "R4 pass of one vector through the MXM",
                .unit = "cycles",
                .expected = static_cast<double>(expected),
                .measured = static_cast<double>(measured),
                .tolerance = 0,
                .source = kTransitSource});
}

/// Four tiles of 320 x 320 from 32 slices of each hemisphere, and the first use of all four.
ClusterProgram install(int compute_at) {
  OneChip one;
  const int mxm = one.chip().mxm_position;
  constexpr int kSlice = 12;
  constexpr int kStreams = 32;
  constexpr int kCycles = 20;
  const int rows = kCycles * kStreams;
  const auto x = one.tensor("x", node::TensorScope::kStatic, 1);
  const auto w = one.tensor("w", node::TensorScope::kStatic, 2 * rows);
  const auto y = one.tensor("y", node::TensorScope::kIteration, 16, {x, w});
  for (const Hemisphere hemisphere : {Hemisphere::kWest, Hemisphere::kEast}) {
    const int side = static_cast<int>(hemisphere);
    one.place(x, hemisphere, 0, 0, 1);
    node::Allocation& tiles = one.place(w, hemisphere, kSlice, 0, kCycles, side * rows);
    tiles.row_stride[0] = kStreams;
    tiles.count[1] = kStreams;
    tiles.row_stride[1] = 1;
    tiles.slice_stride[1] = 1;
    const auto here = [&](Instruction instruction) -> Instruction& {
      instruction.hemisphere = hemisphere;
      for (node::StreamOperand& each : instruction.operands) {
        each.hemisphere = hemisphere;
      }
      return one.add(instruction);
    };
    const auto both_planes = [](Instruction& instruction, int row_step) {
      instruction.count[2] = 2;
      instruction.index_stride[2] = 1;
      instruction.operands[1].row_stride[2] = static_cast<std::int16_t>(row_step);
    };
    const auto columns = [](Instruction& instruction) {
      instruction.count[1] = kCycles;
      instruction.period[1] = 1;
      instruction.operands[0].row_stride[1] = kStreams;
    };
    Instruction& read =
        here(instruction(Opcode::kRead, 0, kSlice, 0, {operand(kOut, Direction::kOutward, 0, 1, w, side * rows, mxm)}));
    columns(read);
    read.address_stride[1] = 1;
    read.count[2] = kStreams;
    read.index_stride[2] = 1;
    read.operands[0].row_stride[2] = 1;
    read.operands[0].stream_stride = 1;
    Instruction& fill = here(instruction(Opcode::kInstall,
                                         mxm - one.position(kSlice),
                                         0,
                                         0,
                                         {operand(kIn, Direction::kOutward, 0, 16, w, side * rows),
                                          operand(kResident, Direction::kOutward, 0, 1, w, side * rows)}));
    columns(fill);
    both_planes(fill, 16);
    fill.operands[0].row_stride[2] = 16;
    fill.operands[0].stream_stride = 16;
    here(instruction(Opcode::kRead,
                     compute_at - (mxm - one.position(0)),
                     0,
                     0,
                     {operand(kOut, Direction::kOutward, 0, 1, x, 0, mxm)}));
    Instruction& compute = here(instruction(Opcode::kCompute,
                                            compute_at,
                                            0,
                                            0,
                                            {operand(kIn, Direction::kOutward, 0, 1, x, 0),
                                             operand(kResident, Direction::kOutward, 0, 1, w, side * rows)}));
    compute.mode = node::kComputeOverwrites;
    both_planes(compute, 16);
    Instruction& drain = here(instruction(
        Opcode::kDrain, compute_at + 40, 0, 0, {operand(kOut, Direction::kInward, 0, 4, y, 8 * side, mxm)}));
    both_planes(drain, 0);
    drain.operands[0].row_stride[2] = 4;
    drain.operands[0].stream_stride = 4;
    drain.argument = 1;
  }
  return one.sorted();
}

TEST(InstallValidation, R2FourFullPlanesInLessThan40Cycles) {
  // The first read leaves its slice in cycle 0; the activations' own stream cannot cross the last columns.
  int compute = 20;
  while (compute < 60 && !breaches(install(compute)).empty()) {
    ++compute;
  }
  const ClusterProgram program = install(compute);
  ASSERT_EQ(breaches(program), "");
  std::int64_t weights = 0;
  for (const Instruction& each : program.texts[0].instructions) {
    if (each.opcode == Opcode::kInstall) {
      weights += std::int64_t{node::instances(each)} * each.operands[0].streams * program.chip.vector_bytes;
    }
  }
  EXPECT_EQ(weights, 409'600);
  EXPECT_LT(compute, 40);
  check_figure({.name = "R2 install of 409,600 weights, transit included",
                .unit = "cycles",
                .expected = 20 + 9,
                .measured = static_cast<double>(compute),
                .tolerance = 0,
                .source = "Abts et al., ISCA 2020: less than 40 cycles (primary); 20 + the transit of slice 12"});
}

CompileRequest llama_2_70b() {
  CompileRequest out;
  out.chip = tsp_v1();
  out.model = {.name = "llama-2-70b",
               .hidden = 8192,
               .layers = 80,
               .heads = 64,
               .kv_heads = 8,
               .head_dim = 128,
               .ffn = 28'672,
               .vocabulary = 32'000,
               .max_position = 4096,
               .rope = {}};
  return out;
}

TEST(CapacityValidation, R16Int8MatricesOfLlama2Fill299ChipsExactly) {
  const ModelConfig model = llama_2_70b().model;
  const std::int64_t layer =
      model.hidden * model.head_dim * 2 * (model.heads + model.kv_heads) + 3 * model.hidden * model.ffn;
  const std::int64_t bytes = model.layers * layer + 2 * model.vocabulary * model.hidden;
  EXPECT_EQ(bytes, 299 * (std::int64_t{220} << 20U));
}

TEST(CapacityValidation, R16TheSmallestClusterIsLarger) {
  const CompileRequest request = llama_2_70b();
  const std::int32_t smallest = smallest_chips(request);
  EXPECT_GT(smallest, 299);
  EXPECT_LE(smallest, 576);  // what the published system has
}

TEST(CapacityValidation, R16Fp16DoesNotFit576Chips) {
  CompileRequest request = llama_2_70b();
  request.compute = Compute::kFp16;
  request.kv = KvType::kFp16;
  EXPECT_GT(smallest_chips(request), 576);
  request.chips = 576;
  request.tensor_parallel = 8;
  request.pipeline_parallel = 72;
  EXPECT_THROW((void)compile(request), DoesNotFit);
}

}  // namespace
}  // namespace lpu::scheduler
