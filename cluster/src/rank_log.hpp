#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <spdlog/sinks/sink.h>

#include "rank_messages.hpp"

namespace lpu::cluster {

/// A sink that hands each line to a function, without decoration.
[[nodiscard]] std::shared_ptr<spdlog::sinks::sink> make_forwarding_sink(std::function<void(LogLine)> forward);

/// Lines of all ranks on stderr; equal ones, said within a moment, become one that names the ranks.
class LogMerger {
 public:
  void add(std::int32_t rank, LogLine line);
  /// Prints what has waited long enough for its likes.
  void show_old();
  void show_all();

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    std::vector<std::int32_t> ranks;
    Clock::time_point since;
    std::int64_t order = 0;
  };
  void show(bool is_all);

  std::map<std::pair<std::int32_t, std::string>, Entry> waiting_;
  std::int64_t lines_ = 0;
};

/// "rank 3", "ranks 0-3, 7"
[[nodiscard]] std::string rank_list(std::vector<std::int32_t> ranks);

}  // namespace lpu::cluster
