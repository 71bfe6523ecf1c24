#include "lpu/node/elementary.hpp"

#include <array>
#include <cmath>

#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

// frexp, ldexp, floor and sqrt are exact or correctly rounded by IEEE 754; no other function of libm is called.

constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
/// π/2 in parts of 22 bits: n · part is exact for |n| < 2^31.
constexpr std::array<double, 5> kHalfPi = {
    0x1.921fbp+0, 0x1.5110bp-22, 0x1.184698p-44, 0x1.3198ap-69, 0x1.701b839a25205p-92};

constexpr double kLn2High = 0x1.62e42feep-1;  // 32 bits: n · this is exact for |n| < 2^21
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kLog2E = 0x1.71547652b82fep+0;

/// Σ (−1)^k x^(2k + odd) / (2k + odd)!, |x| <= π/4: the first term left out is below 5e-17 of the result.
double alternating_series(double x, int odd) {
  const double square = x * x;
  double sum = 0.0;
  for (int n = 16 + odd; n > odd; n -= 2) {
    sum = (1.0 - sum) * square / (static_cast<double>(n) * (n - 1));
  }
  return odd == 1 ? x - x * sum : 1.0 - sum;
}

/// ln of x > 0: x = m 2^e with m in [√½, √2), ln m = 2 artanh((m − 1) / (m + 1)).
double natural_logarithm(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0x1.6a09e667f3bcdp-1) {
    m *= 2.0;
    --exponent;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double square = s * s;
  double series = 0.0;
  for (int k = 23; k >= 3; k -= 2) {
    series = (series + 1.0 / k) * square;
  }
  return exponent * kLn2High + (exponent * kLn2Low + 2.0 * (s + s * series));
}

double natural_exponential(double x) {
  const double n = std::floor(x * kLog2E + 0.5);
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double sum = 1.0;
  for (int k = 15; k >= 1; --k) {
    sum = 1.0 + sum * r / k;
  }
  return std::ldexp(sum, static_cast<int>(n));
}

}  // namespace

SineCosine sine_cosine(double x) {
  const double n = std::floor(x * kTwoOverPi + 0.5);
  double r = x;
  for (const double part : kHalfPi) {
    r -= n * part;
  }
  const double s = alternating_series(r, 1);
  const double c = alternating_series(r, 0);
  switch (static_cast<std::int64_t>(n) & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

double power(double base, double exponent) {
  LPU_CHECK(base > 0.0, "power of " + std::to_string(base));
  return natural_exponential(exponent * natural_logarithm(base));
}

void rotary_angles(std::int64_t position,
                   std::span<const double> frequencies,
                   std::span<float> cosine,
                   std::span<float> sine) {
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const SineCosine value = sine_cosine(static_cast<double>(position) * frequencies[i]);
    cosine[i] = static_cast<float>(value.cosine);
    sine[i] = static_cast<float>(value.sine);
  }
}

}  // namespace lpu::node
