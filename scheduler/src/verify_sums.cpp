#include "verify_sums.hpp"

#include <algorithm>

namespace lpu::scheduler::proof {
namespace {

using node::Opcode;

/// A sum under way in an accumulator.
struct Sum {
  std::int64_t first = 0;
  std::int64_t last = 0;
  std::int32_t first_instruction = -1;
  std::int32_t last_instruction = -1;
  std::vector<std::pair<ValueName, std::int32_t>> activations{};
  std::vector<std::uint16_t> tile_tensors{};
};

class SumProof {
 public:
  SumProof(const TextFacts& facts, const LaneMap& map, std::uint32_t plane, LaneTable& table, Findings& findings)
      : facts_(facts), map_(map), plane_(plane), table_(table), findings_(findings) {}

  void run(std::vector<AccumulatorEvent>& events) {
    std::stable_sort(events.begin(), events.end(), [](const AccumulatorEvent& a, const AccumulatorEvent& b) {
      return std::tie(a.accumulator, a.cycle, a.step) < std::tie(b.accumulator, b.cycle, b.step);
    });
    Sum sum;
    for (std::size_t i = 0; i < events.size(); ++i) {
      const AccumulatorEvent& event = events[i];
      if (i > 0 && events[i - 1].accumulator != event.accumulator) {
        close(sum, events[i - 1].accumulator);
      }
      if (event.step == Step::kDrain) {
        drain(sum, event, map_.accumulator(plane_, event.accumulator));
      } else {
        compute(sum, event);
      }
    }
    if (!events.empty()) {
      close(sum, events.back().accumulator);
    }
  }

 private:
  void compute(Sum& sum, const AccumulatorEvent& event) {
    if (event.step == Step::kOverwrite) {
      if (!sum.activations.empty()) {
        findings_.add(event.cycle,
                      event.instruction,
                      "overwrites " + name(event.accumulator) + ", whose sum (" +
                          name_of(facts_, sum.last_instruction) + ", cycle " + std::to_string(sum.last) +
                          ") is not drained yet");
      }
      sum = Sum{.first = event.cycle, .first_instruction = event.instruction};
    } else if (sum.activations.empty()) {
      findings_.add(event.cycle, event.instruction, "adds to " + name(event.accumulator) + ", which holds no sum");
      sum = Sum{.first = event.cycle, .first_instruction = event.instruction};
    }
    sum.last = event.cycle;
    sum.last_instruction = event.instruction;
    sum.activations.emplace_back(event.activation, event.instruction);
    if (sum.tile_tensors.empty() || sum.tile_tensors.back() != event.tile_tensor) {
      sum.tile_tensors.push_back(event.tile_tensor);
    }
  }

  void drain(Sum& sum, const AccumulatorEvent& event, std::uint32_t accumulator_lane) {
    const Instruction& instruction = at(event.instruction);
    const std::string which = name(event.accumulator);
    if (sum.activations.empty()) {
      findings_.add(event.cycle, event.instruction, "drains " + which + ", which holds no sum");
      return;
    }
    const auto found = static_cast<std::int64_t>(sum.activations.size());
    if (found != instruction.argument) {
      findings_.add(event.cycle,
                    event.instruction,
                    "drains " + which + " after " + std::to_string(found) + " of " +
                        std::to_string(instruction.argument) + " computes" +
                        (found < instruction.argument ? ": too early" : ""));
    }
    const std::int64_t ready = sum.last + node::latency(Opcode::kCompute, facts_.chip).count();
    if (event.cycle < ready) {
      findings_.add(event.cycle,
                    event.instruction,
                    "drains " + which + " " + std::to_string(ready - event.cycle) +
                        " cycles early: " + name_of(facts_, sum.last_instruction) + " of cycle " +
                        std::to_string(sum.last) + " can be read from cycle " + std::to_string(ready) + " on");
    }
    prove_inputs(sum, event, which);
    table_.add({.lane = accumulator_lane,
                .first = sum.first,
                .count = static_cast<std::int32_t>(std::max(event.cycle, sum.last) - sum.first + 1),
                .instruction = sum.first_instruction});
    sum = Sum{};
  }

  void prove_inputs(Sum& sum, const AccumulatorEvent& event, const std::string& which) {
    std::stable_sort(
        sum.activations.begin(), sum.activations.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const auto twice = std::adjacent_find(sum.activations.begin(),
                                          sum.activations.end(),
                                          [](const auto& a, const auto& b) { return a.first == b.first; });
    if (twice != sum.activations.end()) {
      findings_.add(event.cycle,
                    event.instruction,
                    "drains " + which + ", into which " + value(twice->first) + " was added twice, by " +
                        name_of(facts_, twice->second) + " and " + name_of(facts_, std::next(twice)->second));
    }
    const std::uint16_t made = at(event.instruction).operands[0].tensor;
    const auto& sources = facts_.text.tensors[made].sources;
    const auto check = [&](std::uint16_t tensor) {
      if (std::find(sources.begin(), sources.end(), tensor) == sources.end()) {
        findings_.add(event.cycle,
                      event.instruction,
                      "makes '" + facts_.text.tensors[made].name + "' from '" + facts_.text.tensors[tensor].name +
                          "', which is none of its sources");
        return false;
      }
      return true;
    };
    std::uint16_t last = 0;
    for (std::size_t i = 0; i < sum.activations.size(); ++i) {
      const std::uint16_t tensor = std::get<0>(sum.activations[i].first);
      if ((i == 0 || tensor != last) && !check(tensor)) {
        return;
      }
      last = tensor;
    }
    for (const std::uint16_t tensor : sum.tile_tensors) {
      if (!check(tensor)) {
        return;
      }
    }
  }

  void close(Sum& sum, std::int32_t accumulator) {
    if (!sum.activations.empty()) {
      findings_.add(sum.last, sum.last_instruction, "adds to " + name(accumulator) + ", which is never drained");
    }
    sum = Sum{};
  }

  [[nodiscard]] const Instruction& at(std::int32_t number) const {
    return facts_.text.instructions[static_cast<std::size_t>(number)];
  }
  [[nodiscard]] std::string name(std::int32_t accumulator) const {
    return "accumulator " + std::to_string(accumulator) + " of " + map_.plane_name(plane_);
  }
  [[nodiscard]] std::string value(const ValueName& name) const {
    return value_of(facts_, std::get<0>(name), std::get<2>(name), std::get<1>(name));
  }

  const TextFacts& facts_;
  const LaneMap& map_;
  std::uint32_t plane_;
  LaneTable& table_;
  Findings& findings_;
};

}  // namespace

void prove_sums(const TextFacts& facts,
                const LaneMap& map,
                std::uint32_t plane,
                std::vector<AccumulatorEvent> events,
                LaneTable& table,
                Findings& findings) {
  SumProof(facts, map, plane, table, findings).run(events);
}

}  // namespace lpu::scheduler::proof
