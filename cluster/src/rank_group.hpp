#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "console.hpp"
#include "execution.hpp"
#include "lpu/interconnect/rank_exchange.hpp"
#include "lpu/node/error.hpp"
#include "rank_log.hpp"
#include "rank_messages.hpp"

namespace lpu::cluster {

/// Thrown where an execution is left because a signal asked for the end.
struct Stopped {
  int signal = 0;
};

/// The ranks of a job, beside the vectors that they exchange: how they start, wait, fail and end together.
///
/// Rank 0 decides. No rank waits inside MPI, none polls without sleeping, and no collective is on any way that an error
/// can take.
/// - A deadlock is proved, not timed: when all ranks have reported that nothing can run, and all that was sent was
///   delivered, rank 0 asks everyone once more; where no count has changed between the two answers, nothing can ever
///   move again. A rank that is slow, or stopped, does not answer, and is not accused.
/// - A rank that fails tells rank 0 and waits; rank 0 prints one line and ends the job. Only where rank 0 keeps silent
///   for 2 s the failed rank does it itself.
/// - A state is saved where no chip has been yet: rank 0 makes all pause, each names the first token that it has not
///   begun, and all go on to the last of these. Who has a chip that is done names none, and all go on to the end.
///   Nobody pauses in a plane that another one follows: all come to that one.
/// - Who finds that another rank's process is gone waits 2 s for the line of whoever ended it on purpose.
class RankGroup {
 public:
  /// @param build    what all ranks must agree on
  /// @param console  whose log lines are collected on rank 0; must outlive the group
  RankGroup(const std::string& build, const Console& console);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;
  RankGroup(RankGroup&&) = delete;
  RankGroup& operator=(RankGroup&&) = delete;

  [[nodiscard]] std::int32_t rank() const { return exchange_.rank(); }
  [[nodiscard]] std::int32_t ranks() const { return exchange_.ranks(); }
  [[nodiscard]] interconnect::RankExchange& exchange() { return exchange_; }

  /// Rank 0: hands a rank its part.
  void send_start(std::int32_t rank, const StartOrder& order);
  /// Others: sleeps until rank 0 has one; none: there is nothing to do, quit_code() says why.
  [[nodiscard]] std::optional<StartOrder> await_start();

  /// Between two turns of chips: takes what has come, hands on what was sent.
  void poll(Execution& execution);
  /// No chip here can run: sleeps until one can.
  /// @return true: all chips here are done, and so are those that send to them
  [[nodiscard]] bool rest(Execution& execution);

  /// The next plane begins, on this rank: another execution, whose messages lie behind those of the one that ended.
  void begin_next_plane();

  /// Others: hands the outcome to rank 0 and stays until it lets everyone go, or has more to do.
  void report(const RankOutcome& outcome);
  /// Rank 0: waits for the outcomes of all; after a signal only for a moment, and some may be missing.
  [[nodiscard]] std::vector<std::optional<RankOutcome>> gather(RankOutcome own);
  /// Rank 0: lets the others go, with this exit code.
  void release(node::ExitCode code);
  [[nodiscard]] node::ExitCode quit_code() const { return quit_code_; }

  /// Ends the job with one line.
  [[noreturn]] void fail(Failure failure);

  /// An execution begins, the first or another one after the last was gathered. From here on a failure ends the job;
  /// before, rank 0 just lets the others go.
  void begin();
  [[nodiscard]] bool has_started() const { return has_started_; }
  /// Ranks may be asked to save their state (--save-state); they do so while a plane executes that can be stopped.
  void allow_saving() { can_save_ = true; }
  [[nodiscard]] int stopped_by() const { return stopping_; }  ///< a signal; 0: none

 private:
  using Clock = std::chrono::steady_clock;

  [[nodiscard]] bool is_first() const { return rank() == 0; }
  void tell_all(const std::string& message);
  void handle_control();
  void handle(const interconnect::ControlMessage& message);
  void look_for_signals();
  void stop(int signal);
  void look_for_save();
  void pause_if_asked(Execution& execution);
  void take_next_token(std::size_t from, std::int64_t token);
  void look_for_the_lost();
  [[noreturn]] void lose(std::int32_t lost);
  [[noreturn]] void await_the_end(node::ExitCode code);
  [[noreturn]] void end_with(const Failure& failure);
  void note_stillness();
  [[nodiscard]] Stillness stillness() const;
  void judge_stillness();
  void judge_answers();
  void tick();

  const Console* console_;
  interconnect::RankExchange exchange_;
  std::vector<std::int64_t> pids_;
  LogMerger log_;
  Execution* execution_ = nullptr;  ///< while it executes, and until its rank has reported
  bool has_started_ = false;
  bool is_resting_ = false;    ///< nothing can run here
  bool has_finished_ = false;  ///< this rank's chips are done
  bool is_over_ = false;       ///< the execution was left
  std::optional<StartOrder> order_;
  bool has_quit_ = false;
  node::ExitCode quit_code_ = node::ExitCode::kDone;
  int stopping_ = 0;
  bool has_told_signal_ = false;
  Clock::time_point signal_at_{};
  Clock::time_point last_flush_{};
  Clock::time_point still_since_{};
  Clock::time_point last_look_ = Clock::now();
  bool can_save_ = false;
  bool has_told_save_ = false;
  bool must_pause_ = false;
  std::optional<std::int64_t> go_on_to_;  ///< token
  std::int64_t next_token_ = 0;           ///< of an execution that has ended here; 0: there was none
  bool has_moved_ = true;
  std::int64_t reported_sent_ = -1;
  std::int64_t reported_received_ = -1;

  // Rank 0.
  std::vector<std::optional<Stillness>> reports_;
  std::vector<std::optional<Stillness>> first_wave_;
  std::vector<std::optional<Stillness>> answers_;
  std::int64_t round_ = 0;
  bool is_probing_ = false;
  std::vector<std::optional<RankOutcome>> outcomes_;
  std::vector<Failure> failures_;
  std::vector<std::optional<std::int64_t>> next_tokens_;  ///< per rank, while all pause
};

}  // namespace lpu::cluster
