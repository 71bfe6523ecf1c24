#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/mutate.hpp"
#include "lpu/scheduler/verify.hpp"
#include "lpu/scheduler/well_formed.hpp"
#include "planted.hpp"
#include "run_checked.hpp"
#include "small_request.hpp"

// Every kind of mutation, planted in programs that the compiler made: verify() and the run with all checks each name
// it.

namespace lpu {
namespace {

constexpr std::uint64_t kSeeds = 20;
constexpr std::size_t kMost = 1000;  // breaches that verify() lists
constexpr std::int64_t kTokens = 8;

struct Subject {
  std::string name;
  scheduler::ClusterProgram program;
};

/// A dense model and a mixture in an empty machine, and one layer in a loaded one.
const std::vector<Subject>& subjects() {
  static const std::vector<Subject> all = [] {
    scheduler::CompileRequest loaded = test::small_request();
    loaded.model.layers = 1;
    loaded.micro_batch = 1;
    loaded.objective = scheduler::Objective::kThroughput;
    loaded.search_orders = 1;
    return std::vector<Subject>{{"dense", scheduler::compile(test::small_request()).program},
                                {"mixture", scheduler::compile(test::small_mixture_request()).program},
                                {"loaded", scheduler::compile(loaded).program}};
  }();
  return all;
}

TEST(CompiledMutationsProperty, TheProgramsAreLegalUntilTheyAreEdited) {
  for (const Subject& subject : subjects()) {
    EXPECT_TRUE(scheduler::verify(subject.program).empty()) << subject.name;
    const auto violation = test::run_checked(subject.program, subject.program.user_slots, 2);
    EXPECT_FALSE(violation) << subject.name << ": " << violation->message();
  }
}

class CompiledMutationsProperty : public testing::TestWithParam<std::string> {
 protected:
  static void expect_found(const Subject& subject, std::uint64_t seed) {
    const scheduler::Mutant mutant = scheduler::mutate(subject.program, GetParam(), seed);
    const std::string trace = subject.name + ", seed " + std::to_string(seed) + ": " + mutant.planted.description;
    EXPECT_FALSE(scheduler::find_form_fault(mutant.program)) << trace;
    const std::vector<node::Violation> found = scheduler::verify(mutant.program, kMost);
    ASSERT_FALSE(found.empty()) << trace;
    EXPECT_GE(found[0].chip, 0) << trace;
    EXPECT_TRUE(std::any_of(
        found.begin(), found.end(), [&](const node::Violation& one) { return test::is_planted(one, mutant.planted); }))
        << trace << "\n  verify: " << found[0].message();
    const auto violation = test::run_checked(mutant.program, subject.program.user_slots, kTokens);
    ASSERT_TRUE(violation.has_value()) << trace;
    EXPECT_GE(violation->chip, 0) << trace;
    EXPECT_TRUE(test::is_named(*violation, mutant.planted)) << trace << "\n  run: " << violation->message();
  }
};

TEST_P(CompiledMutationsProperty, IsFoundByVerifyAndByTheRun) {
  std::size_t tried = 0;
  for (const Subject& subject : subjects()) {
    const std::vector<scheduler::MutationOffer> offers = scheduler::list_mutations(subject.program);
    const bool applies = std::any_of(offers.begin(), offers.end(), [](const scheduler::MutationOffer& offer) {
      return offer.name == GetParam() && offer.applies;
    });
    for (std::uint64_t seed = 0; applies && seed < kSeeds; ++seed, ++tried) {
      expect_found(subject, seed);
    }
  }
  EXPECT_GE(tried, kSeeds) << "no compiled program has a place for it";
}

std::vector<std::string> kind_names() {
  std::vector<std::string> names;
  for (const scheduler::MutationKind& kind : scheduler::mutation_table()) {
    names.emplace_back(kind.name);
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(Kinds, CompiledMutationsProperty, testing::ValuesIn(kind_names()), [](const auto& one) {
  std::string name = one.param;
  std::erase(name, '-');
  return name;
});

}  // namespace
}  // namespace lpu
