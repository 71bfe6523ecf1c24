#include <algorithm>
#include <map>

#include "verify_links.hpp"

namespace lpu::scheduler::proof {
namespace {

using node::ChipBinding;
using node::Tensor;
using node::TensorOwner;

/// Names of all texts' tensors and transfers as numbers, so that comparing two chips' values compares integers.
class Names {
 public:
  explicit Names(const ClusterProgram& program) {
    std::map<std::string, std::int32_t> numbers;
    const auto number = [&](const std::string& name) {
      return numbers.try_emplace(name, static_cast<std::int32_t>(numbers.size())).first->second;
    };
    for (const ChipProgram& text : program.texts) {
      auto& tensors = tensors_.emplace_back();
      for (const Tensor& tensor : text.tensors) {
        tensors.push_back(number(tensor.name));
      }
      auto& transfers = transfers_.emplace_back();
      for (const node::Transfer& transfer : text.transfers) {
        transfers.push_back(number(transfer.name));
      }
    }
  }
  [[nodiscard]] std::int32_t tensor(std::int32_t text, std::uint16_t tensor) const {
    return tensors_[static_cast<std::size_t>(text)][tensor];
  }
  [[nodiscard]] std::int32_t transfer(std::int32_t text, std::uint16_t transfer) const {
    return transfers_[static_cast<std::size_t>(text)][transfer];
  }

 private:
  std::vector<std::vector<std::int32_t>> tensors_;
  std::vector<std::vector<std::int32_t>> transfers_;
};

/// One end of a link in the cluster.
struct End {
  const ChipBinding* chip = nullptr;
  std::int32_t link = 0;
  const TextProof* proof = nullptr;
};

/// What makes a value the same on two chips (node/identity.hpp), field by field.
struct Identity {
  std::int32_t name = 0;
  std::int64_t layer = 0;
  std::int64_t owner = -1;
  std::int64_t row = 0;
  node::TensorScope scope = node::TensorScope::kIteration;
  bool operator==(const Identity&) const = default;
};

class TransferProof {
 public:
  TransferProof(const ClusterProgram& program, const std::vector<const TextProof*>& texts, Findings& findings)
      : program_(program), texts_(texts), findings_(findings), names_(program) {}

  void run() {
    for (const ChipBinding& chip : program_.bindings) {
      for (std::int32_t link = 0; link < static_cast<std::int32_t>(chip.peers.size()) && !findings_.is_full(); ++link) {
        prove_link({&chip, link, proof_of(chip)});
      }
    }
  }

 private:
  static constexpr std::size_t kMostDiagnoses = 16;

  [[nodiscard]] const TextProof* proof_of(const ChipBinding& chip) const {
    return chip.text < 0 ? nullptr : texts_[static_cast<std::size_t>(chip.text)];
  }
  [[nodiscard]] static const LinkTraffic& traffic(const End& end) {
    static const LinkTraffic kNone;
    return end.proof == nullptr ? kNone : end.proof->links[static_cast<std::size_t>(end.link)];
  }
  [[nodiscard]] static std::string name(const End& end) {
    return "chip " + std::to_string(end.chip->chip) + " link " + std::to_string(end.link);
  }
  [[nodiscard]] static bool is_unproved(const End& end) { return end.proof == nullptr && end.chip->text >= 0; }

  void prove_link(const End& near) {
    const node::LinkPeer& peer = near.chip->peers[static_cast<std::size_t>(near.link)];
    const LinkTraffic& own = traffic(near);
    const LinkVector* first = !own.sends.empty()      ? &own.sends.front()
                              : !own.receives.empty() ? &own.receives.front()
                                                      : nullptr;
    const auto report = [&](const std::string& reason) {
      findings_.add_at(
          near.chip->chip, first != nullptr ? first->cycle : -1, first != nullptr ? first->instruction : -1, reason);
    };
    if (peer.chip < 0 || peer.link < 0) {
      if (first != nullptr) {
        report(std::string(own.sends.empty() ? "receives from" : "sends over") + " link " + std::to_string(near.link) +
               ", which is not wired");
      }
      return;
    }
    const ChipBinding& other = program_.bindings[static_cast<std::size_t>(peer.chip)];
    const End far{&other, peer.link, proof_of(other)};
    const bool is_idle = other.text < 0 && other.peers.empty();
    const bool is_mutual = is_idle || (static_cast<std::size_t>(peer.link) < other.peers.size() &&
                                       other.peers[static_cast<std::size_t>(peer.link)].chip == near.chip->chip &&
                                       other.peers[static_cast<std::size_t>(peer.link)].link == near.link);
    if (!is_mutual) {
      report("link " + std::to_string(near.link) + " is said to lead to the wrong peer: " + name(far) +
             ", which leads " + leads(other, peer.link));
      return;
    }
    if (is_unproved(near) || is_unproved(far)) {
      return;
    }
    prove_order(near, far);
  }

  [[nodiscard]] static std::string leads(const ChipBinding& chip, std::int32_t link) {
    if (static_cast<std::size_t>(link) >= chip.peers.size() || chip.peers[static_cast<std::size_t>(link)].chip < 0) {
      return "nowhere";
    }
    const node::LinkPeer& peer = chip.peers[static_cast<std::size_t>(link)];
    return "to chip " + std::to_string(peer.chip) + " link " + std::to_string(peer.link);
  }

  /// The i-th vector that `from` sends is the i-th that `to` receives.
  void prove_order(const End& from, const End& to) {
    const auto& sends = traffic(from).sends;
    const auto& receives = traffic(to).receives;
    const std::size_t both = std::min(sends.size(), receives.size());
    for (std::size_t i = 0; i < both; ++i) {
      if (!prove_pair(from, to, i)) {
        return;
      }
    }
    if (sends.size() > both) {
      findings_.add_at(from.chip->chip,
                       sends[both].cycle,
                       sends[both].instruction,
                       "sends " + describe(from, sends[both]) + " to " + name(to) + ", which receives only " +
                           std::to_string(both) + " vectors an iteration: missing receive, the vector is left over");
    } else if (receives.size() > both) {
      findings_.add_at(to.chip->chip,
                       receives[both].cycle,
                       receives[both].instruction,
                       "receives " + describe(to, receives[both]) + " from " + name(from) + ", which sends only " +
                           std::to_string(both) + " vectors an iteration: missing send");
    }
  }

  bool prove_pair(const End& from, const End& to, std::size_t i) {
    const LinkVector& send = traffic(from).sends[i];
    const LinkVector& receive = traffic(to).receives[i];
    const bool is_transfer =
        names_.transfer(from.chip->text, send.transfer) == names_.transfer(to.chip->text, receive.transfer);
    if (!is_transfer || !is_same_value(from, send, to, receive)) {
      findings_.add_at(to.chip->chip,
                       receive.cycle,
                       receive.instruction,
                       "expects " + describe(to, receive) + " as vector " + std::to_string(i) + " of link " +
                           std::to_string(to.link) + "; " + name(from) + " sends " + describe(from, send) + " (its " +
                           name_of(from.proof->facts, send.instruction) + ", cycle " + std::to_string(send.cycle) +
                           "; " + std::to_string(traffic(from).sends.size()) + " sends for " +
                           std::to_string(traffic(to).receives.size()) + " receives)");
      return false;
    }
    const std::int64_t arrival = from.chip->offset + send.link + program_.chip.link_latency().count() - to.chip->offset;
    if (arrival == receive.link) {
      return true;
    }
    std::string reason = "receives " + describe(to, receive) + " from " + name(from) + " after a wait of " +
                         std::to_string(receive.cycle - receive.link) + " cycles, so it should arrive in cycle " +
                         std::to_string(receive.link) + "; it arrives in cycle " + std::to_string(arrival) +
                         " (sent by " + name_of(from.proof->facts, send.instruction) + " in its cycle " +
                         std::to_string(send.cycle) + ")";
    if (arrival > receive.cycle && diagnoses_++ < kMostDiagnoses) {
      const std::string chain = find_circular_wait(program_, texts_, to.chip->chip, receive.instruction);
      reason += chain.empty() ? ", after it is taken" : "; circular wait: " + chain;
    }
    findings_.add_at(to.chip->chip, receive.cycle, receive.instruction, reason);
    return false;
  }

  [[nodiscard]] Identity identity(const End& end, const LinkVector& vector) const {
    const Tensor& tensor = end.proof->facts.text.tensors[vector.tensor];
    Identity out{.name = names_.tensor(end.chip->text, vector.tensor),
                 .layer = std::int64_t{end.chip->first_layer} + tensor.layer_slot,
                 .row = vector.row,
                 .scope = tensor.scope};
    if (tensor.owner == TensorOwner::kChip) {
      out.owner = end.chip->group_position;
    } else if (tensor.owner == TensorOwner::kGathered) {
      const auto slot = static_cast<std::size_t>(std::max<std::int64_t>(vector.row, 0) / tensor.rows_per_slot);
      out.owner = slot < end.chip->slot_owner.size() ? end.chip->slot_owner[slot] : -2;
      out.row = vector.row % tensor.rows_per_slot;
    }
    return out;
  }

  [[nodiscard]] bool is_same_value(const End& from,
                                   const LinkVector& send,
                                   const End& to,
                                   const LinkVector& receive) const {
    return identity(from, send) == identity(to, receive) &&
           from.proof->facts.registers[send.base_register].row_key ==
               to.proof->facts.registers[receive.base_register].row_key;
  }

  [[nodiscard]] std::string describe(const End& end, const LinkVector& vector) const {
    const Tensor& tensor = end.proof->facts.text.tensors[vector.tensor];
    const Identity value = identity(end, vector);
    std::string out = "'" + end.proof->facts.text.transfers[vector.transfer].name + "' ('" + tensor.name + "' layer " +
                      std::to_string(value.layer) + " row " + std::to_string(value.row);
    if (value.owner >= 0) {
      out += " of group position " + std::to_string(value.owner);
    }
    return out + ")";
  }

  const ClusterProgram& program_;
  const std::vector<const TextProof*>& texts_;
  Findings& findings_;
  Names names_;
  std::size_t diagnoses_ = 0;
};

}  // namespace

void prove_transfers(const ClusterProgram& program, const std::vector<const TextProof*>& texts, Findings& findings) {
  TransferProof(program, texts, findings).run();
}

}  // namespace lpu::scheduler::proof
