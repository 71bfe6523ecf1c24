#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "partition.hpp"

// What no schedule can beat, from the graph, its partition and the chip's constants alone: nothing here knows how an
// operator is lowered or looks at a program.

namespace lpu::scheduler {

struct HopPlan;

/// A resource of the busiest chip and the cycles that it is reserved for in an iteration.
struct ResourceUse {
  std::string resource;
  std::int64_t cycles = 0;
};

/// Reserved cycles of one chip of a stage per micro-batch, by resource, from counts alone.
///
/// Counted is what any schedule must reserve: installs, gathered and relayed vectors, operands read and written, ALUs
/// at one operation each. A round of the MXM is no resource.
///
/// @param entry, exit  cables before and after the stage; unused at the ends of the pipeline
[[nodiscard]] std::vector<ResourceUse> resource_uses(const CompileRequest& request,
                                                     const Shard& shard,
                                                     const ComputePath& path,
                                                     const Stage& stage,
                                                     const HopPlan& entry,
                                                     const HopPlan& exit);

/// The largest of them.
[[nodiscard]] std::int64_t interval_lower_bound(const CompileRequest& request,
                                                const Shard& shard,
                                                const ComputePath& path,
                                                const Stage& stage,
                                                const HopPlan& entry,
                                                const HopPlan& exit);

/// Of the cluster: its slowest stage's.
/// @param hops  between consecutive stages
[[nodiscard]] std::int64_t interval_lower_bound(const CompileRequest& request,
                                                const Shard& shard,
                                                const ComputePath& path,
                                                std::span<const Stage> stages,
                                                std::span<const HopPlan> hops);

/// A step of a token's longest dependency path.
struct PathStep {
  std::int32_t stage = 0;
  std::int32_t block = -1;  ///< of the model: 3 * layer + Block; -1: between stages, embedding, head
  std::string operator_name;
  std::int64_t cycles = 0;
};

/// The longest dependency path of a token, from the start of its iteration at the first stage to the cycle in which its
/// successor may start there; every operator at its own length, none waiting for another's unit.
///
/// What an operator costs at least:
/// - SRAM is touched where CHIP has it: at both ends of a hop, and by activations, which stand in both hemispheres. All
/// other
///   passes chain, scalars included, and each chain of up to 16 operations is one VXM pass.
/// - A matrix's first tile is installed before its activations arrive. Column blocks are finished one by one, so that
/// only
///   vectors of the last ones wait for wires. Activation slots block one plane's streams in two where planes are
///   separate.
/// - Unquantised activations are used as they arrive; the install port then bounds the pair of matrices (experts, too).
///
/// @param hops         between consecutive stages
/// @param return_hops  C2C hops of the new token from the last stage to the farthest chip of the first one; 0: one
/// stage
[[nodiscard]] std::vector<PathStep> latency_path(const CompileRequest& request,
                                                 const Shard& shard,
                                                 const ComputePath& path,
                                                 std::span<const Stage> stages,
                                                 std::span<const HopPlan> hops,
                                                 std::int32_t return_hops);

/// Length of that path.
[[nodiscard]] std::int64_t latency_lower_bound(const CompileRequest& request,
                                               const Shard& shard,
                                               const ComputePath& path,
                                               std::span<const Stage> stages,
                                               std::span<const HopPlan> hops,
                                               std::int32_t return_hops);

}  // namespace lpu::scheduler
