#include <string>

#include <gtest/gtest.h>

#include "lpu/node/gpu_spec.hpp"
#include "preset_file.hpp"
#include "validation.hpp"

namespace lpu::node {
namespace {

const std::string kVidur = "microsoft/vidur mlp.csv (measured), summed";
const std::string kTables = "ai-dynamo/aiconfigurator operator tables (measured)";

GpuSpec gpu(const std::string& name) {
  return load_gpu_preset(test::preset_file("gpus", name)).gpu;
}

/// Rate of the four matrix multiplications of a Llama-2-70B layer for one token, bf16, as a share of the HBM's.
double achieved_share(const GpuSpec& gpu, double tensor_parallel) {
  constexpr double kHidden = 8192;
  constexpr double kKeyValue = 1024;
  constexpr double kFfn = 28672;
  const double matrices[4][2] = {{kHidden, (kHidden + 2 * kKeyValue) / tensor_parallel},
                                 {kHidden / tensor_parallel, kHidden},
                                 {kHidden, 2 * kFfn / tensor_parallel},
                                 {kFfn / tensor_parallel, kHidden}};
  double time_us = 0;
  double bytes = 0;
  for (const auto& matrix : matrices) {
    time_us += gemm_us(gpu, GpuPrecision::k16Bit, 1, matrix[0], matrix[1]);
    bytes += 2 * matrix[0] * matrix[1];
  }
  return bytes / (1e3 * time_us) / gpu.hbm_gigabytes_per_second;
}

// Baseline row 13. The affine fits are of other tables (aiconfigurator) than these figures (Vidur).
TEST(GpuValidation, Row13ShareOfHbmThatOneTokensLayerReaches) {
  struct Row {
    const char* gpu;
    double tensor_parallel;
    double share;
  };
  for (const Row& row : {Row{"h100-80g-sxm", 1, 0.86},
                         Row{"h100-80g-sxm", 8, 0.73},
                         Row{"a100-80g-sxm", 1, 0.78},
                         Row{"a100-80g-sxm", 8, 0.69}}) {
    test::check_figure({std::string("row 13, ") + row.gpu + ", TP " + std::to_string(int(row.tensor_parallel)) +
                            ", bf16, 1 row, kernels alone",
                        "of HBM",
                        row.share,
                        achieved_share(gpu(row.gpu), row.tensor_parallel),
                        0.08,
                        kVidur});
  }
}

/// Mixtral-8x7B's block of experts, `distinct` of 8 read.
double mixtral_experts_us(const GpuSpec& gpu, GpuPrecision precision, double rows, double distinct, double parallel) {
  const double expert = 3 * 4096 * 14336 / parallel;
  return experts_us(gpu, precision, distinct * expert, 2 * rows * 2 * expert);
}

// Not in the table of rows: the start of the experts' kernels comes from the columns of one row and TP 2, 4, 8; other
// batches and TP 1 are predictions. 8 rows choose 8 (1 - 0.75^8) = 7.2 experts, 64 all.
TEST(GpuValidation, BlockOfExpertsOfMixtral) {
  struct Row {
    const char* gpu;
    GpuPrecision precision;
    double rows, distinct, parallel, published;
  };
  for (const Row& row : {Row{"h100-80g-sxm", GpuPrecision::k16Bit, 1, 2, 1, 254},
                         Row{"h100-80g-sxm", GpuPrecision::k16Bit, 8, 7.199, 1, 954},
                         Row{"h100-80g-sxm", GpuPrecision::k16Bit, 8, 7.199, 8, 143},
                         Row{"h100-80g-sxm", GpuPrecision::k16Bit, 64, 8, 1, 964},
                         Row{"h100-80g-sxm", GpuPrecision::k16Bit, 64, 8, 8, 154},
                         Row{"h100-80g-sxm", GpuPrecision::k8Bit, 8, 7.199, 1, 491},
                         Row{"h100-80g-sxm", GpuPrecision::k8Bit, 8, 7.199, 8, 84},
                         Row{"a100-80g-sxm", GpuPrecision::k16Bit, 8, 7.199, 1, 1580},
                         Row{"a100-80g-sxm", GpuPrecision::k16Bit, 8, 7.199, 8, 237}}) {
    test::check_figure({std::string("experts, ") + row.gpu + ", " + std::to_string(int(row.rows)) + " rows, TP " +
                            std::to_string(int(row.parallel)) +
                            (row.precision == GpuPrecision::k8Bit ? ", fp8" : ", bf16"),
                        "us",
                        row.published,
                        mixtral_experts_us(gpu(row.gpu), row.precision, row.rows, row.distinct, row.parallel),
                        0.15,
                        kTables});
  }
}

}  // namespace
}  // namespace lpu::node
