#pragma once
#include <cstdint>
#include <span>

#include "lpu/node/simd_target.hpp"
#include "lpu/node/stored_type.hpp"

namespace lpu::node {

/// Positions of one block of a softmax's sums: block b holds positions [64 b, 64 b + 64).
inline constexpr std::int64_t kSoftmaxBlock = 64;

/// The arithmetic of the numeric plane, fp32, for one SIMD target.
///
/// Every function gives the same bits on every target: the order of every sum is part of its contract, each step is one
/// IEEE operation rounded to nearest, and "fma" rounds once, also where the CPU has none. Spans of one call have the
/// same length and do not overlap unless a docstring says so.
struct NumericKernels {
  SimdTarget target = SimdTarget::kScalar;

  /// y[r] = Σ weights[r, i] x[i]: element i goes to accumulator i mod 16 (from +0, ascending, fma); then the tree
  /// a[j] + a[j + 8], a[j] + a[j + 4], a[j] + a[j + 2], a[0] + a[1].
  /// @param x  (weights.columns,)   @param y  (weights.rows,)
  void (*linear)(const StoredMatrix& weights, std::span<const float> x, std::span<float> y) = nullptr;

  /// Exact widening of out.size() stored numbers.
  void (*widen)(const std::byte* stored, StoredType type, std::span<float> out) = nullptr;

  /// The largest element; -infinity of an empty span.
  float (*maximum)(std::span<const float> x) = nullptr;

  /// out = exp(x − subtrahend) as exponential() computes it; out may be x.
  void (*exponentials)(std::span<const float> x, float subtrahend, std::span<float> out) = nullptr;

  /// out[d] = Σ over blocks, ascending, of (fma chain over the block's positions, ascending, of p[t] values[t, d]).
  /// @param p               probabilities of positions first_position, first_position + 1, …
  /// @param first_position  decides where blocks begin, so that a window or a chunk changes no sum
  /// @param values          fp32 (p.size(), out.size())
  void (*weighted_sum)(std::span<const float> p,
                       std::int64_t first_position,
                       const StoredMatrix& values,
                       std::span<float> out) = nullptr;

  /// out = weight · (x · factor); out may be x.
  void (*scale)(std::span<const float> x, float factor, std::span<const float> weight, std::span<float> out) = nullptr;

  /// out = x · factor; out may be x.
  void (*multiply)(std::span<const float> x, float factor, std::span<float> out) = nullptr;

  /// out = x / divisor; out may be x.
  void (*divide)(std::span<const float> x, float divisor, std::span<float> out) = nullptr;

  /// out = a + b; out may be a or b.
  void (*add)(std::span<const float> a, std::span<const float> b, std::span<float> out) = nullptr;

  /// sum = fma(factor, x, sum).
  void (*accumulate)(float factor, std::span<const float> x, std::span<float> sum) = nullptr;

  /// out = (gate / (1 + exp(−gate))) · up; out may be gate or up.
  void (*gated)(std::span<const float> gate, std::span<const float> up, std::span<float> out) = nullptr;

  /// Rotary embedding of one head in place: with h = head.size() / 2, a = head[i], b = head[i + h]:
  /// head[i] = fma(a, cos[i], −(b · sin[i])), head[i + h] = fma(b, cos[i], a · sin[i]).
  /// @param cosine, sine  (h,)
  void (*rotate)(std::span<float> head, std::span<const float> cosine, std::span<const float> sine) = nullptr;
};

/// @throws InputError  this CPU has no such target
[[nodiscard]] const NumericKernels& numeric_kernels(SimdTarget target);

/// e^x to about one unit in the last place: n = x / ln 2 rounded, Taylor's polynomial of degree 7 in x − n ln 2 by fma,
/// scaled by 2^n in two steps. 0 below −104, +infinity above 89; one definition for all targets (no libm).
[[nodiscard]] float exponential(float x);

/// a · b + c rounded once, without an FMA unit: the product is exact in fp64, the sum is rounded to odd there (its
/// error is known exactly), and rounding an odd fp64 number to fp32 gives the correctly rounded result.
/// @source S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to
///         odd", IEEE Transactions on Computers 57(4), 2008, theorem 1 (53 >= 24 + 2)
[[nodiscard]] float fused_multiply_add(float a, float b, float c);

/// Sum of a softmax: a chain of additions inside each block, block sums added ascending.
/// @param first_position  position of p[0]
[[nodiscard]] float softmax_sum(std::span<const float> p, std::int64_t first_position);

/// Factor of an RMS norm: 1 / sqrt(Σ x² / n + epsilon), the sum as `linear` has it.
[[nodiscard]] float rms_factor(const NumericKernels& kernels, std::span<const float> x, float epsilon);

/// Index of the largest logit, the lower one of equals.
/// @pre  logits is not empty
[[nodiscard]] std::int64_t arg_max(std::span<const float> logits);

}  // namespace lpu::node
