#include <algorithm>
#include <map>
#include <vector>

#include "verify_links.hpp"

namespace lpu::scheduler::proof {
namespace {

/// One vector's way: sent in a cycle of one chip, taken in a cycle of another; cycles of the cluster.
struct Way {
  std::int32_t from = 0;
  std::int64_t sent = 0;
  std::int32_t send = 0;
  std::int64_t taken = 0;
  std::int32_t receive = 0;
};

/// Why a chip must have got to a cycle: it sends there what another chip waits for.
struct Need {
  std::int64_t until = 0;
  Way way;                   ///< the vector sent
  std::int32_t waiting = 0;  ///< the chip that takes it
};

/// Follows waits back through the cluster: a receive waits for its send, a send comes after all earlier receives of its
/// chip. Kept per chip is how far it must have got; that only grows, so that each search ends.
class WaitChain {
 public:
  WaitChain(const ClusterProgram& program, const std::vector<const TextProof*>& texts)
      : program_(program), texts_(texts) {}

  std::string find(std::int32_t chip, std::int32_t receive) {
    std::vector<std::int32_t> open;
    Way start{.taken = -1};
    for (const Way& way : ways_to(chip)) {
      if (way.receive == receive && (start.taken < 0 || way.sent - way.taken > start.sent - start.taken)) {
        start = way;  // the vector that is latest against its receive
      }
    }
    if (start.taken < 0) {
      return {};
    }
    reach(start, chip, open);
    while (!open.empty()) {
      const std::int32_t at = open.back();
      open.pop_back();
      const std::int64_t until = needs_.at(at).until;
      if (at == chip && until > start.taken) {
        return describe(chip, start);
      }
      for (const Way& way : ways_to(at)) {
        if (way.taken < until) {
          reach(way, at, open);
        }
      }
    }
    return {};
  }

 private:
  void reach(const Way& way, std::int32_t waiting, std::vector<std::int32_t>& open) {
    auto [need, is_new] = needs_.try_emplace(way.from, Need{way.sent, way, waiting});
    if (is_new || way.sent > need->second.until) {
      need->second = {way.sent, way, waiting};
      open.push_back(way.from);
    }
  }

  const std::vector<Way>& ways_to(std::int32_t number) {
    auto [slot, is_new] = ways_.try_emplace(number);
    const node::ChipBinding& chip = binding(number);
    const TextProof* proof = proof_of(chip);
    if (!is_new || proof == nullptr) {
      return slot->second;
    }
    for (std::size_t link = 0; link < proof->links.size(); ++link) {
      const node::LinkPeer& peer = chip.peers[link];
      const TextProof* other = peer.chip < 0 || peer.link < 0 ? nullptr : proof_of(binding(peer.chip));
      if (other == nullptr) {
        continue;
      }
      const auto& receives = proof->links[link].receives;
      const auto& sends = other->links[static_cast<std::size_t>(peer.link)].sends;
      for (std::size_t i = 0; i < std::min(receives.size(), sends.size()); ++i) {
        slot->second.push_back({.from = peer.chip,
                                .sent = binding(peer.chip).offset + sends[i].cycle,
                                .send = sends[i].instruction,
                                .taken = chip.offset + receives[i].cycle,
                                .receive = receives[i].instruction});
      }
    }
    return slot->second;
  }

  [[nodiscard]] std::string describe(std::int32_t chip, const Way& start) const {
    std::string out = name(chip, start.receive, "receive", start.taken);
    std::vector<const Need*> chain;
    std::int32_t at = chip;
    do {
      chain.push_back(&needs_.at(at));
      at = chain.back()->waiting;
    } while (at != chip && chain.size() <= needs_.size());
    for (auto need = chain.rbegin(); need != chain.rend(); ++need) {
      const Way& way = (*need)->way;
      out += " waits for " + name(way.from, way.send, "send", way.sent);
      out += std::next(need) == chain.rend()
                 ? ", which comes after it"
                 : ", which comes after " +
                       name(way.from, (*std::next(need))->way.receive, "receive", (*std::next(need))->way.taken) +
                       ", which";
    }
    return out;
  }

  [[nodiscard]] std::string name(std::int32_t chip,
                                 std::int32_t instruction,
                                 const char* what,
                                 std::int64_t cycle) const {
    return "chip " + std::to_string(chip) + " instruction " + std::to_string(instruction) + " (" + what + ", cycle " +
           std::to_string(cycle - binding(chip).offset) + ")";
  }
  [[nodiscard]] const node::ChipBinding& binding(std::int32_t chip) const {
    return program_.bindings[static_cast<std::size_t>(chip)];
  }
  [[nodiscard]] const TextProof* proof_of(const node::ChipBinding& chip) const {
    return chip.text < 0 ? nullptr : texts_[static_cast<std::size_t>(chip.text)];
  }

  const ClusterProgram& program_;
  const std::vector<const TextProof*>& texts_;
  std::map<std::int32_t, std::vector<Way>> ways_;
  std::map<std::int32_t, Need> needs_;
};

}  // namespace

std::string find_circular_wait(const ClusterProgram& program,
                               const std::vector<const TextProof*>& texts,
                               std::int32_t chip,
                               std::int32_t receive) {
  return WaitChain(program, texts).find(chip, receive);
}

}  // namespace lpu::scheduler::proof
