#include "saved_run.hpp"

#include <algorithm>
#include <utility>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "measures_archive.hpp"
#include "state_archive.hpp"

// cereal finds these by the namespaces of their arguments.
namespace lpu::node {

template <typename Archive>
void serialize(Archive& archive, MessageHeader& header) {
  archive(header.schedule_digest, header.transfer, header.fold, header.iteration, header.departure);
  archive(header.step, header.length);
}
template <typename Archive>
void serialize(Archive& archive, ChipSnapshot::Flight& flight) {
  archive(flight.iteration, flight.next_event, flight.writes);
}
template <typename Archive>
void serialize(Archive& archive, ChipSnapshot::Transit& transit) {
  archive(transit.iteration, transit.link, transit.is_send, transit.burst, transit.vectors);
  archive(transit.fold, transit.last_fold);
}
template <typename Archive>
void serialize(Archive& archive, ChipSnapshot& state) {
  archive(state.fold, state.next_iteration, state.flights, state.transits, state.free_at, state.taken);
  archive(state.group_end, state.previous_end, state.measures);
}

}  // namespace lpu::node

namespace lpu::interconnect {

template <typename Archive>
void serialize(Archive& archive, StoredMessage& message) {
  archive(message.link, message.header, message.values);
}

}  // namespace lpu::interconnect

namespace lpu::cluster {

template <typename Archive>
void serialize(Archive& archive, SavedChip& chip) {
  archive(chip.chip, chip.state, chip.messages);
}
/// But for the chips: those are in the parts.
template <typename Archive>
void serialize(Archive& archive, SavedRun& run) {
  archive(run.schedule_digest, run.users, run.token, run.messages_in_process);
  archive(run.messages_between_ranks, run.bytes_between_ranks, run.wall_s);
}

namespace {

namespace fs = std::filesystem;
using node::InputError;

const StateKind kKind{
    .manifest = {.magic = "LPUSTATE",
                 .version = 1,
                 .name = "the manifest of a saved state",
                 .plural = "manifests of saved states"},
    .part = {.magic = "LPUCHIPS", .version = 1, .name = "a part of a saved state", .plural = "parts of saved states"}};

void require_same_run(const std::string& name,
                      const SavedRun& run,
                      const scheduler::ClusterProgram& program,
                      const RunOptions& options) {
  const std::uint64_t digest = scheduler::schedule_digest(program);
  if (run.schedule_digest != digest) {
    throw InputError(name + ": found a state of the program with schedule digest " + node::to_hex(run.schedule_digest) +
                     "; expected " + node::to_hex(digest) + ", the program that is to go on");
  }
  if (run.users != options.users) {
    throw InputError(name + ": found a state of " + std::to_string(run.users) + " users; expected " +
                     std::to_string(options.users) + ", as --users says");
  }
  if (run.token >= options.tokens) {
    throw InputError(name + ": found a state before token " + std::to_string(run.token) + "; expected fewer than " +
                     std::to_string(options.tokens) + " tokens to be done, as --tokens says");
  }
}

}  // namespace

SavedPart save_part(const SaveOrder& order,
                    std::int32_t rank,
                    std::uint64_t schedule_digest,
                    const std::vector<SavedChip>& chips) {
  return write_part(kKind, order, rank, to_body(schedule_digest, chips), static_cast<std::int32_t>(chips.size()));
}

void save_manifest(const SaveOrder& order, const SavedRun& run, const std::vector<SavedPart>& parts) {
  write_manifest(kKind, order, to_body(run, parts), parts);
}

SavedRun load_saved_run(const fs::path& folder, const scheduler::ClusterProgram& program, const RunOptions& options) {
  const std::string name = manifest_in(folder).string();
  SavedRun run;
  std::vector<SavedPart> parts;
  from_body(read_manifest(kKind, folder), name, run, parts);
  require_same_run(name, run, program, options);
  for (const SavedPart& part : parts) {
    for (SavedChip& chip : read_chips<SavedChip>(kKind, folder, part, run.schedule_digest)) {
      run.chips.push_back(std::move(chip));
    }
  }
  std::sort(run.chips.begin(), run.chips.end(), [](const auto& a, const auto& b) { return a.chip < b.chip; });
  std::vector<std::int32_t> found;
  for (const SavedChip& chip : run.chips) {
    found.push_back(chip.chip);
  }
  require_chips(name, found, chips_at_work(program));
  return run;
}

std::string to_bytes(const std::vector<SavedChip>& chips) {
  return to_body(chips);
}

std::vector<SavedChip> chips_from_bytes(const std::string& bytes, const std::string& name) {
  std::vector<SavedChip> chips;
  from_body(bytes, name, chips);
  return chips;
}

}  // namespace lpu::cluster
