#pragma once
#include <cstdint>

#include "lpu/cluster/presets.hpp"
#include "lpu/scheduler/checkpoint.hpp"
#include "lpu/scheduler/compile.hpp"

namespace lpu::test {

/// A checkpoint's program for one user of 128 positions, in fp32.
inline scheduler::ClusterProgram compile_checkpoint(const scheduler::Checkpoint& checkpoint,
                                                    std::int32_t chips,
                                                    std::int32_t tp,
                                                    std::int32_t pp) {
  scheduler::CompileRequest request;
  request.model = checkpoint.model();
  request.chip = cluster::load_chip("tsp-v1", "chip").chip;
  request.chips = chips;
  request.tensor_parallel = tp;
  request.pipeline_parallel = pp;
  request.users = 1;
  request.context = 128;
  request.compute = scheduler::Compute::kFp32Reference;
  request.kv = scheduler::KvType::kFp32;
  return scheduler::compile(request).program;
}

}  // namespace lpu::test
