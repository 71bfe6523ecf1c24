#pragma once
#include <cstdint>
#include <memory>

#include "lpu/node/numeric_chip.hpp"
#include "lpu/scheduler/checkpoint.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// Says what the rows of the chips' texts are in a checkpoint.
///
/// Which element of the model stands in which lane of which row follows from the model, the TP degree and the chip's
/// binding by the same rules that the compiler lays tensors out by (partition.hpp); a tensor is recognised by its name.
/// What is equal among chips (roles of a text's tensors, layouts, rotary tables) they share.
class NumericBinder {
 public:
  /// @param program  compiled for compute path fp32ref with micro-batch 1; it and the checkpoint must outlive the
  ///                 binder
  /// @throws InputError  a program of another compute path or batch
  NumericBinder(const ClusterProgram& program, const Checkpoint& checkpoint);
  ~NumericBinder();
  NumericBinder(const NumericBinder&) = delete;
  NumericBinder& operator=(const NumericBinder&) = delete;
  NumericBinder(NumericBinder&&) = delete;
  NumericBinder& operator=(NumericBinder&&) = delete;

  /// One chip's share; the binder and the binding must outlive it. @pre the binding has a text
  [[nodiscard]] std::unique_ptr<node::NumericModel> bind(const node::ChipBinding& binding);

  struct Common;

 private:
  std::unique_ptr<Common> common_;
};

/// Reads the rows of the checkpoint that the program's chips hold, and no others: chips without a text hold none.
/// @throws InputError  one of their weights is infinite or NaN; what NumericBinder() throws
void refuse_non_finite(const ClusterProgram& program, const Checkpoint& checkpoint);

}  // namespace lpu::scheduler
