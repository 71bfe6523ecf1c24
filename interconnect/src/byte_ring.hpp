#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace lpu::interconnect {

/// What both ends of a ring share. Counts only grow; their difference is what lies in the ring.
struct RingControl {
  alignas(64) std::atomic<std::uint64_t> written{};  ///< bytes, by the producer
  alignas(64) std::atomic<std::uint64_t> taken{};    ///< bytes, by the consumer
  std::atomic<std::uint32_t> is_full{};              ///< the producer holds more than fitted, and wants to be woken
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);

/// A stream of bytes from one process to another, in memory that both map: one producer, one consumer, no lock.
class ByteRing {
 public:
  ByteRing() = default;
  /// @param room  bytes; the memory is shared and starts as zeros
  ByteRing(RingControl& control, std::span<std::byte> room) : control_(&control), room_(room) {}

  [[nodiscard]] bool is_there() const { return control_ != nullptr; }

  /// Writes as much as fits.
  /// @return bytes written
  std::size_t write(std::span<const std::byte> bytes) {
    const std::uint64_t written = control_->written.load(std::memory_order_relaxed);
    const std::uint64_t used = written - control_->taken.load(std::memory_order_acquire);
    const std::size_t count = std::min(bytes.size(), room_.size() - static_cast<std::size_t>(used));
    const auto at = static_cast<std::size_t>(written % room_.size());
    const std::size_t first = std::min(count, room_.size() - at);
    std::memcpy(room_.data() + at, bytes.data(), first);
    std::memcpy(room_.data(), bytes.data() + first, count - first);
    control_->written.store(written + count, std::memory_order_release);
    return count;
  }

  /// Appends all that is there.
  /// @return bytes taken
  std::size_t take(std::vector<std::byte>& into) {
    const std::uint64_t taken = control_->taken.load(std::memory_order_relaxed);
    const auto count = static_cast<std::size_t>(control_->written.load(std::memory_order_acquire) - taken);
    if (count == 0) {
      return 0;
    }
    const auto at = static_cast<std::size_t>(taken % room_.size());
    const std::size_t first = std::min(count, room_.size() - at);
    into.insert(into.end(), room_.data() + at, room_.data() + at + first);
    into.insert(into.end(), room_.data(), room_.data() + (count - first));
    control_->taken.store(taken + count, std::memory_order_release);
    return count;
  }

  [[nodiscard]] std::atomic<std::uint32_t>& is_full() const { return control_->is_full; }

 private:
  RingControl* control_ = nullptr;
  std::span<std::byte> room_;
};

}  // namespace lpu::interconnect
