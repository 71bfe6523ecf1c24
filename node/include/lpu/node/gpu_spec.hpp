#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "lpu/node/chip_preset.hpp"
#include "lpu/node/field_reader.hpp"
#include "lpu/node/preset_fields.hpp"

namespace lpu::node {

/// How a GPU multiplies: width of a stored weight, and with it the peak and the kernels that serve it.
enum class GpuPrecision : std::uint8_t {
  k8Bit,         ///< 8-bit weights and activations: fp8 where the GPU has it, else int8
  k8BitWeights,  ///< 8-bit weights, 16-bit arithmetic
  k16Bit,
  k32Bit,  ///< tf32
};
[[nodiscard]] double weight_bytes(GpuPrecision precision);

/// One GPU: peaks, memory, and what its kernels were measured to take.
///
/// Values come from a preset (cluster/presets/gpus/*.json), which gives unit and source of each.
struct GpuSpec {
  std::string name;
  std::string architecture;  ///< ampere, hopper: which of NCCL's tables it has
  double peak_8bit_tflops = 0;
  double peak_16bit_tflops = 0;
  double peak_32bit_tflops = 0;
  double compute_share = 0;  ///< of the peak that large matrix multiplications reach

  double hbm_gigabytes = 0;
  double hbm_usable_share = 0;  ///< what weights and KV may take; the rest is the engine's
  double hbm_gigabytes_per_second = 0;

  double gemm_16bit_start_us = 0;
  double gemm_16bit_gigabytes_per_second = 0;
  double gemm_8bit_start_us = 0;
  double gemm_8bit_gigabytes_per_second = 0;
  double experts_16bit_start_us = 0;  ///< of the kernels of a layer's experts together: routing, both multiplications
  double experts_8bit_start_us = 0;
  double attention_start_us = 0;
  double attention_gigabytes_per_second = 0;
  double small_operators_us = 0;  ///< of a layer: norms, rotary embedding, KV store, activation, addition
  double host_step_us = 0;        ///< scheduling and sampling between two steps, on the CPU

  double power_watts = 0;
  double price_usd = 0;

  [[nodiscard]] double hbm_usable_bytes() const { return 1e9 * hbm_gigabytes * hbm_usable_share; }
};

/// Matrix times `rows` activations of 16 bits, `inputs` x `outputs` weights on this GPU.
///
/// Predicted: max(start + bytes / measured rate, FLOPs / (share of the peak)); bytes of weights, inputs and outputs.
[[nodiscard]] double gemm_us(const GpuSpec& gpu, GpuPrecision precision, double rows, double inputs, double outputs);
/// The same with nothing but peaks: max(bytes / peak rate, FLOPs / peak).
[[nodiscard]] double gemm_roofline_us(
    const GpuSpec& gpu, GpuPrecision precision, double rows, double inputs, double outputs);
/// A layer's chosen experts together: `parameters` weights are read, `operations` floating-point operations done.
[[nodiscard]] double experts_us(const GpuSpec& gpu, GpuPrecision precision, double parameters, double operations);
[[nodiscard]] double experts_roofline_us(const GpuSpec& gpu,
                                         GpuPrecision precision,
                                         double parameters,
                                         double operations);
/// The part of gemm_us() and experts_us() that does not depend on sizes: launch, fill, and for 8 bits the quantising.
[[nodiscard]] double gemm_start_us(const GpuSpec& gpu, GpuPrecision precision);
[[nodiscard]] double experts_start_us(const GpuSpec& gpu, GpuPrecision precision);
/// Attention of one layer over `kv_bytes` of keys and values on this GPU.
[[nodiscard]] double attention_us(const GpuSpec& gpu, double kv_bytes);

/// @throws InputError  "<where>…: found …" for the first field that contradicts another or is an unknown word
void check_gpu(const GpuSpec& gpu, const std::string& where);

/// A GPU with the origin of each constant.
struct GpuPreset {
  GpuSpec gpu;
  std::string description;
  Sources sources;  ///< field name -> source
};

/// Every field as presets, listings and `--set gpu.<name>` know it.
[[nodiscard]] std::span<const PresetField<GpuSpec>> gpu_fields();

/// Reads `{"kind": "gpu", "name": …, "description": …, "<field>": {"value": "3.2 us", "source": …}, …}`.
/// @throws InputError  missing, unknown or out of range; file and path named
[[nodiscard]] GpuPreset load_gpu_preset(const FieldReader& reader);

}  // namespace lpu::node
