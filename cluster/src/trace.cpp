#include "trace.hpp"

#include <algorithm>
#include <map>
#include <string_view>
#include <tuple>
#include <utility>

#include <boost/json.hpp>

#include "lpu/interconnect/topology.hpp"
#include "lpu/node/quantity_text.hpp"

namespace lpu::cluster {
namespace {

std::string_view name_of(node::Unit unit) {
  switch (unit) {
    case node::Unit::kMem:
      return "MEM";
    case node::Unit::kMxm:
      return "MXM";
    case node::Unit::kVxm:
      return "VXM";
    case node::Unit::kSxm:
      return "SXM";
    case node::Unit::kC2c:
      return "C2C";
  }
  return "?";
}

bool is_earlier(const TracedBurst& a, const TracedBurst& b) {
  return std::tuple(a.start, a.chip, a.unit, a.instruction) < std::tuple(b.start, b.chip, b.unit, b.instruction);
}

std::string quoted(std::string_view text) {
  return boost::json::serialize(boost::json::string(text));
}

/// A viewer needs events of a thread that do not overlap: each burst goes to the first thread of its unit that is free.
class Threads {
 public:
  /// @return  the thread's number in its process
  std::int32_t place(const TracedBurst& burst) {
    std::vector<Thread>& threads = of_unit_[{burst.chip, burst.unit}];
    auto free = std::find_if(
        threads.begin(), threads.end(), [&](const Thread& thread) { return thread.free_at <= burst.start; });
    if (free == threads.end()) {
      threads.push_back({.number = ++last_number_});
      free = threads.end() - 1;
    }
    free->free_at = burst.start + burst.cycles;
    return free->number;
  }

  /// Calls visit(chip, unit, number of the thread, how many of the unit come before it) for each thread.
  template <typename Visit>
  void each(const Visit& visit) const {
    for (const auto& [unit, threads] : of_unit_) {
      for (std::size_t i = 0; i < threads.size(); ++i) {
        visit(unit.first, static_cast<node::Unit>(unit.second), threads[i].number, i);
      }
    }
  }

 private:
  struct Thread {
    std::int32_t number = 0;
    std::int64_t free_at = 0;
  };
  std::map<std::pair<std::int32_t, std::int32_t>, std::vector<Thread>> of_unit_;
  std::int32_t last_number_ = 0;
};

}  // namespace

void TraceRecorder::add(const node::ExecutedBurst& burst) {
  const node::ChipBinding& binding = program_->bindings[static_cast<std::size_t>(burst.chip)];
  const node::ChipProgram& text = program_->texts[static_cast<std::size_t>(binding.text)];
  const node::Instruction& instruction = text.instructions[static_cast<std::size_t>(burst.instruction)];
  const std::int64_t start = burst.iteration_start + instruction.start;
  if (start < selection_.first_cycle || start > selection_.last_cycle) {
    return;
  }
  if (static_cast<std::int64_t>(trace_.bursts.size()) == kMostTraced) {
    ++trace_.left_out;
    return;
  }
  std::int64_t cycles = 1;
  for (std::size_t loop = 0; loop < 3; ++loop) {
    cycles += std::int64_t{instruction.count[loop] - 1} * instruction.period[loop];
  }
  trace_.bursts.push_back({.chip = burst.chip,
                           .unit = static_cast<std::int32_t>(node::info(instruction.opcode).unit),
                           .name = name_of(text, instruction),
                           .instruction = burst.instruction,
                           .iteration = burst.iteration,
                           .start = start,
                           .cycles = cycles});
}

std::int32_t TraceRecorder::name_of(const node::ChipProgram& text, const node::Instruction& instruction) {
  std::string name(node::info(instruction.opcode).name);
  if (node::info(instruction.opcode).unit == node::Unit::kC2c) {
    name += " " + text.transfers[instruction.transfer].name;
  }
  const auto [number, is_new] = numbers_.try_emplace(name, static_cast<std::int32_t>(trace_.names.size()));
  if (is_new) {
    trace_.names.push_back(std::move(name));
  }
  return number->second;
}

void observe(TraceRecorder& recorder, const TraceSelection& selection, RunOptions& options) {
  if (selection.is_wanted) {
    options.observer = [&recorder](const node::ExecutedBurst& burst) { recorder.add(burst); };
    options.observed_first = selection.first_chip;
    options.observed_last = selection.last_chip;
  }
}

Trace merge(std::vector<Trace> traces) {
  Trace out;
  std::map<std::string, std::int32_t> numbers;
  for (Trace& trace : traces) {
    std::vector<std::int32_t> renamed;
    for (std::string& name : trace.names) {
      const auto [number, is_new] = numbers.try_emplace(name, static_cast<std::int32_t>(out.names.size()));
      if (is_new) {
        out.names.push_back(std::move(name));
      }
      renamed.push_back(number->second);
    }
    for (TracedBurst& burst : trace.bursts) {
      burst.name = renamed[static_cast<std::size_t>(burst.name)];
    }
    out.bursts.insert(out.bursts.end(), trace.bursts.begin(), trace.bursts.end());
    out.left_out += trace.left_out;
    trace = {};
  }
  std::sort(out.bursts.begin(), out.bursts.end(), is_earlier);
  if (static_cast<std::int64_t>(out.bursts.size()) > kMostTraced) {
    out.left_out += static_cast<std::int64_t>(out.bursts.size()) - kMostTraced;
    out.bursts.resize(static_cast<std::size_t>(kMostTraced));
  }
  return out;
}

std::string to_chrome_json(const Trace& trace, const scheduler::ClusterProgram& program) {
  const double us_per_cycle = 1e6 / static_cast<double>(program.chip.clock.count());
  constexpr int kDigits = 4;  // a cycle is about a nanosecond
  const auto time = [&](std::int64_t cycles) {
    return node::fixed(static_cast<double>(cycles) * us_per_cycle, kDigits);
  };
  std::string out = "{\"displayTimeUnit\": \"ns\", \"otherData\": {\"model\": " + quoted(program.model) +
                    ", \"clock_hz\": " + std::to_string(program.chip.clock.count()) +
                    ", \"bursts\": " + std::to_string(trace.bursts.size()) +
                    ", \"bursts_left_out\": " + std::to_string(trace.left_out) + "},\n\"traceEvents\": [";
  std::string_view separator = "\n";
  const auto add = [&](const std::string& event) {
    out += separator;
    out += event;
    separator = ",\n";
  };
  Threads threads;
  for (const TracedBurst& burst : trace.bursts) {
    add("{\"ph\": \"X\", \"pid\": " + std::to_string(burst.chip / interconnect::kNodeChips) + ", \"tid\": " +
        std::to_string(threads.place(burst)) + ", \"ts\": " + time(burst.start) + ", \"dur\": " + time(burst.cycles) +
        ", \"name\": " + quoted(trace.names[static_cast<std::size_t>(burst.name)]) + ", \"args\": {\"chip\": " +
        std::to_string(burst.chip) + ", \"instruction\": " + std::to_string(burst.instruction) +
        ", \"iteration\": " + std::to_string(burst.iteration) + ", \"cycle\": " + std::to_string(burst.start) +
        ", \"cycles\": " + std::to_string(burst.cycles) + "}}");
  }
  std::int32_t named = -1;
  threads.each([&](std::int32_t chip, node::Unit unit, std::int32_t number, std::size_t before) {
    const std::int32_t node = chip / interconnect::kNodeChips;
    const std::string process = "{\"ph\": \"M\", \"pid\": " + std::to_string(node);
    if (node != named) {
      add(process + R"(, "name": "process_name", "args": {"name": "node )" + std::to_string(node) + "\"}}");
      named = node;
    }
    const std::string thread = "chip " + std::to_string(chip) + " " + std::string(name_of(unit)) +
                               (before == 0 ? "" : " " + std::to_string(before + 1));
    add(process + ", \"tid\": " + std::to_string(number) + R"(, "name": "thread_name", "args": {"name": ")" + thread +
        "\"}}");
    add(process + ", \"tid\": " + std::to_string(number) + R"(, "name": "thread_sort_index", "args": {"sort_index": )" +
        std::to_string((std::int64_t{chip} * 8 + static_cast<std::int64_t>(unit)) * 1000 +
                       static_cast<std::int64_t>(before)) +
        "}}");
  });
  return out + "\n]}\n";
}

}  // namespace lpu::cluster
