#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "lpu/interconnect/rank_receiver.hpp"
#include "lpu/node/port.hpp"
#include "lpu/node/program.hpp"

namespace lpu::interconnect {

/// What the wires do to a message, for tests that need faulty ones.
enum class Tampering : std::uint8_t {
  kDeliver,   ///< as it is, or as the tamperer left it
  kHoldBack,  ///< behind the next message of the same link
  kLose,      ///< never
};
/// @param to  the receiving link end; header and values may be changed
using Tamperer = std::function<Tampering(Delivery to, node::MessageHeader& header, std::span<std::uint64_t> values)>;

/// A message that came and was not popped.
struct StoredMessage {
  std::int32_t link = 0;
  node::MessageHeader header;
  std::vector<std::uint64_t> values;
};

class RankExchange;

/// Carries messages to and from the chips of one process; what they send to chips of other ranks goes to an exchange.
///
/// One mailbox per link end, first in, first out; its slots are used again, so that a long run allocates nothing once
/// the deepest backlog has been seen. Who received something is recorded, so that a runner wakes only those.
class InProcessTransport final : public RankReceiver {
 public:
  /// @param bindings  of all chips, in chip order
  /// @param exchange  nullptr where all chips are here; must outlive the transport
  /// @throws node::InputError  a link whose far end is not a chip and link of the cluster
  explicit InProcessTransport(std::span<const node::ChipBinding> bindings,
                              ChipPlacement placement = {},
                              RankExchange* exchange = nullptr);
  ~InProcessTransport() override;
  InProcessTransport(const InProcessTransport&) = delete;
  InProcessTransport& operator=(const InProcessTransport&) = delete;
  InProcessTransport(InProcessTransport&&) = delete;
  InProcessTransport& operator=(InProcessTransport&&) = delete;

  /// @pre the chip is here
  [[nodiscard]] node::Port& port(std::int32_t chip);
  /// Takes a message that another rank sent.
  /// @return false: the link end is not one of a chip that is here
  [[nodiscard]] bool accept(const Delivery& to,
                            const node::MessageHeader& header,
                            std::span<const std::uint64_t> values) override;
  /// What lies in the mailboxes of a chip, by link, in the order in which it came; accept() puts it back.
  /// @pre the chip is here
  [[nodiscard]] std::vector<StoredMessage> stored(std::int32_t chip) const;
  /// Link ends that got a message since the last call.
  [[nodiscard]] std::span<const Delivery> deliveries() const { return deliveries_; }
  void clear_deliveries() { deliveries_.clear(); }

  /// Between chips that are both here.
  [[nodiscard]] std::int64_t messages() const { return messages_; }

  void set_tamperer(Tamperer tamperer) { tamperer_ = std::move(tamperer); }

 private:
  class Mailbox;
  class ChipPort;

  void deliver(const node::LinkPeer& to, const node::MessageHeader& header, std::span<const std::uint64_t> values);
  void carry(const Delivery& to, const node::MessageHeader& header, std::span<const std::uint64_t> values);
  void deliver_tampered(const Delivery& to, const node::MessageHeader& header, std::span<const std::uint64_t> values);
  [[nodiscard]] Mailbox& mailbox(std::int32_t chip, std::int32_t link);

  std::size_t links_ = 0;  ///< per chip
  ChipPlacement placement_;
  RankExchange* exchange_;
  std::vector<std::int32_t> slots_;               ///< per chip: which of the chips that are here; -1: none
  std::vector<Mailbox> mailboxes_;                ///< per chip that is here, one per link
  std::vector<std::unique_ptr<ChipPort>> ports_;  ///< per chip; none: it is elsewhere
  std::vector<Delivery> deliveries_;
  Tamperer tamperer_;
  /// Messages kept behind the next one of their link end (chip, link).
  std::map<std::pair<std::int32_t, std::int32_t>, std::pair<node::MessageHeader, std::vector<std::uint64_t>>>
      held_back_;
  std::int64_t messages_ = 0;
};

}  // namespace lpu::interconnect
