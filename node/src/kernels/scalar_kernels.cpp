#include <array>
#include <limits>

#include "kernel_tables.hpp"
#include "scalar_operations.hpp"

namespace lpu::node::kernels {
namespace {

template <StoredType kType>
float dot(const std::byte* weights, std::span<const float> x) {
  float accumulators[16] = {};
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float weight = widened<kType>(weights + i * static_cast<std::size_t>(stored_bytes(kType)));
    accumulators[i % 16] = exact_fma(weight, x[i], accumulators[i % 16]);
  }
  return tree_sum(accumulators);
}

void linear(const StoredMatrix& weights, std::span<const float> x, std::span<float> y) {
  with_stored_type(weights.type, [&]<StoredType kType>() {
    for (std::size_t row = 0; row < y.size(); ++row) {
      y[row] = dot<kType>(weights.row(static_cast<std::int64_t>(row)), x);
    }
  });
}

void widen(const std::byte* stored, StoredType type, std::span<float> out) {
  with_stored_type(type, [&]<StoredType kType>() {
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = widened<kType>(stored + i * static_cast<std::size_t>(stored_bytes(kType)));
    }
  });
}

float maximum(std::span<const float> x) {
  float largest = -std::numeric_limits<float>::infinity();
  for (const float value : x) {
    largest = value > largest ? value : largest;
  }
  return largest + 0.0F;  // one sign of zero
}

void exponentials(std::span<const float> x, float subtrahend, std::span<float> out) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    out[i] = scalar_exponential(x[i] - subtrahend);
  }
}

void weighted_sum(std::span<const float> p,
                  std::int64_t first_position,
                  const StoredMatrix& values,
                  std::span<float> out) {
  for (std::size_t d = 0; d < out.size(); ++d) {
    float total = 0.0F;
    for (std::size_t t = 0; t < p.size();) {
      const std::size_t end = block_end(t, first_position, p.size());
      float block = 0.0F;
      for (; t < end; ++t) {
        const std::byte* row = values.row(static_cast<std::int64_t>(t));
        block = exact_fma(p[t], widened<StoredType::kFloat32>(row + 4 * d), block);
      }
      total += block;
    }
    out[d] = total;
  }
}

void scale(std::span<const float> x, float factor, std::span<const float> weight, std::span<float> out) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    out[i] = weight[i] * (x[i] * factor);
  }
}

void multiply(std::span<const float> x, float factor, std::span<float> out) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    out[i] = x[i] * factor;
  }
}

void divide(std::span<const float> x, float divisor, std::span<float> out) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    out[i] = x[i] / divisor;
  }
}

void add(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    out[i] = a[i] + b[i];
  }
}

void accumulate(float factor, std::span<const float> x, std::span<float> sum) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    sum[i] = exact_fma(factor, x[i], sum[i]);
  }
}

void gated_product(std::span<const float> gate, std::span<const float> up, std::span<float> out) {
  for (std::size_t i = 0; i < gate.size(); ++i) {
    out[i] = gated(gate[i], up[i]);
  }
}

void rotate(std::span<float> head, std::span<const float> cosine, std::span<const float> sine) {
  const std::size_t half = head.size() / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const float a = head[i];
    const float b = head[i + half];
    head[i] = exact_fma(a, cosine[i], -(b * sine[i]));
    head[i + half] = exact_fma(b, cosine[i], a * sine[i]);
  }
}

}  // namespace

const NumericKernels& scalar_kernels() {
  static constexpr NumericKernels kTable = {.target = SimdTarget::kScalar,
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

}  // namespace lpu::node::kernels
