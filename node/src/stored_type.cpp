#include "lpu/node/stored_type.hpp"

#include <cmath>

#include "kernels/scalar_operations.hpp"

namespace lpu::node {

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
