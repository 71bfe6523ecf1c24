#include "lpu/interconnect/nccl.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "gpu_presets.hpp"
#include "lpu/node/error.hpp"

namespace lpu::interconnect {
namespace {

using test::gpu_presets;
using test::GpuPresets;

constexpr double kKiB = 1024;

NcclGroup group(const GpuPresets& presets, std::int32_t ranks) {
  return {presets.nccl, presets.fabric, presets.gpu.architecture, ranks};
}

struct Row {
  double kib;
  double us;
  NcclAlgorithm algorithm;
  NcclProtocol protocol;
};
struct Table {
  const char* name;
  const char* system;
  std::int32_t ranks;
  std::vector<Row> rows;
};

using enum NcclAlgorithm;
using enum NcclProtocol;

class NcclModel : public testing::TestWithParam<Table> {};

/// An independent evaluation of NCCL 2.30's formulae and its choices, to the tenth of a microsecond.
TEST_P(NcclModel, TakesTheTimeAndTheWayOfTheReference) {
  const GpuPresets presets = gpu_presets(GetParam().system);
  for (const Row& row : GetParam().rows) {
    const NcclCost cost = nccl_all_reduce(group(presets, GetParam().ranks), row.kib * kKiB);
    EXPECT_NEAR(cost.microseconds, row.us, 0.51) << row.kib << " KiB";
    EXPECT_EQ(name(cost.algorithm), name(row.algorithm)) << row.kib << " KiB";
    EXPECT_EQ(name(cost.protocol), name(row.protocol)) << row.kib << " KiB";
  }
}
INSTANTIATE_TEST_SUITE_P(
    Reference,
    NcclModel,
    testing::Values(
        Table{"H100_8",
              "dgx-h100",
              8,
              {{8, 15.1, kRing, kLl},
               {256, 18.3, kRing, kLl},
               {1024, 28.0, kRing, kLl},
               {2048, 32.7, kNvls, kSimple},
               {8192, 55.8, kNvls, kSimple},
               {65536, 272, kNvls, kSimple}}},
        Table{"H100_4", "dgx-h100", 4, {{16, 10.4, kRing, kLl}, {1024, 21.4, kRing, kLl}, {8192, 63.4, kRing, kLl128}}},
        Table{"H100_2", "dgx-h100", 2, {{16, 7.9, kRing, kLl}, {1024, 15.2, kRing, kLl}, {8192, 38.5, kRing, kSimple}}},
        Table{"A100_8",
              "dgx-a100",
              8,
              {{8, 15.2, kRing, kLl},
               {1024, 35.9, kRing, kLl},
               {8192, 107, kRing, kLl128},
               {65536, 545, kRing, kSimple}}},
        Table{"H100_16",
              "dgx-h100",
              16,
              {{8, 25.8, kTree, kLl},
               {128, 38.6, kTree, kLl},
               {256, 51.5, kTree, kLl128},
               {2048, 72.3, kTree, kLl128},
               {8192, 101, kNvlsTree, kSimple},
               {65536, 339, kNvlsTree, kSimple}}},
        Table{"H100_128",
              "dgx-h100",
              128,
              {{8, 56.3, kTree, kLl}, {1024, 115, kTree, kLl128}, {65536, 558, kNvlsTree, kSimple}}},
        Table{"A100_16",
              "dgx-a100",
              16,
              {{8, 26.2, kTree, kLl}, {1024, 70.3, kTree, kLl128}, {65536, 864, kRing, kLl128}}},
        Table{"A100_512",
              "dgx-a100",
              512,
              {{8, 76.4, kTree, kLl}, {256, 140, kTree, kLl128}, {65536, 1251, kTree, kLl128}}}),
    [](const auto& test) { return test.param.name; });

TEST(Nccl, OneRankTakesNoTime) {
  const GpuPresets presets = gpu_presets("dgx-h100");
  EXPECT_EQ(nccl_all_reduce(group(presets, 1), 1e6).microseconds, 0);
  EXPECT_EQ(engine_all_reduce_us(group(presets, 1), 1e6), 0);
  EXPECT_EQ(ideal_all_reduce_us(group(presets, 1), 1e6), 0);
}

TEST(Nccl, ChoosesTheCheapestWay) {
  const GpuPresets presets = gpu_presets("dgx-h100");
  for (double bytes = 64; bytes < 1e10; bytes *= 3) {
    for (const std::int32_t ranks : {2, 4, 8, 16, 64}) {
      const NcclCost chosen = nccl_all_reduce(group(presets, ranks), bytes);
      for (const NcclCost& cost : nccl_all_reduce_costs(group(presets, ranks), bytes)) {
        EXPECT_LE(chosen.microseconds, cost.microseconds);
      }
    }
  }
}

TEST(Nccl, IdealIsFastestAndTheEngineNotSlowerThanNccl) {
  for (const char* system : {"dgx-h100", "dgx-a100", "hgx-pcie-numa"}) {
    const GpuPresets presets = gpu_presets(system);
    for (const std::int32_t ranks : {2, 4, 8, 16, 32}) {
      for (double bytes = 1024; bytes < 1e9; bytes *= 2) {
        const NcclGroup g = group(presets, ranks);
        EXPECT_LT(ideal_all_reduce_us(g, bytes), engine_all_reduce_us(g, bytes)) << system << ranks << " " << bytes;
        EXPECT_LE(engine_all_reduce_us(g, bytes), measured_nccl_all_reduce_us(g, bytes));
      }
    }
  }
}

TEST(Nccl, WithoutNvlinkThereIsNeitherLl128NorNvls) {
  const GpuPresets presets = gpu_presets("hgx-pcie-numa");
  for (const NcclCost& cost : nccl_all_reduce_costs(group(presets, 8), 1e6)) {
    EXPECT_NE(cost.protocol, kLl128);
    EXPECT_TRUE(cost.algorithm == kRing || cost.algorithm == kTree);
  }
}

TEST(Nccl, TheLinkBetweenSocketsBindsOnlyWhoCrossesIt) {
  const GpuPresets presets = gpu_presets("hgx-pcie-numa");
  GpuPresets wider = presets;
  wider.fabric.socket_link_gigabytes_per_second = 22;
  const double bytes = 64 * 1024 * kKiB;
  EXPECT_EQ(nccl_all_reduce(group(presets, 4), bytes).microseconds,
            nccl_all_reduce(group(wider, 4), bytes).microseconds);
  EXPECT_GT(nccl_all_reduce(group(presets, 8), bytes).microseconds,
            2 * nccl_all_reduce(group(wider, 8), bytes).microseconds);
}

TEST(GpuFabric, NicsAreSharedByTheirSocket) {
  GpuFabric fabric = gpu_presets("dgx-h100").fabric;
  EXPECT_EQ(network_gigabytes_per_second(fabric, 0), 48);
  fabric.nic_sockets = {0, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_EQ(network_gigabytes_per_second(fabric, 0), 48);        // eight NICs for eight GPUs
  EXPECT_EQ(network_gigabytes_per_second(fabric, 7), 22.0 / 4);  // through the link between the sockets
}

TEST(GpuFabric, HopsWaitForTheSlowestGpu) {
  const GpuFabric fabric = gpu_presets("hgx-pcie-numa").fabric;
  EXPECT_EQ(network_gigabytes_per_second(fabric, 0), 2 * 24.0 / 8);
  EXPECT_EQ(network_gigabytes_per_second(fabric, 7), 10.0 / 4);
  EXPECT_DOUBLE_EQ(hop_us(fabric, 1e6, true), fabric.hop_between_nodes_us + 1e6 / 2.5e3);
  EXPECT_DOUBLE_EQ(hop_us(fabric, 1e6, false), fabric.hop_in_node_us + 1e6 / 24e3);
}

TEST(GpuFabric, ContradictionsAreRefused) {
  const auto refusal = [](const auto& change) {
    GpuFabric fabric = gpu_presets("dgx-h100").fabric;
    change(fabric);
    try {
      check_gpu_fabric(fabric, "file:");
    } catch (const node::InputError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(refusal([](GpuFabric& f) { f.inside = "nvlnk"; }),
            "file:inside: found nvlnk; expected one of the known words; known: nvlink, pcie; did you mean nvlink?");
  EXPECT_EQ(refusal([](GpuFabric& f) { f.gpus_per_node = 4; }), "file:gpu_sockets: found 8 numbers; expected 4");
  EXPECT_EQ(refusal([](GpuFabric& f) { f.inside = "pcie"; }),
            "file:nvlink_rate: found 370.8 GB/s; expected 0 GB/s: the inside is pcie");
  EXPECT_EQ(refusal([](GpuFabric& f) { f.measured_at_bytes[1] = 1; }),
            "file:measured_at: found sizes out of order; expected each larger than the one before");
}

}  // namespace
}  // namespace lpu::interconnect
