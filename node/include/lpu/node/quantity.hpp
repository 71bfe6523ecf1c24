#pragma once
#include <compare>
#include <cstdint>

namespace lpu::node {

/// A count of one unit; the tag keeps cycles from being added to bytes.
///
/// Same-kind arithmetic only. Everything that changes the kind is a named function with the units in its name.
template <typename Tag>
class Quantity {
 public:
  constexpr Quantity() = default;
  constexpr explicit Quantity(std::int64_t count) : count_(count) {}
  [[nodiscard]] constexpr std::int64_t count() const { return count_; }
  constexpr auto operator<=>(const Quantity&) const = default;
  constexpr Quantity& operator+=(Quantity other) {
    count_ += other.count_;
    return *this;
  }
  friend constexpr Quantity operator+(Quantity a, Quantity b) { return Quantity(a.count_ + b.count_); }
  friend constexpr Quantity operator-(Quantity a, Quantity b) { return Quantity(a.count_ - b.count_); }
  friend constexpr Quantity operator*(Quantity a, std::int64_t n) { return Quantity(a.count_ * n); }
  friend constexpr Quantity operator*(std::int64_t n, Quantity a) { return a * n; }

 private:
  std::int64_t count_ = 0;
};

using Cycles = Quantity<struct CyclesTag>;  ///< chip clock
using Bytes = Quantity<struct BytesTag>;    ///< 8 bit
using Hertz = Quantity<struct HertzTag>;    ///< 1/s
using BytesPerSecond = Quantity<struct BytesPerSecondTag>;
using MilliWatts = Quantity<struct MilliWattsTag>;

/// ⌈a / b⌉ for a >= 0, b > 0.
[[nodiscard]] constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
[[nodiscard]] constexpr double to_microseconds(Cycles cycles, Hertz clock) {
  return static_cast<double>(cycles.count()) * 1e6 / static_cast<double>(clock.count());
}

}  // namespace lpu::node
