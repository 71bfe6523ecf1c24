#pragma once
#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "lpu/node/program.hpp"
#include "reservation_table.hpp"

namespace lpu::scheduler {

using BufferId = std::int32_t;
using VariableId = std::int32_t;
using PlacementId = std::int32_t;
using TensorId = std::uint16_t;

inline constexpr std::int64_t kUnset = std::numeric_limits<std::int64_t>::min();

/// Something finds no place in a crowded interval; the search drops that order of windows.
class NoSchedule : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Scratch SRAM that holds one tensor in one hemisphere: row r at slice + r mod width, address r / width (plus a base
/// that finish() gives, once it is known how many iterations live in it at a time).
struct Buffer {
  TensorId tensor = 0;
  node::Hemisphere hemisphere = node::Hemisphere::kWest;
  std::int32_t slice = 0;
  std::int32_t width = 1;
  std::int32_t rows = 0;
  std::int32_t first_row = 0;       ///< tensor row at buffer row 0
  std::int32_t phase = 0;           ///< bank of buffer row 0
  bool is_static = false;           ///< ready from the start, never written
  std::uint16_t base_register = 0;  ///< of a static buffer (rotary tables)
  std::vector<std::int64_t> ready;  ///< per row; kUnset until written
  std::vector<PlacementId> writer;  ///< per row
  std::int64_t first_write = std::numeric_limits<std::int64_t>::max();
  std::int64_t last_read = std::numeric_limits<std::int64_t>::min();
};

/// Where memory that is not scratch lies (weights, KV): an instruction's operand there is final when it is drafted.
struct Draft {
  node::Instruction instruction;                       ///< start relative to the template
  BufferId buffer = -1;                                ///< scratch operand of a read or write
  std::array<VariableId, 4> variable{-1, -1, -1, -1};  ///< per operand: stream to be chosen
  RegisterReach reach;
  std::uint64_t positions = ~std::uint64_t{0};  ///< chips of the TP group, by position, whose text has it
};

/// Streams of one value, chosen when the template is placed.
struct StreamVariable {
  std::int32_t streams = 1;
  std::int32_t first_choice = 0;
  std::int32_t last_choice = 31;
};

/// What has been placed: bookkeeping for the layer budget.
struct Placement {
  node::OperatorPart part = node::OperatorPart::kVxm;
  std::int64_t earliest = 0;  ///< when its inputs were there
  std::int64_t start = 0;
  std::int64_t end = 0;    ///< when its last output can be read
  PlacementId cause = -1;  ///< what it waited for
  std::int64_t activation_slots =
      0;  ///< GEMM windows: cycles of `end - start` in activation slots, and in fill and drain
  std::int64_t install = 0;
  std::int64_t sxm_trips = 0;
};

/// A few bursts whose times relative to each other are fixed: the unit that is placed.
struct Template {
  node::OperatorPart part = node::OperatorPart::kVxm;
  std::vector<Draft> drafts;
  std::vector<StreamVariable> variables;
  std::int64_t activation_slots = 0;
  std::int64_t sxm_trips = 0;   ///< cycles of its length that are trips to the SXM
  std::int64_t not_before = 0;  ///< an earliest start that no buffer says (accumulators)
  PlacementId after = -1;       ///< cause of not_before
  bool reads_own_rows = false;  ///< fused: some rows are written and read by the template itself

  VariableId value(std::int32_t streams, std::int32_t first_choice = 0, std::int32_t last_choice = 31) {
    variables.push_back({streams, first_choice, last_choice});
    return static_cast<VariableId>(variables.size()) - 1;
  }
};

/// One stage's program text while it is being scheduled: tensors, buffers, registers, and the reservation table.
class StageBuilder {
 public:
  /// @param period  initiation interval to schedule for; 0: one iteration in an empty machine
  StageBuilder(const node::ChipSpec& chip,
               std::int64_t period,
               std::int32_t scratch_slices,
               std::int64_t link_grid = 1);

  TensorId tensor(node::Tensor tensor);
  [[nodiscard]] const node::Tensor& tensor_at(TensorId id) const { return program_.tensors[id]; }
  void add_source(TensorId tensor, TensorId source);
  template <typename ActivationLike>
  void add_source(const ActivationLike& activation, TensorId source) {
    for (std::size_t half = 0; half < activation.tensor.size(); ++half) {
      if (activation.tiles[half] > 0) {
        add_source(activation.tensor[half], source);
      }
    }
  }
  std::uint16_t base_register(node::BaseRegister base);
  [[nodiscard]] const node::BaseRegister& register_at(std::uint16_t id) const { return program_.registers[id]; }
  std::uint16_t transfer(std::string name, std::int32_t layer_slot, std::int32_t vectors);
  void allocation(node::Allocation allocation) { program_.allocations.push_back(allocation); }

  BufferId buffer(TensorId tensor,
                  node::Hemisphere hemisphere,
                  std::int32_t slice,
                  std::int32_t width,
                  std::int32_t rows,
                  std::int32_t first_row = 0);
  BufferId static_buffer(TensorId tensor,
                         node::Hemisphere hemisphere,
                         std::int32_t slice,
                         std::int32_t width,
                         std::int32_t rows,
                         std::uint16_t base_register = 0,
                         std::int32_t copies = 1,
                         std::int32_t first_row = 0);
  [[nodiscard]] Buffer& at(BufferId id) { return buffers_[static_cast<std::size_t>(id)]; }
  /// Declare that a buffer's rows live on until `cycle` (what leaves the stage otherwise).
  void keep_until(BufferId id, std::int64_t cycle);

  /// Place at the first legal start >= max(earliest, when all inputs can be read).
  /// @throws node::BugError when no start within the horizon is free, with the resource that refused most often
  PlacementId place(const Template& shape, std::int64_t earliest = 0);
  /// As place(), but gives up after `attempts` starts: -1.
  PlacementId try_place(const Template& shape, std::int64_t earliest, std::int64_t attempts);
  /// What a template takes before it is placed.
  using Reservation = std::vector<ReservationTable::Cell>;
  /// Take what a template needs at `start`: nothing where it does not fit.
  [[nodiscard]] std::optional<Reservation> reserve(const Template& shape, std::int64_t start);
  /// Place a GEMM window for which resources were reserved: there, or at an earlier start that is free.
  /// @param planned  a start at the reserved point of the interval
  /// @param length   for which it holds the install ports, from its start on
  PlacementId place_reserved(const Template& shape,
                             std::int64_t planned,
                             std::int64_t length,
                             const Reservation& reservation);

  /// Whether a template has a place on an empty chip: its bursts do not meet one another on any unit.
  [[nodiscard]] bool fits_alone(const Template& shape) const;

  /// What refused most of the starts from `start` on: the first question when something comes late.
  [[nodiscard]] std::string why_refused(const Template& shape, std::int64_t start);
  [[nodiscard]] std::int64_t ready_time(const Template& shape, PlacementId* cause = nullptr) const;
  [[nodiscard]] const Placement& placement(PlacementId id) const { return placements_[static_cast<std::size_t>(id)]; }
  /// When `rows` rows of a buffer from tensor row `row` on can all be read.
  [[nodiscard]] std::int64_t ready(BufferId id, std::int32_t row, std::int32_t rows, PlacementId* cause) const;
  /// A GEMM window ends when its sums can be drained; `install` of its cycles are installs, the rest fill and drain.
  void end_window(PlacementId id, std::int64_t end, std::int64_t install);
  void end_placement(PlacementId id, std::int64_t end);
  /// What it really waited for, where that is no input (the MXM's install ports).
  void set_cause(PlacementId id, PlacementId cause);
  /// Something that happens outside of templates (a receive's arrival): rows of a buffer are readable from `cycle`.
  PlacementId event(node::OperatorPart part, std::int64_t start, std::int64_t end, PlacementId cause);

  /// Undo of placements that only read: what is placed after a checkpoint can be taken back by restore().
  [[nodiscard]] std::array<std::size_t, 3> checkpoint();
  void restore(const std::array<std::size_t, 3>& point);
  void keep() { keeps_log_ = false; }

  [[nodiscard]] LinkTable& links() { return links_; }
  [[nodiscard]] ReservationTable& table() { return table_; }
  [[nodiscard]] const node::ChipSpec& chip() const { return chip_; }
  [[nodiscard]] std::int64_t period() const { return period_; }
  [[nodiscard]] std::int32_t scratch_slices() const { return scratch_slices_; }
  [[nodiscard]] std::int64_t end_of_all() const;
  [[nodiscard]] const std::vector<Placement>& placements() const { return placements_; }
  [[nodiscard]] std::vector<node::Instruction>& instructions() { return program_.instructions; }

  /// Merge one-shots into bursts, give buffers their addresses and copies, sort, and hand the text over.
  /// @param initiation_interval  decides how many copies of a buffer live at a time
  /// @param limits  addresses that scratch may take, per scratch slice
  /// @param position  chip of the TP group whose text it is: instructions of other positions are left out
  [[nodiscard]] node::ChipProgram finish(std::int64_t initiation_interval,
                                         std::int32_t position,
                                         const std::vector<std::int32_t>& limits) const;
  /// Positions with equal texts: per position the first one that has the same instructions.
  [[nodiscard]] std::vector<std::int32_t> text_classes(std::int32_t positions) const;
  [[nodiscard]] const std::vector<std::uint64_t>& positions() const { return instruction_positions_; }

 private:
  struct Row {
    BufferId buffer;
    std::int32_t row;
    std::int64_t cycle;
  };
  template <typename Visit>
  void for_each_row(const Draft& draft, std::int64_t start, Visit&& visit) const;
  PlacementId commit(const Template& shape, std::int64_t start, const std::vector<std::int32_t>& streams);
  bool try_at(const Template& shape, std::int64_t start, std::vector<std::int32_t>& streams);

  const node::ChipSpec& chip_;
  std::int64_t period_;
  std::int32_t scratch_slices_;
  ReservationTable table_;
  LinkTable links_;
  node::ChipProgram program_;
  std::vector<Buffer> buffers_;
  std::vector<std::int32_t> static_copies_;
  std::vector<BufferId> instruction_buffer_;
  std::vector<std::uint64_t> instruction_positions_;
  bool keeps_log_ = false;
  std::int64_t busy_until_ = 0;
  std::vector<Placement> placements_;
};

/// Enter what an instruction computes, and from what, into the counts of its tensors.
void declare_operation(node::ChipProgram& text, const node::Instruction& instruction);

/// Join instructions that differ by a constant step in time, place and row into bursts.
void merge_bursts(std::vector<node::Instruction>& instructions, std::vector<BufferId>& buffers);

}  // namespace lpu::scheduler
