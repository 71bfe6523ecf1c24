#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>

namespace lpu::node {

/// How a number of a checkpoint is stored; each widens to fp32 exactly.
enum class StoredType : std::uint8_t { kFloat32, kBfloat16, kFloat16 };

[[nodiscard]] constexpr std::int64_t stored_bytes(StoredType type) {
  return type == StoredType::kFloat32 ? 4 : 2;
}

/// The nearest number of the type, the even one of two; finite and within the type's range.
[[nodiscard]] float rounded_to(StoredType type, float value);

/// Row-major numbers as a checkpoint holds them: not owned, of any alignment (a file's header has any length).
struct StoredMatrix {
  const std::byte* data = nullptr;
  StoredType type = StoredType::kFloat32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t row_bytes = 0;  ///< from one row to the next; >= columns * stored_bytes(type)

  [[nodiscard]] const std::byte* row(std::int64_t index) const { return data + index * row_bytes; }
};

/// Index of the first infinity or NaN among `count` numbers from `data` on; nothing where all are finite.
[[nodiscard]] std::optional<std::int64_t> find_non_finite(const std::byte* data, StoredType type, std::int64_t count);

}  // namespace lpu::node
