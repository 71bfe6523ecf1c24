#pragma once
#include <cstdint>

#include "lpu/node/iteration.hpp"
#include "lpu/node/program.hpp"

namespace lpu::node {

/// Which value a row of a tensor is, on one chip and in one iteration, in 8 bytes: a fold of (name, absolute layer,
/// group position of the owner or none, row in the owner's part, and per scope nothing | user | (group of users,
/// token)). Two chips that hold the same value hold the same id, whatever address it has.
///
/// @param row  row in this chip's numbering, base register's displacement included
/// @param user_slot  kCache only
[[nodiscard]] std::uint64_t value_id(const Tensor& tensor,
                                     const ChipBinding& binding,
                                     const IterationPlan& plan,
                                     std::int64_t k,
                                     std::int32_t row,
                                     std::int32_t user_slot);

/// The part of value_base that no iteration changes: a fold of (name, absolute layer, owner).
/// @param name  digest_text(tensor.name), which chips of one text share
[[nodiscard]] std::uint64_t value_origin(const Tensor& tensor,
                                         std::uint64_t name,
                                         const ChipBinding& binding,
                                         std::int32_t slot);

/// The part of value_id that all rows of one owner share in one iteration: fold(value_base(…), row in the part) ==
/// value_id(…). Hoisted by the emulator, which needs an id for every vector on the wires.
/// @param slot  gathered slot (row / rows_per_slot); 0 for other tensors
[[nodiscard]] std::uint64_t value_base(const Tensor& tensor,
                                       const ChipBinding& binding,
                                       const IterationPlan& plan,
                                       std::int64_t k,
                                       std::int32_t slot,
                                       std::int32_t user_slot);

}  // namespace lpu::node
