#include "lpu/node/emulator.hpp"

#include <algorithm>
#include <limits>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/identity.hpp"

namespace lpu::node {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
/// A message stays below the size from which a transport between hosts would have to split it (4,000 bytes).
constexpr std::size_t kLongestMessage = 480;
/// Iterations after which a chip lets others run, so that one without anything to wait for does not fill every mailbox.
constexpr std::int64_t kTurn = 16;
constexpr std::int64_t kKeysPerCycle = 8;  ///< more than there are units
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

void Emulator::open_iteration() {
  if (idle_.empty()) {
    pool_.push_back(std::make_unique<Iteration>());
    pool_.back()->bases = origins_;  // static tensors stay as they are
    pool_.back()->registers.assign(table_->program().registers.size(), 0);
    pool_.back()->row_shift.assign(table_->program().registers.size(), 0);
    idle_.push_back(pool_.back().get());
  }
  Iteration& iteration = *idle_.back();
  idle_.pop_back();
  iteration.number = next_iteration_++;
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
  heap_.push_back(&iteration);
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
    if (next_iteration_ < iterations_ && (heap_.empty() || next_opening_ < heap_.front()->key)) {
      open_iteration();
    }
    if (heap_.empty()) {
      now_ = kNever;
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
  std::int64_t limit = next_opening_;
  for (std::size_t child = 1; child <= 2 && child < heap_.size(); ++child) {
    // Of equal keys the lower iteration goes first.
    limit = std::min(limit, heap_[child]->key + (heap_[child]->number < iteration.number ? -1 : 0));
  }
  do {
    if (!execute(iteration, table_->events()[iteration.next])) {
      now_ = iteration.start + table_->events()[iteration.next].cycle;
      for (std::size_t link = 0; link < links_.size(); ++link) {
        send_before(static_cast<std::int32_t>(link), now_);
      }
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

inline void Emulator::fold_burst(const Iteration& iteration, const BurstEvent& event) {
  const std::uint64_t* bases = iteration.bases.data();
  const std::uint64_t word = event.word + to_word(iteration.start + event.cycle) * kCycleFactor +
                             bases[event.bases[0]] * 3 + bases[event.bases[1]] * 5 + bases[event.bases[2]] * 7 +
                             bases[event.bases[3]] * 9 + iteration.registers[event.base_register];
  fold_ = mix(fold_ ^ word);
  ++measures_.bursts;
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

bool Emulator::execute_wire(Iteration& iteration, const BurstEvent& event) {
  const std::int64_t cycle = iteration.start + event.cycle;
  if (event.moment == BurstMoment::kSendOpens || event.moment == BurstMoment::kReceiveOpens) {
    open_wire(iteration, event);
    return true;
  }
  if (event.moment == BurstMoment::kReceiveCloses) {
    return close_receive(iteration, event);
  }
  for (const WirePart& part : table_->parts(table_->wire_bursts()[event.argument])) {
    send_before(part.link, cycle + 1);
  }
  return true;
}

void Emulator::open_wire(Iteration& iteration, const BurstEvent& event) {
  const WireBurst& burst = table_->wire_bursts()[event.argument];
  const bool is_send = event.moment == BurstMoment::kSendOpens;
  if (is_send) {
    fold_burst(iteration, event);
    measures_.transfers += burst.parts;
  }
  for (const WirePart& part : table_->parts(burst)) {
    const auto vectors = table_->vectors(part);
    Link& link = links_[static_cast<std::size_t>(part.link)];
    (is_send ? link.sending : link.receiving)
        .push_back({.iteration = &iteration,
                    .burst = &burst,
                    .next = vectors.data(),
                    .end = vectors.data() + vectors.size(),
                    .fold = is_send ? fold_ : 0});
  }
}

inline std::uint64_t Emulator::value_of(const Cursor& cursor, const WireVector& vector) const {
  const std::uint16_t displaced_by = cursor.burst->displaced_by;
  if (displaced_by == 0) {
    return mix(cursor.iteration->bases[vector.base] ^ vector.row_mix);
  }
  const ValueBase& base = table_->bases()[vector.base];
  const std::int32_t user = plan_->group(cursor.iteration->number) * plan_->micro_batch + base.user_in_batch;
  const Tensor& tensor = table_->program().tensors[base.tensor];
  const std::int32_t row = vector.row + cursor.iteration->row_shift[displaced_by];
  const auto slots = static_cast<std::int32_t>(binding_->slot_owner.size());
  if (row < 0 || row >= tensor.rows ||
      (tensor.owner == TensorOwner::kGathered && row / tensor.rows_per_slot >= slots)) {
    throw ScheduleViolation({.chip = binding_->chip,
                             .cycle = cursor.cycle(),
                             .instruction = cursor.burst->instruction,
                             .reason = "names row " + std::to_string(row) + " of '" + tensor.name + "', which has " +
                                       std::to_string(tensor.rows)});
  }
  return value_id(tensor, *binding_, *plan_, cursor.iteration->number, row, user);
}

/// Sends what is pushed on the link before `cycle`, in the order of the pushes.
void Emulator::send_before(std::int32_t link, std::int64_t cycle) {
  auto& cursors = links_[static_cast<std::size_t>(link)].sending;
  while (!cursors.empty()) {
    std::size_t first = 0;
    std::int64_t other = cycle;
    for (std::size_t i = 1; i < cursors.size(); ++i) {
      if (cursors[i].cycle() < cursors[first].cycle()) {
        other = std::min(other, cursors[first].cycle());
        first = i;
      } else {
        other = std::min(other, cursors[i].cycle());
      }
    }
    if (cursors[first].cycle() >= cycle) {
      return;
    }
    send_run(link, cursors[first], std::max(other, cursors[first].cycle() + 1));
    if (cursors[first].next == cursors[first].end) {
      cursors.erase(cursors.begin() + static_cast<std::ptrdiff_t>(first));
    }
  }
}

void Emulator::send_run(std::int32_t link, Cursor& cursor, std::int64_t before) {
  Link& end = links_[static_cast<std::size_t>(link)];
  MessageHeader header{.schedule_digest = digest_,
                       .transfer = cursor.burst->transfer,
                       .fold = cursor.fold,
                       .iteration = cursor.iteration->number};
  std::int64_t previous = 0;
  outgoing_.clear();
  const auto deliver = [&] {
    header.length = static_cast<std::int32_t>(outgoing_.size());
    port_->send(link, header, outgoing_);
    measures_.vectors += header.length;
    measures_.link_busy[static_cast<std::size_t>(link)] += header.length * serialisation_;
    outgoing_.clear();
  };
  for (; cursor.next != cursor.end && cursor.cycle() < before; ++cursor.next) {
    const std::int64_t start = std::max(cursor.cycle(), end.free_at);
    end.free_at = start + serialisation_;
    const auto step = static_cast<std::int32_t>(start - previous);
    if (outgoing_.size() == kLongestMessage || (outgoing_.size() > 1 && step != header.step)) {
      deliver();
    }
    if (outgoing_.empty()) {
      header.departure = start;
      header.step = 0;
    } else {
      header.step = step;
    }
    outgoing_.push_back(value_of(cursor, *cursor.next));
    previous = start;
  }
  deliver();
}

/// Takes what the receives of the link take up to and including `cycle`.
/// @return false when a vector has not come
bool Emulator::receive_through(std::int32_t link, std::int64_t cycle) {
  auto& cursors = links_[static_cast<std::size_t>(link)].receiving;
  for (;;) {
    Cursor* first = nullptr;
    std::int64_t other = kNever;
    for (Cursor& cursor : cursors) {
      if (cursor.next == cursor.end) {
        continue;
      }
      if (first == nullptr || cursor.cycle() < first->cycle()) {
        other = first == nullptr ? other : std::min(other, first->cycle());
        first = &cursor;
      } else {
        other = std::min(other, cursor.cycle());
      }
    }
    if (first == nullptr || first->cycle() > cycle) {
      return true;
    }
    if (!receive_run(link, *first, std::min(cycle, std::max(other - 1, first->cycle())))) {
      return false;
    }
  }
}

bool Emulator::receive_run(std::int32_t link, Cursor& cursor, std::int64_t through) {
  Link& end = links_[static_cast<std::size_t>(link)];
  while (cursor.next != cursor.end && cursor.cycle() <= through) {
    const MessageView message = port_->front(link);
    if (message.header == nullptr) {
      waiting_link_ = link;
      waiting_instruction_ = cursor.burst->instruction;
      waiting_cycle_ = cursor.cycle();
      waiting_iteration_ = cursor.iteration->number;
      return false;
    }
    const MessageHeader& header = *message.header;
    check_header(cursor, link, header);
    if (header.fold != cursor.last_fold) {
      cursor.fold = node::fold(cursor.fold, header.fold);
      cursor.last_fold = header.fold;
    }
    std::int64_t arrival =
        header.departure + std::int64_t{end.taken} * header.step + link_latency_ + cursor.burst->argument;
    for (; end.taken < header.length && cursor.next != cursor.end && cursor.cycle() <= through;
         ++end.taken, ++cursor.next) {
      if (arrival != cursor.cycle()) {
        fail(cursor,
             link,
             "arrives at cycle " + std::to_string(arrival - cursor.burst->argument) + "; the program expects cycle " +
                 std::to_string(cursor.cycle() - cursor.burst->argument));
      }
      if (message.values[end.taken] != value_of(cursor, *cursor.next)) {
        fail(cursor,
             link,
             "is another value than row " + std::to_string(cursor.next->row) + " of '" +
                 table_->program().tensors[table_->bases()[cursor.next->base].tensor].name + "'");
      }
      arrival += header.step;
      ++measures_.arrivals_checked;
    }
    if (end.taken == header.length) {
      port_->pop(link);
      end.taken = 0;
    }
  }
  return true;
}

void Emulator::check_header(const Cursor& cursor, std::int32_t link, const MessageHeader& header) const {
  if (header.schedule_digest != digest_) {
    fail(cursor, link, "comes from a chip with another program, schedule digest " + to_hex(header.schedule_digest));
  }
  if (header.transfer != cursor.burst->transfer) {
    fail(cursor, link, "belongs to another transfer");
  }
  if (header.iteration != cursor.iteration->number) {
    fail(cursor, link, "belongs to iteration " + std::to_string(header.iteration));
  }
  if (header.length < 1) {
    fail(cursor, link, "lies in a message of " + std::to_string(header.length) + " vectors");
  }
}

bool Emulator::close_receive(const Iteration& iteration, const BurstEvent& event) {
  const WireBurst& burst = table_->wire_bursts()[event.argument];
  const std::int64_t cycle = iteration.start + event.cycle;
  for (const WirePart& part : table_->parts(burst)) {
    if (!receive_through(part.link, cycle)) {
      return false;
    }
  }
  for (const WirePart& part : table_->parts(burst)) {
    auto& cursors = links_[static_cast<std::size_t>(part.link)].receiving;
    const auto own = std::find_if(cursors.begin(), cursors.end(), [&](const Cursor& cursor) {
      return cursor.iteration == &iteration && cursor.burst == &burst;
    });
    fold_ = node::fold(fold_, own->fold);
    cursors.erase(own);
  }
  fold_burst(iteration, event);
  return true;
}

void Emulator::fail(const Cursor& cursor, std::int32_t link, const std::string& reason) const {
  const auto number =
      cursor.next - table_
                        ->vectors(*std::find_if(table_->parts(*cursor.burst).begin(),
                                                table_->parts(*cursor.burst).end(),
                                                [&](const WirePart& part) { return part.link == link; }))
                        .data();
  const Instruction& instruction = table_->program().instructions[static_cast<std::size_t>(cursor.burst->instruction)];
  throw ScheduleViolation({.chip = binding_->chip,
                           .cycle = cursor.cycle(),
                           .instruction = cursor.burst->instruction,
                           .reason = "vector " + std::to_string(number) + " of transfer '" +
                                     table_->program().transfers[instruction.transfer].name + "' on link " +
                                     std::to_string(link) + " from chip " +
                                     std::to_string(binding_->peers[static_cast<std::size_t>(link)].chip) +
                                     ", iteration " + std::to_string(cursor.iteration->number) + ", " + reason});
}

void Emulator::check_nothing_left() {
  for (std::size_t link = 0; link < links_.size() && link < binding_->peers.size(); ++link) {
    if (binding_->peers[link].chip < 0) {
      continue;
    }
    const MessageView message = port_->front(static_cast<std::int32_t>(link));
    if (message.header != nullptr) {
      const std::int64_t arrival =
          message.header->departure + std::int64_t{links_[link].taken} * message.header->step + link_latency_;
      throw ScheduleViolation({.chip = binding_->chip,
                               .cycle = arrival,
                               .instruction = -1,
                               .reason = std::to_string(message.header->length - links_[link].taken) +
                                         " vectors that arrived on link " + std::to_string(link) + " from chip " +
                                         std::to_string(binding_->peers[link].chip) + " were never received"});
    }
  }
}

std::int64_t Emulator::settled() const {
  std::int64_t cycle = now_;
  for (const Link& link : links_) {
    for (const Cursor& cursor : link.receiving) {
      cycle = cursor.next == cursor.end ? cycle : std::min(cycle, cursor.cycle());
    }
  }
  return cycle;
}

Wait Emulator::wait() const {
  LPU_CHECK(waiting_link_ >= 0, "the chip does not wait");
  const Instruction& instruction = table_->program().instructions[static_cast<std::size_t>(waiting_instruction_)];
  return {.chip = binding_->chip,
          .cycle = waiting_cycle_,
          .instruction = waiting_instruction_,
          .link = waiting_link_,
          .from = binding_->peers[static_cast<std::size_t>(waiting_link_)].chip,
          .iteration = waiting_iteration_,
          .transfer = table_->program().transfers[instruction.transfer].name};
}

}  // namespace lpu::node
