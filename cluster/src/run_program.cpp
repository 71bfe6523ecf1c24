#include "lpu/cluster/run_program.hpp"

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>

#include "lpu/node/burst_table.hpp"
#include "lpu/node/checked_chip.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/emulator.hpp"
#include "lpu/node/error.hpp"

namespace lpu::cluster {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The chips of a program, their wires, and who may run.
class Runner {
 public:
  Runner(const scheduler::ClusterProgram& program, const RunOptions& options)
      : program_(&program),
        options_(&options),
        plan_(scheduler::with_users(program, options.users)),
        digest_(scheduler::schedule_digest(program)),
        transport_(program.bindings) {
    transport_.set_tamperer(options.tamperer);
    make_tables();
    check_wiring();
    if (options.checks == Checks::kAll) {
      check_clockwork();
    }
    make_chips();
  }

  RunResult run();

 private:
  void make_tables();
  void check_wiring() const;
  void check_clockwork() const;
  [[nodiscard]] std::string wiring_fault(const node::ChipBinding& binding, std::int32_t link) const;
  void make_chips();
  void execute();
  void wake_receivers();
  void report_progress();
  [[noreturn]] void fail_deadlock() const;
  [[nodiscard]] RunResult collect() const;
  [[nodiscard]] std::int64_t iterations() const { return options_->tokens * plan_.groups; }

  const scheduler::ClusterProgram* program_;
  const RunOptions* options_;
  node::IterationPlan plan_;
  std::uint64_t digest_;
  interconnect::InProcessTransport transport_;
  std::vector<std::unique_ptr<node::BurstTable>> tables_;
  std::vector<std::unique_ptr<node::CheckedText>> checked_texts_;  ///< Checks::kAll only
  std::vector<std::unique_ptr<node::Emulator>> chips_;             ///< per chip id; none: idle
  std::vector<std::unique_ptr<node::CheckedChip>> checked_chips_;  ///< Checks::kAll only
  std::vector<node::ChipState> states_;
  std::deque<std::int32_t> ready_;
  Clock::time_point last_progress_ = Clock::now();
};

void Runner::make_tables() {
  tables_.resize(program_->texts.size());
  checked_texts_.resize(program_->texts.size());
  for (const node::ChipBinding& binding : program_->bindings) {
    if (binding.text < 0) {
      continue;
    }
    const auto at = static_cast<std::size_t>(binding.text);
    if (tables_[at]) {
      continue;
    }
    if (options_->checks == Checks::kAll) {
      checked_texts_[at] =
          std::make_unique<node::CheckedText>(program_->texts[at], program_->chip, plan_, binding.chip);
    }
    tables_[at] = std::make_unique<node::BurstTable>(program_->texts[at], program_->chip, binding.chip);
  }
}

/// A link joins two ends: what a chip sends over it the far chip takes from the link that leads back.
void Runner::check_wiring() const {
  for (const node::ChipBinding& binding : program_->bindings) {
    if (binding.text < 0) {
      continue;
    }
    const node::BurstTable& table = *tables_[static_cast<std::size_t>(binding.text)];
    for (const node::WireBurst& burst : table.wire_bursts()) {
      for (const node::WirePart& part : table.parts(burst)) {
        const std::string fault = wiring_fault(binding, part.link);
        if (!fault.empty()) {
          const node::Instruction& instruction =
              table.program().instructions[static_cast<std::size_t>(burst.instruction)];
          throw node::ScheduleViolation({.chip = binding.chip,
                                         .cycle = instruction.start + binding.offset,
                                         .instruction = burst.instruction,
                                         .reason = "link " + std::to_string(part.link) + fault});
        }
      }
    }
  }
}

std::string Runner::wiring_fault(const node::ChipBinding& binding, std::int32_t link) const {
  const auto at = static_cast<std::size_t>(link);
  if (at >= binding.peers.size() || binding.peers[at].chip < 0) {
    return " is not wired";
  }
  const node::LinkPeer& far = binding.peers[at];
  const auto& back = program_->bindings[static_cast<std::size_t>(far.chip)].peers;
  const auto far_link = static_cast<std::size_t>(far.link);
  if (far_link >= back.size() || back[far_link].chip != binding.chip || back[far_link].link != link) {
    return " leads to chip " + std::to_string(far.chip) + ", link " + std::to_string(far.link) +
           ", which does not lead back";
  }
  return {};
}

/// Iterations of one user never overlap: the next starts when the last chip is done with the one before.
void Runner::check_clockwork() const {
  for (const node::ChipBinding& binding : program_->bindings) {
    if (binding.text < 0) {
      continue;
    }
    const std::int64_t makespan = program_->texts[static_cast<std::size_t>(binding.text)].makespan;
    const auto fail = [&](const std::string& what, std::int64_t found) {
      throw node::ScheduleViolation(
          {.chip = binding.chip,
           .cycle = binding.offset + makespan - 1,
           .instruction = -1,
           .reason = "is at work until then; the program's " + what + " is " + std::to_string(found)});
    };
    if (makespan > program_->busy_span) {
      fail("busy span", program_->busy_span);
    }
    if (binding.offset + makespan > program_->token_latency) {
      fail("token latency", program_->token_latency);
    }
  }
}

void Runner::make_chips() {
  chips_.resize(program_->bindings.size());
  checked_chips_.resize(program_->bindings.size());
  states_.assign(program_->bindings.size(), node::ChipState::kDone);
  for (const node::ChipBinding& binding : program_->bindings) {
    if (binding.text < 0) {
      continue;
    }
    const auto at = static_cast<std::size_t>(binding.chip);
    chips_[at] = std::make_unique<node::Emulator>(*tables_[static_cast<std::size_t>(binding.text)],
                                                  program_->chip,
                                                  binding,
                                                  plan_,
                                                  iterations(),
                                                  digest_,
                                                  transport_.port(binding.chip));
    if (options_->checks == Checks::kAll) {
      checked_chips_[at] = std::make_unique<node::CheckedChip>(*checked_texts_[static_cast<std::size_t>(binding.text)],
                                                               program_->chip,
                                                               binding,
                                                               plan_,
                                                               iterations(),
                                                               *chips_[at]);
    }
    states_[at] = node::ChipState::kReady;
    ready_.push_back(binding.chip);
    if (binding.chip == options_->skip_chip) {
      chips_[at]->skip(options_->skip_iteration, options_->skip_instruction);
    }
  }
}

void Runner::wake_receivers() {
  for (const interconnect::Delivery& delivery : transport_.deliveries()) {
    const auto at = static_cast<std::size_t>(delivery.chip);
    if (states_[at] == node::ChipState::kWaiting && chips_[at]->waits_on() == delivery.link) {
      states_[at] = node::ChipState::kReady;
      ready_.push_back(delivery.chip);
    }
  }
  transport_.clear_deliveries();
}

void Runner::report_progress() {
  if (!options_->progress || seconds_since(last_progress_) < 0.005) {
    return;
  }
  last_progress_ = Clock::now();
  RunProgress progress{.iterations = iterations(), .iterations_total = iterations()};
  for (const node::ChipBinding& binding : program_->bindings) {
    if (binding.text >= 0 && binding.stage == 0) {
      const node::ChipMeasures& measures = chips_[static_cast<std::size_t>(binding.chip)]->measures();
      progress.iterations = std::min(progress.iterations, measures.iterations);
      progress.cycle = std::max(progress.cycle, measures.end);
    }
  }
  options_->progress(progress);
}

void Runner::execute() {
  constexpr std::uint32_t kStepsBetweenReports = 256;
  std::uint32_t steps = 0;
  while (!ready_.empty()) {
    const std::int32_t chip = ready_.front();
    ready_.pop_front();
    const auto at = static_cast<std::size_t>(chip);
    states_[at] = checked_chips_[at] ? checked_chips_[at]->run() : chips_[at]->run();
    if (states_[at] == node::ChipState::kReady) {
      ready_.push_back(chip);
    }
    wake_receivers();
    if (++steps % kStepsBetweenReports == 0) {
      report_progress();
    }
  }
  if (std::find(states_.begin(), states_.end(), node::ChipState::kWaiting) != states_.end()) {
    fail_deadlock();
  }
  for (const auto& chip : chips_) {
    if (chip) {
      chip->check_nothing_left();
    }
  }
}

void Runner::fail_deadlock() const {
  // The earliest wait is where the schedule first left its way; every chip behind it waits later.
  std::optional<node::Wait> first;
  for (std::size_t at = 0; at < chips_.size(); ++at) {
    if (states_[at] == node::ChipState::kWaiting) {
      const node::Wait wait = chips_[at]->wait();
      if (!first || wait.cycle < first->cycle) {
        first = wait;
      }
    }
  }
  std::vector<bool> is_seen(chips_.size(), false);
  std::string reason = "deadlock:";
  node::Wait wait = *first;
  for (;;) {
    is_seen[static_cast<std::size_t>(wait.chip)] = true;
    reason += " chip " + std::to_string(wait.chip) + " waits at cycle " + std::to_string(wait.cycle) +
              ", instruction " + std::to_string(wait.instruction) + ", for transfer '" + wait.transfer +
              "' of iteration " + std::to_string(wait.iteration) + " on link " + std::to_string(wait.link) +
              " from chip " + std::to_string(wait.from);
    const auto from = static_cast<std::size_t>(wait.from);
    if (!chips_[from] || states_[from] == node::ChipState::kDone) {
      reason += ", which has ended";
      break;
    }
    if (is_seen[from]) {
      reason += ", which closes the circle";
      break;
    }
    reason += ";";
    wait = chips_[from]->wait();
  }
  throw node::ScheduleViolation(
      {.chip = first->chip, .cycle = first->cycle, .instruction = first->instruction, .reason = reason});
}

RunResult Runner::run() {
  execute();
  return collect();
}

RunResult Runner::collect() const {
  RunResult out;
  out.users = options_->users;
  out.tokens = options_->tokens;
  out.groups = plan_.groups;
  out.schedule_digest = digest_;
  node::UnitCycles units;
  std::int64_t busiest_link = 0;
  node::ChipMeasures ends;  // of stage 0: extremes over its chips
  const auto widen = [](std::int64_t low, std::int64_t high, std::int64_t& all_low, std::int64_t& all_high) {
    all_low = all_low == 0 ? low : std::min(all_low, low);
    all_high = std::max(all_high, high);
  };
  for (std::size_t at = 0; at < chips_.size(); ++at) {
    if (!chips_[at]) {
      ++out.chips_idle;
      out.fingerprint = node::fold(out.fingerprint, 0);
      continue;
    }
    const node::ChipMeasures& chip = chips_[at]->measures();
    ++out.chips;
    out.fingerprint = node::fold(out.fingerprint, chips_[at]->fold());
    out.makespan_cycles = std::max(out.makespan_cycles, chip.end);
    out.arrivals_checked += chip.arrivals_checked;
    out.transfers += chip.transfers;
    out.vectors += chip.vectors;
    out.bursts += chip.bursts;
    units += chip.units;
    busiest_link = std::max(busiest_link, *std::max_element(chip.link_busy.begin(), chip.link_busy.end()));
    if (program_->bindings[at].stage == 0) {
      ends.latency = std::max(ends.latency, chip.latency);
      widen(chip.interval_min, chip.interval_max, ends.interval_min, ends.interval_max);
      widen(chip.period_min, chip.period_max, ends.period_min, ends.period_max);
    }
  }
  out.messages_in_process = transport_.messages();
  out.token_latency_cycles = ends.latency;
  out.is_interval_measured = plan_.groups > 1;
  out.initiation_interval_cycles = out.is_interval_measured ? ends.interval_max : plan_.initiation_interval;
  // With one token there is no second end to measure from: the next could start when the first is back, or is its turn.
  out.token_period_cycles =
      options_->tokens > 1
          ? ends.period_max
          : std::max(ends.latency, plan_.groups > 1 ? plan_.groups * ends.interval_max : std::int64_t{0});
  out.jitter_cycles_max = std::max(ends.period_max - ends.period_min, ends.interval_max - ends.interval_min);
  const auto period = static_cast<double>(out.token_period_cycles);
  out.tokens_per_second_per_user = static_cast<double>(program_->chip.clock.count()) / period;
  out.tokens_per_second = out.tokens_per_second_per_user * options_->users;
  const node::ChipSpec& chip = program_->chip;
  const double cycles = static_cast<double>(out.makespan_cycles) * out.chips;
  const auto share = [&](std::int64_t busy, double units_per_chip) {
    return static_cast<double>(busy) / (cycles * units_per_chip);
  };
  out.occupancy = {
      .mxm = share(std::max({units.installs, units.computes, units.drains}), 2.0 * chip.mxm_planes_per_hemisphere),
      .vxm = share(units.alus, chip.vxm_alus),
      .sxm = share(units.sxm, 2),
      .mem = share(std::max(units.reads, units.writes), 2.0 * chip.slices_per_hemisphere),
      .c2c = share(units.sends * chip.link_serialisation.count(), chip.links())};
  out.link_busy_max = static_cast<double>(busiest_link) / static_cast<double>(out.makespan_cycles);
  return out;
}

}  // namespace

RunResult run_program(const scheduler::ClusterProgram& program, const RunOptions& options) {
  if (options.tokens < 1) {
    throw node::InputError("--tokens: found " + std::to_string(options.tokens) + "; expected 1 or more");
  }
  const Clock::time_point start = Clock::now();
  Runner runner(program, options);
  RunResult result = runner.run();
  result.wall_s = seconds_since(start);
  const auto chips = static_cast<double>(result.chips);
  result.chip_cycles_per_wall_s = chips * static_cast<double>(result.makespan_cycles) / result.wall_s;
  result.wall_us_per_chip_token =
      1e6 * result.wall_s / (chips * static_cast<double>(result.tokens) * static_cast<double>(result.groups));
  return result;
}

}  // namespace lpu::cluster
