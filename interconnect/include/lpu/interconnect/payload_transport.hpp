#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "lpu/interconnect/rank_receiver.hpp"
#include "lpu/node/numeric_chip.hpp"
#include "lpu/node/program.hpp"

namespace lpu::interconnect {

class RankExchange;

/// For tests: may change a vector on its way to a link end.
/// @return false: the vector is lost
using PayloadTamperer = std::function<bool(Delivery to, std::span<std::byte> vector)>;

/// Carries the numeric plane's vectors to and from the chips of one process; what they send to chips of other ranks
/// goes to an exchange.
///
/// One queue of bytes per link end, first in, first out. Who received something is recorded, so that a runner wakes
/// only those. Never blocks.
class PayloadTransport final : public RankReceiver {
 public:
  /// @param bindings   of all chips, in chip order; must outlive the transport
  /// @param placement  names a rank for each chip at work
  /// @param exchange   nullptr where all chips are here; must outlive the transport
  PayloadTransport(std::span<const node::ChipBinding> bindings, ChipPlacement placement, RankExchange* exchange);
  ~PayloadTransport() override;
  PayloadTransport(const PayloadTransport&) = delete;
  PayloadTransport& operator=(const PayloadTransport&) = delete;
  PayloadTransport(PayloadTransport&&) = delete;
  PayloadTransport& operator=(PayloadTransport&&) = delete;

  /// Its send() throws node::ScheduleViolation over a link that leads to no chip at work.
  /// @pre the chip is here
  [[nodiscard]] node::PayloadPort& port(std::int32_t chip);

  [[nodiscard]] bool accept_vector(const Delivery& to, std::span<const std::byte> vector) override;
  [[nodiscard]] bool accept_note(std::span<const std::byte> note) override;
  /// The oldest note for this rank that nobody has taken.
  [[nodiscard]] std::optional<std::vector<std::byte>> next_note();

  /// Link ends that got a vector since the last call.
  [[nodiscard]] std::span<const Delivery> deliveries() const { return deliveries_; }
  void clear_deliveries() { deliveries_.clear(); }
  /// A link end with bytes that nobody took.
  [[nodiscard]] std::optional<Delivery> leftover() const;

  [[nodiscard]] std::int64_t vectors() const { return vectors_; }  ///< sent by chips that are here
  void set_tamperer(PayloadTamperer tamperer) { tamperer_ = std::move(tamperer); }

 private:
  class ChipPort;

  void carry(const node::ChipBinding& from, std::int32_t link, std::span<const std::byte> vector);

  ChipPlacement placement_;
  RankExchange* exchange_;
  std::vector<std::unique_ptr<ChipPort>> ports_;  ///< per chip; none: it is elsewhere, or idle
  std::vector<Delivery> deliveries_;
  std::deque<std::vector<std::byte>> notes_;
  PayloadTamperer tamperer_;
  std::vector<std::byte> tampered_;
  std::int64_t vectors_ = 0;
};

}  // namespace lpu::interconnect
