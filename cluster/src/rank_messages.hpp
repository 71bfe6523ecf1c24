#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lpu/interconnect/rank_exchange.hpp"
#include "lpu/node/emulator.hpp"
#include "numeric_runner.hpp"
#include "runner.hpp"
#include "saved_run.hpp"
#include "trace.hpp"

namespace lpu::cluster {

/// What ranks tell each other beside vectors. Rank 0 decides; the others report to it.
enum class ControlKind : std::uint8_t {
  kStart,    ///< from rank 0: StartOrder
  kQuit,     ///< from rank 0: ExitCode, before a start or after everything
  kOutcome,  ///< to rank 0: RankOutcome
  kFailure,  ///< to rank 0: Failure
  kAbort,    ///< from rank 0: a failure was printed and the job is being ended
  kStill,    ///< to rank 0: Stillness, nothing has moved here for a while
  kProbe,    ///< from rank 0: answer with your Stillness
  kAnswer,   ///< to rank 0: Stillness with waits
  kSignal,   ///< to rank 0: number of a signal that asks to end
  kStop,     ///< from rank 0: likewise, to all
  kLog,      ///< to rank 0: LogLine
  kSave,     ///< to rank 0: a signal asks for the state
  kPause,    ///< from rank 0: wait, and say which token can be the next
  kPaused,   ///< to rank 0: that token
  kGoOn,     ///< from rank 0: up to this token, or Execution::kNoToken to the end
};

/// The numeric plane behind the timing plane.
struct NumericOrder {
  std::string checkpoint;    ///< path, the same on each host
  std::uint64_t digest = 0;  ///< of the model and the weights' bytes there, so that no host has another one
  GenerateOptions options;   ///< but for its functions
  std::string saved{};       ///< to_bytes() of the rank's NumericState, to go on from; empty: it starts
};

/// All that a rank needs to take part.
struct StartOrder {
  std::string program;  ///< scheduler::to_bytes() of its part
  std::uint64_t digest = 0;
  std::int64_t tokens = 1;
  std::int32_t users = 1;
  Checks checks = Checks::kArrivals;
  std::string faults;  ///< planted for tests (test_faults.hpp)
  std::vector<std::int32_t> rank_of;
  std::vector<interconnect::PairLoad> pairs;
  interconnect::Carrier carrier = interconnect::Carrier::kAuto;
  TraceSelection trace;
  std::optional<NumericOrder> numbers;
  std::optional<SaveOrder> save;  ///< where a state goes
  std::string saved_chips;        ///< to_bytes() of the rank's chips, to go on from; empty: they start
};

/// What a rank measured.
struct RankOutcome {
  std::vector<ChipOutcome> chips;
  std::int64_t messages_in_process = 0;
  interconnect::ExchangeCounts exchange;
  bool uses_shared_memory = false;
  std::int64_t memory_bytes = 0;  ///< proportional set size when it ended; 0: not known
  Trace trace;
  NumericOutcome numbers;
  std::optional<SavedPart> saved;  ///< where it was stopped between two tokens
};

struct Failure {
  std::int32_t rank = 0;
  std::int32_t exit_code = 0;
  std::int32_t chip = -1;
  std::int64_t cycle = -1;
  std::string message;
};

/// A rank on which nothing can run.
struct Stillness {
  std::int64_t round = 0;  ///< of the probe that it answers
  bool is_still = true;
  std::int64_t sent = 0;      ///< messages to other ranks, so far
  std::int64_t received = 0;  ///< and delivered from them
  std::vector<node::Wait> waits;
};

struct LogLine {
  std::int32_t level = 0;
  std::string text;
};

/// A message's bytes: its kind, then the content as cereal portable binary.
[[nodiscard]] std::string encode(ControlKind kind);
[[nodiscard]] std::string encode(ControlKind kind, std::int32_t number);
[[nodiscard]] std::string encode(ControlKind kind, std::int64_t number);
[[nodiscard]] std::string encode(ControlKind kind, const StartOrder& order);
[[nodiscard]] std::string encode(ControlKind kind, const RankOutcome& outcome);
[[nodiscard]] std::string encode(ControlKind kind, const Failure& failure);
[[nodiscard]] std::string encode(ControlKind kind, const Stillness& stillness);
[[nodiscard]] std::string encode(ControlKind kind, const LogLine& line);

[[nodiscard]] ControlKind kind_of(std::string_view message);
/// @throws node::EnvironmentError  bytes that are no such content
template <typename Content>
[[nodiscard]] Content decode(std::string_view message);

}  // namespace lpu::cluster
