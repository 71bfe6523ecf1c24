#include "bounds.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/interconnect/route.hpp"
#include "placement.hpp"
#include "test_chip.hpp"

namespace lpu::scheduler {
namespace {

/// Two query heads of 160 lanes over one KV head: every matrix is one or two vectors wide.
CompileRequest tiny() {
  CompileRequest out;
  out.chip = test::tsp_v1();
  out.model = {.name = "tiny",
               .hidden = 320,
               .layers = 1,
               .heads = 2,
               .kv_heads = 1,
               .head_dim = 160,
               .ffn = 320,
               .vocabulary = 320,
               .max_position = 64,
               .rope = {}};
  out.chips = 1;
  out.context = 64;
  return out;
}

const Stage kWhole{.first_block = 0, .blocks = 3, .has_embedding = true, .has_head = true};

struct Parts {
  CompileRequest request;
  ComputePath path;
  Shard shard;
};
Parts parts(const CompileRequest& request, std::int32_t tensor_parallel) {
  return {request,
          make_path(request.compute, request.kv, request.chip),
          make_shard(request.model, tensor_parallel, request.chip)};
}

std::int64_t cycles_of(const std::vector<PathStep>& steps, const std::string& name) {
  const auto found =
      std::find_if(steps.begin(), steps.end(), [&](const PathStep& step) { return step.operator_name == name; });
  EXPECT_NE(found, steps.end()) << name;
  return found == steps.end() ? -1 : found->cycles;
}

TEST(LatencyBound, OneChipByHand) {
  // VXM pass 5, with exp or rsqrt 10; to the SXM 12, through it 10, to the MXM 13, through it 40; a write can be read
  // 21 cycles later. All lanes: three trips of 12 + 10 + 12 and two folds between: 112. Activations by SRAM to the
  // MXM: 34.
  constexpr std::int64_t kActivations = 13 + 21;
  constexpr std::int64_t kSums = 40 + 13;
  constexpr std::int64_t kAllLanes = 3 * 34 + 2 * 5;
  constexpr std::int64_t kNorm = 5 + kAllLanes + 10 + 5;
  constexpr std::int64_t kQuantise = kAllLanes + 10 + 5;
  constexpr std::int64_t kEmbedding = 1 + 5;
  constexpr std::int64_t kQueriesKeys =
      kActivations + (40 + 1 + 10 + 12 + 5) + kQuantise;              // one tile, there beforehand
  constexpr std::int64_t kScores = kActivations + 1 + 1 + kSums + 5;  // 16 columns of K^T; 2 queries
  constexpr std::int64_t kSoftmax = kAllLanes + 5 + 10 + kQuantise;
  constexpr std::int64_t kAttended = kActivations + 1 + kSums + 5;
  constexpr std::int64_t kOutput = kNorm + kActivations + kSums + 5;  // the quantisation is as long as the norm
  constexpr std::int64_t kGateUp = kNorm + kActivations + kSums + 10;
  constexpr std::int64_t kDown = kNorm + kActivations + kSums + 5;
  constexpr std::int64_t kHead = kNorm + kActivations + kSums + 5 + kAllLanes + 5 + 1 + 21;
  const Parts given = parts(tiny(), 1);
  EXPECT_EQ(latency_lower_bound(given.request, given.shard, given.path, std::vector{kWhole}, {}, 0),
            kEmbedding + kNorm + kQueriesKeys + kScores + kSoftmax + kAttended + kOutput + kGateUp + kDown + kHead);
}

TEST(LatencyBound, ALongMatrixTakesItsInstallsAndHalfItsSlots) {
  // 20 tiles of 320 rows, 1,280 columns: all but the first install after the activations are there; each vector blocks
  // one plane in two. Then 640 columns more.
  CompileRequest request = tiny();
  request.model.hidden = 6400;
  request.model.ffn = 960;
  const Parts given = parts(request, 1);
  const std::vector<PathStep> steps = latency_path(given.request, given.shard, given.path, std::vector{kWhole}, {}, 0);
  EXPECT_EQ(cycles_of(steps, "gate_up"), 34 + 19 * 20 + 20 * 10 + 39 / 2 + 1);
}

TEST(LatencyBound, HopsAndGathersByHand) {
  // Two chips a stage, a stage before and behind gate and up; 160 lanes of 2 bytes a chip: two vectors a gather.
  CompileRequest request = tiny();
  request.model.kv_heads = 2;
  const Parts given = parts(request, 2);
  const std::vector<Stage> stages{{.first_block = 0, .blocks = 2, .has_embedding = true},
                                  {.first_block = 2, .blocks = 1, .has_head = true}};
  constexpr std::int64_t kOut = 12 + 21;          // VXM, SRAM, link
  constexpr std::int64_t kLink = 24 + 217 + 256;  // the endpoint's 299 without 43 of reads and writes
  constexpr std::int64_t kIn = 21 + 12;
  constexpr std::int64_t kHop = 217 + 299 + 24;
  HopPlan direct;
  std::vector<PathStep> steps = latency_path(given.request, given.shard, given.path, stages, std::vector{direct}, 2);
  EXPECT_EQ(cycles_of(steps, "gather.residual"), kOut + 24 + kLink + kIn);
  EXPECT_EQ(cycles_of(steps, "gather.attention"), kOut + 24 + kLink + kIn);
  EXPECT_EQ(cycles_of(steps, "gather.attention_output"),
            kOut + 12 + 24 + kLink + kIn);  // places of 48 columns are joined
  EXPECT_EQ(cycles_of(steps, "hop"), kOut + 12 + 24 + kLink + kIn);
  EXPECT_EQ(cycles_of(steps, "hop.gather"), kHop);
  EXPECT_EQ(cycles_of(steps, "gather.candidate"), kOut + kLink + kIn);
  EXPECT_EQ(cycles_of(steps, "token.return"), 2 * kHop);
  // One cable for both chips: the other's two vectors come over a local link and go on over one.
  HopPlan shared;
  shared.block = 2;
  steps = latency_path(given.request, given.shard, given.path, stages, std::vector{shared}, 2);
  EXPECT_EQ(cycles_of(steps, "hop"), kOut + 12 + 24 + kLink + kIn + 2 * kHop);
}

TEST(IntervalBound, OneChipByHand) {
  const Parts given = parts(tiny(), 1);
  const std::vector<ResourceUse> uses = resource_uses(given.request, given.shard, given.path, kWhole, {}, {});
  const auto cycles = [&](const std::string& name) {
    return std::find_if(uses.begin(), uses.end(), [&](const ResourceUse& use) { return use.resource == name; })->cycles;
  };
  // Columns of a plane in groups of 16: q, k, v 640 / 4, output 320 / 4, gate and up, down, head; K^T 1 group, V 10.
  EXPECT_EQ(cycles("install port"), (10 + 5 + 10 + 5 + 5) + (1 + 10));
  EXPECT_EQ(cycles("local link"), 0);
  EXPECT_EQ(cycles("cable"), 0);
  // Activations take a stream each: five of matrices, queries of two heads once, probabilities once a plane.
  EXPECT_EQ(cycles("streams to the MXM"), 46 + 1);
  EXPECT_EQ(cycles("MXM compute"), 5 + 2 * 2);
  EXPECT_EQ(interval_lower_bound(given.request, given.shard, given.path, kWhole, {}, {}), 47);
}

TEST(IntervalBound, LinksByHand) {
  // Gathered: what enters, attention, its output, the hidden vector, the layer's output: 2 vectors each; 1 candidate.
  CompileRequest request = tiny();
  request.model.kv_heads = 2;
  const Parts given = parts(request, 2);
  const auto link = [&](const Stage& stage, const HopPlan& entry, const HopPlan& exit, std::size_t at) {
    return resource_uses(given.request, given.shard, given.path, stage, entry, exit)[at].cycles;
  };
  EXPECT_EQ(link(kWhole, {}, {}, 1), 24 * (5 * 2 + 1));
  HopPlan shared;
  shared.block = 2;
  const Stage middle{.first_block = 3, .blocks = 2};
  // Residual, attention and its output are gathered; the residual comes in; it and the hidden vector leave.
  EXPECT_EQ(link(middle, {}, {}, 1), 24 * 3 * 2);
  EXPECT_EQ(link(middle, {}, {}, 2), 24 * 4);
  EXPECT_EQ(link(middle, shared, {}, 1), 24 * (3 * 2 + 2));
  EXPECT_EQ(link(middle, {}, shared, 1), 24 * (3 * 2 + 4));
  EXPECT_EQ(link(middle, shared, shared, 2), 24 * 8);
}

struct Case {
  std::int32_t chips, tensor_parallel, pipeline_parallel, micro_batch;
  Compute compute;
  KvType kv;
};

class BoundsHold : public testing::TestWithParam<Case> {};

TEST_P(BoundsHold, NoProgramIsFaster) {
  const Case& given = GetParam();
  CompileRequest request;
  request.chip = test::tsp_v1();
  request.model = {.name = "small",
                   .hidden = 256,
                   .layers = 2,
                   .heads = 8,
                   .kv_heads = 4,
                   .head_dim = 32,
                   .ffn = 640,
                   .vocabulary = 256,
                   .max_position = 128,
                   .rope = {}};
  request.chips = given.chips;
  request.tensor_parallel = given.tensor_parallel;
  request.pipeline_parallel = given.pipeline_parallel;
  request.micro_batch = given.micro_batch;
  request.compute = given.compute;
  request.kv = given.kv;
  request.context = 128;
  const ClusterProgram program = compile(request).program;
  const auto [whole, path, shard] = parts(request, given.tensor_parallel);
  const std::vector<Stage> stages = cut_stages(request, shard, path, given.pipeline_parallel);
  const interconnect::Topology topology = interconnect::make_topology(request.chip, given.chips);
  const auto groups = place_groups(topology, given.tensor_parallel, given.pipeline_parallel);
  std::vector<HopPlan> hops;
  for (std::size_t s = 0; s + 1 < groups.size(); ++s) {
    hops.push_back(plan_hop(topology, groups[s], groups[s + 1]));
  }
  std::int32_t return_hops = 0;
  for (const std::int32_t to : groups.front()) {
    std::int32_t least = groups.size() > 1 ? 1'000 : 0;
    for (const std::int32_t from : groups.back()) {
      least = std::min(least, interconnect::hops_from(topology, from)[static_cast<std::size_t>(to)]);
    }
    return_hops = std::max(return_hops, least);
  }
  const std::int64_t latency = latency_lower_bound(request, shard, path, stages, hops, return_hops);
  EXPECT_GE(program.token_latency, latency);
  EXPECT_LE(program.token_latency, 2 * latency);  // else one of the two lost its way
  EXPECT_GE(program.initiation_interval, interval_lower_bound(request, shard, path, stages, hops));
}

INSTANTIATE_TEST_SUITE_P(SmallModels,
                         BoundsHold,
                         testing::Values(Case{1, 1, 1, 1, Compute::kW8A8, KvType::kInt8},
                                         Case{8, 8, 1, 1, Compute::kW8A8, KvType::kInt8},
                                         Case{8, 2, 3, 2, Compute::kW8A8, KvType::kInt8},
                                         Case{16, 4, 4, 1, Compute::kW8A8, KvType::kInt8},
                                         Case{16, 8, 2, 1, Compute::kW8A16, KvType::kFp16},
                                         Case{16, 8, 2, 2, Compute::kFp16, KvType::kFp16}));

}  // namespace
}  // namespace lpu::scheduler
