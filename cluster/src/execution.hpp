#pragma once
#include <chrono>
#include <cstdint>
#include <limits>
#include <vector>

#include "lpu/cluster/run_program.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/port.hpp"

namespace lpu::cluster {

/// The chips of one rank in one plane, as the loop that runs them (lockstep.cpp) and the group of ranks see them.
///
/// A chip runs ahead until it needs something that has not come; who got something is run next. In which order chips
/// run decides nothing.
class Execution {
 public:
  Execution() = default;
  Execution(const Execution&) = delete;
  Execution& operator=(const Execution&) = delete;
  Execution(Execution&&) = delete;
  Execution& operator=(Execution&&) = delete;
  virtual ~Execution() = default;

  /// Gives the next chip that can run its turn.
  /// @return false: there was none
  virtual bool run_next() = 0;
  /// Takes what has come from other ranks; those who waited for it can run again.
  /// @return whether there was something
  virtual bool receive() = 0;
  [[nodiscard]] virtual bool is_done() const = 0;
  [[nodiscard]] virtual std::vector<node::Wait> waits() const = 0;  ///< of chips that wait
  /// @throws node::ScheduleViolation  something that came and was never taken
  virtual void check_nothing_left() = 0;
  [[nodiscard]] virtual RunProgress progress() const = 0;  ///< of the chips of stage 0 that are here

  /// Its state can be saved; else a wish for that waits until an execution begins of which it can.
  [[nodiscard]] virtual bool is_stoppable() const { return false; }
  /// The first token that no chip here has begun, and before which it can still be stopped; kNoToken: there is none.
  [[nodiscard]] virtual std::int64_t next_token() const { return kNoToken; }
  /// Nothing of this token is executed: all chips, of all ranks, are done before it.
  /// @pre next_token() <= token < tokens of the run
  virtual void stop_before(std::int64_t /*token*/) {}

  static constexpr std::int64_t kNoToken = std::numeric_limits<std::int64_t>::max();
};

/// Where the time of the loop that runs chips went, but for the chips themselves.
struct LoopTimes {
  std::chrono::nanoseconds exchanging{};  ///< with other ranks
  std::chrono::nanoseconds waiting{};     ///< for them
};

/// All of them wait and nothing is on its way: who waits for whom, from the earliest wait on.
/// @param waits  of every chip of the cluster that is not done; at least one
[[nodiscard]] node::ScheduleViolation deadlock(const std::vector<node::Wait>& waits);

}  // namespace lpu::cluster
