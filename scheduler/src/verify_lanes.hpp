#pragma once
#include <cstdint>
#include <functional>
#include <vector>

namespace lpu::scheduler::proof {

/// An arithmetic progression of cycles in which an instruction takes some of the (up to 32) cells of a lane.
struct Claim {
  std::uint32_t lane = 0;
  std::uint32_t cells = 1;  ///< bit mask
  std::int64_t first = 0;   ///< any value; lanes of streams count along the diagonal
  std::int64_t period = 1;  ///< > 0
  std::int32_t count = 1;   ///< > 0
  std::int32_t instruction = -1;
};

/// Two claims of one cell in one cycle of the steady state.
struct Clash {
  Claim early, late;  ///< late_at >= early_at; the late one meets the early one's iteration m later
  std::int64_t early_at = 0, late_at = 0;
  std::int64_t iterations = 0;  ///< m >= 0: (late_at - early_at) / interval
  std::uint32_t cells = 0;      ///< shared
};

/// Exact test of affine claims for conflicts modulo the initiation interval.
///
/// A lane is one unit (a slice, a plane, a link) or stream; its claims are laid on one board of min(interval, span)
/// cycles, run by run: a run of consecutive cycles is one vector operation, a run that is longer than the interval laps
/// itself. The board is cleared by walking the same runs again, so that cost follows the claims and not the interval.
class LaneTable {
 public:
  void add(const Claim& claim) { claims_.push_back(claim); }
  /// Report clashes, at most one per claim. `visit` returns false to stop.
  void prove(std::int64_t interval, std::uint32_t lanes, const std::function<bool(const Clash&)>& visit) const;

 private:
  std::vector<Claim> claims_;
};

}  // namespace lpu::scheduler::proof
