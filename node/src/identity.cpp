#include "lpu/node/identity.hpp"

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"

namespace lpu::node {

std::uint64_t value_origin(const Tensor& tensor, std::uint64_t name, const ChipBinding& binding, std::int32_t slot) {
  std::uint64_t id = fold(name, static_cast<std::uint64_t>(binding.first_layer + tensor.layer_slot));
  std::int64_t owner = -1;
  if (tensor.owner == TensorOwner::kChip) {
    owner = binding.group_position;
  } else if (tensor.owner == TensorOwner::kGathered) {
    LPU_CHECK(static_cast<std::size_t>(slot) < binding.slot_owner.size(), tensor.name);
    owner = binding.slot_owner[static_cast<std::size_t>(slot)];
  }
  return fold(id, static_cast<std::uint64_t>(owner + 1));
}

std::uint64_t value_base(const Tensor& tensor,
                         const ChipBinding& binding,
                         const IterationPlan& plan,
                         std::int64_t k,
                         std::int32_t slot,
                         std::int32_t user_slot) {
  const std::uint64_t id = value_origin(tensor, digest_text(tensor.name), binding, slot);
  switch (tensor.scope) {
    case TensorScope::kStatic:
      return id;
    case TensorScope::kCache:
      return fold(id, static_cast<std::uint64_t>(user_slot) + 1);
    case TensorScope::kIteration:
      return fold(fold(id, static_cast<std::uint64_t>(plan.group(k)) + 1),
                  static_cast<std::uint64_t>(plan.token(k)) + 1);
  }
  return id;
}

std::uint64_t value_id(const Tensor& tensor,
                       const ChipBinding& binding,
                       const IterationPlan& plan,
                       std::int64_t k,
                       std::int32_t row,
                       std::int32_t user_slot) {
  const std::int32_t slot = tensor.owner == TensorOwner::kGathered ? row / tensor.rows_per_slot : 0;
  const std::int32_t row_in_part = tensor.owner == TensorOwner::kGathered ? row % tensor.rows_per_slot : row;
  return fold(value_base(tensor, binding, plan, k, slot, user_slot), static_cast<std::uint64_t>(row_in_part));
}

}  // namespace lpu::node
