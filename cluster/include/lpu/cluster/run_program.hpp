#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lpu/interconnect/in_process_transport.hpp"
#include "lpu/node/emulator.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::cluster {

/// What is checked while a program runs.
enum class Checks : std::uint8_t {
  kArrivals,  ///< every arrival and the readiness of rows: enough for a program that was verified
  kAll,       ///< every rule of node/README.md, instance by instance
};

struct RunProgress {
  std::int64_t iterations = 0;  ///< finished on all chips of stage 0
  std::int64_t iterations_total = 0;
  std::int64_t cycle = 0;  ///< that stage 0 has reached, common clock
};

struct RunOptions {
  std::int64_t tokens = 8;  ///< decode steps of every user
  std::int32_t users = 1;
  Checks checks = Checks::kArrivals;
  std::function<void(const RunProgress&)> progress{};  ///< called a few hundred times a second at most
  std::function<void()> pause{};                       ///< called after each turn of a chip, for tests
  bool has_next_plane = false;                         ///< numbers follow: a state is saved in their plane alone

  node::BurstObserver observer{};  ///< of the chips that are traced
  std::int32_t observed_first = 0;
  std::int32_t observed_last = -1;

  // Faults for tests.
  interconnect::Tamperer tamperer{};
  std::int32_t skip_chip = -1;        ///< this chip leaves out
  std::int64_t skip_iteration = 0;    ///< in this iteration
  std::int32_t skip_instruction = 0;  ///< this instruction
};

/// Share of unit-cycles that were busy, mean of the chips that hold a part of the model, over the whole run. A class
/// with several kinds of port counts its busiest one (MXM: install, compute or drain; MEM: read or write; C2C: send).
struct Occupancy {
  double mxm = 0, vxm = 0, sxm = 0, mem = 0, c2c = 0;
};

/// One chip's part in a run.
struct ChipFigures {
  std::int32_t chip = -1;
  std::int32_t rank = 0;  ///< that ran it
  Occupancy occupancy;
  std::vector<double> links;  ///< share of the makespan in which each link's sending end was busy
};

/// What an execution measured. Nothing in it is read off a plan; the clockwork (starts of iterations) is the program's.
struct RunResult {
  std::int32_t users = 0;
  std::int64_t tokens = 0;
  std::int32_t groups = 0;      ///< micro-batches in flight
  std::int64_t iterations = 0;  ///< finished at stage 0; tokens * groups unless a signal ended the run
  int ended_by_signal =
      0;  ///< 0: no signal ended the run; else its figures are those of a part, its fingerprint of none
  std::int64_t resumed_at_token = -1;      ///< a saved state was gone on from; -1: none
  std::int64_t stopped_before_token = -1;  ///< its state was saved there, and the run is not complete; -1: no
  std::int32_t chips = 0;                  ///< that executed something
  std::int32_t chips_idle = 0;
  /// From the start of an iteration at stage 0 to the cycle from which all that it left there can be used, the returned
  /// token included: a row N + 1 cycles after its write.
  std::int64_t token_latency_cycles = 0;
  /// Between the ends of neighbouring micro-batches at stage 0; with one micro-batch nothing can be measured and the
  /// program's clockwork stands here.
  std::int64_t initiation_interval_cycles = 0;
  bool is_interval_measured = false;
  std::int64_t token_period_cycles = 0;  ///< between the ends of one user's consecutive tokens at stage 0
  double tokens_per_second_per_user = 0;
  double tokens_per_second = 0;
  std::int64_t makespan_cycles = 0;  ///< from cycle 0 until all that any chip did can be used
  std::int64_t arrivals_checked = 0;
  std::int64_t transfers = 0;  ///< messages of the schedule: one per Send burst and link
  std::int64_t vectors = 0;
  std::int64_t messages_in_process = 0;     ///< between chips of one rank
  std::int64_t messages_between_ranks = 0;  ///< between chips of different ranks
  std::int64_t bytes_between_ranks = 0;     ///< headers included
  std::int64_t bursts = 0;
  std::int64_t jitter_cycles_max = 0;  ///< largest difference between two periods of a user, or two intervals
  Occupancy occupancy;
  double link_busy_max = 0;  ///< busiest link, share of the makespan
  std::vector<ChipFigures> per_chip;
  std::uint64_t schedule_digest = 0;
  std::uint64_t fingerprint = 0;  ///< over chips in id order
  std::int32_t ranks = 1;
  std::int32_t ranks_idle = 0;  ///< that no chip was dealt to
  std::int32_t hosts = 1;
  bool uses_shared_memory = false;    ///< between ranks of one host
  std::int64_t sleeps = 0;            ///< of all ranks
  std::int64_t wake_ups = 0;          ///< of all ranks: sleeps ended by another rank
  std::int64_t memory_bytes = 0;      ///< proportional set size of all ranks; 0: not measured
  std::int64_t memory_bytes_max = 0;  ///< and of the largest
  double wall_s = 0;                  ///< of the execution, tables included, and of what a saved state had taken
  double chip_cycles_per_wall_s = 0;
  double wall_us_per_chip_token = 0;  ///< chip: one that executed something; token: an iteration
};

/// Executes a program for some users and tokens, all chips in this process.
///
/// Each chip runs ahead until it needs a vector that has not been sent; who got one is run next. When none can run and
/// not all are done, that is a deadlock. The order in which chips run decides nothing: results depend on the program
/// alone.
///
/// @throws node::InputError          users that the program has no KV for, tokens < 1, a program that is not
/// well-formed
/// @throws node::ScheduleViolation   a breach: chip, cycle, instruction, reason; a deadlock: with the chain of waits
[[nodiscard]] RunResult run_program(const scheduler::ClusterProgram& program, const RunOptions& options);

}  // namespace lpu::cluster
