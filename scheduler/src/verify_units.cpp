#include "verify_units.hpp"

#include <algorithm>
#include <bit>
#include <numeric>
#include <set>
#include <tuple>

#include "verify_burst.hpp"
#include "verify_rows.hpp"

namespace lpu::scheduler::proof {
namespace {

using node::Opcode;
using node::OperandKind;
using node::Unit;

/// A bit set turned by `by` places within `size`.
std::uint32_t rotate(std::uint32_t bits, std::int64_t by, std::int32_t size) {
  std::uint32_t out = 0;
  for (std::int32_t bit = 0; bit < size; ++bit) {
    if ((bits >> bit & 1U) != 0) {
      out |= 1U << floor_mod(bit + by, size);
    }
  }
  return out;
}

/// Ports and banks of one run on one slice. Where the address walks through the banks, the run falls into one
/// progression per bank visited.
void claim_slice(const TextFacts& facts,
                 const Instruction& instruction,
                 const Run& run,
                 const PlaceShift& shift,
                 Claim claim,
                 LaneTable& table) {
  const std::int32_t banks = facts.chip.banks_per_slice;
  const auto walk = static_cast<std::int32_t>(floor_mod(run.address_stride, banks));
  const std::int32_t visited = run.count == 1 || walk == 0 ? 1 : banks / std::gcd(walk, banks);
  const std::uint32_t port = 1U << (instruction.opcode == Opcode::kRead ? kReadPortCell : kWritePortCell);
  for (std::int32_t v = 0; v < visited && v < run.count; ++v) {
    const std::uint32_t bank = rotate(shift.banks, run.address + v * run.address_stride, banks);
    Claim part = claim;
    part.first = claim.first + v * run.period;
    part.period = run.period * visited;
    part.count = (run.count - v + visited - 1) / visited;
    part.cells = port | bank << kFirstBankCell;
    table.add(part);
  }
}

/// A burst starts on every slice that it issues from, in the cycle of its first instance there.
void claim_slice_queues(const TextFacts& facts, const LaneMap& map, std::int32_t number, LaneTable& table) {
  const Instruction& instruction = facts.text.instructions[static_cast<std::size_t>(number)];
  Burst burst = make_burst(instruction, nullptr);
  for (Axis& axis : burst.axes) {
    axis = axis.index == 0 ? Axis{} : axis;
  }
  std::vector<std::pair<std::int32_t, std::int64_t>> firsts;
  for_each_run(burst, [&](const Run& run) { firsts.emplace_back(run.index, run.cycle); });
  std::sort(firsts.begin(), firsts.end());
  firsts.erase(
      std::unique(firsts.begin(), firsts.end(), [](const auto& a, const auto& b) { return a.first == b.first; }),
      firsts.end());
  std::vector<std::pair<std::int32_t, std::int64_t>> starts;
  for (const PlaceShift& shift : facts.base(instruction).places) {
    for (const auto& [index, cycle] : firsts) {
      if (const std::int32_t slice = index + shift.slice; slice >= 0 && slice < facts.chip.slices_per_hemisphere) {
        starts.emplace_back(slice, slice_cycle(instruction, facts.chip, cycle, slice));
      }
    }
  }
  std::sort(starts.begin(), starts.end());
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
  for (const auto& [slice, cycle] : starts) {
    table.add({.lane = map.slice(instruction.hemisphere, slice),
               .cells = 1U << kSliceQueueCell,
               .first = cycle,
               .instruction = number});
  }
}

void claim_memory(const TextFacts& facts, const LaneMap& map, std::int32_t number, LaneTable& table) {
  const Instruction& instruction = facts.text.instructions[static_cast<std::size_t>(number)];
  for_each_run(make_burst(instruction, nullptr), [&](const Run& run) {
    for (const PlaceShift& shift : facts.base(instruction).places) {
      const std::int32_t slice = run.index + shift.slice;
      if (slice >= 0 && slice < facts.chip.slices_per_hemisphere) {
        const Claim claim{.lane = map.slice(instruction.hemisphere, slice),
                          .first = slice_cycle(instruction, facts.chip, run.cycle, slice),
                          .instruction = number};
        claim_slice(facts, instruction, run, shift, claim, table);
      }
    }
  });
  claim_slice_queues(facts, map, number, table);
}

std::uint32_t plane_cell(Opcode opcode) {
  if (opcode == Opcode::kInstall) {
    return kInstallCell;
  }
  return opcode == Opcode::kCompute ? kComputeCell : kDrainCell;
}

void claim_other(const LaneMap& map, const Instruction& instruction, std::int32_t number, LaneTable& table) {
  for_each_run(make_burst(instruction, nullptr), [&](const Run& run) {
    Claim claim{.first = run.cycle, .period = run.period, .count = run.count, .instruction = number};
    switch (node::info(instruction.opcode).unit) {
      case Unit::kMxm:
        claim.lane = map.plane(instruction.hemisphere, run.index);
        claim.cells = 1U << plane_cell(instruction.opcode);
        break;
      case Unit::kVxm:
        claim.lane = map.alus();
        claim.cells = static_cast<std::uint32_t>(((std::uint64_t{1} << instruction.alus) - 1) << instruction.index);
        break;
      case Unit::kSxm:
        claim.lane = map.sxm(instruction.hemisphere);
        break;
      case Unit::kC2c:
        claim.lane = map.link(run.index);
        claim.cells = 1U << (instruction.opcode == Opcode::kSend ? kPushCell : kTakeCell);
        break;
      case Unit::kMem:
        return;
    }
    table.add(claim);
  });
}

std::string meeting(const TextFacts& facts, const std::string& where, const Clash& clash, std::int64_t other_cycle) {
  return where + " is taken twice: " + name_of(facts, clash.late.instruction) + " meets " +
         name_of(facts, clash.early.instruction) + ", cycle " + std::to_string(other_cycle) +
         iterations_later(clash.iterations);
}

}  // namespace

void claim_units(const TextFacts& facts, const LaneMap& map, LaneTable& table) {
  for (std::size_t i = 0; i < facts.text.instructions.size(); ++i) {
    const auto number = static_cast<std::int32_t>(i);
    if (node::info(facts.text.instructions[i].opcode).unit == Unit::kMem) {
      claim_memory(facts, map, number, table);
    } else {
      claim_other(map, facts.text.instructions[i], number, table);
    }
  }
}

void prove_claims(const TextFacts& facts, const LaneMap& map, const LaneTable& table, Findings& findings) {
  table.prove(facts.interval, map.lanes(), [&](const Clash& clash) {
    const auto cell = static_cast<std::uint32_t>(std::countr_zero(clash.cells));
    const std::int32_t step = map.stream_step(clash.late.lane);
    std::string where = map.describe(clash.late.lane, cell);
    std::int64_t shift = 0;
    if (step != 0) {  // from the diagonal's clock to the register's
      where += ", register " + std::to_string(cell) + ",";
      shift = step * static_cast<std::int64_t>(cell);
    }
    Clash named = clash;
    if (clash.iterations == 0 && clash.early.instruction > clash.late.instruction) {
      std::swap(named.early, named.late);
    }
    findings.add(named.late_at + shift, named.late.instruction, meeting(facts, where, named, named.early_at + shift));
    return !findings.is_full();
  });
}

void prove_sxm_width(const TextFacts& facts, Findings& findings) {
  for (std::size_t i = 0; i < facts.text.instructions.size(); ++i) {
    const Instruction& instruction = facts.text.instructions[i];
    if (node::info(instruction.opcode).unit != Unit::kSxm) {
      continue;
    }
    std::int32_t in = 0;
    std::int32_t out = 0;
    for (const StreamOperand& operand : instruction.operands) {
      in += operand.kind == OperandKind::kIn ? operand.streams : 0;
      out += operand.kind == OperandKind::kOut ? operand.streams : 0;
    }
    if (std::max(in, out) > facts.chip.sxm_streams_per_cycle) {
      findings.add(instruction.start,
                   static_cast<std::int32_t>(i),
                   "SXM " + std::string(node::info(instruction.opcode).name) + " takes " + std::to_string(in) +
                       " streams and gives " + std::to_string(out) + "; at most " +
                       std::to_string(facts.chip.sxm_streams_per_cycle) + " a cycle");
    }
  }
}

void prove_fetch(const TextFacts& facts, Findings& findings) {
  struct Fetch {
    std::int64_t folded, start, bytes;
    std::int32_t instruction;
  };
  std::vector<Fetch> fetches;
  for (std::size_t i = 0; i < facts.text.instructions.size(); ++i) {
    const Instruction& instruction = facts.text.instructions[i];
    fetches.push_back({floor_mod(instruction.start, facts.interval),
                       instruction.start,
                       node::text_size(instruction, facts.chip).count(),
                       static_cast<std::int32_t>(i)});
  }
  std::stable_sort(fetches.begin(), fetches.end(), [](const Fetch& a, const Fetch& b) { return a.folded < b.folded; });
  for (std::size_t begin = 0; begin < fetches.size();) {
    std::int64_t bytes = 0;
    std::size_t end = begin;
    const Fetch* over = nullptr;
    std::int64_t latest = 0;
    for (; end < fetches.size() && fetches[end].folded == fetches[begin].folded; ++end) {
      bytes += fetches[end].bytes;
      latest = std::max(latest, fetches[end].start);
      if (bytes > facts.chip.fetch_bytes_per_cycle && over == nullptr) {
        over = &fetches[end];
      }
    }
    if (over != nullptr) {
      const std::int64_t m = (latest - fetches[begin].start) / facts.interval;
      findings.add(over->start,
                   over->instruction,
                   "fetch of " + std::to_string(bytes) + " bytes by " + std::to_string(end - begin) +
                       " instructions that start together" +
                       (m != 0 ? ", those" + iterations_later(m) + " included" : "") + "; at most " +
                       std::to_string(facts.chip.fetch_bytes_per_cycle) + " a cycle");
    }
    begin = end;
  }
}

void prove_text_size(const TextFacts& facts, Findings& findings) {
  std::int64_t bytes = 0;
  for (const Instruction& instruction : facts.text.instructions) {
    bytes += node::text_size(instruction, facts.chip).count();
  }
  std::set<Place> places;  // a place that two rows name holds one of them
  for (const node::Allocation& allocation : facts.text.allocations) {
    const node::Tensor& tensor = facts.text.tensors[allocation.tensor];
    if (tensor.name == "program_text" && tensor.scope == node::TensorScope::kStatic) {
      for_each_cell(allocation, [&](std::int32_t slice, std::int32_t address, std::int32_t /*row*/) {
        places.insert(place_of(allocation.hemisphere, slice, address));
      });
    }
  }
  const auto vectors = static_cast<std::int64_t>(places.size());
  if (bytes > vectors * facts.chip.vector_bytes) {
    findings.add(-1,
                 -1,
                 "program text of " + std::to_string(bytes) +
                     " bytes; its allocation (static tensor 'program_text') holds " +
                     std::to_string(vectors * facts.chip.vector_bytes));
  }
}

void prove_queues(const TextFacts& facts, Findings& findings) {
  std::set<std::tuple<Unit, std::int32_t, std::int32_t, std::int32_t>> queues;  // unit, hemisphere, its number, kind
  for (std::size_t i = 0; i < facts.text.instructions.size(); ++i) {
    const Instruction& in = facts.text.instructions[i];
    const Unit unit = node::info(in.opcode).unit;
    const bool is_on_a_side = unit == Unit::kMem || unit == Unit::kMxm || unit == Unit::kSxm;
    const std::int32_t side = is_on_a_side ? static_cast<std::int32_t>(in.hemisphere) : 0;
    const std::int32_t kind = unit == Unit::kMxm || unit == Unit::kC2c ? static_cast<std::int32_t>(in.opcode)
                              : unit != Unit::kSxm                     ? 0
                              : in.opcode == Opcode::kTranspose        ? 1
                              : in.opcode == Opcode::kRotate || in.opcode == Opcode::kReduceStep ? 2
                                                                                                 : 3;
    for_each_run(make_burst(in, nullptr), [&](const Run& run) {
      if (unit != Unit::kMem) {
        queues.emplace(unit, side, unit == Unit::kSxm ? 0 : run.index, kind);
        return;
      }
      for (const PlaceShift& shift : facts.base(in).places) {
        queues.emplace(unit, side, run.index + shift.slice, kind);
      }
    });
    if (static_cast<std::int64_t>(queues.size()) > facts.chip.icu_queues) {
      findings.add(in.start,
                   static_cast<std::int32_t>(i),
                   "with it the text uses " + std::to_string(queues.size()) + " instruction queues; the chip has " +
                       std::to_string(facts.chip.icu_queues));
      return;
    }
  }
}

}  // namespace lpu::scheduler::proof
