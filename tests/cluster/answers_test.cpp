#include <limits>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"
#include "numeric_runner.hpp"

namespace lpu::cluster {
namespace {

constexpr std::int64_t kVocabulary = 4;

GenerateOptions options_of(std::vector<std::int64_t> prompt, std::int64_t new_tokens) {
  GenerateOptions options;
  options.prompt = std::move(prompt);
  options.new_tokens = new_tokens;
  return options;
}

/// All logits of a step: those of tokens 0 and 2, then of 1 and 3.
void add_step(Answers& answers, std::int64_t position, std::int32_t token, float largest) {
  const std::vector<std::int32_t> even = {0, 2};
  const std::vector<std::int32_t> odd = {1, 3, -1};  // the last is padding
  answers.add_logits(position, odd, std::vector<float>{0.5F, 0.25F, 99.0F});
  answers.complete();
  answers.add_logits(position, even, std::vector<float>{largest, 0.125F});
  answers.add_token(position, token);
  answers.complete();
}

TEST(Answers, StepsAreCompletedInTheirOrderAsSoonAsAllHasCome) {
  const GenerateOptions options = options_of({3, 1}, 2);
  Answers answers(options, kVocabulary);
  EXPECT_EQ(answers.steps(), 3);
  EXPECT_EQ(answers.token(1), 1);
  EXPECT_FALSE(answers.token(2));
  add_step(answers, 1, 0, 2.0F);  // ahead of position 0
  EXPECT_EQ(answers.completed(), 0);
  add_step(answers, 0, 2, 1.0F);
  EXPECT_EQ(answers.completed(), 2);
  EXPECT_EQ(answers.token(2), 0);
  EXPECT_EQ(answers.result().logits_after_prompt, (std::vector<float>{2.0F, 0.5F, 0.125F, 0.25F}));
  EXPECT_THROW(answers.check_complete(), node::ScheduleViolation);
  add_step(answers, 2, 3, 1.0F);
  EXPECT_EQ(answers.result().new_ids, (std::vector<std::int64_t>{0, 3}));
  EXPECT_NO_THROW(answers.check_complete());
}

TEST(Answers, DigestIsOfEveryLogitAndToken) {
  const GenerateOptions options = options_of({3}, 1);
  const auto digest = [&](std::int32_t token, float largest) {
    Answers answers(options, kVocabulary);
    add_step(answers, 0, token, largest);
    return answers.result().result_digest;
  };
  EXPECT_EQ(digest(0, 2.0F), digest(0, 2.0F));
  EXPECT_NE(digest(0, 2.0F), digest(1, 2.0F));
  EXPECT_NE(digest(0, 2.0F), digest(0, 2.0000002F));
}

TEST(Answers, DrawnTokensAreThoseOfTheLogitsNotOfTheProgram) {
  GenerateOptions options = options_of({3}, 1);
  options.sampling = {.temperature = 1.0, .top_k = 1, .top_p = 1.0, .seed = 1};
  Answers answers(options, kVocabulary);
  add_step(answers, 0, 3, 2.0F);
  EXPECT_EQ(answers.token(1), 0);
}

TEST(Answers, LogitsThatAreNoFiniteNumbersAreRefused) {
  const GenerateOptions options = options_of({3}, 1);
  Answers answers(options, kVocabulary);
  EXPECT_THROW(add_step(answers, 0, 3, std::numeric_limits<float>::quiet_NaN()), node::InputError);
}

}  // namespace
}  // namespace lpu::cluster
