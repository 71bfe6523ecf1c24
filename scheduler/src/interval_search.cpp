#include "interval_search.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "lpu/node/digest.hpp"

namespace lpu::scheduler {
namespace {

/// What the coarse model knows of a window.
struct Link {
  std::int64_t length = 0;
  bool is_planned = false;                           ///< takes a place of its own on the circle
  std::map<std::int32_t, std::int64_t> delays = {};  ///< from the end of an earlier window (-1: from cycle 0)
};

/// What each window of a schedule waited for, and how long after that it could start. A short window has no place of
/// its own, so that what it waited for a hole counts, too.
std::vector<Link> chain_of(const std::vector<Lowering::Window>& windows,
                           std::int64_t shortest_planned,
                           double stretch) {
  std::vector<Link> out;
  for (const Lowering::Window& window : windows) {
    const bool is_planned = window.length >= shortest_planned;
    const std::int64_t from = window.anchor < 0 ? 0
                                                : windows[static_cast<std::size_t>(window.anchor)].start +
                                                      windows[static_cast<std::size_t>(window.anchor)].length;
    const std::int64_t wait = (is_planned ? window.ready : window.start) - from;
    out.push_back({.length = window.length,
                   .is_planned = is_planned,
                   .delays = {{window.anchor, static_cast<std::int64_t>(static_cast<double>(wait) * stretch)}}});
  }
  return out;
}

constexpr std::int64_t kMargin = 12;  // cycles more than seen: a window missed is an interval lost

/// Let the chain follow what windows waited for in a schedule.
void follow(std::vector<Link>& chain, const std::vector<Link>& seen) {
  for (std::size_t i = 0; i < chain.size(); ++i) {
    for (const auto& [anchor, delay] : seen[i].delays) {
      const std::int64_t now = delay > 0 ? delay + kMargin : delay;
      const auto known = chain[i].delays.emplace(anchor, now).first;
      known->second = (3 * known->second + now) / 4;
    }
  }
}

/// Raise delays that a schedule has shown to be too short. False: there were none.
bool raise(std::vector<Link>& chain, const std::vector<Link>& seen) {
  bool is_raised = false;
  for (std::size_t i = 0; i < chain.size(); ++i) {
    for (const auto& [anchor, delay] : seen[i].delays) {
      const auto known = chain[i].delays.find(anchor);
      if (known == chain[i].delays.end() || known->second < delay) {
        chain[i].delays[anchor] = delay + kMargin;
        is_raised = true;
      }
    }
  }
  return is_raised;
}

/// When windows start that follow one another round the interval in a given order.
class Circle {
 public:
  /// @param spacing  least distance of windows: vector work hardly waits in gaps of a reduction's trips, 80 cycles
  Circle(const std::vector<Link>& chain, std::int64_t interval, std::int64_t spacing)
      : chain_(chain), interval_(interval) {
    std::int64_t slack = interval;
    for (std::size_t i = 0; i < chain.size(); ++i) {
      if (chain[i].is_planned) {
        planned_.push_back(i);
        slack -= chain[i].length;
      }
    }
    const auto gaps = static_cast<std::int64_t>(std::max<std::size_t>(planned_.size(), 1));
    spacing_ = std::clamp<std::int64_t>(slack / gaps, 0, spacing);
  }

  [[nodiscard]] const std::vector<std::size_t>& planned() const { return planned_; }

  /// Start of each window of an iteration (chain order): each as early as its inputs, its neighbours on the circle and
  /// the room for those between them allow.
  /// @param order  of the planned windows (their places in planned()) round the circle; begins with 0
  void starts(const std::vector<std::size_t>& order, std::vector<std::int64_t>& at) const;

  /// Phase of each planned window.
  [[nodiscard]] std::vector<std::int64_t> phases(const std::vector<std::size_t>& order) const {
    starts(order, scratch_);
    std::vector<std::int64_t> out;
    for (const std::size_t window : planned_) {
      out.push_back(scratch_[window] % interval_);
    }
    return out;
  }

  [[nodiscard]] std::int64_t latency(const std::vector<std::size_t>& order) const {
    starts(order, scratch_);
    std::int64_t end = 0;
    for (std::size_t i = 0; i < chain_.size(); ++i) {
      end = std::max(end, scratch_[i] + chain_[i].length);
    }
    return end;
  }

 private:
  /// Phases, from the first planned window on, that a window may take.
  struct Room {
    std::int64_t first;
    std::int64_t last;
  };
  [[nodiscard]] Room room(const std::vector<std::size_t>& order, std::size_t place) const;
  /// Length of the window at a place of the order, with the gap behind it.
  [[nodiscard]] std::int64_t length(const std::vector<std::size_t>& order, std::size_t place) const {
    return chain_[planned_[order[place]]].length + spacing_;
  }

  const std::vector<Link>& chain_;
  std::int64_t interval_;
  std::int64_t spacing_ = 0;
  std::vector<std::size_t> planned_;
  mutable std::vector<std::int64_t> phases_;  ///< per place of the order; -1: not placed yet
  mutable std::vector<std::size_t> places_;   ///< of each planned window
  mutable std::vector<std::int64_t> scratch_;
};

Circle::Room Circle::room(const std::vector<std::size_t>& order, std::size_t place) const {
  std::int64_t first = 0;
  for (std::size_t before = place; before-- > 0;) {
    first += length(order, before);
    if (phases_[before] >= 0) {
      first += phases_[before];
      break;
    }
  }
  std::int64_t last = interval_;
  std::size_t after = place;
  for (; after < order.size(); ++after) {
    if (phases_[after] >= 0) {
      last = phases_[after];
      break;
    }
  }
  for (std::size_t between = place; between < after; ++between) {
    last -= length(order, between);
  }
  return {first, last};
}

void Circle::starts(const std::vector<std::size_t>& order, std::vector<std::int64_t>& at) const {
  at.assign(chain_.size(), 0);
  phases_.assign(order.size(), -1);
  places_.resize(order.size());
  for (std::size_t place = 0; place < order.size(); ++place) {
    places_[order[place]] = place;
  }
  std::size_t next = 0;
  for (std::size_t i = 0; i < chain_.size(); ++i) {
    for (const auto& [anchor, delay] : chain_[i].delays) {
      const auto from = static_cast<std::size_t>(anchor);
      at[i] = std::max(at[i], (anchor < 0 ? 0 : at[from] + chain_[from].length) + delay);
    }
    if (chain_[i].is_planned) {
      const std::int64_t origin = at[planned_.front()];
      const std::size_t place = places_[next];
      const Room room = this->room(order, place);
      std::int64_t phase = (at[i] - origin) % interval_;
      const std::int64_t wait = phase < room.first  ? room.first - phase
                                : phase > room.last ? interval_ - phase + room.first
                                                    : 0;
      at[i] += wait;
      phases_[place] = (phase + wait) % interval_;
      ++next;
    }
  }
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

/// What vector work takes depends on the windows round it: delays a little off the learned ones.
std::vector<Link> perturbed(std::vector<Link> chain, Random& random) {
  constexpr std::int64_t kSpread = 64;
  for (Link& link : chain) {
    for (auto& [anchor, delay] : link.delays) {
      const std::int64_t factor = kSpread + static_cast<std::int64_t>(random.below(kSpread / 4));
      delay = delay * factor / (kSpread * 9 / 8);
    }
  }
  return chain;
}

/// Orders by coarse latency: a local search from the natural order and from random ones.
std::set<std::pair<std::int64_t, std::vector<std::size_t>>> rank_orders(const Circle& circle, Random& random) {
  constexpr std::int32_t kClimbs = 12;
  constexpr std::int32_t kMoves = 400;
  std::set<std::pair<std::int64_t, std::vector<std::size_t>>> ranked;
  for (std::int32_t climb = 0; climb < kClimbs; ++climb) {
    std::vector<std::size_t> order(circle.planned().size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t i = order.size(); climb > 0 && i > 2; --i) {
      std::swap(order[i - 1], order[1 + random.below(i - 1)]);
    }
    std::int64_t best = circle.latency(order);
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
      const std::int64_t latency = circle.latency(next);
      if (latency <= best) {
        best = latency;
        order = std::move(next);
      }
    }
    ranked.emplace(best, order);
  }
  return ranked;
}

/// The windows of a stage that take a place of their own on the circle.
Lowering::WindowPlan plan_windows(const Lowering& reference, std::int64_t shortest) {
  Lowering::WindowPlan plan;
  plan.shortest = shortest;
  for (const Lowering::Window& window : reference.windows()) {
    if (window.length >= shortest) {
      plan.shapes.push_back(&window.shape);
    }
  }
  return plan;
}

}  // namespace

std::int64_t windows_length(const Lowering& reference) {
  std::int64_t busy = 0;
  for (const Lowering::Window& window : reference.windows()) {
    busy += window.length;
  }
  return busy;
}

ScheduledInterval schedule_at(const LowerStage& lower,
                              const Lowering& reference,
                              std::int64_t interval,
                              const StagePhases& phases) {
  ScheduledInterval out{.lowering = nullptr, .phases = phases};
  Lowering::WindowPlan plan = plan_windows(reference, phases.shortest);
  if (plan.shapes.size() != phases.starts.size()) {
    return out;
  }
  plan.phases = phases.starts;
  try {
    out.lowering = lower(Load::kLoaded, interval, plan);
  } catch (const NoSchedule&) {
    return out;
  }
  return out;
}

ScheduledInterval schedule_interval(const LowerStage& lower,
                                    const Lowering& reference,
                                    std::int64_t interval,
                                    std::int32_t orders,
                                    std::uint64_t seed) {
  const std::vector<Lowering::Window>& windows = reference.windows();
  // Short windows find holes by themselves where there is room round long ones.
  constexpr std::int64_t kShort = 64;
  constexpr std::int64_t kRoomy = 12;  // length ÷ slack
  const std::int64_t length = windows_length(reference);
  const bool has_long = std::any_of(windows.begin(), windows.end(), [](const auto& w) { return w.length >= kShort; });
  Lowering::WindowPlan plan = plan_windows(reference, has_long && (interval - length) * kRoomy > length ? kShort : 0);
  if (plan.shapes.empty()) {
    return schedule_at(lower, reference, interval, {.shortest = plan.shortest, .starts = {}});
  }
  // Vector work takes longer between rounds than alone: trips to the SXM wait for free diagonals.
  constexpr double kCrowded = 1.25;
  std::vector<Link> chain = chain_of(windows, plan.shortest, kCrowded);
  constexpr std::int64_t kReduction = 80;
  constexpr std::int32_t kRepairs = 3;
  Random random(seed);
  ScheduledInterval found;
  found.phases.shortest = plan.shortest;
  std::vector<Link> best_chain;
  std::int64_t shortest = 0;
  std::set<std::vector<std::int64_t>> tried;
  std::vector<Link> guessed;
  std::vector<std::size_t> order;
  std::int32_t repairs = 0;  // left for this order
  // Where so many have no place for something, the interval is too short.
  const std::int32_t hopeless = std::max(4, orders / 4);
  for (std::int32_t attempt = 0; attempt < orders && (found.lowering || attempt < hopeless); ++attempt) {
    const bool repairs_last = repairs-- > 0;
    if (!repairs_last) {
      guessed = perturbed(attempt % 2 == 1 && found.lowering ? best_chain : chain, random);
      repairs = kRepairs;
    }
    const Circle circle(guessed, interval, kReduction * static_cast<std::int64_t>(2 + random.below(5)) / 4);
    plan.phases.clear();
    if (repairs_last) {
      plan.phases = circle.phases(order);
    } else {
      for (const auto& [coarse, ranked] : rank_orders(circle, random)) {
        order = ranked;
        plan.phases = circle.phases(order);
        if (tried.count(plan.phases) == 0) {
          break;
        }
      }
    }
    if (!tried.insert(plan.phases).second) {
      repairs = 0;
      continue;  // nothing new with these delays
    }
    try {
      std::unique_ptr<Lowering> lowered = lower(Load::kLoaded, interval, plan);
      const std::vector<Link> seen = chain_of(lowered->windows(), plan.shortest, 1);
      follow(chain, seen);
      repairs = raise(guessed, seen) ? repairs : 0;
      const std::int64_t through = lowered->through_time();
      if (!found.lowering || through < shortest) {
        shortest = through;
        best_chain = seen;
        found.lowering = std::move(lowered);
        found.phases.starts = plan.phases;
      }
    } catch (const NoSchedule&) {
      // This order has no place for something: give every window a little more time, and look for another.
      repairs = 0;
      for (Link& link : chain) {
        for (auto& [anchor, delay] : link.delays) {
          delay += delay > 0 ? delay / 32 + 4 : 0;
        }
      }
    }
  }
  return found;
}

}  // namespace lpu::scheduler
