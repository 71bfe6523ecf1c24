#include <algorithm>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/verify.hpp"
#include "lpu/scheduler/well_formed.hpp"
#include "run_checked.hpp"
#include "small_request.hpp"

// Two users of one micro-batch take each other's cache, or each other's token, consistently: all instructions agree on
// name, place and register of every value, and only whose it is tells the fault.

namespace lpu {
namespace {

using node::RegisterKind;

const scheduler::ClusterProgram& legal() {
  static const scheduler::ClusterProgram program = scheduler::compile(test::small_request()).program;
  return program;
}

/// Texts that a chip runs.
std::vector<std::size_t> texts() {
  std::set<std::size_t> out;
  for (const node::ChipBinding& binding : legal().bindings) {
    if (binding.text >= 0) {
      out.insert(static_cast<std::size_t>(binding.text));
    }
  }
  return {out.begin(), out.end()};
}

/// Tensors of a text's caches: keys and values of each KV head.
std::vector<std::uint16_t> caches(const node::ChipProgram& text) {
  std::vector<std::uint16_t> out;
  for (std::size_t i = 0; i < text.tensors.size(); ++i) {
    if (text.tensors[i].scope == node::TensorScope::kCache) {
      out.push_back(static_cast<std::uint16_t>(i));
    }
  }
  return out;
}

/// The register that does the same for the other of the two users.
std::uint16_t other_users(const node::ChipProgram& text, std::uint16_t base) {
  const node::BaseRegister& own = text.registers[base];
  const auto place = [](const node::AppendMap& map) {
    return std::tuple(
        map.is_column, map.hemisphere, map.plane, map.first_column, map.columns, map.row_stride, map.round_stride);
  };
  const auto other = std::find_if(text.registers.begin(), text.registers.end(), [&](const node::BaseRegister& one) {
    return one.kind == own.kind && one.user_in_batch == 1 - own.user_in_batch && place(one.append) == place(own.append);
  });
  EXPECT_NE(other, text.registers.end());
  return static_cast<std::uint16_t>(other - text.registers.begin());
}

/// Every reader of one cache takes the other user's.
scheduler::ClusterProgram with_readers_swapped(std::size_t text, std::uint16_t cache) {
  scheduler::ClusterProgram out = legal();
  node::ChipProgram& edited = out.texts[text];
  for (node::Instruction& instruction : edited.instructions) {
    const bool names_it =
        std::any_of(instruction.operands.begin(), instruction.operands.end(), [&](const node::StreamOperand& operand) {
          return operand.kind != node::OperandKind::kNone && operand.tensor == cache;
        });
    if (names_it && edited.registers[instruction.base_register].kind == RegisterKind::kUser) {
      instruction.base_register = other_users(edited, instruction.base_register);
    }
  }
  return out;
}

/// Every append to a cache goes to the other user's.
scheduler::ClusterProgram with_appends_swapped(std::size_t text) {
  scheduler::ClusterProgram out = legal();
  for (node::Instruction& instruction : out.texts[text].instructions) {
    if (out.texts[text].registers[instruction.base_register].kind == RegisterKind::kAppend) {
      instruction.base_register = other_users(out.texts[text], instruction.base_register);
    }
  }
  return out;
}

/// Every token's embedding is taken for the other user.
scheduler::ClusterProgram with_tokens_swapped(std::size_t text) {
  scheduler::ClusterProgram out = legal();
  for (node::BaseRegister& base : out.texts[text].registers) {
    if (base.kind == RegisterKind::kToken) {
      base.user_in_batch = 1 - base.user_in_batch;
    }
  }
  return out;
}

bool tells_users(const node::Violation& found) {
  return found.reason.find("users 0 and 1 of the micro-batch") != std::string::npos ||
         found.reason.find("users 1 and 0 of the micro-batch") != std::string::npos;
}

void expect_users_found(const scheduler::ClusterProgram& program, const std::string& what) {
  ASSERT_FALSE(scheduler::find_form_fault(program)) << what;
  const std::vector<node::Violation> found = scheduler::verify(program, 1000);
  const bool is_found = std::any_of(found.begin(), found.end(), [](const node::Violation& one) {
    return tells_users(one) && one.chip >= 0 && one.cycle >= 0 && one.instruction >= 0;
  });
  EXPECT_TRUE(is_found) << what << ": " << (found.empty() ? "found nothing" : found[0].message());
  const auto stopped = test::run_checked(program, program.user_slots, 2);
  ASSERT_TRUE(stopped.has_value()) << what;
  EXPECT_TRUE(tells_users(*stopped)) << what << ": " << stopped->message();
}

TEST(Users, DoNotMeetInWhatTheCompilerMakes) {
  EXPECT_TRUE(scheduler::verify(legal()).empty());
  EXPECT_FALSE(test::run_checked(legal(), legal().user_slots, 2));
}

TEST(Users, ReadingEachOthersCacheIsFound) {
  std::size_t tried = 0;
  for (const std::size_t text : texts()) {
    for (const std::uint16_t cache : caches(legal().texts[text])) {
      expect_users_found(with_readers_swapped(text, cache),
                         "text " + std::to_string(text) + ", " + legal().texts[text].tensors[cache].name);
      ++tried;
    }
  }
  EXPECT_GE(tried, 4U);
}

TEST(Users, OneReadOfAnothersCacheIsFound) {
  // The row is the same one of the cache, and lies where the register says: whose it is makes it another value.
  std::size_t tried = 0;
  for (const std::size_t text : texts()) {
    const auto& instructions = legal().texts[text].instructions;
    for (std::size_t i = 0; i < instructions.size(); ++i) {
      const bool is_read = instructions[i].opcode == node::Opcode::kRead &&
                           legal().texts[text].registers[instructions[i].base_register].kind == RegisterKind::kUser;
      if (!is_read) {
        continue;
      }
      scheduler::ClusterProgram program = legal();
      std::uint16_t& base = program.texts[text].instructions[i].base_register;
      base = other_users(program.texts[text], base);
      EXPECT_FALSE(scheduler::verify(program).empty()) << "text " << text << ", instruction " << i;
      EXPECT_TRUE(test::run_checked(program, program.user_slots, 2)) << "text " << text << ", instruction " << i;
      ++tried;
    }
  }
  EXPECT_GE(tried, 8U);
}

TEST(Users, AppendingToEachOthersCacheIsFound) {
  for (const std::size_t text : texts()) {
    expect_users_found(with_appends_swapped(text), "text " + std::to_string(text));
  }
}

TEST(Users, TakingEachOthersTokenIsFound) {
  std::size_t tried = 0;
  for (const std::size_t text : texts()) {
    const auto& registers = legal().texts[text].registers;
    const bool embeds = std::any_of(registers.begin(), registers.end(), [](const node::BaseRegister& base) {
      return base.kind == RegisterKind::kToken;
    });
    if (embeds) {
      expect_users_found(with_tokens_swapped(text), "text " + std::to_string(text));
      ++tried;
    }
  }
  EXPECT_GE(tried, 1U);
}

}  // namespace
}  // namespace lpu
