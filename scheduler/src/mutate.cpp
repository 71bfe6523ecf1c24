#include "lpu/scheduler/mutate.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <memory>
#include <optional>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/suggestion.hpp"
#include "lpu/scheduler/inspect.hpp"
#include "mutate_kinds.hpp"
#include "selection.hpp"

namespace lpu::scheduler {
namespace {

using node::Instruction;
using node::Opcode;
using node::Unit;

/// Views of a program's texts, each made when it is first asked for.
class Views {
 public:
  explicit Views(const ClusterProgram& program) : program_(&program), views_(program.texts.size()) {}
  [[nodiscard]] const TextView& of(std::int32_t text) {
    auto& view = views_[static_cast<std::size_t>(text)];
    if (!view) {
      view = std::make_unique<TextView>(*program_, program_->texts[static_cast<std::size_t>(text)]);
    }
    return *view;
  }

 private:
  const ClusterProgram* program_;
  std::vector<std::unique_ptr<TextView>> views_;
};

void set_chip(Planted& planted, std::int32_t chip) {
  const auto set = [chip](FaultSite& site) { site.chip = site.chip < 0 ? chip : site.chip; };
  set(planted.site);
  std::ranges::for_each(planted.witnesses, set);
}

std::optional<Mutant> plant_in_text(const ClusterProgram& program, Views& views, const TextKind& kind, Draw& draw) {
  std::vector<bool> has_failed(program.texts.size(), false);
  for (const std::int32_t chip : draw.round(static_cast<std::int32_t>(program.bindings.size()))) {
    const std::int32_t text = program.bindings[static_cast<std::size_t>(chip)].text;
    if (text < 0 || has_failed[static_cast<std::size_t>(text)]) {
      continue;
    }
    const Ground ground{.program = program, .chip = chip, .view = views.of(text)};
    const auto change = kind.find(ground, draw);
    if (!change) {
      has_failed[static_cast<std::size_t>(text)] = true;
      continue;
    }
    Mutant mutant{.program = with_own_texts(program, std::array{chip}), .planted = {}};
    const auto own = static_cast<std::size_t>(mutant.program.bindings[static_cast<std::size_t>(chip)].text);
    TextEditor editor(program, mutant.program.texts[own]);
    (*change)(editor, mutant.planted);
    set_chip(mutant.planted, chip);
    return mutant;
  }
  return std::nullopt;
}

/// Cycles in which a queue's unit is taken: a plane's install, compute or drain, an ALU, a link's send or receive, a
/// slice's read or write port.
using UnitKey = std::array<std::int32_t, 4>;
[[nodiscard]] std::map<UnitKey, std::vector<std::int64_t>> unit_cycles(const TextView& view) {
  std::map<UnitKey, std::vector<std::int64_t>> cycles;
  for (std::int32_t number = 0; number < view.size(); ++number) {
    const Instruction& instruction = view.at(number);
    if (view.unit(number) == Unit::kSxm || instruction.base_register != 0) {
      continue;
    }
    const bool is_vxm = view.unit(number) == Unit::kVxm;
    for_each_instance(instruction, view.chip(), [&](const Instance& instance) {
      cycles[{static_cast<std::int32_t>(view.unit(number)),
              is_vxm ? -1 : static_cast<std::int32_t>(instruction.opcode),
              is_vxm ? -1 : static_cast<std::int32_t>(instruction.hemisphere),
              instance.unit}]
          .push_back(instance.cycle);
    });
  }
  return cycles;
}

/// The interval becomes the distance of two issues of one unit: iterations that far apart meet there.
std::optional<Mutant> plant_interval(const ClusterProgram& program, Views& views, Draw& draw) {
  if (program.user_slots < 2 * program.plan.micro_batch) {
    return std::nullopt;  // no second micro-batch that could start one interval later
  }
  for (const std::int32_t chip : draw.round(static_cast<std::int32_t>(program.bindings.size()))) {
    const std::int32_t text = program.bindings[static_cast<std::size_t>(chip)].text;
    if (text < 0) {
      continue;
    }
    std::vector<std::pair<std::int64_t, UnitKey>> intervals;
    for (auto& [unit, cycles] : unit_cycles(views.of(text))) {
      const auto [first, last] = std::ranges::minmax(cycles);
      if (first < last && last - first < program.plan.initiation_interval) {
        intervals.emplace_back(last - first, unit);
      }
    }
    if (intervals.empty()) {
      continue;
    }
    // Of the longer half, so that most of the program still keeps its distance.
    std::ranges::sort(intervals);
    const std::size_t half = intervals.size() / 2;
    const auto [interval, unit] = intervals[half + draw.below(intervals.size() - half)];
    Mutant mutant{.program = program, .planted = {}};
    mutant.program.plan.initiation_interval = interval;
    mutant.program.initiation_interval = interval;
    mutant.planted.site = {};
    mutant.planted.description = "initiation interval " + std::to_string(interval) + " instead of " +
                                 std::to_string(program.plan.initiation_interval) + ": two uses of one unit of chip " +
                                 std::to_string(chip) + " are so far apart";
    return mutant;
  }
  return std::nullopt;
}

/// A send of one chip, the receive of another that takes its vectors, and the same the other way round.
struct Ring {
  std::int32_t chips[2] = {-1, -1};
  std::int32_t sends[2] = {-1, -1};     ///< of each chip, to the other
  std::int32_t receives[2] = {-1, -1};  ///< of each chip, from the other
};

[[nodiscard]] std::int32_t find_c2c(const TextView& view,
                                    Opcode opcode,
                                    std::int32_t link,
                                    const node::Transfer* transfer) {
  for (std::int32_t number = 0; number < view.size(); ++number) {
    const Instruction& instruction = view.at(number);
    if (instruction.opcode != opcode || !has_link(instruction, link)) {
      continue;
    }
    const node::Transfer& own = view.text().transfers[instruction.transfer];
    if (transfer == nullptr || (own.name == transfer->name)) {
      return number;
    }
  }
  return -1;
}

[[nodiscard]] const node::Transfer* transfer_of(const TextView& view, std::int32_t number) {
  return &view.text().transfers[view.at(number).transfer];
}

/// Exchanges between a chip and its peer over one link of the chip, if both send and take on the wires between them.
[[nodiscard]] std::optional<Ring> find_ring(
    const ClusterProgram& program, Views& views, std::int32_t chip, std::int32_t receive, std::int32_t link) {
  const node::ChipBinding& here = program.bindings[static_cast<std::size_t>(chip)];
  const node::LinkPeer peer = here.peers[static_cast<std::size_t>(link)];
  if (peer.chip < 0 || peer.chip == chip || program.bindings[static_cast<std::size_t>(peer.chip)].text < 0) {
    return std::nullopt;
  }
  const node::ChipBinding& there = program.bindings[static_cast<std::size_t>(peer.chip)];
  const TextView& own = views.of(here.text);
  const TextView& other = views.of(there.text);
  const std::int32_t other_send = find_c2c(other, Opcode::kSend, peer.link, transfer_of(own, receive));
  if (other_send < 0) {
    return std::nullopt;
  }
  for (std::size_t back = 0; back < there.peers.size(); ++back) {
    if (there.peers[back].chip != chip) {
      continue;
    }
    const std::int32_t other_receive = find_c2c(other, Opcode::kReceive, static_cast<std::int32_t>(back), nullptr);
    if (other_receive < 0) {
      continue;
    }
    const std::int32_t send = find_c2c(own, Opcode::kSend, there.peers[back].link, transfer_of(other, other_receive));
    if (send >= 0 && own.at(send).start <= own.at(receive).start &&
        other.at(other_send).start <= other.at(other_receive).start) {
      return Ring{.chips = {chip, peer.chip}, .sends = {send, other_send}, .receives = {receive, other_receive}};
    }
  }
  return std::nullopt;
}

/// Each of two chips sends only after it has received from the other: neither receive can ever find its vector in time.
[[nodiscard]] Mutant close_ring(const ClusterProgram& program, Views& views, const Ring& ring) {
  Mutant mutant{.program = program, .planted = {}};
  ClusterProgram& out = mutant.program;
  const auto binding = [&out, &ring](std::size_t i) -> node::ChipBinding& {
    return out.bindings[static_cast<std::size_t>(ring.chips[i])];
  };
  const bool is_shared = binding(0).text == binding(1).text;
  out = with_own_texts(out, std::array{ring.chips[0]});
  if (is_shared) {
    const std::int32_t shared = binding(1).text;
    binding(1).text = binding(0).text;
    if (chips_of(out, shared).empty()) {  // nobody else had it: the copy takes its place
      out.texts[static_cast<std::size_t>(shared)] = std::move(out.texts.back());
      out.texts.pop_back();
      binding(0).text = binding(1).text = shared;
    }
  } else {
    out = with_own_texts(out, std::array{ring.chips[1]});
  }
  const auto move = [&](TextEditor& editor, std::size_t i) {
    const auto& instructions =
        program.texts[static_cast<std::size_t>(program.bindings[static_cast<std::size_t>(ring.chips[i])].text)]
            .instructions;
    Instruction send = instructions[static_cast<std::size_t>(ring.sends[i])];
    send.start = instructions[static_cast<std::size_t>(ring.receives[i])].start + 1;
    editor.replace(ring.sends[i], send);
  };
  const auto site = [&](const TextEditor& editor, std::size_t i) {
    const std::int32_t index = editor.index_of(ring.receives[i]);
    return FaultSite{
        .chip = ring.chips[i],
        .cycle =
            out.texts[static_cast<std::size_t>(binding(i).text)].instructions[static_cast<std::size_t>(index)].start,
        .instruction = index};
  };
  TextEditor first(program, out.texts[static_cast<std::size_t>(binding(0).text)]);
  move(first, 0);
  if (is_shared) {
    if (ring.sends[1] != ring.sends[0]) {
      move(first, 1);
    }
    mutant.planted.witnesses = {site(first, 1)};
  } else {
    TextEditor second(program, out.texts[static_cast<std::size_t>(binding(1).text)]);
    move(second, 1);
    mutant.planted.witnesses = {site(second, 1)};
  }
  mutant.planted.site = site(first, 0);
  // Whoever else takes what these sends carry gets it late.
  for (const std::size_t i : {0U, 1U}) {
    const TextView& view = views.of(program.bindings[static_cast<std::size_t>(ring.chips[i])].text);
    for (const std::size_t j : {0U, 1U}) {
      if (i == j || is_shared) {
        const Ground ground{.program = program, .chip = ring.chips[i], .view = view};
        for (const FaultSite& end : other_ends(ground, view.at(ring.sends[j]))) {
          mutant.planted.witnesses.push_back(end);
        }
      }
    }
  }
  mutant.planted.description = "chips " + std::to_string(ring.chips[0]) + " and " + std::to_string(ring.chips[1]) +
                               " each send only after they have received from the other";
  return mutant;
}

std::optional<Mutant> plant_ring(const ClusterProgram& program, Views& views, Draw& draw) {
  for (const std::int32_t chip : draw.round(static_cast<std::int32_t>(program.bindings.size()))) {
    const std::int32_t text = program.bindings[static_cast<std::size_t>(chip)].text;
    if (text < 0) {
      continue;
    }
    const TextView& view = views.of(text);
    for (const std::int32_t number : draw.round(view.size())) {
      const Instruction& receive = view.at(number);
      if (receive.opcode != Opcode::kReceive) {
        continue;
      }
      for (std::int32_t i = 0; i < receive.count[2]; ++i) {
        const std::int32_t link = receive.index + i * receive.index_stride[2];
        if (const auto ring = find_ring(program, views, chip, number, link)) {
          return close_ring(program, views, *ring);
        }
      }
    }
  }
  return std::nullopt;
}

/// Where a chip reads by a user's token: the first read of an iteration, and the last write of the token in it.
struct TokenLoop {
  std::int64_t read = 0;
  std::int64_t write = 0;
  std::int32_t reader = -1;
  std::int32_t writer = -1;
};

/// One loop for each read of a text by a token that the text writes.
[[nodiscard]] std::vector<TokenLoop> token_loops(const TextView& view) {
  const node::ChipProgram& text = view.text();
  std::map<std::int64_t, std::pair<std::int64_t, std::int32_t>> writes;  // last one of each user
  std::vector<TokenLoop> loops;
  for (std::int32_t number = 0; number < view.size(); ++number) {
    const Instruction& in = view.at(number);
    const node::StreamOperand& operand = in.operands[0];
    if (in.opcode == Opcode::kWrite && text.tensors[operand.tensor].name == node::kTokenTensor) {
      for_each_instance(in, view.chip(), [&](const Instance& instance) {
        std::int64_t user = operand.row;
        for (std::size_t l = 0; l < 3; ++l) {
          user += std::int64_t{instance.i[l]} * operand.row_stride[l];
        }
        auto& last = writes[user];
        last = std::max(last, {instance.cycle, number});
      });
    }
  }
  for (std::int32_t number = 0; number < view.size(); ++number) {
    const Instruction& in = view.at(number);
    const node::BaseRegister& base = text.registers[in.base_register];
    const auto write = writes.find(base.user_in_batch);
    if (in.opcode != Opcode::kRead || base.kind != node::RegisterKind::kToken || write == writes.end()) {
      continue;
    }
    std::int64_t first = std::numeric_limits<std::int64_t>::max();
    const std::int32_t step = in.operands[0].direction == node::Direction::kOutward ? 1 : -1;
    for_each_instance(in, view.chip(), [&](const Instance& instance) {
      for (const node::Displacement& piece : base.table) {
        const std::int32_t moved =
            view.chip().slice_position(instance.unit + piece.slice) - view.chip().slice_position(instance.unit);
        first = std::min(first, instance.cycle + step * moved);
      }
    });
    loops.push_back({.read = first, .write = write->second.first, .reader = number, .writer = write->second.second});
  }
  return loops;
}

/// A token latency with which a user's next iteration reads by the token before its row is settled. Nothing is at work
/// later than the last token's write, so all else still keeps to the shorter latency.
std::optional<Mutant> plant_token_early(const ClusterProgram& program, Views& views, Draw& draw) {
  const std::int64_t settle = program.chip.instruction_propagation.count() + 1;
  std::int64_t least = program.plan.initiation_interval;  // shortest latency that counts and covers every token's write
  std::int64_t enough = 0;                                // latency that lets every read be in time
  for (const node::ChipBinding& binding : program.bindings) {
    for (const TokenLoop& loop : binding.text < 0 ? std::vector<TokenLoop>{} : token_loops(views.of(binding.text))) {
      least = std::max(least, binding.offset + loop.write + 1);
      enough = std::max(enough, loop.write + settle - loop.read);
    }
  }
  if (least >= enough) {
    return std::nullopt;
  }
  const std::int64_t latency = least + static_cast<std::int64_t>(draw.below(static_cast<std::size_t>(enough - least)));
  Mutant mutant{.program = program, .planted = {}};
  mutant.program.token_latency = latency;
  mutant.program.busy_span = std::min(program.busy_span, latency);
  std::vector<FaultSite> sites;
  for (const node::ChipBinding& binding : program.bindings) {
    if (binding.text < 0) {
      continue;
    }
    std::int32_t& makespan = mutant.program.texts[static_cast<std::size_t>(binding.text)].makespan;
    makespan = static_cast<std::int32_t>(std::min<std::int64_t>(makespan, latency - binding.offset));
    for (const TokenLoop& loop : token_loops(views.of(binding.text))) {
      if (latency + loop.read < loop.write + settle) {
        sites.push_back({.chip = binding.chip, .cycle = loop.read, .instruction = loop.reader});
      }
    }
  }
  mutant.planted.site = sites.front();
  mutant.planted.witnesses.assign(sites.begin() + 1, sites.end());
  mutant.planted.description = "token latency " + std::to_string(latency) + " instead of " +
                               std::to_string(program.token_latency) + ": chip " + std::to_string(sites.front().chip) +
                               " reads by a token that is not settled";
  return mutant;
}

constexpr MutationKind kInterval{"interval-too-small", "iterations start so close that they meet on a unit"};
constexpr MutationKind kTokenEarly{"token-early", "the next iteration reads by a token before its row is settled"};
constexpr MutationKind kRing{"circular-wait", "two chips each wait for the other's message before they send"};

/// All kinds; what edits one text, then what does not.
[[nodiscard]] const std::vector<TextKind>& text_kinds() {
  static const std::vector<TextKind> kAll = [] {
    std::vector<TextKind> all;
    for (const auto& kinds : {slot_kinds(), unit_kinds(), memory_kinds(), wire_kinds()}) {
      all.insert(all.end(), kinds.begin(), kinds.end());
    }
    return all;
  }();
  return kAll;
}

std::optional<Mutant> plant(const ClusterProgram& program, Views& views, std::string_view kind, std::uint64_t seed) {
  Draw draw(node::fold(node::digest_text(kind), seed));
  std::optional<Mutant> mutant;
  if (kind == kInterval.name) {
    mutant = plant_interval(program, views, draw);
  } else if (kind == kTokenEarly.name) {
    mutant = plant_token_early(program, views, draw);
  } else if (kind == kRing.name) {
    mutant = plant_ring(program, views, draw);
  } else {
    const auto found = std::ranges::find(text_kinds(), kind, [](const TextKind& one) { return one.kind.name; });
    mutant = plant_in_text(program, views, *found, draw);
  }
  if (mutant) {
    mutant->planted.kind = kind;
  }
  return mutant;
}

}  // namespace

std::span<const MutationKind> mutation_table() {
  static const std::vector<MutationKind> kAll = [] {
    std::vector<MutationKind> all;
    for (const TextKind& one : text_kinds()) {
      all.push_back(one.kind);
    }
    all.push_back(kInterval);
    all.push_back(kTokenEarly);
    all.push_back(kRing);
    return all;
  }();
  return kAll;
}

Mutant mutate(const ClusterProgram& program, std::string_view kind, std::uint64_t seed) {
  std::vector<std::string> known;
  for (const MutationKind& one : mutation_table()) {
    known.emplace_back(one.name);
  }
  if (std::ranges::find(known, kind) == known.end()) {
    throw node::InputError("--kind: found \"" + std::string(kind) + "\"; expected a kind of mutation" +
                           node::known_values(kind, known));
  }
  Views views(program);
  auto mutant = plant(program, views, kind, seed);
  if (!mutant) {
    throw node::InputError("--kind: found \"" + std::string(kind) +
                           "\", which does not apply to this program; expected one that mutate --list says applies");
  }
  return std::move(*mutant);
}

std::vector<MutationOffer> list_mutations() {
  std::vector<MutationOffer> offers;
  for (const MutationKind& one : mutation_table()) {
    offers.push_back({.name = one.name, .doc = one.doc, .applies = true});
  }
  return offers;
}

std::vector<MutationOffer> list_mutations(const ClusterProgram& program) {
  std::vector<MutationOffer> offers = list_mutations();
  Views views(program);
  for (MutationOffer& offer : offers) {
    offer.applies = plant(program, views, offer.name, 0).has_value();
  }
  return offers;
}

}  // namespace lpu::scheduler
