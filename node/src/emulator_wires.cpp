// What a chip does with its links: the other half of emulator.cpp.

#include <algorithm>
#include <limits>

#include "lpu/node/digest.hpp"
#include "lpu/node/emulator.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/identity.hpp"

namespace lpu::node {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
/// A message stays below the size from which a transport between hosts would have to split it (4,000 bytes).
constexpr std::size_t kLongestMessage = 480;

}  // namespace

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

void Emulator::send_all_before(std::int64_t cycle) {
  for (std::size_t link = 0; link < links_.size(); ++link) {
    send_before(static_cast<std::int32_t>(link), cycle);
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
    const auto& transfers = table_->program().transfers;
    const auto known = std::find_if(transfers.begin(), transfers.end(), [&](const Transfer& transfer) {
      return digest_text(transfer.name) == header.transfer;
    });
    fail(cursor,
         link,
         "belongs to " + (known == transfers.end() ? "another transfer" : "transfer '" + known->name + "'"));
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
                                     ", iteration " + std::to_string(cursor.iteration->number) + " (its cycle " +
                                     std::to_string(cursor.next->cycle) + "), " + reason});
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
