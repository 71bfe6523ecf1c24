#include "verify_lanes.hpp"

#include <algorithm>
#include <span>

#include "verify_facts.hpp"

namespace lpu::scheduler::proof {
namespace {

/// Cells of one lane by cycle modulo the interval.
class Board {
 public:
  Board(std::int64_t interval, std::int64_t origin, std::int64_t span)
      : interval_(interval), origin_(origin), cells_(static_cast<std::size_t>(std::min(interval, span)), 0) {}

  [[nodiscard]] std::int64_t fold(std::int64_t cycle) const { return floor_mod(cycle - origin_, interval_); }

  /// @return index of the first instance that meets a taken cell, -1: none
  std::int32_t take(const Claim& claim) {
    if (claim.period == 1 || claim.count == 1) {
      return take_consecutive(claim);
    }
    std::int32_t met = -1;
    walk(claim, [&](std::uint32_t& cell, std::int32_t i) {
      if ((cell & claim.cells) != 0 && met < 0) {
        met = i;
      }
      cell |= claim.cells;
    });
    return met;
  }

  void release(const Claim& claim) {
    if (claim.period == 1 || claim.count == 1) {
      for_segments(claim, [](std::uint32_t* begin, std::uint32_t* end) { std::fill(begin, end, 0U); });
    } else {
      walk(claim, [](std::uint32_t& cell, std::int32_t) { cell = 0; });
    }
  }

 private:
  std::int32_t take_consecutive(const Claim& claim) {
    std::uint32_t seen = 0;
    for_segments(claim, [&](const std::uint32_t* begin, const std::uint32_t* end) {
      for (const std::uint32_t* at = begin; at != end; ++at) {
        seen |= *at;
      }
    });
    std::int32_t met = -1;
    if ((seen & claim.cells) != 0) {
      std::int32_t i = 0;
      for_segments(claim, [&](const std::uint32_t* begin, const std::uint32_t* end) {
        for (const std::uint32_t* at = begin; at != end; ++at, ++i) {
          if ((*at & claim.cells) != 0 && met < 0) {
            met = i;
          }
        }
      });
    } else if (claim.count > interval_) {
      met = static_cast<std::int32_t>(interval_);  // laps itself
    }
    for_segments(claim, [&](std::uint32_t* begin, std::uint32_t* end) {
      for (std::uint32_t* at = begin; at != end; ++at) {
        *at |= claim.cells;
      }
    });
    return met;
  }

  template <typename Visit>
  void for_segments(const Claim& claim, Visit&& visit) {
    const std::int64_t length = std::min<std::int64_t>(claim.count, interval_);
    const std::int64_t begin = fold(claim.first);
    const std::int64_t head = std::min(length, interval_ - begin);
    visit(cells_.data() + begin, cells_.data() + begin + head);
    visit(cells_.data(), cells_.data() + (length - head));
  }

  template <typename Visit>
  void walk(const Claim& claim, Visit&& visit) {
    const std::int64_t stride = claim.period % interval_;
    std::int64_t at = fold(claim.first);
    for (std::int32_t i = 0; i < claim.count; ++i) {
      visit(cells_[static_cast<std::size_t>(at)], i);
      at += stride;
      at = at >= interval_ ? at - interval_ : at;
    }
  }

  std::int64_t interval_;
  std::int64_t origin_;
  std::vector<std::uint32_t> cells_;
};

/// The earlier taker of a cell that instance `met` of claim `late` runs into.
Clash explain(std::span<const Claim> lane, std::size_t late, std::int32_t met, std::int64_t interval) {
  const Claim& claim = lane[late];
  const std::int64_t at = claim.first + met * claim.period;
  Clash clash{.early = claim, .late = claim, .early_at = at, .late_at = at, .cells = claim.cells};
  for (std::size_t c = 0; c <= late; ++c) {
    const std::int32_t last = c == late ? met : lane[c].count;
    for (std::int32_t i = 0; i < last; ++i) {
      const std::int64_t cycle = lane[c].first + i * lane[c].period;
      if ((lane[c].cells & claim.cells) != 0 && floor_mod(at - cycle, interval) == 0) {
        clash.early = lane[c];
        clash.early_at = cycle;
        clash.cells = lane[c].cells & claim.cells;
        c = late;
        break;
      }
    }
  }
  if (clash.early_at > clash.late_at) {
    std::swap(clash.early, clash.late);
    std::swap(clash.early_at, clash.late_at);
  }
  clash.iterations = (clash.late_at - clash.early_at) / interval;
  return clash;
}

}  // namespace

void LaneTable::prove(std::int64_t interval,
                      std::uint32_t lanes,
                      const std::function<bool(const Clash&)>& visit) const {
  if (claims_.empty()) {
    return;
  }
  std::vector<std::uint32_t> begins(lanes + 1, 0);
  std::int64_t lowest = claims_.front().first;
  std::int64_t highest = lowest;
  for (const Claim& claim : claims_) {
    ++begins[claim.lane + 1];
    lowest = std::min(lowest, claim.first);
    highest = std::max(highest, claim.first + (claim.count - 1) * claim.period);
  }
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    begins[lane + 1] += begins[lane];
  }
  std::vector<Claim> ordered(claims_.size());
  std::vector<std::uint32_t> next(begins.begin(), begins.end() - 1);
  for (const Claim& claim : claims_) {
    ordered[next[claim.lane]++] = claim;
  }
  Board board(interval, lowest, highest - lowest + 1);
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    const std::span<const Claim> own(ordered.data() + begins[lane], begins[lane + 1] - begins[lane]);
    for (std::size_t c = 0; c < own.size(); ++c) {
      const std::int32_t met = board.take(own[c]);
      if (met >= 0 && !visit(explain(own, c, met, interval))) {
        return;
      }
    }
    for (const Claim& claim : own) {
      board.release(claim);
    }
  }
}

}  // namespace lpu::scheduler::proof
