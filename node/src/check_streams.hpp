#pragma once
#include <cstdint>
#include <vector>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/instruction.hpp"

namespace lpu::node {

/// A value on its way over stream registers. It moves one register a cycle, so cycle - position (outward) or cycle +
/// position (inward) stays what it is: its diagonal.
struct StandingValue {
  std::int64_t diagonal = 0;
  std::uint64_t value = 0;
  std::int32_t row = 0;
  std::int32_t instruction = -1;
  std::int64_t iteration = 0;
  std::uint16_t tensor = 0;
  std::uint8_t lowest = 0;  ///< registers that it crosses
  std::uint8_t highest = 0;
};

/// What stands on the streams of one chip.
class StreamFile {
 public:
  explicit StreamFile(const ChipSpec& chip);

  [[nodiscard]] std::size_t lane(const StreamOperand& operand, std::int32_t number) const;
  [[nodiscard]] static std::int64_t diagonal(const StreamOperand& operand, std::int64_t cycle, std::int32_t position) {
    return operand.direction == Direction::kOutward ? cycle - position : cycle + position;
  }
  /// Puts a value on a stream.
  /// @param now  nothing before this cycle will be asked for any more
  /// @return what stands in one of its registers already, or nullptr
  const StandingValue* put(std::size_t lane, const StandingValue& value, std::int64_t now);
  /// What stands at `position` of the diagonal, or nullptr.
  [[nodiscard]] const StandingValue* find(std::size_t lane, std::int64_t diagonal, std::int32_t position) const;

 private:
  void drop_passed(std::size_t lane, std::int64_t now);

  std::int32_t streams_;
  struct Lane {
    std::vector<StandingValue> standing;
    std::size_t crowded = 16;  ///< values from which on passed ones are dropped
  };
  std::vector<Lane> lanes_;
};

}  // namespace lpu::node
