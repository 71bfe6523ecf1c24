#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "execution.hpp"
#include "lpu/cluster/run_program.hpp"
#include "lpu/interconnect/in_process_transport.hpp"
#include "lpu/node/burst_table.hpp"
#include "lpu/node/checked_chip.hpp"
#include "lpu/node/emulator.hpp"
#include "lpu/scheduler/cluster_program.hpp"
#include "saved_run.hpp"

namespace lpu::cluster {

/// What one chip left when it ended, or was stopped.
struct ChipOutcome {
  std::int32_t chip = -1;
  std::uint64_t fold = 0;
  node::ChipMeasures measures;
};

/// The timing plane: the chips of one rank, their wires, and who may run.
class Runner final : public Execution {
 public:
  /// @param program   chips of other ranks have no text here
  /// @param digest    of the whole cluster's program
  /// @param exchange  nullptr: all chips are here
  /// @param saved     the chips of this rank as they were stopped; empty: they start
  /// All but the placement and the saved chips must outlive the runner.
  /// @throws node::InputError  a saved state that is impossible for the program
  Runner(const scheduler::ClusterProgram& program,
         std::uint64_t digest,
         const RunOptions& options,
         interconnect::ChipPlacement placement = {},
         interconnect::RankExchange* exchange = nullptr,
         std::span<const SavedChip> saved = {});

  bool run_next() override;
  bool receive() override;
  [[nodiscard]] bool is_done() const override;
  [[nodiscard]] std::vector<node::Wait> waits() const override;
  void check_nothing_left() override;
  [[nodiscard]] RunProgress progress() const override;
  [[nodiscard]] bool is_stoppable() const override { return !options_->has_next_plane; }
  [[nodiscard]] std::int64_t next_token() const override;
  void stop_before(std::int64_t token) override;

  [[nodiscard]] std::optional<std::int64_t> stopped_before() const { return stopped_before_; }  ///< token
  /// The chips that are here, once all are stopped and all that was sent to them has come.
  [[nodiscard]] std::vector<SavedChip> saved_chips() const;
  [[nodiscard]] std::vector<ChipOutcome> outcomes() const;
  [[nodiscard]] const node::IterationPlan& plan() const { return plan_; }
  [[nodiscard]] interconnect::InProcessTransport& transport() { return transport_; }

 private:
  /// Those that wait for what has been delivered since can run again.
  void wake_receivers();
  void make_tables();
  void check_wiring() const;
  void check_clockwork() const;
  [[nodiscard]] std::string wiring_fault(const node::ChipBinding& binding, std::int32_t link) const;
  void make_chips();
  void restore(std::span<const SavedChip> saved);
  [[nodiscard]] std::int64_t iterations() const { return options_->tokens * plan_.groups; }

  const scheduler::ClusterProgram* program_;
  const RunOptions* options_;
  node::IterationPlan plan_;
  std::uint64_t digest_;
  interconnect::RankExchange* exchange_;
  interconnect::InProcessTransport transport_;
  std::vector<std::unique_ptr<node::BurstTable>> tables_;
  std::vector<std::unique_ptr<node::CheckedText>> checked_texts_;  ///< Checks::kAll only
  std::vector<std::unique_ptr<node::Emulator>> chips_;             ///< per chip id; none: idle, or elsewhere
  std::vector<std::unique_ptr<node::CheckedChip>> checked_chips_;  ///< Checks::kAll only
  std::vector<node::ChipState> states_;
  std::deque<std::int32_t> ready_;
  std::size_t running_ = 0;  ///< chips that are not done
  std::optional<std::int64_t> stopped_before_;
};

}  // namespace lpu::cluster
