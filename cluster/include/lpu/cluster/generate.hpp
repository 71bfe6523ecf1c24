#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "lpu/interconnect/payload_transport.hpp"
#include "lpu/node/sampling.hpp"
#include "lpu/node/simd_target.hpp"
#include "lpu/scheduler/checkpoint.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::cluster {

struct GenerateOptions {
  std::vector<std::int64_t> prompt;  ///< token ids, at least one
  std::int64_t new_tokens = 1;
  node::SimdTarget simd = node::SimdTarget::kScalar;
  node::Sampling sampling;
  std::function<void(std::int64_t steps_done, std::int64_t steps)> progress{};  ///< called now and then
  interconnect::PayloadTamperer tamperer{};                                     ///< for tests
};

/// Where the wall time of the ranks went, in seconds of a rank, all ranks together.
struct TimeUse {
  double kernels_s = 0;  ///< arithmetic
  double moving_s = 0;   ///< vectors: to bytes and back, onto links and off them, between ranks
  double waiting_s = 0;  ///< for vectors of other ranks
  double other_s = 0;    ///< bookkeeping of bursts, rows and streams
};

struct GenerateResult {
  std::vector<std::int64_t> new_ids;
  std::vector<float> logits_after_prompt;  ///< (vocabulary,)
  std::uint64_t result_digest = 0;         ///< of the new tokens and of all logits that chose them
  std::uint64_t fold = 0;          ///< of the execution: every instance and every byte on the links, chip by chip
  std::int64_t vectors_moved = 0;  ///< over links, in all iterations
  std::int64_t bytes_moved = 0;
  int ended_by_signal = 0;        ///< 0: complete; else tokens are those that were ready, and digests are of no use
  double wall_s = 0;              ///< of the numeric plane
  std::int64_t memory_bytes = 0;  ///< proportional set size of all ranks at its end; 0: not measured
  TimeUse time;
};

/// @throws InputError  no prompt, token ids outside the vocabulary, more tokens than the program's context
void check_generation(const scheduler::ClusterProgram& program,
                      const scheduler::Checkpoint& checkpoint,
                      const GenerateOptions& options);

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
