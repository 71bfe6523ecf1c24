#include "verify_streams.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <limits>
#include <span>

#include "verify_stream_runs.hpp"
#include "verify_units.hpp"

namespace lpu::scheduler::proof {
namespace {

using node::Opcode;
using node::OperandKind;

/// Runs ordered by lane.
class ByLane {
 public:
  ByLane(const std::vector<StreamRun>& runs, std::uint32_t lanes) : begins_(lanes + 1, 0), runs_(runs.size()) {
    for (const StreamRun& run : runs) {
      ++begins_[run.lane + 1];
    }
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      begins_[lane + 1] += begins_[lane];
    }
    std::vector<std::size_t> next(begins_.begin(), begins_.end() - 1);
    for (const StreamRun& run : runs) {
      runs_[next[run.lane]++] = run;
    }
  }
  [[nodiscard]] std::span<const StreamRun> at(std::uint32_t lane) const {
    return {runs_.data() + begins_[lane], begins_[lane + 1] - begins_[lane]};
  }

 private:
  std::vector<std::size_t> begins_;
  std::vector<StreamRun> runs_;
};

/// Which output holds each diagonal of one stream. Two outputs may share a diagonal where their registers differ: the
/// second and later ones go to a side list.
class Diagonals {
 public:
  Diagonals(std::int64_t lowest, std::int64_t highest)
      : lowest_(lowest), owner_(static_cast<std::size_t>(std::max<std::int64_t>(highest - lowest + 1, 0)), kNone) {}

  void fill(std::span<const StreamRun> outputs) {
    outputs_ = outputs;
    for (std::size_t at = 0; at < outputs.size(); ++at) {
      const StreamRun& run = outputs[at];
      for (std::int32_t i = 0; i < run.count; ++i) {
        const std::int64_t diagonal = run.diagonal + i * run.period;
        auto& owner = owner_[static_cast<std::size_t>(diagonal - lowest_)];
        if (owner == kNone) {
          owner = static_cast<std::uint32_t>(at);
        } else {
          others_.emplace_back(diagonal, static_cast<std::uint32_t>(at));
        }
      }
    }
    std::sort(others_.begin(), others_.end());
  }

  void clear() {
    for (const StreamRun& run : outputs_) {
      for (std::int32_t i = 0; i < run.count; ++i) {
        owner_[static_cast<std::size_t>(run.diagonal + i * run.period - lowest_)] = kNone;
      }
    }
    others_.clear();
  }

  /// The output that holds all of these registers on a diagonal; null: none.
  [[nodiscard]] const StreamRun* find(std::int64_t diagonal, std::uint32_t registers) const {
    if (diagonal < lowest_ || diagonal - lowest_ >= static_cast<std::int64_t>(owner_.size())) {
      return nullptr;
    }
    const std::uint32_t owner = owner_[static_cast<std::size_t>(diagonal - lowest_)];
    if (owner == kNone) {
      return nullptr;
    }
    if ((outputs_[owner].registers & registers) == registers) {
      return &outputs_[owner];
    }
    for (auto at = std::lower_bound(others_.begin(), others_.end(), std::pair{diagonal, std::uint32_t{0}});
         at != others_.end() && at->first == diagonal;
         ++at) {
      if ((outputs_[at->second].registers & registers) == registers) {
        return &outputs_[at->second];
      }
    }
    return nullptr;
  }

 private:
  static constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();
  std::int64_t lowest_;
  std::vector<std::uint32_t> owner_;
  std::vector<std::pair<std::int64_t, std::uint32_t>> others_;
  std::span<const StreamRun> outputs_;
};

class ValueProof {
 public:
  ValueProof(const TextFacts& facts, const LaneMap& map, Findings& findings)
      : facts_(facts), map_(map), findings_(findings) {}

  void run() {
    std::vector<StreamRun> outputs;
    std::vector<StreamRun> inputs;
    for (std::size_t i = 0; i < facts_.text.instructions.size(); ++i) {
      for (const StreamOperand& operand : facts_.text.instructions[i].operands) {
        if (operand.kind == OperandKind::kIn || operand.kind == OperandKind::kOut) {
          auto& runs = operand.kind == OperandKind::kIn ? inputs : outputs;
          for_each_stream_run(
              facts_, map_, static_cast<std::int32_t>(i), operand, [&](const StreamRun& run) { runs.push_back(run); });
        }
      }
    }
    std::int64_t lowest = 0;
    std::int64_t highest = -1;
    for (const StreamRun& output : outputs) {
      lowest = std::min(lowest, output.diagonal);
      highest = std::max(highest, output.diagonal + (output.count - 1) * output.period);
    }
    const ByLane given(outputs, map_.lanes());
    const ByLane taken(inputs, map_.lanes());
    Diagonals diagonals(lowest, highest);
    for (std::uint32_t lane = map_.first_stream(); lane < map_.lanes() && !findings_.is_full(); ++lane) {
      if (taken.at(lane).empty()) {
        continue;
      }
      outputs_ = given.at(lane);
      diagonals.fill(outputs_);
      for (const StreamRun& input : taken.at(lane)) {
        prove_input(input, diagonals);
      }
      diagonals.clear();
    }
  }

 private:
  /// Walk the input along the outputs that feed it, as far as each goes in step with it.
  void prove_input(const StreamRun& input, const Diagonals& diagonals) {
    for (std::int32_t i = 0; i < input.count;) {
      const std::int64_t diagonal = input.diagonal + i * input.period;
      const StreamRun* output = diagonals.find(diagonal, input.registers);
      if (output == nullptr) {
        report_missing(input, i);
        return;
      }
      const std::int64_t nth = (diagonal - output->diagonal) / output->period;
      const bool is_value = output->tensor == input.tensor && output->value_class == input.value_class &&
                            output->row + nth * output->row_stride == input.row + i * input.row_stride;
      if (!is_value) {
        report_other(input, i, *output, nth);
        return;
      }
      if (!may_be_absent_here(input, *output)) {
        return;
      }
      const bool is_in_step = output->period == input.period && output->row_stride == input.row_stride;
      i += is_in_step ? static_cast<std::int32_t>(std::min<std::int64_t>(input.count - i, output->count - nth)) : 1;
    }
  }

  /// A read that its register may disable puts nothing on the stream: only a select copes with that, or a write that
  /// the register's kind lets fall away too.
  bool may_be_absent_here(const StreamRun& input, const StreamRun& output) {
    const Instruction& from = instruction(output);
    const Instruction& to = instruction(input);
    if (from.opcode != Opcode::kRead || !facts_.base(from).may_be_disabled || to.opcode == Opcode::kSelect) {
      return true;
    }
    findings_.add(cycle(input, 0),
                  input.instruction,
                  "takes " + value(input, 0) + ", which " + name_of(facts_, output.instruction) +
                      " leaves out where its base register is disabled; only a select may");
    return false;
  }

  void report_missing(const StreamRun& input, std::int32_t i) {
    std::string reason = where(input, i) + " holds nothing; expected " + value(input, i);
    const std::int64_t wanted = input.diagonal + i * input.period;
    const StreamRun* nearest = nullptr;
    std::int64_t late = 0;
    for (const StreamRun& output : outputs_) {
      if (output.tensor != input.tensor || output.value_class != input.value_class) {
        continue;
      }
      for (std::int32_t n = 0; n < output.count; ++n) {
        const std::int64_t off = output.diagonal + n * output.period - wanted;
        if (output.row + n * output.row_stride == input.row + i * input.row_stride &&
            (nearest == nullptr || std::abs(off) < std::abs(late))) {
          nearest = &output;
          late = off;
        }
      }
    }
    if (nearest == nullptr) {
      reason += ", which nothing puts on that stream";
    } else if (late != 0) {
      reason += ", which " + name_of(facts_, nearest->instruction) + " brings " + std::to_string(std::abs(late)) +
                (late > 0 ? " cycles later" : " cycles earlier");
    } else if (is_upstream(*nearest, input)) {
      reason += ", which " + name_of(facts_, nearest->instruction) + " keeps only to register " +
                std::to_string(last_register(*nearest));
    } else {
      reason += ", which " + name_of(facts_, nearest->instruction) + " puts there downstream";
    }
    findings_.add(cycle(input, i), input.instruction, reason);
  }

  void report_other(const StreamRun& input, std::int32_t i, const StreamRun& output, std::int64_t nth) {
    findings_.add(cycle(input, i),
                  input.instruction,
                  where(input, i) + " holds " + value(output, static_cast<std::int32_t>(nth)) + ", put there by " +
                      name_of(facts_, output.instruction) + "; expected " + value(input, i));
  }

  [[nodiscard]] const Instruction& instruction(const StreamRun& run) const {
    return facts_.text.instructions[static_cast<std::size_t>(run.instruction)];
  }
  [[nodiscard]] std::string value(const StreamRun& run, std::int32_t i) const {
    return value_of(facts_, run.tensor, run.row + i * run.row_stride, run.value_class);
  }
  [[nodiscard]] std::int32_t position(const StreamRun& input) const { return std::countr_zero(input.registers); }
  [[nodiscard]] std::int64_t cycle(const StreamRun& input, std::int32_t i) const {
    return input.diagonal + i * input.period + std::int64_t{map_.stream_step(input.lane)} * position(input);
  }
  [[nodiscard]] std::string where(const StreamRun& input, std::int32_t) const {
    return map_.describe(input.lane, 0) + ", register " + std::to_string(position(input)) + ",";
  }
  [[nodiscard]] bool is_upstream(const StreamRun& output, const StreamRun& input) const {
    const std::int32_t from = node::unit_position(instruction(output), facts_.chip);
    return map_.stream_step(output.lane) * (position(input) - from) >= 0;
  }
  [[nodiscard]] std::int32_t last_register(const StreamRun& output) const {
    return map_.stream_step(output.lane) > 0 ? 31 - std::countl_zero(output.registers | 1U)
                                             : std::countr_zero(output.registers);
  }

  const TextFacts& facts_;
  const LaneMap& map_;
  Findings& findings_;
  std::span<const StreamRun> outputs_;
};

}  // namespace

void claim_streams(const TextFacts& facts, const LaneMap& map, LaneTable& table) {
  for (std::size_t i = 0; i < facts.text.instructions.size(); ++i) {
    for (const StreamOperand& operand : facts.text.instructions[i].operands) {
      if (operand.kind != OperandKind::kOut) {
        continue;
      }
      for_each_stream_run(facts, map, static_cast<std::int32_t>(i), operand, [&](const StreamRun& run) {
        if (run.occupied != 0) {
          table.add({.lane = run.lane,
                     .cells = run.occupied,
                     .first = run.diagonal,
                     .period = run.period,
                     .count = run.count,
                     .instruction = run.instruction});
        }
      });
    }
  }
}

void prove_values(const TextFacts& facts, const LaneMap& map, Findings& findings) {
  ValueProof(facts, map, findings).run();
}

}  // namespace lpu::scheduler::proof
