#include <algorithm>
#include <optional>
#include <set>

#include "checked_text.hpp"

namespace lpu::node {
namespace {

/// Slices that a register moves an access to, and the banks it may turn bank b into.
struct Shift {
  std::int32_t slices = 0;
  std::set<std::int32_t> banks;
};

std::vector<Shift> shifts_of(const BaseRegister& base, std::int32_t context, std::int32_t banks) {
  std::vector<Shift> out;
  for (const Displacement& displacement : all_displacements(base, context)) {
    auto known = std::find_if(out.begin(), out.end(), [&](const Shift& s) { return s.slices == displacement.slice; });
    if (known == out.end()) {
      out.push_back({.slices = displacement.slice, .banks = {}});
      known = std::prev(out.end());
    }
    known->banks.insert((displacement.address % banks + banks) % banks);
  }
  if (out.empty()) {
    out.push_back({.slices = 0, .banks = {0}});
  }
  return out;
}

/// Numbers every resource of a chip that one instance can hold for a cycle.
class ResourceMap {
 public:
  explicit ResourceMap(const ChipSpec& chip) : chip_(chip) {
    const std::int32_t slices = 2 * chip.slices_per_hemisphere;
    writes_ = slices;
    banks_ = writes_ + slices;
    streams_ = banks_ + slices * chip.banks_per_slice;
    registers_ =
        std::max({chip.mxm_position, chip.sxm_position, chip.slice_position(chip.slices_per_hemisphere - 1)}) + 1;
    planes_ = streams_ + 4 * chip.streams_per_direction * registers_;
    alus_ = planes_ + 6 * chip.mxm_planes_per_hemisphere;
    crossbars_ = alus_ + chip.vxm_alus;
    links_ = crossbars_ + 2;
    queues_ = links_ + 2 * chip.links();
    count_ = queues_ + slices + 6 * chip.mxm_planes_per_hemisphere + chip.vxm_alus + 6 + 2 * chip.links();
  }
  [[nodiscard]] std::int32_t count() const { return count_; }
  [[nodiscard]] std::int32_t slice(Hemisphere hemisphere, std::int64_t slice) const {
    return static_cast<std::int32_t>(hemisphere) * chip_.slices_per_hemisphere + static_cast<std::int32_t>(slice);
  }
  [[nodiscard]] std::int32_t port(Opcode opcode, std::int32_t slice) const {
    return (opcode == Opcode::kRead ? 0 : writes_) + slice;
  }
  [[nodiscard]] std::int32_t bank(std::int32_t slice, std::int32_t bank) const {
    return banks_ + slice * chip_.banks_per_slice + bank;
  }
  [[nodiscard]] std::int32_t stream(const StreamOperand& operand, std::int32_t number, std::int32_t position) const {
    const std::int32_t side =
        static_cast<std::int32_t>(operand.hemisphere) * 2 + static_cast<std::int32_t>(operand.direction);
    return streams_ + (side * chip_.streams_per_direction + number) * registers_ + position;
  }
  [[nodiscard]] std::int32_t plane(Hemisphere hemisphere, std::int64_t plane, Opcode opcode) const {
    const std::int32_t port = static_cast<std::int32_t>(opcode) - static_cast<std::int32_t>(Opcode::kInstall);
    return planes_ +
           (static_cast<std::int32_t>(hemisphere) * chip_.mxm_planes_per_hemisphere +
            static_cast<std::int32_t>(plane)) *
               3 +
           port;
  }
  [[nodiscard]] std::int32_t alu(std::int32_t alu) const { return alus_ + alu; }
  [[nodiscard]] std::int32_t crossbar(Hemisphere hemisphere) const {
    return crossbars_ + static_cast<std::int32_t>(hemisphere);
  }
  [[nodiscard]] std::int32_t link(std::int64_t link, Opcode opcode) const {
    return links_ + 2 * static_cast<std::int32_t>(link) + (opcode == Opcode::kSend ? 0 : 1);
  }
  [[nodiscard]] std::int32_t queue(std::int32_t queue) const { return queues_ + queue; }
  [[nodiscard]] bool is_queue(std::int32_t at) const { return at >= queues_; }

  [[nodiscard]] std::string describe(std::int32_t at) const {
    const auto number = [at](std::int32_t first) { return std::to_string(at - first); };
    if (at < writes_) {
      return "read port of slice " + describe_slice(at);
    }
    if (at < banks_) {
      return "write port of slice " + describe_slice(at - writes_);
    }
    if (at < streams_) {
      const std::int32_t slice = (at - banks_) / chip_.banks_per_slice;
      return "bank " + std::to_string((at - banks_) % chip_.banks_per_slice) + " of slice " + describe_slice(slice);
    }
    if (at < planes_) {
      const std::int32_t stream = (at - streams_) / registers_;
      const std::int32_t side = stream / chip_.streams_per_direction;
      return std::string("stream ") + (side < 2 ? "W " : "E ") + (side % 2 == 0 ? "outward " : "inward ") +
             std::to_string(stream % chip_.streams_per_direction) + ", register " +
             std::to_string((at - streams_) % registers_);
    }
    if (at < alus_) {
      return "port " + number(planes_) + " of the MXM planes";
    }
    if (at < crossbars_) {
      return "ALU " + number(alus_);
    }
    if (at < links_) {
      return "SXM " + number(crossbars_);
    }
    if (at < queues_) {
      return "link " + std::to_string((at - links_) / 2) + ((at - links_) % 2 == 0 ? ", push" : ", take");
    }
    return "instruction queue " + number(queues_);
  }

 private:
  [[nodiscard]] std::string describe_slice(std::int32_t slice) const {
    return (slice < chip_.slices_per_hemisphere ? "W " : "E ") + std::to_string(slice % chip_.slices_per_hemisphere);
  }
  const ChipSpec& chip_;
  std::int32_t writes_, banks_, streams_, registers_, planes_, alus_, crossbars_, links_, queues_, count_;
};

/// Visits what one instruction holds; the visitor gets (resource, cycle).
class Holder {
 public:
  Holder(const ChipSpec& chip, const ResourceMap& map, const Instruction& instruction, const std::vector<Shift>& shifts)
      : chip_(chip), map_(map), instruction_(instruction), shifts_(shifts), unit_(info(instruction.opcode).unit) {}

  template <typename Visit>
  void visit(Visit&& visit) const {
    visit_queues(visit);
    for_each_instance(instruction_, [&](const LoopIndex& at) {
      visit_unit(at, visit);
      for (const StreamOperand& operand : instruction_.operands) {
        if (operand.kind == OperandKind::kOut && is_moved_here(operand, instruction_, at)) {
          visit_stream(operand, at, visit);
        }
      }
    });
  }

 private:
  template <typename Visit>
  void visit_queues(Visit& visit) const {
    std::vector<std::pair<std::int32_t, std::int64_t>> firsts;
    for (const Shift& shift : shifts_) {
      std::vector<std::pair<std::int32_t, std::int64_t>> own;
      for_each_instance(instruction_, [&](const LoopIndex& at) {
        const std::int64_t unit = unit_of(instruction_, at) + shift.slices;
        const std::int32_t queue = queue_of(instruction_, unit, chip_);
        const std::int64_t cycle = issue_cycle(instruction_, at, unit, chip_);
        const auto known = std::find_if(own.begin(), own.end(), [&](const auto& q) { return q.first == queue; });
        if (known == own.end()) {
          own.emplace_back(queue, cycle);
        } else {
          known->second = std::min(known->second, cycle);
        }
      });
      firsts.insert(firsts.end(), own.begin(), own.end());
    }
    // Displacements of one burst exclude each other.
    std::sort(firsts.begin(), firsts.end());
    firsts.erase(std::unique(firsts.begin(), firsts.end()), firsts.end());
    for (const auto& [queue, cycle] : firsts) {
      visit(map_.queue(queue), cycle);
    }
  }

  template <typename Visit>
  void visit_unit(const LoopIndex& at, Visit& visit) const {
    const std::int64_t unit = unit_of(instruction_, at);
    const std::int64_t cycle = affine(instruction_.start, instruction_.period, at);
    switch (unit_) {
      case Unit::kMem:
        visit_memory(at, visit);
        return;
      case Unit::kMxm:
        visit(map_.plane(instruction_.hemisphere, unit, instruction_.opcode), cycle);
        return;
      case Unit::kVxm:
        for (std::int32_t alu = 0; alu < instruction_.alus; ++alu) {
          visit(map_.alu(instruction_.index + alu), cycle);
        }
        return;
      case Unit::kSxm:
        visit(map_.crossbar(instruction_.hemisphere), cycle);
        return;
      case Unit::kC2c:
        visit(map_.link(unit, instruction_.opcode), cycle);
        return;
    }
  }

  template <typename Visit>
  void visit_memory(const LoopIndex& at, Visit& visit) const {
    const std::int64_t address = affine(instruction_.address, instruction_.address_stride, at);
    for (const Shift& shift : shifts_) {
      const std::int64_t unit = unit_of(instruction_, at) + shift.slices;
      const std::int32_t slice = map_.slice(instruction_.hemisphere, unit);
      const std::int64_t cycle = issue_cycle(instruction_, at, unit, chip_);
      visit(map_.port(instruction_.opcode, slice), cycle);
      for (const std::int32_t bank : shift.banks) {
        visit(map_.bank(slice, static_cast<std::int32_t>((address + bank) % chip_.banks_per_slice)), cycle);
      }
    }
  }

  template <typename Visit>
  void visit_stream(const StreamOperand& operand, const LoopIndex& at, Visit& visit) const {
    const std::int32_t step = operand.direction == Direction::kOutward ? 1 : -1;
    // All displacements lie on one diagonal; the one farthest upstream takes what the others do, and more.
    std::int32_t position = unit_position(instruction_, chip_);
    std::int64_t cycle = affine(instruction_.start, instruction_.period, at);
    if (unit_ == Unit::kMem) {
      for (std::size_t i = 0; i < shifts_.size(); ++i) {
        const std::int64_t unit = unit_of(instruction_, at) + shifts_[i].slices;
        const std::int32_t here = chip_.slice_position(static_cast<std::int32_t>(unit));
        if (i == 0 || (here - position) * step < 0) {
          position = here;
          cycle = issue_cycle(instruction_, at, unit, chip_);
        }
      }
    }
    cycle += latency(instruction_.opcode, chip_).count();
    const std::int32_t first = operand.stream + at[2] * operand.stream_stride;
    for (; (operand.reach - position) * step >= 0; position += step, ++cycle) {
      for (std::int32_t j = 0; j < operand.streams; ++j) {
        visit(map_.stream(operand, first + j, position), cycle);
      }
    }
  }

  const ChipSpec& chip_;
  const ResourceMap& map_;
  const Instruction& instruction_;
  const std::vector<Shift>& shifts_;
  Unit unit_;
};

class SteadyState {
 public:
  SteadyState(const ChipProgram& text, const ChipSpec& chip, const IterationPlan& plan, std::int32_t chip_id)
      : text_(text),
        chip_(chip),
        chip_id_(chip_id),
        interval_(plan.initiation_interval),
        map_(chip),
        taken_(static_cast<std::size_t>(map_.count())),
        fetched_(static_cast<std::size_t>(interval_), 0) {
    shifts_.resize(text.registers.size());
    for (const Instruction& instruction : text.instructions) {
      auto& shifts = shifts_[instruction.base_register];
      if (shifts.empty() && info(instruction.opcode).unit == Unit::kMem) {
        shifts = shifts_of(text.registers[instruction.base_register], plan.context, chip.banks_per_slice);
      }
    }
  }

  void run() {
    for (std::size_t i = 0; i < text_.instructions.size(); ++i) {
      const auto number = static_cast<std::int32_t>(i);
      fetch(number);
      check_slices(number);
      holder(number).visit([&](std::int32_t resource, std::int64_t cycle) { take(number, resource, cycle); });
    }
  }

 private:
  [[nodiscard]] std::size_t fold(std::int64_t cycle) const {
    return static_cast<std::size_t>((cycle % interval_ + interval_) % interval_);
  }
  [[nodiscard]] Holder holder(std::int32_t number) const {
    static const std::vector<Shift> kStill{{.slices = 0, .banks = {0}}};
    const Instruction& instruction = text_.instructions[static_cast<std::size_t>(number)];
    const bool moves = info(instruction.opcode).unit == Unit::kMem;
    return {chip_, map_, instruction, moves ? shifts_[instruction.base_register] : kStill};
  }

  void check_slices(std::int32_t number) const {
    const Instruction& instruction = text_.instructions[static_cast<std::size_t>(number)];
    if (info(instruction.opcode).unit != Unit::kMem) {
      return;
    }
    for (const Shift& shift : shifts_[instruction.base_register]) {
      for_each_instance(instruction, [&](const LoopIndex& at) {
        const std::int64_t slice = unit_of(instruction, at) + shift.slices;
        if (slice < 0 || slice >= chip_.slices_per_hemisphere) {
          throw ScheduleViolation({.chip = chip_id_,
                                   .cycle = instruction.start,
                                   .instruction = number,
                                   .reason = "its base register moves it to slice " + std::to_string(slice) + " of " +
                                             std::to_string(chip_.slices_per_hemisphere)});
        }
      });
    }
  }

  void fetch(std::int32_t number) {
    const Instruction& instruction = text_.instructions[static_cast<std::size_t>(number)];
    std::int64_t& bytes = fetched_[fold(instruction.start)];
    bytes += text_size(instruction, chip_).count();
    if (bytes > chip_.fetch_bytes_per_cycle) {
      throw ScheduleViolation({.chip = chip_id_,
                               .cycle = instruction.start,
                               .instruction = number,
                               .reason = "fetches " + std::to_string(bytes) +
                                         " B of program text in one cycle, modulo the initiation " + "interval of " +
                                         std::to_string(interval_) + "; " +
                                         std::to_string(chip_.fetch_bytes_per_cycle) + " B can be"});
    }
  }

  void take(std::int32_t number, std::int32_t resource, std::int64_t cycle) {
    if (cycle < 0 || cycle >= text_.makespan) {
      throw ScheduleViolation({.chip = chip_id_,
                               .cycle = cycle,
                               .instruction = number,
                               .reason = "takes " + map_.describe(resource) +
                                         " outside of the iteration, whose makespan is " +
                                         std::to_string(text_.makespan)});
    }
    auto& row = taken_[static_cast<std::size_t>(resource)];
    if (row.empty()) {
      row.assign(static_cast<std::size_t>(interval_), false);
      count_queue(number, resource, cycle);
    }
    const std::size_t at = fold(cycle);
    if (row[at]) {
      fail(number, resource, cycle);
    }
    row[at] = true;
  }

  void count_queue(std::int32_t number, std::int32_t resource, std::int64_t cycle) {
    queues_used_ += map_.is_queue(resource) ? 1 : 0;
    if (queues_used_ > chip_.icu_queues) {
      throw ScheduleViolation(
          {.chip = chip_id_,
           .cycle = cycle,
           .instruction = number,
           .reason = "takes one more instruction queue than the chip's " + std::to_string(chip_.icu_queues)});
    }
  }

  [[noreturn]] void fail(std::int32_t number, std::int32_t resource, std::int64_t cycle) const {
    std::optional<std::pair<std::int32_t, std::int64_t>> other;
    for (std::int32_t i = 0; i <= number && !other; ++i) {
      holder(i).visit([&](std::int32_t held, std::int64_t when) {
        if (!other && held == resource && fold(when) == fold(cycle)) {
          other = {i, when};
        }
      });
    }
    throw ScheduleViolation(
        {.chip = chip_id_,
         .cycle = cycle,
         .instruction = number,
         .reason = map_.describe(resource) + " is taken by instruction " + std::to_string(other->first) + " in cycle " +
                   std::to_string(other->second) + " too" +
                   (other->second == cycle ? std::string()
                                           : ", modulo the initiation interval of " + std::to_string(interval_))});
  }

  const ChipProgram& text_;
  const ChipSpec& chip_;
  std::int32_t chip_id_;
  std::int64_t interval_;
  ResourceMap map_;
  std::vector<std::vector<bool>> taken_;
  std::vector<std::int64_t> fetched_;
  std::vector<std::vector<Shift>> shifts_;
  std::int64_t queues_used_ = 0;
};

}  // namespace

void check_steady_state(const ChipProgram& text,
                        const ChipSpec& chip,
                        const IterationPlan& plan,
                        std::int32_t chip_id) {
  SteadyState(text, chip, plan, chip_id).run();
}

}  // namespace lpu::node
