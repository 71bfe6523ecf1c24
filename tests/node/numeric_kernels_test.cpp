#include "lpu/node/numeric_kernels.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "lpu/node/attention.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/floating_point.hpp"
#include "lpu/node/routing.hpp"
#include "random_floats.hpp"

namespace lpu::node {
namespace {

using test::bits_of;
using test::Sequence;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

StoredMatrix matrix_of(const std::string& bytes, StoredType type, std::int64_t rows, std::int64_t columns) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), type, rows, columns, columns * stored_bytes(type)};
}

TEST(FusedMultiplyAdd, IsRoundedOnceForAnyFiniteOperands) {
  Sequence sequence(11);
  for (int i = 0; i < 2'000'000; ++i) {
    const float a = sequence.any_finite();
    const float b = sequence.any_finite();
    const float c = sequence.any_finite();
    ASSERT_EQ(std::bit_cast<std::uint32_t>(fused_multiply_add(a, b, c)),
              std::bit_cast<std::uint32_t>(std::fma(a, b, c)))
        << std::hexfloat << a << " * " << b << " + " << c;
  }
}

TEST(FusedMultiplyAdd, IsRoundedOnceNearTiesAndCancellations) {
  // (1 + x)(1 − x) = 1 − x²: x² is too small for fp64 beside c, and decides a tie of fp32.
  Sequence sequence(12);
  int different = 0;
  for (int i = 0; i < 2'000'000; ++i) {
    const float x = static_cast<float>(1 + sequence.bits() % 4096) * 0x1p-23F;
    const float a = (1.0F + x) * (sequence.bits() % 2 == 0 ? 1.0F : -1.0F);
    const float b = std::ldexp(1.0F - x, static_cast<int>(sequence.bits() % 8) - 28);
    const float c =
        (1.0F + static_cast<float>(sequence.bits() % 8) * 0x1p-23F) * (sequence.bits() % 2 == 0 ? 1.0F : -1.0F);
    const float expected = std::fma(a, b, c);
    ASSERT_EQ(std::bit_cast<std::uint32_t>(fused_multiply_add(a, b, c)), std::bit_cast<std::uint32_t>(expected))
        << std::hexfloat << a << " * " << b << " + " << c;
    different += static_cast<float>(static_cast<double>(a) * static_cast<double>(b) + c) != expected ? 1 : 0;
  }
  EXPECT_GT(different, 0) << "no case in which fp64 alone is wrong: this test shows nothing";
}

TEST(FusedMultiplyAdd, RoundsOnceWhereFp64RoundsTwice) {
  // 1 + 2^-23 + 2^-24 is a tie, 2^-70 less is none; fp64 cannot tell them apart.
  EXPECT_EQ(fused_multiply_add(1.0F + 0x1p-23F, 0x1p-24F - 0x1p-47F, 1.0F + 0x1p-23F), 1.0F + 0x1p-23F);
  EXPECT_EQ(fused_multiply_add(0x1p-100F, 0x1p-49F, 0.0F), std::numeric_limits<float>::denorm_min());
  EXPECT_EQ(fused_multiply_add(std::numeric_limits<float>::max(), 2.0F, -std::numeric_limits<float>::max()),
            std::numeric_limits<float>::max());
  EXPECT_EQ(fused_multiply_add(std::numeric_limits<float>::max(), 2.0F, 0.0F), kInfinity);
  EXPECT_EQ(fused_multiply_add(1.0F, 1.0F, kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(fused_multiply_add(0.0F, kInfinity, 1.0F)));
  EXPECT_TRUE(std::signbit(fused_multiply_add(-0.0F, 1.0F, -0.0F)));
  EXPECT_FALSE(std::signbit(fused_multiply_add(-0.0F, 1.0F, 0.0F)));
}

TEST(Exponential, HasTheStoredBits) {
  struct Row {
    float x;
    std::uint32_t bits;
  };
  constexpr std::array<Row, 16> kRows = {{
      {0.0F, 0x3f800000U},
      {1.0F, 0x402df854U},
      {-1.0F, 0x3ebc5ab2U},
      {0.5F, 0x3fd3094cU},
      {-0.3465F, 0x3f35085cU},
      {0.3467F, 0x3fb50acfU},
      {-10.25F, 0x38144cd4U},
      {20.125F, 0x4e0312f1U},
      {-50.0F, 0x1b692bebU},
      {60.7F, 0x6b3e3a83U},
      {-87.0F, 0x00b33687U},
      {-88.0F, 0x0041edc4U},
      {-95.5F, 0x00000956U},
      {-103.0F, 0x00000001U},
      {88.5F, 0x7f4cdcc3U},
      {88.72F, 0x7f7f4648U},
  }};
  for (const Row& row : kRows) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(exponential(row.x)), row.bits) << std::hexfloat << row.x;
  }
  EXPECT_EQ(exponential(-kInfinity), 0.0F);
  EXPECT_EQ(exponential(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(exponential(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Exponential, IsWithinOneUnitInTheLastPlace) {
  for (float x = -87.3F; x < 88.7F; x += 0.00013F) {
    const double exact = std::exp(static_cast<double>(x));
    const auto nearest = static_cast<float>(exact);
    const double unit = static_cast<double>(std::nextafter(nearest, kInfinity)) - static_cast<double>(nearest);
    ASSERT_LE(std::abs(exponential(x) - exact), unit) << x;
  }
}

TEST(SimdTargets, AnUnknownOneNamesTheKnown) {
  try {
    static_cast<void>(choose_simd_target("avx3"));
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(),
                 "--simd: found avx3; expected an instruction set; known: auto, scalar, ssse3, sse4, avx2, avx512; did "
                 "you mean avx2?");
  }
  EXPECT_EQ(choose_simd_target("scalar"), SimdTarget::kScalar);
  EXPECT_EQ(choose_simd_target("auto"), supported_simd_targets().back());
}

}  // namespace
void PrintTo(const SimdTargetRow& row, std::ostream* out);
void PrintTo(const SimdTargetRow& row, std::ostream* out) {
  *out << row.name;
}
namespace {

/// Every target of the table: those that the CPU has give the scalar code's bits, the others say that it has none.
class EveryTarget : public testing::TestWithParam<SimdTargetRow> {
 protected:
  void SetUp() override {
    const std::vector<SimdTarget> supported = supported_simd_targets();
    if (std::find(supported.begin(), supported.end(), GetParam().target) != supported.end()) {
      kernels_ = &numeric_kernels(GetParam().target);
      ASSERT_EQ(kernels_->target, GetParam().target);
      return;
    }
    try {
      static_cast<void>(choose_simd_target(GetParam().name));
      FAIL() << "accepted";
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find("this CPU has no " + std::string(GetParam().name)), std::string::npos);
    }
    GTEST_SKIP() << "this CPU has no " << GetParam().name;
  }
  [[nodiscard]] const NumericKernels& kernels() const { return *kernels_; }
  [[nodiscard]] static const NumericKernels& scalar() { return numeric_kernels(SimdTarget::kScalar); }

 private:
  const NumericKernels* kernels_ = nullptr;
};
INSTANTIATE_TEST_SUITE_P(Simd, EveryTarget, testing::ValuesIn(kSimdTargets), [](const auto& test) {
  return std::string(test.param.name);
});

TEST_P(EveryTarget, LinearIsSixteenAccumulatorsAndATree) {
  Sequence sequence(21);
  for (const std::size_t columns : {0U, 1U, 5U, 15U, 16U, 17U, 33U, 100U, 192U, 641U}) {
    const std::vector<float> weights = sequence.vector(columns, -1.0F, 1.0F);
    const std::vector<float> x = sequence.vector(columns, -3.0F, 3.0F);
    std::array<float, 16> sums{};
    for (std::size_t i = 0; i < columns; ++i) {
      sums[i % 16] = std::fma(weights[i], x[i], sums[i % 16]);
    }
    const auto pair = [&](std::size_t j) { return sums[j] + sums[j + 8]; };
    const float expected = ((pair(0) + pair(4)) + (pair(2) + pair(6))) + ((pair(1) + pair(5)) + (pair(3) + pair(7)));
    const std::string bytes = test::stored(weights, StoredType::kFloat32);
    float y = 0.0F;
    kernels().linear(matrix_of(bytes, StoredType::kFloat32, 1, static_cast<std::int64_t>(columns)), x, {&y, 1});
    EXPECT_EQ(std::bit_cast<std::uint32_t>(y), std::bit_cast<std::uint32_t>(expected)) << columns;
  }
}

TEST_P(EveryTarget, LinearGivesTheScalarBitsForEveryTypeShapeAndAddress) {
  Sequence sequence(22);
  for (const StoredType type : {StoredType::kFloat32, StoredType::kBfloat16, StoredType::kFloat16}) {
    for (const std::int64_t rows : {1, 3, 8, 19}) {
      for (const std::int64_t columns : {7, 16, 50, 192, 333}) {
        const auto count = static_cast<std::size_t>(rows * columns);
        const std::string bytes = "." + test::stored(sequence.vector(count, -2.0F, 2.0F), type);  // odd address
        StoredMatrix weights = matrix_of(bytes, type, rows, columns);
        weights.data += 1;
        const std::vector<float> x = sequence.vector(static_cast<std::size_t>(columns), -1e3F, 1e3F);
        std::vector<float> expected(static_cast<std::size_t>(rows));
        std::vector<float> y(expected.size());
        scalar().linear(weights, x, expected);
        kernels().linear(weights, x, y);
        EXPECT_EQ(bits_of(y), bits_of(expected)) << rows << " x " << columns;
      }
    }
  }
}

TEST_P(EveryTarget, LinearGivesTheScalarBitsForExtremeNumbers) {
  Sequence sequence(23);
  for (int round = 0; round < 2000; ++round) {
    std::vector<float> weights(48);
    std::vector<float> x(48);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      weights[i] = std::ldexp(sequence.between(-1.0F, 1.0F), static_cast<int>(sequence.bits() % 120) - 100);
      x[i] = std::ldexp(sequence.between(-1.0F, 1.0F), static_cast<int>(sequence.bits() % 120) - 60);
    }
    const std::string bytes = test::stored(weights, StoredType::kFloat32);
    const StoredMatrix matrix = matrix_of(bytes, StoredType::kFloat32, 1, 48);
    float expected = 0.0F;
    float y = 0.0F;
    scalar().linear(matrix, x, {&expected, 1});
    kernels().linear(matrix, x, {&y, 1});
    ASSERT_EQ(std::bit_cast<std::uint32_t>(y), std::bit_cast<std::uint32_t>(expected));
  }
}

TEST_P(EveryTarget, WideningIsExactForEverySixteenBitNumber) {
  for (const StoredType type : {StoredType::kBfloat16, StoredType::kFloat16}) {
    std::string bytes;
    std::vector<float> expected;
    for (std::uint32_t word = 0; word < 0x10000U; ++word) {
      const bool is_half = type == StoredType::kFloat16;
      const int exponent_bits = is_half ? 5 : 8;
      const int fraction_bits = 15 - exponent_bits;
      const int exponent = static_cast<int>(word >> fraction_bits & ((1U << exponent_bits) - 1U));
      const double fraction = static_cast<double>(word & ((1U << fraction_bits) - 1U)) / (1 << fraction_bits);
      const int bias = (1 << (exponent_bits - 1)) - 1;
      double value = std::ldexp((exponent == 0 ? 0.0 : 1.0) + fraction, std::max(exponent, 1) - bias);
      if (exponent == (1 << exponent_bits) - 1) {
        value = fraction == 0.0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
      }
      expected.push_back(static_cast<float>((word & 0x8000U) != 0 ? -value : value));
      bytes.push_back(static_cast<char>(word & 0xffU));
      bytes.push_back(static_cast<char>(word >> 8U));
    }
    std::vector<float> out(expected.size());
    kernels().widen(reinterpret_cast<const std::byte*>(bytes.data()), type, out);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const bool is_same = std::isnan(expected[i]) ? std::isnan(out[i]) : out[i] == expected[i];
      ASSERT_TRUE(is_same && std::signbit(out[i]) == std::signbit(expected[i])) << out[i] << " " << expected[i];
    }
  }
}

TEST_P(EveryTarget, ExponentialsAreThoseOfTheOneDefinition) {
  std::vector<float> x = {0.0F, -0.0F, 88.8F, 89.6F, -87.5F, -103.9F, -104.1F, -200.0F, kInfinity, -kInfinity};
  Sequence sequence(24);
  for (int i = 0; i < 100'000; ++i) {
    x.push_back(sequence.between(-110.0F, 92.0F));
  }
  std::vector<float> expected;
  for (const float value : x) {
    expected.push_back(exponential(value - 1.5F));
  }
  kernels().exponentials(x, 1.5F, x);
  EXPECT_EQ(bits_of(x), bits_of(expected));
}

TEST_P(EveryTarget, WeightedSumAddsBlocksOfAbsolutePositions) {
  Sequence sequence(25);
  for (const std::int64_t first : {0, 1, 63, 64, 100}) {
    for (const std::size_t count : {1U, 63U, 64U, 65U, 200U}) {
      const std::size_t width = 37;
      const std::vector<float> p = sequence.vector(count, 0.0F, 1.0F);
      const std::vector<float> v = sequence.vector(count * width, -1.0F, 1.0F);
      const std::string bytes = test::stored(v, StoredType::kFloat32);
      std::vector<float> expected(width);
      for (std::size_t d = 0; d < width; ++d) {
        float block = 0.0F;
        for (std::size_t t = 0; t < count; ++t) {
          if ((first + static_cast<std::int64_t>(t)) % kSoftmaxBlock == 0) {
            expected[d] += block;
            block = 0.0F;
          }
          block = std::fma(p[t], v[t * width + d], block);
        }
        expected[d] += block;
      }
      std::vector<float> out(width);
      kernels().weighted_sum(
          p, first, matrix_of(bytes, StoredType::kFloat32, static_cast<std::int64_t>(count), width), out);
      EXPECT_EQ(bits_of(out), bits_of(expected)) << first << " " << count;
    }
  }
}

TEST_P(EveryTarget, ElementwiseKernelsGiveTheScalarBits) {
  Sequence sequence(26);
  for (const std::size_t count : {2U, 14U, 32U, 64U, 130U}) {
    const std::vector<float> a = sequence.vector(count, -90.0F, 90.0F);
    const std::vector<float> b = sequence.vector(count, -2.0F, 2.0F);
    const std::vector<float> cosine = sequence.vector(count / 2, -1.0F, 1.0F);
    const std::vector<float> sine = sequence.vector(count / 2, -1.0F, 1.0F);
    const auto results = [&](const NumericKernels& kernels) {
      std::vector<std::vector<float>> out(7, std::vector<float>(count));
      kernels.scale(a, 0.37F, b, out[0]);
      kernels.multiply(a, 0.37F, out[1]);
      kernels.divide(a, 0.37F, out[2]);
      kernels.add(a, b, out[3]);
      out[4] = b;
      kernels.accumulate(0.37F, a, out[4]);
      kernels.gated(a, b, out[5]);
      out[6] = a;
      kernels.rotate(out[6], cosine, sine);
      out.push_back({kernels.maximum(a), kernels.maximum(std::span(a).first(1)), kernels.maximum({})});
      return out;
    };
    const auto expected = results(scalar());
    const auto found = results(kernels());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(bits_of(found[i]), bits_of(expected[i])) << "kernel " << i << ", " << count << " elements";
    }
  }
}

TEST_P(EveryTarget, AttentionIsSoftmaxOfTheVisiblePositions) {
  Sequence sequence(27);
  const std::int64_t positions = 150;
  const std::int64_t width = 20;
  const std::string keys = test::stored(sequence.vector(150 * 20, -1.0F, 1.0F), StoredType::kFloat32);
  const std::vector<float> v = sequence.vector(150 * 20, -1.0F, 1.0F);
  const std::string values = test::stored(v, StoredType::kFloat32);
  const std::vector<float> query = sequence.vector(20, -2.0F, 2.0F);
  for (const std::int64_t window : {0, 1, 70}) {
    const std::int64_t first = first_visible(positions - 1, window);
    const std::int64_t count = positions - first;
    HeadCache cache = {matrix_of(keys, StoredType::kFloat32, count, width),
                       matrix_of(values, StoredType::kFloat32, count, width),
                       first};
    cache.keys.data += first * cache.keys.row_bytes;
    cache.values.data += first * cache.values.row_bytes;
    std::vector<float> scores(static_cast<std::size_t>(count));
    std::vector<float> out(20);
    attend(kernels(), query, cache, 0.25F, scores, out);

    std::vector<double> exact(20);
    double sum = 0.0;
    for (std::int64_t t = 0; t < count; ++t) {
      double score = 0.0;
      for (std::int64_t d = 0; d < width; ++d) {
        float key = 0.0F;
        std::memcpy(&key, cache.keys.row(t) + 4 * d, 4);
        score += static_cast<double>(key) * query[static_cast<std::size_t>(d)];
      }
      const double p = std::exp(0.25 * score);
      sum += p;
      for (std::int64_t d = 0; d < width; ++d) {
        exact[static_cast<std::size_t>(d)] += p * v[static_cast<std::size_t>((first + t) * width + d)];
      }
    }
    for (std::size_t d = 0; d < 20; ++d) {
      EXPECT_NEAR(out[d], exact[d] / sum, 2e-6) << "window " << window;
    }
  }
}

TEST(SoftmaxSum, AddsBlocksOfAbsolutePositions) {
  // 2^24 swallows a 1 that comes in its own block; ones of another block are gathered first.
  std::vector<float> p(70, 0.0F);
  p[0] = 0x1p24F;
  p[1] = 1.0F;
  p[64] = 1.0F;
  p[65] = 1.0F;
  EXPECT_EQ(softmax_sum(p, 0), 0x1p24F + 2.0F);
  EXPECT_EQ(softmax_sum(p, 64), 0x1p24F + 2.0F);
  EXPECT_EQ(softmax_sum(p, 63), 0x1p24F + 4.0F);  // blocks of 2^24, 1 + 1 and 1
}

TEST(RmsFactor, IsOneOverTheRootOfTheMeanSquare) {
  const std::vector<float> x(48, 3.0F);
  EXPECT_EQ(rms_factor(numeric_kernels(SimdTarget::kScalar), x, 7.0F), 0.25F);
}

TEST(ArgMax, TheLowerIdOfEquals) {
  EXPECT_EQ(arg_max(std::vector<float>{1.0F, 5.0F, 5.0F, 2.0F}), 1);
}

TEST(ChooseExperts, LargestFirstLowerIdOfEqualsAscendingOut) {
  const std::vector<float> logits = {0.0F, 2.0F, -1.0F, 2.0F, 2.0F};
  const std::vector<ExpertChoice> chosen = choose_experts(numeric_kernels(SimdTarget::kScalar), logits, 2);
  ASSERT_EQ(chosen.size(), 2U);
  EXPECT_EQ(chosen[0].expert, 1);
  EXPECT_EQ(chosen[1].expert, 3);
  EXPECT_EQ(chosen[0].weight, 0.5F);
  EXPECT_EQ(chosen[1].weight, 0.5F);
}

TEST(ChooseExperts, WeightsAreTheSoftmaxOfTheChosen) {
  const std::vector<float> logits = {1.0F, 0.0F, 3.0F};
  const std::vector<ExpertChoice> chosen = choose_experts(numeric_kernels(SimdTarget::kScalar), logits, 2);
  EXPECT_EQ(chosen[0].expert, 0);
  EXPECT_EQ(chosen[1].expert, 2);
  EXPECT_NEAR(chosen[1].weight, 1.0 / (1.0 + std::exp(-2.0)), 1e-7);
  EXPECT_NEAR(chosen[0].weight, 1.0 / (1.0 + std::exp(2.0)), 1e-7);
}

TEST(RoundedTo, IsTheNearestNumberOfTheTypeAndTheEvenOneOfTwo) {
  for (const StoredType type : {StoredType::kBfloat16, StoredType::kFloat16}) {
    for (std::uint16_t word = 0; word < (type == StoredType::kBfloat16 ? 0x7f7fU : 0x7bffU); ++word) {
      std::array<float, 2> neighbours{};
      const std::array<std::uint16_t, 2> words = {word, static_cast<std::uint16_t>(word + 1)};
      numeric_kernels(SimdTarget::kScalar).widen(std::as_bytes(std::span(words)).data(), type, neighbours);
      const auto [low, high] = neighbours;
      ASSERT_EQ(rounded_to(type, low), low);
      ASSERT_EQ(rounded_to(type, -low), -low);
      const auto middle = static_cast<float>(0.5 * (static_cast<double>(low) + static_cast<double>(high)));
      ASSERT_EQ(rounded_to(type, middle), word % 2 == 0 ? low : high);
      ASSERT_EQ(rounded_to(type, std::nextafter(middle, 0.0F)), low);
      ASSERT_EQ(rounded_to(type, std::nextafter(middle, kInfinity)), high);
    }
  }
  EXPECT_EQ(rounded_to(StoredType::kFloat32, 0.1F), 0.1F);
}

TEST(FindNonFinite, NamesTheFirstInEveryType) {
  const std::vector<float> finite = {1.0F, -2.0F, 0x1p-14F, 65504.0F};
  for (const StoredType type : {StoredType::kFloat32, StoredType::kBfloat16, StoredType::kFloat16}) {
    std::string bytes = test::stored(finite, type);
    const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
    EXPECT_EQ(find_non_finite(data, type, 4), std::nullopt);
    const auto width = static_cast<std::size_t>(stored_bytes(type));
    bytes[3 * width - 1] = '\x7f';
    bytes[3 * width - 2] = '\xff';
    EXPECT_EQ(find_non_finite(data, type, 4), 2);
    EXPECT_EQ(find_non_finite(data, type, 2), std::nullopt);
  }
}

TEST(ArithmeticMode, RoundsToNearestAndKeepsSubnormalNumbers) {
  std::fesetround(FE_UPWARD);
#if defined(__SSE__)
  _mm_setcsr(_mm_getcsr() | 0x8040U);  // flush to zero, subnormal numbers are zero
#endif
  volatile float smallest = std::numeric_limits<float>::min();
  volatile float one = 1.0F;
  volatile float tiny = 0x1p-60F;
  const bool was_set = one + tiny > 1.0F;
  set_arithmetic_mode();
  EXPECT_TRUE(was_set);
  EXPECT_EQ(one + tiny, 1.0F);
  EXPECT_GT(smallest * 0.5F, 0.0F);
}

}  // namespace
}  // namespace lpu::node
