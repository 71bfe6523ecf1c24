#include "rank_log.hpp"

#include <algorithm>
#include <iostream>
#include <mutex>

#include <spdlog/common.h>
#include <spdlog/sinks/base_sink.h>

#include "lpu/node/suggestion.hpp"

namespace lpu::cluster {
namespace {

constexpr auto kMoment = std::chrono::milliseconds(300);

class ForwardingSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit ForwardingSink(std::function<void(LogLine)> forward) : forward_(std::move(forward)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    forward_({.level = static_cast<std::int32_t>(message.level),
              .text = std::string(message.payload.data(), message.payload.size())});
  }
  void flush_() override {}

  std::function<void(LogLine)> forward_;
};

}  // namespace

std::shared_ptr<spdlog::sinks::sink> make_forwarding_sink(std::function<void(LogLine)> forward) {
  return std::make_shared<ForwardingSink>(std::move(forward));
}

void LogMerger::add(std::int32_t rank, LogLine line) {
  const auto [entry, is_new] = waiting_.try_emplace({line.level, std::move(line.text)});
  if (is_new) {
    entry->second.since = Clock::now();
    entry->second.order = lines_++;
  }
  entry->second.ranks.push_back(rank);
}

void LogMerger::show_old() {
  if (!waiting_.empty()) {
    show(false);
  }
}

void LogMerger::show_all() {
  show(true);
}

void LogMerger::show(bool is_all) {
  const auto now = Clock::now();
  std::map<std::int64_t, std::string> lines;
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    if (!is_all && now - at->second.since < kMoment) {
      ++at;
      continue;
    }
    const auto level = static_cast<spdlog::level::level_enum>(at->first.first);
    const auto name = spdlog::level::to_string_view(level);
    lines[at->second.order] = "lpu_cluster: [" + rank_list(at->second.ranks) + "] " +
                              std::string(name.data(), name.size()) + ": " + node::printable(at->first.second) + "\n";
    at = waiting_.erase(at);
  }
  for (const auto& [order, line] : lines) {
    std::cerr << line;
  }
  std::cerr << std::flush;
}

std::string rank_list(std::vector<std::int32_t> ranks) {
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  std::string out;
  for (std::size_t first = 0; first < ranks.size();) {
    std::size_t last = first;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) {
      ++last;
    }
    out += (out.empty() ? "" : ", ") + std::to_string(ranks[first]);
    out += last > first ? "-" + std::to_string(ranks[last]) : "";
    first = last + 1;
  }
  return (ranks.size() == 1 ? "rank " : "ranks ") + out;
}

}  // namespace lpu::cluster
