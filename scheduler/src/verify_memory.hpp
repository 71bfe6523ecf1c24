#pragma once
#include <vector>

#include "verify_facts.hpp"
#include "verify_rows.hpp"

namespace lpu::scheduler::proof {

/// First and last of the accesses of one kind to a stored row, in an iteration.
struct AccessSpan {
  std::int64_t first = 0;
  std::int64_t last = 0;
  std::int32_t first_by = -1;  ///< instruction; -1: none
  std::int32_t last_by = -1;
  void include(std::int64_t earliest, std::int64_t latest, std::int32_t by);
};

/// When a stored row lives.
struct Life {
  AccessSpan writes;
  AccessSpan reads;
  std::int32_t plain_writes = 0;  ///< not masked
};

/// Every access of memory lies in an allocation of its tensor, at the row that it names; the static stays unwritten;
/// what is read has been written N + 1 cycles before, in this iteration; an append falls on its user's cache wherever
/// its position is.
///
/// @return per row of the index that is not static, when it lives
[[nodiscard]] std::vector<Life> prove_accesses(const TextFacts& facts, const RowIndex& index, Findings& findings);

/// Allocations lie inside the chip, caches apart for users that are in flight together, and no cell is given to two
/// rows that last: over all copies, users, experts, tokens and positions. Rows of iterations may share cells among
/// themselves.
///
/// @return per allocation, whether it is sound: its rows can be asked for their lives
[[nodiscard]] std::vector<bool> prove_cells(const TextFacts& facts, const RowIndex& index, Findings& findings);

/// No cell of the chip holds two things: allocations of all copies, users, experts, tokens and positions against each
/// other; rows of iterations may share a cell where their lives, also those of overlapping iterations, are apart.
void prove_places(const TextFacts& facts, const RowIndex& index, const std::vector<Life>& lives, Findings& findings);

}  // namespace lpu::scheduler::proof
