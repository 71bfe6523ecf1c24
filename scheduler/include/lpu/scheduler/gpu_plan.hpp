#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "lpu/interconnect/gpu_fabric.hpp"
#include "lpu/interconnect/nccl.hpp"
#include "lpu/node/gpu_spec.hpp"
#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/model_config.hpp"

namespace lpu::scheduler {

/// How much of a real GPU cluster the model counts.
enum class GpuTier : std::uint8_t {
  kRoofline,  ///< 0: peaks of HBM, arithmetic and links alone; against the LPU's bound
  kNccl,      ///< A: measured kernels in a CUDA graph, NCCL's all-reduce
  kEngine,    ///< B: the same with the serving engine's own all-reduce; what people run
};
[[nodiscard]] std::string_view name(GpuTier tier);  ///< roofline, nccl, engine

/// GPUs, what joins them, and the library that moves data between them.
struct GpuSystem {
  node::GpuSpec gpu;
  interconnect::GpuFabric fabric;
  interconnect::NcclSpec nccl;
};

/// What is asked of a GPU cluster; the model, compute path and KV type as the LPU's compiler takes them, so that both
/// machines hold the same bytes.
struct GpuRequest {
  ModelConfig model;
  GpuSystem system;
  std::int32_t context = 1024;       ///< positions that each token attends to
  Compute compute = Compute::kW8A8;  ///< on a GPU w8a8 is fp8, or int8 where it has none
  KvType kv = KvType::kInt8;         ///< int8: fp8 on a GPU
  GpuTier tier = GpuTier::kEngine;
  bool counts_host_step = false;  ///< CPU work between two steps: counted on both machines, or on neither
  bool crosses_nodes = false;     ///< TP of more GPUs than a node has: the curve that shows the cliff
};

/// Degrees and batch of one instance.
struct GpuPartition {
  std::int32_t tensor_parallel = 1;
  std::int32_t pipeline_parallel = 1;
  std::int32_t micro_batch = 1;    ///< users of one step
  std::int32_t micro_batches = 1;  ///< on their way through the stages at once; at most pipeline_parallel
  [[nodiscard]] std::int32_t devices() const { return tensor_parallel * pipeline_parallel; }
  [[nodiscard]] std::int32_t users() const { return micro_batch * micro_batches; }
};

/// Where a token's microseconds go; the parts sum to the time per output token.
struct GpuParts {
  double weights_us = 0;        ///< HBM (or arithmetic, where that is slower) of the layers' matrix multiplications
  double launch_us = 0;         ///< fixed time of those kernels, and small operators
  double attention_us = 0;      ///< over the KV cache
  double all_reduce_us = 0;     ///< two a layer
  double pipeline_hops_us = 0;  ///< between stages, the way back included
  double head_us = 0;           ///< LM head
  double host_us = 0;           ///< 0 unless asked for
  double pipeline_wait_us = 0;  ///< for the slowest stage, which sets the pace of a full pipeline
  [[nodiscard]] double total() const {
    return weights_us + launch_us + attention_us + all_reduce_us + pipeline_hops_us + head_us + host_us +
           pipeline_wait_us;
  }
};

/// What an instance, or several equal ones, do.
struct GpuPlan {
  GpuPartition partition;
  std::int32_t devices = 0;       ///< given
  std::int32_t devices_idle = 0;  ///< beyond those of the instances
  std::int32_t replicas = 1;
  GpuParts parts;      ///< of one token of one user
  double tpot_us = 0;  ///< time per output token = parts.total()
  double tokens_per_second_per_user = 0;
  double tokens_per_second = 0;       ///< all users of all replicas
  double pipeline_busy = 1;           ///< share of the time in which the slowest stage works
  double hbm_bytes_weights = 0;       ///< on the fullest GPU
  double hbm_bytes_kv_per_user = 0;   ///< likewise
  std::int64_t users = 0;             ///< of all replicas
  std::int64_t users_fit = 0;         ///< likewise, by memory alone
  std::int64_t users_saturating = 0;  ///< likewise: beyond them doubling adds < 5%; memory and SLO are not looked at
  double power_kw = 0;   ///< of the devices, idle ones included, with their share of the hosts; the most they draw
  double price_usd = 0;  ///< likewise
};

/// One decode step of a given partition.
/// @throws DoesNotFit        weights and KV of its users are more than the GPUs hold
/// @throws node::InputError  a degree that is impossible; every limit named
[[nodiscard]] GpuPlan gpu_plan(const GpuRequest& request, const GpuPartition& partition);

/// The most tokens/s of ONE instance on at most `devices` GPUs with TPOT <= `slo_us`, over TP (1, 2, 4, 8 inside a
/// node; 16 and more only where request.crosses_nodes), PP and batch.
/// @return  nothing where no partition fits and meets it
[[nodiscard]] std::optional<GpuPlan> best_gpu_plan(const GpuRequest& request, std::int32_t devices, double slo_us);

/// The same over the number of replicas, each on an equal share of the devices.
[[nodiscard]] std::optional<GpuPlan> best_replicated_gpu_plan(const GpuRequest& request,
                                                              std::int32_t devices,
                                                              double slo_us);

/// The fastest for one user, on at most `devices` GPUs; nothing where the model does not fit.
[[nodiscard]] std::optional<GpuPlan> fastest_gpu_plan(const GpuRequest& request, std::int32_t devices);

/// Fewest GPUs that hold the model and one user; 0 where no partition does.
[[nodiscard]] std::int32_t smallest_gpus(const GpuRequest& request);

}  // namespace lpu::scheduler
