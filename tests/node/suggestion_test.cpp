#include "lpu/node/suggestion.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace lpu::node {
namespace {

const std::vector<std::string>& models() {
  static const std::vector<std::string> kModels = {"llama-2-70b", "llama-3-70b", "mistral-7b"};
  return kModels;
}

TEST(Nearest, FindsASwapAMissingAndAnExtraLetter) {
  EXPECT_EQ(nearest("mistarl-7b", models()), "mistral-7b");
  EXPECT_EQ(nearest("mistral7b", models()), "mistral-7b");
  EXPECT_EQ(nearest("mistral-77b", models()), "mistral-7b");
}

TEST(Nearest, IgnoresCase) {
  EXPECT_EQ(nearest("Llama-3-70B", models()), "llama-3-70b");
}

TEST(Nearest, OffersNothingWhereNothingIsNear) {
  EXPECT_EQ(nearest("gpt", models()), "");
}

TEST(KnownValues, ListsAllAndNamesTheNearest) {
  EXPECT_EQ(known_values("llama-2-70", models()),
            "; known: llama-2-70b, llama-3-70b, mistral-7b; did you mean llama-2-70b?");
  EXPECT_EQ(known_values("gpt", models()), "; known: llama-2-70b, llama-3-70b, mistral-7b");
}

}  // namespace
}  // namespace lpu::node
