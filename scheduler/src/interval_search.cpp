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
    if (i == 0 || windows[i].ready > end_before) {
      out.push_back({i, 0, static_cast<std::int64_t>(static_cast<double>(windows[i].ready - end_before) * kCrowded)});
    }
    ++out.back().count;
  }
  return out;
}

/// Phases of windows placed one after another round the interval, the slack dealt evenly between them.
std::vector<std::int64_t> phases_of(const std::vector<std::size_t>& order,
                                    const std::vector<Lowering::Window>& windows,
                                    std::int64_t interval) {
  std::int64_t busy = 0;
  for (const Lowering::Window& window : windows) {
    busy += window.length;
  }
  std::vector<std::int64_t> phases(windows.size(), 0);
  std::int64_t at = 0;
  const auto count = static_cast<std::int64_t>(order.size());
  for (std::int64_t i = 0; i < count; ++i) {
    const std::size_t window = order[static_cast<std::size_t>(i)];
    phases[window] = at + (interval - busy) * i / count;
    at += windows[window].length;
  }
  return phases;
}

std::int64_t coarse_latency(const std::vector<Group>& groups,
                            const std::vector<Lowering::Window>& windows,
                            const std::vector<std::int64_t>& phases,
                            std::int64_t interval) {
  std::int64_t ready = phases.front();  // the iteration itself may start at any phase
  for (std::size_t g = 0; g < groups.size(); ++g) {
    ready += g == 0 ? 0 : groups[g].delay;
    std::int64_t end = ready;
    for (std::size_t i = groups[g].first; i < groups[g].first + groups[g].count; ++i) {
      const std::int64_t start = ready + ((phases[i] - ready) % interval + interval) % interval;
      end = std::max(end, start + windows[i].length);
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
  const std::vector<Group> groups = group_windows(windows);
  if (windows.empty()) {
    return lower(Load::kLoaded, interval, {});
  }
  Random random(seed);
  constexpr std::int32_t kClimbs = 48;
  constexpr std::int32_t kMoves = 600;
  std::set<std::pair<std::int64_t, std::vector<std::size_t>>> ranked;
  for (std::int32_t climb = 0; climb < kClimbs; ++climb) {
    std::vector<std::size_t> order(windows.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t i = order.size(); climb > 0 && i > 2; --i) {
      std::swap(order[i - 1], order[1 + random.below(i - 1)]);
    }
    std::int64_t best = coarse_latency(groups, windows, phases_of(order, windows, interval), interval);
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
      const std::int64_t latency = coarse_latency(groups, windows, phases_of(next, windows, interval), interval);
      if (latency <= best) {
        best = latency;
        order = std::move(next);
      }
    }
    ranked.emplace(best, order);
  }
  std::unique_ptr<Lowering> found;
  std::int64_t shortest = 0;
  std::int32_t tried = 0;
  for (const auto& [coarse, order] : ranked) {
    if (tried++ == orders) {
      break;
    }
    Lowering::WindowPlan plan;
    plan.phases = phases_of(order, windows, interval);
    for (const Lowering::Window& window : windows) {
      plan.shapes.push_back(&window.shape);
    }
    try {
      std::unique_ptr<Lowering> lowered = lower(Load::kLoaded, interval, std::move(plan));
      const std::int64_t through = lowered->through_time();
      if (!found || through < shortest) {
        shortest = through;
        found = std::move(lowered);
      }
    } catch (const NoSchedule&) {
      continue;  // this order has no place for something
    }
  }
  return found;
}

}  // namespace lpu::scheduler
