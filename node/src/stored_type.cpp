#include "lpu/node/stored_type.hpp"

#include <cmath>

#include "kernels/scalar_operations.hpp"

namespace lpu::node {
namespace {

/// True where the exponent has all bits set, in the number's own format.
template <StoredType kType>
bool is_finite(const std::byte* stored) {
  if constexpr (kType == StoredType::kFloat16) {
    std::uint16_t bits;
    std::memcpy(&bits, stored, sizeof bits);
    return (bits & 0x7c00U) != 0x7c00U;
  } else {
    return std::isfinite(kernels::widened<kType>(stored));
  }
}

}  // namespace

std::optional<std::int64_t> find_non_finite(const std::byte* data, StoredType type, std::int64_t count) {
  std::optional<std::int64_t> found;
  kernels::with_stored_type(type, [&]<StoredType kType>() {
    for (std::int64_t i = 0; i < count && !found; ++i) {
      if (!is_finite<kType>(data + i * stored_bytes(kType))) {
        found = i;
      }
    }
  });
  return found;
}

}  // namespace lpu::node
