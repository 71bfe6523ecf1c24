#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "lpu/node/digest.hpp"
#include "lpu/node/stored_type.hpp"

namespace lpu::test {

/// A fixed sequence of numbers, the same on every machine.
class Sequence {
 public:
  explicit Sequence(std::uint64_t seed) : seed_(seed) {}
  [[nodiscard]] std::uint64_t bits() { return node::fold(seed_, counter_++); }
  [[nodiscard]] double uniform() { return static_cast<double>(bits() >> 11U) * 0x1p-53; }  ///< [0, 1)
  [[nodiscard]] float between(float low, float high) { return low + (high - low) * static_cast<float>(uniform()); }
  /// Any finite float, all exponents alike: subnormal numbers, zeros of both signs, huge ones.
  [[nodiscard]] float any_finite() {
    for (;;) {
      const float value = std::bit_cast<float>(static_cast<std::uint32_t>(bits()));
      if (std::isfinite(value)) {
        return value;
      }
    }
  }
  [[nodiscard]] std::vector<float> vector(std::size_t count, float low, float high) {
    std::vector<float> out(count);
    for (float& value : out) {
      value = between(low, high);
    }
    return out;
  }

 private:
  std::uint64_t seed_;
  std::uint64_t counter_ = 0;
};

/// Bytes of the numbers cut (not rounded) to the type; float16 only for magnitudes in [2^-14, 65504].
[[nodiscard]] inline std::string stored(const std::vector<float>& values, node::StoredType type) {
  std::string bytes;
  for (const float value : values) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (type == node::StoredType::kFloat32) {
      bytes.append(reinterpret_cast<const char*>(&bits), 4);
      continue;
    }
    std::uint32_t half = bits >> 16U;
    if (type == node::StoredType::kFloat16) {
      const std::int32_t exponent = static_cast<std::int32_t>(bits >> 23U & 0xffU) - 112;
      half = (bits >> 16U & 0x8000U) |
             (exponent <= 0 ? 0U : static_cast<std::uint32_t>(exponent) << 10U | (bits >> 13U & 0x3ffU));
    }
    const auto word = static_cast<std::uint16_t>(half);
    bytes.append(reinterpret_cast<const char*>(&word), 2);
  }
  return bytes;
}

[[nodiscard]] inline std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> out(values.size());
  std::memcpy(out.data(), values.data(), 4 * values.size());
  return out;
}

}  // namespace lpu::test
