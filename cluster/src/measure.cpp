#include "measure.hpp"

#include <algorithm>
#include <fstream>
#include <string>

#include "lpu/node/digest.hpp"

namespace lpu::cluster {
namespace {

/// @param cycles  chip-cycles that the units could have been busy in
Occupancy occupancy(const node::UnitCycles& units, const node::ChipSpec& chip, double cycles) {
  const auto share = [&](std::int64_t busy, double units_per_chip) {
    return cycles > 0 ? static_cast<double>(busy) / (cycles * units_per_chip) : 0.0;
  };
  return {.mxm = share(std::max({units.installs, units.computes, units.drains}), 2.0 * chip.mxm_planes_per_hemisphere),
          .vxm = share(units.alus, chip.vxm_alus),
          .sxm = share(units.sxm, 2),
          .mem = share(std::max(units.reads, units.writes), 2.0 * chip.slices_per_hemisphere),
          .c2c = share(units.sends * chip.link_serialisation.count(), chip.links())};
}

/// Extremes over the chips of stage 0, where tokens start and end.
node::ChipMeasures ends_of(const scheduler::ClusterProgram& program, const std::vector<ChipOutcome>& chips) {
  node::ChipMeasures ends;
  const auto widen = [](std::int64_t low, std::int64_t high, std::int64_t& all_low, std::int64_t& all_high) {
    all_low = all_low == 0 ? low : std::min(all_low, low);
    all_high = std::max(all_high, high);
  };
  bool is_first = true;
  for (const ChipOutcome& outcome : chips) {
    const node::ChipMeasures& chip = outcome.measures;
    if (program.bindings[static_cast<std::size_t>(outcome.chip)].stage != 0) {
      continue;
    }
    ends.iterations = is_first ? chip.iterations : std::min(ends.iterations, chip.iterations);
    is_first = false;
    ends.latency = std::max(ends.latency, chip.latency);
    widen(chip.interval_min, chip.interval_max, ends.interval_min, ends.interval_max);
    widen(chip.period_min, chip.period_max, ends.period_min, ends.period_max);
  }
  return ends;
}

void add_sums(RunResult& out, const scheduler::ClusterProgram& program, const std::vector<ChipOutcome>& chips) {
  node::UnitCycles units;
  std::int64_t busiest_link = 0;
  std::size_t next = 0;
  for (std::size_t at = 0; at < program.bindings.size(); ++at) {
    const bool has_run = next < chips.size() && chips[next].chip == static_cast<std::int32_t>(at);
    out.fingerprint = node::fold(out.fingerprint, has_run ? chips[next].fold : 0);
    if (!has_run) {
      ++out.chips_idle;
      continue;
    }
    const node::ChipMeasures& chip = chips[next++].measures;
    ++out.chips;
    out.makespan_cycles = std::max(out.makespan_cycles, chip.end);
    out.arrivals_checked += chip.arrivals_checked;
    out.transfers += chip.transfers;
    out.vectors += chip.vectors;
    out.bursts += chip.bursts;
    units += chip.units;
    busiest_link = std::max(busiest_link, *std::max_element(chip.link_busy.begin(), chip.link_busy.end()));
  }
  const auto makespan = static_cast<double>(out.makespan_cycles);
  out.occupancy = occupancy(units, program.chip, makespan * out.chips);
  out.link_busy_max = makespan > 0 ? static_cast<double>(busiest_link) / makespan : 0;
  for (const ChipOutcome& chip : chips) {
    ChipFigures figures{
        .chip = chip.chip, .occupancy = occupancy(chip.measures.units, program.chip, makespan), .links = {}};
    for (const std::int64_t busy : chip.measures.link_busy) {
      figures.links.push_back(makespan > 0 ? static_cast<double>(busy) / makespan : 0);
    }
    out.per_chip.push_back(std::move(figures));
  }
}

}  // namespace

RunResult measure(const scheduler::ClusterProgram& program,
                  const node::IterationPlan& plan,
                  const RunOptions& options,
                  std::uint64_t digest,
                  std::vector<ChipOutcome> chips) {
  std::sort(chips.begin(), chips.end(), [](const ChipOutcome& a, const ChipOutcome& b) { return a.chip < b.chip; });
  RunResult out;
  out.users = options.users;
  out.tokens = options.tokens;
  out.groups = plan.groups;
  out.schedule_digest = digest;
  add_sums(out, program, chips);
  const node::ChipMeasures ends = ends_of(program, chips);
  out.iterations = ends.iterations;
  out.token_latency_cycles = ends.latency;
  out.is_interval_measured = plan.groups > 1 && ends.interval_max > 0;
  out.initiation_interval_cycles = out.is_interval_measured ? ends.interval_max : plan.initiation_interval;
  // With one token there is no second end to measure from: the next could start when the first is back, or is its turn.
  out.token_period_cycles =
      ends.period_max > 0 ? ends.period_max
                          : std::max(ends.latency, plan.groups > 1 ? plan.groups * ends.interval_max : std::int64_t{0});
  out.jitter_cycles_max = std::max(ends.period_max - ends.period_min, ends.interval_max - ends.interval_min);
  if (out.token_period_cycles > 0) {
    const auto period = static_cast<double>(out.token_period_cycles);
    out.tokens_per_second_per_user = static_cast<double>(program.chip.clock.count()) / period;
    out.tokens_per_second = out.tokens_per_second_per_user * options.users;
  }
  return out;
}

std::int64_t memory_bytes() {
  std::ifstream in("/proc/self/smaps_rollup");
  for (std::string word; in >> word;) {
    std::int64_t kibibytes = 0;
    if (word == "Pss:" && in >> kibibytes) {
      return kibibytes * 1024;
    }
  }
  return 0;
}

void set_wall_time(RunResult& result, double seconds) {
  result.wall_s = seconds;
  const auto chips = static_cast<double>(result.chips);
  result.chip_cycles_per_wall_s = chips * static_cast<double>(result.makespan_cycles) / seconds;
  result.wall_us_per_chip_token =
      1e6 * seconds / (chips * static_cast<double>(result.tokens) * static_cast<double>(result.groups));
}

}  // namespace lpu::cluster
