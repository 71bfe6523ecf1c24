#include "lpu/node/gpu_spec.hpp"

#include <array>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"
#include "preset_file.hpp"

namespace lpu::node {
namespace {

GpuSpec h100() {
  return load_gpu_preset(test::preset_file("gpus", "h100-80g-sxm")).gpu;
}

template <typename Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

TEST(PresetFields, NumbersShareTheirUnit) {
  EXPECT_EQ(parse_numbers("0.6 1.25 4 us", "us", 3, 0, 10, "here"), (std::vector<double>{0.6, 1.25, 4}));
  EXPECT_EQ(parse_numbers("1.5TB/s", "GB/s", 1, 0, 1e4, "here"), std::vector<double>{1500});
  EXPECT_EQ(parse_numbers("400 Gbit/s", "GB/s", 1, 0, 1e4, "here"), std::vector<double>{50});
  EXPECT_EQ(parse_numbers("8 NICs", "NICs", 1, 1, 64, "here"), std::vector<double>{8});
  EXPECT_EQ(parse_numbers("1 NIC", "NICs", 1, 1, 64, "here"), std::vector<double>{1});
  EXPECT_EQ(parse_numbers("0.9 1", kUnitOne, 0, 0, 1, "here"), (std::vector<double>{0.9, 1}));
}

TEST(PresetFields, BadNumbersAreRefusedWithWhatWouldBeRight) {
  const auto refusal = [](std::string_view text, std::string_view unit, std::size_t count) {
    return message_of([&] { static_cast<void>(parse_numbers(text, unit, count, 0, 10, "here")); });
  };
  EXPECT_EQ(refusal("3", "us", 1), "here: found 3; expected a unit of us, ns, ms after the number");
  EXPECT_EQ(refusal("3 usec", "us", 1), "here: found 3 usec; expected a unit of us, ns, ms");
  EXPECT_EQ(refusal("3 u", "us", 1), "here: found 3 u; expected a unit of us, ns, ms; did you mean us?");
  EXPECT_EQ(refusal("1 2 us", "us", 3), "here: found 1 2 us; expected 3 numbers from 0 to 10 us");
  EXPECT_EQ(refusal("11 us", "us", 1), "here: found 11 us; expected a number from 0 to 10 us");
  EXPECT_EQ(refusal("nan us", "us", 1), "here: found nan us; expected a number from 0 to 10 us");
  EXPECT_EQ(refusal("", "us", 1), "here: found nothing; expected a number from 0 to 10 us");
  EXPECT_EQ(refusal("0.5 us", kUnitOne, 1), "here: found 0.5 us; expected no unit");
}

TEST(GpuPreset, EveryFieldReadsBackWhatItPrints) {
  for (const char* name : {"h100-80g-sxm", "a100-80g-sxm", "a100-80g-pcie"}) {
    const GpuPreset preset = load_gpu_preset(test::preset_file("gpus", name));
    EXPECT_EQ(preset.gpu.name, name);
    GpuSpec copy;
    for (const PresetField<GpuSpec>& field : gpu_fields()) {
      set_field(copy, field, field_text(preset.gpu, field), "here");
      EXPECT_EQ(field_text(copy, field), field_text(preset.gpu, field)) << field.name;
      EXPECT_FALSE(preset.sources.at(std::string(field.name)).empty()) << field.name;
    }
  }
}

TEST(GpuPreset, SettingsChangeOneFieldAndNameTheNearest) {
  GpuSpec gpu = h100();
  const std::array<Setting, 2> good = {{{"gpu.hbm_rate", "4.8 TB/s"}, {"fabric.nics", "4 NICs"}}};
  apply_field_settings(gpu, gpu_fields(), "gpu.", good);
  EXPECT_EQ(gpu.hbm_gigabytes_per_second, 4800);
  const std::array<Setting, 1> bad = {{{"gpu.hmb_rate", "4.8 TB/s"}}};
  EXPECT_EQ(message_of([&] { apply_field_settings(gpu, gpu_fields(), "gpu.", bad); }),
            "--set gpu.hmb_rate: found an unknown path; expected a field of gpu; did you mean gpu.hbm_rate?");
}

TEST(GpuPreset, ContradictionsAreRefused) {
  GpuSpec gpu = h100();
  gpu.hbm_gigabytes_per_second = 2500;
  EXPECT_EQ(message_of([&] { check_gpu(gpu, "file:"); }),
            "file:gemm_16bit_rate: found 2790 GB/s; expected at most hbm_rate, 2500 GB/s");
  gpu = h100();
  gpu.architecture = "hoper";
  EXPECT_EQ(message_of([&] { check_gpu(gpu, "file:"); }),
            "file:architecture: found hoper; expected one of the known words; known: ampere, hopper; did you mean "
            "hopper?");
}

TEST(GpuTiming, MemoryBindsFewRowsAndArithmeticMany) {
  const GpuSpec gpu = h100();
  const double few = gemm_us(gpu, GpuPrecision::k16Bit, 1, 8192, 8192);
  EXPECT_NEAR(few, gpu.gemm_16bit_start_us + (2.0 * 8192 * 8192 + 2 * 2 * 8192) / (1e3 * 2790), 1e-9);
  const double many = gemm_us(gpu, GpuPrecision::k16Bit, 8192, 8192, 8192);
  EXPECT_NEAR(many, 2 * 8192.0 * 8192 * 8192 / (1e6 * 0.784 * 989), 1e-9);
}

TEST(GpuTiming, TheRooflineIsNeverSlower) {
  const GpuSpec gpu = h100();
  for (const GpuPrecision precision :
       {GpuPrecision::k8Bit, GpuPrecision::k8BitWeights, GpuPrecision::k16Bit, GpuPrecision::k32Bit}) {
    for (double rows = 1; rows < 1e5; rows *= 4) {
      EXPECT_LT(gemm_roofline_us(gpu, precision, rows, 4096, 4096), gemm_us(gpu, precision, rows, 4096, 4096));
      EXPECT_LT(experts_roofline_us(gpu, precision, 1e8, 1e9 * rows), experts_us(gpu, precision, 1e8, 1e9 * rows));
    }
  }
}

}  // namespace
}  // namespace lpu::node
