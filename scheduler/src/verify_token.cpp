#include "verify_token.hpp"

#include <algorithm>
#include <map>

#include "verify_burst.hpp"
#include "verify_memory.hpp"

namespace lpu::scheduler::proof {
namespace {

using node::Opcode;
using node::RegisterKind;

/// Accesses of one user's token.
struct TokenLoop {
  AccessSpan reads;  ///< of what lies at the token: its embedding
  AccessSpan writes;
};

/// @param visit  gets (cycle, row), for each slice that the base register may select
template <typename Visit>
void for_each_access(const TextFacts& facts, const Instruction& instruction, Visit&& visit) {
  for_each_run(make_burst(instruction, &only_operand(instruction)), [&](const Run& run) {
    for (const PlaceShift& shift : facts.base(instruction).places) {
      const std::int32_t slice = run.index + shift.slice;
      if (slice < 0 || slice >= facts.chip.slices_per_hemisphere) {
        continue;  // found by prove_claims
      }
      for (std::int32_t i = 0; i < run.count; ++i) {
        visit(slice_cycle(instruction, facts.chip, run.cycle + i * run.period, slice), run.row + i * run.row_stride);
      }
    }
  });
}

std::map<std::int64_t, TokenLoop> loops_of(const TextFacts& facts) {
  std::map<std::int64_t, TokenLoop> out;
  for (std::size_t i = 0; i < facts.text.instructions.size(); ++i) {
    const Instruction& in = facts.text.instructions[i];
    const auto number = static_cast<std::int32_t>(i);
    const node::BaseRegister& base = facts.text.registers[in.base_register];
    if (in.opcode == Opcode::kRead && base.kind == RegisterKind::kToken) {
      AccessSpan& reads = out[base.user_in_batch].reads;
      for_each_access(
          facts, in, [&](std::int64_t cycle, std::int64_t /*row*/) { reads.include(cycle, cycle, number); });
    } else if (in.opcode == Opcode::kWrite && facts.text.tensors[in.operands[0].tensor].name == node::kTokenTensor) {
      for_each_access(
          facts, in, [&](std::int64_t cycle, std::int64_t row) { out[row].writes.include(cycle, cycle, number); });
    }
  }
  return out;
}

}  // namespace

void prove_token_loop(const ClusterProgram& program, const std::vector<const TextProof*>& texts, Findings& findings) {
  const std::int64_t settle = program.chip.instruction_propagation.count() + 1;
  const std::int64_t period = std::max(program.token_latency, program.plan.initiation_interval);
  std::vector<std::map<std::int64_t, TokenLoop>> loops(texts.size());
  for (std::size_t text = 0; text < texts.size(); ++text) {
    if (texts[text] != nullptr) {
      loops[text] = loops_of(texts[text]->facts);
    }
  }
  for (const node::ChipBinding& chip : program.bindings) {
    if (chip.text < 0) {
      continue;
    }
    for (const auto& [user, loop] : loops[static_cast<std::size_t>(chip.text)]) {
      const AccessSpan& reads = loop.reads;
      const AccessSpan& writes = loop.writes;
      if (reads.first_by < 0) {
        continue;  // the last stage makes tokens; the first reads by them
      }
      const std::string token = "reads by the token of user " + std::to_string(user) + " of the micro-batch";
      if (writes.last_by < 0) {
        findings.add_at(chip.chip, reads.first, reads.first_by, token + ", which this chip never writes");
      } else if (period + reads.first < writes.last + settle) {
        findings.add_at(
            chip.chip,
            reads.first,
            reads.first_by,
            token + " " + std::to_string(writes.last + settle - period - reads.first) + " cycles too early: " +
                name_of(texts[static_cast<std::size_t>(chip.text)]->facts, writes.last_by) + " of the iteration " +
                std::to_string(period) + " cycles before writes it in cycle " + std::to_string(writes.last) +
                ", it can be read from cycle " + std::to_string(writes.last + settle) + " on");
      }
    }
  }
}

}  // namespace lpu::scheduler::proof
