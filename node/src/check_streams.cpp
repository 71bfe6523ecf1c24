#include "check_streams.hpp"

#include <algorithm>

namespace lpu::node {

StreamFile::StreamFile(const ChipSpec& chip)
    : streams_(chip.streams_per_direction), lanes_(4 * static_cast<std::size_t>(chip.streams_per_direction)) {}

std::size_t StreamFile::lane(const StreamOperand& operand, std::int32_t number) const {
  const auto side = static_cast<std::size_t>(operand.hemisphere) * 2 + static_cast<std::size_t>(operand.direction);
  return side * static_cast<std::size_t>(streams_) + static_cast<std::size_t>(number);
}

const StandingValue* StreamFile::put(std::size_t lane, const StandingValue& value, std::int64_t now) {
  auto& standing = lanes_[lane].standing;
  if (standing.size() >= lanes_[lane].crowded) {
    drop_passed(lane, now);
  }
  for (const StandingValue& other : standing) {
    if (other.diagonal == value.diagonal && other.lowest <= value.highest && value.lowest <= other.highest) {
      return &other;
    }
  }
  standing.push_back(value);
  return nullptr;
}

const StandingValue* StreamFile::find(std::size_t lane, std::int64_t diagonal, std::int32_t position) const {
  const auto& standing = lanes_[lane].standing;
  // What was put last is asked for next.
  for (auto at = standing.rbegin(); at != standing.rend(); ++at) {
    if (at->diagonal == diagonal && at->lowest <= position && position <= at->highest) {
      return &*at;
    }
  }
  return nullptr;
}

void StreamFile::drop_passed(std::size_t lane, std::int64_t now) {
  // Lanes come in pairs of 2 x streams: outward, then inward.
  const bool is_outward = (lane / static_cast<std::size_t>(streams_)) % 2 == 0;
  auto& standing = lanes_[lane].standing;
  standing.erase(std::remove_if(standing.begin(),
                                standing.end(),
                                [&](const StandingValue& value) {
                                  const std::int64_t last =
                                      is_outward ? value.diagonal + value.highest : value.diagonal - value.lowest;
                                  return last < now;
                                }),
                 standing.end());
  lanes_[lane].crowded = std::max<std::size_t>(16, 2 * standing.size());
}

}  // namespace lpu::node
