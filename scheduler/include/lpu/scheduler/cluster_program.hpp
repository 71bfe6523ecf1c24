#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lpu/node/iteration.hpp"
#include "lpu/node/program.hpp"

namespace lpu::scheduler {

/// The cluster's single executable: one text per distinct chip program, one binding per chip, and the common clockwork.
///
/// What `compile` writes, `verify` proves, `run` executes and `inspect` lists. The plan's figures are read off it; it
/// holds no prediction that an execution could lean on (no arrival cycles on sends).
struct ClusterProgram {
  node::ChipSpec chip;
  std::string inputs;      ///< JSON object: everything that decided the outcome (model, system, flags, --set)
  std::string model;       ///< name, for people
  std::int32_t chips = 0;  ///< of the system, idle ones included
  std::int32_t tensor_parallel = 1;
  std::int32_t pipeline_parallel = 1;
  std::int32_t user_slots = 1;           ///< users that KV is allocated for; a multiple of the micro-batch
  node::IterationPlan plan;              ///< groups and token_period are set for a run by with_users()
  std::int64_t initiation_interval = 0;  ///< = plan.initiation_interval
  std::int64_t token_latency = 0;  ///< iteration start at stage 0 to the cycle in which its successor may start there
  std::int64_t busy_span = 0;      ///< longest makespan of a chip
  std::vector<node::ChipProgram> texts;
  std::vector<node::ChipBinding> bindings;  ///< one per chip of the system, in chip order
};

/// The iteration plan for `users` users (1 <= users <= user_slots; the last micro-batch may be partly idle).
[[nodiscard]] node::IterationPlan with_users(const ClusterProgram& program, std::int32_t users);

/// Digest of all that execution depends on: chip constants, clockwork, texts, bindings. Not of `inputs`.
[[nodiscard]] std::uint64_t schedule_digest(const ClusterProgram& program);

}  // namespace lpu::scheduler
