#pragma once
#include <cstdint>
#include <string>

#include "lpu/node/chip_spec.hpp"

namespace lpu::scheduler::proof {

/// Cells of a slice's lane; bank b is cell kFirstBank + b.
enum SliceCell : std::uint32_t { kReadPortCell = 0, kWritePortCell = 1, kSliceQueueCell = 2, kFirstBankCell = 3 };
/// Cells of a plane's lane. The buffer and the array are taken over spans of cycles.
enum PlaneCell : std::uint32_t { kInstallCell = 0, kComputeCell = 1, kDrainCell = 2, kBufferCell = 3, kArrayCell = 4 };
/// Cells of a link's lane; the service is taken for a vector's serialisation.
enum LinkCell : std::uint32_t { kPushCell = 0, kTakeCell = 1, kServiceCell = 2 };

/// Numbers the lanes of a chip: its units, accumulators and streams.
class LaneMap {
 public:
  explicit LaneMap(const node::ChipSpec& chip);
  [[nodiscard]] std::uint32_t slice(node::Hemisphere hemisphere, std::int32_t slice) const;
  [[nodiscard]] std::uint32_t plane(node::Hemisphere hemisphere, std::int32_t plane) const;
  [[nodiscard]] std::uint32_t alus() const { return alus_; }
  [[nodiscard]] std::uint32_t sxm(node::Hemisphere hemisphere) const {
    return sxm_ + static_cast<std::uint32_t>(hemisphere);
  }
  [[nodiscard]] std::uint32_t link(std::int32_t link) const { return links_ + static_cast<std::uint32_t>(link); }
  [[nodiscard]] std::uint32_t accumulator(std::uint32_t plane_lane, std::int32_t accumulator) const;
  /// Cells of a stream's lane are positions, its cycles count along the diagonal.
  [[nodiscard]] std::uint32_t stream(node::Hemisphere hemisphere, node::Direction direction, std::int32_t stream) const;
  [[nodiscard]] std::uint32_t first_stream() const { return streams_; }
  [[nodiscard]] std::uint32_t lanes() const { return lanes_; }

  /// "east slice 12 read port"; for streams: "stream west outward 3".
  [[nodiscard]] std::string describe(std::uint32_t lane, std::uint32_t cell) const;
  [[nodiscard]] std::string plane_name(std::uint32_t lane) const;
  /// +1 outward, -1 inward, 0: no stream.
  [[nodiscard]] std::int32_t stream_step(std::uint32_t lane) const;

 private:
  std::uint32_t slices_per_hemisphere_, planes_per_hemisphere_, accumulators_per_plane_, streams_per_direction_;
  std::uint32_t planes_, alus_, sxm_, links_, accumulators_, streams_, lanes_;
};

}  // namespace lpu::scheduler::proof
