#include "byte_ring.hpp"

#include <algorithm>
#include <array>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "shared_window.hpp"

namespace lpu::interconnect {
namespace {

struct Ring {
  explicit Ring(std::size_t bytes) : room(bytes) {}
  RingControl control;
  std::vector<std::byte> room;
  ByteRing ring{control, room};
};

std::vector<std::byte> counted(std::size_t first, std::size_t count) {
  std::vector<std::byte> out;
  for (std::size_t i = first; i < first + count; ++i) {
    out.push_back(static_cast<std::byte>(i % 251));
  }
  return out;
}

TEST(ByteRing, TakesWhatFitsAndNoMore) {
  Ring given(64);
  EXPECT_EQ(given.ring.write(counted(0, 50)), 50U);
  EXPECT_EQ(given.ring.write(counted(50, 50)), 14U);
  EXPECT_EQ(given.ring.write(counted(64, 1)), 0U);
  std::vector<std::byte> taken;
  EXPECT_EQ(given.ring.take(taken), 64U);
  EXPECT_EQ(taken, counted(0, 64));
  EXPECT_EQ(given.ring.take(taken), 0U);
  EXPECT_EQ(given.ring.write(counted(64, 50)), 50U);
}

TEST(ByteRingProperty, BytesComeInOrderWhateverPiecesTheyAreWrittenIn) {
  std::mt19937 random(11);
  for (const std::size_t room : {1U, 7U, 64U, 1000U}) {
    Ring given(room);
    std::vector<std::byte> taken;
    std::size_t written = 0;
    while (written < 20 * room) {
      written += given.ring.write(counted(written, random() % (2 * room) + 1));
      if (random() % 2 == 0) {
        given.ring.take(taken);
      }
    }
    given.ring.take(taken);
    EXPECT_EQ(taken, counted(0, written)) << "room " << room;
  }
}

TEST(ByteRing, OneWritesWhileTheOtherTakes) {
  constexpr std::size_t kBytes = 300'000;
  Ring given(4096);
  std::thread producer([&] {
    const std::vector<std::byte> bytes = counted(0, kBytes);
    for (std::size_t at = 0; at < kBytes;) {
      at += given.ring.write(std::span(bytes).subspan(at, std::min<std::size_t>(997, kBytes - at)));
    }
  });
  std::vector<std::byte> taken;
  while (taken.size() < kBytes) {
    given.ring.take(taken);
  }
  producer.join();
  EXPECT_EQ(taken, counted(0, kBytes));
}

TEST(SharedWindow, TwoMappingsShowTheSameBytes) {
  SharedWindow first;
  const std::int64_t ring_at = SharedWindow::boards_bytes(2);
  ASSERT_EQ(first.create(ring_at + SharedWindow::ring_bytes(4096)), "");
  SharedWindow second;
  ASSERT_EQ(second.open(first.handle()), "");
  EXPECT_EQ(first.ring(ring_at, 4096).write(counted(0, 100)), 100U);
  std::vector<std::byte> taken;
  EXPECT_EQ(second.ring(ring_at, 4096).take(taken), 100U);
  EXPECT_EQ(taken, counted(0, 100));
  ring_bell(first.board(1));
  EXPECT_EQ(second.board(1).bell.load(), 1U);
  EXPECT_EQ(second.board(0).bell.load(), 0U);
}

TEST(SharedWindow, SleepEndsWithTheBell) {
  SharedWindow window;
  ASSERT_EQ(window.create(SharedWindow::boards_bytes(1)), "");
  Board& board = window.board(0);
  std::thread other([&] {
    while (board.is_asleep.load() == 0) {
      std::this_thread::yield();
    }
    ring_bell(board);
  });
  const auto begin = std::chrono::steady_clock::now();
  sleep_on_bell(board, 0, std::chrono::seconds(30));
  other.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  sleep_on_bell(board, 0, std::chrono::seconds(30));  // it has been rung since: no sleep at all
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST(SharedWindow, SaysWhyItCannotBeHad) {
  SharedWindow window;
  EXPECT_NE(window.create(INT64_MAX / 2).find("more than half of the memory"), std::string::npos);
  EXPECT_FALSE(window.is_open());
  EXPECT_NE(window.open({.pid = 1 << 30, .descriptor = 3, .bytes = 4096}).find("/fd/3: No such file"),
            std::string::npos);
  EXPECT_FALSE(window.is_open());
}

}  // namespace
}  // namespace lpu::interconnect
