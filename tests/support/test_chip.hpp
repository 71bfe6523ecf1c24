#pragma once
#include "lpu/node/chip_spec.hpp"

namespace lpu::test {

/// The chip of preset `tsp-v1` (cluster/presets/chips/tsp-v1.json has the source of each constant), for tests below the
/// floor that reads presets.
inline node::ChipSpec tsp_v1() {
  using enum node::Hemisphere;
  return {
      .name = "tsp-v1",
      .clock = node::Hertz(900'000'000),
      .superlanes = 20,
      .lanes_per_superlane = 16,
      .vector_bytes = 320,
      .slices_per_hemisphere = 44,
      .banks_per_slice = 2,
      .vectors_per_slice = 8192,
      .streams_per_direction = 32,
      .mxm_planes_per_hemisphere = 2,
      .mxm_rows = 320,
      .mxm_columns = 320,
      .mxm_install_columns_per_cycle = 16,
      .mxm_accumulators_per_plane = 64,
      .vxm_alus = 16,
      .sxm_streams_per_cycle = 16,
      .icu_queues = 144,
      .fetch_bytes_per_cycle = 2304,
      .instruction_bytes = 16,
      .loop_bytes = 16,
      .slices_per_position = 4,
      .vxm_position = 0,
      .sxm_position = 12,
      .mxm_position = 13,
      .instruction_propagation = node::Cycles(20),
      .vxm_latency = node::Cycles(5),
      .vxm_transcendental_latency = node::Cycles(10),
      .mxm_latency = node::Cycles(40),
      .sxm_latency = node::Cycles(10),
      .local_links = 7,
      .global_links = 4,
      .link_hemisphere = {kWest, kWest, kWest, kWest, kEast, kEast, kEast, kWest, kWest, kEast, kEast},
      .link_queue_vectors = 4,
      .link_serialisation = node::Cycles(24),
      .link_flight = node::Cycles(217),
      .c2c_endpoint = node::Cycles(299),
      .moe_routing = node::Cycles(600),
      .link_rate = node::BytesPerSecond(12'500'000'000),
      .link_overhead_bytes = 8,
      .die_links = 16,
      .lanes_per_link = 4,
      .lane_rate = node::BytesPerSecond(3'750'000'000),
      .pcie_rate = node::BytesPerSecond(24'000'000'000),
      .pcie_latency = node::Cycles(9000),
      .power_average = node::MilliWatts(185'000),
  };
}

}  // namespace lpu::test
