#include "lpu/interconnect/in_process_transport.hpp"

#include <algorithm>
#include <string>

#include "lpu/interconnect/rank_exchange.hpp"
#include "lpu/node/error.hpp"

namespace lpu::interconnect {

/// Messages one behind the other: headers, and their value ids in one row.
///
/// A link mostly holds one message, so the room is used from the start again whenever the mailbox is empty: it stays in
/// cache, and nothing is allocated once the deepest backlog has been seen.
class InProcessTransport::Mailbox {
 public:
  void push(const node::MessageHeader& header, std::span<const std::uint64_t> values) {
    if (next_header_ * 2 > headers_.size() && headers_.size() == headers_.capacity()) {
      drop_taken();
    }
    headers_.push_back(header);
    values_.insert(values_.end(), values.begin(), values.end());
  }
  [[nodiscard]] node::MessageView front() const {
    if (next_header_ == headers_.size()) {
      return {};
    }
    return {.header = &headers_[next_header_], .values = &values_[next_value_]};
  }
  void pop() {
    LPU_CHECK(next_header_ < headers_.size(), "pop of an empty mailbox");
    next_value_ += static_cast<std::size_t>(headers_[next_header_++].length);
    if (next_header_ == headers_.size()) {
      headers_.clear();
      values_.clear();
      next_header_ = next_value_ = 0;
    }
  }
  void append_to(std::vector<StoredMessage>& out, std::int32_t link) const {
    const std::uint64_t* values = values_.data() + next_value_;
    for (std::size_t at = next_header_; at < headers_.size(); values += headers_[at++].length) {
      out.push_back({.link = link, .header = headers_[at], .values = {values, values + headers_[at].length}});
    }
  }

 private:
  /// A mailbox that is never empty would grow for ever.
  void drop_taken() {
    headers_.erase(headers_.begin(), headers_.begin() + static_cast<std::ptrdiff_t>(next_header_));
    values_.erase(values_.begin(), values_.begin() + static_cast<std::ptrdiff_t>(next_value_));
    next_header_ = next_value_ = 0;
  }

  std::vector<node::MessageHeader> headers_;
  std::vector<std::uint64_t> values_;
  std::size_t next_header_ = 0;
  std::size_t next_value_ = 0;
};

class InProcessTransport::ChipPort final : public node::Port {
 public:
  ChipPort(InProcessTransport& transport, const node::ChipBinding& binding)
      : transport_(&transport), mailboxes_(&transport.mailbox(binding.chip, 0)), peers_(binding.peers) {}

  void send(std::int32_t link, const node::MessageHeader& header, std::span<const std::uint64_t> values) override {
    transport_->deliver(peers_[static_cast<std::size_t>(link)], header, values);
  }
  [[nodiscard]] node::MessageView front(std::int32_t link) override { return mailboxes_[link].front(); }
  void pop(std::int32_t link) override { mailboxes_[link].pop(); }

 private:
  InProcessTransport* transport_;
  Mailbox* mailboxes_;  ///< of this chip, one per link
  std::vector<node::LinkPeer> peers_;
};

InProcessTransport::InProcessTransport(std::span<const node::ChipBinding> bindings,
                                       ChipPlacement placement,
                                       RankExchange* exchange)
    : placement_(std::move(placement)), exchange_(exchange) {
  for (const node::ChipBinding& binding : bindings) {
    links_ = std::max(links_, binding.peers.size());
  }
  links_ = std::max<std::size_t>(links_, 1);
  for (std::size_t chip = 0; chip < bindings.size(); ++chip) {
    const node::ChipBinding& binding = bindings[chip];
    const std::string where = "program: binding " + std::to_string(chip) + ": ";
    if (binding.chip != static_cast<std::int32_t>(chip)) {
      throw node::InputError(where + "chip: found " + std::to_string(binding.chip) + "; expected " +
                             std::to_string(chip));
    }
    for (std::size_t link = 0; link < binding.peers.size(); ++link) {
      const node::LinkPeer& peer = binding.peers[link];
      if (peer.chip >= static_cast<std::int32_t>(bindings.size()) ||
          (peer.chip >= 0 && (peer.link < 0 || peer.link >= static_cast<std::int32_t>(links_)))) {
        throw node::InputError(where + "peer of link " + std::to_string(link) + ": found chip " +
                               std::to_string(peer.chip) + ", link " + std::to_string(peer.link) +
                               "; expected a chip below " + std::to_string(bindings.size()) + " and a link below " +
                               std::to_string(links_));
      }
    }
  }
  std::int32_t here = 0;
  for (const node::ChipBinding& binding : bindings) {
    slots_.push_back(placement_.is_here(binding.chip) ? here++ : -1);
  }
  mailboxes_.resize(static_cast<std::size_t>(here) * links_);
  for (const node::ChipBinding& binding : bindings) {
    ports_.push_back(placement_.is_here(binding.chip) ? std::make_unique<ChipPort>(*this, binding) : nullptr);
  }
}

InProcessTransport::~InProcessTransport() = default;

node::Port& InProcessTransport::port(std::int32_t chip) {
  return *ports_[static_cast<std::size_t>(chip)];
}

InProcessTransport::Mailbox& InProcessTransport::mailbox(std::int32_t chip, std::int32_t link) {
  const auto slot = static_cast<std::size_t>(slots_[static_cast<std::size_t>(chip)]);
  return mailboxes_[slot * links_ + static_cast<std::size_t>(link)];
}

std::vector<StoredMessage> InProcessTransport::stored(std::int32_t chip) const {
  std::vector<StoredMessage> out;
  const auto slot = static_cast<std::size_t>(slots_[static_cast<std::size_t>(chip)]);
  for (std::size_t link = 0; link < links_; ++link) {
    mailboxes_[slot * links_ + link].append_to(out, static_cast<std::int32_t>(link));
  }
  return out;
}

void InProcessTransport::deliver(const node::LinkPeer& to,
                                 const node::MessageHeader& header,
                                 std::span<const std::uint64_t> values) {
  const Delivery end{.chip = to.chip, .link = to.link};
  if (tamperer_) {
    deliver_tampered(end, header, values);
  } else {
    carry(end, header, values);
  }
}

void InProcessTransport::carry(const Delivery& to,
                               const node::MessageHeader& header,
                               std::span<const std::uint64_t> values) {
  if (placement_.is_here(to.chip)) {
    ++messages_;
    mailbox(to.chip, to.link).push(header, values);
    deliveries_.push_back(to);
    return;
  }
  const std::int32_t rank = placement_.rank_of[static_cast<std::size_t>(to.chip)];
  if (rank >= 0) {  // an idle chip takes nothing
    exchange_->send(rank, to, header, values);
  }
}

bool InProcessTransport::accept(const Delivery& to,
                                const node::MessageHeader& header,
                                std::span<const std::uint64_t> values) {
  const bool is_known = to.chip >= 0 && to.chip < static_cast<std::int32_t>(slots_.size()) && to.link >= 0 &&
                        to.link < static_cast<std::int32_t>(links_) && slots_[static_cast<std::size_t>(to.chip)] >= 0;
  if (is_known) {
    mailbox(to.chip, to.link).push(header, values);
    deliveries_.push_back(to);
  }
  return is_known;
}

void InProcessTransport::deliver_tampered(const Delivery& to,
                                          const node::MessageHeader& header,
                                          std::span<const std::uint64_t> values) {
  node::MessageHeader changed = header;
  std::vector<std::uint64_t> changed_values(values.begin(), values.end());
  const std::pair end{to.chip, to.link};
  const Tampering tampering = tamperer_(to, changed, changed_values);
  if (tampering == Tampering::kHoldBack) {
    held_back_[end] = {changed, std::move(changed_values)};
  }
  if (tampering != Tampering::kDeliver) {
    return;
  }
  carry(to, changed, changed_values);
  if (const auto held = held_back_.find(end); held != held_back_.end()) {
    carry(to, held->second.first, held->second.second);
    held_back_.erase(held);
  }
}

}  // namespace lpu::interconnect
