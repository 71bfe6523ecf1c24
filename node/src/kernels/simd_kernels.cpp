// The kernels of numeric_kernels.hpp, compiled once for each instruction set: foreach_target.h includes this file anew
// for each. The order of every sum is fixed by blocks of 16 elements, whatever the vector length, so a target may only
// choose how many registers a block takes. Highway's Dot, ReduceSum and MulAdd without an FMA unit are not bit-stable.
#include <limits>

#include "kernel_tables.hpp"
#include "scalar_operations.hpp"

// Also the sets below a build's own (-march=native): --simd selects among all that the CPU has.
#define HWY_COMPILE_ALL_ATTAINABLE
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/simd_kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#define LPU_HAS_KERNELS \
  (HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3)

#if LPU_HAS_KERNELS
HWY_BEFORE_NAMESPACE();
namespace lpu::node::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, 16>;  // never more lanes than accumulators
using Vector = hn::Vec<Floats>;
constexpr std::size_t kLanes = hn::MaxLanes(Floats());
constexpr std::size_t kBlock = 16;
constexpr std::size_t kParts = kBlock / kLanes;
constexpr std::size_t kRowsAtOnce =
    kLanes == 16 ? 8 : 4;  // chains enough to hide an fma's latency, in 16 or 32 registers

#if HWY_NATIVE_FMA
HWY_INLINE Vector multiply_add(Vector a, Vector b, Vector c) {
  return hn::MulAdd(a, b, c);
}
HWY_INLINE float multiply_add(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
#else
using Doubles = hn::Full128<double>;
using Halves = hn::Half<Floats>;

/// See fused_multiply_add(): product and sum in fp64, the sum rounded to odd.
HWY_INLINE hn::Vec<Halves> multiply_add_half(hn::Vec<Halves> a, hn::Vec<Halves> b, hn::Vec<Halves> c) {
  const Doubles d;
  const hn::RebindToSigned<Doubles> di;
  const auto product = hn::Mul(hn::PromoteTo(d, a), hn::PromoteTo(d, b));
  const auto addend = hn::PromoteTo(d, c);
  const auto sum = hn::Add(product, addend);
  const auto part = hn::Sub(sum, product);
  const auto error = hn::Add(hn::Sub(product, hn::Sub(sum, part)), hn::Sub(addend, part));
  const auto is_inexact = hn::Or(hn::VecFromMask(d, hn::Lt(error, hn::Zero(d))),
                                 hn::VecFromMask(d, hn::Gt(error, hn::Zero(d))));  // false for NaN
  const auto bits = hn::BitCast(di, sum);
  const auto is_even = hn::Sub(hn::And(bits, hn::Set(di, 1)), hn::Set(di, 1));  // all ones or 0
  const auto towards = hn::Or(hn::BroadcastSignBit(hn::BitCast(di, hn::Xor(error, sum))), hn::Set(di, 1));  // -1 or 1
  const auto step = hn::And(towards, hn::And(is_even, hn::BitCast(di, is_inexact)));
  return hn::DemoteTo(Halves(), hn::BitCast(d, hn::Add(bits, step)));
}
HWY_INLINE Vector multiply_add(Vector a, Vector b, Vector c) {
  const Halves half;
  const auto low = multiply_add_half(hn::LowerHalf(a), hn::LowerHalf(b), hn::LowerHalf(c));
  const auto high = multiply_add_half(hn::UpperHalf(half, a), hn::UpperHalf(half, b), hn::UpperHalf(half, c));
  return hn::Combine(Floats(), high, low);
}
HWY_INLINE float multiply_add(float a, float b, float c) {
  return exact_fma(a, b, c);
}
#endif

/// kLanes stored numbers from any address.
template <StoredType kType>
HWY_INLINE Vector load_widened(const std::byte* stored) {
  const Floats d;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(stored);
  if constexpr (kType == StoredType::kFloat32) {
    const hn::Repartition<std::uint8_t, Floats> d8;
    return hn::BitCast(d, hn::LoadU(d8, bytes));
  } else {
    const hn::RebindToUnsigned<Floats> d32;
    const hn::Rebind<std::uint16_t, Floats> d16;
    const hn::Repartition<std::uint8_t, decltype(d16)> d8;
    const auto wide = hn::PromoteTo(d32, hn::BitCast(d16, hn::LoadU(d8, bytes)));
    if constexpr (kType == StoredType::kBfloat16) {
      return hn::BitCast(d, hn::ShiftLeft<16>(wide));
    } else {
      const auto shifted = hn::ShiftLeft<13>(hn::And(wide, hn::Set(d32, 0x7fffU)));
      const auto magnitude = hn::Mul(hn::BitCast(d, shifted), hn::Set(d, 0x1p112F));
      const auto exponent = hn::Set(d32, 0x7c00U);
      const auto not_finite = hn::IfThenElseZero(hn::Eq(hn::And(wide, exponent), exponent), hn::Set(d32, 0x7f800000U));
      const auto sign = hn::ShiftLeft<16>(hn::And(wide, hn::Set(d32, 0x8000U)));
      return hn::Or(magnitude, hn::BitCast(d, hn::Or(not_finite, sign)));
    }
  }
}

/// Dot products of kRows rows with x; a row's elements i, i + 16, … meet in one lane, whatever kLanes is.
template <StoredType kType, std::size_t kRows>
HWY_INLINE void dot_rows(const std::byte* weights, std::size_t row_bytes, std::span<const float> x, float* y) {
  constexpr std::size_t kWidth = kType == StoredType::kFloat32 ? 4 : 2;
  const Floats d;
  Vector sums[kRows][kParts];
  for (auto& row : sums) {
    for (Vector& sum : row) {
      sum = hn::Zero(d);
    }
  }
  std::size_t i = 0;
  for (; i + kBlock <= x.size(); i += kBlock) {
    for (std::size_t part = 0; part < kParts; ++part) {
      const std::size_t at = i + part * kLanes;
      const Vector activation = hn::LoadU(d, x.data() + at);
      for (std::size_t row = 0; row < kRows; ++row) {
        const Vector weight = load_widened<kType>(weights + row * row_bytes + at * kWidth);
        sums[row][part] = multiply_add(weight, activation, sums[row][part]);
      }
    }
  }
  for (std::size_t row = 0; row < kRows; ++row) {
    HWY_ALIGN float accumulators[kBlock];
    for (std::size_t part = 0; part < kParts; ++part) {
      hn::Store(sums[row][part], d, accumulators + part * kLanes);
    }
    for (std::size_t j = i; j < x.size(); ++j) {
      const float weight = widened<kType>(weights + row * row_bytes + j * kWidth);
      accumulators[j - i] = multiply_add(weight, x[j], accumulators[j - i]);
    }
    y[row] = tree_sum(accumulators);
  }
}

template <StoredType kType>
void linear_of(const StoredMatrix& weights, std::span<const float> x, std::span<float> y) {
  const auto row_bytes = static_cast<std::size_t>(weights.row_bytes);
  std::size_t row = 0;
  for (; row + kRowsAtOnce <= y.size(); row += kRowsAtOnce) {
    dot_rows<kType, kRowsAtOnce>(weights.data + row * row_bytes, row_bytes, x, y.data() + row);
  }
  for (; row < y.size(); ++row) {
    dot_rows<kType, 1>(weights.data + row * row_bytes, row_bytes, x, y.data() + row);
  }
}

void linear(const StoredMatrix& weights, std::span<const float> x, std::span<float> y) {
  switch (weights.type) {
    case StoredType::kFloat32:
      return linear_of<StoredType::kFloat32>(weights, x, y);
    case StoredType::kBfloat16:
      return linear_of<StoredType::kBfloat16>(weights, x, y);
    case StoredType::kFloat16:
      return linear_of<StoredType::kFloat16>(weights, x, y);
  }
}

template <StoredType kType>
void widen_of(const std::byte* stored, std::span<float> out) {
  constexpr std::size_t kWidth = kType == StoredType::kFloat32 ? 4 : 2;
  std::size_t i = 0;
  for (; i + kLanes <= out.size(); i += kLanes) {
    hn::StoreU(load_widened<kType>(stored + i * kWidth), Floats(), out.data() + i);
  }
  for (; i < out.size(); ++i) {
    out[i] = widened<kType>(stored + i * kWidth);
  }
}

void widen(const std::byte* stored, StoredType type, std::span<float> out) {
  switch (type) {
    case StoredType::kFloat32:
      return widen_of<StoredType::kFloat32>(stored, out);
    case StoredType::kBfloat16:
      return widen_of<StoredType::kBfloat16>(stored, out);
    case StoredType::kFloat16:
      return widen_of<StoredType::kFloat16>(stored, out);
  }
}

float maximum(std::span<const float> x) {
  const Floats d;
  float largest = -std::numeric_limits<float>::infinity();
  std::size_t i = 0;
  if (x.size() >= kLanes) {
    Vector best = hn::Set(d, largest);
    for (; i + kLanes <= x.size(); i += kLanes) {
      const Vector value = hn::LoadU(d, x.data() + i);
      best = hn::IfThenElse(hn::Gt(value, best), value, best);
    }
    largest = hn::GetLane(hn::MaxOfLanes(d, best));
  }
  for (; i < x.size(); ++i) {
    largest = x[i] > largest ? x[i] : largest;
  }
  return largest + 0.0F;  // one sign of zero
}

HWY_INLINE Vector exponential_of(Vector x) {
  const Floats d;
  const hn::RebindToSigned<Floats> di;
  x = hn::IfThenElse(hn::Lt(x, hn::Set(d, kExpLowest)), hn::Set(d, kExpLowest), x);
  x = hn::IfThenElse(hn::Gt(x, hn::Set(d, kExpHighest)), hn::Set(d, kExpHighest), x);
  const Vector magic = hn::Add(hn::Mul(x, hn::Set(d, kLog2E)), hn::Set(d, kRoundMagic));
  const Vector n = hn::Sub(magic, hn::Set(d, kRoundMagic));
  Vector r = multiply_add(n, hn::Set(d, -kLn2High), x);
  r = multiply_add(n, hn::Set(d, -kLn2Low), r);
  Vector y = hn::Set(d, kExpTaylor[0]);
  for (std::size_t k = 1; k < std::size(kExpTaylor); ++k) {
    y = multiply_add(y, r, hn::Set(d, kExpTaylor[k]));
  }
  const auto exponent = hn::Sub(hn::BitCast(di, magic), hn::BitCast(di, hn::Set(d, kRoundMagic)));
  const auto half = hn::ShiftRight<1>(exponent);
  const auto bias = hn::Set(di, 127);
  const Vector first = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(half, bias)));
  const Vector second = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::Sub(exponent, half), bias)));
  return hn::Mul(hn::Mul(y, first), second);
}

void exponentials(std::span<const float> x, float subtrahend, std::span<float> out) {
  const Floats d;
  std::size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    hn::StoreU(exponential_of(hn::Sub(hn::LoadU(d, x.data() + i), hn::Set(d, subtrahend))), d, out.data() + i);
  }
  for (; i < x.size(); ++i) {
    out[i] = scalar_exponential(x[i] - subtrahend);
  }
}

void weighted_sum(std::span<const float> p,
                  std::int64_t first_position,
                  const StoredMatrix& values,
                  std::span<float> out) {
  const Floats d;
  std::size_t at = 0;
  for (; at + kLanes <= out.size(); at += kLanes) {
    Vector total = hn::Zero(d);
    for (std::size_t t = 0; t < p.size();) {
      const std::size_t end = block_end(t, first_position, p.size());
      Vector block = hn::Zero(d);
      for (; t < end; ++t) {
        const std::byte* row = values.row(static_cast<std::int64_t>(t));
        block = multiply_add(hn::Set(d, p[t]), load_widened<StoredType::kFloat32>(row + 4 * at), block);
      }
      total = hn::Add(total, block);
    }
    hn::StoreU(total, d, out.data() + at);
  }
  if (at < out.size()) {
    StoredMatrix rest = values;
    rest.data += 4 * at;
    scalar_kernels().weighted_sum(p, first_position, rest, out.subspan(at));
  }
}

/// out[i] = f(vectors at i) where whole vectors fit, g(i) for the rest.
template <typename VectorFunction, typename ScalarFunction>
HWY_INLINE void for_each_element(std::span<float> out, VectorFunction f, ScalarFunction g) {
  const Floats d;
  std::size_t i = 0;
  for (; i + kLanes <= out.size(); i += kLanes) {
    hn::StoreU(f(i), d, out.data() + i);
  }
  for (; i < out.size(); ++i) {
    out[i] = g(i);
  }
}

void scale(std::span<const float> x, float factor, std::span<const float> weight, std::span<float> out) {
  const Floats d;
  for_each_element(
      out,
      [&](std::size_t i) HWY_ATTR {
        return hn::Mul(hn::LoadU(d, weight.data() + i), hn::Mul(hn::LoadU(d, x.data() + i), hn::Set(d, factor)));
      },
      [&](std::size_t i) HWY_ATTR { return weight[i] * (x[i] * factor); });
}

void multiply(std::span<const float> x, float factor, std::span<float> out) {
  const Floats d;
  for_each_element(
      out,
      [&](std::size_t i) HWY_ATTR { return hn::Mul(hn::LoadU(d, x.data() + i), hn::Set(d, factor)); },
      [&](std::size_t i) HWY_ATTR { return x[i] * factor; });
}

void divide(std::span<const float> x, float divisor, std::span<float> out) {
  const Floats d;
  for_each_element(
      out,
      [&](std::size_t i) HWY_ATTR { return hn::Div(hn::LoadU(d, x.data() + i), hn::Set(d, divisor)); },
      [&](std::size_t i) HWY_ATTR { return x[i] / divisor; });
}

void add(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  const Floats d;
  for_each_element(
      out,
      [&](std::size_t i) HWY_ATTR { return hn::Add(hn::LoadU(d, a.data() + i), hn::LoadU(d, b.data() + i)); },
      [&](std::size_t i) HWY_ATTR { return a[i] + b[i]; });
}

void accumulate(float factor, std::span<const float> x, std::span<float> sum) {
  const Floats d;
  for_each_element(
      sum,
      [&](std::size_t i) HWY_ATTR {
        return multiply_add(hn::Set(d, factor), hn::LoadU(d, x.data() + i), hn::LoadU(d, sum.data() + i));
      },
      [&](std::size_t i) HWY_ATTR { return multiply_add(factor, x[i], sum[i]); });
}

void gated_product(std::span<const float> gate, std::span<const float> up, std::span<float> out) {
  const Floats d;
  for_each_element(
      out,
      [&](std::size_t i) HWY_ATTR {
        const Vector g = hn::LoadU(d, gate.data() + i);
        const Vector denominator = hn::Add(hn::Set(d, 1.0F), exponential_of(hn::Neg(g)));
        return hn::Mul(hn::Div(g, denominator), hn::LoadU(d, up.data() + i));
      },
      [&](std::size_t i) HWY_ATTR { return gated(gate[i], up[i]); });
}

void rotate(std::span<float> head, std::span<const float> cosine, std::span<const float> sine) {
  const Floats d;
  const std::size_t half = head.size() / 2;
  float* first = head.data();
  float* second = head.data() + half;
  std::size_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Vector a = hn::LoadU(d, first + i);
    const Vector b = hn::LoadU(d, second + i);
    const Vector c = hn::LoadU(d, cosine.data() + i);
    const Vector s = hn::LoadU(d, sine.data() + i);
    hn::StoreU(multiply_add(a, c, hn::Neg(hn::Mul(b, s))), d, first + i);
    hn::StoreU(multiply_add(b, c, hn::Mul(a, s)), d, second + i);
  }
  for (; i < half; ++i) {
    const float a = first[i];
    const float b = second[i];
    first[i] = multiply_add(a, cosine[i], -(b * sine[i]));
    second[i] = multiply_add(b, cosine[i], a * sine[i]);
  }
}

}  // namespace

const NumericKernels& table(SimdTarget target);
const NumericKernels& table(SimdTarget target) {
  static const NumericKernels kTable = {.target = target,
                                        .linear = linear,
                                        .widen = widen,
                                        .maximum = maximum,
                                        .exponentials = exponentials,
                                        .weighted_sum = weighted_sum,
                                        .scale = scale,
                                        .multiply = multiply,
                                        .divide = divide,
                                        .add = add,
                                        .accumulate = accumulate,
                                        .gated = gated_product,
                                        .rotate = rotate};
  return kTable;
}

}  // namespace lpu::node::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // LPU_HAS_KERNELS

#if HWY_ONCE
namespace lpu::node::kernels {

const NumericKernels* simd_kernels(SimdTarget target) {
  switch (target) {
    case SimdTarget::kScalar:
      return &scalar_kernels();
    case SimdTarget::kSsse3:
#if HWY_TARGETS & HWY_SSSE3
      return &N_SSSE3::table(target);
#else
      return nullptr;
#endif
    case SimdTarget::kSse4:
#if HWY_TARGETS & HWY_SSE4
      return &N_SSE4::table(target);
#else
      return nullptr;
#endif
    case SimdTarget::kAvx2:
#if HWY_TARGETS & HWY_AVX2
      return &N_AVX2::table(target);
#else
      return nullptr;
#endif
    case SimdTarget::kAvx512:
#if HWY_TARGETS & HWY_AVX3
      return &N_AVX3::table(target);
#else
      return nullptr;
#endif
  }
  return nullptr;
}

bool cpu_has(SimdTarget target) {
  static const auto kSupported = hwy::SupportedTargets();  // asks the CPU, which a virtual machine answers slowly
  switch (target) {
    case SimdTarget::kScalar:
      return true;
    case SimdTarget::kSsse3:
      return (kSupported & HWY_SSSE3) != 0;
    case SimdTarget::kSse4:
      return (kSupported & HWY_SSE4) != 0;
    case SimdTarget::kAvx2:
      return (kSupported & HWY_AVX2) != 0;
    case SimdTarget::kAvx512:
      return (kSupported & HWY_AVX3) != 0;
  }
  return false;
}

}  // namespace lpu::node::kernels
#endif  // HWY_ONCE
