#pragma once
#include "lpu/scheduler/compile.hpp"
#include "test_chip.hpp"

namespace lpu::test {

/// Two stages of two chips for two micro-batches of two users; every matrix is a vector or two wide.
inline scheduler::CompileRequest small_request() {
  scheduler::CompileRequest out;
  out.chip = tsp_v1();
  out.model = {.name = "small",
               .hidden = 96,
               .layers = 2,
               .heads = 4,
               .kv_heads = 2,
               .head_dim = 32,
               .ffn = 160,
               .vocabulary = 64,
               .max_position = 64,
               .rope = {}};
  out.chips = 4;
  out.tensor_parallel = 2;
  out.pipeline_parallel = 2;
  out.micro_batch = 2;
  out.users = 4;
  out.context = 16;
  return out;
}

/// The same with one layer and three experts, of which each token takes one.
inline scheduler::CompileRequest small_mixture_request() {
  scheduler::CompileRequest out = small_request();
  out.model.name = "small mixture";
  out.model.family = scheduler::ModelFamily::kMixtral;
  out.model.layers = 1;
  out.model.experts = 3;
  out.model.experts_per_token = 1;
  return out;
}

}  // namespace lpu::test
