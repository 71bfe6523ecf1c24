#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace lpu::node {

/// Instruction sets that the numeric kernels are compiled for. All give the same bits; ssse3 and sse4 have no fused
/// multiply-add and compute it exactly in fp64 instead.
enum class SimdTarget : std::uint8_t { kScalar, kSsse3, kSse4, kAvx2, kAvx512 };

struct SimdTargetRow {
  SimdTarget target;
  std::string_view name;  ///< as `--simd` spells it
};
inline constexpr std::array<SimdTargetRow, 5> kSimdTargets = {{
    {SimdTarget::kScalar, "scalar"},
    {SimdTarget::kSsse3, "ssse3"},
    {SimdTarget::kSse4, "sse4"},
    {SimdTarget::kAvx2, "avx2"},
    {SimdTarget::kAvx512, "avx512"},
}};

[[nodiscard]] std::string_view name_of(SimdTarget target);

/// Those that this CPU and this build have, in the order of kSimdTargets; scalar is always one.
[[nodiscard]] std::vector<SimdTarget> supported_simd_targets();

/// @param name  auto (the last of the supported ones) or a name of kSimdTargets
/// @throws InputError  an unknown name, or "this CPU has no …"
[[nodiscard]] SimdTarget choose_simd_target(std::string_view name);

}  // namespace lpu::node
