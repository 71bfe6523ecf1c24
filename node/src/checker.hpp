#pragma once
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "check_matrix_unit.hpp"
#include "check_memory.hpp"
#include "check_site.hpp"
#include "check_streams.hpp"
#include "checked_text.hpp"
#include "lpu/node/burst_table.hpp"
#include "lpu/node/checked_chip.hpp"

namespace lpu::node {

inline constexpr std::int64_t kNeverBefore = std::numeric_limits<std::int64_t>::min();

/// One iteration under check.
struct Flight {
  std::int64_t iteration = 0;
  std::int64_t start = 0;            ///< on this chip, common clock
  std::size_t next = 0;              ///< in the text's events
  std::vector<InstanceEvent> moved;  ///< those that this iteration's displacements place
  std::size_t next_moved = 0;
  std::vector<Displacement> displacements;  ///< per register
  std::vector<std::uint64_t> bases;         ///< value bases; 0: not needed yet
};

/// Both ends of one link on this chip, as far as their queues go.
struct LinkEnds {
  std::int64_t last_push = kNeverBefore;
  std::int64_t last_take = kNeverBefore;
  std::int64_t free_at = kNeverBefore;  ///< first cycle in which a vector may start
  std::vector<std::int64_t> starts;     ///< of the last vectors sent, a ring as deep as the queue
  std::vector<std::int64_t> takes;      ///< of the last vectors received
  std::size_t next_start = 0;
  std::size_t next_take = 0;
};

/// The state of one chip under check: what every resource, stream, row and buffer holds.
class CheckedChip::Checker {
 public:
  Checker(const CheckedTextTables& tables,
          const ChipSpec& chip,
          const ChipBinding& binding,
          const IterationPlan& plan,
          std::int64_t iterations)
      : tables_(tables),
        text_(*tables.text),
        chip_(chip),
        binding_(binding),
        plan_(plan),
        iterations_(tables.events.empty() ? 0 : iterations),
        streams_(chip),
        memory_(tables),
        planes_(2 * static_cast<std::size_t>(chip.mxm_planes_per_hemisphere), MatrixPlane(chip)),
        alus_(static_cast<std::size_t>(chip.vxm_alus), kNeverBefore),
        queues_(static_cast<std::size_t>(tables.queues), kNeverBefore),
        links_(static_cast<std::size_t>(chip.links())) {
    for (LinkEnds& link : links_) {
      link.starts.assign(static_cast<std::size_t>(chip.link_queue_vectors), kNeverBefore);
      link.takes = link.starts;
    }
  }

  /// Checks all that happens before a cycle.
  void advance(std::int64_t until);
  void finish() const {
    for (const MatrixPlane& plane : planes_) {
      plane.check_nothing_left(binding_.chip);
    }
  }

 private:
  [[nodiscard]] const InstanceEvent* peek(const Flight& flight) const;
  [[nodiscard]] std::int64_t key(const Flight& flight) const;
  [[nodiscard]] std::int64_t next_opening() const;
  void open();
  void check_through(Flight& flight, std::int64_t limit);
  void check(Flight& flight, const InstanceEvent& event);
  void fetch(const Site& site, const Instruction& instruction);
  void dispatch(const Site& site, std::int32_t queue);
  void access(const Site& site, Flight& flight, const Instruction& instruction, const InstanceEvent& event);
  void append(
      const Site& site, Flight& flight, const Instruction& instruction, const InstanceEvent& event, Place place);
  void receive(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);
  void send(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);
  void operate(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);
  void install(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);
  void compute(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);
  void drain(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);

  void take_inputs(
      const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at, std::int32_t position);
  bool take(const Site& site,
            Flight& flight,
            const Instruction& instruction,
            const StreamOperand& operand,
            const LoopIndex& at,
            std::int32_t position,
            bool may_be_absent);
  void put_outputs(
      const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at, std::int32_t position);
  void put(const Site& site,
           Flight& flight,
           const Instruction& instruction,
           const StreamOperand& operand,
           const LoopIndex& at,
           std::int32_t position);

  [[nodiscard]] std::int32_t row_of(const Site& site,
                                    const Flight& flight,
                                    const Instruction& instruction,
                                    const StreamOperand& operand,
                                    const LoopIndex& at) const;
  [[nodiscard]] std::uint64_t value_of(const Site& site,
                                       Flight& flight,
                                       const Instruction& instruction,
                                       const StreamOperand& operand,
                                       std::int32_t row) const;
  [[nodiscard]] std::int32_t user_of(const Flight& flight, const Instruction& instruction) const {
    return plan_.group(flight.iteration) * plan_.micro_batch + user_in_batch(text_, instruction);
  }
  [[nodiscard]] std::string name(std::uint16_t tensor, std::int32_t row) const {
    return "row " + std::to_string(row) + " of '" + text_.tensors[tensor].name + "'";
  }
  [[nodiscard]] MatrixPlane& plane(const Instruction& instruction, const LoopIndex& at) {
    return planes_[static_cast<std::size_t>(static_cast<std::int64_t>(instruction.hemisphere) *
                                                chip_.mxm_planes_per_hemisphere +
                                            unit_of(instruction, at))];
  }

  const CheckedTextTables& tables_;
  const ChipProgram& text_;
  const ChipSpec& chip_;
  const ChipBinding& binding_;
  const IterationPlan& plan_;
  std::int64_t iterations_;
  std::int64_t next_iteration_ = 0;
  std::vector<std::unique_ptr<Flight>> flights_;
  StreamFile streams_;
  Memory memory_;
  std::vector<MatrixPlane> planes_;
  std::vector<std::int64_t> alus_;  ///< last cycle of each
  std::int64_t crossbars_[2] = {kNeverBefore, kNeverBefore};
  std::vector<std::int64_t> queues_;
  std::vector<LinkEnds> links_;
  std::int64_t fetch_cycle_ = kNeverBefore;
  std::int64_t fetched_ = 0;
};

}  // namespace lpu::node
