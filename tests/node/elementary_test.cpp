#include "lpu/node/elementary.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "random_floats.hpp"

namespace lpu::node {
namespace {

TEST(SineCosine, HaveTheStoredBits) {
  struct Row {
    double x;
    std::uint64_t sine;
    std::uint64_t cosine;
  };
  constexpr std::array<Row, 8> kRows = {{
      {0.5, 0x3fdeaee8744b05f0U, 0x3fec1528065b7d50U},
      {1.0, 0x3feaed548f090ceeU, 0x3fe14a280fb5068cU},
      {2.25, 0x3fe8e5f9c2d0e3aaU, 0xbfe419ff91b9ba6cU},
      {3.0, 0x3fc210386db6d55bU, 0xbfefae04be85e5d2U},
      {-4.5, 0x3fef47ed3dc74080U, 0xbfcafb5b54583d6bU},
      {100.0, 0xbfe03425b78c4db8U, 0x3feb981dbf665fe0U},
      {12345.678, 0xbfe687d5890974a5U, 0x3fe6b94c3bbe24b8U},
      {1048575.25, 0xbfd9b27986499211U, 0x3fed4ea6d1e88510U},
  }};
  for (const Row& row : kRows) {
    const SineCosine value = sine_cosine(row.x);
    EXPECT_EQ(std::bit_cast<std::uint64_t>(value.sine), row.sine) << row.x;
    EXPECT_EQ(std::bit_cast<std::uint64_t>(value.cosine), row.cosine) << row.x;
  }
}

TEST(SineCosine, AreAccurateFromZeroToAMillionPositions) {
  test::Sequence sequence(31);
  for (int i = 0; i < 200'000; ++i) {
    const double x = std::ldexp(sequence.uniform(), static_cast<int>(sequence.bits() % 32));
    const SineCosine value = sine_cosine(x);
    ASSERT_NEAR(value.sine, static_cast<double>(std::sin(static_cast<long double>(x))), 3e-16) << x;
    ASSERT_NEAR(value.cosine, static_cast<double>(std::cos(static_cast<long double>(x))), 3e-16) << x;
  }
}

TEST(Power, HasTheStoredBits) {
  struct Row {
    double base;
    double exponent;
    std::uint64_t bits;
  };
  constexpr std::array<Row, 7> kRows = {{
      {10000.0, -0.0625, 0x3fe1feb33c1c381eU},
      {10000.0, -0.9375, 0x3f274eea61c1261aU},
      {500000.0, -0.015625, 0x3fea115829457fbeU},
      {500000.0, -0.984375, 0x3ec4985fec80a8ceU},
      {1000000.0, -0.5, 0x3f50624dd2f1a9fdU},
      {2.0, 10.0, 0x4090000000000000U},
      {7.5, 0.0, 0x3ff0000000000000U},
  }};
  for (const Row& row : kRows) {
    EXPECT_EQ(std::bit_cast<std::uint64_t>(power(row.base, row.exponent)), row.bits) << row.base << "^" << row.exponent;
  }
}

TEST(Power, IsAccurateForRotaryFrequencies) {
  test::Sequence sequence(32);
  for (int i = 0; i < 100'000; ++i) {
    const double base = 1.0 + 1e6 * sequence.uniform();
    const double exponent = -sequence.uniform();
    const auto exact =
        static_cast<double>(std::pow(static_cast<long double>(base), static_cast<long double>(exponent)));
    ASSERT_NEAR(power(base, exponent) / exact, 1.0, 5e-15) << base << "^" << exponent;
  }
}

TEST(RotaryAngles, OneForEachFrequency) {
  const std::vector<double> frequencies = {1.0, 0.5};
  std::vector<float> cosine(2);
  std::vector<float> sine(2);
  rotary_angles(3, frequencies, cosine, sine);
  EXPECT_FLOAT_EQ(cosine[0], std::cos(3.0F));
  EXPECT_FLOAT_EQ(sine[1], std::sin(1.5F));
}

}  // namespace
}  // namespace lpu::node
