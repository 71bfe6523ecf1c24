#include "lpu/scheduler/gpu_plan.hpp"

#include <algorithm>
#include <functional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "gpu_presets.hpp"
#include "lpu/node/error.hpp"
#include "lpu/scheduler/model_preset.hpp"

namespace lpu::scheduler {
namespace {

GpuRequest request_of(const std::string& model, const std::string& system = "dgx-h100") {
  const test::GpuPresets presets = test::gpu_presets(system);
  GpuRequest out;
  out.model = load_model_preset(test::preset_file("models", model)).model;
  out.system = {presets.gpu, presets.fabric, presets.nccl};
  return out;
}

template <typename Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const node::InputError& error) {
    return error.what();
  }
  return "no error";
}

TEST(GpuPlan, PartsAreTheStep) {
  const GpuRequest request = request_of("llama-2-70b");
  const GpuPlan plan = gpu_plan(request, {.tensor_parallel = 8});
  const node::GpuSpec& gpu = request.system.gpu;
  // Two all-reduces a layer and the embedding's, each of one token's residual in 16 bits.
  const interconnect::NcclGroup group{request.system.nccl, request.system.fabric, gpu.architecture, 8};
  EXPECT_DOUBLE_EQ(plan.parts.all_reduce_us, 161 * interconnect::engine_all_reduce_us(group, 2 * 8192));
  EXPECT_NEAR(
      plan.parts.launch_us, 80 * (4 * gpu.gemm_8bit_start_us + gpu.small_operators_us), 0.01 * plan.parts.launch_us);
  // 855.6 million weights a layer, a byte each, on eight GPUs.
  const double weights = 80 * 855'638'016.0 / 8 / (1e3 * gpu.gemm_8bit_gigabytes_per_second);
  EXPECT_NEAR(plan.parts.weights_us, weights, 0.01 * weights);
  const double kv = 2.0 * 128 * 1024;  // one head of keys and values, int8
  EXPECT_DOUBLE_EQ(plan.parts.attention_us,
                   80 * (gpu.attention_start_us + kv / (1e3 * gpu.attention_gigabytes_per_second)));
  EXPECT_EQ(plan.parts.pipeline_hops_us, 0);
  EXPECT_EQ(plan.parts.pipeline_wait_us, 0);
  EXPECT_EQ(plan.parts.host_us, 0);
  EXPECT_DOUBLE_EQ(plan.tpot_us, plan.parts.total());
  EXPECT_DOUBLE_EQ(plan.tokens_per_second, 1e6 / plan.tpot_us);
}

TEST(GpuPlan, TheHostStepIsCountedWhereAsked) {
  GpuRequest request = request_of("llama-3-8b");
  const double without = gpu_plan(request, {}).tpot_us;
  request.counts_host_step = true;
  EXPECT_DOUBLE_EQ(gpu_plan(request, {}).tpot_us, without + request.system.gpu.host_step_us);
}

TEST(GpuPlan, TiersAreInOrder) {
  for (const char* model : {"llama-2-70b", "mixtral-8x7b", "llama-3-8b"}) {
    for (const char* system : {"dgx-h100", "dgx-a100", "hgx-pcie-numa"}) {
      GpuRequest request = request_of(model, system);
      for (const std::int32_t batch : {1, 16, 128}) {
        const GpuPartition partition{
            .tensor_parallel = 8, .pipeline_parallel = 2, .micro_batch = batch, .micro_batches = 2};
        request.tier = GpuTier::kRoofline;
        const double roofline = gpu_plan(request, partition).tpot_us;
        request.tier = GpuTier::kEngine;
        const double engine = gpu_plan(request, partition).tpot_us;
        request.tier = GpuTier::kNccl;
        const double nccl = gpu_plan(request, partition).tpot_us;
        EXPECT_LT(roofline, engine) << model << " " << system << " " << batch;
        EXPECT_LE(engine, nccl) << model << " " << system << " " << batch;
      }
    }
  }
}

TEST(GpuPlan, RooflineIsBytesOverBandwidth) {
  GpuRequest request = request_of("llama-2-70b");
  request.tier = GpuTier::kRoofline;
  const GpuPlan plan = gpu_plan(request, {.tensor_parallel = 8});
  const double bytes = static_cast<double>(parameters(request.model)) - 32000.0 * 8192;  // the embedding is not read
  const double kv = 80 * 2.0 * 1024 * 1024;  // eight heads of 128, 1,024 positions
  const double least = (bytes + kv) / 8 / (1e3 * 3350);
  EXPECT_NEAR(plan.parts.weights_us + plan.parts.attention_us + plan.parts.head_us, least, 0.01 * least);
  EXPECT_EQ(plan.parts.launch_us, 0);
}

TEST(GpuPlan, MoreTokensTouchMoreExperts) {
  GpuRequest request = request_of("mixtral-8x7b");
  request.tier = GpuTier::kRoofline;
  const auto weights = [&](std::int32_t batch) {
    return gpu_plan(request, {.tensor_parallel = 8, .micro_batch = batch}).parts.weights_us;
  };
  // One token reads 2 of 8 experts, two tokens 2 + 2 (1 - 1/4) = 3.5 of them, many all 8.
  const double expert = 32 * 3.0 * 4096 * 14336 / 8 / (1e3 * 3350);
  EXPECT_NEAR(weights(2) - weights(1), 1.5 * expert, 0.02 * expert);
  EXPECT_NEAR(weights(64) - weights(1), 6 * expert, 0.1 * expert);
}

TEST(GpuPlan, MemoryIsCountedAndRefusedByName) {
  GpuRequest request = request_of("llama-2-70b");
  request.compute = Compute::kFp16;
  request.kv = KvType::kFp16;
  EXPECT_EQ(
      message_of([&] { static_cast<void>(gpu_plan(request, {})); }),
      "llama-2-70b on 1 x h100-80g-sxm: found 138 GB of weights on the fullest GPU and 336 MB of KV a user for 1; "
      "expected at most 72.0 GB together, which hold 0 users; one user fits on 2 GPUs");
  const GpuPlan pair = gpu_plan(request, {.tensor_parallel = 2});
  EXPECT_NEAR(pair.hbm_bytes_weights, static_cast<double>(parameters(request.model)), 1e7);
  EXPECT_EQ(pair.hbm_bytes_kv_per_user, 80.0 * 2 * 2 * 4 * 128 * 1024);
  EXPECT_EQ(pair.users_fit, std::int64_t((72e9 - pair.hbm_bytes_weights) / pair.hbm_bytes_kv_per_user));
  EXPECT_EQ(smallest_gpus(request), 2);
  const auto most = static_cast<std::int32_t>(pair.users_fit);
  EXPECT_NO_THROW(static_cast<void>(gpu_plan(request, {.tensor_parallel = 2, .micro_batch = most})));
  EXPECT_THROW(static_cast<void>(gpu_plan(request, {.tensor_parallel = 2, .micro_batch = most + 1})), DoesNotFit);
  request.compute = Compute::kW8A8;
  EXPECT_EQ(smallest_gpus(request), 1);  // 69 of 72 GB
}

TEST(GpuPlan, KvHeadsAreReplicatedWhereTheyAreFewerThanGpus) {
  GpuRequest request = request_of("llama-2-70b");
  request.crosses_nodes = true;
  const GpuPlan eight = gpu_plan(request, {.tensor_parallel = 8});
  const GpuPlan sixteen = gpu_plan(request, {.tensor_parallel = 16});
  EXPECT_EQ(eight.hbm_bytes_kv_per_user, sixteen.hbm_bytes_kv_per_user);
}

TEST(GpuPlan, ImpossibleDegreesAreRefused) {
  const GpuRequest request = request_of("llama-2-70b");
  const auto refusal = [&](const GpuPartition& partition) {
    return message_of([&] { static_cast<void>(gpu_plan(request, partition)); });
  };
  EXPECT_EQ(refusal({.tensor_parallel = 3}),
            "GPU tensor parallel degree: found 3; expected a divisor of the model's 64 heads");
  EXPECT_EQ(refusal({.tensor_parallel = 16}),
            "GPU tensor parallel degree: found 16; expected at most the 8 GPUs of a node");
  EXPECT_EQ(refusal({.pipeline_parallel = 81}), "GPU pipeline stages: found 81; expected 1 to 80");
  EXPECT_EQ(refusal({.tensor_parallel = 8, .pipeline_parallel = 2, .micro_batches = 3}),
            "GPU micro-batches under way: found 3; expected 1 to the 2 pipeline stages");
  EXPECT_EQ(refusal({.tensor_parallel = 8, .micro_batch = 0}), "GPU micro-batch: found 0; expected 1 or more");
}

TEST(GpuPlan, APipelineGivesThroughputAndNotLatency) {
  const GpuRequest request = request_of("llama-2-70b");
  const GpuPlan flat = gpu_plan(request, {.tensor_parallel = 8, .micro_batch = 8});
  const GpuPlan empty = gpu_plan(request, {.tensor_parallel = 8, .pipeline_parallel = 4, .micro_batch = 8});
  const GpuPlan full =
      gpu_plan(request, {.tensor_parallel = 8, .pipeline_parallel = 4, .micro_batch = 8, .micro_batches = 4});
  EXPECT_GT(empty.tpot_us, flat.tpot_us);  // the same layers, and hops
  EXPECT_NEAR(empty.pipeline_busy, 0.25, 0.02);
  EXPECT_GT(full.pipeline_busy, 0.95);
  EXPECT_GT(full.tokens_per_second, 3.7 * empty.tokens_per_second);
  EXPECT_LE(full.tokens_per_second, 4 * empty.tokens_per_second);
  // A full pipeline is paced by its slowest stage: what the others wait stands in the parts.
  const GpuPlan uneven =
      gpu_plan(request, {.tensor_parallel = 8, .pipeline_parallel = 3, .micro_batch = 8, .micro_batches = 3});
  EXPECT_DOUBLE_EQ(uneven.tpot_us, uneven.parts.total());
}

TEST(GpuPlan, HopsOfStagesInsideANodeAreShorter) {
  const GpuRequest request = request_of("llama-2-70b");
  const double inside = gpu_plan(request, {.tensor_parallel = 4, .pipeline_parallel = 2}).parts.pipeline_hops_us;
  const double outside = gpu_plan(request, {.tensor_parallel = 8, .pipeline_parallel = 2}).parts.pipeline_hops_us;
  EXPECT_NEAR(inside, 20, 1);  // 10 us there, 10 us back
  EXPECT_NEAR(outside, 40, 1);
}

TEST(GpuPlan, SaturatingUsersAreWhereDoublingStopsToPay) {
  const GpuRequest request = request_of("llama-3-8b");
  const GpuPlan plan = gpu_plan(request, {});
  const auto rate = [&](std::int64_t users) {
    return gpu_plan(request, {.micro_batch = static_cast<std::int32_t>(users)}).tokens_per_second;
  };
  GpuRequest roomy = request;
  roomy.system.gpu.hbm_gigabytes = 1e5;
  const auto roomy_rate = [&](std::int64_t users) {
    return gpu_plan(roomy, {.micro_batch = static_cast<std::int32_t>(users)}).tokens_per_second;
  };
  EXPECT_LT(roomy_rate(2 * plan.users_saturating), 1.05 * roomy_rate(plan.users_saturating));
  EXPECT_GE(roomy_rate(plan.users_saturating), 1.05 * roomy_rate(plan.users_saturating / 2));
  EXPECT_DOUBLE_EQ(rate(64), roomy_rate(64));
}

/// Every partition and batch, one by one.
double best_by_hand(const GpuRequest& request, std::int32_t devices, double slo_us) {
  double best = 0;
  for (std::int32_t tensor = 1; tensor <= std::min(devices, 8); tensor *= 2) {
    for (std::int32_t stages = 1; tensor * stages <= devices; ++stages) {
      for (std::int32_t batch = 1; batch <= 600; ++batch) {
        try {
          const GpuPlan plan = gpu_plan(request, {tensor, stages, batch, stages});
          best = plan.tpot_us <= slo_us ? std::max(best, plan.tokens_per_second) : best;
        } catch (const DoesNotFit&) {
          break;
        }
      }
    }
  }
  return best;
}

TEST(BestGpuPlan, IsTheBestOfAllPartitionsAndBatches) {
  for (const auto& [devices, slo_us] : {std::pair{4, 20e3}, std::pair{8, 5e3}, std::pair{8, 3e3}}) {
    const GpuRequest request = request_of("llama-3-8b");
    const std::optional<GpuPlan> plan = best_gpu_plan(request, devices, slo_us);
    ASSERT_TRUE(plan.has_value());
    EXPECT_LE(plan->tpot_us, slo_us);
    EXPECT_GE(plan->tokens_per_second, 0.999 * best_by_hand(request, devices, slo_us)) << devices << " " << slo_us;
  }
}

TEST(BestGpuPlan, NothingMeetsAnImpossibleSlo) {
  EXPECT_FALSE(best_gpu_plan(request_of("llama-2-70b"), 64, 100).has_value());
  GpuRequest wide = request_of("llama-2-70b");
  wide.compute = Compute::kFp16;
  EXPECT_FALSE(best_gpu_plan(wide, 1, 1e6).has_value());
  EXPECT_FALSE(best_replicated_gpu_plan(wide, 1, 1e6).has_value());
  EXPECT_FALSE(fastest_gpu_plan(wide, 1).has_value());
}

TEST(BestGpuPlan, ReplicasAreNeverWorseThanOneInstance) {
  const GpuRequest request = request_of("mixtral-8x7b");
  for (const std::int32_t devices : {1, 2, 7, 8, 16, 40, 128}) {
    for (const double slo_us : {5e3, 10e3, 50e3}) {
      const std::optional<GpuPlan> one = best_gpu_plan(request, devices, slo_us);
      const std::optional<GpuPlan> many = best_replicated_gpu_plan(request, devices, slo_us);
      ASSERT_EQ(one.has_value(), many.has_value());
      if (many) {
        EXPECT_GE(many->tokens_per_second, one->tokens_per_second);
        EXPECT_EQ(many->devices_idle, devices - many->replicas * many->partition.devices());
        EXPECT_GE(many->devices_idle, 0);
        EXPECT_EQ(many->users, std::int64_t{many->replicas} * many->partition.users());
        EXPECT_DOUBLE_EQ(many->tokens_per_second, many->tokens_per_second_per_user * double(many->users));
        EXPECT_NEAR(many->power_kw, 10.2 * devices / 8, 1e-9 * devices);
        EXPECT_NEAR(many->price_usd, 350e3 * devices / 8, 1e-3);
      }
    }
  }
}

TEST(BestGpuPlan, ReplicasScaleWithTheDevices) {
  const GpuRequest request = request_of("llama-2-70b");
  const double eight = best_replicated_gpu_plan(request, 8, 50e3)->tokens_per_second;
  EXPECT_DOUBLE_EQ(best_replicated_gpu_plan(request, 64, 50e3)->tokens_per_second, 8 * eight);
}

TEST(FastestGpuPlan, OneUserIsServedByAWholeNodeAndNotByMore) {
  GpuRequest request = request_of("llama-2-70b");
  const GpuPlan node = *fastest_gpu_plan(request, 8);
  EXPECT_EQ(node.partition.tensor_parallel, 8);
  EXPECT_EQ(node.users, 1);
  const GpuPlan many = *fastest_gpu_plan(request, 64);
  EXPECT_EQ(many.tpot_us, node.tpot_us);
  EXPECT_EQ(many.devices_idle, 56);
  // The cliff: twice the GPUs and NCCL over the network are slower than one node.
  request.crosses_nodes = true;
  EXPECT_GT(gpu_plan(request, {.tensor_parallel = 16}).tpot_us, 1.3 * node.tpot_us);
}

TEST(FastestGpuPlan, NumaAndPcieCostATokenMostOfItsTime) {
  const GpuPlan nvlink = *fastest_gpu_plan(request_of("llama-2-70b", "dgx-a100"), 8);
  const GpuPlan pcie = gpu_plan(request_of("llama-2-70b", "hgx-pcie-numa"), {.tensor_parallel = 8});
  EXPECT_GT(pcie.parts.all_reduce_us, 4 * nvlink.parts.all_reduce_us);
}

/// A number that depends on all that the model knows: plans of both kinds of model, and every way to reduce.
double probe(GpuRequest request) {
  double sum = 0;
  for (const std::int32_t ranks : {2, 4, 8, 16, 32}) {
    const interconnect::NcclGroup group{
        request.system.nccl, request.system.fabric, request.system.gpu.architecture, ranks};
    for (double bytes = 64; bytes < 1e10; bytes *= 1.09) {
      for (const interconnect::NcclCost& cost : interconnect::nccl_all_reduce_costs(group, bytes)) {
        sum += cost.microseconds;
      }
      sum += interconnect::engine_all_reduce_us(group, bytes) + interconnect::ideal_all_reduce_us(group, bytes);
    }
  }
  request.counts_host_step = true;
  for (const char* model : {"llama-3-8b", "mixtral-8x7b"}) {
    request.model = load_model_preset(test::preset_file("models", model)).model;
    for (const Compute compute : {Compute::kW8A8, Compute::kFp16, Compute::kFp32Reference}) {
      request.compute = compute;
      for (const GpuTier tier : {GpuTier::kRoofline, GpuTier::kNccl, GpuTier::kEngine}) {
        request.tier = tier;
        for (const GpuPartition& partition :
             {GpuPartition{8, 2, 1, 1}, GpuPartition{4, 2, 512, 2}, GpuPartition{8, 2, 4096, 1}}) {
          GpuRequest short_context = request;
          short_context.context = 16;
          const GpuPlan plan = gpu_plan(short_context, partition);
          sum += plan.tpot_us + plan.power_kw + plan.price_usd + double(plan.users_fit);
        }
      }
    }
  }
  return sum;
}

/// Fields that change nothing although a tenth of them is taken away.
template <typename Spec>
std::vector<std::string> idle_fields(const std::vector<GpuRequest>& requests,
                                     std::span<const node::PresetField<Spec>> fields,
                                     const std::function<Spec&(GpuRequest&)>& part) {
  std::vector<std::string> out;
  for (const node::PresetField<Spec>& field : fields) {
    bool is_idle = true;
    for (const GpuRequest& request : requests) {
      GpuRequest changed = request;
      Spec& spec = part(changed);
      if (const auto* number = std::get_if<double Spec::*>(&field.member)) {
        spec.*(*number) *= 0.9;
      } else if (const auto* count = std::get_if<std::int32_t Spec::*>(&field.member)) {
        spec.*(*count) -= 1;
      } else if (const auto* list = std::get_if<std::vector<double> Spec::*>(&field.member)) {
        for (double& value : spec.*(*list)) {
          value = field.name.ends_with("_sockets") ? 0 : 0.9 * value;
        }
      } else {
        is_idle = false;  // a word
      }
      try {
        is_idle = is_idle && probe(changed) == probe(request);
      } catch (const node::InputError&) {
        is_idle = false;  // it decides what is possible
      }
    }
    if (is_idle) {
      out.emplace_back(field.name);
    }
  }
  return out;
}

TEST(GpuConstants, EachDecidesSomething) {
  const std::vector<GpuRequest> requests = {request_of("llama-3-8b", "dgx-h100"),
                                            request_of("llama-3-8b", "dgx-a100"),
                                            request_of("llama-3-8b", "hgx-pcie-numa")};
  using Idle = std::vector<std::string>;
  EXPECT_EQ(idle_fields<node::GpuSpec>(
                requests, node::gpu_fields(), [](GpuRequest& r) -> node::GpuSpec& { return r.system.gpu; }),
            Idle());
  EXPECT_EQ(
      idle_fields<interconnect::GpuFabric>(requests,
                                           interconnect::gpu_fabric_fields(),
                                           [](GpuRequest& r) -> interconnect::GpuFabric& { return r.system.fabric; }),
      Idle());
  EXPECT_EQ(idle_fields<interconnect::NcclSpec>(requests,
                                                interconnect::nccl_fields(),
                                                [](GpuRequest& r) -> interconnect::NcclSpec& { return r.system.nccl; }),
            Idle());
}

}  // namespace
}  // namespace lpu::scheduler
