#include "verify_mxm.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>

#include "verify_burst.hpp"
#include "verify_sums.hpp"

namespace lpu::scheduler::proof {
namespace {

using node::Opcode;

/// One filling of a plane's weight buffer and what becomes of it.
struct Tile {
  ValueName name;
  std::int64_t first_install = 0;
  std::int64_t last_install = 0;
  std::int32_t install = -1;
  std::int64_t taken_up = std::numeric_limits<std::int64_t>::max();
  std::int64_t last_compute = std::numeric_limits<std::int64_t>::min();
  std::int32_t first_user = -1;
};

struct Plane {
  std::vector<Tile> tiles;
  std::vector<AccumulatorEvent> events;
};

class MxmProof {
 public:
  MxmProof(const TextFacts& facts, const LaneMap& map, LaneTable& table, Findings& findings)
      : facts_(facts), map_(map), table_(table), findings_(findings) {}

  void run() {
    for_each(Opcode::kInstall, [&](std::int32_t number) { collect_install(number); });
    for (auto& [lane, plane] : planes_) {
      std::sort(plane.tiles.begin(), plane.tiles.end(), [](const Tile& a, const Tile& b) {
        return std::tie(a.name, a.last_install) < std::tie(b.name, b.last_install);
      });
    }
    for_each(Opcode::kCompute, [&](std::int32_t number) { collect_compute(number); });
    for_each(Opcode::kDrain, [&](std::int32_t number) { collect_drain(number); });
    for (auto& [lane, plane] : planes_) {
      claim_tiles(lane, plane);
      prove_sums(facts_, map_, lane, std::move(plane.events), table_, findings_);
    }
  }

 private:
  template <typename Visit>
  void for_each(Opcode opcode, Visit&& visit) {
    for (std::size_t i = 0; i < facts_.text.instructions.size(); ++i) {
      if (facts_.text.instructions[i].opcode == opcode) {
        visit(static_cast<std::int32_t>(i));
      }
    }
  }
  [[nodiscard]] const Instruction& at(std::int32_t number) const {
    return facts_.text.instructions[static_cast<std::size_t>(number)];
  }
  [[nodiscard]] ValueName name(const Instruction& instruction, const StreamOperand& operand, std::int64_t row) const {
    return {operand.tensor, facts_.value_class(instruction, operand), row};
  }
  [[nodiscard]] std::string value(const ValueName& name) const {
    return value_of(facts_, std::get<0>(name), std::get<2>(name), std::get<1>(name));
  }

  void collect_install(std::int32_t number) {
    const Instruction& instruction = at(number);
    const StreamOperand& in = instruction.operands[0];
    const StreamOperand& tile = instruction.operands[1];
    const std::int64_t sweep = std::int64_t{instruction.count[1] - 1} * instruction.period[1];
    for (std::int32_t i0 = 0; i0 < instruction.count[0]; ++i0) {
      for (std::int32_t i2 = 0; i2 < instruction.count[2]; ++i2) {
        const std::int64_t cycle =
            instruction.start + std::int64_t{i0} * instruction.period[0] + std::int64_t{i2} * instruction.period[2];
        const std::int64_t row =
            tile.row + std::int64_t{i0} * tile.row_stride[0] + std::int64_t{i2} * tile.row_stride[2];
        const std::int64_t first = in.row + std::int64_t{i0} * in.row_stride[0] + std::int64_t{i2} * in.row_stride[2];
        const std::int32_t plane =
            instruction.index + i0 * instruction.index_stride[0] + i2 * instruction.index_stride[2];
        planes_[map_.plane(instruction.hemisphere, plane)].tiles.push_back({.name = name(instruction, tile, row),
                                                                            .first_install = cycle,
                                                                            .last_install = cycle + sweep,
                                                                            .install = number});
        if (name(instruction, tile, row) != name(instruction, in, first)) {
          findings_.add(cycle,
                        number,
                        "installs a tile named " + value(name(instruction, tile, row)) + " that begins with " +
                            value(name(instruction, in, first)));
          return;
        }
      }
    }
    const bool is_backward = std::abs(in.row_stride[1]) < in.streams && instruction.count[1] > 1;
    if (is_backward || tile.row_stride[1] != 0 || instruction.index_stride[1] != 0) {
      findings_.add(
          instruction.start, number, "column groups of a tile (loop 1) must be other rows of one tile of one plane");
    }
  }

  /// The latest complete tile of that name.
  Tile* find_tile(Plane& plane, const ValueName& name, std::int64_t cycle) {
    const auto after = std::lower_bound(
        plane.tiles.begin(), plane.tiles.end(), std::tie(name, cycle), [](const Tile& tile, const auto& key) {
          return std::tie(tile.name, tile.last_install) < key;
        });
    if (after == plane.tiles.begin() || std::prev(after)->name != name) {
      return nullptr;
    }
    return &*std::prev(after);
  }

  void collect_compute(std::int32_t number) {
    const Instruction& instruction = at(number);
    const StreamOperand& in = instruction.operands[0];
    const StreamOperand& resident = instruction.operands[1];
    bool is_reported = false;
    for (std::int32_t i0 = 0; i0 < instruction.count[0]; ++i0) {
      for (std::int32_t i1 = 0; i1 < instruction.count[1]; ++i1) {
        for (std::int32_t i2 = 0; i2 < instruction.count[2]; ++i2) {
          const std::array<std::int32_t, 3> loops{i0, i1, i2};
          AccumulatorEvent event{.accumulator = instruction.address, .cycle = instruction.start, .instruction = number};
          std::int32_t unit = instruction.index;
          std::int64_t row = in.row;
          std::int64_t tile_row = resident.row;
          bool overwrites = (instruction.mode & node::kComputeOverwrites) != 0;
          for (std::size_t l = 0; l < 3; ++l) {
            event.cycle += std::int64_t{loops[l]} * instruction.period[l];
            event.accumulator += loops[l] * instruction.address_stride[l];
            unit += loops[l] * instruction.index_stride[l];
            row += std::int64_t{(in.held >> l & 1U) != 0 ? 0 : loops[l]} * in.row_stride[l];
            tile_row += std::int64_t{loops[l]} * resident.row_stride[l];
            overwrites = overwrites && ((instruction.mode >> l & 1U) == 0 || loops[l] == 0);
          }
          event.step = overwrites ? Step::kOverwrite : Step::kAdd;
          event.activation = name(instruction, in, row);
          event.tile_tensor = resident.tensor;
          Plane& plane = planes_[map_.plane(instruction.hemisphere, unit)];
          is_reported =
              use_tile(plane, name(instruction, resident, tile_row), event.cycle, number, is_reported) || is_reported;
          add_event(plane, event, is_reported);
        }
      }
    }
  }

  /// @return whether a breach was found
  bool use_tile(Plane& plane, const ValueName& name, std::int64_t cycle, std::int32_t number, bool is_reported) {
    Tile* tile = find_tile(plane, name, cycle);
    if (tile != nullptr) {
      if (cycle < tile->taken_up) {
        tile->taken_up = cycle;
        tile->first_user = number;
      }
      tile->last_compute = std::max(tile->last_compute, cycle);
      return false;
    }
    if (is_reported) {
      return true;
    }
    std::string reason = "computes with tile " + value(name);
    const auto later =
        std::find_if(plane.tiles.begin(), plane.tiles.end(), [&](const Tile& t) { return t.name == name; });
    if (later == plane.tiles.end()) {
      reason += ", which is never installed in that plane";
    } else {
      reason += " before it is installed: " + name_of(facts_, later->install) + " completes it in cycle " +
                std::to_string(later->last_install);
    }
    findings_.add(cycle, number, reason);
    return true;
  }

  void collect_drain(std::int32_t number) {
    const Instruction& instruction = at(number);
    bool is_reported = false;
    for_each_run(make_burst(instruction, nullptr), [&](const Run& run) {
      for (std::int32_t i = 0; i < run.count; ++i) {
        add_event(planes_[map_.plane(instruction.hemisphere, run.index)],
                  {.accumulator = run.address + i * run.address_stride,
                   .cycle = run.cycle + i * run.period,
                   .step = Step::kDrain,
                   .instruction = number},
                  is_reported);
      }
    });
  }

  void add_event(Plane& plane, const AccumulatorEvent& event, bool& is_reported) {
    if (event.accumulator >= 0 && event.accumulator < facts_.chip.mxm_accumulators_per_plane) {
      plane.events.push_back(event);
    } else if (!is_reported) {
      is_reported = true;
      findings_.add(event.cycle,
                    event.instruction,
                    "accumulator " + std::to_string(event.accumulator) + " of " +
                        std::to_string(facts_.chip.mxm_accumulators_per_plane));
    }
  }

  void claim_tiles(std::uint32_t lane, const Plane& plane) {
    for (const Tile& tile : plane.tiles) {
      if (tile.first_user < 0) {
        findings_.add(
            tile.last_install,
            tile.install,
            "installs tile " + value(tile.name) + ", which no compute takes up: the buffer can never be filled again");
        continue;
      }
      table_.add({.lane = lane,
                  .cells = 1U << kBufferCell,
                  .first = tile.first_install,
                  .count = static_cast<std::int32_t>(tile.taken_up - tile.first_install),
                  .instruction = tile.install});
      table_.add({.lane = lane,
                  .cells = 1U << kArrayCell,
                  .first = tile.taken_up,
                  .count = static_cast<std::int32_t>(tile.last_compute - tile.taken_up + 1),
                  .instruction = tile.first_user});
    }
  }

  const TextFacts& facts_;
  const LaneMap& map_;
  LaneTable& table_;
  Findings& findings_;
  std::map<std::uint32_t, Plane> planes_;
};

}  // namespace

void prove_mxm(const TextFacts& facts, const LaneMap& map, LaneTable& table, Findings& findings) {
  MxmProof(facts, map, table, findings).run();
}

}  // namespace lpu::scheduler::proof
