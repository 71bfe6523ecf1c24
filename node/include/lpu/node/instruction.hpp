#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "lpu/node/chip_spec.hpp"

namespace lpu::node {

enum class Unit : std::uint8_t { kMem, kMxm, kVxm, kSxm, kC2c };

/// What an instruction does. The table in instruction.cpp (opcode_table) gives unit, latency class and one line each.
enum class Opcode : std::uint8_t {
  kRead,
  kWrite,
  kInstall,
  kCompute,
  kDrain,
  // VXM: what the ALU chain computes; timing depends on the latency class alone
  kCopy,
  kAdd,
  kMultiply,
  kWiden,
  kDequantise,
  kQuantise,
  kConvert,
  kSquareAccumulate,
  kMaximum,
  kSum,
  kScale,
  kSiluMultiply,
  kRotaryMultiply,
  kExponential,
  kReciprocalSquareRoot,
  kReciprocal,
  kSelect,
  kCompareExchange,
  // SXM
  kRotate,
  kReduceStep,
  kTranspose,
  kPack,
  kBroadcastLane,
  kSend,
  kReceive,
};

struct OpcodeInfo {
  Opcode opcode;
  std::string_view name;  ///< as listings spell it
  Unit unit;
  bool is_transcendental;  ///< VXM only: the longer latency
  std::string_view doc;
};
[[nodiscard]] std::span<const OpcodeInfo> opcode_table();
[[nodiscard]] const OpcodeInfo& info(Opcode opcode);

/// Part that an operand plays. kResident names the tile that must stand in the MXM plane; it touches no stream.
enum class OperandKind : std::uint8_t { kNone, kIn, kOut, kResident };

/// One operand: where it lies on the streams, and which value it must be.
///
/// A multi-stream operand (fp16 2, fp32 4, install 16) occupies streams [stream, stream + streams) of one hemisphere
/// and direction in the same cycle; the vector on stream + j is row + j of the tensor.
struct StreamOperand {
  OperandKind kind = OperandKind::kNone;
  Hemisphere hemisphere = Hemisphere::kWest;
  Direction direction = Direction::kOutward;
  std::uint8_t stream = 0;
  std::uint8_t streams = 1;
  std::int8_t stream_stride = 0;  ///< per index of loop 2
  std::uint8_t reach = 0;  ///< kOut: last stream register that the value is kept in (position of the last consumer)
  /// Bit l: held over loop l. A held kIn is taken only where index l is 0 (the unit keeps it); a held kOut appears only
  /// where index l is count - 1 (the unit accumulates).
  std::uint8_t held : 4 = 0;
  std::uint8_t is_registered : 1 = 0;  ///< the row moves with the instruction's base register (experts)
  std::uint8_t unused : 3 = 0;
  std::uint16_t tensor = 0;  ///< index in ChipProgram::tensors
  std::int16_t row_stride[3] = {0, 0, 0};
  std::int32_t row = 0;
};

/// An affine burst: one instruction that a queue fetches once and issues count0 x count1 x count2 times.
///
/// Instance (i0, i1, i2) issues at start + i0 period0 + i1 period1 + i2 period2, relative to the start of the
/// iteration. MEM: `start` is the cycle at slice `index`; an instance on a slice at another position issues along the
/// stream's diagonal, that many cycles later (outward) or earlier (inward) as the positions differ, so that one burst
/// over many slices lines up at the unit.
struct Instruction {
  std::int32_t start = 0;
  std::int32_t period[3] = {
      0, 0, 0};  ///< cycles; 0 only with count 1, or in loop 2 ("width": at several places at once)
  std::uint16_t count[3] = {1, 1, 1};  ///< each >= 1
  Opcode opcode = Opcode::kRead;
  Hemisphere hemisphere = Hemisphere::kWest;   ///< MEM, MXM, SXM: where the unit is; C2C follows from the link
  std::uint8_t index = 0;                      ///< slice | plane | first ALU | 0 | link
  std::uint8_t alus = 0;                       ///< VXM: ALUs [index, index + alus) are taken in each issue cycle
  std::int8_t index_stride[3] = {0, 0, 0};     ///< slice | plane | - | - | link, per loop
  std::uint16_t base_register = 0;             ///< index in ChipProgram::registers; 0: none
  std::int16_t address_stride[3] = {0, 0, 0};  ///< MEM address, or MXM accumulator, per loop
  std::uint16_t address = 0;                   ///< MEM: vector address in the slice; kCompute, kDrain: accumulator
  /// kCompute: bit l: the accumulator is overwritten where index l is 0 for every set bit (bit 7 set), else added to.
  /// kWrite: bit 0: masked (part of the lanes; the rest of the row stays).
  std::uint8_t mode = 0;
  std::uint8_t operator_part = 0;  ///< OperatorPart: which row of the layer budget it is charged to
  std::uint16_t transfer = 0;      ///< C2C: index in ChipProgram::transfers
  /// kReceive: cycles between the vector's arrival and this instruction, >= 0. kDrain: computes that make up each sum.
  std::int32_t argument = 0;
  std::array<StreamOperand, 4> operands{};
};
static_assert(sizeof(StreamOperand) == 20 && sizeof(Instruction) <= 128, "the emulator's record of a burst");

inline constexpr std::uint8_t kComputeOverwrites = 0x80;
inline constexpr std::uint8_t kWriteMasked = 0x01;

[[nodiscard]] inline std::int32_t instances(const Instruction& instruction) {
  return std::int32_t{instruction.count[0]} * instruction.count[1] * instruction.count[2];
}
/// Whether an operation makes something else of what it takes: those of MXM, VXM and SXM do.
[[nodiscard]] bool computes(Opcode opcode);
/// Vectors that one operand of an instruction takes or gives in an iteration: a held one once per round of its loops.
[[nodiscard]] std::int64_t vectors_moved(const Instruction& instruction, const StreamOperand& operand);
[[nodiscard]] std::int32_t loops_used(const Instruction& instruction);
/// Program text that the instruction takes on the chip.
[[nodiscard]] Bytes text_size(const Instruction& instruction, const ChipSpec& chip);
/// From issue to the cycle in which outputs stand in the stream register at the unit (MXM: from kCompute to the
/// earliest kDrain). 0 for MEM and C2C.
[[nodiscard]] Cycles latency(Opcode opcode, const ChipSpec& chip);
/// Stream register at which the unit of the instruction stands; for MEM that of slice `index`.
[[nodiscard]] std::int32_t unit_position(const Instruction& instruction, const ChipSpec& chip);

}  // namespace lpu::node
