#include "lpu/node/check_token.hpp"

#include <algorithm>
#include <map>
#include <string>

#include "instances.hpp"
#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

struct Moment {
  std::int64_t cycle = 0;  ///< of the iteration
  std::int32_t instruction = -1;
};
using ByUser = std::map<std::int64_t, Moment>;  ///< by number in the micro-batch

/// Last write of each user's new token.
ByUser token_writes(const ChipProgram& text, const ChipSpec& chip) {
  ByUser out;
  for (std::size_t i = 0; i < text.instructions.size(); ++i) {
    const Instruction& in = text.instructions[i];
    if (in.opcode != Opcode::kWrite || text.tensors[in.operands[0].tensor].name != kTokenTensor) {
      continue;
    }
    for_each_instance(in, [&](const LoopIndex& at) {
      const std::int64_t user = affine(in.operands[0].row, in.operands[0].row_stride, at);
      const std::int64_t cycle = issue_cycle(in, at, unit_of(in, at), chip);
      const auto [last, is_new] = out.try_emplace(user, Moment{cycle, static_cast<std::int32_t>(i)});
      if (!is_new && cycle > last->second.cycle) {
        last->second = {cycle, static_cast<std::int32_t>(i)};
      }
    });
  }
  return out;
}

/// First read by each user's token, wherever the token's row may lie.
ByUser token_reads(const ChipProgram& text, const ChipSpec& chip) {
  ByUser out;
  for (std::size_t i = 0; i < text.instructions.size(); ++i) {
    const Instruction& in = text.instructions[i];
    const BaseRegister& base = text.registers[in.base_register];
    if (in.opcode != Opcode::kRead || base.kind != RegisterKind::kToken) {
      continue;
    }
    for (const Displacement& piece : base.table) {
      for_each_instance(in, [&](const LoopIndex& at) {
        const std::int64_t cycle = issue_cycle(in, at, unit_of(in, at) + piece.slice, chip);
        const auto [first, is_new] = out.try_emplace(base.user_in_batch, Moment{cycle, static_cast<std::int32_t>(i)});
        if (!is_new && cycle < first->second.cycle) {
          first->second = {cycle, static_cast<std::int32_t>(i)};
        }
      });
    }
  }
  return out;
}

}  // namespace

void check_token_loop(std::span<const ChipProgram> texts,
                      std::span<const ChipBinding> chips,
                      const ChipSpec& chip,
                      std::int64_t period) {
  const std::int64_t settle = chip.instruction_propagation.count() + 1;
  for (const ChipBinding& binding : chips) {
    if (binding.text < 0) {
      continue;
    }
    const ChipProgram& text = texts[static_cast<std::size_t>(binding.text)];
    const ByUser reads = token_reads(text, chip);
    const ByUser writes = reads.empty() ? ByUser{} : token_writes(text, chip);
    for (const auto& [user, read] : reads) {
      const auto write = writes.find(user);
      std::string reason = "reads by the token of user " + std::to_string(user) + " of the micro-batch, ";
      if (write == writes.end()) {
        reason += "which this chip never writes";
      } else if (period + read.cycle < write->second.cycle + settle) {
        reason += std::to_string(period + read.cycle - write->second.cycle) + " cycles after instruction " +
                  std::to_string(write->second.instruction) + " of the iteration before writes it; it can be read " +
                  std::to_string(settle) + " after";
      } else {
        continue;
      }
      throw ScheduleViolation({.chip = binding.chip,
                               .cycle = binding.offset + read.cycle,
                               .instruction = read.instruction,
                               .reason = reason});
    }
  }
}

}  // namespace lpu::node
