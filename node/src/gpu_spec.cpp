#include "lpu/node/gpu_spec.hpp"

#include <algorithm>

namespace lpu::node {
namespace {

constexpr double kActivationBytes = 2;

const std::vector<PresetField<GpuSpec>>& rows() {
  static const std::vector<PresetField<GpuSpec>> kRows = {
      {"architecture", kUnitWord, 0, 0, "ampere or hopper: which of NCCL's tables it has", &GpuSpec::architecture, 0},
      {"peak_8bit", "TFLOP/s", 1, 1e6, "dense, fp8 or int8", &GpuSpec::peak_8bit_tflops},
      {"peak_16bit", "TFLOP/s", 1, 1e6, "dense, bf16", &GpuSpec::peak_16bit_tflops},
      {"peak_32bit", "TFLOP/s", 1, 1e6, "dense, tf32", &GpuSpec::peak_32bit_tflops},
      {"compute_share",
       kUnitOne,
       0.01,
       1,
       "of the peak that large matrix multiplications reach",
       &GpuSpec::compute_share},
      {"hbm", "GB", 1, 1e5, "memory", &GpuSpec::hbm_gigabytes},
      {"hbm_usable_share", kUnitOne, 0.1, 1, "of it for weights and KV", &GpuSpec::hbm_usable_share},
      {"hbm_rate", "GB/s", 1, 1e6, "on paper", &GpuSpec::hbm_gigabytes_per_second},
      {"gemm_16bit_start", "us", 0, 1e3, "fixed time of a 16-bit matrix multiplication", &GpuSpec::gemm_16bit_start_us},
      {"gemm_16bit_rate", "GB/s", 1, 1e6, "its bytes beyond that", &GpuSpec::gemm_16bit_gigabytes_per_second},
      {"gemm_8bit_start", "us", 0, 1e3, "with 8-bit weights and activations", &GpuSpec::gemm_8bit_start_us},
      {"gemm_8bit_rate", "GB/s", 1, 1e6, "its bytes beyond that", &GpuSpec::gemm_8bit_gigabytes_per_second},
      {"experts_16bit_start",
       "us",
       0,
       1e3,
       "fixed time of a layer's experts, routing included",
       &GpuSpec::experts_16bit_start_us},
      {"experts_8bit_start", "us", 0, 1e3, "with 8-bit weights", &GpuSpec::experts_8bit_start_us},
      {"attention_start", "us", 0, 1e3, "fixed time of a layer's decode attention", &GpuSpec::attention_start_us},
      {"attention_rate", "GB/s", 1, 1e6, "bytes of KV beyond that", &GpuSpec::attention_gigabytes_per_second},
      {"small_operators",
       "us",
       0,
       1e3,
       "norms, rotary embedding, KV store, activation and addition of a layer",
       &GpuSpec::small_operators_us},
      {"host_step", "us", 0, 1e6, "scheduling and sampling on the CPU, a step", &GpuSpec::host_step_us},
      {"power", "W", 1, 1e5, "thermal design power of the GPU alone", &GpuSpec::power_watts},
      {"price", "USD", 1, 1e7, "of the GPU alone", &GpuSpec::price_usd},
  };
  return kRows;
}

double peak_tflops(const GpuSpec& gpu, GpuPrecision precision) {
  switch (precision) {
    case GpuPrecision::k8Bit:
      return gpu.peak_8bit_tflops;
    case GpuPrecision::k8BitWeights:
    case GpuPrecision::k16Bit:
      return gpu.peak_16bit_tflops;
    case GpuPrecision::k32Bit:
      return gpu.peak_32bit_tflops;
  }
  return gpu.peak_16bit_tflops;
}

double gemm_rate(const GpuSpec& gpu, GpuPrecision precision) {
  return weight_bytes(precision) == 1 ? gpu.gemm_8bit_gigabytes_per_second : gpu.gemm_16bit_gigabytes_per_second;
}

/// `share` of the peak; 1e6 operations in a microsecond are one TFLOP/s.
double arithmetic_us(const GpuSpec& gpu, GpuPrecision precision, double operations, double share) {
  return operations / (1e6 * share * peak_tflops(gpu, precision));
}

double gemm_bytes(GpuPrecision precision, double count, double inputs, double outputs) {
  return weight_bytes(precision) * inputs * outputs + kActivationBytes * count * (inputs + outputs);
}

double transfer_us(double bytes, double gigabytes_per_second) {
  return bytes / (1e3 * gigabytes_per_second);
}

}  // namespace

double weight_bytes(GpuPrecision precision) {
  switch (precision) {
    case GpuPrecision::k8Bit:
    case GpuPrecision::k8BitWeights:
      return 1;
    case GpuPrecision::k16Bit:
      return 2;
    case GpuPrecision::k32Bit:
      return 4;
  }
  return 2;
}

double gemm_start_us(const GpuSpec& gpu, GpuPrecision precision) {
  return precision == GpuPrecision::k8Bit ? gpu.gemm_8bit_start_us : gpu.gemm_16bit_start_us;
}

double experts_start_us(const GpuSpec& gpu, GpuPrecision precision) {
  return precision == GpuPrecision::k8Bit ? gpu.experts_8bit_start_us : gpu.experts_16bit_start_us;
}

double gemm_us(const GpuSpec& gpu, GpuPrecision precision, double rows, double inputs, double outputs) {
  const double memory = transfer_us(gemm_bytes(precision, rows, inputs, outputs), gemm_rate(gpu, precision));
  const double arithmetic = arithmetic_us(gpu, precision, 2 * rows * inputs * outputs, gpu.compute_share);
  return std::max(gemm_start_us(gpu, precision) + memory, arithmetic);
}

double gemm_roofline_us(const GpuSpec& gpu, GpuPrecision precision, double rows, double inputs, double outputs) {
  return std::max(transfer_us(gemm_bytes(precision, rows, inputs, outputs), gpu.hbm_gigabytes_per_second),
                  arithmetic_us(gpu, precision, 2 * rows * inputs * outputs, 1));
}

double experts_us(const GpuSpec& gpu, GpuPrecision precision, double parameters, double operations) {
  const double memory = transfer_us(weight_bytes(precision) * parameters, gemm_rate(gpu, precision));
  return experts_start_us(gpu, precision) +
         std::max(memory, arithmetic_us(gpu, precision, operations, gpu.compute_share));
}

double experts_roofline_us(const GpuSpec& gpu, GpuPrecision precision, double parameters, double operations) {
  return std::max(transfer_us(weight_bytes(precision) * parameters, gpu.hbm_gigabytes_per_second),
                  arithmetic_us(gpu, precision, operations, 1));
}

double attention_us(const GpuSpec& gpu, double kv_bytes) {
  return gpu.attention_start_us + transfer_us(kv_bytes, gpu.attention_gigabytes_per_second);
}

void check_gpu(const GpuSpec& gpu, const std::string& where) {
  const std::vector<std::string> known = {"ampere", "hopper"};
  if (std::find(known.begin(), known.end(), gpu.architecture) == known.end()) {
    throw InputError(where + "architecture: found " + printable(gpu.architecture) +
                     "; expected one of the known words" + known_values(gpu.architecture, known));
  }
  const std::pair<std::string_view, double> rates[] = {{"gemm_16bit_rate", gpu.gemm_16bit_gigabytes_per_second},
                                                       {"gemm_8bit_rate", gpu.gemm_8bit_gigabytes_per_second},
                                                       {"attention_rate", gpu.attention_gigabytes_per_second}};
  for (const auto& [name, rate] : rates) {
    if (rate > gpu.hbm_gigabytes_per_second) {
      throw InputError(where + std::string(name) + ": found " + format_numbers({&rate, 1}, "GB/s") +
                       "; expected at most hbm_rate, " + format_numbers({&gpu.hbm_gigabytes_per_second, 1}, "GB/s"));
    }
  }
}

std::span<const PresetField<GpuSpec>> gpu_fields() {
  return rows();
}

GpuPreset load_gpu_preset(const FieldReader& reader) {
  if (reader.text("kind") != "gpu") {
    reader.fail("kind", "gpu");
  }
  GpuPreset out;
  out.gpu.name = reader.text("name");
  out.description = reader.text("description");
  out.sources = read_fields(out.gpu, gpu_fields(), reader);
  reader.refuse_other_keys();
  check_gpu(out.gpu, reader.where() + ":");
  return out;
}

}  // namespace lpu::node
