#include <sstream>
#include <utility>

#include <cereal/archives/portable_binary.hpp>
#include <cereal/types/map.hpp>
#include <cereal/types/optional.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>

#include "lpu/node/error.hpp"
#include "measures_archive.hpp"
#include "numbers_archive.hpp"
#include "rank_messages.hpp"

// cereal finds these by the namespaces of their arguments.
namespace lpu::interconnect {

template <typename Archive>
void serialize(Archive& archive, PairLoad& pair) {
  archive(pair.from, pair.to, pair.bytes);
}
template <typename Archive>
void serialize(Archive& archive, ExchangeCounts& counts) {
  archive(counts.sent, counts.received, counts.bytes_sent, counts.sleeps, counts.wake_ups);
}

}  // namespace lpu::interconnect

namespace lpu::node {

template <typename Archive>
void serialize(Archive& archive, Wait& wait) {
  archive(wait.chip, wait.cycle, wait.instruction, wait.link, wait.from, wait.iteration, wait.transfer);
}

}  // namespace lpu::node

namespace lpu::cluster {

template <typename Archive>
void serialize(Archive& archive, TraceSelection& selection) {
  archive(selection.is_wanted, selection.first_chip, selection.last_chip, selection.first_cycle, selection.last_cycle);
}
template <typename Archive>
void serialize(Archive& archive, TracedBurst& burst) {
  archive(burst.chip, burst.unit, burst.name, burst.instruction, burst.iteration, burst.start, burst.cycles);
}
template <typename Archive>
void serialize(Archive& archive, Trace& trace) {
  archive(trace.names, trace.bursts, trace.left_out);
}
template <typename Archive>
void serialize(Archive& archive, NumericOrder& order) {
  archive(order.checkpoint, order.digest);
  archive(order.options.prompt, order.options.new_tokens, order.options.simd, order.options.sampling);
  archive(order.saved);
}
template <typename Archive>
void serialize(Archive& archive, NumericOutcome& outcome) {
  archive(outcome.folds, outcome.vectors, outcome.time);
}
template <typename Archive>
void serialize(Archive& archive, SaveOrder& order) {
  archive(order.folder, order.number);
}
template <typename Archive>
void serialize(Archive& archive, SavedPart& part) {
  archive(part.file, part.digest, part.chips);
}
template <typename Archive>
void serialize(Archive& archive, StartOrder& order) {
  archive(order.program, order.digest, order.tokens, order.users, order.checks, order.faults);
  archive(order.rank_of, order.pairs, order.carrier, order.trace, order.numbers);
  archive(order.save, order.saved_chips);
}
template <typename Archive>
void serialize(Archive& archive, ChipOutcome& chip) {
  archive(chip.chip, chip.fold, chip.measures);
}
template <typename Archive>
void serialize(Archive& archive, RankOutcome& outcome) {
  archive(outcome.chips, outcome.messages_in_process, outcome.exchange);
  archive(outcome.uses_shared_memory, outcome.memory_bytes, outcome.trace, outcome.numbers, outcome.saved);
}
template <typename Archive>
void serialize(Archive& archive, Failure& failure) {
  archive(failure.rank, failure.exit_code, failure.chip, failure.cycle, failure.message);
}
template <typename Archive>
void serialize(Archive& archive, Stillness& stillness) {
  archive(stillness.round, stillness.is_still, stillness.sent, stillness.received, stillness.waits);
}
template <typename Archive>
void serialize(Archive& archive, LogLine& line) {
  archive(line.level, line.text);
}

namespace {

template <typename... Content>
std::string to_bytes(ControlKind kind, const Content&... content) {
  std::ostringstream out;
  out.put(static_cast<char>(kind));
  {
    cereal::PortableBinaryOutputArchive archive(out);
    (archive(content), ...);
  }
  return std::move(out).str();
}

}  // namespace

std::string encode(ControlKind kind) {
  return to_bytes(kind);
}
std::string encode(ControlKind kind, std::int32_t number) {
  return to_bytes(kind, number);
}
std::string encode(ControlKind kind, std::int64_t number) {
  return to_bytes(kind, number);
}
std::string encode(ControlKind kind, const StartOrder& order) {
  return to_bytes(kind, order);
}
std::string encode(ControlKind kind, const RankOutcome& outcome) {
  return to_bytes(kind, outcome);
}
std::string encode(ControlKind kind, const Failure& failure) {
  return to_bytes(kind, failure);
}
std::string encode(ControlKind kind, const Stillness& stillness) {
  return to_bytes(kind, stillness);
}
std::string encode(ControlKind kind, const LogLine& line) {
  return to_bytes(kind, line);
}

ControlKind kind_of(std::string_view message) {
  if (message.empty()) {
    throw node::EnvironmentError("MPI: found an empty control message; expected its kind");
  }
  return static_cast<ControlKind>(message.front());
}

template <typename Content>
Content decode(std::string_view message) {
  std::istringstream in{std::string(message.substr(1))};
  Content content{};
  try {
    cereal::PortableBinaryInputArchive archive(in);
    archive(content);
  } catch (const cereal::Exception&) {
    throw node::EnvironmentError("MPI: found a control message of kind " +
                                 std::to_string(static_cast<int>(kind_of(message))) + " that is cut off; expected all");
  }
  return content;
}

template std::int32_t decode(std::string_view message);
template std::int64_t decode(std::string_view message);
template StartOrder decode(std::string_view message);
template RankOutcome decode(std::string_view message);
template Failure decode(std::string_view message);
template Stillness decode(std::string_view message);
template LogLine decode(std::string_view message);

}  // namespace lpu::cluster
