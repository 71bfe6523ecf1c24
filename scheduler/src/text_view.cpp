#include "text_view.hpp"

#include <algorithm>
#include <set>
#include <tuple>

#include "selection.hpp"

namespace lpu::scheduler {
namespace {

using node::Direction;
using node::Hemisphere;
using node::Instruction;
using node::Opcode;
using node::OperandKind;
using node::StreamOperand;
using node::Unit;

[[nodiscard]] std::int64_t modulo(std::int64_t a, std::int64_t b) {
  return (a % b + b) % b;
}

/// What a register does to places: slice and bank displacements, each pair once.
[[nodiscard]] std::set<std::pair<std::int32_t, std::int32_t>> place_shifts(const node::BaseRegister& base,
                                                                           std::int32_t context,
                                                                           std::int32_t banks) {
  std::set<std::pair<std::int32_t, std::int32_t>> shifts;
  for (const node::Displacement& displacement : node::all_displacements(base, context)) {
    shifts.insert({displacement.slice, static_cast<std::int32_t>(modulo(displacement.address, banks))});
  }
  return shifts;
}

/// Whether a slice lies within the span of an allocation's slices.
[[nodiscard]] bool may_reach(const node::Allocation& allocation, std::int32_t slice) {
  std::int32_t low = allocation.slice;
  std::int32_t high = allocation.slice;
  for (std::size_t l = 0; l < 3; ++l) {
    const std::int32_t move = (allocation.count[l] - 1) * allocation.slice_stride[l];
    (move < 0 ? low : high) += move;
  }
  return low <= slice && slice <= high;
}

}  // namespace

std::int32_t sign_of(const Instruction& instruction) {
  return stream_direction(instruction) == Direction::kOutward ? 1 : -1;
}

std::int64_t row_at(const StreamOperand& operand, const Instance& instance) {
  std::int64_t row = operand.row;
  for (std::size_t l = 0; l < 3; ++l) {
    row += std::int64_t{instance.i[l]} * operand.row_stride[l];
  }
  return row;
}

bool is_active(const Instruction& instruction, const StreamOperand& operand, const Instance& instance) {
  for (unsigned l = 0; l < 3; ++l) {
    const std::int32_t kept = operand.kind == OperandKind::kOut ? instruction.count[l] - 1 : 0;
    if ((operand.held >> l & 1U) != 0 && instance.i[l] != kept) {
      return false;
    }
  }
  return true;
}

Instance first_instance(const Instruction& instruction) {
  return {.i = {}, .cycle = instruction.start, .unit = instruction.index};
}

bool has_link(const Instruction& instruction, std::int32_t link) {
  bool found = false;
  for_each_link(instruction, [&](std::int32_t one) { found = found || one == link; });
  return found;
}

std::int32_t position_of(const Instruction& instruction, const node::ChipSpec& chip, std::int32_t unit) {
  return node::info(instruction.opcode).unit == Unit::kMem ? chip.slice_position(unit)
                                                           : node::unit_position(instruction, chip);
}

TextView::TextView(const ClusterProgram& program, const node::ChipProgram& text)
    : chip_(&program.chip),
      text_(&text),
      interval_(std::max<std::int64_t>(program.plan.initiation_interval, 1)),
      context_(program.plan.context) {}

void TextView::add_flows(std::int32_t number) const {
  const Instruction& instruction = at(number);
  for (const StreamOperand& operand : instruction.operands) {
    if (operand.kind == OperandKind::kOut) {
      for_each_instance(instruction, *chip_, [&](const Instance& instance) {
        if (is_active(instruction, operand, instance)) {
          Flow flow = flow_of(number, operand, instance);
          for (std::int32_t s = 0; s < operand.streams; ++s) {
            flows_.push_back(flow);
            ++flow.stream;
            ++flow.row;
          }
        }
      });
    }
  }
}

Flow TextView::flow_of(std::int32_t number, const StreamOperand& operand, const Instance& instance) const {
  const Instruction& instruction = at(number);
  const bool moves = unit(number) == Unit::kMem && instruction.base_register != 0;
  const bool is_outward = operand.direction == Direction::kOutward;
  const std::int32_t source = position_of(instruction, *chip_, instance.unit);
  const std::int64_t cycle = instance.cycle + node::latency(instruction.opcode, *chip_).count();
  Flow flow{.instruction = number,
            .hemisphere = operand.hemisphere,
            .direction = operand.direction,
            .stream = operand.stream + instance.i[2] * operand.stream_stride,
            .low = is_outward ? source : operand.reach,
            .high = is_outward ? operand.reach : source,
            .diagonal = is_outward ? cycle - source : cycle + source,
            .tensor = operand.tensor,
            .row = row_at(operand, instance),
            .is_exact = !moves};
  if (moves) {
    (is_outward ? flow.low : flow.high) = is_outward ? chip_->vxm_position : chip_->mxm_position;
  }
  return flow;
}

const std::vector<Flow>& TextView::flows() const {
  if (flows_.empty()) {
    for (std::int32_t i = 0; i < size(); ++i) {
      add_flows(i);
    }
    std::ranges::sort(flows_, [](const Flow& a, const Flow& b) {
      return std::tuple(a.hemisphere, a.direction, a.stream, a.diagonal, a.low, a.instruction) <
             std::tuple(b.hemisphere, b.direction, b.stream, b.diagonal, b.low, b.instruction);
    });
  }
  return flows_;
}

std::vector<Flow> TextView::standing(Hemisphere hemisphere,
                                     Direction direction,
                                     std::int32_t stream,
                                     std::int32_t position,
                                     std::int64_t cycle,
                                     std::int64_t interval) const {
  const auto key = [](const Flow& flow) { return std::tuple(flow.hemisphere, flow.direction, flow.stream); };
  const auto range = std::ranges::equal_range(flows(), std::tuple(hemisphere, direction, stream), {}, key);
  std::vector<Flow> found;
  for (const Flow& flow : range) {
    const std::int64_t apart = cycle - flow.cycle_at(position);
    if (flow.low <= position && position <= flow.high && (interval == 0 ? apart == 0 : modulo(apart, interval) == 0)) {
      found.push_back(flow);
    }
  }
  return found;
}

std::optional<std::pair<Direction, std::int32_t>> TextView::free_stream(
    Hemisphere hemisphere,
    std::int32_t position,
    std::int64_t cycle,
    std::int64_t cycles,
    const std::vector<std::pair<Direction, std::int32_t>>& taken) const {
  std::set<std::pair<Direction, std::int32_t>> busy(taken.begin(), taken.end());
  for (const Flow& flow : flows()) {
    if (flow.hemisphere == hemisphere && flow.low <= position && position <= flow.high &&
        modulo(flow.cycle_at(position) - cycle, interval_) < cycles) {
      busy.insert({flow.direction, flow.stream});
    }
  }
  for (const Direction direction : {Direction::kInward, Direction::kOutward}) {
    for (std::int32_t stream = chip_->streams_per_direction - 1; stream >= 0; --stream) {
      if (!busy.contains({direction, stream})) {
        return std::pair(direction, stream);
      }
    }
  }
  return std::nullopt;
}

void TextView::make_accesses() const {
  std::map<std::uint16_t, std::set<std::pair<std::int32_t, std::int32_t>>> shifts;
  for (std::int32_t number = 0; number < size(); ++number) {
    const Instruction& instruction = at(number);
    if (unit(number) != Unit::kMem) {
      continue;
    }
    const std::uint16_t base = instruction.base_register;
    if (!shifts.contains(base)) {
      shifts[base] = place_shifts(text_->registers[base], context_, chip_->banks_per_slice);
    }
    const StreamOperand& operand = instruction.operands[0];
    const bool is_write = instruction.opcode == Opcode::kWrite;
    for_each_instance(instruction, *chip_, [&](const Instance& instance) {
      Access access{.instruction = number,
                    .is_write = is_write,
                    .is_whole = !(is_write && (instruction.mode & node::kWriteMasked) != 0),
                    .cycle = instance.cycle,
                    .address = instruction.address,
                    .base_register = base,
                    .tensor = operand.tensor,
                    .row = row_at(operand, instance),
                    .banks = 0};
      for (std::size_t l = 0; l < 3; ++l) {
        access.address += instance.i[l] * instruction.address_stride[l];
      }
      for (const auto& [slice, bank] : shifts[base]) {
        Access moved = access;
        const std::int32_t place = std::clamp(instance.unit + slice, 0, chip_->slices_per_hemisphere - 1);
        moved.banks = 1U << static_cast<unsigned>(modulo(access.address + bank, chip_->banks_per_slice));
        moved.cycle +=
            std::int64_t{sign_of(instruction)} * (chip_->slice_position(place) - chip_->slice_position(instance.unit));
        moved.is_whole = access.is_whole && slice == 0;
        accesses_[{instruction.hemisphere, place}].push_back(moved);
      }
    });
  }
  has_accesses_ = true;
}

const std::vector<Access>& TextView::accesses(Hemisphere hemisphere, std::int32_t slice) const {
  if (!has_accesses_) {
    make_accesses();
  }
  return accesses_[{hemisphere, slice}];
}

bool TextView::is_idle(Hemisphere hemisphere, std::int32_t slice, std::int64_t cycle, std::int64_t cycles) const {
  return std::ranges::none_of(accesses(hemisphere, slice),
                              [&](const Access& access) { return modulo(access.cycle - cycle, interval_) < cycles; });
}

std::optional<TextView::StaticRow> TextView::static_row(Hemisphere hemisphere,
                                                        std::int32_t slice,
                                                        std::int32_t bank) const {
  for (const node::Allocation& allocation : text_->allocations) {
    const node::Tensor& tensor = text_->tensors[allocation.tensor];
    if (allocation.hemisphere == hemisphere && allocation.base_register == 0 &&
        tensor.scope == node::TensorScope::kStatic && tensor.name != "program_text" && may_reach(allocation, slice)) {
      if (auto row = row_in(allocation, slice, bank)) {
        return row;
      }
    }
  }
  return std::nullopt;
}

std::optional<TextView::StaticRow> TextView::row_in(const node::Allocation& allocation,
                                                    std::int32_t slice,
                                                    std::int32_t bank) const {
  std::array<std::int32_t, 3> i{};
  for (i[0] = 0; i[0] < allocation.count[0]; ++i[0]) {
    for (i[1] = 0; i[1] < allocation.count[1]; ++i[1]) {
      for (i[2] = 0; i[2] < allocation.count[2]; ++i[2]) {
        StaticRow found{.tensor = allocation.tensor, .row = allocation.row, .address = allocation.address};
        std::int32_t place = allocation.slice;
        for (std::size_t l = 0; l < 3; ++l) {
          found.row += i[l] * allocation.row_stride[l];
          found.address += i[l] * allocation.address_stride[l];
          place += i[l] * allocation.slice_stride[l];
        }
        if (place == slice && (bank < 0 || found.address % chip_->banks_per_slice == bank)) {
          return found;
        }
      }
    }
  }
  return std::nullopt;
}

std::vector<TileInstall> TextView::installs(Hemisphere hemisphere, std::int32_t plane) const {
  std::vector<TileInstall> found;
  for (std::int32_t number = 0; number < size(); ++number) {
    const Instruction& instruction = at(number);
    if (instruction.opcode != Opcode::kInstall || instruction.hemisphere != hemisphere) {
      continue;
    }
    for_each_instance(instruction, *chip_, [&](const Instance& instance) {
      if (instance.unit != plane || instance.i[1] != instruction.count[1] - 1) {
        return;
      }
      TileInstall install{.cycle = instance.cycle,
                          .instruction = number,
                          .tile = instruction.operands[1],
                          .base_register = instruction.base_register};
      Instance first = instance;
      first.i[1] = 0;
      install.tile.row = static_cast<std::int32_t>(row_at(install.tile, first));
      found.push_back(install);
    });
  }
  std::ranges::stable_sort(found, {}, &TileInstall::cycle);
  return found;
}

std::vector<std::pair<std::int32_t, std::int64_t>> TextView::consumers(std::int32_t producer) const {
  std::vector<std::pair<std::int32_t, std::int64_t>> found;
  std::vector<Flow> made;
  for (const Flow& flow : flows()) {
    if (flow.instruction == producer) {
      made.push_back(flow);
    }
  }
  if (made.empty()) {
    return found;
  }
  const auto first = std::ranges::min(made, {}, [](const Flow& flow) { return flow.cycle_at(flow.first_position()); });
  for (std::int32_t number = 0; number < size(); ++number) {
    const Instruction& instruction = at(number);
    for (const StreamOperand& operand : instruction.operands) {
      if (operand.kind != OperandKind::kIn || operand.hemisphere != first.hemisphere ||
          operand.direction != first.direction) {
        continue;
      }
      bool is_found = false;
      for_each_instance(instruction, *chip_, [&](const Instance& instance) {
        const std::int32_t stream = operand.stream + instance.i[2] * operand.stream_stride;
        const std::int32_t position = position_of(instruction, *chip_, instance.unit);
        if (!is_found && stream <= first.stream && first.stream < stream + operand.streams && first.low <= position &&
            position <= first.high && instance.cycle == first.cycle_at(position)) {
          is_found = true;
          found.emplace_back(number, instance.cycle);
        }
      });
    }
  }
  return found;
}

std::int64_t TextView::fetched(std::int64_t cycle, std::int64_t interval) const {
  std::int64_t bytes = 0;
  for (const Instruction& instruction : text_->instructions) {
    const std::int64_t apart = instruction.start - cycle;
    if (interval == 0 ? apart == 0 : modulo(apart, interval) == 0) {
      bytes += node::text_size(instruction, *chip_).count();
    }
  }
  return bytes;
}

}  // namespace lpu::scheduler
