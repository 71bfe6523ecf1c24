// Kinds that break what units wait for: values on streams, tiles in a plane, sums in an accumulator.

#include <algorithm>
#include <array>
#include <limits>

#include "mutate_kinds.hpp"

namespace lpu::scheduler {
namespace {

using node::Instruction;
using node::Opcode;
using node::OperandKind;
using node::Unit;

[[nodiscard]] Change replace_with(std::int32_t number,
                                  const Instruction& edited,
                                  std::int64_t cycle,
                                  std::int32_t witness,
                                  std::int64_t witness_cycle,
                                  const std::string& why) {
  return [=](TextEditor& editor, Planted& planted) {
    editor.replace(number, edited);
    planted.site = {.chip = -1, .cycle = cycle, .instruction = editor.index_of(number)};
    if (witness >= 0) {
      planted.witnesses.push_back({.chip = -1, .cycle = witness_cycle, .instruction = editor.index_of(witness)});
    }
    planted.description = why;
  };
}

/// A unit takes its first value one cycle before that stands there. The value is real only if nothing equal stood there
/// in the cycle before (a row that is read again and again).
std::optional<Change> find_early(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  for (const std::int32_t number : draw.round(view.size())) {
    const Instruction& instruction = view.at(number);
    if (view.unit(number) == Unit::kMem || view.unit(number) == Unit::kC2c || instruction.start < 1) {
      continue;
    }
    for (const node::StreamOperand& operand : instruction.operands) {
      if (operand.kind != OperandKind::kIn) {
        continue;
      }
      const auto before = view.standing(operand.hemisphere,
                                        operand.direction,
                                        operand.stream,
                                        node::unit_position(instruction, view.chip()),
                                        instruction.start - 1,
                                        view.interval());
      if (std::ranges::any_of(
              before, [&](const Flow& flow) { return flow.tensor == operand.tensor && flow.row == operand.row; })) {
        continue;
      }
      Instruction edited = instruction;
      --edited.start;
      return replace_with(number,
                          edited,
                          edited.start,
                          -1,
                          -1,
                          name_of(view, number) + " in cycle " + std::to_string(edited.start) + " instead of " +
                              std::to_string(instruction.start));
    }
  }
  return std::nullopt;
}

/// The tile that a compute names first, among the tiles of its plane.
struct Named {
  std::vector<TileInstall> tiles;
  std::size_t at = 0;
};
[[nodiscard]] std::optional<Named> named_tile(const TextView& view, const Instruction& compute) {
  Named named{.tiles = view.installs(compute.hemisphere, compute.index), .at = 0};
  const TileInstall wanted{
      .cycle = 0, .instruction = -1, .tile = compute.operands[1], .base_register = compute.base_register};
  bool is_found = false;
  for (std::size_t i = 0; i < named.tiles.size(); ++i) {
    if (named.tiles[i].cycle < compute.start && named.tiles[i].is_same_tile(wanted)) {
      named.at = i;
      is_found = true;
    }
  }
  return is_found ? std::optional(named) : std::nullopt;
}

/// The first compute names the tile that is installed after its own: buffer and array hold its own tile and the one
/// before, so the next can be neither, unless it is the same as the one before.
[[nodiscard]] std::optional<Change> name_next_tile(const TextView& view, std::int32_t number, const Named& named) {
  const Instruction& compute = view.at(number);
  const std::size_t tiles = named.tiles.size();
  if (named.at + 1 >= tiles) {
    return std::nullopt;
  }
  const TileInstall& own = named.tiles[named.at];
  const TileInstall& next = named.tiles[named.at + 1];
  const TileInstall& before = named.tiles[(named.at + tiles - 1) % tiles];
  const bool is_registered = next.tile.is_registered != 0;
  if (next.is_same_tile(own) || next.is_same_tile(before) ||
      (is_registered && next.base_register != compute.base_register)) {
    return std::nullopt;
  }
  Instruction edited = compute;
  node::StreamOperand& tile = edited.operands[1];
  tile.tensor = next.tile.tensor;
  tile.row = next.tile.row;
  tile.is_registered = next.tile.is_registered;
  std::int64_t last = tile.row;
  for (std::size_t l = 0; l < 3; ++l) {
    last += std::int64_t{edited.count[l] - 1} * tile.row_stride[l];
  }
  if (last >= view.text().tensors[tile.tensor].rows) {
    return std::nullopt;  // a row that the tensor does not have is another fault
  }
  const std::string why =
      name_of(view, number) + " names the tile that is complete only after cycle " + std::to_string(next.cycle);
  return [=](TextEditor& editor, Planted& planted) {
    editor.replace(number, edited);
    planted.site = {.chip = -1, .cycle = edited.start, .instruction = editor.index_of(number)};
    for (const TileInstall& install : {own, next}) {  // no compute takes up the one, the other comes too late
      planted.witnesses.push_back(
          {.chip = -1, .cycle = install.cycle, .instruction = editor.index_of(install.instruction)});
    }
    planted.description = why;
  };
}

/// The compute moves to the cycle of its tile's last install, one before it may name it.
[[nodiscard]] std::optional<Change> before_last_install(const TextView& view, std::int32_t number, const Named& named) {
  const Instruction& compute = view.at(number);
  const std::size_t tiles = named.tiles.size();
  const TileInstall& own = named.tiles[named.at];
  if (own.cycle < 0 || own.is_same_tile(named.tiles[(named.at + tiles - 1) % tiles])) {
    return std::nullopt;  // the array may still hold it from the iteration before
  }
  Instruction edited = compute;
  edited.start = static_cast<std::int32_t>(own.cycle);
  return replace_with(number,
                      edited,
                      edited.start,
                      own.instruction,
                      own.cycle,
                      name_of(view, number) + " in cycle " + std::to_string(edited.start) +
                          ", in which its tile's last columns are installed");
}

std::optional<Change> find_weights(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  for (const bool by_name : {true, false}) {
    for (const std::int32_t number : draw.round(view.size())) {
      if (view.at(number).opcode != Opcode::kCompute) {
        continue;
      }
      if (const auto named = named_tile(view, view.at(number))) {
        auto change = by_name ? name_next_tile(view, number, *named) : before_last_install(view, number, *named);
        if (change) {
          return change;
        }
      }
    }
  }
  return std::nullopt;
}

/// A drain reads one cycle before the last product of its first sum has arrived.
std::optional<Change> find_drain(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  const std::int64_t latency = view.chip().mxm_latency.count();
  for (const std::int32_t number : draw.round(view.size())) {
    const Instruction& drain = view.at(number);
    if (drain.opcode != Opcode::kDrain) {
      continue;
    }
    std::int64_t last = std::numeric_limits<std::int64_t>::min();
    std::int32_t by = -1;
    for (std::int32_t other = 0; other < view.size(); ++other) {
      const Instruction& compute = view.at(other);
      if (compute.opcode != Opcode::kCompute || compute.hemisphere != drain.hemisphere) {
        continue;
      }
      for_each_instance(compute, view.chip(), [&](const Instance& instance) {
        std::int32_t accumulator = compute.address;
        for (std::size_t l = 0; l < 3; ++l) {
          accumulator += instance.i[l] * compute.address_stride[l];
        }
        if (instance.unit == drain.index && accumulator == drain.address && instance.cycle + latency <= drain.start &&
            instance.cycle > last) {
          last = instance.cycle;
          by = other;
        }
      });
    }
    const std::int64_t early = last + latency - 1;
    if (by < 0 || early < 0) {
      continue;
    }
    Instruction edited = drain;
    edited.start = static_cast<std::int32_t>(early);
    return replace_with(number,
                        edited,
                        early,
                        by,
                        last,
                        name_of(view, number) + " in cycle " + std::to_string(early) + "; the last product of cycle " +
                            std::to_string(last) + " is there in cycle " + std::to_string(last + latency));
  }
  return std::nullopt;
}

constexpr std::array<TextKind, 3> kKinds{{
    {{"consumer-early", "a unit takes a value one cycle before it stands there"}, find_early},
    {{"weights-not-installed", "a compute names a tile that is not installed yet"}, find_weights},
    {{"drained-early", "an accumulator is drained one cycle before its sum is complete"}, find_drain},
}};

}  // namespace

std::span<const TextKind> unit_kinds() {
  return kKinds;
}

}  // namespace lpu::scheduler
