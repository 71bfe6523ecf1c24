#include "interval_search.hpp"

#include <algorithm>
#include <numeric>
#include <set>

#include "lpu/node/digest.hpp"

namespace lpu::scheduler {
namespace {

/// Windows that become ready together, and how long after the group before them.
struct Group {
  std::size_t first = 0;
  std::size_t count = 0;
  std::int64_t delay = 0;
};

std::vector<Group> group_windows(const std::vector<Lowering::Window>& windows) {
  // Vector work takes longer between rounds than alone: trips to the SXM wait for free diagonals.
  constexpr double kCrowded = 1.25;
  std::vector<Group> out;
  for (std::size_t i = 0; i < windows.size(); ++i) {
    const std::int64_t end_before = i == 0 ? 0 : windows[i - 1].start + windows[i - 1].length;
    if (i == 0 || (windows[i].ready > end_before && !windows[i].continues)) {
      out.push_back({i, 0, static_cast<std::int64_t>(static_cast<double>(windows[i].ready - end_before) * kCrowded)});
    }
    ++out.back().count;
  }
  return out;
}

/// Phases of windows placed one after another round the interval, window 0 at `first`. The slack lies behind them in
/// the shares of `gaps` (per window): where a gap is as long as a reduction's three trips, about 80 cycles, vector work
/// hardly waits for diagonals.
std::vector<std::int64_t> phases_of(const std::vector<std::size_t>& order,
                                    const std::vector<Lowering::Window>& windows,
                                    const std::vector<std::int64_t>& gaps,
                                    std::int64_t first,
                                    std::int64_t interval) {
  std::int64_t slack = interval;
  for (const Lowering::Window& window : windows) {
    slack -= window.length;
  }
  std::vector<std::int64_t> phases(windows.size(), 0);
  std::int64_t at = first;
  const std::int64_t all = std::accumulate(gaps.begin(), gaps.end(), std::int64_t{0});
  std::int64_t before = 0;  // shares of the slack used up
  for (const std::size_t window : order) {
    phases[window] = (at + slack * before / all) % interval;
    at += windows[window].length;
    before += gaps[window];
  }
  return phases;
}

/// What the groups really waited for each other in a schedule, and a little more: a window missed is an interval lost.
void learn_delays(std::vector<Group>& groups, const std::vector<Lowering::Window>& windows) {
  constexpr std::int64_t kMargin = 12;
  std::int64_t end_before = 0;
  for (Group& group : groups) {
    std::int64_t end = end_before;
    for (std::size_t i = group.first; i < group.first + group.count; ++i) {
      end = std::max(end, windows[i].start + windows[i].length);
    }
    const std::int64_t seen = windows[group.first].ready - end_before;
    group.delay = group.first == 0 ? std::max(seen + kMargin, group.delay) : (3 * group.delay + seen + kMargin) / 4;
    end_before = end;
  }
}

std::int64_t coarse_latency(const std::vector<Group>& groups,
                            const std::vector<Lowering::Window>& windows,
                            const std::vector<std::int64_t>& phases,
                            std::int64_t interval) {
  std::int64_t ready = phases.front();
  for (std::size_t g = 0; g < groups.size(); ++g) {
    ready += g == 0 ? 0 : groups[g].delay;
    // One after another: outputs are joined in order, and a block that comes too early holds its accumulators.
    std::int64_t end = ready;
    for (std::size_t i = groups[g].first; i < groups[g].first + groups[g].count; ++i) {
      const std::int64_t start = end + ((phases[i] - end) % interval + interval) % interval;
      end = start + windows[i].length;
    }
    ready = end;
  }
  return ready - phases.front();
}

/// Numbers from a counter: the same on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : seed_(seed) {}
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(node::fold(seed_, ++count_) % n); }

 private:
  std::uint64_t seed_;
  std::uint64_t count_ = 0;
};

/// Orders by coarse latency: a local search from the natural order and from random ones.
std::set<std::pair<std::int64_t, std::vector<std::size_t>>> rank_orders(const std::vector<Group>& groups,
                                                                        const std::vector<Lowering::Window>& windows,
                                                                        const std::vector<std::int64_t>& gaps,
                                                                        std::int64_t interval,
                                                                        Random& random) {
  constexpr std::int32_t kClimbs = 64;
  constexpr std::int32_t kMoves = 1200;
  std::set<std::pair<std::int64_t, std::vector<std::size_t>>> ranked;
  const auto cost = [&](const std::vector<std::size_t>& order) {
    return coarse_latency(groups, windows, phases_of(order, windows, gaps, 0, interval), interval);
  };
  for (std::int32_t climb = 0; climb < kClimbs; ++climb) {
    std::vector<std::size_t> order(windows.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t i = order.size(); climb > 0 && i > 2; --i) {
      std::swap(order[i - 1], order[1 + random.below(i - 1)]);
    }
    std::int64_t best = cost(order);
    for (std::int32_t move = 0; move < kMoves && order.size() > 2; ++move) {
      std::vector<std::size_t> next = order;
      const std::size_t from = 1 + random.below(order.size() - 1);
      const std::size_t to = 1 + random.below(order.size() - 1);
      if (move % 2 == 0) {
        std::swap(next[from], next[to]);
      } else {
        const std::size_t window = next[from];
        next.erase(next.begin() + static_cast<std::ptrdiff_t>(from));
        next.insert(next.begin() + static_cast<std::ptrdiff_t>(to), window);
      }
      const std::int64_t latency = cost(next);
      if (latency <= best) {
        best = latency;
        order = std::move(next);
      }
    }
    ranked.emplace(best, order);
  }
  return ranked;
}

}  // namespace

std::int64_t windows_length(const Lowering& reference) {
  std::int64_t busy = 0;
  for (const Lowering::Window& window : reference.windows()) {
    busy += window.length;
  }
  return busy;
}

std::unique_ptr<Lowering> schedule_interval(const LowerStage& lower,
                                            const Lowering& reference,
                                            std::int64_t interval,
                                            std::int32_t orders,
                                            std::uint64_t seed) {
  const std::vector<Lowering::Window>& windows = reference.windows();
  std::vector<Group> groups = group_windows(windows);
  if (windows.empty()) {
    return lower(Load::kLoaded, interval, {});
  }
  constexpr std::size_t kSpread = 64;
  Random random(seed);
  std::unique_ptr<Lowering> found;
  std::int64_t shortest = 0;
  std::set<std::vector<std::int64_t>> tried;
  for (std::int32_t attempt = 0; attempt < orders; ++attempt) {
    Lowering::WindowPlan plan;
    // What vector work takes depends on the windows round it: look at delays a little off the learned ones, too.
    std::vector<Group> guessed = groups;
    for (Group& group : guessed) {
      group.delay = group.delay * static_cast<std::int64_t>(kSpread + random.below(kSpread / 4)) / (kSpread * 9 / 8);
    }
    std::vector<std::int64_t> gaps(windows.size(), 1);
    if (attempt % 2 == 1) {
      for (std::int64_t& gap : gaps) {
        gap = static_cast<std::int64_t>(1 + random.below(4));
      }
    }
    for (const auto& [coarse, order] : rank_orders(guessed, windows, gaps, interval, random)) {
      plan.phases = phases_of(order, windows, gaps, guessed.front().delay, interval);
      if (tried.insert(plan.phases).second) {
        break;
      }
      plan.phases.clear();
    }
    if (plan.phases.empty()) {
      break;  // nothing new to try
    }
    for (const Lowering::Window& window : windows) {
      plan.shapes.push_back(&window.shape);
    }
    try {
      std::unique_ptr<Lowering> lowered = lower(Load::kLoaded, interval, std::move(plan));
      learn_delays(groups, lowered->windows());
      const std::int64_t through = lowered->through_time();
      if (!found || through < shortest) {
        shortest = through;
        found = std::move(lowered);
      }
    } catch (const NoSchedule&) {
      // This order has no place for something: give every group a little more time, and look for another.
      for (Group& group : groups) {
        group.delay += group.delay / 32 + 4;
      }
    }
  }
  return found;
}

}  // namespace lpu::scheduler
