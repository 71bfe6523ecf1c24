#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "lpu/node/numeric_value.hpp"
#include "lpu/node/program.hpp"
#include "partition.hpp"

namespace lpu::scheduler {

/// What the elements of a vector are numbered by.
enum class Space : std::uint8_t { kHidden, kAttention, kFfn };

/// Layouts of lanes: equal ones are one object.
class LanesPool {
 public:
  [[nodiscard]] node::LanesPtr shared(node::Lanes lanes);

 private:
  struct IsLess {
    using is_transparent = void;
    static const node::Lanes& lanes(const node::LanesPtr& pointer) { return *pointer; }
    static const node::Lanes& lanes(const node::Lanes& own) { return own; }
    bool operator()(const auto& a, const auto& b) const { return lanes(a) < lanes(b); }
  };
  std::set<node::LanesPtr, IsLess> made_;
};

/// Where the elements of vectors and matrices lie on one chip of a TP group: the compiler's own layout, read backwards.
class NumericLayout {
 public:
  /// All arguments must outlive it.
  NumericLayout(const ModelConfig& model, const Shard& shard, const node::ChipBinding& binding, LanesPool& pool);

  /// Lanes of group `group` of a gathered vector's slot.
  [[nodiscard]] node::LanesPtr gathered(Space space, std::int32_t slot, std::int32_t group) const;
  /// Lanes of MXM row `tile` of a half (0 west, 1 east).
  [[nodiscard]] node::LanesPtr row(Space space, std::int32_t half, std::int32_t tile) const;
  /// Likewise, before what both halves' last rows hold is put together.
  [[nodiscard]] node::LanesPtr joined(Space space, std::int32_t half, std::int32_t tile) const;
  /// Lanes of a K tile of a matrix: west rows, then east rows.
  [[nodiscard]] node::LanesPtr tile(Space space, std::int32_t tile) const;
  /// Elements of a local query head's output; -1 where the chip has no such head.
  [[nodiscard]] node::LanesPtr head(std::int32_t local) const;
  /// Elements of head `place` of those that the chip turns by their positions: its own numbers, west, then east.
  [[nodiscard]] node::LanesPtr turned(std::int32_t place) const;

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
  [[nodiscard]] const Packing& packing(Space space) const;

 private:
  [[nodiscard]] Part part(std::int64_t total, std::int32_t owner) const;
  [[nodiscard]] std::int32_t element(Space space, std::int32_t slot, std::int32_t index) const;
  /// All lanes of a half's slots, one behind the other.
  [[nodiscard]] node::Lanes half_lanes(Space space, std::int32_t half) const;
  [[nodiscard]] node::Lanes added(Space space, std::int32_t half, std::int32_t tile) const;
  [[nodiscard]] node::Lanes joined_lanes(Space space, std::int32_t half, std::int32_t tile) const;
  [[nodiscard]] node::Lanes gathered_lanes(Space space, std::int32_t slot, std::int32_t group) const;
  [[nodiscard]] node::Lanes row_lanes(Space space, std::int32_t half, std::int32_t tile) const;
  [[nodiscard]] std::int32_t first_slot(std::int32_t half) const { return half == 0 ? 0 : shard_.west_slots(); }
  [[nodiscard]] std::int32_t slots(std::int32_t half) const {
    return half == 0 ? shard_.west_slots() : shard_.east_slots();
  }
  enum class Kind : std::uint8_t { kGathered, kRow, kJoined, kHead, kTurned };
  /// What was asked before is answered as before.
  [[nodiscard]] node::LanesPtr known(
      Kind kind, Space space, std::int32_t first, std::int32_t second, const auto& make) const;

  const ModelConfig& model_;
  const Shard& shard_;
  const std::vector<std::int32_t>& slot_owner_;
  std::int32_t position_ = 0;
  LanesPool& pool_;
  mutable std::map<std::array<std::int32_t, 3>, node::LanesPtr> known_;
};

}  // namespace lpu::scheduler
