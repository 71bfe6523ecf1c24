#include "verify_links.hpp"

#include <algorithm>
#include <map>

#include "verify_burst.hpp"

namespace lpu::scheduler::proof {
namespace {

using node::Opcode;

/// Vectors in a queue from `begin` to before `end`.
struct Stay {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::size_t vector = 0;
};

/// Deepest filling of a queue when iterations start every `interval` cycles (fewer iterations never fill it more), and
/// the vector that brings it about.
std::pair<std::int64_t, std::size_t> deepest(const std::vector<Stay>& stays, std::int64_t interval) {
  struct Event {
    std::int64_t cycle = 0;
    std::int32_t change = 0;
    std::size_t vector = 0;
  };
  std::vector<Event> events;
  std::int64_t depth = 0;
  for (const Stay& stay : stays) {
    const std::int64_t length = stay.end - stay.begin;
    if (length <= 0) {
      continue;
    }
    depth += length / interval;
    const std::int64_t rest = length % interval;
    const std::int64_t begin = floor_mod(stay.begin, interval);
    if (rest == 0) {
      events.push_back({begin, 0, stay.vector});
      continue;
    }
    depth += begin + rest > interval ? 1 : 0;
    events.push_back({begin, 1, stay.vector});
    events.push_back({(begin + rest) % interval, -1, stay.vector});
  }
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return std::tie(a.cycle, a.change) < std::tie(b.cycle, b.change);
  });
  // Who leaves at the wrap leaves before cycle 0's arrivals: those events (-1 at 0) come first and undo their share.
  for (const Event& event : events) {
    depth += event.cycle == 0 && event.change < 0 ? 1 : 0;
  }
  std::pair<std::int64_t, std::size_t> worst{0, 0};
  for (const Event& event : events) {
    depth += event.change;
    if (event.change >= 0 && depth > worst.first) {
      worst = {depth, event.vector};
    }
  }
  return worst;
}

class LinkProof {
 public:
  LinkProof(const TextFacts& facts, const LaneMap& map, LaneTable& table, Findings& findings)
      : facts_(facts),
        map_(map),
        table_(table),
        findings_(findings),
        links_(static_cast<std::size_t>(facts.chip.links())) {}

  std::vector<LinkTraffic> run() {
    for (std::size_t i = 0; i < facts_.text.instructions.size(); ++i) {
      if (node::info(facts_.text.instructions[i].opcode).unit == node::Unit::kC2c) {
        collect(static_cast<std::int32_t>(i));
      }
    }
    for (std::size_t link = 0; link < links_.size(); ++link) {
      const auto number = static_cast<std::int32_t>(link);
      prove_sends(number, links_[link].sends);
      prove_receives(number, links_[link].receives);
      prove_lengths(number, links_[link].sends, "sends");
      prove_lengths(number, links_[link].receives, "receives");
    }
    return std::move(links_);
  }

 private:
  void collect(std::int32_t number) {
    const Instruction& instruction = facts_.text.instructions[static_cast<std::size_t>(number)];
    const StreamOperand& operand = only_operand(instruction);
    const bool is_send = instruction.opcode == Opcode::kSend;
    const bool is_moved = facts_.value_class(instruction, operand) != 0;
    for_each_run(make_burst(instruction, &operand), [&](const Run& run) {
      auto& list = is_send ? links_[static_cast<std::size_t>(run.index)].sends
                           : links_[static_cast<std::size_t>(run.index)].receives;
      for (std::int32_t i = 0; i < run.count; ++i) {
        const std::int64_t cycle = run.cycle + i * run.period;
        list.push_back({.cycle = cycle,
                        .link = is_send ? cycle : cycle - instruction.argument,
                        .instruction = number,
                        .transfer = instruction.transfer,
                        .tensor = operand.tensor,
                        .base_register = is_moved ? instruction.base_register : std::uint16_t{0},
                        .row = run.row + i * run.row_stride});
      }
    });
  }

  void prove_sends(std::int32_t link, std::vector<LinkVector>& sends) {
    std::stable_sort(sends.begin(), sends.end(), [](const auto& a, const auto& b) { return a.cycle < b.cycle; });
    const std::int64_t service = facts_.chip.link_serialisation.count();
    std::vector<Stay> stays;
    for (std::size_t i = 0; i < sends.size(); ++i) {
      sends[i].link = i == 0 ? sends[i].cycle : std::max(sends[i].cycle, sends[i - 1].link + service);
      stays.push_back({sends[i].cycle, sends[i].link, i});
      if (service > 0) {
        table_.add({.lane = map_.link(link),
                    .cells = 1U << kServiceCell,
                    .first = sends[i].link,
                    .count = static_cast<std::int32_t>(service),
                    .instruction = sends[i].instruction});
      }
    }
    prove_depth(link, sends, stays, "at its near end");
  }

  void prove_receives(std::int32_t link, std::vector<LinkVector>& receives) {
    std::stable_sort(receives.begin(), receives.end(), [](const auto& a, const auto& b) { return a.cycle < b.cycle; });
    std::vector<Stay> stays;
    for (std::size_t i = 0; i < receives.size(); ++i) {
      stays.push_back({receives[i].link, receives[i].cycle, i});
    }
    prove_depth(link, receives, stays, "at its far end");
    prove_receive_order(link, receives);
  }

  void prove_depth(std::int32_t link,
                   const std::vector<LinkVector>& vectors,
                   const std::vector<Stay>& stays,
                   const std::string& end) {
    const auto [depth, which] = deepest(stays, facts_.interval);
    if (depth > facts_.chip.link_queue_vectors) {
      findings_.add(vectors[which].cycle,
                    vectors[which].instruction,
                    "queue of link " + std::to_string(link) + " " + end + " would hold " + std::to_string(depth) +
                        " vectors, overlapping iterations included; it holds " +
                        std::to_string(facts_.chip.link_queue_vectors));
    }
  }

  /// Around the circle of one interval, vectors are taken in the order in which they arrive: then they are over all
  /// iterations, whichever of them are in flight.
  void prove_receive_order(std::int32_t link, const std::vector<LinkVector>& receives) {
    struct Arrival {
      std::int64_t folded = 0;
      std::int64_t wait = 0;
      std::size_t vector = 0;
    };
    std::vector<Arrival> arrivals;
    for (std::size_t i = 0; i < receives.size(); ++i) {
      arrivals.push_back({floor_mod(receives[i].link, facts_.interval), receives[i].cycle - receives[i].link, i});
    }
    std::stable_sort(
        arrivals.begin(), arrivals.end(), [](const auto& a, const auto& b) { return a.folded < b.folded; });
    for (std::size_t i = 0; i + 1 <= arrivals.size() && arrivals.size() > 1; ++i) {
      const Arrival& first = arrivals[i];
      const Arrival& second = arrivals[(i + 1) % arrivals.size()];
      const std::int64_t lap = i + 1 == arrivals.size() ? facts_.interval : 0;
      if (first.folded + first.wait >= second.folded + lap + second.wait) {
        const LinkVector& late = receives[first.vector];
        const LinkVector& early = receives[second.vector];
        findings_.add(late.cycle,
                      late.instruction,
                      "link " + std::to_string(link) + " keeps order: takes a vector that arrived in cycle " +
                          std::to_string(late.link) + " after " + name_of(facts_, early.instruction) +
                          " has taken one that arrived later (cycle " + std::to_string(early.link) +
                          ", modulo the interval)");
        return;
      }
    }
  }

  void prove_lengths(std::int32_t link, const std::vector<LinkVector>& vectors, const std::string& verb) {
    std::map<std::uint16_t, std::pair<std::int64_t, const LinkVector*>> counts;
    for (const LinkVector& vector : vectors) {
      auto& [count, last] = counts[vector.transfer];
      ++count;
      last = &vector;
    }
    for (const auto& [transfer, counted] : counts) {
      const node::Transfer& stated = facts_.text.transfers[transfer];
      if (counted.first != stated.vectors) {
        findings_.add(counted.second->cycle,
                      counted.second->instruction,
                      verb + " " + std::to_string(counted.first) + " vectors of transfer '" + stated.name +
                          "' on link " + std::to_string(link) + "; its length is " + std::to_string(stated.vectors));
      }
    }
  }

  const TextFacts& facts_;
  const LaneMap& map_;
  LaneTable& table_;
  Findings& findings_;
  std::vector<LinkTraffic> links_;
};

}  // namespace

std::vector<LinkTraffic> prove_link_ends(const TextFacts& facts,
                                         const LaneMap& map,
                                         LaneTable& table,
                                         Findings& findings) {
  return LinkProof(facts, map, table, findings).run();
}

}  // namespace lpu::scheduler::proof
