#include "verify_lane_map.hpp"

namespace lpu::scheduler::proof {
namespace {
std::string side(std::uint32_t hemisphere) {
  return hemisphere == 0 ? "west" : "east";
}
}  // namespace

LaneMap::LaneMap(const node::ChipSpec& chip)
    : slices_per_hemisphere_(static_cast<std::uint32_t>(chip.slices_per_hemisphere)),
      planes_per_hemisphere_(static_cast<std::uint32_t>(chip.mxm_planes_per_hemisphere)),
      accumulators_per_plane_(static_cast<std::uint32_t>(chip.mxm_accumulators_per_plane)),
      streams_per_direction_(static_cast<std::uint32_t>(chip.streams_per_direction)),
      planes_(2 * slices_per_hemisphere_),
      alus_(planes_ + 2 * planes_per_hemisphere_),
      sxm_(alus_ + 1),
      links_(sxm_ + 2),
      accumulators_(links_ + static_cast<std::uint32_t>(chip.links())),
      streams_(accumulators_ + 2 * planes_per_hemisphere_ * accumulators_per_plane_),
      lanes_(streams_ + 4 * streams_per_direction_) {}

std::uint32_t LaneMap::slice(node::Hemisphere hemisphere, std::int32_t slice) const {
  return static_cast<std::uint32_t>(hemisphere) * slices_per_hemisphere_ + static_cast<std::uint32_t>(slice);
}

std::uint32_t LaneMap::plane(node::Hemisphere hemisphere, std::int32_t plane) const {
  return planes_ + static_cast<std::uint32_t>(hemisphere) * planes_per_hemisphere_ + static_cast<std::uint32_t>(plane);
}

std::uint32_t LaneMap::accumulator(std::uint32_t plane_lane, std::int32_t accumulator) const {
  return accumulators_ + (plane_lane - planes_) * accumulators_per_plane_ + static_cast<std::uint32_t>(accumulator);
}

std::uint32_t LaneMap::stream(node::Hemisphere hemisphere, node::Direction direction, std::int32_t stream) const {
  return streams_ +
         (static_cast<std::uint32_t>(hemisphere) * 2 + static_cast<std::uint32_t>(direction)) * streams_per_direction_ +
         static_cast<std::uint32_t>(stream);
}

std::int32_t LaneMap::stream_step(std::uint32_t lane) const {
  if (lane < streams_) {
    return 0;
  }
  return (lane - streams_) / streams_per_direction_ % 2 == 0 ? 1 : -1;
}

std::string LaneMap::plane_name(std::uint32_t lane) const {
  return "MXM plane " + side((lane - planes_) / planes_per_hemisphere_) + " " +
         std::to_string((lane - planes_) % planes_per_hemisphere_);
}

std::string LaneMap::describe(std::uint32_t lane, std::uint32_t cell) const {
  if (lane >= streams_) {
    const std::uint32_t direction = (lane - streams_) / streams_per_direction_;
    return "stream " + side(direction / 2) + (direction % 2 == 0 ? " outward " : " inward ") +
           std::to_string((lane - streams_) % streams_per_direction_);
  }
  if (lane >= accumulators_) {
    const std::uint32_t plane = (lane - accumulators_) / accumulators_per_plane_;
    return "MXM plane " + side(plane / planes_per_hemisphere_) + " " + std::to_string(plane % planes_per_hemisphere_) +
           " accumulator " + std::to_string((lane - accumulators_) % accumulators_per_plane_) +
           " (a sum's from its first compute to its drain)";
  }
  if (lane >= links_) {
    static constexpr const char* kCells[] = {
        " queue's push", " queue's take", " (a vector takes it for its serialisation)"};
    return "link " + std::to_string(lane - links_) + kCells[cell];
  }
  if (lane >= sxm_) {
    return side(lane - sxm_) + " SXM";
  }
  if (lane == alus_) {
    return "VXM ALU " + std::to_string(cell);
  }
  if (lane >= planes_) {
    static constexpr const char* kCells[] = {" install port",
                                             " compute port",
                                             " drain port",
                                             " weight buffer (a tile's from its first install until it is taken up)",
                                             " array (a tile's from its first compute to its last)"};
    return plane_name(lane) + kCells[cell];
  }
  static constexpr const char* kCells[] = {" read port", " write port", " instruction queue"};
  return side(lane / slices_per_hemisphere_) + " slice " + std::to_string(lane % slices_per_hemisphere_) +
         (cell < kFirstBankCell ? std::string(kCells[cell]) : " bank " + std::to_string(cell - kFirstBankCell));
}

}  // namespace lpu::scheduler::proof
