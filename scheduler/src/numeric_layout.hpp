#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "lpu/node/numeric_value.hpp"
#include "lpu/node/program.hpp"
#include "partition.hpp"

namespace lpu::scheduler {

/// What the elements of a vector are numbered by.
enum class Space : std::uint8_t { kHidden, kAttention, kFfn };

/// Where the elements of vectors and matrices lie on one chip of a TP group: the compiler's own layout, read backwards.
class NumericLayout {
 public:
  NumericLayout(const ModelConfig& model,
                const Shard& shard,
                const ComputePath& path,
                const node::ChipBinding& binding);

  /// Lanes of group `group` of a gathered vector's slot.
  [[nodiscard]] node::LanesPtr gathered(Space space, std::int32_t slot, std::int32_t group) const;
  /// Lanes of MXM row `tile` of a half (0 west, 1 east).
  [[nodiscard]] node::LanesPtr row(Space space, std::int32_t half, std::int32_t tile) const;
  /// Likewise, before what both halves' last rows hold is put together.
  [[nodiscard]] node::LanesPtr joined(Space space, std::int32_t half, std::int32_t tile) const;
  /// Lanes of a K tile of a matrix: west rows, then east rows.
  [[nodiscard]] node::LanesPtr tile(Space space, std::int32_t tile) const;
  /// Elements of a local query head's output; -1 where the chip has no such head.
  [[nodiscard]] node::Lanes head(std::int32_t local) const;

  /// First element and number of elements of this chip's part of `total`.
  struct Part {
    std::int64_t first = 0;
    std::int64_t count = 0;
  };
  [[nodiscard]] Part own_part(std::int64_t total) const { return part(total, position_); }
  /// Head of the model that a local one is; -1: none.
  [[nodiscard]] std::int64_t query_head(std::int32_t owner, std::int32_t local) const;
  [[nodiscard]] std::int64_t kv_head(std::int32_t owner, std::int32_t local) const;
  [[nodiscard]] std::int32_t position() const { return position_; }
  [[nodiscard]] const Shard& shard() const { return shard_; }
  [[nodiscard]] const ComputePath& path() const { return path_; }
  [[nodiscard]] const Packing& packing(Space space) const;

 private:
  [[nodiscard]] Part part(std::int64_t total, std::int32_t owner) const;
  [[nodiscard]] std::int32_t element(Space space, std::int32_t slot, std::int32_t index) const;
  /// All lanes of a half's slots, one behind the other.
  [[nodiscard]] node::Lanes half_lanes(Space space, std::int32_t half) const;
  [[nodiscard]] node::LanesPtr added(Space space, std::int32_t half, std::int32_t tile) const;
  [[nodiscard]] std::int32_t first_slot(std::int32_t half) const { return half == 0 ? 0 : shard_.west_slots(); }
  [[nodiscard]] std::int32_t slots(std::int32_t half) const {
    return half == 0 ? shard_.west_slots() : shard_.east_slots();
  }
  /// The layout made once, so that equal layouts are one object.
  [[nodiscard]] node::LanesPtr shared(node::Lanes lanes) const;

  const ModelConfig& model_;
  Shard shard_;
  ComputePath path_;
  std::vector<std::int32_t> slot_owner_;
  std::int32_t position_ = 0;
  mutable std::map<node::Lanes, node::LanesPtr> made_;
  mutable std::map<std::array<std::int32_t, 4>, node::LanesPtr> known_;
};

}  // namespace lpu::scheduler
