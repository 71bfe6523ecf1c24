#include "lpu/node/stored_type.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/scalar_operations.hpp"

namespace lpu::node {

float rounded_to(StoredType type, float value) {
  if (type == StoredType::kFloat32 || value == 0.0F) {
    return value;
  }
  const int significant_bits = type == StoredType::kBfloat16 ? 8 : 11;
  const int lowest_exponent = type == StoredType::kBfloat16 ? -126 : -14;  // of a normal number, 1 <= mantissa < 2
  const int exponent = std::max(std::ilogb(value), lowest_exponent);
  const int last_place = exponent - (significant_bits - 1);
  const double steps = std::ldexp(static_cast<double>(value), -last_place);
  double whole = std::floor(steps);
  const double rest = steps - whole;
  if (rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2.0) != 0.0)) {
    whole += 1.0;
  }
  return static_cast<float>(std::ldexp(whole, last_place));
}

std::optional<std::int64_t> find_non_finite(const std::byte* data, StoredType type, std::int64_t count) {
  std::optional<std::int64_t> found;
  kernels::with_stored_type(type, [&]<StoredType kType>() {
    for (std::int64_t i = 0; i < count && !found; ++i) {
      if (!std::isfinite(kernels::widened<kType>(data + i * stored_bytes(kType)))) {
        found = i;
      }
    }
  });
  return found;
}

}  // namespace lpu::node
