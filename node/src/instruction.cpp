#include "lpu/node/instruction.hpp"

#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

constexpr std::array<OpcodeInfo, 28> kOpcodes{{
    {Opcode::kRead, "read", Unit::kMem, false, "SRAM vector to a stream"},
    {Opcode::kWrite, "write", Unit::kMem, false, "stream to an SRAM vector; readable N + 1 cycles later"},
    {Opcode::kInstall, "install", Unit::kMxm, false, "columns of a tile from streams to the plane's weight buffer"},
    {Opcode::kCompute, "compute", Unit::kMxm, false, "activation vector times the plane's tile into an accumulator"},
    {Opcode::kDrain, "drain", Unit::kMxm, false, "accumulator to four inward streams"},
    {Opcode::kCopy, "copy", Unit::kVxm, false, "x"},
    {Opcode::kAdd, "add", Unit::kVxm, false, "x + y"},
    {Opcode::kMultiply, "multiply", Unit::kVxm, false, "x y"},
    {Opcode::kWiden, "widen", Unit::kVxm, false, "int8 weights to fp16, one ALU a column"},
    {Opcode::kDequantise, "dequantise", Unit::kVxm, false, "int32 sums times scales"},
    {Opcode::kQuantise, "quantise", Unit::kVxm, false, "round(x / scale) to int8"},
    {Opcode::kConvert, "convert", Unit::kVxm, false, "between fp32, fp16 and int32"},
    {Opcode::kSquareAccumulate, "square_accumulate", Unit::kVxm, false, "running sum of x^2, and running max |x w|"},
    {Opcode::kMaximum, "maximum", Unit::kVxm, false, "running or pairwise maximum"},
    {Opcode::kSum, "sum", Unit::kVxm, false, "running or pairwise sum"},
    {Opcode::kScale, "scale", Unit::kVxm, false, "x times a scalar and a weight vector"},
    {Opcode::kSiluMultiply, "silu_multiply", Unit::kVxm, true, "silu(gate) up"},
    {Opcode::kRotaryMultiply, "rotary_multiply", Unit::kVxm, false, "x cos + rotated x sin"},
    {Opcode::kExponential, "exponential", Unit::kVxm, true, "exp(x - max), running sum"},
    {Opcode::kReciprocalSquareRoot, "reciprocal_square_root", Unit::kVxm, true, "1 / sqrt(x + eps)"},
    {Opcode::kReciprocal, "reciprocal", Unit::kVxm, true, "1 / x"},
    {Opcode::kSelect, "select", Unit::kVxm, false, "the enabled one of two operands"},
    {Opcode::kCompareExchange, "compare_exchange", Unit::kVxm, false, "(value, id) pairs ordered: top-k and arg-max"},
    {Opcode::kRotate, "rotate", Unit::kSxm, false, "lanes moved within a head"},
    {Opcode::kReduceStep,
     "reduce_step",
     Unit::kSxm,
     false,
     "lanes moved for one of three steps of a cross-lane reduction"},
    {Opcode::kTranspose, "transpose", Unit::kSxm, false, "16 x 16 lanes transposed"},
    {Opcode::kPack, "pack", Unit::kSxm, false, "remainders of slices joined into full vectors"},
    {Opcode::kBroadcastLane, "broadcast_lane", Unit::kSxm, false, "one lane to all"},
}};

constexpr std::array<OpcodeInfo, 2> kLinkOpcodes{{
    {Opcode::kSend, "send", Unit::kC2c, false, "stream to a link's queue"},
    {Opcode::kReceive, "receive", Unit::kC2c, false, "link's queue to an inward stream"},
}};

constexpr auto make_table() {
  std::array<OpcodeInfo, kOpcodes.size() + kLinkOpcodes.size()> all{};
  std::size_t at = 0;
  for (const auto& row : kOpcodes) {
    all[at++] = row;
  }
  for (const auto& row : kLinkOpcodes) {
    all[at++] = row;
  }
  return all;
}
constexpr auto kTable = make_table();
static_assert([] {
  for (std::size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<std::size_t>(kTable[i].opcode) != i) {
      return false;
    }
  }
  return kTable.back().opcode == Opcode::kReceive;
}());

}  // namespace

std::span<const OpcodeInfo> opcode_table() {
  return kTable;
}

const OpcodeInfo& info(Opcode opcode) {
  const auto at = static_cast<std::size_t>(opcode);
  LPU_CHECK(at < kTable.size(), "opcode " + std::to_string(at));
  return kTable[at];
}

std::int32_t loops_used(const Instruction& instruction) {
  return (instruction.count[0] > 1 ? 1 : 0) + (instruction.count[1] > 1 ? 1 : 0) + (instruction.count[2] > 1 ? 1 : 0);
}

std::int64_t vectors_moved(const Instruction& instruction, const StreamOperand& operand) {
  std::int64_t vectors = operand.streams;
  for (std::size_t loop = 0; loop < 3; ++loop) {
    vectors *= (operand.held >> loop & 1U) != 0 ? 1 : instruction.count[loop];
  }
  return vectors;
}

bool computes(Opcode opcode) {
  const Unit unit = info(opcode).unit;
  return unit != Unit::kMem && unit != Unit::kC2c;
}

Bytes text_size(const Instruction& instruction, const ChipSpec& chip) {
  return Bytes(chip.instruction_bytes + std::int64_t{chip.loop_bytes} * loops_used(instruction));
}

Cycles latency(Opcode opcode, const ChipSpec& chip) {
  const OpcodeInfo& row = info(opcode);
  switch (row.unit) {
    case Unit::kVxm:
      return row.is_transcendental ? chip.vxm_transcendental_latency : chip.vxm_latency;
    case Unit::kSxm:
      return chip.sxm_latency;
    case Unit::kMxm:
      return opcode == Opcode::kCompute ? chip.mxm_latency : Cycles(0);
    case Unit::kMem:
    case Unit::kC2c:
      return Cycles(0);
  }
  return Cycles(0);
}

std::int32_t unit_position(const Instruction& instruction, const ChipSpec& chip) {
  switch (info(instruction.opcode).unit) {
    case Unit::kMem:
      return chip.slice_position(instruction.index);
    case Unit::kMxm:
      return chip.mxm_position;
    case Unit::kVxm:
      return chip.vxm_position;
    case Unit::kSxm:
    case Unit::kC2c:
      return chip.sxm_position;
  }
  return 0;
}

}  // namespace lpu::node
