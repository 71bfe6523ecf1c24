#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lpu/node/sampling.hpp"
#include "lpu/node/simd_target.hpp"
#include "lpu/scheduler/checkpoint.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::cluster {

/// For tests: may change a vector on its way from a chip's link.
using PayloadTamperer = std::function<void(std::int32_t chip, std::int32_t link, std::span<std::byte> vector)>;

struct GenerateOptions {
  std::vector<std::int64_t> prompt;  ///< token ids, at least one
  std::int64_t new_tokens = 1;
  node::SimdTarget simd = node::SimdTarget::kScalar;
  node::Sampling sampling;
  PayloadTamperer tamperer;
};

struct GenerateResult {
  std::vector<std::int64_t> new_ids;
  std::vector<float> logits_after_prompt;  ///< (vocabulary,)
  std::uint64_t result_digest = 0;         ///< of the new tokens and of all logits that chose them
  std::uint64_t fold = 0;          ///< of the execution: every instance and every byte on the links, chip by chip
  std::int64_t vectors_moved = 0;  ///< over links, in all iterations
  std::int64_t bytes_moved = 0;
};

/// Real tokens: executes the program's bursts on a checkpoint's numbers, the chips of the cluster in this process.
///
/// The prompt goes through the decode program token by token, position k in iteration k.
///
/// @param program  compiled for the checkpoint's model, compute path fp32ref, micro-batch 1
/// @throws InputError         token ids outside the vocabulary, more tokens than the program's context, another program
/// @throws ScheduleViolation  an operand that is not there; chips that wait for each other
[[nodiscard]] GenerateResult generate(const scheduler::ClusterProgram& program,
                                      const scheduler::Checkpoint& checkpoint,
                                      const GenerateOptions& options);

}  // namespace lpu::cluster
