#pragma once
#include <cstdint>
#include <vector>

#include "lpu/node/quantity.hpp"
#include "lpu/scheduler/compile.hpp"

namespace lpu::scheduler {

/// Interval and latency of a pipeline, in cycles.
struct Pace {
  std::int64_t initiation_interval = 0;
  std::int64_t token_latency = 0;
  bool operator==(const Pace&) const = default;
};

/// Users beyond whom more add nothing: micro_batch * ceil(token latency / II).
[[nodiscard]] std::int32_t users_saturating(const Pace& pace, std::int32_t micro_batch);

/// Cycles between two tokens of one user when `users` share the pipeline.
[[nodiscard]] std::int64_t token_period(const Pace& pace, std::int32_t micro_batch, std::int32_t users);

/// What the cost model expects of a partition before anything is scheduled.
struct Estimate {
  std::int32_t tensor_parallel = 0;
  std::int32_t pipeline_parallel = 0;
  std::int32_t micro_batch = 1;
  std::int32_t users_fit = 0;  ///< by memory: exact but for what a schedule's scratch takes
  Pace empty;                  ///< objective latency
  Pace loaded;                 ///< objective throughput
};

/// The cost model, for every partition that compile() would consider and that holds one micro-batch of users.
///
/// Intervals and latencies are lower bounds (bounds.hpp: graph, partition and constants alone) times what schedules are
/// known to take beyond them; the factors stand in estimate.cpp with the schedules that they were read from. Latencies
/// of loaded pipelines are the weak part: they depend on the order that the search finds.
///
/// @param request  objective and users are not looked at; tp and pp, where given, are kept
/// @return nothing fits: empty
/// @throws node::InputError  as compile()
[[nodiscard]] std::vector<Estimate> estimate_partitions(const CompileRequest& request);

}  // namespace lpu::scheduler
