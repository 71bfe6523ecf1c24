#include "saved_generation.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include "checkpoint_digest.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity_text.hpp"
#include "numbers_archive.hpp"
#include "state_archive.hpp"

// cereal finds these by the namespaces of their arguments.
namespace lpu::node {

template <typename Archive>
void serialize(Archive& archive, NumericSnapshot::Value& value) {
  archive(value.label, value.lanes, value.numbers, value.packed);
}
template <typename Archive>
void serialize(Archive& archive, NumericSnapshot::Row& row) {
  archive(row.place, row.value, row.part);
}
template <typename Archive>
void serialize(Archive& archive, NumericSnapshot& state) {
  archive(state.fold, state.lanes, state.values, state.rows);
}

}  // namespace lpu::node

namespace lpu::cluster {

template <typename Archive>
void serialize(Archive& archive, GenerationKey& key) {
  archive(key.schedule_digest, key.checkpoint_digest, key.prompt, key.sampling);
}
template <typename Archive>
void serialize(Archive& archive, SavedAnswers& answers) {
  archive(answers.position, answers.new_ids, answers.logits_after_prompt, answers.result_digest);
}
template <typename Archive>
void serialize(Archive& archive, SavedNumericChip& chip) {
  archive(chip.chip, chip.state);
}
template <typename Archive>
void serialize(Archive& archive, NumericState& state) {
  archive(state.answers, state.chips);
}
/// But for the chips: those are in the parts.
template <typename Archive>
void serialize(Archive& archive, SavedGeneration& generation) {
  archive(generation.key, generation.numbers.answers, generation.vectors, generation.time);
  archive(generation.numeric_wall_s, generation.wall_s);
}

namespace {

namespace fs = std::filesystem;
using node::InputError;

const StateKind kKind{.manifest = {.magic = "LPUTEXTS",
                                   .version = 1,
                                   .name = "the manifest of a saved generation",
                                   .plural = "manifests of saved generations"},
                      .part = {.magic = "LPUCACHE",
                               .version = 1,
                               .name = "a part of a saved generation",
                               .plural = "parts of saved generations"}};

/// "5 ids, digest 1f...": a prompt may be long.
std::string text_of(const std::vector<std::int64_t>& ids) {
  return std::to_string(ids.size()) + " tokens with digest " +
         node::to_hex(node::digest_bytes(std::as_bytes(std::span(ids))));
}

std::string text_of(const node::Sampling& sampling) {
  return "--temperature " + node::shortest(sampling.temperature) + " --top-k " + std::to_string(sampling.top_k) +
         " --top-p " + node::shortest(sampling.top_p) + " --seed " + std::to_string(sampling.seed);
}

void require_same_key(const std::string& name, const GenerationKey& found, const GenerationKey& expected) {
  if (found.schedule_digest != expected.schedule_digest) {
    throw InputError(name + ": found a state of the program with schedule digest " +
                     node::to_hex(found.schedule_digest) + "; expected " + node::to_hex(expected.schedule_digest) +
                     ", the program that is to go on");
  }
  if (found.checkpoint_digest != expected.checkpoint_digest) {
    throw InputError(name + ": found a state of the checkpoint with digest " + node::to_hex(found.checkpoint_digest) +
                     "; expected " + node::to_hex(expected.checkpoint_digest) + ", as --checkpoint has it");
  }
  if (found.prompt != expected.prompt) {
    throw InputError(name + ": found a state of another prompt, of " + text_of(found.prompt) + "; expected " +
                     text_of(expected.prompt));
  }
  const auto fields = [](const node::Sampling& sampling) {
    return std::tie(sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed);
  };
  if (fields(found.sampling) != fields(expected.sampling)) {
    throw InputError(name + ": found a state of " + text_of(found.sampling) + "; expected " +
                     text_of(expected.sampling));
  }
}

void require_possible(const std::string& name,
                      const SavedAnswers& answers,
                      std::int64_t vocabulary,
                      const GenerateOptions& options) {
  const auto prompt = static_cast<std::int64_t>(options.prompt.size());
  const std::int64_t positions = prompt + options.new_tokens - 1;
  if (answers.position >= positions) {
    throw InputError(name + ": found a state before position " + std::to_string(answers.position) +
                     "; expected fewer than " + std::to_string(positions) +
                     " positions to be done, as --max-new-tokens says");
  }
  const std::int64_t new_ids = std::max<std::int64_t>(0, answers.position + 1 - prompt);
  const bool are_ids = std::all_of(
      answers.new_ids.begin(), answers.new_ids.end(), [&](std::int64_t id) { return id >= 0 && id < vocabulary; });
  if (answers.position < 0 || !are_ids || static_cast<std::int64_t>(answers.new_ids.size()) != new_ids ||
      static_cast<std::int64_t>(answers.logits_after_prompt.size()) != (new_ids > 0 ? vocabulary : 0)) {
    throw InputError(name + ": found " + std::to_string(answers.new_ids.size()) + " new tokens before position " +
                     std::to_string(answers.position) + "; expected " + std::to_string(new_ids) +
                     " of the vocabulary, and the logits after the prompt");
  }
}

}  // namespace

GenerationKey key_of(const scheduler::ClusterProgram& program,
                     const scheduler::Checkpoint& checkpoint,
                     const GenerateOptions& options) {
  return {.schedule_digest = scheduler::schedule_digest(program),
          .checkpoint_digest = content_digest(checkpoint),
          .prompt = options.prompt,
          .sampling = options.sampling};
}

SavedPart save_numeric_part(const SaveOrder& order,
                            std::int32_t rank,
                            std::uint64_t schedule_digest,
                            const std::vector<SavedNumericChip>& chips) {
  return write_part(kKind, order, rank, to_body(schedule_digest, chips), static_cast<std::int32_t>(chips.size()));
}

void save_manifest(const SaveOrder& order, const SavedGeneration& generation, const std::vector<SavedPart>& parts) {
  write_manifest(kKind, order, to_body(generation, parts), parts);
}

SavedGeneration load_saved_generation(const fs::path& folder,
                                      const scheduler::ClusterProgram& program,
                                      const GenerationKey& key,
                                      const scheduler::Checkpoint& checkpoint,
                                      const GenerateOptions& options) {
  const std::string name = manifest_in(folder).string();
  SavedGeneration out;
  std::vector<SavedPart> parts;
  from_body(read_manifest(kKind, folder), name, out, parts);
  require_same_key(name, out.key, key);
  require_possible(name, out.numbers.answers, checkpoint.model().vocabulary, options);
  std::vector<SavedNumericChip>& chips = out.numbers.chips;
  for (const SavedPart& part : parts) {
    for (SavedNumericChip& chip : read_chips<SavedNumericChip>(kKind, folder, part, key.schedule_digest)) {
      chips.push_back(std::move(chip));
    }
  }
  std::sort(chips.begin(), chips.end(), [](const auto& a, const auto& b) { return a.chip < b.chip; });
  std::vector<std::int32_t> found;
  for (const SavedNumericChip& chip : chips) {
    found.push_back(chip.chip);
  }
  require_chips(name, found, chips_at_work(program));
  return out;
}

std::string to_bytes(const NumericState& state) {
  return to_body(state);
}

NumericState numbers_from_bytes(const std::string& bytes, const std::string& name) {
  NumericState out;
  from_body(bytes, name, out);
  return out;
}

}  // namespace lpu::cluster
