#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "verify_burst.hpp"
#include "verify_facts.hpp"

namespace lpu::scheduler::proof {

/// Where static rows lie, asked for whole bursts: weights are most of what a chip reads, and a burst of them is mostly
/// a box inside the box of one allocation. What is not is cut along its shortest loop until it is, or is one instance.
class StaticRows {
 public:
  /// @param allocations  that count (RowIndex::allocations)
  StaticRows(const TextFacts& facts, std::span<const std::int32_t> allocations);

  /// An instance whose row does not lie where it is read; none: all do.
  [[nodiscard]] std::optional<Run> find_outside(const Instruction& instruction, const StreamOperand& operand);
  /// Some allocation's place of a row, for messages; none: nothing holds it.
  [[nodiscard]] std::optional<std::string> place_of_row(std::uint16_t tensor, std::int64_t row) const;

 private:
  using Step = std::array<std::int64_t, 3>;  ///< row, slice, address
  struct Box {
    std::int32_t allocation = 0;
    std::int32_t image_class = 0;
    node::Hemisphere hemisphere = node::Hemisphere::kWest;
    Step base{};
    Step lowest{};
    Step highest{};
    std::array<std::int32_t, 3> count{};
    std::array<Step, 3> step{};
    std::size_t longest = 0;  ///< loop that is solved for; the others are tried
  };
  struct Tensor {
    std::vector<Box> boxes;
    std::size_t last_hit = 0;
  };

  [[nodiscard]] static std::optional<std::array<std::int64_t, 3>> indices_of(const Box& box, const Step& at);
  [[nodiscard]] static bool covers(const Box& box, const Run& first, const std::array<Axis, 3>& axes);
  [[nodiscard]] std::optional<Run> outside(Tensor& tensor,
                                           const Instruction& instruction,
                                           const Run& first,
                                           std::array<Axis, 3> axes) const;

  const TextFacts& facts_;
  std::vector<Tensor> tensors_;
};

}  // namespace lpu::scheduler::proof
