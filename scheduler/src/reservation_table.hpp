#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/instruction.hpp"

namespace lpu::scheduler {

/// Where a register operand may fall, as far as reservations care: slice displacements, and whether both banks.
struct RegisterReach {
  std::vector<std::int32_t> slices{0};
  bool both_banks = false;
};

/// Which resources of one chip are taken in which cycle: one row of bit masks per resource class.
///
/// Streams are indexed by diagonal (outward: cycle - position, inward: cycle + position), so that all registers which a
/// value crosses share one time and a 14-bit mask says which.
/// With a period, cycles are taken modulo it (a steady state with that initiation interval); without, the table grows.
class ReservationTable {
 public:
  /// @param period  initiation interval; 0: one iteration alone
  ReservationTable(const node::ChipSpec& chip, std::int64_t period);

  /// Take everything but the streams that `instruction` uses, with its start moved by `start`. On a conflict nothing is
  /// taken.
  [[nodiscard]] bool try_units(const node::Instruction& instruction, std::int64_t start, const RegisterReach& reach);
  /// Take the stream segments of output `operand`, likewise.
  [[nodiscard]] bool try_stream(const node::Instruction& instruction,
                                std::int64_t start,
                                const node::StreamOperand& operand);

  /// Everything taken since the mark is given back.
  [[nodiscard]] std::size_t mark() const { return log_.size(); }
  void roll_back(std::size_t mark);
  void clear_log() { log_.clear(); }
  /// Everything is given back, the memory too.
  void clear() {
    rows_ = std::vector<Row>(rows_.size());
    log_ = {};
  }

  /// Part of a row and cycle that was taken.
  struct Cell {
    std::uint32_t row;
    std::uint32_t column;
    std::uint16_t bits;
  };
  /// All that was taken since the log was cleared.
  [[nodiscard]] const std::vector<Cell>& taken() const { return log_; }
  void give_back(const std::vector<Cell>& cells);

  /// Last cycle of [from, to) in which an install port is taken, or from - 1.
  [[nodiscard]] std::int64_t last_install(std::int64_t from, std::int64_t to) const;

  [[nodiscard]] std::int64_t period() const { return period_; }

 private:
  /// Cycles of a row that stand together in memory: most are never taken in most rows.
  static constexpr std::uint32_t kPage = 128;
  using Page = std::array<std::uint16_t, kPage>;
  using Row = std::vector<std::unique_ptr<Page>>;

  [[nodiscard]] bool take(std::uint32_t row, std::int64_t cycle, std::uint16_t bits);
  void free(const Cell& taken) {
    auto& cell = (*rows_[taken.row][taken.column / kPage])[taken.column % kPage];
    cell = static_cast<std::uint16_t>(cell & ~taken.bits);
  }
  [[nodiscard]] bool try_memory(const node::Instruction& instruction, std::int64_t start, const RegisterReach& reach);

  const node::ChipSpec& chip_;
  std::int64_t period_;
  std::vector<Row> rows_;
  std::vector<Cell> log_;
};

/// Link occupation of one chip, both directions: which vector starts when, and how long queues get.
///
/// Starts are max(push, previous start + serialisation); a vector is accepted only where no earlier decision moves.
class LinkTable {
 public:
  /// @param grid  starts are multiples of it: without, vectors of many tokens leave gaps that no other fits in
  LinkTable(const node::ChipSpec& chip, std::int64_t period, std::int64_t grid = 1);

  /// Start on the wire of a vector pushed at `push`, or -1 when the queue would overflow or another vector would move.
  [[nodiscard]] std::int64_t start_of(std::int32_t link, std::int64_t push) const;
  /// @pre start == start_of(link, push)
  void send(std::int32_t link, std::int64_t push, std::int64_t start);
  /// Whether a vector that arrives at `arrival` may be taken at `take` without leaving order or overfilling the queue.
  [[nodiscard]] bool may_take(std::int32_t link, std::int64_t arrival, std::int64_t take) const;
  void receive(std::int32_t link, std::int64_t arrival, std::int64_t take);

 private:
  struct Passage {
    std::int64_t in;   ///< push, or arrival
    std::int64_t out;  ///< start, or take
  };
  /// What one link sends. Vectors leave in the order in which they are pushed, so that a new one's neighbours say all.
  struct Sent {
    std::vector<Passage> by_push;     ///< one iteration's
    std::vector<Passage> by_residue;  ///< the same by push modulo the period; with a period only
  };
  /// Whether the vector fits between those of other iterations; how many of all are queued when it is pushed is added.
  [[nodiscard]] bool fits_others(const Sent& sent, Passage vector, std::int32_t& queued) const;

  const node::ChipSpec* chip_;
  std::int64_t period_;
  std::int64_t grid_;
  std::vector<Sent> sent_;
  std::vector<std::vector<Passage>> received_;
};

}  // namespace lpu::scheduler
