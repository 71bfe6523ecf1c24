#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "execution.hpp"
#include "lpu/cluster/generate.hpp"
#include "lpu/interconnect/payload_transport.hpp"
#include "lpu/node/numeric_chip.hpp"
#include "lpu/scheduler/numeric_binding.hpp"
#include "saved_generation.hpp"

namespace lpu::cluster {

/// What the chips of one rank left in the numeric plane when they ended, or were stopped.
struct NumericOutcome {
  std::map<std::int32_t, std::uint64_t> folds;  ///< per chip id: of its instances, of every byte that it sent and took
  std::int64_t vectors = 0;                     ///< sent
  TimeUse time;
};
/// Sums what ranks left.
void add(NumericOutcome& sum, const NumericOutcome& rank);
/// Puts the sum over all ranks into the result.
void put(const NumericOutcome& sum, const node::ChipSpec& chip, GenerateResult& result);

/// What rank 0 makes of logits and tokens: steps in their order, each as soon as all of it has come.
class Answers {
 public:
  /// @param vocabulary  logits of a step
  /// @param from        nullptr: they begin with the prompt
  Answers(const GenerateOptions& options, std::int64_t vocabulary, const SavedAnswers* from = nullptr);

  void add_logits(std::int64_t position, std::span<const std::int32_t> ids, std::span<const float> logits);
  /// The token that the program chose there.
  void add_token(std::int64_t position, std::int32_t token);
  /// A token that rank 0 drew: the next one.
  void put_token(std::int64_t position, std::int32_t token);
  /// Steps from this one on are not made.
  void stop_before(std::int64_t position) { end_ = position; }
  /// Completes what can be completed.
  /// @throws node::InputError  logits that are no finite numbers
  void complete();

  [[nodiscard]] std::int64_t completed() const { return next_; }  ///< steps
  [[nodiscard]] std::int64_t steps() const;                       ///< in all
  [[nodiscard]] std::int64_t end() const { return end_; }         ///< steps that are made: all, until stop_before()
  /// Token at a position: the prompt's, then those that were drawn or chosen; none: not yet.
  [[nodiscard]] std::optional<std::int64_t> token(std::int64_t position) const;
  [[nodiscard]] const GenerateResult& result() const { return result_; }
  /// @throws node::ScheduleViolation  a step that lacks a logit or its token
  void check_complete() const;

 private:
  struct Step {
    std::vector<float> logits;
    std::vector<bool> is_there;
    std::int64_t missing = 0;
    std::int32_t token = -1;
  };
  [[nodiscard]] Step& step(std::int64_t position);
  [[nodiscard]] bool is_greedy() const { return options_->sampling.temperature == 0.0; }

  const GenerateOptions* options_;
  std::int64_t vocabulary_;
  std::vector<std::int64_t> tokens_;
  std::map<std::int64_t, Step> steps_;  ///< begun, and not complete
  std::int64_t next_ = 0;
  std::int64_t end_ = 0;
  GenerateResult result_;
};

/// The numeric plane: the chips of one rank, their weights, the vectors between them.
///
/// The chips of stage 0 take the prompt's tokens, then those that the program itself returns to them; tokens that are
/// drawn from the logits come from rank 0. Every chip that computes logits sends them to rank 0.
class NumericRunner final : public Execution {
 public:
  /// @param program    chips of other ranks have no text here
  /// @param placement  names a rank for each chip at work
  /// @param exchange   nullptr: all chips are here
  /// @param from       the chips of this rank as they were stopped, and the answers; nullptr: they start
  /// All but the placement and the state must outlive the runner.
  /// @throws node::InputError  a program that was not compiled for the numeric plane; a weight of these chips that is
  ///                           no finite number; a saved state that is impossible for the program
  NumericRunner(const scheduler::ClusterProgram& program,
                const scheduler::Checkpoint& checkpoint,
                const GenerateOptions& options,
                interconnect::ChipPlacement placement,
                interconnect::RankExchange* exchange,
                const NumericState* from = nullptr);

  bool run_next() override;
  bool receive() override;
  [[nodiscard]] bool is_done() const override { return running_ == 0; }
  [[nodiscard]] std::vector<node::Wait> waits() const override;
  void check_nothing_left() override;
  [[nodiscard]] RunProgress progress() const override;
  [[nodiscard]] bool is_stoppable() const override { return true; }
  [[nodiscard]] std::int64_t next_token() const override;
  void stop_before(std::int64_t token) override;

  [[nodiscard]] std::optional<std::int64_t> stopped_before() const { return stopped_before_; }  ///< position
  /// The chips that are here, once all are stopped.
  [[nodiscard]] std::vector<SavedNumericChip> saved_chips() const;
  /// @param loop     where the time of the loop that ran the chips went
  /// @param seconds  all of the rank's time in the plane
  [[nodiscard]] NumericOutcome outcome(const LoopTimes& loop, double seconds) const;
  [[nodiscard]] const Answers& answers() const { return answers_; }  ///< rank 0's are whole

 private:
  enum class State : std::uint8_t { kReady, kWaitsForVector, kWaitsForToken, kDone };
  struct Chip {
    std::int32_t id = -1;
    std::unique_ptr<node::NumericModel> model;
    std::unique_ptr<node::NumericChip> numbers;
    State state = State::kReady;
    bool takes_token = false;
    bool has_begun = false;      ///< its iteration
    std::int64_t iteration = 0;  ///< that it executes, or executes next
    std::int32_t token = -1;     ///< that the program returned to it, of the iteration before
  };

  void restore(const NumericState& from);
  [[nodiscard]] std::optional<std::int32_t> token_for(const Chip& chip) const;
  void finish_iteration(Chip& chip);
  void send_answer(const Chip& chip);
  void take_notes();
  void take_answers();
  void wake_receivers();
  [[nodiscard]] bool is_first() const { return placement_.rank == 0; }
  [[nodiscard]] bool draws_tokens() const { return options_->sampling.temperature != 0.0; }

  const scheduler::ClusterProgram* program_;
  const GenerateOptions* options_;
  interconnect::ChipPlacement placement_;
  interconnect::RankExchange* exchange_;
  node::IterationPlan plan_;
  const node::NumericKernels* kernels_;
  std::int32_t speaker_ = -1;         ///< lowest chip of stage 0: tells rank 0 the program's token
  std::vector<std::int32_t> takers_;  ///< ranks with chips of stage 0, but for rank 0
  node::NumericBench bench_;
  scheduler::NumericBinder binder_;
  interconnect::PayloadTransport transport_;
  std::vector<std::unique_ptr<node::NumericText>> texts_;
  std::vector<Chip> chips_;           ///< that are here, in id order
  std::vector<std::int32_t> places_;  ///< per chip id: which of them; -1: elsewhere
  std::deque<std::size_t> ready_;     ///< places
  std::size_t running_ = 0;           ///< chips that are not done
  Answers answers_;
  std::int64_t told_ = 0;  ///< steps whose drawn token was handed on
  std::optional<std::int64_t> stopped_before_;
};

}  // namespace lpu::cluster
