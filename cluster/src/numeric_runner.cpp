#include "numeric_runner.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <malloc.h>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "lpu/interconnect/rank_exchange.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/numeric_snapshot.hpp"

namespace lpu::cluster {
namespace {

using node::InputError;
using node::ScheduleViolation;

/// What ranks tell each other beside vectors. To rank 0: a chip's logits, or the program's token; from rank 0: a token
/// that was drawn. `logits` pairs of id and number follow.
struct NoteHead {
  std::int64_t position = 0;
  std::int32_t token = -1;
  std::int32_t logits = 0;
};

std::vector<std::byte> to_note(const NoteHead& head, std::span<const std::int32_t> ids, std::span<const float> logits) {
  std::vector<std::byte> out;
  for (const auto part : {std::as_bytes(std::span(&head, 1)), std::as_bytes(ids), std::as_bytes(logits)}) {
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

}  // namespace

// ---- answers

Answers::Answers(const GenerateOptions& options, std::int64_t vocabulary, const SavedAnswers* from)
    : options_(&options), vocabulary_(vocabulary), tokens_(options.prompt), end_(steps()) {
  if (from != nullptr) {
    next_ = from->position;
    tokens_.insert(tokens_.end(), from->new_ids.begin(), from->new_ids.end());
    result_.new_ids = from->new_ids;
    result_.logits_after_prompt = from->logits_after_prompt;
    result_.result_digest = from->result_digest;
  }
}

std::int64_t Answers::steps() const {
  return static_cast<std::int64_t>(options_->prompt.size()) + options_->new_tokens - 1;
}

Answers::Step& Answers::step(std::int64_t position) {
  Step& out = steps_[position];
  if (out.logits.empty()) {
    out.logits.resize(static_cast<std::size_t>(vocabulary_));
    out.is_there.resize(out.logits.size());
    out.missing = vocabulary_;
  }
  return out;
}

void Answers::add_logits(std::int64_t position, std::span<const std::int32_t> ids, std::span<const float> logits) {
  Step& at = step(position);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<std::size_t>(ids[i]);
    if (ids[i] < 0 || id >= at.logits.size()) {
      continue;
    }
    at.logits[id] = logits[i];
    at.missing -= at.is_there[id] ? 0 : 1;
    at.is_there[id] = true;
  }
}

void Answers::add_token(std::int64_t position, std::int32_t token) {
  step(position).token = token;
}

void Answers::put_token(std::int64_t position, std::int32_t token) {
  LPU_CHECK(position == static_cast<std::int64_t>(tokens_.size()),
            "a drawn token of position " + std::to_string(position));
  tokens_.push_back(token);
}

void Answers::complete() {
  for (auto found = steps_.find(next_); found != steps_.end(); found = steps_.find(next_)) {
    const Step& at = found->second;
    if (at.missing > 0) {
      return;
    }
    if (!std::all_of(at.logits.begin(), at.logits.end(), [](float logit) { return std::isfinite(logit); })) {
      throw InputError("logits at position " + std::to_string(next_) +
                       ": found infinity or NaN; expected finite numbers, of weights that do not overflow fp32");
    }
    if (next_ + 1 >= static_cast<std::int64_t>(options_->prompt.size())) {
      if (is_greedy() && at.token < 0) {
        return;
      }
      if (result_.logits_after_prompt.empty()) {
        result_.logits_after_prompt = at.logits;
      }
      tokens_.push_back(is_greedy()
                            ? at.token
                            : node::sample(at.logits, options_->sampling, 0, static_cast<std::uint64_t>(next_ + 1)));
      result_.new_ids.push_back(tokens_.back());
      result_.result_digest = node::fold(result_.result_digest, static_cast<std::uint64_t>(tokens_.back()));
      result_.result_digest =
          node::fold(result_.result_digest, node::digest_bytes(std::as_bytes(std::span(at.logits))));
    }
    steps_.erase(found);
    ++next_;
  }
}

std::optional<std::int64_t> Answers::token(std::int64_t position) const {
  const auto at = static_cast<std::size_t>(position);
  return at < tokens_.size() ? std::optional(tokens_[at]) : std::nullopt;
}

void Answers::check_complete() const {
  if (next_ == end_) {
    return;
  }
  const auto found = steps_.find(next_);
  const bool lacks_logits = found == steps_.end() || found->second.missing > 0;
  throw ScheduleViolation({.reason = "iteration " + std::to_string(next_) +
                                     (lacks_logits ? " computed no logit for some token" : " chose no token")});
}

// ---- chips

NumericRunner::NumericRunner(const scheduler::ClusterProgram& program,
                             const scheduler::Checkpoint& checkpoint,
                             const GenerateOptions& options,
                             interconnect::ChipPlacement placement,
                             interconnect::RankExchange* exchange,
                             const NumericState* from)
    : program_(&program),
      options_(&options),
      placement_(std::move(placement)),
      exchange_(exchange),
      plan_(scheduler::with_users(program, 1)),
      kernels_(&node::numeric_kernels(options.simd)),
      bench_(program.chip),
      binder_(program, checkpoint),
      transport_(program.bindings, placement_, exchange),
      answers_(options, checkpoint.model().vocabulary, from == nullptr ? nullptr : &from->answers) {
  transport_.set_tamperer(options.tamperer);
  std::set<std::int32_t> takers;
  for (const node::ChipBinding& binding : program.bindings) {
    const std::int32_t rank = placement_.rank_of[static_cast<std::size_t>(binding.chip)];
    if (rank < 0 || binding.stage != 0) {
      continue;
    }
    speaker_ = speaker_ < 0 ? binding.chip : speaker_;
    if (rank != 0) {
      takers.insert(rank);
    }
  }
  takers_.assign(takers.begin(), takers.end());
  texts_.resize(program.texts.size());
  places_.assign(program.bindings.size(), -1);
  for (const node::ChipBinding& binding : program.bindings) {
    if (binding.text < 0) {
      continue;
    }
    std::unique_ptr<node::NumericText>& text = texts_[static_cast<std::size_t>(binding.text)];
    if (!text) {
      text = std::make_unique<node::NumericText>(
          program.texts[static_cast<std::size_t>(binding.text)], program.chip, plan_);
    }
    places_[static_cast<std::size_t>(binding.chip)] = static_cast<std::int32_t>(chips_.size());
    ready_.push_back(chips_.size());
    Chip& chip = chips_.emplace_back();
    chip.id = binding.chip;
    chip.model = binder_.bind(binding);
    chip.numbers = std::make_unique<node::NumericChip>(
        *text, bench_, program.chip, binding, plan_, *chip.model, *kernels_, transport_.port(binding.chip));
    chip.takes_token = chip.numbers->takes_token();
  }
  running_ = chips_.size();
  if (from != nullptr) {
    restore(*from);
  }
  ::malloc_trim(0);  // what sorting the texts took would stay with the process
}

/// What a chip takes in its first iteration the answers know: it needs no token that came before.
void NumericRunner::restore(const NumericState& from) {
  LPU_CHECK(from.chips.size() == chips_.size(), std::to_string(from.chips.size()) + " saved chips");
  for (const SavedNumericChip& saved : from.chips) {
    const std::int32_t place = places_[static_cast<std::size_t>(saved.chip)];
    LPU_CHECK(place >= 0, "a saved chip that is not here");
    chips_[static_cast<std::size_t>(place)].numbers->restore(saved.state);
  }
  for (Chip& chip : chips_) {
    chip.iteration = from.answers.position;
  }
  told_ = from.answers.position;
}

std::int64_t NumericRunner::next_token() const {
  std::int64_t next = 0;
  for (const Chip& chip : chips_) {
    next = std::max(next, chip.iteration + (chip.has_begun ? 1 : 0));
  }
  return next < answers_.steps() ? next : kNoToken;
}

void NumericRunner::stop_before(std::int64_t token) {
  stopped_before_ = token;
  answers_.stop_before(token);
  for (Chip& chip : chips_) {
    if (!chip.has_begun && chip.iteration == token && chip.state != State::kDone) {
      chip.state = State::kDone;
      --running_;
    }
  }
  std::erase_if(ready_, [this](std::size_t place) { return chips_[place].state == State::kDone; });
}

std::vector<SavedNumericChip> NumericRunner::saved_chips() const {
  std::vector<SavedNumericChip> out;
  for (const Chip& chip : chips_) {
    out.push_back({.chip = chip.id, .state = chip.numbers->snapshot()});
  }
  return out;
}

/// The token that the chip's next iteration takes; -1 where it takes none; none: it has not come.
std::optional<std::int32_t> NumericRunner::token_for(const Chip& chip) const {
  if (!chip.takes_token) {
    return -1;
  }
  if (const auto known = answers_.token(chip.iteration)) {
    return static_cast<std::int32_t>(*known);
  }
  // Where the program returned none, nothing more will happen: a deadlock, unless rank 0 finds that logits are NaN.
  return draws_tokens() || chip.token < 0 ? std::nullopt : std::optional(chip.token);
}

bool NumericRunner::run_next() {
  if (ready_.empty()) {
    return false;
  }
  Chip& chip = chips_[ready_.front()];
  if (!chip.has_begun) {
    const auto token = token_for(chip);
    if (!token) {
      chip.state = State::kWaitsForToken;
      ready_.pop_front();
      return true;
    }
    chip.numbers->begin(chip.iteration, *token);
    chip.has_begun = true;
  }
  if (chip.numbers->run()) {
    finish_iteration(chip);
  } else {
    chip.state = State::kWaitsForVector;
  }
  const std::size_t place = ready_.front();
  ready_.pop_front();
  if (chip.state == State::kReady) {
    ready_.push_back(place);
  }
  running_ -= chip.state == State::kDone ? 1 : 0;
  wake_receivers();
  return true;
}

void NumericRunner::finish_iteration(Chip& chip) {
  send_answer(chip);
  chip.token = chip.numbers->token();
  chip.has_begun = false;
  ++chip.iteration;
  chip.state = chip.iteration < answers_.end() ? State::kReady : State::kDone;
}

void NumericRunner::send_answer(const Chip& chip) {
  NoteHead head{.position = chip.iteration, .token = chip.id == speaker_ ? chip.numbers->token() : -1};
  std::vector<std::int32_t> ids;
  std::vector<float> logits;
  for (const node::ValuePtr& value : chip.numbers->logits()) {
    ids.insert(ids.end(), value->lanes->begin(), value->lanes->end());
    logits.insert(logits.end(), value->numbers.begin(), value->numbers.end());
    ids.resize(logits.size(), -1);
  }
  if (is_first()) {
    answers_.add_logits(head.position, ids, logits);
    if (head.token >= 0) {
      answers_.add_token(head.position, head.token);
    }
    take_answers();
  } else if (!ids.empty() || head.token >= 0) {
    head.logits = static_cast<std::int32_t>(ids.size());
    exchange_->send_note(0, to_note(head, ids, logits));
  }
}

/// Rank 0: completes steps, and hands drawn tokens to those who take them.
void NumericRunner::take_answers() {
  answers_.complete();
  for (; told_ < answers_.completed(); ++told_) {
    const std::int64_t position = told_ + 1;
    if (!draws_tokens() || position < static_cast<std::int64_t>(options_->prompt.size()) ||
        position >= answers_.end()) {
      continue;
    }
    const NoteHead head{.position = position, .token = static_cast<std::int32_t>(*answers_.token(position))};
    for (const std::int32_t rank : takers_) {
      exchange_->send_note(rank, to_note(head, {}, {}));
    }
  }
}

bool NumericRunner::receive() {
  if (!exchange_->receive(transport_)) {
    return false;
  }
  take_notes();
  wake_receivers();
  return true;
}

void NumericRunner::take_notes() {
  while (const auto note = transport_.next_note()) {
    NoteHead head;
    LPU_CHECK(note->size() >= sizeof head, "a note of " + std::to_string(note->size()) + " bytes");
    std::memcpy(&head, note->data(), sizeof head);
    const auto count = static_cast<std::size_t>(head.logits);
    std::vector<std::int32_t> ids(count);
    std::vector<float> logits(count);
    LPU_CHECK(note->size() == sizeof head + 8 * count, "a note of " + std::to_string(note->size()) + " bytes");
    if (count > 0) {
      std::memcpy(ids.data(), note->data() + sizeof head, 4 * count);
      std::memcpy(logits.data(), note->data() + sizeof head + 4 * count, 4 * count);
    }
    if (!is_first()) {
      answers_.put_token(head.position, head.token);
      continue;
    }
    answers_.add_logits(head.position, ids, logits);
    if (head.token >= 0) {
      answers_.add_token(head.position, head.token);
    }
  }
  if (is_first()) {
    take_answers();
  }
}

void NumericRunner::wake_receivers() {
  const auto wake = [&](std::size_t place) {
    chips_[place].state = State::kReady;
    ready_.push_back(place);
  };
  for (const interconnect::Delivery& delivery : transport_.deliveries()) {
    const auto place = static_cast<std::size_t>(places_[static_cast<std::size_t>(delivery.chip)]);
    const Chip& chip = chips_[place];
    if (chip.state == State::kWaitsForVector && chip.numbers->waits_on() == delivery.link) {
      wake(place);
    }
  }
  transport_.clear_deliveries();
  for (std::size_t place = 0; place < chips_.size(); ++place) {
    if (chips_[place].state == State::kWaitsForToken && token_for(chips_[place])) {
      wake(place);
    }
  }
}

std::vector<node::Wait> NumericRunner::waits() const {
  std::vector<node::Wait> out;
  for (const Chip& chip : chips_) {
    if (chip.state == State::kWaitsForVector) {
      out.push_back(chip.numbers->wait());
    } else if (chip.state == State::kWaitsForToken) {
      out.push_back({.chip = chip.id,
                     .cycle = plan_.start(chip.iteration),
                     .iteration = chip.iteration,
                     .transfer = draws_tokens() ? "a drawn token" : "the token that the program returns"});
    }
  }
  return out;
}

void NumericRunner::check_nothing_left() {
  if (const auto left = transport_.leftover()) {
    throw ScheduleViolation(
        {.chip = left->chip,
         .reason = "vectors that came on link " + std::to_string(left->link) + " were never taken"});
  }
  if (is_first()) {
    answers_.check_complete();
  }
}

RunProgress NumericRunner::progress() const {
  return {.iterations = answers_.completed(), .iterations_total = answers_.steps()};
}

NumericOutcome NumericRunner::outcome(const LoopTimes& loop, double seconds) const {
  NumericOutcome out;
  out.vectors = transport_.vectors();
  node::NumericTimes times;
  for (const Chip& chip : chips_) {
    out.folds[chip.id] = chip.numbers->fold();
    times.kernels += chip.numbers->times().kernels;
    times.moving += chip.numbers->times().moving;
  }
  const auto in_seconds = [](std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); };
  out.time.kernels_s = in_seconds(times.kernels);
  out.time.moving_s = in_seconds(times.moving + loop.exchanging);
  out.time.waiting_s = in_seconds(loop.waiting);
  out.time.other_s = std::max(0.0, seconds - out.time.kernels_s - out.time.moving_s - out.time.waiting_s);
  return out;
}

void add(NumericOutcome& sum, const NumericOutcome& rank) {
  sum.folds.insert(rank.folds.begin(), rank.folds.end());
  sum.vectors += rank.vectors;
  sum.time.kernels_s += rank.time.kernels_s;
  sum.time.moving_s += rank.time.moving_s;
  sum.time.waiting_s += rank.time.waiting_s;
  sum.time.other_s += rank.time.other_s;
}

void put(const NumericOutcome& sum, const node::ChipSpec& chip, GenerateResult& result) {
  result.fold = 0;
  for (const auto& [id, fold] : sum.folds) {
    result.fold = node::fold(result.fold, fold);
  }
  result.vectors_moved = sum.vectors;
  result.bytes_moved = sum.vectors * chip.vector_bytes;
  result.time = sum.time;
}

}  // namespace lpu::cluster
