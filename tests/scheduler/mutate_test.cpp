#include "lpu/scheduler/mutate.hpp"

#include <set>
#include <sstream>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"
#include "lpu/scheduler/inspect.hpp"
#include "lpu/scheduler/program_file.hpp"
#include "lpu/scheduler/verify.hpp"
#include "lpu/scheduler/well_formed.hpp"
#include "planted.hpp"
#include "rich_program.hpp"

namespace lpu::scheduler {
namespace {

[[nodiscard]] std::string listing(const ClusterProgram& program) {
  std::ostringstream out;
  inspect_json(program, {}, out);
  return out.str();
}

/// One program with a place for every kind but token-early: only what compile makes goes round by the token
/// (tests/cluster/compiled_mutations_property_test.cpp).
[[nodiscard]] ClusterProgram rich() {
  return test::RichProgram({.stages = 2, .group = 3, .phases = 3, .fillers = 3, .copies = 2}).program();
}

TEST(Mutate, HasTheKindsOfTheTable) {
  std::set<std::string_view> names;
  for (const MutationKind& kind : mutation_table()) {
    EXPECT_TRUE(names.insert(kind.name).second) << kind.name;
    EXPECT_FALSE(kind.doc.empty()) << kind.name;
  }
  EXPECT_EQ(names.size(), 21U);
}

TEST(Mutate, TheProgramsThatItBreaksAreLegal) {
  EXPECT_TRUE(verify(rich()).empty());
  EXPECT_TRUE(verify(test::RichProgram({}).program()).empty());
}

class MutateKind : public testing::TestWithParam<std::string> {};

TEST_P(MutateKind, PlantsAFaultThatVerifyNames) {
  const ClusterProgram program = rich();
  std::set<std::string> different;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Mutant mutant = mutate(program, GetParam(), seed);
    const std::string trace = "seed " + std::to_string(seed) + ": " + mutant.planted.description;
    EXPECT_EQ(mutant.planted.kind, GetParam());
    EXPECT_FALSE(find_form_fault(mutant.program)) << trace << ": " << find_form_fault(mutant.program)->message();
    const auto found = verify(mutant.program, 1000);
    ASSERT_FALSE(found.empty()) << trace;
    EXPECT_TRUE(std::any_of(
        found.begin(), found.end(), [&](const node::Violation& one) { return test::is_planted(one, mutant.planted); }))
        << trace << "\n  first found: " << found[0].message();
    EXPECT_GE(found[0].chip, 0) << trace;
    different.insert(listing(mutant.program));
  }
  EXPECT_GT(different.size(), 1U) << "the seed chooses nothing";
}

TEST_P(MutateKind, IsTheSameForTheSameSeed) {
  const ClusterProgram program = rich();
  EXPECT_EQ(listing(mutate(program, GetParam(), 7).program), listing(mutate(program, GetParam(), 7).program));
}

TEST_P(MutateKind, LeavesOtherChipsAlone) {
  const ClusterProgram program = rich();
  const Mutant mutant = mutate(program, GetParam(), 3);
  std::set<std::int32_t> edited{mutant.planted.site.chip};
  if (GetParam() == "circular-wait") {
    edited.insert(mutant.planted.witnesses.at(0).chip);
  }
  for (const node::ChipBinding& binding : program.bindings) {
    const auto& after = mutant.program.bindings[static_cast<std::size_t>(binding.chip)];
    if (!edited.contains(binding.chip)) {
      EXPECT_EQ(after.text, binding.text) << "chip " << binding.chip;
    }
  }
  // Texts that were there are as they were, but where the edited chips were the only ones.
  for (std::size_t text = 0; text < program.texts.size(); ++text) {
    const auto& before = program.texts[text].instructions;
    const auto& after = mutant.program.texts[text].instructions;
    EXPECT_EQ(before.size(), after.size());
  }
  EXPECT_LE(mutant.program.texts.size(), program.texts.size() + edited.size());
}

TEST_P(MutateKind, GoesThroughAFile) {
  const Mutant mutant = mutate(rich(), GetParam(), 1);
  EXPECT_EQ(listing(from_bytes(to_bytes(mutant.program), "m")), listing(mutant.program));
}

[[nodiscard]] std::vector<std::string> kind_names() {
  std::vector<std::string> names;
  for (const MutationOffer& offer : list_mutations(rich())) {
    EXPECT_EQ(offer.applies, offer.name != "token-early") << offer.name;
    if (offer.applies) {
      names.emplace_back(offer.name);
    }
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(Kinds, MutateKind, testing::ValuesIn(kind_names()), [](const auto& one) {
  std::string name = one.param;
  std::erase(name, '-');
  return name;
});

TEST(MutateProperty, EveryKindThatAppliesIsFoundInManyShapes) {
  for (const std::int32_t stages : {1, 2, 3}) {
    for (const std::int32_t group : {1, 2, 5, 8}) {
      const ClusterProgram program =
          test::RichProgram({.stages = stages, .group = group, .phases = 2, .vectors = 3, .fillers = stages % 2})
              .program();
      ASSERT_TRUE(verify(program).empty()) << stages << " x " << group;
      for (const MutationOffer& offer : list_mutations(program)) {
        for (std::uint64_t seed = 100; offer.applies && seed < 104; ++seed) {
          const Mutant mutant = mutate(program, offer.name, seed);
          EXPECT_FALSE(verify(mutant.program).empty()) << stages << " x " << group << ", " << offer.name << ", seed "
                                                       << seed << ": " << mutant.planted.description;
        }
      }
    }
  }
}

TEST(Mutate, SaysWhichKindsApply) {
  // One chip, nothing but a GEMM: no wires, no users' cache, no experts.
  const ClusterProgram program = test::make_ring({.group = 1, .user_slots = 1});
  std::set<std::string_view> applying;
  for (const MutationOffer& offer : list_mutations(program)) {
    if (offer.applies) {
      applying.insert(offer.name);
      EXPECT_NO_THROW((void)mutate(program, offer.name, 1)) << offer.name;
    } else {
      EXPECT_THROW((void)mutate(program, offer.name, 1), node::InputError) << offer.name;
    }
  }
  for (const char* name : {"missing-send",
                           "missing-receive",
                           "wrong-peer",
                           "receive-off",
                           "wrong-length",
                           "link-twice",
                           "circular-wait",
                           "experts-swapped",
                           "wrong-kv-address",
                           "interval-too-small"}) {
    EXPECT_FALSE(applying.contains(name)) << name;
  }
  for (const char* name : {"consumer-early", "drained-early", "address-outside", "text-over-budget", "bank-twice"}) {
    EXPECT_TRUE(applying.contains(name)) << name;
  }
}

TEST(Mutate, RefusesKindsThatItDoesNotHaveOrCannotPlant) {
  const ClusterProgram program = test::make_ring({.group = 1});
  const auto refusal = [&](const char* kind) {
    try {
      (void)mutate(program, kind, 1);
    } catch (const node::InputError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(
      refusal("missing-send"),
      "--kind: found \"missing-send\", which does not apply to this program; expected one that mutate --list says "
      "applies");
  EXPECT_TRUE(
      refusal("mising-send").starts_with("--kind: found \"mising-send\"; expected a kind of mutation; known: "));
  EXPECT_TRUE(refusal("mising-send").ends_with("did you mean missing-send?"));
}

}  // namespace
}  // namespace lpu::scheduler
