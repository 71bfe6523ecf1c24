// Structural identities of the published chip (Abts et al., ISCA 2020 and ISCA 2022): exact.
#include <cstdint>

#include <gtest/gtest.h>

#include "lpu/cluster/presets.hpp"

namespace lpu::cluster {
namespace {

const node::ChipSpec& chip() {
  static const node::ChipSpec kChip = load_chip("tsp-v1", "here").chip;
  return kChip;
}

TEST(ChipIdentities, SramIs220Mebibytes) {
  EXPECT_EQ(chip().sram(), node::Bytes(220LL << 20U));
}

TEST(ChipIdentities, StreamsCarry20480BytesACycle) {
  // Equation 1: 2 directions x 32 streams x 320 B, at any cross-section.
  EXPECT_EQ(2 * chip().streams_per_direction * chip().vector_bytes, 20'480);
}

TEST(ChipIdentities, SramGives56320BytesACycle) {
  // Equation 2: 2 hemispheres x 44 slices x 2 banks x 320 B.
  EXPECT_EQ(2 * chip().slices_per_hemisphere * chip().banks_per_slice * chip().vector_bytes, 56'320);
}

TEST(ChipIdentities, MultipliersAre409600And820TeraopsAtOneGigahertz) {
  const std::int64_t multipliers =
      std::int64_t{2} * chip().mxm_planes_per_hemisphere * chip().mxm_rows * chip().mxm_columns;
  EXPECT_EQ(multipliers, 409'600);
  const double teraops = 2.0 * static_cast<double>(multipliers) * 1e9 / 1e12;
  EXPECT_EQ(static_cast<int>(teraops / 10) * 10 + (static_cast<int>(teraops) % 10 >= 5 ? 10 : 0),
            820);  // printed to 10
}

TEST(ChipIdentities, InstallPortTakes20480BytesACycle) {
  EXPECT_EQ(2 * chip().mxm_planes_per_hemisphere * chip().mxm_install_columns_per_cycle * chip().mxm_rows, 20'480);
}

TEST(ChipIdentities, LinksCarry3840GigabitsASecond) {
  const std::int64_t bits = std::int64_t{chip().die_links} * chip().lanes_per_link * chip().lane_rate.count() * 8 * 2;
  EXPECT_EQ(bits, 3'840'000'000'000);
}

TEST(ChipIdentities, QueuesAre144AndFetch2304BytesACycle) {
  EXPECT_EQ(chip().icu_queues, 144);
  EXPECT_EQ(chip().icu_queues * 16, chip().fetch_bytes_per_cycle);
}

TEST(ChipIdentities, EncodingOverheadOfAVectorIs2Point44Percent) {
  const double overhead =
      static_cast<double>(chip().link_overhead_bytes) / (chip().vector_bytes + chip().link_overhead_bytes);
  EXPECT_DOUBLE_EQ(overhead, 8.0 / 328.0);
}

}  // namespace
}  // namespace lpu::cluster
