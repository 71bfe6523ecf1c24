#include "verify_users.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>
#include <tuple>

namespace lpu::scheduler::proof {
namespace {

using node::ChipBinding;
using node::Opcode;
using node::OperandKind;
using node::RegisterKind;
using node::Tensor;
using node::TensorOwner;
using node::TensorScope;

using User = std::int16_t;  ///< of the micro-batch, from 0
constexpr User kNobody = -1;

/// An instance of an instruction that touches what may be a user's.
struct Event {
  std::int64_t cycle = 0;
  std::int32_t order = 0;  ///< within a cycle: what comes in, drains, all others, appends after everything
  std::int32_t instruction = 0;
  std::array<std::int32_t, 3> at{};
};

[[nodiscard]] bool names_user(RegisterKind kind) {
  return kind == RegisterKind::kUser || kind == RegisterKind::kAppend || kind == RegisterKind::kToken;
}

/// User that the base register itself selects for an operand.
[[nodiscard]] User register_user(const ChipProgram& text, const Instruction& instruction) {
  const node::BaseRegister& base = text.registers[instruction.base_register];
  return names_user(base.kind) ? static_cast<User>(base.user_in_batch) : kNobody;
}

[[nodiscard]] bool may_touch_users(const ChipProgram& text, const Instruction& instruction) {
  return std::any_of(instruction.operands.begin(), instruction.operands.end(), [&](const StreamOperand& operand) {
    return operand.kind != OperandKind::kNone &&
           (text.tensors[operand.tensor].scope == TensorScope::kIteration ||
            (operand.is_registered != 0 && register_user(text, instruction) != kNobody));
  });
}

[[nodiscard]] bool is_append(const ChipProgram& text, const Instruction& instruction) {
  return instruction.opcode == Opcode::kWrite &&
         text.registers[instruction.base_register].kind == RegisterKind::kAppend;
}

[[nodiscard]] std::vector<Event> list_events(const ChipProgram& text) {
  std::vector<Event> out;
  for (std::size_t number = 0; number < text.instructions.size(); ++number) {
    const Instruction& in = text.instructions[number];
    const bool only_moves = (in.opcode == Opcode::kRead || in.opcode == Opcode::kWrite) && !is_append(text, in);
    if (only_moves || in.opcode == Opcode::kInstall || !may_touch_users(text, in)) {
      continue;
    }
    const std::int32_t order = in.opcode == Opcode::kReceive ? 0
                               : in.opcode == Opcode::kDrain ? 1
                               : is_append(text, in)         ? 3
                                                             : 2;
    for (std::int32_t a = 0; a < in.count[0]; ++a) {
      for (std::int32_t b = 0; b < in.count[1]; ++b) {
        for (std::int32_t c = 0; c < in.count[2]; ++c) {
          out.push_back({.cycle = in.start + std::int64_t{a} * in.period[0] + std::int64_t{b} * in.period[1] +
                                  std::int64_t{c} * in.period[2],
                         .order = order,
                         .instruction = static_cast<std::int32_t>(number),
                         .at = {a, b, c}});
        }
      }
    }
  }
  std::stable_sort(out.begin(), out.end(), [](const Event& a, const Event& b) {
    return std::tuple(a.order == 3, a.cycle, a.order) < std::tuple(b.order == 3, b.cycle, b.order);
  });
  return out;
}

/// Whose the rows are that crossed a wire: by name and absolute layer, then by row in the owner's part.
using Crossed = std::map<std::pair<std::string, std::int64_t>, std::map<std::int64_t, User>>;

/// Follows one chip's iteration.
class Follower {
 public:
  Follower(const ChipProgram& text, const ChipBinding& chip, Crossed& crossed, Findings& findings)
      : text_(text), chip_(chip), crossed_(crossed), findings_(findings) {
    for (const Tensor& tensor : text_.tensors) {
      users_.emplace_back(tensor.scope == TensorScope::kIteration ? static_cast<std::size_t>(tensor.rows) : 0, kNobody);
    }
  }

  void run(const std::vector<Event>& events) {
    for (const Event& event : events) {
      follow(event);
    }
  }

 private:
  void follow(const Event& event) {
    const Instruction& in = text_.instructions[static_cast<std::size_t>(event.instruction)];
    if (in.opcode == Opcode::kReceive) {
      import(event, in);
      return;
    }
    User user = is_append(text_, in) ? register_user(text_, in) : kNobody;
    const StreamOperand* from = nullptr;
    for (const StreamOperand& operand : in.operands) {
      if (operand.kind == OperandKind::kIn || operand.kind == OperandKind::kResident) {
        join(user, from, user_of(event, in, operand), operand, event);
      }
    }
    if (in.opcode == Opcode::kCompute || in.opcode == Opcode::kDrain) {
      User& sum = sums_[accumulator(event, in)];
      if (in.opcode == Opcode::kCompute) {
        const bool is_first = overwrites(event, in);
        sum = is_first ? kNobody : sum;
        if (sum != kNobody && user != kNobody && sum != user) {
          report(event, "adds a product of user " + std::to_string(user) + " to a sum of user " + std::to_string(sum));
        }
        sum = user == kNobody ? sum : user;
      } else {
        user = sum;
      }
    }
    if (in.opcode == Opcode::kSend) {
      export_row(event, in, user);
    }
    for (const StreamOperand& operand : in.operands) {
      if (operand.kind == OperandKind::kOut) {
        make(event, in, operand, user);
      }
    }
  }

  void join(User& user, const StreamOperand*& from, User other, const StreamOperand& operand, const Event& event) {
    if (user != kNobody && other != kNobody && other != user) {
      const std::string first = from == nullptr ? "its register" : "'" + text_.tensors[from->tensor].name + "'";
      report(event,
             "brings together values of users " + std::to_string(user) + " and " + std::to_string(other) +
                 " of the micro-batch: " + first + " and '" + text_.tensors[operand.tensor].name + "'");
    }
    if (user == kNobody && other != kNobody) {
      user = other;
      from = &operand;
    }
  }

  /// Row of an operand's first stream; held loops stand at the instance that takes or gives.
  [[nodiscard]] static std::int64_t row_of(const Event& event, const Instruction& in, const StreamOperand& operand) {
    std::int64_t row = operand.row;
    for (std::size_t l = 0; l < 3; ++l) {
      const bool is_held = (operand.held >> l & 1U) != 0;
      const std::int32_t index = !is_held ? event.at[l] : operand.kind == OperandKind::kOut ? in.count[l] - 1 : 0;
      row += std::int64_t{index} * operand.row_stride[l];
    }
    return row;
  }

  [[nodiscard]] User user_of(const Event& event, const Instruction& in, const StreamOperand& operand) const {
    if (text_.tensors[operand.tensor].scope != TensorScope::kIteration) {
      return register_user(text_, in);  // weights: nobody
    }
    const std::vector<User>& rows = users_[operand.tensor];
    const std::int64_t first = row_of(event, in, operand);
    const std::int64_t streams = operand.kind == OperandKind::kResident ? 1 : operand.streams;
    for (std::int64_t row = first; row < first + streams; ++row) {
      if (row >= 0 && row < static_cast<std::int64_t>(rows.size()) && rows[static_cast<std::size_t>(row)] != kNobody) {
        return rows[static_cast<std::size_t>(row)];
      }
    }
    return kNobody;
  }

  void make(const Event& event, const Instruction& in, const StreamOperand& operand, User user) {
    std::vector<User>& rows = users_[operand.tensor];
    const std::int64_t first = row_of(event, in, operand);
    for (std::int64_t row = first; row < first + operand.streams && user != kNobody; ++row) {
      if (row < 0 || row >= static_cast<std::int64_t>(rows.size())) {
        continue;  // found by prove_rows
      }
      User& own = rows[static_cast<std::size_t>(row)];
      if (own != kNobody && own != user) {
        report(event,
               "makes '" + text_.tensors[operand.tensor].name + "' row " + std::to_string(row) + " of user " +
                   std::to_string(user) + " of the micro-batch, which is user " + std::to_string(own) + "'s");
      }
      own = user;
    }
  }

  [[nodiscard]] std::map<std::int64_t, User>& crossed(const Tensor& tensor) {
    return crossed_[{tensor.name, chip_.first_layer + tensor.layer_slot}];
  }
  [[nodiscard]] static std::int64_t row_in_part(const Tensor& tensor, std::int64_t row) {
    return tensor.owner == TensorOwner::kGathered ? row % tensor.rows_per_slot : row;
  }

  void export_row(const Event& event, const Instruction& in, User user) {
    const StreamOperand& operand = in.operands[0];
    const Tensor& tensor = text_.tensors[operand.tensor];
    if (user == kNobody || tensor.scope != TensorScope::kIteration) {
      return;
    }
    const std::int64_t row = row_of(event, in, operand);
    const auto [known, is_new] = crossed(tensor).try_emplace(row_in_part(tensor, row), user);
    if (!is_new && known->second != user) {
      report(event,
             "sends '" + tensor.name + "' row " + std::to_string(row) + " of user " + std::to_string(user) +
                 " of the micro-batch; on other chips it is user " + std::to_string(known->second) + "'s");
    }
  }

  void import(const Event& event, const Instruction& in) {
    const StreamOperand& operand = in.operands[0];
    const Tensor& tensor = text_.tensors[operand.tensor];
    const std::int64_t row = row_of(event, in, operand);
    const auto& known = crossed(tensor);
    const auto found = known.find(row_in_part(tensor, row));
    if (found != known.end()) {
      make(event, in, operand, found->second);
    }
  }

  [[nodiscard]] static std::tuple<int, std::int64_t, std::int64_t> accumulator(const Event& event,
                                                                               const Instruction& in) {
    std::int64_t plane = in.index;
    std::int64_t number = in.address;
    for (std::size_t l = 0; l < 3; ++l) {
      plane += std::int64_t{event.at[l]} * in.index_stride[l];
      number += std::int64_t{event.at[l]} * in.address_stride[l];
    }
    return {static_cast<int>(in.hemisphere), plane, number};
  }
  [[nodiscard]] static bool overwrites(const Event& event, const Instruction& in) {
    bool is_first = (in.mode & node::kComputeOverwrites) != 0;
    for (std::size_t l = 0; l < 3; ++l) {
      is_first = is_first && ((in.mode >> l & 1U) == 0 || event.at[l] == 0);
    }
    return is_first;
  }

  /// Once an instruction: its other instances repeat it.
  void report(const Event& event, const std::string& reason) {
    if (reported_.insert(event.instruction).second) {
      findings_.add_at(chip_.chip, event.cycle, event.instruction, reason);
    }
  }

  const ChipProgram& text_;
  const ChipBinding& chip_;
  Crossed& crossed_;
  Findings& findings_;
  std::vector<std::vector<User>> users_;  ///< per tensor and row
  std::map<std::tuple<int, std::int64_t, std::int64_t>, User> sums_;
  std::set<std::int32_t> reported_;
};

/// What a chip does once for each user of a micro-batch: bursts of one of these kinds, by user.
enum class Service : std::uint8_t { kEmbeds, kAppends, kReadsCache, kBringsToken };

[[nodiscard]] std::string_view words_of(Service service) {
  switch (service) {
    case Service::kEmbeds:
      return "reads by the token";
    case Service::kAppends:
      return "appends to a cache";
    case Service::kReadsCache:
      return "reads from a cache";
    case Service::kBringsToken:
      return "writes the new token";
  }
  return {};
}

/// A chip that serves one user of the micro-batch in some way serves every user so.
void prove_services(const ChipProgram& text, std::int32_t chip, std::int32_t micro_batch, Findings& findings) {
  std::map<Service, std::map<std::int64_t, std::int32_t>> served;  // user to first instruction
  for (std::size_t i = 0; i < text.instructions.size(); ++i) {
    const Instruction& in = text.instructions[i];
    if (in.opcode != Opcode::kRead && in.opcode != Opcode::kWrite) {
      continue;
    }
    const auto number = static_cast<std::int32_t>(i);
    const node::BaseRegister& base = text.registers[in.base_register];
    if (names_user(base.kind)) {
      const Service service = base.kind == RegisterKind::kToken    ? Service::kEmbeds
                              : base.kind == RegisterKind::kAppend ? Service::kAppends
                                                                   : Service::kReadsCache;
      served[service].try_emplace(base.user_in_batch, number);
    } else if (in.opcode == Opcode::kWrite && text.tensors[in.operands[0].tensor].name == node::kTokenTensor) {
      const StreamOperand& moved = in.operands[0];
      for (std::int32_t a = 0; a < in.count[0]; ++a) {
        for (std::int32_t b = 0; b < in.count[1]; ++b) {
          for (std::int32_t c = 0; c < in.count[2]; ++c) {
            served[Service::kBringsToken].try_emplace(
                moved.row + a * moved.row_stride[0] + b * moved.row_stride[1] + c * moved.row_stride[2], number);
          }
        }
      }
    }
  }
  for (const auto& [service, users] : served) {
    for (std::int64_t user = 0; user < micro_batch; ++user) {
      if (!users.contains(user)) {
        const std::int32_t number = users.begin()->second;
        findings.add_at(chip,
                        text.instructions[static_cast<std::size_t>(number)].start,
                        number,
                        std::string(words_of(service)) + " of user " + std::to_string(users.begin()->first) +
                            " of the micro-batch; nothing does so for user " + std::to_string(user) + " of " +
                            std::to_string(micro_batch));
        break;
      }
    }
  }
}

}  // namespace

void prove_users(const ClusterProgram& program, const std::vector<const TextProof*>& texts, Findings& findings) {
  if (program.plan.micro_batch < 2) {
    return;
  }
  std::vector<const ChipBinding*> chips;
  for (const ChipBinding& chip : program.bindings) {
    if (chip.text >= 0 && texts[static_cast<std::size_t>(chip.text)] != nullptr) {
      chips.push_back(&chip);
    }
  }
  std::stable_sort(chips.begin(), chips.end(), [](const ChipBinding* a, const ChipBinding* b) {
    return a->stage < b->stage;  // what a stage takes in was followed before
  });
  std::vector<std::vector<Event>> events(texts.size());
  std::set<std::pair<std::int32_t, std::int32_t>> followed;
  Crossed crossed;
  for (const ChipBinding* chip : chips) {
    const auto text = static_cast<std::size_t>(chip->text);
    if (!followed.emplace(chip->text, chip->first_layer).second) {
      continue;  // the same as a chip before it
    }
    if (events[text].empty()) {
      events[text] = list_events(program.texts[text]);
      prove_services(program.texts[text], chip->chip, program.plan.micro_batch, findings);
    }
    Follower(program.texts[text], *chip, crossed, findings).run(events[text]);
  }
}

}  // namespace lpu::scheduler::proof
