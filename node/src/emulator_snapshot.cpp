// How a chip is stopped between two cycles, and goes on from there: the third part of emulator.cpp.

#include <algorithm>
#include <limits>

#include "lpu/node/chip_snapshot.hpp"
#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

/// What a snapshot says must be possible for the program: it may come from a file.
void require(bool holds, std::int32_t chip, const char* what) {
  if (!holds) {
    throw InputError("saved state of chip " + std::to_string(chip) + ": found " + what +
                     " that the program does not have; expected a state of this program");
  }
}

}  // namespace

std::int64_t Emulator::reached() const {
  if (iterations_ == 0) {
    return 0;
  }
  const std::int64_t key = heap_.empty() ? next_opening_ : std::min(next_opening_, heap_.front()->key);
  return key == kNever ? kNever : key / kKeysPerCycle;
}

void Emulator::stop_at(std::int64_t cycle) {
  LPU_CHECK(reached() < cycle || reached() == kNever, "the chip has gone beyond the cycle");
  stop_key_ = cycle * kKeysPerCycle;
}

ChipSnapshot Emulator::snapshot() const {
  ChipSnapshot out{.fold = fold_,
                   .next_iteration = next_iteration_,
                   .flights = {},
                   .transits = {},
                   .free_at = {},
                   .taken = {},
                   .group_end = group_end_,
                   .previous_end = previous_end_,
                   .measures = measures_};
  for (const Iteration* iteration : heap_) {
    out.flights.push_back({.iteration = iteration->number, .next_event = iteration->next, .writes = iteration->writes});
  }
  std::sort(
      out.flights.begin(), out.flights.end(), [](const auto& a, const auto& b) { return a.iteration < b.iteration; });
  for (std::size_t at = 0; at < links_.size(); ++at) {
    const Link& link = links_[at];
    out.free_at.push_back(link.free_at);
    out.taken.push_back(link.taken);
    for (const bool is_send : {true, false}) {
      for (const Cursor& cursor : is_send ? link.sending : link.receiving) {
        const auto burst = static_cast<std::uint64_t>(cursor.burst - table_->wire_bursts().data());
        const WireVector* first = vectors_of(*cursor.burst, static_cast<std::int32_t>(at)).data();
        out.transits.push_back({.iteration = cursor.iteration->number,
                                .link = static_cast<std::int32_t>(at),
                                .is_send = is_send,
                                .burst = burst,
                                .vectors = static_cast<std::uint64_t>(cursor.next - first),
                                .fold = cursor.fold,
                                .last_fold = cursor.last_fold});
      }
    }
  }
  return out;
}

void Emulator::restore(const ChipSnapshot& from) {
  const auto demand = [this](bool holds, const char* what) { require(holds, binding_->chip, what); };
  demand(from.free_at.size() == links_.size() && from.taken.size() == links_.size() &&
             from.measures.link_busy.size() == links_.size(),
         "links");
  demand(from.group_end.size() == group_end_.size(), "micro-batches");
  demand(from.next_iteration >= 0 && from.next_iteration <= iterations_, "iterations");
  fold_ = from.fold;
  group_end_ = from.group_end;
  previous_end_ = from.previous_end;
  measures_ = from.measures;
  for (const ChipSnapshot::Flight& flight : from.flights) {
    demand(flight.iteration >= 0 && flight.iteration < from.next_iteration &&
               flight.next_event < table_->events().size() && flight.writes.size() == table_->counters(),
           "an iteration");
    Iteration& iteration = begin_iteration(flight.iteration);
    iteration.next = static_cast<std::size_t>(flight.next_event);
    iteration.key = key_of(iteration);
    iteration.writes = flight.writes;
    heap_.push_back(&iteration);
    sift_up();
  }
  for (std::size_t at = 0; at < links_.size(); ++at) {
    links_[at].free_at = from.free_at[at];
    links_[at].taken = from.taken[at];
  }
  for (const ChipSnapshot::Transit& transit : from.transits) {
    const auto flight = std::find_if(
        heap_.begin(), heap_.end(), [&](const Iteration* iteration) { return iteration->number == transit.iteration; });
    demand(flight != heap_.end() && transit.burst < table_->wire_bursts().size() && transit.link >= 0 &&
               static_cast<std::size_t>(transit.link) < links_.size(),
           "a transfer");
    const WireBurst& burst = table_->wire_bursts()[static_cast<std::size_t>(transit.burst)];
    const auto vectors = vectors_of(burst, transit.link);
    demand(!vectors.empty() && transit.vectors <= vectors.size(), "vectors");
    Link& link = links_[static_cast<std::size_t>(transit.link)];
    (transit.is_send ? link.sending : link.receiving)
        .push_back({.iteration = *flight,
                    .burst = &burst,
                    .next = vectors.data() + transit.vectors,
                    .end = vectors.data() + vectors.size(),
                    .fold = transit.fold,
                    .last_fold = transit.last_fold});
  }
  next_iteration_ = from.next_iteration;
  plan_next_opening();
}

/// Those of a burst on one link; none where it does not use the link.
std::span<const WireVector> Emulator::vectors_of(const WireBurst& burst, std::int32_t link) const {
  const auto parts = table_->parts(burst);
  const auto part = std::find_if(parts.begin(), parts.end(), [&](const WirePart& one) { return one.link == link; });
  return part == parts.end() ? std::span<const WireVector>() : table_->vectors(*part);
}

}  // namespace lpu::node
