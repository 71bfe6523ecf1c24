#include "rank_group.hpp"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <tuple>
#include <utility>

#include <spdlog/spdlog.h>

#include "mpi_session.hpp"
#include "stop_signal.hpp"

namespace lpu::cluster {
namespace {

using namespace std::chrono_literals;
using node::ExitCode;

constexpr auto kFlushEvery = 300us;        ///< while chips run: who sleeps for a vector gets it before the turn is over
constexpr auto kStillAfter = 1s;           ///< until a rank reports that nothing moves
constexpr auto kLookEvery = 500ms;         ///< for ranks that died
constexpr auto kPatience = 2s;             ///< with whoever ends the job on purpose
constexpr auto kOthersMayFailToo = 100ms;  ///< one fault often shows on several ranks: the earliest is named
constexpr auto kTimeToHear = 20ms;         ///< of an end on purpose, before others can see a death
constexpr auto kLastMoment = 600ms;        ///< launchers kill a second after SIGTERM
constexpr auto kLongest = 50ms;            ///< of one sleep

/// Ends early with a signal.
void rest_for(std::chrono::milliseconds time) {
  const timespec span{.tv_sec = time.count() / 1000, .tv_nsec = time.count() % 1000 * 1'000'000};
  ::nanosleep(&span, nullptr);
}

}  // namespace

RankGroup::RankGroup(const std::string& build, const Console& console)
    : console_(&console), exchange_(build), pids_(exchange_.host_pids()) {
  name_the_lost(pids_, rank());
  catch_stop_signals();
  console.log().sinks() = {make_forwarding_sink([this](LogLine line) {
    if (is_first()) {
      log_.add(0, std::move(line));
      log_.show_old();
    } else {
      exchange_.send_control(0, encode(ControlKind::kLog, line));
    }
  })};
}

RankGroup::~RankGroup() {
  console_->log().sinks().clear();
  log_.show_all();
  name_the_lost({}, 0);
}

void RankGroup::tell_all(const std::string& message) {
  for (std::int32_t to = 0; to < ranks(); ++to) {
    if (to != rank()) {
      exchange_.send_control(to, message);
    }
  }
}

// ---- start

void RankGroup::send_start(std::int32_t to, const StartOrder& order) {
  exchange_.send_control(to, encode(ControlKind::kStart, order));
}

std::optional<StartOrder> RankGroup::await_start() {
  while (!order_ && !has_quit_) {
    handle_control();
    look_for_signals();
    look_for_the_lost();
    if (!order_ && !has_quit_) {
      exchange_.wait(5ms);
    }
  }
  return std::exchange(order_, std::nullopt);
}

void RankGroup::begin() {
  has_started_ = true;
  execution_ = nullptr;
  is_resting_ = false;
  has_finished_ = false;
  is_over_ = false;
  has_moved_ = true;
  reported_sent_ = -1;
  const auto count = static_cast<std::size_t>(ranks());
  reports_.assign(count, std::nullopt);
  answers_.assign(count, std::nullopt);
  outcomes_.assign(count, std::nullopt);
  next_tokens_.assign(count, std::nullopt);
  is_probing_ = false;
}

// ---- while it runs

void RankGroup::poll(Execution& execution) {
  execution_ = &execution;
  has_moved_ = true;
  is_resting_ = false;
  execution.receive();
  handle_control();
  look_for_signals();
  pause_if_asked(execution);
  const auto now = Clock::now();
  if (now - last_flush_ > kFlushEvery) {
    exchange_.flush();
    last_flush_ = now;
  }
}

bool RankGroup::rest(Execution& execution) {
  execution_ = &execution;
  for (;;) {
    pause_if_asked(execution);
    if (execution.is_done() && !has_finished_) {  // also because it was stopped before a token that its chips wait for
      exchange_.finish();
      has_finished_ = true;
    }
    if (execution.receive()) {
      has_moved_ = true;
      is_resting_ = false;
      return false;
    }
    if (has_finished_ && exchange_.has_received_all()) {
      next_token_ = execution.next_token();
      return true;
    }
    is_resting_ = true;
    tick();
    exchange_.wait(kLongest);
  }
}

void RankGroup::begin_next_plane() {
  exchange_.reopen();
  execution_ = nullptr;
  has_finished_ = false;
  is_resting_ = false;
  has_moved_ = true;
  reported_sent_ = -1;
}

/// What a rank that waits has to look at.
void RankGroup::tick() {
  handle_control();
  look_for_signals();
  if (!is_first()) {
    look_for_save();  // a rank may have no chip, or be done with them
  }
  note_stillness();
  look_for_the_lost();
  log_.show_old();
}

void RankGroup::handle_control() {
  while (const auto message = exchange_.next_control()) {
    handle(*message);
  }
}

void RankGroup::handle(const interconnect::ControlMessage& message) {
  const auto from = static_cast<std::size_t>(message.from);
  switch (kind_of(message.bytes)) {
    case ControlKind::kStart:
      order_ = decode<StartOrder>(message.bytes);
      return;
    case ControlKind::kQuit:
      has_quit_ = true;
      quit_code_ = static_cast<ExitCode>(decode<std::int32_t>(message.bytes));
      exchange_.announce_end();
      return;
    case ControlKind::kOutcome:
      outcomes_[from] = decode<RankOutcome>(message.bytes);
      return;
    case ControlKind::kFailure:
      failures_.push_back(decode<Failure>(message.bytes));
      if (failures_.size() == 1 && is_first()) {
        fail(failures_.front());
      }
      return;
    case ControlKind::kAbort:
      exchange_.announce_end();
      await_the_end(static_cast<ExitCode>(decode<std::int32_t>(message.bytes)));
    case ControlKind::kStill:
      reports_[from] = decode<Stillness>(message.bytes);
      return;
    case ControlKind::kProbe: {
      Stillness answer = stillness();
      answer.round = decode<std::int64_t>(message.bytes);
      reported_sent_ = answer.is_still ? reported_sent_ : -1;  // rank 0 drops the old report: it gets a new one
      exchange_.send_control(message.from, encode(ControlKind::kAnswer, answer));
      return;
    }
    case ControlKind::kAnswer: {
      auto answer = decode<Stillness>(message.bytes);
      if (answer.round == round_) {
        answers_[from] = std::move(answer);
      }
      return;
    }
    case ControlKind::kSignal:
    case ControlKind::kStop:
      stop(decode<std::int32_t>(message.bytes));
      return;
    case ControlKind::kSave:
      has_told_save_ = true;
      return;
    case ControlKind::kPause:
      if (is_over_) {
        exchange_.send_control(message.from, encode(ControlKind::kPaused, next_token_));
      } else {
        must_pause_ = true;
      }
      return;
    case ControlKind::kPaused:
      take_next_token(from, decode<std::int64_t>(message.bytes));
      return;
    case ControlKind::kGoOn:
      go_on_to_ = decode<std::int64_t>(message.bytes);
      return;
    case ControlKind::kLog:
      log_.add(message.from, decode<LogLine>(message.bytes));
      return;
  }
}

// ---- signals

void RankGroup::look_for_signals() {
  const int signal = stop_signal();
  if (signal == 0 || stopping_ != 0) {
    return;
  }
  if (const auto lost = exchange_.lost_rank()) {
    lose(*lost);
  }
  if (is_first()) {
    stop(signal);
    return;
  }
  const auto now = Clock::now();
  if (!has_told_signal_) {
    has_told_signal_ = true;
    signal_at_ = now;
    exchange_.send_control(0, encode(ControlKind::kSignal, signal));
  } else if (now - signal_at_ > kLastMoment) {
    stop(signal);
  }
}

/// Rank 0 stops all, the others themselves: whoever executes leaves the execution.
void RankGroup::stop(int signal) {
  if (stopping_ != 0) {
    return;
  }
  stopping_ = signal;
  signal_at_ = Clock::now();
  if (is_first()) {
    tell_all(encode(ControlKind::kStop, signal));
  }
  if (!has_started_) {
    std::_Exit(128 + signal);  // nothing was done that somebody could want to see
  }
  if (!is_over_) {
    is_over_ = true;
    throw Stopped{signal};
  }
}

// ---- saving

/// Rank 0 begins it, while it executes; the others tell it.
void RankGroup::look_for_save() {
  if (!can_save_ || (has_told_save_ && !is_first())) {
    return;
  }
  has_told_save_ = has_told_save_ || save_is_asked();
  if (!has_told_save_) {
    return;
  }
  if (!is_first()) {
    exchange_.send_control(0, encode(ControlKind::kSave));
    return;
  }
  can_save_ = false;  // once
  tell_all(encode(ControlKind::kPause));
  must_pause_ = true;
}

/// Between two turns of chips: none gets one until all ranks have named their tokens.
void RankGroup::pause_if_asked(Execution& execution) {
  if (!execution.is_stoppable()) {
    return;
  }
  look_for_save();
  if (!must_pause_) {
    return;
  }
  must_pause_ = false;
  has_moved_ = true;
  is_resting_ = false;
  if (is_first()) {
    take_next_token(0, execution.next_token());
  } else {
    exchange_.send_control(0, encode(ControlKind::kPaused, execution.next_token()));
  }
  while (!go_on_to_) {
    handle_control();
    look_for_signals();
    look_for_the_lost();
    if (!go_on_to_) {
      exchange_.wait(kLongest);
    }
  }
  if (*go_on_to_ != Execution::kNoToken) {
    execution.stop_before(*go_on_to_);
  }
}

void RankGroup::take_next_token(std::size_t from, std::int64_t token) {
  next_tokens_[from] = token;
  std::int64_t last = 0;
  for (const auto& next : next_tokens_) {
    if (!next) {
      return;
    }
    last = std::max(last, *next);
  }
  go_on_to_ = last;
  tell_all(encode(ControlKind::kGoOn, last));
}

// ---- death

void RankGroup::look_for_the_lost() {
  const auto now = Clock::now();
  if (now - last_look_ < kLookEvery) {
    return;
  }
  last_look_ = now;
  if (const auto lost = exchange_.lost_rank()) {
    lose(*lost);
  }
}

void RankGroup::lose(std::int32_t lost) {
  exchange_.close();
  const auto until = Clock::now() + kPatience;
  while (Clock::now() < until && stop_signal() == 0) {
    handle_control();  // of an end on purpose this does not return
    exchange_.wait(kLongest);
  }
  const Failure failure{
      .rank = lost,
      .exit_code = static_cast<std::int32_t>(ExitCode::kEnvironment),
      .message = "rank " + std::to_string(lost) + ": found it killed or lost; expected it to take part"};
  if (stop_signal() != 0) {  // the launcher is ending all of them; was it told to?
    const auto moment = Clock::now() + kOthersMayFailToo;
    while (Clock::now() < moment) {
      handle_control();
      rest_for(5ms);
    }
    if (exchange_.is_speaker()) {
      complain(failure.message);
    }
    rest_for(kPatience);  // while this one lives, no higher rank repeats the line
    std::_Exit(failure.exit_code);
  }
  if (exchange_.is_speaker()) {
    end_with(failure);
  }
  await_the_end(ExitCode::kEnvironment);
}

/// Someone ends this process; where nobody does, it ends itself.
void RankGroup::await_the_end(ExitCode code) {
  const auto until = Clock::now() + 4 * kPatience;
  while (Clock::now() < until && stop_signal() == 0) {
    rest_for(kLongest);
  }
  std::_Exit(static_cast<int>(code));
}

// ---- failure

void RankGroup::fail(Failure failure) {
  is_over_ = true;
  exchange_.close();
  if (!is_first()) {
    exchange_.send_control(0, encode(ControlKind::kFailure, failure));
    const auto until = Clock::now() + kPatience;
    while (Clock::now() < until) {
      handle_control();
      exchange_.wait(1ms);
    }
    end_with(failure);
  }
  failures_.push_back(std::move(failure));
  const auto until = Clock::now() + kOthersMayFailToo;
  while (Clock::now() < until) {
    handle_control();
    exchange_.wait(1ms);
  }
  const auto order = [](const Failure& f) {
    return std::tuple(f.cycle < 0 ? std::numeric_limits<std::int64_t>::max() : f.cycle, f.chip, f.rank);
  };
  end_with(*std::min_element(
      failures_.begin(), failures_.end(), [&](const Failure& a, const Failure& b) { return order(a) < order(b); }));
}

void RankGroup::end_with(const Failure& failure) {
  log_.show_all();
  complain(failure.message);
  exchange_.announce_end();
  tell_all(encode(ControlKind::kAbort, failure.exit_code));
  const auto until = Clock::now() + kTimeToHear;
  while (Clock::now() < until) {
    exchange_.wait(1ms);
  }
  MpiSession::abort(static_cast<ExitCode>(failure.exit_code));
}

// ---- deadlock

Stillness RankGroup::stillness() const {
  Stillness out{.is_still = is_resting_ || is_over_,
                .sent = exchange_.counts().sent,
                .received = exchange_.counts().received,
                .waits = {}};
  if (execution_ != nullptr && is_resting_) {
    out.waits = execution_->waits();
  }
  return out;
}

void RankGroup::note_stillness() {
  const auto now = Clock::now();
  if (has_moved_) {
    has_moved_ = false;
    still_since_ = now;
    return;
  }
  const interconnect::ExchangeCounts& counts = exchange_.counts();
  if (now - still_since_ >= kStillAfter && (counts.sent != reported_sent_ || counts.received != reported_received_)) {
    reported_sent_ = counts.sent;
    reported_received_ = counts.received;
    Stillness report = stillness();
    report.waits.clear();
    if (is_first()) {
      reports_[0] = std::move(report);
    } else {
      exchange_.send_control(0, encode(ControlKind::kStill, report));
    }
  }
  if (is_first()) {
    judge_stillness();
  }
}

/// First wave: everyone has once reported that nothing can run, and all that was sent by then had been delivered.
void RankGroup::judge_stillness() {
  if (is_probing_) {
    judge_answers();
    return;
  }
  std::int64_t on_their_way = 0;
  for (const auto& report : reports_) {
    if (!report) {
      return;
    }
    on_their_way += report->sent - report->received;
  }
  if (on_their_way != 0) {
    return;
  }
  is_probing_ = true;
  first_wave_ = reports_;
  std::fill(answers_.begin(), answers_.end(), std::nullopt);
  tell_all(encode(ControlKind::kProbe, ++round_));
}

/// Second wave: nobody has sent or got anything in between, so nobody ever will (the four counters of Mattern, 1987).
void RankGroup::judge_answers() {
  answers_[0] = stillness();
  std::vector<node::Wait> waits;
  bool has_changed = false;
  for (std::size_t at = 0; at < answers_.size(); ++at) {
    if (!answers_[at]) {
      return;
    }
    Stillness& answer = *answers_[at];
    const Stillness& before = *first_wave_[at];
    if (!answer.is_still || answer.sent != before.sent || answer.received != before.received) {
      has_changed = true;
      const bool is_newer = reports_[at]->sent != before.sent || reports_[at]->received != before.received;
      if (!is_newer) {
        reports_[at].reset();  // a new one comes when nothing has moved there for a while
      }
    }
    waits.insert(waits.end(), answer.waits.begin(), answer.waits.end());
  }
  is_probing_ = false;
  if (!has_changed && !waits.empty()) {
    throw deadlock(waits);
  }
}

// ---- end

void RankGroup::report(const RankOutcome& outcome) {
  is_over_ = true;
  is_resting_ = true;
  execution_ = nullptr;
  exchange_.close();
  exchange_.send_control(0, encode(ControlKind::kOutcome, outcome));
  while (!has_quit_ && !order_) {
    tick();
    if (!has_quit_ && !order_) {
      exchange_.wait(kLongest);
    }
  }
}

std::vector<std::optional<RankOutcome>> RankGroup::gather(RankOutcome own) {
  is_over_ = true;
  is_resting_ = true;
  execution_ = nullptr;
  exchange_.close();
  outcomes_[0] = std::move(own);
  const auto is_missing = [this] {
    return std::any_of(outcomes_.begin(), outcomes_.end(), [](const auto& outcome) { return !outcome; });
  };
  while (is_missing() && (stopping_ == 0 || Clock::now() - signal_at_ < kLastMoment)) {
    tick();
    if (is_missing()) {
      exchange_.wait(kLongest);
    }
  }
  return std::move(outcomes_);
}

void RankGroup::release(ExitCode code) {
  if (stopping_ != 0) {
    // A launcher that was asked to end drops what it has not read of a process that is gone.
    rest_for(400ms);
  }
  log_.show_all();
  exchange_.announce_end();
  tell_all(encode(ControlKind::kQuit, static_cast<std::int32_t>(code)));
}

}  // namespace lpu::cluster
