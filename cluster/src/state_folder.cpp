#include "state_folder.hpp"

#include <algorithm>
#include <system_error>
#include <unistd.h>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"

namespace lpu::cluster {
namespace {

namespace fs = std::filesystem;
using node::InputError;

constexpr std::string_view kManifest = "manifest";
constexpr std::string_view kPrefix = "state-";

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

SavedPart write_part(
    const StateKind& kind, const SaveOrder& order, std::int32_t rank, const std::string& body, std::int32_t chips) {
  SavedPart part{.file = std::string(kPrefix) + std::to_string(order.number) + ".rank-" + std::to_string(rank),
                 .chips = chips};
  const std::string bytes = node::seal(kind.part, body);
  part.digest = node::digest_text(bytes);
  write(fs::path(order.folder) / part.file, bytes);
  return part;
}

void write_manifest(const StateKind& kind,
                    const SaveOrder& order,
                    const std::string& body,
                    const std::vector<SavedPart>& parts) {
  const fs::path folder(order.folder);
  for (const SavedPart& part : parts) {
    if (!fs::exists(folder / part.file)) {
      throw node::EnvironmentError("--save-state: found no " + part.file + " in " + order.folder +
                                   " on the host of rank 0; expected a folder that all hosts share");
    }
  }
  write(manifest_in(folder), node::seal(kind.manifest, body));
  for (const fs::path& file : parts_in(folder)) {
    const bool is_named = std::any_of(
        parts.begin(), parts.end(), [&](const SavedPart& part) { return part.file == file.filename().string(); });
    if (!is_named) {
      std::error_code error;  // what stays costs room, nothing else
      fs::remove(file, error);
    }
  }
}

fs::path manifest_in(const fs::path& folder) {
  return folder / kManifest;
}

std::string read_manifest(const StateKind& kind, const fs::path& folder) {
  const fs::path file = manifest_in(folder);
  if (!fs::exists(file)) {
    throw InputError("--resume: found no " + file.string() + "; expected a folder that --save-state has written to");
  }
  const std::string bytes = node::read_whole(kind.manifest, file);
  return std::string(node::unseal(kind.manifest, bytes, file.string()));
}

std::string read_part(const StateKind& kind, const fs::path& folder, const SavedPart& part) {
  const fs::path file = folder / part.file;
  const std::string bytes = node::read_whole(kind.part, file);
  const std::string_view body = node::unseal(kind.part, bytes, file.string());
  if (node::digest_text(bytes) != part.digest) {
    throw InputError(file.string() + ": found digest " + node::to_hex(node::digest_text(bytes)) + "; expected " +
                     node::to_hex(part.digest) + ", as the manifest says");
  }
  return std::string(body);
}

std::vector<std::int32_t> chips_at_work(const scheduler::ClusterProgram& program) {
  std::vector<std::int32_t> out;
  for (const node::ChipBinding& binding : program.bindings) {
    if (binding.text >= 0) {
      out.push_back(binding.chip);
    }
  }
  return out;
}

void require_chips(const std::string& name,
                   const std::vector<std::int32_t>& found,
                   const std::vector<std::int32_t>& expected) {
  if (found != expected) {
    throw InputError(name + ": found a state of " + std::to_string(found.size()) + " chips; expected one of each of " +
                     std::to_string(expected.size()));
  }
}

}  // namespace lpu::cluster
