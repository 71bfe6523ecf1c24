#pragma once
#include <cstdint>
#include <span>

namespace lpu::node {

/// fp64 functions whose bits depend on no libm and no FMA: additions, multiplications, divisions, exact scalings.

/// Both to about 1e-16; exact reduction up to |x| = 2^31.
struct SineCosine {
  double sine = 0.0;
  double cosine = 0.0;
};
[[nodiscard]] SineCosine sine_cosine(double x);

/// base^exponent to about 1e-15 · |exponent · ln base|.
/// @pre  base > 0, the result neither overflows nor falls below 2^-1022
[[nodiscard]] double power(double base, double exponent);

/// Cosines and sines of position · frequency, rounded to fp32 once.
/// @param frequencies  radians a position, one for each rotary pair
/// @param cosine, sine  (frequencies.size(),)
void rotary_angles(std::int64_t position,
                   std::span<const double> frequencies,
                   std::span<float> cosine,
                   std::span<float> sine);

}  // namespace lpu::node
