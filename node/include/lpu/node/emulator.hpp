#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lpu/node/burst_table.hpp"
#include "lpu/node/chip_spec.hpp"
#include "lpu/node/iteration.hpp"
#include "lpu/node/port.hpp"
#include "lpu/node/program.hpp"

namespace lpu::node {

/// How far a chip has got.
enum class ChipState : std::uint8_t {
  kReady,    ///< has more to do and nothing to wait for
  kWaiting,  ///< needs a vector that has not come
  kDone,     ///< all iterations executed
};

/// A burst that a chip has executed: for traces.
struct ExecutedBurst {
  std::int32_t chip = -1;
  std::int32_t instruction = -1;
  std::int64_t iteration = 0;
  std::int64_t iteration_start = 0;  ///< cycle, common clock
};
using BurstObserver = std::function<void(const ExecutedBurst&)>;

/// What one execution of a chip's program measured.
struct ChipMeasures {
  std::int64_t iterations = 0;        ///< executed to their end
  std::int64_t arrivals_checked = 0;  ///< vectors whose arrival and identity were compared with the program
  std::int64_t transfers = 0;         ///< sent: one per Send and link
  std::int64_t vectors = 0;           ///< sent
  std::int64_t bursts = 0;
  std::int64_t end = 0;           ///< cycle, common clock, from which on all that was done can be used
  std::int64_t latency = 0;       ///< longest time from an iteration's start at stage 0 to its end here
  std::int64_t interval_min = 0;  ///< between the ends of neighbouring groups' iterations; 0: there was one group
  std::int64_t interval_max = 0;
  std::int64_t period_min = 0;  ///< between the ends of one group's consecutive tokens; 0: there was one token
  std::int64_t period_max = 0;
  UnitCycles units;
  std::vector<std::int64_t> link_busy;  ///< cycles in which the sending end of each link was occupied
};

struct ChipSnapshot;

/// One chip in the timing plane: executes its text for iterations 0, 1, … in the cycles that the text says.
///
/// Bursts of overlapping iterations are merged in (cycle, unit) order. The chip knows only its own program and
/// clockwork: departures follow from its own pushes through the model of the link's queue, arrivals from the departures
/// that come with a message and the link's latency, and each is compared with what its own Receive says. A Receive is
/// executed at its last take: then all that it needs was sent in earlier cycles, so that chips which run ahead of one
/// another never wait in a circle unless the program does. `fold()` is causal: a Send carries it and the receiver folds
/// it in.
class Emulator {
 public:
  /// @param iterations  to execute: 0 … iterations - 1
  /// @param digest      of the cluster program; a message with another one is refused
  /// The table, the chip, the binding, the plan and the port must outlive the emulator.
  /// @throws InputError  gathered slots without an owner, links without a peer entry
  Emulator(const BurstTable& table,
           const ChipSpec& chip,
           const ChipBinding& binding,
           const IterationPlan& plan,
           std::int64_t iterations,
           std::uint64_t digest,
           Port& port);

  /// Execute until a vector is missing, all is done, the cycle of stop_at() is reached, or some iterations were
  /// finished (so that others get their turn).
  /// @throws ScheduleViolation  an arrival in another cycle, of another value, transfer or iteration, or from a foreign
  /// program
  ChipState run();
  /// @throws ScheduleViolation  a vector that came and was never received
  void check_nothing_left();

  /// Nothing executed so far starts in a later cycle (common clock); the largest number: all is done.
  [[nodiscard]] std::int64_t reached() const;
  /// What starts in this cycle or later is not executed: run() returns kDone before it, when every vector that is
  /// pushed in earlier cycles was sent. Where all chips stop at the same cycle none waits for another in vain.
  /// @pre reached() < cycle, or all is done
  void stop_at(std::int64_t cycle);
  /// @pre stopped, or not started
  [[nodiscard]] ChipSnapshot snapshot() const;
  /// Goes on from there; what lay in the chip's mailboxes must lie there again.
  /// @pre   nothing was executed
  /// @throws InputError  a snapshot that is impossible for the program, the plan or the number of iterations
  void restore(const ChipSnapshot& from);

  [[nodiscard]] std::uint64_t fold() const { return fold_; }
  [[nodiscard]] const ChipMeasures& measures() const { return measures_; }
  [[nodiscard]] std::int32_t chip_id() const { return binding_->chip; }
  [[nodiscard]] Wait wait() const;                                       ///< @pre the last run() returned kWaiting
  [[nodiscard]] std::int32_t waits_on() const { return waiting_link_; }  ///< link
  /// Every burst that starts before this cycle has been executed, every vector taken before it has come and been
  /// checked.
  [[nodiscard]] std::int64_t settled() const;

  /// Is called for each burst, in the order in which they enter the fold.
  void set_observer(BurstObserver observer) { observer_ = std::move(observer); }
  /// For tests: leave out one instruction in one iteration, as a chip that lost it would.
  void skip(std::int64_t iteration, std::int32_t instruction);

 private:
  /// One iteration in flight.
  struct Iteration {
    std::int64_t number = 0;
    std::int64_t start = 0;                ///< on this chip, common clock
    std::int64_t key = 0;                  ///< of the next event: cycle and unit
    std::size_t next = 0;                  ///< event
    std::vector<std::uint64_t> bases;      ///< value bases, as BurstTable::bases()
    std::vector<std::uint64_t> registers;  ///< a word per base register
    std::vector<std::uint32_t> writes;     ///< executed, per counter
    std::vector<std::int32_t> row_shift;   ///< rows that each base register adds
  };
  /// A burst whose vectors are under way on one link.
  struct Cursor {
    Iteration* iteration = nullptr;
    const WireBurst* burst = nullptr;
    const WireVector* next = nullptr;
    const WireVector* end = nullptr;
    std::uint64_t fold = 0;  ///< sending: the chip's after the Send; receiving: of what came with the vectors
    std::uint64_t last_fold = 0;
    [[nodiscard]] std::int64_t cycle() const { return iteration->start + next->cycle; }
  };
  struct Link {
    std::vector<Cursor> sending;
    std::vector<Cursor> receiving;
    std::int64_t free_at = INT64_MIN;  ///< first cycle in which a vector may start
    std::int32_t taken = 0;            ///< vectors of the oldest message
  };

  void check_binding() const;
  static constexpr std::int64_t kKeysPerCycle = 8;  ///< more than there are units

  Iteration& begin_iteration(std::int64_t number);
  void open_iteration();
  void close_iteration();
  void fill_registers(Iteration& iteration) const;
  void measure_end(const Iteration& iteration);
  void plan_next_opening();
  [[nodiscard]] bool advance();
  [[nodiscard]] bool execute(Iteration& iteration, const BurstEvent& event);
  [[nodiscard]] bool execute_wire(Iteration& iteration, const BurstEvent& event);
  void fold_burst(const Iteration& iteration, const BurstEvent& event);
  void open_wire(Iteration& iteration, const BurstEvent& event);
  void send_before(std::int32_t link, std::int64_t cycle);
  void send_all_before(std::int64_t cycle);
  void send_run(std::int32_t link, Cursor& cursor, std::int64_t before);
  [[nodiscard]] bool receive_through(std::int32_t link, std::int64_t cycle);
  [[nodiscard]] bool receive_run(std::int32_t link, Cursor& cursor, std::int64_t through);
  [[nodiscard]] bool close_receive(const Iteration& iteration, const BurstEvent& event);
  [[nodiscard]] std::span<const WireVector> vectors_of(const WireBurst& burst, std::int32_t link) const;
  [[nodiscard]] std::uint64_t value_of(const Cursor& cursor, const WireVector& vector) const;
  [[noreturn]] void fail(const Cursor& cursor, std::int32_t link, const std::string& reason) const;
  void check_header(const Cursor& cursor, std::int32_t link, const MessageHeader& header) const;
  [[nodiscard]] std::int64_t key_of(const Iteration& iteration) const;
  void sift_down();
  void sift_up();

  const BurstTable* table_;
  const ChipSpec* chip_;
  const ChipBinding* binding_;
  const IterationPlan* plan_;
  Port* port_;
  std::int64_t iterations_;
  std::uint64_t digest_;
  std::uint64_t fold_;
  std::int64_t serialisation_;
  std::int64_t link_latency_;
  std::vector<std::uint64_t> origins_;  ///< per value base: the part that no iteration changes
  std::vector<Link> links_;
  std::vector<std::uint16_t> used_registers_;
  std::vector<std::unique_ptr<Iteration>> pool_;
  std::vector<Iteration*> idle_;
  std::vector<Iteration*> heap_;  ///< in flight, the one with the earliest event first
  std::int64_t next_iteration_ = 0;
  std::int64_t next_opening_ = INT64_MAX;                             ///< key of the next iteration's first event
  std::int64_t stop_key_ = std::numeric_limits<std::int64_t>::max();  ///< of the first event that is left out
  std::vector<std::uint64_t> outgoing_;                               ///< value ids of the message being built
  std::vector<std::int64_t> group_end_;                               ///< end of each group's latest iteration
  std::int64_t previous_end_ = 0;
  std::int64_t now_ = 0;
  std::int32_t waiting_link_ = -1;
  std::int32_t waiting_instruction_ = -1;
  std::int64_t waiting_cycle_ = 0;
  std::int64_t waiting_iteration_ = 0;
  std::int64_t skip_iteration_ = -1;
  std::int32_t skip_instruction_ = -1;
  BurstObserver observer_;
  ChipMeasures measures_;
};

}  // namespace lpu::node
