#pragma once
#include <array>
#include <cstdint>
#include <string>

#include "lpu/node/quantity.hpp"

namespace lpu::node {

enum class Hemisphere : std::uint8_t { kWest = 0, kEast = 1 };
enum class Direction : std::uint8_t { kOutward = 0, kInward = 1 };  ///< outward: VXM to MXM; inward: MXM to VXM

/// One chip: every constant that a program's legality or its time depends on.
///
/// Values come from a preset (cluster/presets/chips/*.json), which gives unit and source of each; nothing here has a
/// hardware default, so that a forgotten field is an error and not a guess.
struct ChipSpec {
  std::string name;
  Hertz clock{};
  std::int32_t superlanes{};
  std::int32_t lanes_per_superlane{};
  std::int32_t vector_bytes{};  ///< superlanes x lanes: one vector, the unit of all movement

  std::int32_t slices_per_hemisphere{};
  std::int32_t banks_per_slice{};  ///< bank of an address = address mod banks
  std::int32_t vectors_per_slice{};
  std::int32_t streams_per_direction{};  ///< in each hemisphere

  std::int32_t mxm_planes_per_hemisphere{};
  std::int32_t mxm_rows{};
  std::int32_t mxm_columns{};
  std::int32_t mxm_install_columns_per_cycle{};  ///< int8 columns, one stream each, a plane
  std::int32_t mxm_accumulators_per_plane{};     ///< vectors of 320 x 32 bit

  std::int32_t vxm_alus{};
  std::int32_t sxm_streams_per_cycle{};
  std::int32_t icu_queues{};
  std::int32_t fetch_bytes_per_cycle{};
  std::int32_t instruction_bytes{};  ///< on the chip, without loops
  std::int32_t loop_bytes{};         ///< on the chip, per loop used

  std::int32_t slices_per_position{};  ///< MEM slice i stands at stream register 1 + i / slices_per_position
  std::int32_t vxm_position{};
  std::int32_t sxm_position{};  ///< C2C stands there too
  std::int32_t mxm_position{};

  Cycles instruction_propagation{};     ///< N: from the first superlane to the last
  Cycles vxm_latency{};                 ///< d_func of a chain of up to 16 operations
  Cycles vxm_transcendental_latency{};  ///< exp, rsqrt
  Cycles mxm_latency{};
  Cycles sxm_latency{};

  std::int32_t local_links{};  ///< links 0 .. local-1 stay in the node, then global ones
  std::int32_t global_links{};
  std::array<Hemisphere, 16> link_hemisphere{};  ///< first local + global entries are used
  std::int32_t link_queue_vectors{};             ///< at each link end
  Cycles link_serialisation{};                   ///< a vector occupies a link for so long
  Cycles link_flight{};
  Cycles c2c_endpoint{};  ///< SRAM to SRAM cost of a hop beyond serialisation and flight, both ends together

  Cycles moe_routing{};                ///< softmax and top-k over the router's logits, beyond the router's own GEMM
  BytesPerSecond link_rate{};          ///< each direction
  std::int32_t link_overhead_bytes{};  ///< on the wire beside each vector
  std::int32_t die_links{};            ///< on the die; a card connects links() of them
  std::int32_t lanes_per_link{};
  BytesPerSecond lane_rate{};  ///< the fastest that the die's lanes run, each direction
  BytesPerSecond pcie_rate{};
  Cycles pcie_latency{};
  MilliWatts power_average{};

  [[nodiscard]] std::int32_t links() const { return local_links + global_links; }
  [[nodiscard]] std::int32_t slice_position(std::int32_t slice) const { return 1 + slice / slices_per_position; }
  [[nodiscard]] std::int64_t vectors() const { return std::int64_t{2} * slices_per_hemisphere * vectors_per_slice; }
  [[nodiscard]] Bytes sram() const { return Bytes(vectors() * vector_bytes); }
  /// Stream transits, N and the write's own cycle that a hop's Read and Write bursts already take: they are part of the
  /// endpoint figure (which was derived from an SRAM to SRAM time), so the link itself adds only the rest.
  [[nodiscard]] Cycles c2c_memory_path() const { return Cycles(2 * (sxm_position - 1) + 1) + instruction_propagation; }
  /// From the cycle in which a vector enters an idle link (Send) to the first cycle in which it may leave the queue at
  /// the far end (Receive): serialisation + flight + max(endpoint - memory path, 0).
  [[nodiscard]] Cycles link_latency() const;
};

}  // namespace lpu::node
