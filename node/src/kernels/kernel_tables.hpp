#pragma once
#include "lpu/node/numeric_kernels.hpp"

namespace lpu::node::kernels {

[[nodiscard]] const NumericKernels& scalar_kernels();

/// nullptr where this build has no such target. Whether the CPU has it is the caller's question.
[[nodiscard]] const NumericKernels* simd_kernels(SimdTarget target);

[[nodiscard]] bool cpu_has(SimdTarget target);

}  // namespace lpu::node::kernels
