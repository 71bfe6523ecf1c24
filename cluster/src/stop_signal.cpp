#include "stop_signal.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <ctime>
#include <unistd.h>

#include "lpu/node/error.hpp"

namespace lpu::cluster {
namespace {

// A handler can reach nothing but globals.
std::atomic<int> caught{0};
std::atomic<bool> has_asked_to_save{false};
std::atomic<int> watches{0};
std::atomic<const std::int64_t*> host_pids{nullptr};
std::atomic<std::size_t> host_ranks{0};
std::atomic<std::int32_t> own_rank{0};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free &&
              std::atomic<const std::int64_t*>::is_always_lock_free);

bool is_gone(std::int64_t pid) {
  return ::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH;
}

struct LostRank {
  std::int32_t rank = -1;       ///< the lowest whose process is gone
  bool is_mine_to_name = true;  ///< no lower rank lives
};

/// Safe in a handler.
LostRank look_for_lost() {
  const std::int64_t* pids = host_pids.load();
  LostRank out;
  for (std::size_t rank = 0; rank < host_ranks.load(); ++rank) {
    if (pids[rank] == 0) {
      continue;
    }
    if (is_gone(pids[rank])) {
      out.rank = out.rank < 0 ? static_cast<std::int32_t>(rank) : out.rank;
    } else if (static_cast<std::int32_t>(rank) < own_rank.load()) {
      out.is_mine_to_name = false;
    }
  }
  return out;
}

void write_line(std::int32_t rank) {
  char text[96] = "lpu_cluster: rank ";
  std::size_t length = 18;
  char digits[12];
  std::size_t count = 0;
  do {
    digits[count++] = static_cast<char>('0' + rank % 10);
    rank /= 10;
  } while (rank > 0);
  while (count > 0) {
    text[length++] = digits[--count];
  }
  for (const char* rest = ": found it killed or lost; expected it to take part\n"; *rest != '\0'; ++rest) {
    text[length++] = *rest;
  }
  static_cast<void>(!::write(STDERR_FILENO, &text[0], length));
}

void handle(int signal) {
  const int before = errno;
  caught.store(signal);
  if (watches.load() == 0) {
    const LostRank lost = look_for_lost();
    if (lost.rank < 0) {
      ::_exit(128 + signal);
    }
    if (lost.is_mine_to_name) {
      write_line(lost.rank);
    }
    const timespec moment{.tv_sec = 2, .tv_nsec = 0};  // while this one lives, no higher rank repeats the line
    ::nanosleep(&moment, nullptr);
    ::_exit(static_cast<int>(node::ExitCode::kEnvironment));
  }
  errno = before;
}

}  // namespace

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = handle;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGTERM, SIGINT}) {
    sigaction(signal, &action, nullptr);
  }
}

void name_the_lost(std::span<const std::int64_t> pids, std::int32_t rank) {
  own_rank.store(rank);
  host_pids.store(pids.data());
  host_ranks.store(pids.size());
}

void catch_save_signal() {
  struct sigaction action {};
  action.sa_handler = [](int) { has_asked_to_save.store(true); };
  sigemptyset(&action.sa_mask);
  sigaction(SIGUSR1, &action, nullptr);
}

bool save_is_asked() {
  return has_asked_to_save.load(std::memory_order_relaxed);
}

int stop_signal() {
  return caught.load(std::memory_order_relaxed);
}

StopWatch::StopWatch() {
  watches.fetch_add(1);
}
StopWatch::~StopWatch() {
  watches.fetch_sub(1);
}

}  // namespace lpu::cluster
