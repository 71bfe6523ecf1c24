#pragma once
#include <cstdint>
#include <span>

namespace lpu::cluster {

/// From here on SIGTERM and SIGINT ask the program to end instead of ending it.
void catch_stop_signals();
/// Outside of a StopWatch a caught signal ends the program at once; where one of these processes has died without a
/// word, and no living one has a lower rank, with a line that names its rank.
/// @param pids  of the ranks of this host, 0 for others; must live as long as the program
/// @param rank  this one
void name_the_lost(std::span<const std::int64_t> pids, std::int32_t rank);

/// The signal that came; 0: none.
[[nodiscard]] int stop_signal();

/// From here on SIGUSR1 asks for the run's state to be saved, instead of ending the program.
void catch_save_signal();
[[nodiscard]] bool save_is_asked();

/// While it lives, someone asks stop_signal() now and then.
class StopWatch {
 public:
  StopWatch();
  ~StopWatch();
  StopWatch(const StopWatch&) = delete;
  StopWatch& operator=(const StopWatch&) = delete;
  StopWatch(StopWatch&&) = delete;
  StopWatch& operator=(StopWatch&&) = delete;
};

}  // namespace lpu::cluster
