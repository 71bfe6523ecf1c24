#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/iteration.hpp"
#include "lpu/node/numeric_value.hpp"
#include "lpu/node/port.hpp"
#include "lpu/node/program.hpp"

namespace lpu::node {

/// What a pass means by its output, where its opcode alone does not say it.
enum class NumericRole : std::uint8_t {
  kPlain,
  kKey,           ///< a key that is appended: the column of its position
  kValue,         ///< a value that is appended
  kValueColumns,  ///< its numbers one by one; row r holds element r mod the head's padded width
  kValueCache,
  kScores,     ///< q · k, scaled, of the visible positions
  kRouter,     ///< a step of the routing: the logits go on
  kChoices,    ///< the routing's answer
  kWeighted,   ///< an expert's output, to be multiplied by its weight
  kCandidate,  ///< largest logit and its id
  kToken,
  kLogits,
};

/// How a program's tensors stand for a model's: what the loader of a checkpoint knows and a chip does not.
///
/// The chip may assume that answers do not change and that values outlive it.
class NumericModel {
 public:
  NumericModel() = default;
  NumericModel(const NumericModel&) = delete;
  NumericModel& operator=(const NumericModel&) = delete;
  NumericModel(NumericModel&&) = delete;
  NumericModel& operator=(NumericModel&&) = delete;
  virtual ~NumericModel() = default;

  [[nodiscard]] virtual NumericRole role(std::uint16_t tensor) const = 0;
  /// A row of a static tensor.
  [[nodiscard]] virtual Cell static_row(std::uint16_t tensor, std::int32_t row) = 0;
  /// Layout of the vector that a row belongs to; null: as the pass leaves it.
  [[nodiscard]] virtual LanesPtr lanes(std::uint16_t tensor, std::int32_t row) const = 0;
  /// kWeighted: which expert slot.
  [[nodiscard]] virtual std::int32_t expert_slot(std::uint16_t tensor) const = 0;
  [[nodiscard]] virtual std::int32_t value_width() const = 0;  ///< rows of kValueColumns a byte
  [[nodiscard]] virtual float score_scale() const = 0;
  [[nodiscard]] virtual std::int64_t window() const = 0;  ///< sliding window, 0: none
  [[nodiscard]] virtual float rms_epsilon() const = 0;
  [[nodiscard]] virtual std::int64_t experts_per_token() const = 0;
};

/// A text's instances in the order in which they take effect, and where its static rows lie; shared by its chips.
class NumericText {
 public:
  NumericText(const ChipProgram& text, const ChipSpec& chip, const IterationPlan& plan);
  ~NumericText();
  NumericText(NumericText&&) noexcept;
  NumericText& operator=(NumericText&&) = delete;
  NumericText(const NumericText&) = delete;
  NumericText& operator=(const NumericText&) = delete;

  struct Tables;
  [[nodiscard]] const Tables& tables() const { return *tables_; }

 private:
  std::unique_ptr<Tables> tables_;
};

class StreamRings;
struct NumericSnapshot;

/// What the chips of one process need while they run, which they do one at a time: stream registers.
class NumericBench {
 public:
  explicit NumericBench(const ChipSpec& chip);
  ~NumericBench();
  NumericBench(NumericBench&&) noexcept;
  NumericBench& operator=(NumericBench&&) = delete;
  NumericBench(const NumericBench&) = delete;
  NumericBench& operator=(const NumericBench&) = delete;

  [[nodiscard]] StreamRings& streams() { return *streams_; }

 private:
  std::unique_ptr<StreamRings> streams_;
};

/// Links of one chip, as its numbers see them: vectors of bytes, in the order of their pushes.
///
/// Implementations neither block nor change what they carry.
class PayloadPort {
 public:
  PayloadPort() = default;
  PayloadPort(const PayloadPort&) = delete;
  PayloadPort& operator=(const PayloadPort&) = delete;
  PayloadPort(PayloadPort&&) = delete;
  PayloadPort& operator=(PayloadPort&&) = delete;
  virtual ~PayloadPort() = default;
  virtual void send(std::int32_t link, std::span<const std::byte> vector) = 0;
  /// Something has come that nobody took.
  [[nodiscard]] virtual bool has_vector(std::int32_t link) const = 0;
  /// The oldest vector that has come, taken off the link.
  /// @return false: nothing has come yet
  [[nodiscard]] virtual bool receive(std::int32_t link, std::span<std::byte> vector) = 0;
};

/// Where a chip's wall time in the numeric plane went; the rest is bookkeeping of bursts and rows.
struct NumericTimes {
  std::chrono::nanoseconds kernels{};  ///< arithmetic of the passes
  std::chrono::nanoseconds moving{};   ///< to links and from them
};

/// One chip in the numeric plane: executes its text's instances in their order, on numbers.
///
/// Operands are taken where the instruction says: rows of SRAM by address, streams by register and cycle. It does not
/// check the schedule: that is the business of verify and of CheckedChip. Between iterations it holds its cache alone.
class NumericChip {
 public:
  /// All arguments must outlive it.
  NumericChip(const NumericText& text,
              NumericBench& bench,
              const ChipSpec& chip,
              const ChipBinding& binding,
              const IterationPlan& plan,
              NumericModel& model,
              const NumericKernels& kernels,
              PayloadPort& port);
  ~NumericChip();
  NumericChip(NumericChip&&) noexcept;
  NumericChip& operator=(NumericChip&&) = delete;
  NumericChip(const NumericChip&) = delete;
  NumericChip& operator=(const NumericChip&) = delete;

  /// Begins iteration k: position k, of a text whose next token is `token`.
  void begin(std::int64_t k, std::int32_t token);
  /// Executes until a row is missing on a link or the iteration is done.
  /// @return whether it is done
  /// @throws ScheduleViolation  an operand that is not there, a pass without meaning in the numeric plane
  bool run();
  /// What it waits for, and on which link. @pre the last run() was not done
  [[nodiscard]] Wait wait() const;
  [[nodiscard]] std::int32_t waits_on() const;
  /// The text takes the iteration's token: its chips hold the embedding.
  [[nodiscard]] bool takes_token() const;
  [[nodiscard]] const NumericTimes& times() const;
  /// Fold of all instances executed and all vectors sent and taken.
  [[nodiscard]] std::uint64_t fold() const;
  /// Token that the iteration chose, on chips that hold it; -1: none came by.
  [[nodiscard]] std::int32_t token() const;
  /// Logits that this chip computed in the iteration: labels and numbers.
  [[nodiscard]] std::span<const ValuePtr> logits() const;

  /// What it goes on from, here or elsewhere. @pre no iteration is under way
  [[nodiscard]] NumericSnapshot snapshot() const;
  /// @pre   nothing was executed yet
  /// @throws InputError  a state that no chip can have
  void restore(const NumericSnapshot& from);

 private:
  class Machine;
  std::unique_ptr<Machine> machine_;
};

}  // namespace lpu::node
