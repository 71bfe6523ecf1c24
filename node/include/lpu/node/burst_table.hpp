#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/program.hpp"

namespace lpu::node {

/// A moment of a burst that an execution stops at, relative to the start of the iteration.
enum class BurstMoment : std::uint8_t {
  kIssue,          ///< first instance of a burst that moves nothing over a link
  kWrite,          ///< likewise, and it makes rows of an iteration tensor
  kRead,           ///< likewise, and it needs such rows
  kSendOpens,      ///< first push
  kSendCloses,     ///< last push
  kReceiveOpens,   ///< first take
  kReceiveCloses,  ///< last take: a Receive is folded here, when all that it depends on has come
};

/// One row of the table: all that an execution needs of a burst, in half a cache line.
struct BurstEvent {
  std::uint64_t word = 0;  ///< fold of all that is the same on every chip and in every iteration
  std::int32_t cycle = 0;
  std::int32_t instruction = 0;          ///< index in the text
  std::array<std::uint16_t, 4> bases{};  ///< per operand: index in BurstTable::bases; 0: none
  std::uint32_t argument = 0;  ///< links: index in wire_bursts; kWrite: counter; kRead: counter | writes needed << 16
  std::uint16_t base_register = 0;
  std::uint8_t unit = 0;
  BurstMoment moment = BurstMoment::kIssue;
};
static_assert(sizeof(BurstEvent) == 32);

/// Rows of a tensor whose value ids share value_base() in one iteration.
struct ValueBase {
  std::uint16_t tensor = 0;
  std::int32_t slot = 0;           ///< gathered tensors
  std::int32_t user_in_batch = 0;  ///< caches: of the instruction's base register
  std::uint64_t name = 0;          ///< digest of the tensor's name
};

/// One vector of a Send or Receive.
struct WireVector {
  std::uint64_t row_mix = 0;  ///< mix(row in the owner's part): fold(base, row) = mix(base ^ row_mix)
  std::int32_t cycle = 0;     ///< push or take, relative to the iteration
  std::int32_t row = 0;       ///< in this chip's numbering
  std::uint16_t base = 0;     ///< index in BurstTable::bases
};

/// The vectors of a burst on one link, in the order of their cycles.
struct WirePart {
  std::int32_t link = 0;
  std::int32_t first = 0;  ///< index in BurstTable::wire_vectors
  std::int32_t count = 0;
};

struct WireBurst {
  std::int32_t instruction = 0;
  std::int32_t first_part = 0;
  std::int32_t parts = 0;
  std::int32_t argument = 0;       ///< kReceive: cycles that a vector waits in the far queue
  std::uint64_t transfer = 0;      ///< digest of the transfer's name
  std::uint16_t displaced_by = 0;  ///< base register that moves the rows; 0: none
};

/// Issues and cycles of each unit class in one iteration.
struct UnitCycles {
  std::int64_t installs = 0, computes = 0, drains = 0;  ///< plane-cycles
  std::int64_t alus = 0;                                ///< ALU-cycles
  std::int64_t sxm = 0;                                 ///< hemisphere-cycles
  std::int64_t reads = 0, writes = 0;                   ///< slice-cycles
  std::int64_t sends = 0, receives = 0;                 ///< vectors
  UnitCycles& operator+=(const UnitCycles& other);
};

/// A program text made ready for execution, shared by all chips that run it.
///
/// Events are in (cycle, unit, moment, instruction) order. Program and chip must outlive the table.
class BurstTable {
 public:
  /// @pre the program is well-formed: every index names something, counts are 1 or more
  /// @param chip_id  named in violations: a chip that runs the text
  /// @throws ScheduleViolation   an operand names rows that its tensor has not; a row of an iteration tensor is read
  /// before
  ///                             it can be; the bursts of a transfer do not carry as many vectors as it says
  BurstTable(const ChipProgram& program, const ChipSpec& chip, std::int32_t chip_id);

  [[nodiscard]] const ChipProgram& program() const { return *program_; }
  [[nodiscard]] std::span<const BurstEvent> events() const { return events_; }
  /// [0] stands for no operand; then iteration tensors, caches, static tensors.
  [[nodiscard]] std::span<const ValueBase> bases() const { return bases_; }
  [[nodiscard]] std::size_t first_cache_base() const { return first_cache_base_; }
  [[nodiscard]] std::size_t first_static_base() const { return first_static_base_; }
  [[nodiscard]] std::span<const WireBurst> wire_bursts() const { return wire_bursts_; }
  [[nodiscard]] std::span<const WirePart> parts(const WireBurst& burst) const;
  [[nodiscard]] std::span<const WireVector> vectors(const WirePart& part) const;
  [[nodiscard]] std::size_t counters() const { return counters_; }  ///< of writes, one per iteration tensor written
  [[nodiscard]] const UnitCycles& unit_cycles() const { return unit_cycles_; }
  /// Cycle, relative to the iteration, from which on all that it computed, stored or received can be used.
  [[nodiscard]] std::int64_t effect_end() const { return effect_end_; }

 private:
  void collect_bases();
  void add_events(std::int32_t at);
  void add_wire(std::int32_t at, const BurstEvent& first);
  void check_transfers(std::int32_t chip_id) const;
  [[nodiscard]] std::vector<bool> used_numbers(std::int32_t numbers) const;
  void add_bases(std::uint16_t tensor, const std::vector<bool>& is_used);
  [[nodiscard]] std::size_t number_of(const Instruction& instruction,
                                      const StreamOperand& operand,
                                      std::int64_t row) const;

  /// Numbers of a tensor's (slot, user) pairs.
  struct Numbering {
    std::int32_t first = 0;
    std::int32_t users = 1;
  };

  const ChipProgram* program_;
  const ChipSpec* chip_;
  std::vector<BurstEvent> events_;
  std::vector<ValueBase> bases_;
  std::vector<Numbering> numbering_;    ///< per tensor
  std::vector<std::uint16_t> base_of_;  ///< per number: index in bases_
  std::vector<WireBurst> wire_bursts_;
  std::vector<WirePart> parts_;
  std::vector<WireVector> vectors_;
  std::size_t first_cache_base_ = 1;
  std::size_t first_static_base_ = 1;
  std::size_t counters_ = 0;
  UnitCycles unit_cycles_;
  std::int64_t effect_end_ = 0;
};

/// Cycle, relative to the iteration, from which on what the instruction did can be used: a written row N + 1 cycles
/// after its write, an output once it stands in its stream register, else the cycle after the last issue.
[[nodiscard]] std::int64_t effect_end(const Instruction& instruction, const ChipSpec& chip);

/// The base register's place in the micro-batch where it names a user, else 0.
[[nodiscard]] std::int32_t user_in_batch(const ChipProgram& program, const Instruction& instruction);

}  // namespace lpu::node
