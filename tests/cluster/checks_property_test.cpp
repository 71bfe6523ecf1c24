#include <algorithm>
#include <array>
#include <functional>
#include <random>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/mutate.hpp"
#include "lpu/scheduler/verify.hpp"
#include "lpu/scheduler/well_formed.hpp"
#include "planted.hpp"
#include "rich_program.hpp"
#include "run_checked.hpp"
#include "small_request.hpp"
#include "test_program.hpp"

// The run with all checks against two witnesses that share no code with it: mutations with a known fault, and verify().
namespace lpu {
namespace {

TEST(ChecksProperty, EveryMutationStopsTheRunWhereItWasPlanted) {
  const scheduler::ClusterProgram program =
      test::RichProgram({.stages = 2, .group = 4, .phases = 2, .vectors = 3}).program();
  ASSERT_FALSE(test::run_checked(program, program.user_slots, 2).has_value());
  for (const scheduler::MutationOffer& kind : scheduler::list_mutations(program)) {
    for (std::uint64_t seed = 0; kind.applies && seed < 20; ++seed) {
      const scheduler::Mutant mutant = scheduler::mutate(program, kind.name, seed);
      const auto violation = test::run_checked(mutant.program, 1, 8);
      ASSERT_TRUE(violation.has_value()) << kind.name << ", seed " << seed << ": " << mutant.planted.description;
      EXPECT_GE(violation->chip, 0) << kind.name << ", seed " << seed << ": " << violation->message();
      EXPECT_TRUE(test::is_named(*violation, mutant.planted))
          << kind.name << ", seed " << seed << ": " << mutant.planted.description
          << "; found: " << violation->message();
    }
  }
}

/// One field of a random instruction, allocation, register or binding moved a little.
class RandomEdit {
 public:
  explicit RandomEdit(std::uint32_t seed) : random_(seed) {}

  std::string apply(scheduler::ClusterProgram& program) {
    node::ChipProgram& text = program.texts[below(program.texts.size())];
    const std::size_t at = below(text.instructions.size());
    node::Instruction& instruction = text.instructions[at];
    node::StreamOperand& operand = instruction.operands[below(2)];
    const int move = (below(2) == 0 ? 1 : -1) * (below(4) != 0 ? 1 : static_cast<int>(2 + below(5)));
    const std::size_t loop = below(3);
    const auto add = [move](auto& field) {
      field = static_cast<std::remove_reference_t<decltype(field)>>(field + move);
    };
    const auto flip = [loop](auto& field) {
      field = static_cast<std::remove_reference_t<decltype(field)>>(field ^ 1U << loop);
    };
    const std::array<std::pair<const char*, std::function<void()>>, 16> edits{{
        {"start", [&] { add(instruction.start); }},
        {"address", [&] { add(instruction.address); }},
        {"index", [&] { add(instruction.index); }},
        {"row", [&] { add(operand.row); }},
        {"stream", [&] { add(operand.stream); }},
        {"reach", [&] { add(operand.reach); }},
        {"argument", [&] { add(instruction.argument); }},
        {"period", [&] { add(instruction.period[loop]); }},
        {"address stride", [&] { add(instruction.address_stride[loop]); }},
        {"row stride", [&] { add(operand.row_stride[loop]); }},
        {"mode", [&] { flip(instruction.mode); }},
        {"held", [&] { operand.held ^= 1U << loop & 0xfU; }},
        {"allocation", [&] { add(text.allocations[below(text.allocations.size())].address); }},
        {"register", [&] { instruction.base_register = static_cast<std::uint16_t>(below(text.registers.size())); }},
        {"offset", [&] { add(program.bindings[below(program.bindings.size())].offset); }},
        {"peers",
         [&] {
           std::swap(program.bindings[below(program.bindings.size())].peers[below(3)],
                     program.bindings[below(program.bindings.size())].peers[below(3)]);
         }},
    }};
    const auto& [name, edit] = edits[below(edits.size())];
    std::string what = "instruction " + std::to_string(at) + " (" + std::string(node::info(instruction.opcode).name) +
                       "), " + name + " moved by " + std::to_string(move);
    edit();
    scheduler::sort_instructions(text);
    return what;
  }

 private:
  std::size_t below(std::size_t limit) { return random_() % limit; }
  std::mt19937 random_;
};

TEST(ChecksProperty, RunAndVerifyAgreeOnRandomEdits) {
  const std::vector<scheduler::ClusterProgram> programs{
      test::RichProgram({.stages = 2, .group = 3, .phases = 1, .vectors = 3}).program(),
      test::make_ring({.stages = 2, .group = 4, .phases = 2, .vectors = 3}),
      test::make_ring({.stages = 1, .group = 1, .phases = 1, .vectors = 2, .copies = 2, .interval = 60})};
  std::int32_t legal = 0;
  std::int32_t broken = 0;
  for (std::uint32_t seed = 0; seed < 600; ++seed) {
    scheduler::ClusterProgram program = programs[seed % programs.size()];
    const std::string what = RandomEdit(seed).apply(program);
    if (scheduler::find_form_fault(program)) {
      continue;
    }
    const std::vector<node::Violation> proved = scheduler::verify(program);
    const auto violation = test::run_checked(program, program.user_slots, 3);
    EXPECT_EQ(proved.empty(), !violation.has_value())
        << "seed " << seed << ", program " << seed % programs.size() << ": " << what
        << "; verify: " << (proved.empty() ? "legal" : proved[0].message())
        << "; run: " << (violation ? violation->message() : "legal");
    ++(proved.empty() ? legal : broken);
  }
  EXPECT_GT(legal, 100);
  EXPECT_GT(broken, 100);
}

TEST(ChecksProperty, WhatVerifyProvesOfEditedCompiledProgramsRuns) {
  // The other way round does not hold there: a link that no transfer uses may be wired anywhere, and an append that no
  // position falls on is never issued.
  const std::vector<scheduler::ClusterProgram> programs{scheduler::compile(test::small_request()).program,
                                                        scheduler::compile(test::small_mixture_request()).program};
  std::int32_t legal = 0;
  std::int32_t broken = 0;
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    scheduler::ClusterProgram program = programs[seed % programs.size()];
    const std::string what = RandomEdit(seed).apply(program);
    if (scheduler::find_form_fault(program)) {
      continue;
    }
    const bool is_proved = scheduler::verify(program).empty();
    if (is_proved) {
      const auto violation = test::run_checked(program, program.user_slots, 2);
      EXPECT_FALSE(violation) << "seed " << seed << ": " << what << ": " << violation->message();
    }
    ++(is_proved ? legal : broken);
  }
  EXPECT_GT(legal, 50);
  EXPECT_GT(broken, 50);
}

}  // namespace
}  // namespace lpu
