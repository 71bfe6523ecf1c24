#include "lpu/interconnect/payload_transport.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "lpu/interconnect/rank_exchange.hpp"
#include "lpu/node/error.hpp"

namespace lpu::interconnect {

namespace {

/// Bytes, first in, first out. It takes no room before the first one.
class ByteQueue {
 public:
  [[nodiscard]] std::size_t size() const { return bytes_.size() - taken_; }
  void push(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  /// @pre as many are there
  void pop(std::span<std::byte> bytes) {
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(taken_), bytes.size(), bytes.begin());
    taken_ += bytes.size();
    if (taken_ == bytes_.size()) {
      *this = {};  // gives the room back
    } else if (2 * taken_ > bytes_.size()) {
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(taken_));
      taken_ = 0;
    }
  }

 private:
  std::vector<std::byte> bytes_;
  std::size_t taken_ = 0;  ///< of them
};

}  // namespace

class PayloadTransport::ChipPort final : public node::PayloadPort {
 public:
  ChipPort(PayloadTransport& transport, const node::ChipBinding& binding)
      : transport_(&transport), binding_(&binding), queues_(binding.peers.size()) {}

  void send(std::int32_t link, std::span<const std::byte> vector) override {
    transport_->carry(*binding_, link, vector);
  }
  [[nodiscard]] bool has_vector(std::int32_t link) const override {
    return queues_[static_cast<std::size_t>(link)].size() > 0;
  }
  [[nodiscard]] bool receive(std::int32_t link, std::span<std::byte> vector) override {
    ByteQueue& queue = queues_[static_cast<std::size_t>(link)];
    if (queue.size() < vector.size()) {
      return false;
    }
    queue.pop(vector);
    return true;
  }
  /// @return false: there is no such link
  [[nodiscard]] bool push(std::int32_t link, std::span<const std::byte> vector) {
    if (link < 0 || static_cast<std::size_t>(link) >= queues_.size()) {
      return false;
    }
    queues_[static_cast<std::size_t>(link)].push(vector);
    return true;
  }
  [[nodiscard]] std::optional<Delivery> leftover() const {
    const auto found = std::find_if(queues_.begin(), queues_.end(), [](const auto& queue) { return queue.size() > 0; });
    if (found == queues_.end()) {
      return std::nullopt;
    }
    return Delivery{.chip = binding_->chip, .link = static_cast<std::int32_t>(found - queues_.begin())};
  }

 private:
  PayloadTransport* transport_;
  const node::ChipBinding* binding_;
  std::vector<ByteQueue> queues_;  ///< per link
};

PayloadTransport::PayloadTransport(std::span<const node::ChipBinding> bindings,
                                   ChipPlacement placement,
                                   RankExchange* exchange)
    : placement_(std::move(placement)), exchange_(exchange) {
  for (const node::ChipBinding& binding : bindings) {
    ports_.push_back(placement_.is_here(binding.chip) ? std::make_unique<ChipPort>(*this, binding) : nullptr);
  }
}

PayloadTransport::~PayloadTransport() = default;

node::PayloadPort& PayloadTransport::port(std::int32_t chip) {
  return *ports_[static_cast<std::size_t>(chip)];
}

void PayloadTransport::carry(const node::ChipBinding& from, std::int32_t link, std::span<const std::byte> vector) {
  const node::LinkPeer& peer = from.peers[static_cast<std::size_t>(link)];
  const std::int32_t rank = peer.chip < 0 ? -1 : placement_.rank_of[static_cast<std::size_t>(peer.chip)];
  if (rank < 0) {
    throw node::ScheduleViolation(
        {.chip = from.chip, .reason = "sends over link " + std::to_string(link) + ", which leads to no chip at work"});
  }
  ++vectors_;
  const Delivery to{.chip = peer.chip, .link = peer.link};
  if (tamperer_) {
    tampered_.assign(vector.begin(), vector.end());
    if (!tamperer_(to, tampered_)) {
      return;
    }
    vector = tampered_;
  }
  if (rank != placement_.rank) {
    exchange_->send_vector(rank, to, vector);
  } else if (!accept_vector(to, vector)) {
    throw node::ScheduleViolation({.chip = from.chip,
                                   .reason = "sends over link " + std::to_string(link) + ", which leads to link " +
                                             std::to_string(to.link) + " of chip " + std::to_string(to.chip)});
  }
}

bool PayloadTransport::accept_vector(const Delivery& to, std::span<const std::byte> vector) {
  const bool is_known = to.chip >= 0 && static_cast<std::size_t>(to.chip) < ports_.size() &&
                        ports_[static_cast<std::size_t>(to.chip)] &&
                        ports_[static_cast<std::size_t>(to.chip)]->push(to.link, vector);
  if (is_known) {
    deliveries_.push_back(to);
  }
  return is_known;
}

bool PayloadTransport::accept_note(std::span<const std::byte> note) {
  notes_.emplace_back(note.begin(), note.end());
  return true;
}

std::optional<std::vector<std::byte>> PayloadTransport::next_note() {
  if (notes_.empty()) {
    return std::nullopt;
  }
  std::vector<std::byte> out = std::move(notes_.front());
  notes_.pop_front();
  return out;
}

std::optional<Delivery> PayloadTransport::leftover() const {
  for (const auto& port : ports_) {
    if (const auto left = port ? port->leftover() : std::nullopt) {
      return left;
    }
  }
  return std::nullopt;
}

}  // namespace lpu::interconnect
