#include "lpu/node/check_users.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "instances.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

constexpr std::int32_t kNobody = -1;

/// Whose each row is, by (name, absolute layer, row in the owner's part): the same on all chips.
using RowUsers = std::unordered_map<std::uint64_t, std::int32_t>;

struct Moment {
  std::int64_t cycle = 0;
  std::int32_t instruction = 0;
  LoopIndex at{};
};

class UserChecker {
 public:
  UserChecker(const ChipProgram& text, const ChipBinding& chip, RowUsers& rows)
      : text_(text), chip_(chip), rows_(rows) {
    for (const Tensor& tensor : text.tensors) {
      origins_.push_back(
          fold(digest_text(tensor.name), static_cast<std::uint64_t>(chip.first_layer + tensor.layer_slot)));
    }
  }

  /// @return whether a row became somebody's
  bool run() {
    has_learnt_ = false;
    sums_.clear();
    for (const Moment& moment : moments()) {
      check(moment);
    }
    return has_learnt_;
  }

 private:
  [[nodiscard]] std::vector<Moment> moments() const {
    std::vector<Moment> out;
    for (std::size_t i = 0; i < text_.instructions.size(); ++i) {
      const Instruction& in = text_.instructions[i];
      const bool moves_rows = in.opcode == Opcode::kRead || in.opcode == Opcode::kSend || in.opcode == Opcode::kReceive;
      const bool has_values = std::any_of(in.operands.begin(), in.operands.end(), [&](const StreamOperand& operand) {
        return operand.kind != OperandKind::kNone && (is_value(operand) || own_user(in) != kNobody);
      });
      if (moves_rows || in.opcode == Opcode::kInstall || !has_values) {
        continue;
      }
      for_each_instance(in, [&](const LoopIndex& at) {
        out.push_back({affine(in.start, in.period, at), static_cast<std::int32_t>(i), at});
      });
    }
    // A drain comes before the compute that begins the next sum; an append after what makes its row.
    const auto rank = [&](const Moment& moment) {
      const Opcode opcode = text_.instructions[static_cast<std::size_t>(moment.instruction)].opcode;
      return opcode == Opcode::kDrain ? 0 : opcode == Opcode::kWrite ? 2 : 1;
    };
    std::stable_sort(out.begin(), out.end(), [&](const Moment& a, const Moment& b) {
      return std::tuple(a.cycle, rank(a)) < std::tuple(b.cycle, rank(b));
    });
    return out;
  }

  [[nodiscard]] bool is_value(const StreamOperand& operand) const {
    return text_.tensors[operand.tensor].scope == TensorScope::kIteration;
  }
  [[nodiscard]] std::int32_t own_user(const Instruction& in) const {
    const BaseRegister& base = text_.registers[in.base_register];
    const bool selects =
        base.kind == RegisterKind::kUser || base.kind == RegisterKind::kAppend || base.kind == RegisterKind::kToken;
    return selects ? base.user_in_batch : kNobody;
  }

  void check(const Moment& moment) {
    const Instruction& in = text_.instructions[static_cast<std::size_t>(moment.instruction)];
    std::int32_t user = in.opcode == Opcode::kWrite ? own_user(in) : kNobody;
    for (const StreamOperand& operand : in.operands) {
      if (operand.kind == OperandKind::kIn || operand.kind == OperandKind::kResident) {
        for (std::int32_t j = 0; j < (operand.kind == OperandKind::kIn ? operand.streams : 1); ++j) {
          user = meet(user, user_of(in, operand, row(in, operand, moment.at) + j), moment);
        }
      }
    }
    if (in.opcode == Opcode::kCompute || in.opcode == Opcode::kDrain) {
      std::int32_t& sum = sums_.try_emplace(accumulator(in, moment.at), kNobody).first->second;
      sum = is_first(in, moment.at) ? user : meet(sum, user, moment);
      user = sum;
    }
    for (const StreamOperand& operand : in.operands) {
      if (operand.kind == OperandKind::kOut && is_value(operand)) {
        for (std::int32_t j = 0; j < operand.streams; ++j) {
          give(operand, row(in, operand, moment.at) + j, user, moment);
        }
      }
    }
  }

  [[nodiscard]] std::int32_t meet(std::int32_t a, std::int32_t b, const Moment& moment) const {
    if (a != kNobody && b != kNobody && a != b) {
      throw ScheduleViolation({.chip = chip_.chip,
                               .cycle = moment.cycle,
                               .instruction = moment.instruction,
                               .reason = "brings together values of users " + std::to_string(std::min(a, b)) + " and " +
                                         std::to_string(std::max(a, b)) + " of the micro-batch"});
    }
    return a == kNobody ? b : a;
  }

  /// First row of an operand; over a held loop it is the one that is taken at its start, or given at its end.
  [[nodiscard]] static std::int64_t row(const Instruction& in, const StreamOperand& operand, LoopIndex at) {
    for (std::size_t l = 0; l < at.size(); ++l) {
      if ((operand.held >> l & 1U) != 0) {
        at[l] = static_cast<std::uint16_t>(operand.kind == OperandKind::kOut ? in.count[l] - 1 : 0);
      }
    }
    return affine(operand.row, operand.row_stride, at);
  }
  [[nodiscard]] std::uint64_t key(const StreamOperand& operand, std::int64_t at) const {
    const Tensor& tensor = text_.tensors[operand.tensor];
    const std::int64_t in_part = tensor.owner == TensorOwner::kGathered ? at % tensor.rows_per_slot : at;
    return fold(origins_[operand.tensor], static_cast<std::uint64_t>(in_part));
  }
  [[nodiscard]] std::int32_t user_of(const Instruction& in, const StreamOperand& operand, std::int64_t at) const {
    if (!is_value(operand)) {
      return own_user(in);
    }
    const auto found = rows_.find(key(operand, at));
    return found == rows_.end() ? kNobody : found->second;
  }
  void give(const StreamOperand& operand, std::int64_t at, std::int32_t user, const Moment& moment) {
    if (user == kNobody) {
      return;
    }
    const auto [own, is_new] = rows_.try_emplace(key(operand, at), user);
    static_cast<void>(meet(own->second, user, moment));
    has_learnt_ = has_learnt_ || is_new;
  }

  [[nodiscard]] static std::tuple<Hemisphere, std::int64_t, std::int64_t> accumulator(const Instruction& in,
                                                                                      const LoopIndex& at) {
    return {in.hemisphere, unit_of(in, at), affine(in.address, in.address_stride, at)};
  }
  [[nodiscard]] static bool is_first(const Instruction& in, const LoopIndex& at) {
    bool out = in.opcode == Opcode::kCompute && (in.mode & kComputeOverwrites) != 0;
    for (std::size_t l = 0; l < at.size(); ++l) {
      out = out && ((in.mode >> l & 1U) == 0 || at[l] == 0);
    }
    return out;
  }

  const ChipProgram& text_;
  const ChipBinding& chip_;
  RowUsers& rows_;
  std::vector<std::uint64_t> origins_;  ///< per tensor
  std::map<std::tuple<Hemisphere, std::int64_t, std::int64_t>, std::int32_t> sums_;
  bool has_learnt_ = false;
};

/// Where a chip embeds, appends or reads for some user of the micro-batch, or writes its token, it does so for each.
void check_every_user_is_served(const ChipProgram& text, std::int32_t chip, std::int32_t micro_batch) {
  struct Use {
    std::set<std::int64_t> users;
    std::int32_t first = -1;  ///< instruction
  };
  std::map<std::string, Use> uses;
  const auto note = [&](const char* what, std::int64_t user, std::size_t instruction) {
    Use& use = uses[what];
    use.users.insert(user);
    use.first = use.first < 0 ? static_cast<std::int32_t>(instruction) : use.first;
  };
  for (std::size_t i = 0; i < text.instructions.size(); ++i) {
    const Instruction& in = text.instructions[i];
    const BaseRegister& base = text.registers[in.base_register];
    if (info(in.opcode).unit != Unit::kMem) {
      continue;
    }
    if (base.kind == RegisterKind::kToken) {
      note("embeds", base.user_in_batch, i);
    } else if (base.kind == RegisterKind::kAppend) {
      note("appends", base.user_in_batch, i);
    } else if (base.kind == RegisterKind::kUser) {
      note("uses a cache", base.user_in_batch, i);
    } else if (in.opcode == Opcode::kWrite && text.tensors[in.operands[0].tensor].name == kTokenTensor) {
      for_each_instance(in, [&](const LoopIndex& at) {
        note("writes a token", affine(in.operands[0].row, in.operands[0].row_stride, at), i);
      });
    }
  }
  for (const auto& [what, use] : uses) {
    for (std::int64_t user = 0; user < micro_batch; ++user) {
      if (!use.users.contains(user)) {
        throw ScheduleViolation({.chip = chip,
                                 .cycle = text.instructions[static_cast<std::size_t>(use.first)].start,
                                 .instruction = use.first,
                                 .reason = what + " for some users of the micro-batch, not for user " +
                                           std::to_string(user) + " of " + std::to_string(micro_batch)});
      }
    }
  }
}

}  // namespace

void check_users(std::span<const ChipProgram> texts, std::span<const ChipBinding> chips, const IterationPlan& plan) {
  if (plan.micro_batch < 2) {
    return;
  }
  std::vector<const ChipBinding*> order;
  std::set<std::tuple<std::int32_t, std::int32_t>> kinds;  // chips of one text and layer do the same
  for (const ChipBinding& chip : chips) {
    if (chip.text >= 0 && kinds.emplace(chip.text, chip.first_layer).second) {
      order.push_back(&chip);
    }
  }
  std::stable_sort(
      order.begin(), order.end(), [](const ChipBinding* a, const ChipBinding* b) { return a->stage < b->stage; });
  for (const ChipBinding* chip : order) {
    check_every_user_is_served(texts[static_cast<std::size_t>(chip->text)], chip->chip, plan.micro_batch);
  }
  RowUsers rows;
  for (bool has_learnt = true; has_learnt;) {
    has_learnt = false;
    for (const ChipBinding* chip : order) {
      has_learnt = UserChecker(texts[static_cast<std::size_t>(chip->text)], *chip, rows).run() || has_learnt;
    }
  }
}

}  // namespace lpu::node
