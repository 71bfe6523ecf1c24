#pragma once
#include <cstdint>

#include "declare_operations.hpp"
#include "lpu/scheduler/well_formed.hpp"
#include "test_program.hpp"

namespace lpu::test {

/// make_ring() with a user's cache, two expert slots and a static row on every slice: a place for every kind of
/// mutation.
///
///     kv      E slice 20, by user slot ──► VXM copy ──► cached rows to E slice 24 ──► VXM copy ──► used rows to E
///     slice 26 expert  E slice 28, by expert    ──► VXM copy ──► chosen rows to E slice 25, one for each slot ballast
///     one row on each slice, read by nobody
class RichProgram {
 public:
  explicit RichProgram(const RingShape& shape) : program_(make_ring(shape)) {
    program_.plan.experts = 4;
    program_.plan.experts_per_token = 2;
    program_.plan.expert_slots = 2;
    for (node::ChipProgram& text : program_.texts) {
      extend(text);
    }
  }
  [[nodiscard]] const scheduler::ClusterProgram& program() const { return program_; }

 private:
  using Text = node::ChipProgram;
  static constexpr node::Hemisphere kEast = node::Hemisphere::kEast;

  static std::uint16_t add_tensor(Text& text,
                                  const std::string& name,
                                  node::TensorScope scope,
                                  std::int32_t rows,
                                  std::vector<std::uint16_t> sources) {
    text.tensors.push_back({.name = name, .scope = scope, .rows = rows, .sources = std::move(sources)});
    return static_cast<std::uint16_t>(text.tensors.size() - 1);
  }
  static std::uint16_t add_register(Text& text, const node::BaseRegister& base) {
    text.registers.push_back(base);
    return static_cast<std::uint16_t>(text.registers.size() - 1);
  }
  static void allocate(Text& text,
                       std::uint16_t tensor,
                       std::int32_t slice,
                       std::uint16_t base,
                       std::int32_t rows,
                       std::int32_t address_stride) {
    node::Allocation out;
    out.tensor = tensor;
    out.hemisphere = kEast;
    out.base_register = base;
    out.slice = slice;
    out.count[0] = rows;
    out.row_stride[0] = 1;
    out.address_stride[0] = address_stride;
    text.allocations.push_back(out);
  }

  struct Place {
    std::uint16_t tensor = 0;
    std::int32_t row = 0;
    std::int32_t slice = 0;
    std::int32_t address = 0;
    std::uint16_t base = 0;
    bool is_registered = false;
    std::int32_t address_stride = 1;
  };
  /// A read, a VXM copy on one ALU, a write: `rows` vectors in a row.
  void copy(Text& text,
            const Place& from,
            const Place& to,
            std::int32_t rows,
            std::int32_t start,
            std::uint8_t stream,
            std::uint8_t alu) const {
    const auto burst = [&](node::Opcode opcode, std::int32_t at, std::int32_t index, const Place& place) {
      node::Instruction out;
      out.opcode = opcode;
      out.hemisphere = kEast;
      out.index = static_cast<std::uint8_t>(index);
      out.start = at;
      out.count[0] = static_cast<std::uint16_t>(rows);
      out.period[0] = rows > 1 ? 1 : 0;
      out.address = static_cast<std::uint16_t>(place.address);
      out.base_register = place.base;
      return out;
    };
    const auto operand =
        [&](node::OperandKind kind, node::Direction direction, const Place& place, std::int32_t reach) {
          node::StreamOperand out;
          out.kind = kind;
          out.hemisphere = kEast;
          out.direction = direction;
          out.stream = stream;
          out.reach = static_cast<std::uint8_t>(reach);
          out.tensor = place.tensor;
          out.row = place.row;
          out.row_stride[0] = 1;
          out.is_registered = place.is_registered ? 1U : 0U;
          return out;
        };
    using enum node::OperandKind;
    using enum node::Direction;
    const std::int32_t far = program_.chip.slice_position(from.slice);
    const std::int32_t near = program_.chip.slice_position(to.slice);
    node::Instruction read = burst(node::Opcode::kRead, start, from.slice, from);
    read.address_stride[0] = static_cast<std::int16_t>(from.address_stride);
    read.operands[0] = operand(kOut, kInward, from, 0);
    node::Instruction vxm = burst(node::Opcode::kCopy, start + far, alu, from);
    vxm.alus = 1;
    vxm.address = 0;
    vxm.operands[0] = operand(kIn, kInward, from, 0);
    vxm.operands[1] = operand(kOut, kOutward, to, near);
    node::Instruction write = burst(node::Opcode::kWrite, start + far + 5 + near, to.slice, to);
    write.address_stride[0] = 1;
    write.operands[0] = operand(kIn, kOutward, to, 0);
    for (const auto& one : {read, vxm, write}) {
      text.instructions.push_back(one);
    }
  }

  void extend(Text& text) const {
    using enum node::TensorScope;
    node::BaseRegister user{.kind = node::RegisterKind::kUser, .table = {}};
    for (std::int32_t slot = 0; slot < program_.user_slots; ++slot) {
      user.table.push_back({.address = static_cast<std::int16_t>(16 * slot)});
    }
    const std::uint16_t by_user = add_register(text, user);
    node::BaseRegister expert{
        .kind = node::RegisterKind::kExpert, .stride = 2, .row_stride = 1, .experts = 4, .table = {}};
    const std::uint16_t by_first = add_register(text, expert);
    expert.expert_slot = 1;
    const std::uint16_t by_second = add_register(text, expert);

    const std::uint16_t kv = add_tensor(text, "kv", kCache, 2, {});
    const std::uint16_t cached = add_tensor(text, "cached", kIteration, 2, {kv});
    const std::uint16_t used = add_tensor(text, "used", kIteration, 2, {cached});
    const std::uint16_t experts = add_tensor(text, "expert", kStatic, 4, {});
    const std::uint16_t chosen = add_tensor(text, "chosen", kIteration, 2, {experts});
    allocate(text, kv, 20, by_user, 2, 2);
    allocate(text, cached, 24, 1, 2, 1);
    allocate(text, used, 26, 1, 2, 1);
    allocate(text, experts, 28, by_first, 1, 0);
    allocate(text, experts, 28, by_second, 1, 0);
    allocate(text, chosen, 25, 1, 2, 1);
    copy(text,
         {.tensor = kv, .slice = 20, .base = by_user, .address_stride = 2},
         {.tensor = cached, .slice = 24, .base = 1},
         2,
         28,
         24,
         10);
    copy(text, {.tensor = cached, .slice = 24, .base = 1}, {.tensor = used, .slice = 26, .base = 1}, 2, 120, 26, 12);
    for (const std::int32_t slot : {0, 1}) {
      copy(text,
           {.tensor = experts, .slice = 28, .base = slot == 0 ? by_first : by_second, .is_registered = true},
           {.tensor = chosen, .row = slot, .slice = 25, .address = slot, .base = 1},
           1,
           60 + 10 * slot,
           25,
           11);
    }
    add_ballast(text);
    grow_text(text);
    scheduler::sort_instructions(text);
    declare_operations(text);
  }

  void add_ballast(Text& text) const {
    const std::int32_t slices = program_.chip.slices_per_hemisphere;
    const std::uint16_t ballast = add_tensor(text, "ballast", node::TensorScope::kStatic, 2 * slices, {});
    for (const node::Hemisphere hemisphere : {node::Hemisphere::kWest, node::Hemisphere::kEast}) {
      node::Allocation out;
      out.tensor = ballast;
      out.hemisphere = hemisphere;
      out.row = hemisphere == node::Hemisphere::kWest ? 0 : slices;
      out.address = 8000;
      out.count[0] = slices;
      out.row_stride[0] = 1;
      out.slice_stride[0] = 1;
      text.allocations.push_back(out);
    }
  }

  /// Rows of the program text for what was added.
  static void grow_text(Text& text) {
    for (node::Tensor& tensor : text.tensors) {
      if (tensor.name == "program_text") {
        tensor.rows += 4;
        for (node::Allocation& allocation : text.allocations) {
          if (&text.tensors[allocation.tensor] == &tensor) {
            allocation.count[0] += 4;
          }
        }
      }
    }
  }

  scheduler::ClusterProgram program_;
};

}  // namespace lpu::test
