#include "shipped_models.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <system_error>
#include <vector>

#include "lpu/node/error.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::cluster {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 2> kShipped = {"shakespeare-llama-4m", "shakespeare-mixtral-5m"};

}  // namespace

std::span<const std::string_view> shipped_models() {
  return kShipped;
}

bool is_shipped_model(const std::string& name) {
  return std::find(kShipped.begin(), kShipped.end(), name) != kShipped.end();
}

fs::path find_checkpoint(const std::string& name_or_path) {
  std::error_code error;
  if (is_shipped_model(name_or_path)) {
    const fs::path program = fs::read_symlink("/proc/self/exe", error);
    const fs::path folder = program.parent_path().parent_path() / "share" / "lpu_cluster" / "models" / name_or_path;
    if (!fs::is_directory(folder, error)) {
      throw node::InputError("--checkpoint: found no folder " + folder.string() + "; expected " + name_or_path +
                             " there, where it is installed");
    }
    return folder;
  }
  if (name_or_path.empty() || !fs::exists(name_or_path, error)) {
    const std::vector<std::string> known(kShipped.begin(), kShipped.end());
    throw node::InputError("--checkpoint: found " + (name_or_path.empty() ? "nothing" : name_or_path) +
                           "; expected a checkpoint's folder or file, or a shipped model" +
                           node::known_values(name_or_path, known));
  }
  return name_or_path;
}

}  // namespace lpu::cluster
