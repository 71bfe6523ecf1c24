#pragma once
#include <cstdint>
#include <memory>

#include "lpu/node/numeric_chip.hpp"
#include "lpu/scheduler/checkpoint.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// One chip's share of a checkpoint, as its text names it.
///
/// Which element of the model stands in which lane of which row follows from the model, the TP degree and the chip's
/// binding by the same rules that the compiler lays tensors out by (partition.hpp); a tensor is recognised by its name.
/// @param program  compiled for compute path fp32ref with micro-batch 1; it, the binding and the checkpoint must
/// outlive
///                 the result
/// @throws InputError  a program of another compute path or batch
[[nodiscard]] std::unique_ptr<node::NumericModel> bind_numbers(const ClusterProgram& program,
                                                               const node::ChipBinding& binding,
                                                               const Checkpoint& checkpoint);

/// Reads the rows of the checkpoint that the program's chips hold, and no others: chips without a text hold none.
/// @throws InputError  one of their weights is infinite or NaN; what bind_numbers() throws
void refuse_non_finite(const ClusterProgram& program, const Checkpoint& checkpoint);

}  // namespace lpu::scheduler
