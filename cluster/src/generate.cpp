#include "lpu/cluster/generate.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/floating_point.hpp"
#include "lpu/node/numeric_chip.hpp"
#include "lpu/scheduler/numeric_binding.hpp"

namespace lpu::cluster {
namespace {

using node::InputError;

/// Vectors on their way to one chip, per link.
class Wires final : public node::PayloadPort {
 public:
  Wires(std::vector<std::unique_ptr<Wires>>& all, const node::ChipBinding& binding, const PayloadTamperer& tamperer)
      : all_(all), binding_(binding), tamperer_(tamperer), queues_(binding.peers.size()) {}

  void send(std::int32_t link, std::span<const std::byte> vector) override {
    const node::LinkPeer& peer = binding_.peers[static_cast<std::size_t>(link)];
    Wires* far = peer.chip < 0 ? nullptr : all_[static_cast<std::size_t>(peer.chip)].get();
    if (far == nullptr) {
      throw node::ScheduleViolation(
          {.chip = binding_.chip,
           .reason = "sends over link " + std::to_string(link) + ", which leads to no chip at work"});
    }
    std::deque<std::byte>& queue = far->queues_[static_cast<std::size_t>(peer.link)];
    queue.insert(queue.end(), vector.begin(), vector.end());
    if (tamperer_) {
      std::vector<std::byte> copy(vector.begin(), vector.end());
      tamperer_(binding_.chip, link, copy);
      std::copy(copy.begin(), copy.end(), queue.end() - static_cast<std::ptrdiff_t>(copy.size()));
    }
    ++sent_;
  }
  [[nodiscard]] bool receive(std::int32_t link, std::span<std::byte> vector) override {
    std::deque<std::byte>& queue = queues_[static_cast<std::size_t>(link)];
    if (queue.empty()) {
      return false;
    }
    const auto end = queue.begin() + static_cast<std::ptrdiff_t>(vector.size());
    std::copy(queue.begin(), end, vector.begin());
    queue.erase(queue.begin(), end);
    return true;
  }
  [[nodiscard]] std::int64_t sent() const { return sent_; }

 private:
  std::vector<std::unique_ptr<Wires>>& all_;
  const node::ChipBinding& binding_;
  const PayloadTamperer& tamperer_;
  std::vector<std::deque<std::byte>> queues_;
  std::int64_t sent_ = 0;
};

/// All chips of the program, and their numbers.
class NumericCluster {
 public:
  NumericCluster(const scheduler::ClusterProgram& program,
                 const scheduler::Checkpoint& checkpoint,
                 const GenerateOptions& options)
      : program_(program),
        plan_(scheduler::with_users(program, 1)),
        kernels_(node::numeric_kernels(options.simd)),
        vocabulary_(checkpoint.model().vocabulary) {
    texts_.resize(program.texts.size());
    wires_.resize(program.bindings.size());
    for (const node::ChipBinding& binding : program.bindings) {
      if (binding.text < 0) {
        continue;
      }
      std::unique_ptr<node::NumericText>& text = texts_[static_cast<std::size_t>(binding.text)];
      if (!text) {
        text = std::make_unique<node::NumericText>(
            program.texts[static_cast<std::size_t>(binding.text)], program.chip, plan_);
      }
      auto& wires = wires_[static_cast<std::size_t>(binding.chip)];
      wires = std::make_unique<Wires>(wires_, binding, options.tamperer);
      models_.push_back(scheduler::bind_numbers(program, binding, checkpoint));
      chips_.push_back(
          std::make_unique<node::NumericChip>(*text, program.chip, binding, plan_, *models_.back(), kernels_, *wires));
    }
  }

  /// Position k: what follows the token.
  /// @return logits, (vocabulary,)
  std::vector<float> step(std::int64_t k, std::int64_t token) {
    for (const auto& chip : chips_) {
      chip->begin(k, static_cast<std::int32_t>(token));
    }
    std::vector<bool> is_done(chips_.size(), false);
    std::pair<std::int64_t, std::int64_t> before{-1, -1};
    for (std::int64_t left = static_cast<std::int64_t>(chips_.size()); left > 0;) {
      // Who only takes what has come lets nobody else go on.
      const std::pair now{vectors_moved(), left};
      if (now == before) {
        throw node::ScheduleViolation({.reason = "deadlock: chips wait for vectors that nobody sends"});
      }
      before = now;
      for (std::size_t i = 0; i < chips_.size(); ++i) {
        if (!is_done[i] && chips_[i]->run()) {
          is_done[i] = true;
          --left;
        }
      }
    }
    std::vector<float> logits = gather_logits();
    if (!std::all_of(logits.begin(), logits.end(), [](float logit) { return std::isfinite(logit); })) {
      throw InputError("logits at position " + std::to_string(k) +
                       ": found infinity or NaN; expected finite numbers, of weights that do not overflow fp32");
    }
    return logits;
  }

  /// Token that the last iteration's program chose.
  [[nodiscard]] std::int64_t token() const {
    for (const auto& chip : chips_) {
      if (chip->token() >= 0) {
        return chip->token();
      }
    }
    throw node::ScheduleViolation({.reason = "no chip chose a token"});
  }

  [[nodiscard]] std::uint64_t fold() const {
    std::uint64_t out = 0;
    for (const auto& chip : chips_) {
      out = node::fold(out, chip->fold());
    }
    return out;
  }

  [[nodiscard]] std::int64_t vectors_moved() const {
    std::int64_t sum = 0;
    for (const auto& wires : wires_) {
      sum += wires ? wires->sent() : 0;
    }
    return sum;
  }

 private:
  [[nodiscard]] std::vector<float> gather_logits() const {
    std::vector<float> logits(static_cast<std::size_t>(vocabulary_));
    std::vector<bool> is_there(logits.size(), false);
    for (const auto& chip : chips_) {
      for (const node::ValuePtr& value : chip->logits()) {
        for (std::size_t lane = 0; lane < value->numbers.size(); ++lane) {
          const std::int32_t id = (*value->lanes)[lane];
          if (id >= 0) {
            logits[static_cast<std::size_t>(id)] = value->numbers[lane];
            is_there[static_cast<std::size_t>(id)] = true;
          }
        }
      }
    }
    if (std::find(is_there.begin(), is_there.end(), false) != is_there.end()) {
      throw node::ScheduleViolation({.reason = "an iteration that computed no logit for some token"});
    }
    return logits;
  }

  const scheduler::ClusterProgram& program_;
  node::IterationPlan plan_;
  const node::NumericKernels& kernels_;
  std::int64_t vocabulary_;
  std::vector<std::unique_ptr<node::NumericText>> texts_;
  std::vector<std::unique_ptr<Wires>> wires_;  ///< per chip id; none: idle
  std::vector<std::unique_ptr<node::NumericModel>> models_;
  std::vector<std::unique_ptr<node::NumericChip>> chips_;
};

void check_prompt(const scheduler::ClusterProgram& program,
                  const scheduler::Checkpoint& checkpoint,
                  const GenerateOptions& options) {
  const std::int64_t vocabulary = checkpoint.model().vocabulary;
  if (options.prompt.empty()) {
    throw InputError("--prompt: found no tokens; expected at least one");
  }
  for (const std::int64_t id : options.prompt) {
    if (id < 0 || id >= vocabulary) {
      throw InputError("--prompt-ids: found " + std::to_string(id) + "; expected token ids from 0 to " +
                       std::to_string(vocabulary - 1));
    }
  }
  const std::int64_t tokens = static_cast<std::int64_t>(options.prompt.size()) + options.new_tokens - 1;
  if (tokens > program.plan.context) {
    throw InputError("--max-new-tokens: found " + std::to_string(tokens) +
                     " positions with the prompt; expected at most " + std::to_string(program.plan.context) +
                     ", the program's context");
  }
}

}  // namespace

GenerateResult generate(const scheduler::ClusterProgram& program,
                        const scheduler::Checkpoint& checkpoint,
                        const GenerateOptions& options) {
  check_prompt(program, checkpoint, options);
  node::set_arithmetic_mode();
  NumericCluster cluster(program, checkpoint, options);
  GenerateResult out;
  std::vector<std::int64_t> tokens = options.prompt;
  const std::size_t total = options.prompt.size() + static_cast<std::size_t>(options.new_tokens);
  for (std::size_t k = 0; k + 1 < total; ++k) {
    const std::vector<float> logits = cluster.step(static_cast<std::int64_t>(k), tokens[k]);
    if (k + 1 < options.prompt.size()) {
      continue;
    }
    if (out.logits_after_prompt.empty()) {
      out.logits_after_prompt = logits;
    }
    tokens.push_back(options.sampling.temperature == 0.0
                         ? cluster.token()
                         : node::sample(logits, options.sampling, 0, static_cast<std::uint64_t>(k + 1)));
    out.new_ids.push_back(tokens.back());
    out.result_digest = node::fold(out.result_digest, static_cast<std::uint64_t>(tokens.back()));
    out.result_digest = node::fold(out.result_digest, node::digest_bytes(std::as_bytes(std::span(logits))));
  }
  out.fold = cluster.fold();
  out.vectors_moved = cluster.vectors_moved();
  out.bytes_moved = out.vectors_moved * program.chip.vector_bytes;
  return out;
}

}  // namespace lpu::cluster
