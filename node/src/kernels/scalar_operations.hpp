#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>

#include "lpu/node/stored_type.hpp"

namespace lpu::node::kernels {

/// Constants of exponential(), the same for the scalar and the SIMD code.
inline constexpr float kExpLowest = -105.0F;  // e^-105 rounds to 0
inline constexpr float kExpHighest = 89.5F;   // e^89.5 rounds to infinity
inline constexpr float kLog2E = 0x1.715476p+0F;
inline constexpr float kLn2High = 0x1.63p-1F;  // 9 bits: n · kLn2High is exact
inline constexpr float kLn2Low = -0x1.bd0106p-13F;
inline constexpr float kRoundMagic = 0x1.8p+23F;  // x + this rounds x to an integer and leaves it in the lowest bits
inline constexpr float kExpTaylor[] = {
    // 1 / k! for k = 7 down to 0
    1.0F / 5040.0F,
    1.0F / 720.0F,
    1.0F / 120.0F,
    1.0F / 24.0F,
    1.0F / 6.0F,
    0.5F,
    1.0F,
    1.0F};

/// See fused_multiply_add().
[[nodiscard]] inline float exact_fma(float a, float b, float c) {
  const double product = static_cast<double>(a) * static_cast<double>(b);
  const double addend = c;
  const double sum = product + addend;
  const double part = sum - product;  // Knuth's two-sum: error = product + addend − sum, exactly
  const double error = (product - (sum - part)) + (addend - part);
  std::int64_t bits = std::bit_cast<std::int64_t>(sum);
  if ((error < 0.0 || error > 0.0) && (bits & 1) == 0) {
    bits += (error < 0.0) == (sum < 0.0) ? 1 : -1;
  }
  return static_cast<float>(std::bit_cast<double>(bits));
}

/// 2^n as a float's bits.
/// @pre  -126 <= n <= 127
[[nodiscard]] inline float power_of_two(std::int32_t n) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(n + 127) << 23U);
}

[[nodiscard]] inline float scalar_exponential(float x) {
  x = x < kExpLowest ? kExpLowest : x;
  x = x > kExpHighest ? kExpHighest : x;
  const float magic = x * kLog2E + kRoundMagic;
  const float n = magic - kRoundMagic;
  float r = exact_fma(n, -kLn2High, x);
  r = exact_fma(n, -kLn2Low, r);
  float y = kExpTaylor[0];
  for (std::size_t k = 1; k < std::size(kExpTaylor); ++k) {
    y = exact_fma(y, r, kExpTaylor[k]);
  }
  if (!(x == x)) {
    return x;
  }
  const std::int32_t exponent = std::bit_cast<std::int32_t>(magic) - std::bit_cast<std::int32_t>(kRoundMagic);
  const std::int32_t half = exponent >> 1;
  return (y * power_of_two(half)) * power_of_two(exponent - half);
}

[[nodiscard]] inline float gated(float gate, float up) {
  return (gate / (1.0F + scalar_exponential(-gate))) * up;
}

template <StoredType kType>
[[nodiscard]] float widened(const std::byte* stored) {
  if constexpr (kType == StoredType::kFloat32) {
    float value;
    std::memcpy(&value, stored, sizeof value);
    return value;
  } else {
    std::uint16_t bits;
    std::memcpy(&bits, stored, sizeof bits);
    const std::uint32_t wide = bits;
    if constexpr (kType == StoredType::kBfloat16) {
      return std::bit_cast<float>(wide << 16U);
    } else {
      // The exponent's bias grows by 112; a product with 2^112 normalises subnormal numbers, too.
      const float magnitude = std::bit_cast<float>((wide & 0x7fffU) << 13U) * 0x1p112F;
      const std::uint32_t not_finite = (wide & 0x7c00U) == 0x7c00U ? 0x7f800000U : 0U;
      const std::uint32_t sign = (wide & 0x8000U) << 16U;
      return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | not_finite | sign);
    }
  }
}

/// Calls f.template operator()<type>() for the type's value.
template <typename Function>
void with_stored_type(StoredType type, Function f) {
  switch (type) {
    case StoredType::kFloat32:
      return f.template operator()<StoredType::kFloat32>();
    case StoredType::kBfloat16:
      return f.template operator()<StoredType::kBfloat16>();
    case StoredType::kFloat16:
      return f.template operator()<StoredType::kFloat16>();
  }
}

/// The fixed tree that ends a dot product; uses up the accumulators.
[[nodiscard]] inline float tree_sum(float (&accumulators)[16]) {
  for (std::size_t width = 8; width > 0; width /= 2) {
    for (std::size_t j = 0; j < width; ++j) {
      accumulators[j] += accumulators[j + width];
    }
  }
  return accumulators[0];
}

/// First index behind `from` at which a block of positions ends, at most `count`; index 0 is first_position.
[[nodiscard]] inline std::size_t block_end(std::size_t from, std::int64_t first_position, std::size_t count) {
  const std::size_t position = static_cast<std::size_t>(first_position) + from;
  const std::size_t end = from + 64 - position % 64;
  return end < count ? end : count;
}

}  // namespace lpu::node::kernels
