#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "lpu/cluster/run_program.hpp"
#include "lpu/interconnect/in_process_transport.hpp"
#include "lpu/node/burst_table.hpp"
#include "lpu/node/checked_chip.hpp"
#include "lpu/node/emulator.hpp"
#include "lpu/node/error.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::cluster {

/// What one chip left when it ended, or was stopped.
struct ChipOutcome {
  std::int32_t chip = -1;
  std::uint64_t fold = 0;
  node::ChipMeasures measures;
};

/// The chips of one rank, their wires, and who may run.
///
/// A chip runs ahead until it needs a vector that has not come; who got one is run next. In which order chips run
/// decides nothing.
class Runner {
 public:
  /// @param program   chips of other ranks have no text here
  /// @param digest    of the whole cluster's program
  /// @param exchange  nullptr: all chips are here
  /// All but the placement must outlive the runner.
  Runner(const scheduler::ClusterProgram& program,
         std::uint64_t digest,
         const RunOptions& options,
         interconnect::ChipPlacement placement = {},
         interconnect::RankExchange* exchange = nullptr);

  /// Gives the next chip that can run its turn.
  /// @return false: there was none
  bool run_next();
  /// Those that wait for what has been delivered since can run again.
  void wake_receivers();
  [[nodiscard]] bool is_done() const;
  [[nodiscard]] std::vector<node::Wait> waits() const;  ///< of chips that wait
  void check_nothing_left();

  [[nodiscard]] RunProgress progress() const;  ///< of the chips of stage 0 that are here
  [[nodiscard]] std::vector<ChipOutcome> outcomes() const;
  [[nodiscard]] const node::IterationPlan& plan() const { return plan_; }
  [[nodiscard]] interconnect::InProcessTransport& transport() { return transport_; }

 private:
  void make_tables();
  void check_wiring() const;
  void check_clockwork() const;
  [[nodiscard]] std::string wiring_fault(const node::ChipBinding& binding, std::int32_t link) const;
  void make_chips();
  [[nodiscard]] std::int64_t iterations() const { return options_->tokens * plan_.groups; }

  const scheduler::ClusterProgram* program_;
  const RunOptions* options_;
  node::IterationPlan plan_;
  std::uint64_t digest_;
  interconnect::InProcessTransport transport_;
  std::vector<std::unique_ptr<node::BurstTable>> tables_;
  std::vector<std::unique_ptr<node::CheckedText>> checked_texts_;  ///< Checks::kAll only
  std::vector<std::unique_ptr<node::Emulator>> chips_;             ///< per chip id; none: idle, or elsewhere
  std::vector<std::unique_ptr<node::CheckedChip>> checked_chips_;  ///< Checks::kAll only
  std::vector<node::ChipState> states_;
  std::deque<std::int32_t> ready_;
  std::size_t running_ = 0;  ///< chips that are not done
};

/// All of them wait and nothing is on its way: who waits for whom, from the earliest wait on.
/// @param waits  of every chip of the cluster that is not done; at least one
[[nodiscard]] node::ScheduleViolation deadlock(const std::vector<node::Wait>& waits);

}  // namespace lpu::cluster
