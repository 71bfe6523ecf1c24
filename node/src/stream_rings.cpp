#include "stream_rings.hpp"

#include <algorithm>

namespace lpu::node {

StreamRings::StreamRings(const ChipSpec& chip)
    : streams_(static_cast<std::size_t>(chip.streams_per_direction)), rows_(std::size_t{4} * kRing) {
  standings_.resize(rows_.size() * streams_);
}

void StreamRings::clear() {
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    if (rows_[row].turn == turn_) {
      for (std::size_t stream = 0; stream < streams_; ++stream) {
        standings_[row * streams_ + stream].cell.value = nullptr;
      }
    }
  }
  if (++turn_ == 0) {
    std::fill(standings_.begin(), standings_.end(), Standing{});
    std::fill(rows_.begin(), rows_.end(), Row{});
    turn_ = 1;
  }
}

std::vector<StreamRings::Rider> StreamRings::riders(std::int64_t cycle) const {
  std::vector<Rider> out;
  for (std::int32_t row = 0; row < static_cast<std::int32_t>(rows_.size()); ++row) {
    // Outward, diagonal d passes position p in cycle d + p; inward in cycle d - p.
    const bool is_outward = row / kRing % 2 == 0;
    const std::int64_t earliest = is_outward ? cycle - kRing : cycle;
    const Row& last = rows_[static_cast<std::size_t>(row)];
    if (last.turn != turn_ || last.diagonal < earliest) {
      continue;
    }
    for (std::int32_t stream = 0; stream < static_cast<std::int32_t>(streams_); ++stream) {
      const Standing& standing = standings_[index(row, stream)];
      if (standing.turn == turn_ && standing.diagonal >= earliest) {
        out.push_back({row, stream, standing.diagonal, standing.cell});
      }
    }
  }
  return out;
}

void StreamRings::bring_back(const std::vector<Rider>& riders) {
  for (const Rider& rider : riders) {
    put({rider.row, rider.diagonal}, rider.stream, rider.cell);
  }
}

}  // namespace lpu::node
