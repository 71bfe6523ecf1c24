#pragma once
#include <string>

namespace lpu::cluster {

/// lpu_cluster(1) in the man macros of troff: what --help says of all verbs.
[[nodiscard]] std::string man_page();

/// A script for bash: verbs, flags, and values where they are known; names of presets come from `lpu_cluster list`.
[[nodiscard]] std::string bash_completion();

}  // namespace lpu::cluster
