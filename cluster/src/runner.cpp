#include "runner.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "lpu/interconnect/rank_exchange.hpp"
#include "lpu/node/check_token.hpp"
#include "lpu/node/check_users.hpp"

namespace lpu::cluster {

Runner::Runner(const scheduler::ClusterProgram& program,
               std::uint64_t digest,
               const RunOptions& options,
               interconnect::ChipPlacement placement,
               interconnect::RankExchange* exchange,
               std::span<const SavedChip> saved)
    : program_(&program),
      options_(&options),
      plan_(scheduler::with_users(program, options.users)),
      digest_(digest),
      exchange_(exchange),
      transport_(program.bindings, std::move(placement), exchange) {
  transport_.set_tamperer(options.tamperer);
  make_tables();
  check_wiring();
  if (options.checks == Checks::kAll) {
    check_clockwork();
  }
  make_chips();
  restore(saved);
}

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
  if (options_->checks == Checks::kAll) {
    node::check_users(program_->texts, program_->bindings, plan_);
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

/// Iterations of one user never overlap: the next starts when the last chip is done with the one before, and reads by a
/// token that has come back.
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
  const std::int64_t shortest =
      node::token_period(program_->token_latency, plan_.initiation_interval, program_->busy_span, 1);
  node::check_token_loop(program_->texts, program_->bindings, program_->chip, shortest);
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
    ++running_;
    if (options_->observer && binding.chip >= options_->observed_first && binding.chip <= options_->observed_last) {
      chips_[at]->set_observer(options_->observer);
    }
    if (binding.chip == options_->skip_chip) {
      chips_[at]->skip(options_->skip_iteration, options_->skip_instruction);
    }
  }
}

void Runner::restore(std::span<const SavedChip> saved) {
  for (const SavedChip& chip : saved) {
    const auto at = static_cast<std::size_t>(chip.chip);
    LPU_CHECK(at < chips_.size() && chips_[at], "a saved chip that is not here");
    chips_[at]->restore(chip.state);
    for (const interconnect::StoredMessage& message : chip.messages) {
      const bool is_known =
          transport_.accept({.chip = chip.chip, .link = message.link}, message.header, message.values);
      if (!is_known || message.header.length != static_cast<std::int32_t>(message.values.size())) {
        throw node::InputError("saved state of chip " + std::to_string(chip.chip) + ": found a message on link " +
                               std::to_string(message.link) + "; expected one that a link of the chip can hold");
      }
    }
  }
  transport_.clear_deliveries();  // all chips are ready anyway
}

std::int64_t Runner::next_token() const {
  std::int64_t reached = 0;
  for (const auto& chip : chips_) {
    reached = chip ? std::max(reached, chip->reached()) : reached;
  }
  const std::int64_t token = reached == kNoToken ? kNoToken : reached / plan_.token_period + 1;
  return options_->checks == Checks::kAll || token >= options_->tokens ? kNoToken : token;
}

void Runner::stop_before(std::int64_t token) {
  stopped_before_ = token;
  const std::int64_t cycle = plan_.start(token * plan_.groups);
  for (const auto& chip : chips_) {
    if (chip) {
      chip->stop_at(cycle);
    }
  }
}

std::vector<SavedChip> Runner::saved_chips() const {
  std::vector<SavedChip> out;
  for (const auto& chip : chips_) {
    if (chip) {
      out.push_back(
          {.chip = chip->chip_id(), .state = chip->snapshot(), .messages = transport_.stored(chip->chip_id())});
    }
  }
  return out;
}

bool Runner::run_next() {
  if (ready_.empty()) {
    return false;
  }
  const std::int32_t chip = ready_.front();
  ready_.pop_front();
  const auto at = static_cast<std::size_t>(chip);
  states_[at] = checked_chips_[at] ? checked_chips_[at]->run() : chips_[at]->run();
  if (states_[at] == node::ChipState::kReady) {
    ready_.push_back(chip);
  }
  running_ -= states_[at] == node::ChipState::kDone ? 1 : 0;
  wake_receivers();
  return true;
}

bool Runner::receive() {
  if (!exchange_->receive(transport_)) {
    return false;
  }
  wake_receivers();
  return true;
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

bool Runner::is_done() const {
  return running_ == 0;
}

std::vector<node::Wait> Runner::waits() const {
  std::vector<node::Wait> out;
  for (std::size_t at = 0; at < chips_.size(); ++at) {
    if (states_[at] == node::ChipState::kWaiting) {
      out.push_back(chips_[at]->wait());
    }
  }
  return out;
}

void Runner::check_nothing_left() {
  if (stopped_before_) {
    return;  // what is left is part of the state
  }
  for (const auto& chip : chips_) {
    if (chip) {
      chip->check_nothing_left();
    }
  }
}

RunProgress Runner::progress() const {
  RunProgress progress{.iterations = iterations(), .iterations_total = iterations()};
  for (const node::ChipBinding& binding : program_->bindings) {
    if (binding.text >= 0 && binding.stage == 0) {
      const node::ChipMeasures& measures = chips_[static_cast<std::size_t>(binding.chip)]->measures();
      progress.iterations = std::min(progress.iterations, measures.iterations);
      progress.cycle = std::max(progress.cycle, measures.end);
    }
  }
  return progress;
}

std::vector<ChipOutcome> Runner::outcomes() const {
  std::vector<ChipOutcome> out;
  for (const auto& chip : chips_) {
    if (chip) {
      out.push_back({.chip = chip->chip_id(), .fold = chip->fold(), .measures = chip->measures()});
    }
  }
  return out;
}

node::ScheduleViolation deadlock(const std::vector<node::Wait>& waits) {
  LPU_CHECK(!waits.empty(), "a deadlock in which nobody waits");
  std::map<std::int32_t, const node::Wait*> of_chip;
  // The earliest wait is where the schedule first left its way; every chip behind it waits later.
  const node::Wait* first = nullptr;
  for (const node::Wait& wait : waits) {
    of_chip[wait.chip] = &wait;
    const bool is_earlier =
        first == nullptr || wait.cycle < first->cycle || (wait.cycle == first->cycle && wait.chip < first->chip);
    first = is_earlier ? &wait : first;
  }
  std::set<std::int32_t> seen;
  std::string reason = "deadlock:";
  for (const node::Wait* wait = first;;) {
    seen.insert(wait->chip);
    reason += " chip " + std::to_string(wait->chip) + " waits at cycle " + std::to_string(wait->cycle) +
              ", instruction " + std::to_string(wait->instruction) + ", for transfer '" + wait->transfer +
              "' of iteration " + std::to_string(wait->iteration) + " on link " + std::to_string(wait->link) +
              " from chip " + std::to_string(wait->from);
    const auto next = of_chip.find(wait->from);
    if (next == of_chip.end()) {
      reason += ", which has ended";
      break;
    }
    if (seen.contains(wait->from)) {
      reason += ", which closes the circle";
      break;
    }
    reason += ";";
    wait = next->second;
  }
  return node::ScheduleViolation(
      {.chip = first->chip, .cycle = first->cycle, .instruction = first->instruction, .reason = reason});
}

}  // namespace lpu::cluster
