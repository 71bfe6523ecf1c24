#include "lpu/interconnect/payload_transport.hpp"

#include <array>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"

namespace lpu::interconnect {
namespace {

using Vector = std::array<std::byte, 4>;

Vector vector_of(int number) {
  return {std::byte{1}, std::byte{2}, std::byte{3}, static_cast<std::byte>(number)};
}

/// Chips 0 and 1, link 2 of the one at link 1 of the other; chip 2 is idle, at link 0 of chip 0.
std::vector<node::ChipBinding> pair_of_chips() {
  std::vector<node::ChipBinding> out(3);
  for (std::int32_t chip = 0; chip < 3; ++chip) {
    out[static_cast<std::size_t>(chip)].chip = chip;
    out[static_cast<std::size_t>(chip)].peers.resize(3);
  }
  out[0].peers[2] = {.chip = 1, .link = 1};
  out[1].peers[1] = {.chip = 0, .link = 2};
  out[0].peers[0] = {.chip = 2, .link = 0};
  return out;
}
const ChipPlacement kAllHere{.rank = 0, .rank_of = {0, 0, -1}};

TEST(PayloadTransport, CarriesVectorsInTheirOrderAndSaysWhoGotThem) {
  const auto bindings = pair_of_chips();
  PayloadTransport transport(bindings, kAllHere, nullptr);
  Vector taken{};
  EXPECT_FALSE(transport.port(1).receive(1, taken));
  transport.port(0).send(2, vector_of(7));
  transport.port(0).send(2, vector_of(8));
  ASSERT_EQ(transport.deliveries().size(), 2U);
  EXPECT_EQ(transport.deliveries()[0].chip, 1);
  EXPECT_EQ(transport.deliveries()[0].link, 1);
  ASSERT_TRUE(transport.port(1).receive(1, taken));
  EXPECT_EQ(taken, vector_of(7));
  ASSERT_TRUE(transport.leftover());
  EXPECT_EQ(transport.leftover()->chip, 1);
  ASSERT_TRUE(transport.port(1).receive(1, taken));
  EXPECT_EQ(taken, vector_of(8));
  EXPECT_FALSE(transport.port(1).receive(1, taken));
  EXPECT_FALSE(transport.leftover());
  EXPECT_EQ(transport.vectors(), 2);
}

TEST(PayloadTransport, RefusesLinksThatLeadToNoChipAtWork) {
  const auto bindings = pair_of_chips();
  PayloadTransport transport(bindings, kAllHere, nullptr);
  EXPECT_THROW(transport.port(0).send(0, vector_of(1)), node::ScheduleViolation);  // an idle chip
  EXPECT_THROW(transport.port(0).send(1, vector_of(1)), node::ScheduleViolation);  // not wired
  EXPECT_FALSE(transport.accept_vector({.chip = 2, .link = 0}, vector_of(1)));
  EXPECT_FALSE(transport.accept_vector({.chip = 1, .link = 3}, vector_of(1)));
  EXPECT_FALSE(transport.accept_vector({.chip = 9, .link = 0}, vector_of(1)));
}

TEST(PayloadTransport, NotesAreTakenInTheirOrder) {
  const auto bindings = pair_of_chips();
  PayloadTransport transport(bindings, kAllHere, nullptr);
  EXPECT_FALSE(transport.next_note());
  EXPECT_TRUE(transport.accept_note(vector_of(1)));
  EXPECT_TRUE(transport.accept_note(vector_of(2)));
  EXPECT_EQ(transport.next_note()->back(), std::byte{1});
  EXPECT_EQ(transport.next_note()->back(), std::byte{2});
  EXPECT_FALSE(transport.next_note());
}

TEST(PayloadTransport, ATampererMayChangeOrLoseVectors) {
  const auto bindings = pair_of_chips();
  PayloadTransport transport(bindings, kAllHere, nullptr);
  transport.set_tamperer([](Delivery to, std::span<std::byte> vector) {
    vector[0] = std::byte{9};
    return to.chip == 1 && vector[3] != std::byte{8};
  });
  transport.port(0).send(2, vector_of(7));
  transport.port(0).send(2, vector_of(8));
  Vector taken{};
  ASSERT_TRUE(transport.port(1).receive(1, taken));
  EXPECT_EQ(taken[0], std::byte{9});
  EXPECT_FALSE(transport.port(1).receive(1, taken));
}

}  // namespace
}  // namespace lpu::interconnect
