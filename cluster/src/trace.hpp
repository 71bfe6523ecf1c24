#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lpu/cluster/run_program.hpp"
#include "lpu/node/emulator.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::cluster {

/// Which bursts a trace holds.
struct TraceSelection {
  bool is_wanted = false;
  std::int32_t first_chip = 0;
  std::int32_t last_chip = -1;
  std::int64_t first_cycle = 0;  ///< common clock: a burst is in when it starts in [first, last]
  std::int64_t last_cycle = INT64_MAX;
  [[nodiscard]] bool has_chip(std::int32_t chip) const { return is_wanted && chip >= first_chip && chip <= last_chip; }
};

/// Bursts beyond it are counted and left out: 40 MB of JSON.
inline constexpr std::int64_t kMostTraced = 200'000;

/// A burst that was executed.
struct TracedBurst {
  std::int32_t chip = 0;
  std::int32_t unit = 0;  ///< node::Unit
  std::int32_t name = 0;  ///< index in Trace::names
  std::int32_t instruction = 0;
  std::int64_t iteration = 0;
  std::int64_t start = 0;   ///< cycle, common clock
  std::int64_t cycles = 0;  ///< from the first issue to the last, both included
};

struct Trace {
  std::vector<std::string> names;  ///< opcode, and the transfer's name where there is one
  std::vector<TracedBurst> bursts;
  std::int64_t left_out = 0;
};

/// Collects the bursts of the chips of one rank.
class TraceRecorder {
 public:
  /// @param program  must outlive it
  TraceRecorder(const scheduler::ClusterProgram& program, const TraceSelection& selection)
      : program_(&program), selection_(selection) {}

  void add(const node::ExecutedBurst& burst);
  [[nodiscard]] Trace take() { return std::move(trace_); }

 private:
  [[nodiscard]] std::int32_t name_of(const node::ChipProgram& text, const node::Instruction& instruction);

  const scheduler::ClusterProgram* program_;
  TraceSelection selection_;
  Trace trace_;
  std::unordered_map<std::string, std::int32_t> numbers_;
};

/// Lets a run tell the recorder what the selection asks for. The recorder must outlive the run.
void observe(TraceRecorder& recorder, const TraceSelection& selection, RunOptions& options);

/// The traces of all ranks as one, earliest bursts first, cut to kMostTraced.
[[nodiscard]] Trace merge(std::vector<Trace> traces);

/// Chrome's trace format, which Perfetto reads: a process per node, and a thread per unit and chip, or several where
/// bursts of a unit overlap. Times in microseconds of the emulated machine; exact cycles are in the arguments.
[[nodiscard]] std::string to_chrome_json(const Trace& trace, const scheduler::ClusterProgram& program);

}  // namespace lpu::cluster
