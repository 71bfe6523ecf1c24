// Kinds that break what two chips agree on: pushes, sends, receives, peers, lengths.

#include <algorithm>
#include <array>

#include "mutate_kinds.hpp"

namespace lpu::scheduler {
namespace {

using node::Instruction;
using node::Opcode;

[[nodiscard]] bool is_wired(const Ground& ground, const Instruction& instruction) {
  bool is_wired = true;
  for_each_link(instruction, [&](std::int32_t link) {
    is_wired = is_wired && ground.binding().peers[static_cast<std::size_t>(link)].chip >= 0;
  });
  return is_wired;
}

/// Two vectors pushed into one link in one cycle: a send over several links put on one of them, or a send done twice.
std::optional<Change> find_link(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  for (const bool may_insert : {false, true}) {
    for (const std::int32_t number : draw.round(view.size())) {
      Instruction edited = view.at(number);
      if (edited.opcode != Opcode::kSend) {
        continue;
      }
      const bool is_wide = edited.count[2] > 1 && edited.period[2] == 0 && edited.index_stride[2] != 0;
      const std::int64_t cycle = edited.start;
      const std::vector<FaultSite> ends = other_ends(ground, edited);
      const std::string where = "link " + std::to_string(edited.index) + " in cycle " + std::to_string(cycle);
      if (is_wide) {
        edited.index_stride[2] = 0;
        return
            [=, why = name_of(view, number) + ": all its vectors to " + where](TextEditor& editor, Planted& planted) {
              editor.replace(number, edited);
              planted.site = {.chip = -1, .cycle = cycle, .instruction = editor.index_of(number)};
              planted.witnesses = ends;
              planted.description = why;
            };
      }
      if (may_insert && can_insert(ground, edited)) {
        return [=, why = name_of(view, number) + " done twice: " + where](TextEditor& editor, Planted& planted) {
          const std::int32_t second = editor.insert(edited);
          planted.site = {.chip = -1, .cycle = cycle, .instruction = editor.index_of(second)};
          planted.witnesses = ends;
          planted.witnesses.push_back({.chip = -1, .cycle = cycle, .instruction = editor.index_of(number)});
          planted.description = why;
        };
      }
    }
  }
  return std::nullopt;
}

/// The other bursts that carry parts of the same transfer: what is missing of it may be counted at any of them.
[[nodiscard]] std::vector<std::int32_t> other_parts(const TextView& view, std::int32_t number) {
  std::vector<std::int32_t> out;
  for (std::int32_t i = 0; i < view.size(); ++i) {
    if (i != number && view.at(i).opcode == view.at(number).opcode && view.at(i).transfer == view.at(number).transfer) {
      out.push_back(i);
    }
  }
  return out;
}

void add_witnesses(Planted& planted, const TextEditor& editor, const std::vector<std::int32_t>& numbers) {
  for (const std::int32_t number : numbers) {
    planted.witnesses.push_back({.chip = -1, .cycle = -1, .instruction = editor.index_of(number)});
  }
}

[[nodiscard]] std::optional<Change> drop(const Ground& ground, Draw& draw, Opcode opcode) {
  const TextView& view = ground.view;
  for (const std::int32_t number : draw.round(view.size())) {
    const Instruction& instruction = view.at(number);
    if (instruction.opcode != opcode || !is_wired(ground, instruction)) {
      continue;
    }
    const std::vector<FaultSite> ends = other_ends(ground, instruction);
    const auto takers = view.consumers(number);
    const std::string why = name_of(view, number) + " of cycle " + std::to_string(instruction.start) + " removed";
    return [=, parts = other_parts(view, number)](TextEditor& editor, Planted& planted) {
      editor.erase(number);
      planted.site = {};
      planted.witnesses = ends;
      add_witnesses(planted, editor, parts);
      for (const auto& [taker, cycle] : takers) {
        planted.witnesses.push_back({.chip = -1, .cycle = cycle, .instruction = editor.index_of(taker)});
      }
      planted.description = why;
    };
  }
  return std::nullopt;
}

std::optional<Change> find_missing_send(const Ground& ground, Draw& draw) {
  return drop(ground, draw, Opcode::kSend);
}
std::optional<Change> find_missing_receive(const Ground& ground, Draw& draw) {
  return drop(ground, draw, Opcode::kReceive);
}

/// Links that a receive may be moved to: of the same hemisphere, wired to another chip, all of them on the chip.
[[nodiscard]] std::vector<std::int32_t> other_links(const Ground& ground, const Instruction& receive) {
  const node::ChipSpec& chip = ground.program.chip;
  std::vector<std::int32_t> moves;
  for (std::int32_t move = -chip.links(); move <= chip.links(); ++move) {
    bool fits = move != 0;
    for_each_link(receive, [&](std::int32_t link) {
      const std::int32_t moved = link + move;
      fits = fits && moved >= 0 && moved < chip.links() &&
             chip.link_hemisphere[static_cast<std::size_t>(moved)] ==
                 chip.link_hemisphere[static_cast<std::size_t>(link)] &&
             ground.binding().peers[static_cast<std::size_t>(moved)].chip >= 0 &&
             ground.binding().peers[static_cast<std::size_t>(moved)].chip !=
                 ground.binding().peers[static_cast<std::size_t>(link)].chip;
    });
    if (fits) {
      moves.push_back(move);
    }
  }
  return moves;
}

/// What the old link carries is then never taken, whatever the new one holds.
std::optional<Change> find_wrong_peer(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  for (const std::int32_t number : draw.round(view.size())) {
    Instruction edited = view.at(number);
    if (edited.opcode != Opcode::kReceive || !is_wired(ground, edited)) {
      continue;
    }
    std::vector<FaultSite> ends = other_ends(ground, edited);
    std::vector<std::int32_t> moves = other_links(ground, edited);
    if (moves.empty() && edited.count[2] > 1 && edited.index_stride[2] != 0) {
      // All links of the hemisphere are in use: the same ones in the other direction.
      edited.index = static_cast<std::uint8_t>(edited.index + (edited.count[2] - 1) * edited.index_stride[2]);
      edited.index_stride[2] = static_cast<std::int8_t>(-edited.index_stride[2]);
    } else if (!moves.empty()) {
      edited.index = static_cast<std::uint8_t>(edited.index + moves[draw.below(moves.size())]);
    } else {
      continue;
    }
    for (const FaultSite& end : other_ends(ground, edited)) {
      ends.push_back(end);
    }
    const std::string why = name_of(view, number) + " on link " + std::to_string(edited.index) + " instead of " +
                            std::to_string(view.at(number).index);
    return [=, parts = other_parts(view, number)](TextEditor& editor, Planted& planted) {
      editor.replace(number, edited);
      planted.site = {.chip = -1, .cycle = edited.start, .instruction = editor.index_of(number)};
      planted.witnesses = ends;
      add_witnesses(planted, editor, parts);
      planted.description = why;
    };
  }
  return std::nullopt;
}

/// The arrival is the sender's, and the instruction still says how long after it it comes.
std::optional<Change> find_receive_off(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  for (const std::int32_t number : draw.round(view.size())) {
    Instruction edited = view.at(number);
    if (edited.opcode != Opcode::kReceive || edited.start < 1) {
      continue;
    }
    edited.start += draw.coin() ? 1 : -1;
    const std::string why = name_of(view, number) + " in cycle " + std::to_string(edited.start) + " instead of " +
                            std::to_string(view.at(number).start);
    return [=, ends = other_ends(ground, edited)](TextEditor& editor, Planted& planted) {
      editor.replace(number, edited);
      planted.site = {.chip = -1, .cycle = edited.start, .instruction = editor.index_of(number)};
      planted.witnesses = ends;
      planted.description = why;
    };
  }
  return std::nullopt;
}

/// A send stops one vector early; the receiver still takes all.
std::optional<Change> find_wrong_length(const Ground& ground, Draw& draw) {
  const TextView& view = ground.view;
  for (const std::int32_t number : draw.round(view.size())) {
    Instruction edited = view.at(number);
    const std::size_t loop = edited.count[0] > 1 ? 0 : 1;
    if (edited.opcode != Opcode::kSend || edited.count[loop] < 2 || !is_wired(ground, edited)) {
      continue;
    }
    --edited.count[loop];
    if (edited.count[loop] == 1) {
      edited.period[loop] = 0;
    }
    const std::string why = name_of(view, number) + ": " + std::to_string(edited.count[loop]) + " turns of loop " +
                            std::to_string(loop) + " instead of " + std::to_string(edited.count[loop] + 1);
    return [=, ends = other_ends(ground, edited), parts = other_parts(view, number)](TextEditor& editor,
                                                                                     Planted& planted) {
      editor.replace(number, edited);
      planted.site = {.chip = -1, .cycle = -1, .instruction = editor.index_of(number)};
      planted.witnesses = ends;
      add_witnesses(planted, editor, parts);
      planted.description = why;
    };
  }
  return std::nullopt;
}

constexpr std::array<TextKind, 6> kKinds{{
    {{"link-twice", "two vectors pushed into one link in one cycle"}, find_link},
    {{"missing-send", "a message is never sent"}, find_missing_send},
    {{"missing-receive", "a message is never taken"}, find_missing_receive},
    {{"wrong-peer", "a message is taken from another peer's link"}, find_wrong_peer},
    {{"receive-off", "a message is taken one cycle early or late"}, find_receive_off},
    {{"wrong-length", "a message is one vector shorter than the receiver takes"}, find_wrong_length},
}};

}  // namespace

std::span<const TextKind> wire_kinds() {
  return kKinds;
}

}  // namespace lpu::scheduler
