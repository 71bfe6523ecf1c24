#include "lpu/node/emulator.hpp"

#include <deque>
#include <map>

#include <gtest/gtest.h>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/identity.hpp"
#include "test_chip.hpp"

namespace lpu::node {
namespace {

/// Keeps what is sent, gives what a test puts in.
class RecordingPort final : public Port {
 public:
  struct Message {
    std::int32_t link = 0;
    MessageHeader header;
    std::vector<std::uint64_t> values;
  };
  void send(std::int32_t link, const MessageHeader& header, std::span<const std::uint64_t> values) override {
    sent.push_back({link, header, {values.begin(), values.end()}});
  }
  [[nodiscard]] MessageView front(std::int32_t link) override {
    auto& waiting = incoming[link];
    return waiting.empty() ? MessageView{} : MessageView{&waiting.front().header, waiting.front().values.data()};
  }
  void pop(std::int32_t link) override { incoming[link].pop_front(); }

  std::vector<Message> sent;
  std::map<std::int32_t, std::deque<Message>> incoming;
};

constexpr std::uint64_t kDigest = 42;

/// A text of links alone: what the emulator makes of pushes and takes.
class WireText {
 public:
  WireText() {
    text_.registers.resize(1);
    text_.tensors.push_back({.name = "x", .rows = 64, .sources = {}});
    text_.tensors.push_back({.name = "y", .rows = 64, .sources = {}});
    binding_.chip = 3;
    binding_.group_position = 1;
    binding_.peers.resize(11);
    for (LinkPeer& peer : binding_.peers) {
      peer = {.chip = 4, .link = 0};
    }
    binding_.slot_owner = {1};
    plan_.initiation_interval = 1000;
    plan_.token_period = 1000;
  }

  Instruction& add(Opcode opcode,
                   std::int32_t start,
                   std::uint16_t count,
                   std::int32_t period,
                   std::uint16_t tensor,
                   const std::string& transfer) {
    Instruction out;
    out.opcode = opcode;
    out.start = start;
    out.count[0] = count;
    out.period[0] = count > 1 ? period : 0;
    out.operands[0].kind = opcode == Opcode::kSend ? OperandKind::kIn : OperandKind::kOut;
    out.operands[0].tensor = tensor;
    out.operands[0].row_stride[0] = 1;
    out.transfer = static_cast<std::uint16_t>(text_.transfers.size());
    text_.transfers.push_back({.name = transfer, .vectors = count});
    text_.instructions.push_back(out);
    return text_.instructions.back();
  }

  const BurstTable& table() {
    table_ = std::make_unique<BurstTable>(text_, chip_, 3);
    return *table_;
  }
  Emulator make(std::int64_t iterations) { return {table(), chip_, binding_, plan_, iterations, kDigest, port_}; }

  RecordingPort& port() { return port_; }
  ChipProgram& text() { return text_; }
  ChipBinding& binding() { return binding_; }
  IterationPlan& plan() { return plan_; }
  ChipSpec& chip() { return chip_; }
  [[nodiscard]] std::int64_t link_latency() const { return chip_.link_latency().count(); }

  /// Vectors of "y" as the receiver names them, from a sender that starts them at `departure`.
  void give(std::int64_t departure,
            std::int32_t length,
            std::int64_t iteration,
            std::int32_t first_row,
            const std::string& transfer) {
    RecordingPort::Message message;
    message.header = {.schedule_digest = kDigest,
                      .transfer = digest_text(transfer),
                      .fold = 7,
                      .iteration = iteration,
                      .departure = departure,
                      .step = 24,
                      .length = length};
    for (std::int32_t i = 0; i < length; ++i) {
      message.values.push_back(value_id(text_.tensors[1], binding_, plan_, iteration, first_row + i, 0));
    }
    port_.incoming[0].push_back(message);
  }

 private:
  ChipSpec chip_ = test::tsp_v1();
  ChipProgram text_;
  ChipBinding binding_;
  IterationPlan plan_;
  RecordingPort port_;
  std::unique_ptr<BurstTable> table_;
};

std::string reason_of(Emulator& chip) {
  try {
    (void)chip.run();
    chip.check_nothing_left();
  } catch (const ScheduleViolation& violation) {
    return violation.violation().reason;
  }
  return "";
}

TEST(Emulator, VectorsFarApartLeaveAtTheirPushes) {
  WireText wire;
  wire.add(Opcode::kSend, 10, 3, 30, 0, "t");
  Emulator chip = wire.make(1);
  EXPECT_EQ(chip.run(), ChipState::kDone);
  ASSERT_EQ(wire.port().sent.size(), 1U);
  const MessageHeader& header = wire.port().sent[0].header;
  EXPECT_EQ(header.departure, 10);
  EXPECT_EQ(header.step, 30);
  EXPECT_EQ(header.length, 3);
  EXPECT_EQ(header.schedule_digest, kDigest);
  EXPECT_EQ(header.transfer, digest_text("t"));
}

TEST(Emulator, QueuedVectorsLeaveOneServiceTimeApart) {
  // Pushes 10, 11, 12, 100: starts 10, 34, 58, 100; the last in a message of its own, for its distance differs.
  WireText wire;
  wire.add(Opcode::kSend, 10, 3, 1, 0, "t");
  wire.add(Opcode::kSend, 100, 1, 0, 0, "u");
  Emulator chip = wire.make(1);
  EXPECT_EQ(chip.run(), ChipState::kDone);
  ASSERT_EQ(wire.port().sent.size(), 2U);
  EXPECT_EQ(wire.port().sent[0].header.departure, 10);
  EXPECT_EQ(wire.port().sent[0].header.step, 24);
  EXPECT_EQ(wire.port().sent[1].header.departure, 100);
}

TEST(Emulator, UnevenDeparturesSplitAMessage) {
  // Two loops: pushes 0, 1, 200, 201: starts 0, 24, 200, 224.
  WireText wire;
  Instruction& send = wire.add(Opcode::kSend, 0, 2, 200, 0, "t");
  send.count[1] = 2;
  send.period[1] = 1;
  wire.text().transfers[0].vectors = 4;
  Emulator chip = wire.make(1);
  EXPECT_EQ(chip.run(), ChipState::kDone);
  std::vector<std::int64_t> starts;
  for (const auto& message : wire.port().sent) {
    for (std::int32_t i = 0; i < message.header.length; ++i) {
      starts.push_back(message.header.departure + std::int64_t{i} * message.header.step);
    }
  }
  EXPECT_EQ(starts, (std::vector<std::int64_t>{0, 24, 200, 224}));
}

TEST(Emulator, VectorsAreNamedByTensorOwnerRowAndIteration) {
  WireText wire;
  wire.add(Opcode::kSend, 0, 2, 24, 0, "t");
  Emulator chip = wire.make(2);
  EXPECT_EQ(chip.run(), ChipState::kDone);
  ASSERT_EQ(wire.port().sent.size(), 2U);
  for (std::int64_t k = 0; k < 2; ++k) {
    const auto& message = wire.port().sent[static_cast<std::size_t>(k)];
    EXPECT_EQ(message.header.iteration, k);
    EXPECT_EQ(message.header.departure, k * 1000);
    for (std::int32_t row = 0; row < 2; ++row) {
      EXPECT_EQ(message.values[static_cast<std::size_t>(row)],
                value_id(wire.text().tensors[0], wire.binding(), wire.plan(), k, row, 0));
    }
  }
}

TEST(Emulator, BurstOverLinksSendsTheSameOnEach) {
  WireText wire;
  Instruction& send = wire.add(Opcode::kSend, 5, 2, 24, 0, "t");
  send.count[2] = 4;
  send.index_stride[2] = 1;
  Emulator chip = wire.make(1);
  EXPECT_EQ(chip.run(), ChipState::kDone);
  ASSERT_EQ(wire.port().sent.size(), 4U);
  for (std::int32_t link = 0; link < 4; ++link) {
    const auto& message = wire.port().sent[static_cast<std::size_t>(link)];
    EXPECT_EQ(message.link, link);
    EXPECT_EQ(message.values, wire.port().sent[0].values);
    EXPECT_EQ(message.header.fold, wire.port().sent[0].header.fold);
  }
  EXPECT_EQ(chip.measures().transfers, 4);
  EXPECT_EQ(chip.measures().vectors, 8);
  EXPECT_EQ(chip.measures().link_busy[3], 2 * 24);
}

TEST(Emulator, ReceiveWaitsForWhatHasNotCome) {
  WireText wire;
  wire.add(Opcode::kReceive, 600, 2, 24, 1, "t");
  Emulator chip = wire.make(1);
  EXPECT_EQ(chip.run(), ChipState::kWaiting);
  const Wait wait = chip.wait();
  EXPECT_EQ(wait.chip, 3);
  EXPECT_EQ(wait.from, 4);
  EXPECT_EQ(wait.link, 0);
  EXPECT_EQ(wait.transfer, "t");
  EXPECT_EQ(wait.cycle, 600);
  // One vector is not enough, the second is.
  wire.give(600 - wire.link_latency(), 1, 0, 0, "t");
  EXPECT_EQ(chip.run(), ChipState::kWaiting);
  EXPECT_EQ(chip.wait().cycle, 624);
  wire.give(624 - wire.link_latency(), 1, 0, 1, "t");
  EXPECT_EQ(chip.run(), ChipState::kDone);
  EXPECT_EQ(chip.measures().arrivals_checked, 2);
}

TEST(Emulator, ArrivalPlusWaitIsTheTakeExactly) {
  for (const std::int64_t late : {-1, 0, 1}) {
    WireText wire;
    wire.add(Opcode::kReceive, 700, 1, 0, 1, "t").argument = 5;
    wire.give(695 - wire.link_latency() + late, 1, 0, 0, "t");
    Emulator chip = wire.make(1);
    const std::string reason = reason_of(chip);
    if (late == 0) {
      EXPECT_EQ(reason, "");
    } else {
      EXPECT_NE(reason.find("arrives at cycle " + std::to_string(695 + late) + "; the program expects cycle 695"),
                std::string::npos)
          << reason;
    }
  }
}

TEST(Emulator, RefusesOtherValuesTransfersIterationsAndPrograms) {
  const auto reason_with = [](auto change) {
    WireText wire;
    wire.add(Opcode::kReceive, 600, 1, 0, 1, "t");
    wire.give(600 - wire.link_latency(), 1, 0, 0, "t");
    change(wire.port().incoming[0].front());
    Emulator chip = wire.make(1);
    return reason_of(chip);
  };
  EXPECT_EQ(reason_with([](auto&) {}), "");
  EXPECT_NE(reason_with([](auto& m) { m.values[0] ^= 1; }).find("is another value than row 0 of 'y'"),
            std::string::npos);
  EXPECT_NE(reason_with([](auto& m) { m.header.transfer ^= 1; }).find("belongs to another transfer"),
            std::string::npos);
  EXPECT_NE(reason_with([](auto& m) { m.header.iteration = 1; }).find("belongs to iteration 1"), std::string::npos);
  EXPECT_NE(reason_with([](auto& m) { m.header.schedule_digest = 1; }).find("another program"), std::string::npos);
}

TEST(Emulator, LeftOverVectorsAreSeen) {
  WireText wire;
  wire.add(Opcode::kReceive, 600, 1, 0, 1, "t");
  wire.give(600 - wire.link_latency(), 3, 0, 0, "t");
  Emulator chip = wire.make(1);
  EXPECT_NE(reason_of(chip).find("2 vectors that arrived on link 0 from chip 4 were never received"),
            std::string::npos);
}

TEST(Emulator, FoldDependsOnWhatWasReceived) {
  const auto fold_after = [](std::uint64_t sender) {
    WireText wire;
    wire.add(Opcode::kReceive, 600, 1, 0, 1, "t");
    wire.give(600 - wire.link_latency(), 1, 0, 0, "t");
    wire.port().incoming[0].front().header.fold = sender;
    Emulator chip = wire.make(1);
    EXPECT_EQ(chip.run(), ChipState::kDone);
    return chip.fold();
  };
  EXPECT_EQ(fold_after(1), fold_after(1));
  EXPECT_NE(fold_after(1), fold_after(2));
}

TEST(Emulator, FoldDoesNotDependOnHowMessagesAreCut) {
  const auto fold_after = [](bool is_cut) {
    WireText wire;
    wire.add(Opcode::kReceive, 600, 2, 24, 1, "t");
    const std::int64_t departure = 600 - wire.link_latency();
    if (is_cut) {
      wire.give(departure, 1, 0, 0, "t");
      wire.give(departure + 24, 1, 0, 1, "t");
    } else {
      wire.give(departure, 2, 0, 0, "t");
    }
    Emulator chip = wire.make(1);
    EXPECT_EQ(chip.run(), ChipState::kDone);
    return chip.fold();
  };
  EXPECT_EQ(fold_after(true), fold_after(false));
}

TEST(Emulator, OverlappingIterationsShareALinkInOrderOfTheirPushes) {
  // A burst of two vectors 100 cycles apart, iterations 50 apart: pushes 0, 50, 100, 150.
  WireText wire;
  wire.add(Opcode::kSend, 0, 2, 100, 0, "t");
  wire.plan().groups = 2;
  wire.plan().initiation_interval = 50;
  wire.plan().token_period = 1000;
  Emulator chip = wire.make(2);
  EXPECT_EQ(chip.run(), ChipState::kDone);
  std::vector<std::pair<std::int64_t, std::int64_t>> order;
  for (const auto& message : wire.port().sent) {
    for (std::int32_t i = 0; i < message.header.length; ++i) {
      order.emplace_back(message.header.departure + std::int64_t{i} * message.header.step, message.header.iteration);
    }
  }
  EXPECT_EQ(order, (std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 0}, {50, 1}, {100, 0}, {150, 1}}));
}

TEST(Emulator, ChipWithNothingToDoIsDone) {
  WireText wire;
  Emulator chip = wire.make(5);
  EXPECT_EQ(chip.run(), ChipState::kDone);
  EXPECT_EQ(chip.measures().iterations, 0);
}

TEST(BurstTable, RowsAreReadableNPlusOneCyclesAfterTheirWrite) {
  for (const std::int32_t distance : {20, 21}) {
    const ChipSpec chip = test::tsp_v1();
    ChipProgram text;
    text.registers.resize(1);
    text.tensors.push_back({.name = "x", .rows = 4, .sources = {}});
    Instruction write;
    write.opcode = Opcode::kWrite;
    write.start = 100;
    write.count[0] = 4;
    write.period[0] = 3;
    write.operands[0] = {.kind = OperandKind::kIn};
    write.operands[0].row_stride[0] = 1;
    Instruction read = write;
    read.opcode = Opcode::kRead;
    read.start = 100 + distance;
    read.operands[0].kind = OperandKind::kOut;
    text.instructions = {write, read};
    if (distance == 21) {
      EXPECT_NO_THROW(BurstTable(text, chip, 0));
    } else {
      EXPECT_THROW(BurstTable(text, chip, 0), ScheduleViolation);
    }
    // A slice farther out is reached later: the write there is not over when the read could start.
    text.instructions[0].index_stride[0] = 4;
    EXPECT_THROW(BurstTable(text, chip, 0), ScheduleViolation);
  }
}

TEST(BurstTable, EachCopyOfARowHasItsOwnReadiness) {
  const ChipSpec chip = test::tsp_v1();
  ChipProgram text;
  text.registers.resize(1);
  text.tensors.push_back({.name = "x", .rows = 1, .sources = {}});
  Instruction near;
  near.opcode = Opcode::kWrite;
  near.start = 100;
  near.operands[0] = {.kind = OperandKind::kIn};
  Instruction far = near;
  far.start = 105;
  far.index = 8;
  Instruction read = near;
  read.opcode = Opcode::kRead;
  read.start = 121;
  read.operands[0].kind = OperandKind::kOut;
  text.instructions = {near, far, read};
  EXPECT_NO_THROW(BurstTable(text, chip, 0));
  text.instructions[2].index = 8;
  EXPECT_THROW(BurstTable(text, chip, 0), ScheduleViolation);
}

TEST(BurstTable, EventsComeInCycleAndUnitOrder) {
  WireText wire;
  wire.add(Opcode::kReceive, 10, 2, 24, 1, "r");
  wire.add(Opcode::kSend, 10, 3, 24, 0, "s");
  std::vector<std::pair<std::int32_t, BurstMoment>> order;
  for (const BurstEvent& event : wire.table().events()) {
    order.emplace_back(event.cycle, event.moment);
  }
  EXPECT_EQ(order,
            (std::vector<std::pair<std::int32_t, BurstMoment>>{{10, BurstMoment::kSendOpens},
                                                               {10, BurstMoment::kReceiveOpens},
                                                               {34, BurstMoment::kReceiveCloses},
                                                               {58, BurstMoment::kSendCloses}}));
}

}  // namespace
}  // namespace lpu::node
