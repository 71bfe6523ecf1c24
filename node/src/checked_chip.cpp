#include <algorithm>

#include "checker.hpp"
#include "lpu/node/digest.hpp"

namespace lpu::node {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kKinds = 8;  ///< more than InstanceKind has

}  // namespace

const InstanceEvent* CheckedChip::Checker::peek(const Flight& flight) const {
  const InstanceEvent* still = flight.next < tables_.events.size() ? &tables_.events[flight.next] : nullptr;
  const InstanceEvent* moved = flight.next_moved < flight.moved.size() ? &flight.moved[flight.next_moved] : nullptr;
  if (still == nullptr || moved == nullptr) {
    return still == nullptr ? moved : still;
  }
  return is_before(*moved, *still) ? moved : still;
}

std::int64_t CheckedChip::Checker::key(const Flight& flight) const {
  const InstanceEvent* event = peek(flight);
  return event == nullptr ? kNever : (flight.start + event->cycle) * kKinds + static_cast<std::int64_t>(event->kind);
}

std::int64_t CheckedChip::Checker::next_opening() const {
  if (next_iteration_ == iterations_) {
    return kNever;
  }
  // A displaced access may come a few cycles before everything else.
  const std::int64_t first = std::int64_t{tables_.events.front().cycle} - std::int64_t{2} * chip_.mxm_position;
  return (plan_.start(next_iteration_) + binding_.offset + first) * kKinds;
}

void CheckedChip::Checker::open() {
  auto flight = std::make_unique<Flight>();
  flight->iteration = next_iteration_++;
  flight->start = plan_.start(flight->iteration) + binding_.offset;
  flight->bases.assign(static_cast<std::size_t>(tables_.value_bases), 0);
  for (const BaseRegister& base : text_.registers) {
    std::vector<std::int32_t> experts;
    if (base.kind == RegisterKind::kExpert) {
      experts = expert_slots(plan_, flight->iteration, binding_.first_layer + base.layer_slot);
    }
    flight->displacements.push_back(displace(base, plan_, flight->iteration, experts));
  }
  for (const std::int32_t instruction : tables_.moving) {
    const Instruction& burst = text_.instructions[static_cast<std::size_t>(instruction)];
    // A disabled one does nothing; that it takes the resources of some displacement was checked with the steady state.
    const Displacement& displacement = flight->displacements[burst.base_register];
    if (displacement.is_enabled) {
      place_burst(text_, instruction, displacement.slice, chip_, flight->moved);
    }
  }
  std::sort(flight->moved.begin(), flight->moved.end(), is_before);
  for (const AppendTarget& target : tables_.append_targets) {
    const Instruction& instruction = text_.instructions[static_cast<std::size_t>(target.instruction)];
    const Displacement& displacement = flight->displacements[instruction.base_register];
    const std::int64_t slice = unit_of(instruction, target.at) + displacement.slice;
    const std::int64_t address =
        affine(instruction.address, instruction.address_stride, target.at) + displacement.address;
    if (displacement.is_enabled && is_in_sram(slice, address, chip_)) {
      memory_.expect_append(make_place(instruction.hemisphere, slice, address, chip_), target.instruction);
    }
  }
  flights_.push_back(std::move(flight));
}

void CheckedChip::Checker::advance(std::int64_t until) {
  const std::int64_t end = until == kNever ? kNever : until * kKinds;
  for (;;) {
    const auto first = std::min_element(
        flights_.begin(), flights_.end(), [this](const auto& a, const auto& b) { return key(*a) < key(*b); });
    const std::int64_t first_key = first == flights_.end() ? kNever : key(**first);
    if (first_key >= next_opening() && next_opening() < end) {
      open();
      continue;
    }
    if (first_key >= end) {
      return;
    }
    std::int64_t limit = std::min(end - 1, next_opening());
    for (const auto& flight : flights_) {
      limit = flight == *first ? limit : std::min(limit, key(*flight));
    }
    check_through(**first, limit);
    if (peek(**first) == nullptr) {
      flights_.erase(first);
    }
  }
}

/// Checks the flight's events up to a key, its next one in any case.
void CheckedChip::Checker::check_through(Flight& flight, std::int64_t limit) {
  do {
    const InstanceEvent* event = peek(flight);
    check(flight, *event);
    const bool is_still = flight.next < tables_.events.size() && event == &tables_.events[flight.next];
    ++(is_still ? flight.next : flight.next_moved);
  } while (key(flight) <= limit);
}

void CheckedChip::Checker::check(Flight& flight, const InstanceEvent& event) {
  const Instruction& instruction = text_.instructions[static_cast<std::size_t>(event.instruction)];
  const Site site{.chip = binding_.chip,
                  .cycle = flight.start + event.cycle,
                  .instruction = event.instruction,
                  .iteration = flight.iteration,
                  .iteration_start = flight.start};
  if (event.cycle < 0) {
    breach(site, "issues " + std::to_string(-event.cycle) + " cycles before its iteration starts");
  }
  switch (event.kind) {
    case InstanceKind::kFetch:
      fetch(site, instruction);
      return;
    case InstanceKind::kDispatch:
      dispatch(site, event.queue);
      return;
    case InstanceKind::kSource:
      if (instruction.opcode == Opcode::kReceive) {
        receive(site, flight, instruction, event.at);
      } else {
        access(site, flight, instruction, event);
      }
      return;
    case InstanceKind::kDrain:
      drain(site, flight, instruction, event.at);
      return;
    case InstanceKind::kCompute:
      compute(site, flight, instruction, event.at);
      return;
    case InstanceKind::kOperate:
      if (instruction.opcode == Opcode::kInstall) {
        install(site, flight, instruction, event.at);
      } else if (instruction.opcode == Opcode::kSend) {
        send(site, flight, instruction, event.at);
      } else {
        operate(site, flight, instruction, event.at);
      }
      return;
    case InstanceKind::kWrite:
      access(site, flight, instruction, event);
      return;
  }
}

void CheckedChip::Checker::fetch(const Site& site, const Instruction& instruction) {
  fetched_ = site.cycle == fetch_cycle_ ? fetched_ : 0;
  fetch_cycle_ = site.cycle;
  fetched_ += text_size(instruction, chip_).count();
  if (fetched_ > chip_.fetch_bytes_per_cycle) {
    breach(site,
           "fetches " + std::to_string(fetched_) + " B of program text in one cycle; " +
               std::to_string(chip_.fetch_bytes_per_cycle) + " B can be");
  }
}

void CheckedChip::Checker::dispatch(const Site& site, std::int32_t queue) {
  std::int64_t& last = queues_[static_cast<std::size_t>(queue)];
  if (last == site.cycle) {
    breach(site, "starts in a cycle in which its instruction queue starts another burst");
  }
  last = site.cycle;
}

CheckedChip::CheckedChip(const CheckedText& text,
                         const ChipSpec& chip,
                         const ChipBinding& binding,
                         const IterationPlan& plan,
                         std::int64_t iterations,
                         Emulator& emulator)
    : checker_(std::make_unique<Checker>(text.tables(), chip, binding, plan, iterations)), emulator_(&emulator) {}
CheckedChip::~CheckedChip() = default;
CheckedChip::CheckedChip(CheckedChip&&) noexcept = default;
CheckedChip& CheckedChip::operator=(CheckedChip&&) noexcept = default;

ChipState CheckedChip::run() {
  ChipState state = ChipState::kReady;
  try {
    state = emulator_->run();
  } catch (const ScheduleViolation& late) {
    checker_->advance(late.violation().cycle);  // what went wrong before it is the cause
    throw;
  }
  checker_->advance(emulator_->settled());
  if (state == ChipState::kDone) {
    checker_->finish();
  }
  return state;
}

}  // namespace lpu::node
