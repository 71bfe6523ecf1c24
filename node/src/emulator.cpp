#include "lpu/node/emulator.hpp"

#include <algorithm>
#include <limits>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/identity.hpp"

namespace lpu::node {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
/// Iterations after which a chip lets others run, so that one without anything to wait for does not fill every mailbox.
constexpr std::int64_t kTurn = 16;
constexpr std::uint64_t kCycleFactor = 0x9e3779b97f4a7c15ULL;

constexpr std::uint64_t to_word(std::int64_t x) {
  return static_cast<std::uint64_t>(x);
}

std::uint64_t displacement_word(const Displacement& displacement) {
  return mix(to_word(displacement.row) << 32U ^
             static_cast<std::uint64_t>(static_cast<std::uint16_t>(displacement.slice)) << 17U ^
             static_cast<std::uint64_t>(static_cast<std::uint16_t>(displacement.address)) << 1U ^
             (displacement.is_enabled ? 1U : 0U));
}

}  // namespace

Emulator::Emulator(const BurstTable& table,
                   const ChipSpec& chip,
                   const ChipBinding& binding,
                   const IterationPlan& plan,
                   std::int64_t iterations,
                   std::uint64_t digest,
                   Port& port)
    : table_(&table),
      chip_(&chip),
      binding_(&binding),
      plan_(&plan),
      port_(&port),
      iterations_(table.events().empty() ? 0 : iterations),
      digest_(digest),
      fold_(mix(to_word(binding.chip))),
      serialisation_(chip.link_serialisation.count()),
      link_latency_(chip.link_latency().count()),
      links_(static_cast<std::size_t>(chip.links())),
      group_end_(static_cast<std::size_t>(plan.groups), 0) {
  check_binding();
  const auto& tensors = table.program().tensors;
  origins_.push_back(0);
  for (const ValueBase& base : table.bases().subspan(1)) {
    origins_.push_back(value_origin(tensors[base.tensor], base.name, binding, base.slot));
  }
  std::vector<bool> is_used(table.program().registers.size(), false);
  for (const BurstEvent& event : table.events()) {
    is_used[event.base_register] = true;
  }
  for (std::size_t i = 0; i < is_used.size(); ++i) {
    if (is_used[i] && table.program().registers[i].kind != RegisterKind::kNone) {
      used_registers_.push_back(static_cast<std::uint16_t>(i));
    }
  }
  measures_.link_busy.assign(links_.size(), 0);
  plan_next_opening();
}

void Emulator::check_binding() const {
  const std::string chip = "program: chip " + std::to_string(binding_->chip) + ": ";
  const auto slots = static_cast<std::int32_t>(binding_->slot_owner.size());
  for (const ValueBase& base : table_->bases().subspan(1)) {
    const Tensor& tensor = table_->program().tensors[base.tensor];
    if (tensor.owner == TensorOwner::kGathered && (base.slot < 0 || base.slot >= slots)) {
      throw InputError(chip + "slot_owner: found " + std::to_string(slots) + " entries; expected one for slot " +
                       std::to_string(base.slot) + " of '" + tensor.name + "'");
    }
  }
  const std::size_t users = static_cast<std::size_t>(plan_->groups) * static_cast<std::size_t>(plan_->micro_batch);
  for (const BaseRegister& base : table_->program().registers) {
    const bool is_per_user = base.kind == RegisterKind::kUser || base.kind == RegisterKind::kAppend;
    if (is_per_user && base.table.size() < users) {
      throw InputError(chip + "register table: found " + std::to_string(base.table.size()) + " user slots; expected " +
                       std::to_string(users));
    }
    if (base.kind == RegisterKind::kExpert && base.expert_slot >= plan_->expert_slots) {
      throw InputError(chip + "expert_slot: found " + std::to_string(base.expert_slot) + "; expected less than " +
                       std::to_string(plan_->expert_slots));
    }
  }
  for (const WireBurst& burst : table_->wire_bursts()) {
    for (const WirePart& part : table_->parts(burst)) {
      const auto link = static_cast<std::size_t>(part.link);
      if (link >= binding_->peers.size() || binding_->peers[link].chip < 0) {
        const std::int32_t start = table_->program().instructions[static_cast<std::size_t>(burst.instruction)].start;
        throw ScheduleViolation({.chip = binding_->chip,
                                 .cycle = start + binding_->offset,
                                 .instruction = burst.instruction,
                                 .reason = "link " + std::to_string(part.link) + " is not wired"});
      }
    }
  }
}

void Emulator::skip(std::int64_t iteration, std::int32_t instruction) {
  skip_iteration_ = iteration;
  skip_instruction_ = instruction;
}

std::int64_t Emulator::key_of(const Iteration& iteration) const {
  const BurstEvent& event = table_->events()[iteration.next];
  return (iteration.start + event.cycle) * kKeysPerCycle + event.unit;
}

void Emulator::plan_next_opening() {
  if (next_iteration_ == iterations_) {
    next_opening_ = kNever;
    return;
  }
  const BurstEvent& first = table_->events().front();
  next_opening_ = (plan_->start(next_iteration_) + binding_->offset + first.cycle) * kKeysPerCycle + first.unit;
}

void Emulator::fill_registers(Iteration& iteration) const {
  std::int32_t layer = -1;
  std::vector<std::int32_t> experts;
  for (const std::uint16_t at : used_registers_) {
    const BaseRegister& base = table_->program().registers[at];
    if (base.kind == RegisterKind::kExpert && base.layer_slot != layer) {
      layer = base.layer_slot;
      experts = expert_slots(*plan_, iteration.number, binding_->first_layer + layer);
    }
    const Displacement displacement = displace(base, *plan_, iteration.number, experts);
    iteration.registers[at] = displacement_word(displacement);
    iteration.row_shift[at] = displacement.row;
  }
}

/// An iteration in flight with all that follows from its number, at its first event.
Emulator::Iteration& Emulator::begin_iteration(std::int64_t number) {
  if (idle_.empty()) {
    pool_.push_back(std::make_unique<Iteration>());
    pool_.back()->bases = origins_;  // static tensors stay as they are
    pool_.back()->registers.assign(table_->program().registers.size(), 0);
    pool_.back()->row_shift.assign(table_->program().registers.size(), 0);
    idle_.push_back(pool_.back().get());
  }
  Iteration& iteration = *idle_.back();
  idle_.pop_back();
  iteration.number = number;
  iteration.start = plan_->start(iteration.number) + binding_->offset;
  iteration.next = 0;
  iteration.key = key_of(iteration);
  iteration.writes.assign(table_->counters(), 0);
  // fold(fold(origin, group + 1), token + 1) and fold(origin, user + 1) of identity.hpp, with the inner mixes hoisted.
  const std::uint64_t group = mix(to_word(plan_->group(iteration.number)) + 1);
  const std::uint64_t token = mix(to_word(plan_->token(iteration.number)) + 1);
  for (std::size_t i = 1; i < table_->first_cache_base(); ++i) {
    iteration.bases[i] = mix(mix(origins_[i] ^ group) ^ token);
  }
  for (std::size_t i = table_->first_cache_base(); i < table_->first_static_base(); ++i) {
    const std::int32_t user = plan_->group(iteration.number) * plan_->micro_batch + table_->bases()[i].user_in_batch;
    iteration.bases[i] = node::fold(origins_[i], to_word(user) + 1);
  }
  fill_registers(iteration);
  return iteration;
}

void Emulator::open_iteration() {
  heap_.push_back(&begin_iteration(next_iteration_++));
  sift_up();
  plan_next_opening();
}

void Emulator::measure_end(const Iteration& iteration) {
  const std::int64_t end = iteration.start + table_->effect_end();
  const std::int32_t group = plan_->group(iteration.number);
  ++measures_.iterations;
  measures_.units += table_->unit_cycles();
  measures_.end = std::max(measures_.end, end);
  measures_.latency = std::max(measures_.latency, end - plan_->start(iteration.number));
  const auto widen = [](std::int64_t value, std::int64_t& low, std::int64_t& high) {
    low = low == 0 ? value : std::min(low, value);
    high = std::max(high, value);
  };
  if (group > 0) {
    widen(end - previous_end_, measures_.interval_min, measures_.interval_max);
  }
  if (plan_->token(iteration.number) > 0) {
    widen(end - group_end_[static_cast<std::size_t>(group)], measures_.period_min, measures_.period_max);
  }
  previous_end_ = end;
  group_end_[static_cast<std::size_t>(group)] = end;
}

void Emulator::close_iteration() {
  measure_end(*heap_.front());
  idle_.push_back(heap_.front());
  heap_.front() = heap_.back();
  heap_.pop_back();
  sift_down();
}

// The heap holds a handful of iterations (a stage overlaps few; the first one more, which wait for their token).
void Emulator::sift_down() {
  std::size_t at = 0;
  const auto is_before = [](const Iteration* a, const Iteration* b) {
    return a->key < b->key || (a->key == b->key && a->number < b->number);
  };
  for (;;) {
    std::size_t least = at;
    for (std::size_t child = 2 * at + 1; child <= 2 * at + 2 && child < heap_.size(); ++child) {
      least = is_before(heap_[child], heap_[least]) ? child : least;
    }
    if (least == at) {
      return;
    }
    std::swap(heap_[at], heap_[least]);
    at = least;
  }
}

void Emulator::sift_up() {
  for (std::size_t at = heap_.size() - 1; at > 0;) {
    const std::size_t parent = (at - 1) / 2;
    // Equal keys stay: the newcomer has the higher number.
    if (heap_[at]->key >= heap_[parent]->key) {
      return;
    }
    std::swap(heap_[at], heap_[parent]);
    at = parent;
  }
}

ChipState Emulator::run() {
  const std::int64_t turn_end = measures_.iterations + kTurn;
  waiting_link_ = -1;
  while (measures_.iterations < turn_end) {
    if (next_opening_ < stop_key_ && (heap_.empty() || next_opening_ < heap_.front()->key)) {
      open_iteration();
    }
    if (heap_.empty() || heap_.front()->key >= stop_key_) {
      now_ = stop_key_ == kNever ? kNever : stop_key_ / kKeysPerCycle;
      send_all_before(now_);
      return ChipState::kDone;
    }
    if (!advance()) {
      return ChipState::kWaiting;
    }
  }
  return ChipState::kReady;
}

/// Executes the earliest iteration up to where another one comes first.
bool Emulator::advance() {
  Iteration& iteration = *heap_.front();
  const std::size_t events = table_->events().size();
  std::int64_t limit = std::min(next_opening_, stop_key_ - 1);
  for (std::size_t child = 1; child <= 2 && child < heap_.size(); ++child) {
    // Of equal keys the lower iteration goes first.
    limit = std::min(limit, heap_[child]->key + (heap_[child]->number < iteration.number ? -1 : 0));
  }
  do {
    if (!execute(iteration, table_->events()[iteration.next])) {
      now_ = iteration.start + table_->events()[iteration.next].cycle;
      send_all_before(now_);
      return false;
    }
    if (++iteration.next == events) {
      close_iteration();
      return true;
    }
    iteration.key = key_of(iteration);
  } while (iteration.key <= limit);
  now_ = iteration.key / kKeysPerCycle;
  sift_down();
  return true;
}

void Emulator::fold_burst(const Iteration& iteration, const BurstEvent& event) {
  const std::uint64_t* bases = iteration.bases.data();
  const std::uint64_t word = event.word + to_word(iteration.start + event.cycle) * kCycleFactor +
                             bases[event.bases[0]] * 3 + bases[event.bases[1]] * 5 + bases[event.bases[2]] * 7 +
                             bases[event.bases[3]] * 9 + iteration.registers[event.base_register];
  fold_ = mix(fold_ ^ word);
  ++measures_.bursts;
  if (observer_) [[unlikely]] {
    observer_({.chip = binding_->chip,
               .instruction = event.instruction,
               .iteration = iteration.number,
               .iteration_start = iteration.start});
  }
}

bool Emulator::execute(Iteration& iteration, const BurstEvent& event) {
  if (event.instruction == skip_instruction_ && iteration.number == skip_iteration_) {
    return true;
  }
  switch (event.moment) {
    case BurstMoment::kIssue:
      fold_burst(iteration, event);
      return true;
    case BurstMoment::kWrite:
      ++iteration.writes[event.argument];
      fold_burst(iteration, event);
      return true;
    case BurstMoment::kRead:
      if (iteration.writes[event.argument & 0xffffU] < event.argument >> 16U) {
        throw ScheduleViolation({.chip = binding_->chip,
                                 .cycle = iteration.start + event.cycle,
                                 .instruction = event.instruction,
                                 .reason = "reads rows of an iteration tensor before they were written in iteration " +
                                           std::to_string(iteration.number)});
      }
      fold_burst(iteration, event);
      return true;
    case BurstMoment::kSendOpens:
    case BurstMoment::kSendCloses:
    case BurstMoment::kReceiveOpens:
    case BurstMoment::kReceiveCloses:
      return execute_wire(iteration, event);
  }
  return true;
}

}  // namespace lpu::node
