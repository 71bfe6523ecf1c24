#include "saved_generation.hpp"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "checkpoint_digest.hpp"
#include "checkpoint_program.hpp"
#include "dealing.hpp"
#include "lockstep.hpp"
#include "lpu/node/error.hpp"
#include "lpu/scheduler/compile.hpp"
#include "numeric_runner.hpp"

// A cut before any position changes nothing that a generation leaves: what a chip holds between two positions is its
// cache alone, and tokens are drawn from a number of their position alone.

namespace lpu::cluster {
namespace {

using scheduler::Checkpoint;

struct Case {
  Checkpoint checkpoint;
  scheduler::ClusterProgram program;
  GenerateOptions options;
};

/// Prompt of three tokens, positions 0 to 5.
Case case_of(const std::string& model, std::int32_t chips, std::int32_t tp, std::int32_t pp, double temperature) {
  Checkpoint checkpoint = Checkpoint::open(LPU_MODELS "/" + model);
  GenerateOptions options;
  options.prompt = {'K', 'I', 'N'};
  options.new_tokens = 4;
  options.simd = node::choose_simd_target("auto");
  options.sampling = {.temperature = temperature, .top_k = 50, .top_p = 0.9, .seed = 5};
  scheduler::ClusterProgram program = test::compile_checkpoint(checkpoint, chips, tp, pp);
  return {std::move(checkpoint), std::move(program), std::move(options)};
}

std::unique_ptr<NumericRunner> runner_of(const Case& from, const NumericState* state = nullptr) {
  return std::make_unique<NumericRunner>(
      from.program,
      from.checkpoint,
      from.options,
      interconnect::ChipPlacement{.rank = 0, .rank_of = deal(from.program, 1).rank_of},
      nullptr,
      state);
}

void run(NumericRunner& runner) {
  const RunOptions options;
  EXPECT_EQ(execute(runner, options, nullptr), 0);
}

/// The state before a position, as another process reads it.
NumericState state_before(const Case& from, std::int64_t position) {
  const auto runner = runner_of(from);
  runner->stop_before(position);
  run(*runner);
  EXPECT_EQ(runner->stopped_before(), position);
  EXPECT_EQ(runner->answers().completed(), position);
  const GenerateResult& result = runner->answers().result();
  return numbers_from_bytes(to_bytes({.answers = {.position = position,
                                                  .new_ids = result.new_ids,
                                                  .logits_after_prompt = result.logits_after_prompt,
                                                  .result_digest = result.result_digest},
                                      .chips = runner->saved_chips()}),
                            "saved");
}

TEST(SavedGeneration, EveryCutGoesOnToTheSameEnd) {
  for (Case& from : std::vector<Case>{case_of("shakespeare-llama-4m", 4, 2, 2, 0.0),
                                      case_of("shakespeare-mixtral-5m", 2, 1, 2, 0.0),
                                      case_of("shakespeare-mixtral-5m", 3, 1, 3, 1.5)}) {
    const auto whole = runner_of(from);
    run(*whole);
    const GenerateResult& expected = whole->answers().result();
    for (std::int64_t position = 0; position < whole->answers().steps(); ++position) {
      from.options.simd = node::choose_simd_target("auto");
      const NumericState state = state_before(from, position);
      from.options.simd = node::choose_simd_target("scalar");  // the bits are the same
      const auto rest = runner_of(from, &state);
      EXPECT_EQ(rest->next_token(), position);
      run(*rest);
      const GenerateResult& result = rest->answers().result();
      const std::string where = from.checkpoint.model().name + ", cut before position " + std::to_string(position);
      EXPECT_EQ(result.new_ids, expected.new_ids) << where;
      EXPECT_EQ(result.result_digest, expected.result_digest) << where;
      EXPECT_EQ(result.logits_after_prompt, expected.logits_after_prompt) << where;
      EXPECT_EQ(rest->outcome({}, 0).folds, whole->outcome({}, 0).folds) << where;
      EXPECT_EQ(rest->next_token(), Execution::kNoToken);
    }
  }
}

TEST(SavedGeneration, TheDigestOfACheckpointIsOfEveryWeight) {
  const Checkpoint llama = Checkpoint::open(LPU_MODELS "/shakespeare-llama-4m");
  const Checkpoint mixtral = Checkpoint::open(LPU_MODELS "/shakespeare-mixtral-5m");
  EXPECT_EQ(content_digest(llama), content_digest(Checkpoint::open(LPU_MODELS "/shakespeare-llama-4m")));
  EXPECT_NE(content_digest(llama), content_digest(mixtral));
  EXPECT_NE(content_digest(llama), shape_digest(llama));
}

TEST(SavedGeneration, BytesThatEndTooEarlyAreRefused) {
  const std::string bytes = to_bytes(NumericState{.answers = {.position = 3, .new_ids = {1}}, .chips = {}});
  EXPECT_EQ(numbers_from_bytes(bytes, "saved").answers.new_ids, (std::vector<std::int64_t>{1}));
  EXPECT_THROW(static_cast<void>(numbers_from_bytes(bytes.substr(0, bytes.size() - 1), "saved")), node::InputError);
}

}  // namespace
}  // namespace lpu::cluster
