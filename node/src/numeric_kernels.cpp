#include "lpu/node/numeric_kernels.hpp"

#include <cmath>
#include <string>

#include "kernels/kernel_tables.hpp"
#include "kernels/scalar_operations.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::node {

std::string_view name_of(SimdTarget target) {
  return kSimdTargets[static_cast<std::size_t>(target)].name;
}

std::vector<SimdTarget> supported_simd_targets() {
  std::vector<SimdTarget> targets;
  for (const SimdTargetRow& row : kSimdTargets) {
    if (kernels::simd_kernels(row.target) != nullptr && kernels::cpu_has(row.target)) {
      targets.push_back(row.target);
    }
  }
  return targets;
}

SimdTarget choose_simd_target(std::string_view name) {
  const std::vector<SimdTarget> supported = supported_simd_targets();
  if (name == "auto") {
    return supported.back();
  }
  std::vector<std::string> known = {"auto"};
  for (const SimdTargetRow& row : kSimdTargets) {
    if (row.name == name) {
      static_cast<void>(numeric_kernels(row.target));
      return row.target;
    }
    known.emplace_back(row.name);
  }
  throw InputError("--simd: found " + std::string(name) + "; expected an instruction set" + known_values(name, known));
}

const NumericKernels& numeric_kernels(SimdTarget target) {
  const NumericKernels* table = kernels::simd_kernels(target);
  if (table == nullptr || !kernels::cpu_has(target)) {
    std::string has;
    for (const SimdTarget supported : supported_simd_targets()) {
      has += (has.empty() ? "" : ", ") + std::string(name_of(supported));
    }
    throw InputError("--simd: found " + std::string(name_of(target)) + ", but this CPU has no " +
                     std::string(name_of(target)) + "; expected one of " + has);
  }
  return *table;
}

float exponential(float x) {
  return kernels::scalar_exponential(x);
}

float fused_multiply_add(float a, float b, float c) {
  return kernels::exact_fma(a, b, c);
}

float softmax_sum(std::span<const float> p, std::int64_t first_position) {
  float total = 0.0F;
  for (std::size_t t = 0; t < p.size();) {
    const std::size_t end = kernels::block_end(t, first_position, p.size());
    float block = 0.0F;
    for (; t < end; ++t) {
      block += p[t];
    }
    total += block;
  }
  return total;
}

float rms_factor(const NumericKernels& kernels, std::span<const float> x, float epsilon) {
  const auto count = static_cast<std::int64_t>(x.size());
  const StoredMatrix row = {.data = std::as_bytes(x).data(),
                            .type = StoredType::kFloat32,
                            .rows = 1,
                            .columns = count,
                            .row_bytes = 4 * count};
  float squares = 0.0F;
  kernels.linear(row, x, {&squares, 1});
  return 1.0F / std::sqrt(squares / static_cast<float>(count) + epsilon);
}

std::int64_t arg_max(std::span<const float> logits) {
  LPU_CHECK(!logits.empty(), "no logits");
  std::size_t best = 0;
  for (std::size_t id = 1; id < logits.size(); ++id) {
    best = logits[id] > logits[best] ? id : best;
  }
  return static_cast<std::int64_t>(best);
}

}  // namespace lpu::node
