#include "verify_static.hpp"

#include <algorithm>

#include "verify_rows.hpp"

namespace lpu::scheduler::proof {

StaticRows::StaticRows(const TextFacts& facts, std::span<const std::int32_t> allocations)
    : facts_(facts), tensors_(facts.text.tensors.size()) {
  for (const std::int32_t number : allocations) {
    const node::Allocation& a = facts.text.allocations[static_cast<std::size_t>(number)];
    if (facts.text.tensors[a.tensor].scope != node::TensorScope::kStatic) {
      continue;
    }
    Box box{.allocation = number,
            .image_class = facts.registers[a.base_register].image_class,
            .hemisphere = a.hemisphere,
            .base = {a.row, a.slice, a.address}};
    box.lowest = box.highest = box.base;
    for (std::size_t l = 0; l < 3; ++l) {
      box.count[l] = a.count[l];
      box.step[l] = {a.row_stride[l], a.slice_stride[l], a.address_stride[l]};
      for (std::size_t part = 0; part < 3; ++part) {
        const std::int64_t moved = box.step[l][part] * (a.count[l] - 1);
        (moved < 0 ? box.lowest : box.highest)[part] += moved;
      }
      box.longest = box.count[l] > box.count[box.longest] ? l : box.longest;
    }
    tensors_[a.tensor].boxes.push_back(box);
  }
}

std::optional<Run> StaticRows::find_outside(const Instruction& instruction, const StreamOperand& operand) {
  const Burst burst = make_burst(instruction, &operand);
  return outside(tensors_[operand.tensor], instruction, burst.first, burst.axes);
}

std::optional<Run> StaticRows::outside(Tensor& tensor,
                                       const Instruction& instruction,
                                       const Run& first,
                                       std::array<Axis, 3> axes) const {
  const std::int32_t image_class = facts_.base(instruction).image_class;
  for (std::size_t i = 0; i < tensor.boxes.size(); ++i) {
    const std::size_t at = (tensor.last_hit + i) % tensor.boxes.size();
    const Box& box = tensor.boxes[at];
    if (box.image_class == image_class && box.hemisphere == instruction.hemisphere && covers(box, first, axes)) {
      tensor.last_hit = at;
      return std::nullopt;
    }
  }
  Axis* cut = nullptr;
  for (Axis& axis : axes) {
    if (axis.count > 1 && (cut == nullptr || axis.count < cut->count)) {
      cut = &axis;
    }
  }
  if (cut == nullptr) {
    return first;
  }
  const Axis along = *cut;
  *cut = Axis{};
  for (std::int32_t i = 0; i < along.count; ++i) {
    Run part = first;
    part.cycle += i * along.period;
    part.index += i * along.index;
    part.row += std::int64_t{i} * along.row;
    part.address += i * along.address;
    if (const std::optional<Run> found = outside(tensor, instruction, part, axes)) {
      return found;
    }
  }
  return std::nullopt;
}

/// Indices of the allocation's loops at which it holds that row in that place.
std::optional<std::array<std::int64_t, 3>> StaticRows::indices_of(const Box& box, const Step& at) {
  for (std::size_t part = 0; part < 3; ++part) {
    if (at[part] < box.lowest[part] || at[part] > box.highest[part]) {
      return std::nullopt;
    }
  }
  const std::size_t a = box.longest == 0 ? 1 : 0;
  const std::size_t b = box.longest == 2 ? 1 : 2;
  const Step& step = box.step[box.longest];
  const auto part = static_cast<std::size_t>(
      std::find_if(step.begin(), step.end(), [](std::int64_t s) { return s != 0; }) - step.begin());
  for (std::int64_t i = 0; i < box.count[a]; ++i) {
    for (std::int64_t j = 0; j < box.count[b]; ++j) {
      Step rest{};
      for (std::size_t p = 0; p < 3; ++p) {
        rest[p] = at[p] - box.base[p] - i * box.step[a][p] - j * box.step[b][p];
      }
      const std::int64_t k = part < 3 ? rest[part] / step[part] : 0;
      const bool is_it = k >= 0 && k < box.count[box.longest] && rest[0] == k * step[0] && rest[1] == k * step[1] &&
                         rest[2] == k * step[2];
      if (is_it) {
        std::array<std::int64_t, 3> out{};
        out[a] = i;
        out[b] = j;
        out[box.longest] = k;
        return out;
      }
    }
  }
  return std::nullopt;
}

/// Whether each loop of the burst goes along a loop of the allocation, and all of them together stay inside.
bool StaticRows::covers(const Box& box, const Run& first, const std::array<Axis, 3>& axes) {
  const auto indices = indices_of(box, {first.row, first.index, first.address});
  if (!indices) {
    return false;
  }
  std::array<std::int64_t, 3> lowest = *indices;
  std::array<std::int64_t, 3> highest = *indices;
  for (const Axis& axis : axes) {
    const Step step{axis.row, axis.index, axis.address};
    if (axis.count <= 1 || step == Step{}) {
      continue;  // the same row again and again
    }
    bool is_along = false;
    for (std::size_t l = 0; l < 3 && !is_along; ++l) {
      const Step& own = box.step[l];
      const auto part = static_cast<std::size_t>(
          std::find_if(own.begin(), own.end(), [](std::int64_t s) { return s != 0; }) - own.begin());
      const std::int64_t times = part < 3 ? step[part] / own[part] : 0;
      is_along = times != 0 && step == Step{own[0] * times, own[1] * times, own[2] * times};
      if (is_along) {
        const std::int64_t moved = times * (axis.count - 1);
        (moved < 0 ? lowest : highest)[l] += moved;
      }
    }
    if (!is_along) {
      return false;
    }
  }
  for (std::size_t l = 0; l < 3; ++l) {
    if (lowest[l] < 0 || highest[l] >= box.count[l]) {
      return false;
    }
  }
  return true;
}

std::optional<std::string> StaticRows::place_of_row(std::uint16_t tensor, std::int64_t row) const {
  for (const Box& box : tensors_[tensor].boxes) {
    std::optional<std::string> out;
    const node::Allocation& a = facts_.text.allocations[static_cast<std::size_t>(box.allocation)];
    for_each_cell(a, [&](std::int32_t slice, std::int32_t address, std::int32_t held) {
      if (held == row && !out) {
        out = name_of(a.hemisphere) + " slice " + std::to_string(slice) + " address " + std::to_string(address) +
              register_name(a.base_register);
      }
    });
    if (out) {
      return out;
    }
  }
  return std::nullopt;
}

}  // namespace lpu::scheduler::proof
