#include "lpu/node/sampling.hpp"

#include <bit>
#include <cmath>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace lpu::node {
namespace {

const std::vector<float> kLogits = {0.0F, 2.0F, 1.0F, 2.0F, -5.0F};

/// How often each token is drawn over many positions.
std::vector<double> shares(const Sampling& sampling) {
  std::vector<double> out(kLogits.size());
  constexpr int kDraws = 20'000;
  for (int position = 0; position < kDraws; ++position) {
    out[static_cast<std::size_t>(sample(kLogits, sampling, 0, static_cast<std::uint64_t>(position)))] += 1.0 / kDraws;
  }
  return out;
}

TEST(Sample, TemperatureZeroTakesTheLargestLogit) {
  EXPECT_EQ(sample(kLogits, {}, 0, 0), 1);
}

TEST(Sample, FollowsTheSoftmaxAtItsTemperature) {
  const std::vector<double> found = shares({.temperature = 2.0, .seed = 5});
  double sum = 0.0;
  for (const float logit : kLogits) {
    sum += std::exp(static_cast<double>(logit) / 2.0);
  }
  for (std::size_t id = 0; id < kLogits.size(); ++id) {
    EXPECT_NEAR(found[id], std::exp(static_cast<double>(kLogits[id]) / 2.0) / sum, 0.015) << id;
  }
}

TEST(Sample, TopKKeepsTheLowerIdsOfEquals) {
  const std::vector<double> found = shares({.temperature = 1.0, .top_k = 1});
  EXPECT_NEAR(found[1], 1.0, 1e-9);
}

TEST(Sample, TopPKeepsTheFewestCandidatesThatReachIt) {
  // Probabilities 0.39, 0.39, 0.14, 0.05, …: 0.7 needs two, 0.8 three.
  EXPECT_EQ(shares({.temperature = 1.0, .top_p = 0.7})[2], 0.0);
  const std::vector<double> found = shares({.temperature = 1.0, .top_p = 0.8});
  EXPECT_GT(found[2], 0.1);
  EXPECT_EQ(found[0], 0.0);
}

TEST(Sample, DependsOnSeedRequestAndPositionAlone) {
  EXPECT_EQ(std::bit_cast<std::uint64_t>(uniform_number(1, 2, 3)), 0x3fe105a35991ad87U);
  std::set<double> distinct;
  for (std::uint64_t i = 0; i < 10; ++i) {
    distinct.insert({uniform_number(i, 100, 100), uniform_number(100, i, 100), uniform_number(100, 100, i)});
  }
  EXPECT_EQ(distinct.size(), 30U);
}

}  // namespace
}  // namespace lpu::node
