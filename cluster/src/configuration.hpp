#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json.hpp>

#include "command_line.hpp"
#include "lpu/node/chip_preset.hpp"
#include "lpu/scheduler/compile.hpp"

namespace lpu::cluster {

/// What a compiling verb works on: presets, flags and settings put together.
struct Configuration {
  scheduler::CompileRequest request;  ///< its `inputs` hold to_inputs()
  std::string system;                 ///< name of the preset or file; empty: none was named
  std::vector<std::string> modified;  ///< every --set that made it, as "path=value"
};

/// The line with the flags that --config records, where it does not give them itself.
[[nodiscard]] CommandLine with_recorded_flags(const CommandLine& line);

/// Reads flags, then --config beneath them, then presets; applies --set.
/// @throws InputError
[[nodiscard]] Configuration configure(const CommandLine& line);

/// Everything that decides the outcome, in the form that --config reads.
[[nodiscard]] boost::json::object to_inputs(const Configuration& configuration);

/// "path=value" of each --set.
/// @param has_gpus     the verb plans GPUs too: gpu.<field>, fabric.<field> and nccl.<field> are known
/// @throws InputError  no "=", or a path that nothing has (names the nearest)
[[nodiscard]] std::vector<node::Setting> parse_settings(const std::vector<std::string>& settings,
                                                        bool has_gpus = false);

[[nodiscard]] std::string_view name(scheduler::Compute compute);
[[nodiscard]] std::string_view name(scheduler::KvType kv);
[[nodiscard]] std::string_view name(scheduler::ExpertMode mode);
[[nodiscard]] std::string_view name(scheduler::Objective objective);
[[nodiscard]] std::string_view name(scheduler::Sampling sampling);

}  // namespace lpu::cluster
