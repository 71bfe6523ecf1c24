#include "saved_run.hpp"

#include <algorithm>
#include <map>
#include <sstream>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <cereal/archives/portable_binary.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/sealed_file.hpp"
#include "measures_archive.hpp"

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
template <typename Archive>
void serialize(Archive& archive, SavedPart& part) {
  archive(part.file, part.digest, part.chips);
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

constexpr std::string_view kManifest = "manifest";
constexpr std::string_view kPrefix = "state-";
constexpr node::FileKind kManifestKind{
    .magic = "LPUSTATE", .version = 1, .name = "the manifest of a saved state", .plural = "manifests of saved states"};
constexpr node::FileKind kPartKind{
    .magic = "LPUCHIPS", .version = 1, .name = "a part of a saved state", .plural = "parts of saved states"};

template <typename... Content>
std::string encode(const Content&... content) {
  std::ostringstream out;
  {
    cereal::PortableBinaryOutputArchive archive(out);
    (archive(content), ...);
  }
  return std::move(out).str();
}

template <typename... Content>
void decode(std::string_view body, const std::string& name, Content&... content) {
  std::istringstream in{std::string(body)};
  try {
    cereal::PortableBinaryInputArchive archive(in);
    (archive(content), ...);
  } catch (const std::exception&) {  // cereal's, or a length that no memory holds
    throw InputError(name + ": found a body that ends too early; expected all of a saved state");
  }
}

/// The number in a part's name, "state-3.rank-0"; 0: it is none.
std::int64_t number_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) {
    return 0;
  }
  std::int64_t number = 0;
  for (std::size_t at = kPrefix.size(); at < name.size() && name[at] >= '0' && name[at] <= '9' && number < INT32_MAX;
       ++at) {
    number = number * 10 + (name[at] - '0');
  }
  return number;
}

std::vector<fs::path> parts_in(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (number_of(at->path().filename().string()) > 0) {
      out.push_back(at->path());
    }
  }
  return out;
}

/// A path that cannot be written was judged before the run; what goes wrong now is the machine's.
void write(const fs::path& file, const std::string& bytes) {
  try {
    node::write_durably(file, bytes);
  } catch (const InputError& error) {
    throw node::EnvironmentError(error.what());
  }
}

std::vector<SavedChip> load_part(const fs::path& folder, const SavedPart& part, std::uint64_t schedule_digest) {
  const fs::path file = folder / part.file;
  const std::string bytes = node::read_whole(kPartKind, file);
  const std::string_view body = node::unseal(kPartKind, bytes, file.string());
  if (node::digest_text(bytes) != part.digest) {
    throw InputError(file.string() + ": found digest " + node::to_hex(node::digest_text(bytes)) + "; expected " +
                     node::to_hex(part.digest) + ", as the manifest says");
  }
  std::uint64_t digest = 0;
  std::vector<SavedChip> chips;
  decode(body, file.string(), digest, chips);
  if (digest != schedule_digest || chips.size() != static_cast<std::size_t>(part.chips)) {
    throw InputError(file.string() + ": found " + std::to_string(chips.size()) + " chips of the program " +
                     node::to_hex(digest) + "; expected " + std::to_string(part.chips) + " of " +
                     node::to_hex(schedule_digest));
  }
  return chips;
}

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

void require_all_chips(const std::string& name, const SavedRun& run, const scheduler::ClusterProgram& program) {
  std::vector<std::int32_t> expected;
  for (const node::ChipBinding& binding : program.bindings) {
    if (binding.text >= 0) {
      expected.push_back(binding.chip);
    }
  }
  std::vector<std::int32_t> found;
  for (const SavedChip& chip : run.chips) {
    found.push_back(chip.chip);
  }
  if (found != expected) {
    throw InputError(name + ": found a state of " + std::to_string(found.size()) + " chips; expected one of each of " +
                     std::to_string(expected.size()));
  }
}

}  // namespace

SaveOrder open_save_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directory(folder, error);
  if (!fs::is_directory(folder)) {
    throw InputError("--save-state: found no folder at " + folder.string() +
                     ", and it cannot be made; expected a folder, or a name in an existing one");
  }
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    throw InputError("--save-state: found " + folder.string() +
                     ", which cannot be written; expected a folder with write permission");
  }
  SaveOrder out{.folder = fs::absolute(folder).string()};
  for (const fs::path& file : parts_in(folder)) {
    out.number = std::max(out.number, number_of(file.filename().string()) + 1);
  }
  return out;
}

SavedPart save_part(const SaveOrder& order,
                    std::int32_t rank,
                    std::uint64_t schedule_digest,
                    const std::vector<SavedChip>& chips) {
  SavedPart part{.file = std::string(kPrefix) + std::to_string(order.number) + ".rank-" + std::to_string(rank),
                 .chips = static_cast<std::int32_t>(chips.size())};
  const std::string bytes = node::seal(kPartKind, encode(schedule_digest, chips));
  part.digest = node::digest_text(bytes);
  write(fs::path(order.folder) / part.file, bytes);
  return part;
}

void save_manifest(const SaveOrder& order, const SavedRun& run, const std::vector<SavedPart>& parts) {
  const fs::path folder(order.folder);
  for (const SavedPart& part : parts) {
    if (!fs::exists(folder / part.file)) {
      throw node::EnvironmentError("--save-state: found no " + part.file + " in " + order.folder +
                                   " on the host of rank 0; expected a folder that all hosts share");
    }
  }
  write(folder / kManifest, node::seal(kManifestKind, encode(run, parts)));
  for (const fs::path& file : parts_in(folder)) {
    const bool is_named = std::any_of(
        parts.begin(), parts.end(), [&](const SavedPart& part) { return part.file == file.filename().string(); });
    if (!is_named) {
      std::error_code error;  // what stays costs room, nothing else
      fs::remove(file, error);
    }
  }
}

SavedRun load_saved_run(const fs::path& folder, const scheduler::ClusterProgram& program, const RunOptions& options) {
  const fs::path file = folder / kManifest;
  if (!fs::exists(file)) {
    throw InputError("--resume: found no " + file.string() + "; expected a folder that --save-state has written to");
  }
  const std::string name = file.string();
  const std::string bytes = node::read_whole(kManifestKind, file);
  SavedRun run;
  std::vector<SavedPart> parts;
  decode(node::unseal(kManifestKind, bytes, name), name, run, parts);
  require_same_run(name, run, program, options);
  for (const SavedPart& part : parts) {
    for (SavedChip& chip : load_part(folder, part, run.schedule_digest)) {
      run.chips.push_back(std::move(chip));
    }
  }
  std::sort(run.chips.begin(), run.chips.end(), [](const auto& a, const auto& b) { return a.chip < b.chip; });
  require_all_chips(name, run, program);
  return run;
}

std::string to_bytes(const std::vector<SavedChip>& chips) {
  return encode(chips);
}

std::vector<SavedChip> chips_from_bytes(const std::string& bytes, const std::string& name) {
  std::vector<SavedChip> chips;
  decode(bytes, name, chips);
  return chips;
}

}  // namespace lpu::cluster
