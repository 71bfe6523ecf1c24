#include "dealing.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace lpu::cluster {
namespace {

using scheduler::ClusterProgram;

/// What a stream puts in front of each record.
constexpr std::int64_t kRecordBytes = 16;
/// A vector may travel as a message of its own: id, header, and what the stream puts in front.
constexpr std::int64_t kBytesPerVector = 8 + static_cast<std::int64_t>(sizeof(node::MessageHeader)) + kRecordBytes;
constexpr std::int64_t kRoomForNumbers = 64 * 1024;  ///< bytes: a chip's turn in the numeric plane seldom sends more
constexpr std::int64_t kRoomForNotes = 16 * 1024;    ///< bytes

/// Chips that hold a part of the model, per stage, in the order of their positions in the group.
std::vector<std::vector<std::int32_t>> chips_of_stages(const ClusterProgram& program) {
  std::map<std::int32_t, std::vector<std::int32_t>> stages;
  for (const node::ChipBinding& binding : program.bindings) {
    if (binding.text >= 0) {
      stages[binding.stage].push_back(binding.chip);
    }
  }
  std::vector<std::vector<std::int32_t>> out;
  for (auto& [stage, chips] : stages) {
    std::stable_sort(chips.begin(), chips.end(), [&](std::int32_t a, std::int32_t b) {
      return program.bindings[static_cast<std::size_t>(a)].group_position <
             program.bindings[static_cast<std::size_t>(b)].group_position;
    });
    out.push_back(std::move(chips));
  }
  return out;
}

/// Vectors that a text sends over each of its links in one iteration.
std::vector<std::int64_t> vectors_per_link(const node::ChipProgram& text, std::int32_t links) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(links), 0);
  for (const node::Instruction& instruction : text.instructions) {
    if (instruction.opcode != node::Opcode::kSend) {
      continue;
    }
    for (std::int32_t i0 = 0; i0 < instruction.count[0]; ++i0) {
      for (std::int32_t i1 = 0; i1 < instruction.count[1]; ++i1) {
        for (std::int32_t i2 = 0; i2 < instruction.count[2]; ++i2) {
          const std::int32_t link = instruction.index + i0 * instruction.index_stride[0] +
                                    i1 * instruction.index_stride[1] + i2 * instruction.index_stride[2];
          if (link >= 0 && link < links) {
            ++out[static_cast<std::size_t>(link)];
          }
        }
      }
    }
  }
  return out;
}

}  // namespace

Dealing deal(const ClusterProgram& program, std::int32_t ranks) {
  Dealing out;
  out.rank_of.assign(program.bindings.size(), -1);
  const auto stages = chips_of_stages(program);
  const auto count = static_cast<std::int64_t>(stages.size());
  // Stage s gets ranks [s R / S, (s + 1) R / S), at most one for each of its chips; with R <= S that is a part of one.
  std::int32_t next = 0;
  for (std::int64_t stage = 0; stage < count; ++stage) {
    const auto& chips = stages[static_cast<std::size_t>(stage)];
    if (ranks <= count) {
      next = static_cast<std::int32_t>(stage * ranks / count);
      for (const std::int32_t chip : chips) {
        out.rank_of[static_cast<std::size_t>(chip)] = next;
      }
      out.ranks_used = next + 1;
      continue;
    }
    const auto size = static_cast<std::int64_t>(chips.size());
    const std::int64_t share = std::min((stage + 1) * ranks / count - stage * ranks / count, size);
    for (std::int64_t at = 0; at < size; ++at) {
      out.rank_of[static_cast<std::size_t>(chips[static_cast<std::size_t>(at)])] =
          next + static_cast<std::int32_t>(at * share / size);
    }
    next += static_cast<std::int32_t>(share);
    out.ranks_used = next;
  }
  return out;
}

std::vector<interconnect::PairLoad> with_numbers(std::vector<interconnect::PairLoad> pairs,
                                                 const ClusterProgram& program,
                                                 const Dealing& dealing) {
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> bytes;
  for (const interconnect::PairLoad& pair : pairs) {
    bytes[{pair.from, pair.to}] = std::min(pair.bytes / kBytesPerVector * (kRecordBytes + program.chip.vector_bytes),
                                           std::max(pair.bytes, kRoomForNumbers));
  }
  std::int32_t last = 0;
  for (const node::ChipBinding& binding : program.bindings) {
    last = std::max(last, binding.text >= 0 ? binding.stage : 0);
  }
  for (const node::ChipBinding& binding : program.bindings) {
    const std::int32_t rank = dealing.rank_of[static_cast<std::size_t>(binding.chip)];
    if (rank > 0 && (binding.stage == 0 || binding.stage == last)) {
      bytes[{rank, 0}] = std::max(bytes[{rank, 0}], kRoomForNotes);
      bytes[{0, rank}] = std::max(bytes[{0, rank}], kRoomForNotes);
    }
  }
  std::vector<interconnect::PairLoad> out;
  for (const auto& [pair, room] : bytes) {
    out.push_back({.from = pair.first, .to = pair.second, .bytes = room});
  }
  return out;
}

ClusterProgram part_of(const ClusterProgram& program, const Dealing& dealing, std::int32_t rank) {
  ClusterProgram part;
  part.chip = program.chip;
  part.model = program.model;
  part.chips = program.chips;
  part.tensor_parallel = program.tensor_parallel;
  part.pipeline_parallel = program.pipeline_parallel;
  part.user_slots = program.user_slots;
  part.plan = program.plan;
  part.initiation_interval = program.initiation_interval;
  part.token_latency = program.token_latency;
  part.busy_span = program.busy_span;
  part.bindings = program.bindings;
  std::map<std::int32_t, std::int32_t> numbers;  // of texts: there, here
  for (node::ChipBinding& binding : part.bindings) {
    if (binding.text < 0) {
      continue;
    }
    if (dealing.rank_of[static_cast<std::size_t>(binding.chip)] != rank) {
      binding.text = -1;
      binding.slot_owner.clear();
      continue;
    }
    const auto [number, is_new] = numbers.try_emplace(binding.text, static_cast<std::int32_t>(part.texts.size()));
    if (is_new) {
      part.texts.push_back(program.texts[static_cast<std::size_t>(binding.text)]);
    }
    binding.text = number->second;
  }
  return part;
}

std::vector<interconnect::PairLoad> pair_loads(const ClusterProgram& program,
                                               const Dealing& dealing,
                                               std::int32_t groups) {
  std::vector<std::vector<std::int64_t>> of_text;
  for (const node::ChipProgram& text : program.texts) {
    of_text.push_back(vectors_per_link(text, program.chip.links()));
  }
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> vectors;
  for (const node::ChipBinding& binding : program.bindings) {
    if (binding.text < 0) {
      continue;
    }
    const std::int32_t from = dealing.rank_of[static_cast<std::size_t>(binding.chip)];
    const auto& sent = of_text[static_cast<std::size_t>(binding.text)];
    for (std::size_t link = 0; link < binding.peers.size() && link < sent.size(); ++link) {
      const std::int32_t peer = binding.peers[link].chip;
      const std::int32_t to = peer < 0 ? -1 : dealing.rank_of[static_cast<std::size_t>(peer)];
      if (sent[link] > 0 && to >= 0 && to != from) {
        vectors[{from, to}] += sent[link];
      }
    }
  }
  std::vector<interconnect::PairLoad> out;
  for (const auto& [pair, count] : vectors) {
    out.push_back({.from = pair.first, .to = pair.second, .bytes = (groups + 1) * count * kBytesPerVector});
  }
  return out;
}

}  // namespace lpu::cluster
