#include "shared_window.hpp"

#include <cerrno>
#include <climits>
#include <fcntl.h>
#include <linux/futex.h>
#include <new>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <system_error>
#include <unistd.h>

#include "lpu/node/error.hpp"

namespace lpu::interconnect {
namespace {

static_assert(sizeof(std::atomic<std::uint32_t>) == 4, "the kernel sleeps on a word of 32 bits");

std::string reason(const std::string& what) {
  return what + ": " + std::generic_category().message(errno);
}

/// Free memory, swap included; a guess that keeps a window from being mapped that no machine could fill.
std::int64_t memory_bytes() {
  struct sysinfo info {};
  if (::sysinfo(&info) != 0) {
    return INT64_MAX;
  }
  return static_cast<std::int64_t>((info.totalram + info.totalswap) * info.mem_unit);
}

}  // namespace

void ring_bell(Board& board) {
  board.bell.fetch_add(1, std::memory_order_seq_cst);
  if (board.is_asleep.load(std::memory_order_seq_cst) != 0) {
    ::syscall(SYS_futex, &board.bell, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }
}

void sleep_on_bell(Board& board, std::uint32_t seen, std::chrono::nanoseconds at_most) {
  const timespec limit{.tv_sec = at_most.count() / 1'000'000'000, .tv_nsec = at_most.count() % 1'000'000'000};
  // Whoever rings after the store sees a sleeper; whoever rang before it changed the bell, and the kernel compares.
  board.is_asleep.store(1, std::memory_order_seq_cst);
  ::syscall(SYS_futex, &board.bell, FUTEX_WAIT, seen, &limit, nullptr, 0);
  board.is_asleep.store(0, std::memory_order_relaxed);
}

SharedWindow::~SharedWindow() {
  close();
}

std::string SharedWindow::create(std::int64_t bytes) {
  if (bytes > memory_bytes() / 2) {
    return "mailboxes of " + std::to_string(bytes >> 20U) + " MiB, more than half of the memory";
  }
  descriptor_ = ::memfd_create("lpu_cluster", MFD_CLOEXEC);
  if (descriptor_ < 0) {
    return reason("memfd_create");
  }
  if (::ftruncate(descriptor_, bytes) != 0) {
    std::string why = reason("ftruncate to " + std::to_string(bytes) + " bytes");
    close();
    return why;
  }
  return map(bytes);
}

std::string SharedWindow::open(const Handle& handle) {
  const std::string path = "/proc/" + std::to_string(handle.pid) + "/fd/" + std::to_string(handle.descriptor);
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  return descriptor_ < 0 ? reason(path) : map(handle.bytes);
}

std::string SharedWindow::map(std::int64_t bytes) {
  void* at = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
  if (at == MAP_FAILED) {  // NOLINT(performance-no-int-to-ptr): the kernel's macro
    std::string why = reason("mmap of " + std::to_string(bytes) + " bytes");
    close();
    return why;
  }
  data_ = static_cast<std::byte*>(at);
  bytes_ = bytes;
  return {};
}

void SharedWindow::close() {
  if (data_ != nullptr) {
    ::munmap(data_, static_cast<std::size_t>(bytes_));
    data_ = nullptr;
  }
  if (descriptor_ >= 0) {
    ::close(descriptor_);
    descriptor_ = -1;
  }
}

SharedWindow::Handle SharedWindow::handle() const {
  return {.pid = static_cast<std::int32_t>(::getpid()), .descriptor = descriptor_, .bytes = bytes_};
}

// Zeros are valid boards and control blocks: the kernel hands out zeroed pages, and the types hold nothing but
// lock-free atomics. So no process need construct them before another looks.
Board& SharedWindow::board(std::int32_t member) const {
  const std::int64_t offset = boards_bytes(member);
  LPU_CHECK(offset + boards_bytes(1) <= bytes_, "board outside the window");
  return *std::launder(reinterpret_cast<Board*>(data_ + offset));
}

ByteRing SharedWindow::ring(std::int64_t offset, std::int64_t room_bytes) const {
  LPU_CHECK(offset + ring_bytes(room_bytes) <= bytes_, "ring outside the window");
  auto* control = std::launder(reinterpret_cast<RingControl*>(data_ + offset));
  return {*control, {data_ + offset + sizeof(RingControl), static_cast<std::size_t>(room_bytes)}};
}

std::int64_t SharedWindow::boards_bytes(std::int32_t members) {
  return std::int64_t{members} * static_cast<std::int64_t>(sizeof(Board));
}

std::int64_t SharedWindow::ring_bytes(std::int64_t room_bytes) {
  constexpr std::int64_t kLine = 64;
  return static_cast<std::int64_t>(sizeof(RingControl)) + (room_bytes + kLine - 1) / kLine * kLine;
}

}  // namespace lpu::interconnect
