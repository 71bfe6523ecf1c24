#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/error.hpp"
#include "lpu/scheduler/cluster_program.hpp"
#include "lpu/scheduler/model_config.hpp"

namespace lpu::scheduler {

enum class Compute : std::uint8_t { kW8A8, kW8A16, kFp16, kFp32Reference };
enum class KvType : std::uint8_t { kInt8, kFp16, kFp32 };
enum class ExpertMode : std::uint8_t { kIndirect, kAll };
enum class Objective : std::uint8_t { kLatency, kThroughput };
enum class Sampling : std::uint8_t { kChip, kHost };

/// Where the windows of a stage (runs of MXM rounds) start within the interval.
struct StagePhases {
  std::int64_t shortest = 0;         ///< cycles; shorter windows have no place of their own
  std::vector<std::int64_t> starts;  ///< cycles, per planned window in the order of the program
};

/// What a search for objective throughput found, so that it need not be made again. A hint decides nothing that is not
/// checked: where it does not lead to a schedule, the search is made.
struct ScheduleHint {
  // what it is for
  Compute compute = Compute::kW8A8;
  ExpertMode experts = ExpertMode::kIndirect;
  std::int32_t context = 0;
  std::int32_t micro_batch = 0;
  std::int32_t tensor_parallel = 0;
  std::int32_t pipeline_parallel = 0;
  std::int32_t user_slots = 0;  ///< users whose KV lies beside the weights
  // what was found
  std::int64_t interval = 0;        ///< cycles
  std::int64_t token_latency = 0;   ///< cycles
  std::vector<StagePhases> stages;  ///< per distinct stage, in the order of the pipeline
};

/// What a user asks of the compiler. Sizes are checked by compile(), which names every limit that binds.
struct CompileRequest {
  ModelConfig model;
  node::ChipSpec chip;
  std::int32_t chips = 0;  ///< 0: the smallest legal cluster
  std::optional<std::int32_t> tensor_parallel;
  std::optional<std::int32_t> pipeline_parallel;
  std::int32_t micro_batch = 1;
  std::optional<std::int32_t> users;  ///< KV is allocated for so many; none: as many as saturate, or fit
  std::int32_t context = 1024;        ///< bucket, positions
  Compute compute = Compute::kW8A8;
  KvType kv = KvType::kInt8;
  ExpertMode experts = ExpertMode::kIndirect;
  Objective objective = Objective::kLatency;
  Sampling sampling = Sampling::kChip;
  std::int32_t search_orders = 0;   ///< phase orders tried for objective throughput; 0: the default
  std::vector<ScheduleHint> hints;  ///< tried before a search; not with search_orders
  bool may_search = true;           ///< objective throughput: false: a hint leads to a schedule, or nothing does
  std::uint64_t seed = 1;           ///< of the emulated routing and tokens
  std::string inputs;               ///< JSON, recorded in the program
};

/// Cycles of one layer's critical path by part; the parts sum exactly to `layer`.
struct LayerBudget {
  std::int64_t install = 0, activation_slots = 0, fill = 0, vxm = 0, sxm = 0, attention = 0, router = 0,
               wires_exposed = 0, waiting = 0;
  std::int64_t wires_hidden = 0;  ///< beside the path, not in the sum
  std::int64_t layer = 0;
};

/// Bytes that the fullest chip holds.
struct SramUse {
  node::Bytes weights{}, kv{}, activations{}, program{};
  [[nodiscard]] node::Bytes total() const { return weights + kv + activations + program; }
};

/// Figures of `plan`, each read off the compiled program (bounds: computed apart, from graph and partition).
struct PlanReport {
  std::int32_t chips_idle = 0;
  double balance = 1.0;                ///< mean stage / slowest stage, by busy cycles
  SramUse sram;                        ///< of the fullest chip
  std::vector<SramUse> sram_of_stage;  ///< of each chip of a stage
  std::int32_t users_fit = 0;          ///< by the model of the memory, for these tp and pp; fitting_users() builds it
  std::int32_t users_saturating = 0;   ///< micro_batch * ceil(token latency / II), before the fit is looked at
  std::int64_t ii_lower_bound = 0;
  std::int64_t latency_lower_bound = 0;
  LayerBudget budget;
  std::optional<ScheduleHint> hint;  ///< objective throughput: what makes the search short the next time
  std::int64_t layers_cycles = 0, hops_cycles = 0, ends_cycles = 0;  ///< sum = token latency
};

struct Compiled {
  ClusterProgram program;
  PlanReport report;
};

/// A model that the cluster cannot hold: which limits bind and what would do.
class DoesNotFit : public node::InputError {
 public:
  DoesNotFit(const std::string& message, std::int32_t smallest);
  [[nodiscard]] std::int32_t smallest_chips() const { return smallest_chips_; }  ///< 0: none up to the largest system

 private:
  std::int32_t smallest_chips_;
};

/// Called now and then with the share done, 0 to 1, and what is being done.
using Progress = std::function<void(double, const std::string&)>;

/// Partition, schedule and link a model for a cluster.
///
/// @throws DoesNotFit, node::InputError (heads, degrees or contexts that no program exists for; every binding limit
/// named)
/// @post verify() of the result finds nothing (callers run it all the same: it trusts nobody)
[[nodiscard]] Compiled compile(const CompileRequest& request, const Progress& progress = {});

/// A program for more users: as many as saturate its pipeline, as far as memory holds them and each step serves more
/// tokens than the one before. What it was built for stays where none does.
///
/// @param built  compile() of the request, for some users
[[nodiscard]] Compiled saturated(const CompileRequest& request, Compiled built, const Progress& progress = {});

/// Users whose KV fits beside the weights at a program's tp and pp: the most that a program was built for, to 2 %.
///
/// @param compiled  compile() of the request; its report's users_fit is where the search begins
[[nodiscard]] std::int32_t fitting_users(const CompileRequest& request, const Compiled& compiled);

/// Smallest number of chips that holds the model at the request's context, compute path and one micro-batch of users;
/// 0 when none up to the largest system does.
[[nodiscard]] std::int32_t smallest_chips(const CompileRequest& request);

}  // namespace lpu::scheduler
