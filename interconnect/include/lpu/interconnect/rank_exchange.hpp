#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lpu/interconnect/rank_receiver.hpp"
#include "lpu/node/port.hpp"

namespace lpu::interconnect {

/// What carries messages between ranks of one host; between hosts it is always MPI.
enum class Carrier : std::uint8_t {
  kAuto,          ///< shared memory where it can be had
  kSharedMemory,  ///< or an error
  kMpi,
};

/// A pair of ranks of which one sends vectors to the other.
struct PairLoad {
  std::int32_t from = 0;
  std::int32_t to = 0;
  std::int64_t bytes = 0;  ///< most that the schedule lets be on their way at once
};

/// Anything between ranks that is no vector: who starts, ends, fails, waits.
struct ControlMessage {
  std::int32_t from = 0;
  std::string bytes;
};

/// What went between this rank and the others.
struct ExchangeCounts {
  std::int64_t sent = 0;        ///< messages and vectors to chips of other ranks, and notes to ranks
  std::int64_t received = 0;    ///< and from them
  std::int64_t bytes_sent = 0;  ///< headers included
  std::int64_t sleeps = 0;      ///< times that the rank slept
  std::int64_t wake_ups = 0;    ///< of these, ended by something that came
};

/// Carries messages between the ranks of an MPI job.
///
/// To each other rank there is one stream of bytes, in which whole messages follow each other: through a ring in memory
/// that ranks of a host share, or cut into MPI messages of at most 4,000 bytes, which complete without the sender
/// entering MPI again (a longer one may stall as long as its sender sleeps: 3 s were measured). Nothing blocks but
/// `wait`, and that sleeps: on a futex word of the window, or for a time that grows to 5 ms. What does not fit into a
/// ring stays with its sender, so a mailbox that is too small costs time and nothing else.
class RankExchange {
 public:
  /// Learns who is there: the one collective of a run.
  /// @pre   MPI is initialised, and is ended after the exchange
  /// @throws node::EnvironmentError  MPI fails; ranks run different builds of the program
  explicit RankExchange(const std::string& build);
  ~RankExchange();
  RankExchange(const RankExchange&) = delete;
  RankExchange& operator=(const RankExchange&) = delete;
  RankExchange(RankExchange&&) = delete;
  RankExchange& operator=(RankExchange&&) = delete;

  [[nodiscard]] std::int32_t rank() const;
  [[nodiscard]] std::int32_t ranks() const;
  [[nodiscard]] std::int32_t hosts() const;

  /// Never blocks; control messages of one rank come in the order in which they were sent.
  void send_control(std::int32_t to, std::string bytes);
  [[nodiscard]] std::optional<ControlMessage> next_control();

  /// Makes the way for vectors of one execution; all ranks of a host call it with the same pairs. Counts begin anew.
  /// @pre          the execution before, if there was one, has ended on all ranks
  /// @param pairs  every one that may send, of all ranks or at least of this host's
  /// @return       why the host goes without shared memory; empty: it has it, or none was asked for
  /// @throws node::EnvironmentError  kSharedMemory, and it cannot be had
  [[nodiscard]] std::string open(std::span<const PairLoad> pairs, Carrier carrier);
  [[nodiscard]] bool has_shared_memory() const;

  /// Takes a message for a chip of another rank; it leaves with the next flush(). Never blocks.
  void send(std::int32_t to, Delivery at, const node::MessageHeader& header, std::span<const std::uint64_t> values);
  /// Likewise: the bytes of one vector, and something for the rank itself.
  void send_vector(std::int32_t to, Delivery at, std::span<const std::byte> vector);
  void send_note(std::int32_t to, std::span<const std::byte> note);
  /// Tells every rank that this one sends to how many records there were; none may follow, but for reopen().
  void finish();
  /// The next plane of the execution begins here: what others, ahead of this rank, have sent of it is delivered from
  /// now on. No barrier is needed: a stream's next plane lies behind the end of the one before.
  /// @pre finish() was called, and has_received_all()
  void reopen();
  /// Hands on what was sent and wakes those who sleep for it.
  void flush();
  /// Delivers all records that have come.
  /// @return whether there was one
  /// @throws node::EnvironmentError  a stream that is no sequence of records, or whose count differs from its sender's
  bool receive(RankReceiver& into);
  /// All ranks that send to this one have said that they are done with the plane, and all that they sent was delivered.
  [[nodiscard]] bool has_received_all() const;

  /// No vectors are expected any more; from here on a rank that waits listens to control messages alone.
  void close();

  /// Flushes, then sleeps until something may have come, a signal comes, or the time is over.
  void wait(std::chrono::microseconds at_most);

  /// Process ids of the ranks of this host; 0 for those of others.
  [[nodiscard]] std::vector<std::int64_t> host_pids() const;
  /// A rank of this host that is no more although nobody said that the run ends.
  [[nodiscard]] std::optional<std::int32_t> lost_rank() const;
  /// Says so: deaths from now on are no losses.
  void announce_end();
  /// This rank has the lowest number of those of its host that live.
  [[nodiscard]] bool is_speaker() const;

  [[nodiscard]] const ExchangeCounts& counts() const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace lpu::interconnect
