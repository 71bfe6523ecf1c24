#pragma once
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "byte_ring.hpp"

namespace lpu::interconnect {

/// What a rank shows to the others of its host.
struct alignas(128) Board {
  std::atomic<std::uint32_t> bell{};       ///< rung by whoever left something for the rank; slept on
  std::atomic<std::uint32_t> is_asleep{};  ///< a sleeper must be woken by the kernel
  std::atomic<std::uint32_t> control{};    ///< control messages on their way to the rank, counted from the start
  std::atomic<std::uint32_t> is_ending{};  ///< the rank, or all of them, end on purpose: its death is no loss
};

/// Adds one to the bell and wakes its owner if it sleeps.
void ring_bell(Board& board);
/// Sleeps until the bell shows something else than `seen`, a signal comes, or the time is over.
void sleep_on_bell(Board& board, std::uint32_t seen, std::chrono::nanoseconds at_most);

/// Memory that the ranks of one host share: a board for each, then rings.
///
/// An anonymous file (memfd) that the others open through /proc: it has no name that could outlive a killed process,
/// and the size of /dev/shm does not limit it (containers give that 64 MB). Pages are taken when they are first used.
class SharedWindow {
 public:
  /// How another process of the host finds the window.
  struct Handle {
    std::int32_t pid = 0;
    std::int32_t descriptor = -1;
    std::int64_t bytes = 0;
  };

  SharedWindow() = default;
  ~SharedWindow();
  SharedWindow(const SharedWindow&) = delete;
  SharedWindow& operator=(const SharedWindow&) = delete;
  SharedWindow(SharedWindow&&) = delete;
  SharedWindow& operator=(SharedWindow&&) = delete;

  /// @return why not; empty: done
  [[nodiscard]] std::string create(std::int64_t bytes);
  [[nodiscard]] std::string open(const Handle& handle);
  void close();

  [[nodiscard]] bool is_open() const { return data_ != nullptr; }
  [[nodiscard]] Handle handle() const;
  [[nodiscard]] Board& board(std::int32_t member) const;
  /// @param offset  of the ring's control block in the window
  [[nodiscard]] ByteRing ring(std::int64_t offset, std::int64_t room_bytes) const;

  /// Bytes of the boards, and of one ring.
  [[nodiscard]] static std::int64_t boards_bytes(std::int32_t members);
  [[nodiscard]] static std::int64_t ring_bytes(std::int64_t room_bytes);

 private:
  [[nodiscard]] std::string map(std::int64_t bytes);

  int descriptor_ = -1;
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

}  // namespace lpu::interconnect
