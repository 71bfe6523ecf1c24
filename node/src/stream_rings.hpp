#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/instruction.hpp"
#include "lpu/node/numeric_value.hpp"

namespace lpu::node {

/// What stands in the stream registers of the chip whose turn it is, per hemisphere, direction and stream a ring of
/// diagonals.
///
/// The chips of a process take turns: there are rings for one of them, and what is on its way when a chip has to wait
/// for another goes with it (a few rows, where rings would be 2 KB a stream).
class StreamRings {
 public:
  explicit StreamRings(const ChipSpec& chip);

  /// Something that stands on a stream.
  struct Rider {
    std::int32_t row = 0;  ///< of the rings
    std::int32_t stream = 0;
    std::int32_t diagonal = 0;
    Cell cell;
  };
  /// From now on nothing stands anywhere.
  void clear();
  /// What can still be taken in that cycle or later.
  [[nodiscard]] std::vector<Rider> riders(std::int64_t cycle) const;
  void bring_back(const std::vector<Rider>& riders);

  /// Streams of one hemisphere and direction on one diagonal, as the operand's unit at `position` sees them.
  struct Diagonal {
    std::int32_t row = 0;
    std::int32_t number = 0;
  };
  [[nodiscard]] static Diagonal diagonal(const StreamOperand& operand, std::int64_t cycle, std::int32_t position) {
    const bool is_outward = operand.direction == Direction::kOutward;
    const auto number = static_cast<std::int32_t>(is_outward ? cycle - position : cycle + position);
    const auto quarter = 2 * static_cast<std::int32_t>(operand.hemisphere) + (is_outward ? 0 : 1);
    return {quarter * kRing + (number & (kRing - 1)), number};
  }
  /// @return nullptr: nothing stands there
  [[nodiscard]] const Cell* find(const Diagonal& at, std::int32_t stream) const {
    const Standing& standing = standings_[index(at.row, stream)];
    return standing.turn == turn_ && standing.diagonal == at.number ? &standing.cell : nullptr;
  }
  void put(const Diagonal& at, std::int32_t stream, const Cell& cell) {
    Standing& standing = standings_[index(at.row, stream)];
    standing.cell = cell;
    standing.diagonal = at.number;
    standing.turn = turn_;
    Row& row = rows_[static_cast<std::size_t>(at.row)];
    row = {row.turn == turn_ ? std::max(row.diagonal, at.number) : at.number, turn_};
  }

 private:
  static constexpr std::int32_t kRing = 64;  ///< diagonals: more cycles than a value is on its way
  struct Standing {
    Cell cell;
    std::int32_t diagonal = 0;
    std::uint32_t turn = 0;
  };
  /// The latest diagonal that something was put on.
  struct Row {
    std::int32_t diagonal = 0;
    std::uint32_t turn = 0;
  };
  [[nodiscard]] std::size_t index(std::int32_t row, std::int32_t stream) const {
    return static_cast<std::size_t>(row) * streams_ + static_cast<std::size_t>(stream);
  }

  std::size_t streams_;
  std::vector<Standing> standings_;  ///< per row of a quarter's ring: its streams
  std::vector<Row> rows_;
  std::uint32_t turn_ = 1;
};

}  // namespace lpu::node
