#include <algorithm>
#include <array>
#include <bit>
#include <csignal>
#include <cstring>
#include <deque>
#include <fstream>
#include <sys/utsname.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include <mpi.h>

#include "lpu/interconnect/rank_exchange.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "shared_window.hpp"

namespace lpu::interconnect {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr int kTagVectors = 1;
constexpr int kTagControl = 2;
constexpr int kTagSetup = 3;
/// Above it a message may wait for its sleeping sender (RankExchange says why).
constexpr std::size_t kLongestFragment = 4000;
constexpr auto kShortestNap = 50us;
constexpr auto kLongestNap = 5ms;  ///< with peers that cannot wake this rank
constexpr auto kCalmNap = 50ms;    ///< where everyone that has vectors for this rank rings its bell

void check(int code, const char* what) {
  if (code == MPI_SUCCESS) {
    return;
  }
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw node::EnvironmentError("MPI: " + std::string(what) + ": found " +
                               std::string(text.data(), static_cast<std::size_t>(length)) + "; expected success");
}

std::string content(const char* file) {
  std::ifstream in(file);
  std::string out;
  std::getline(in, out);
  return out;
}

/// Processes with equal digests see each other's memory and process ids: one kernel, one name, one PID namespace.
std::uint64_t host_digest() {
  utsname names{};
  ::uname(&names);
  std::array<char, 64> space{};
  const ssize_t length = ::readlink("/proc/self/ns/pid", space.data(), space.size());
  const std::string_view pid_space(space.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
  std::uint64_t digest = node::digest_text(&names.nodename[0]);
  digest = node::fold(digest, node::digest_text(content("/proc/sys/kernel/random/boot_id")));
  return node::fold(digest, node::digest_text(pid_space));
}

/// What each rank tells all at the start.
struct Greeting {
  std::int64_t pid = 0;
  std::uint64_t host = 0;
  std::uint64_t build = 0;
};

enum class RecordKind : std::uint32_t { kMessage, kVector, kNote, kFinish };

/// In front of each record of a stream.
struct RecordHead {
  std::uint32_t bytes = 0;  ///< of the record, this head included
  RecordKind kind = RecordKind::kMessage;
  std::int32_t chip = -1;
  std::int32_t link = -1;
};

template <typename T>
void append(std::vector<std::byte>& to, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  to.insert(to.end(), bytes.begin(), bytes.end());
}

template <typename T>
[[nodiscard]] T read(std::span<const std::byte> from) {
  T value{};
  std::memcpy(&value, from.data(), sizeof(T));
  return value;
}

struct OutStream {
  std::int32_t to = 0;
  ByteRing ring;  ///< none: over MPI
  std::vector<std::byte> unsent;
  std::int64_t messages = 0;
};

struct InStream {
  std::int32_t from = 0;
  ByteRing ring;
  std::vector<std::byte> bytes;  ///< come, and no whole record yet
  std::int64_t messages = 0;
  bool has_finished = false;
};

bool is_process_alive(std::int64_t pid) {
  if (::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) {
    return false;
  }
  // One that ended stays in the table until its parent looks.
  const std::string status = content(("/proc/" + std::to_string(pid) + "/stat").c_str());
  const std::size_t name_end = status.rfind(')');
  return name_end == std::string::npos || status.compare(name_end, 3, ") Z") != 0;
}

}  // namespace

class RankExchange::Implementation {
 public:
  explicit Implementation(const std::string& build);
  ~Implementation();
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;
  Implementation(Implementation&&) = delete;
  Implementation& operator=(Implementation&&) = delete;

  void send_control(std::int32_t to, std::string bytes);
  std::optional<ControlMessage> next_control();
  std::string open(std::span<const PairLoad> pairs, Carrier carrier);
  void send(std::int32_t to, Delivery at, const node::MessageHeader& header, std::span<const std::uint64_t> values);
  void send_bytes(std::int32_t to, RecordKind kind, Delivery at, std::span<const std::byte> bytes);
  void finish();
  void reopen();
  void flush();
  bool receive(RankReceiver& into);
  [[nodiscard]] bool has_received_all() const;
  void wait(std::chrono::microseconds at_most);
  [[nodiscard]] std::vector<std::int64_t> host_pids() const;
  [[nodiscard]] std::optional<std::int32_t> lost_rank() const;
  void announce_end();
  [[nodiscard]] bool is_speaker() const;

  [[nodiscard]] bool is_here(std::int32_t rank) const { return greeting(rank).host == greeting(rank_).host; }

  std::int32_t rank_ = 0;
  std::int32_t ranks_ = 1;
  std::int32_t hosts_ = 1;
  bool is_closed_ = false;
  ExchangeCounts counts_;
  SharedWindow window_;

 private:
  [[nodiscard]] const Greeting& greeting(std::int32_t rank) const { return greetings_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] std::int32_t member(std::int32_t rank) const;
  [[nodiscard]] Board& board(std::int32_t rank) const { return window_.board(member(rank)); }
  [[nodiscard]] bool has_bell(std::int32_t rank) const { return window_.is_open() && is_here(rank); }
  void forget();
  [[nodiscard]] std::string share_window(std::int64_t bytes);
  void send_setup(std::int32_t to, std::string_view bytes) const;
  [[nodiscard]] std::string receive_setup(std::int32_t from) const;
  [[nodiscard]] OutStream& stream_to(std::int32_t rank);
  void flush(OutStream& stream);
  void send_fragments(OutStream& stream);
  void take_fragments();
  void complete_sends();
  [[nodiscard]] std::vector<std::byte>& begin_record(std::int32_t to,
                                                     RecordKind kind,
                                                     Delivery at,
                                                     std::size_t body_bytes);
  void deliver(InStream& stream, RankReceiver& into);
  void deliver_record(InStream& stream, const RecordHead& head, std::span<const std::byte> body, RankReceiver& into);
  [[nodiscard]] bool deliver_message(InStream& stream,
                                     const RecordHead& head,
                                     std::span<const std::byte> body,
                                     RankReceiver& into);
  [[noreturn]] void fail_stream(const InStream& stream, const std::string& found) const;
  [[nodiscard]] std::chrono::nanoseconds next_nap();
  /// Whoever leaves something for this rank can ring its bell.
  [[nodiscard]] bool is_woken_by_all() const { return window_.is_open() && hosts_ == 1 && !has_mpi_streams_; }

  std::vector<Greeting> greetings_;
  std::vector<std::int32_t> members_;  ///< ranks of this host, ascending
  bool is_ending_ = false;
  bool is_finished_ = false;  ///< with the plane that is being executed

  std::vector<OutStream> out_;
  std::vector<InStream> in_;
  std::vector<std::int32_t> out_of_;  ///< per rank: index in out_; -1: none
  std::vector<std::int32_t> in_of_;
  bool has_mpi_streams_ = false;
  std::vector<std::uint64_t> values_;  ///< of the record being delivered, aligned

  struct Outgoing {
    std::vector<MPI_Request> requests;
    std::vector<std::unique_ptr<std::string>> bytes;
  };
  Outgoing outgoing_;
  std::vector<std::unique_ptr<std::string>> idle_buffers_;
  std::vector<int> completed_;

  std::uint32_t bell_seen_ = 0;
  std::uint32_t control_seen_ = 0;
  char generation_ = 0;  ///< of the window, from 1
  Clock::time_point last_probe_{};
  std::chrono::nanoseconds nap_ = kShortestNap;
};

RankExchange::Implementation::Implementation(const std::string& build) {
  check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  int number = 0;
  check(MPI_Comm_rank(MPI_COMM_WORLD, &number), "MPI_Comm_rank");
  rank_ = number;
  check(MPI_Comm_size(MPI_COMM_WORLD, &number), "MPI_Comm_size");
  ranks_ = number;
  const std::string machine = build + (std::endian::native == std::endian::little ? " little" : " big");
  const Greeting own{.pid = ::getpid(), .host = host_digest(), .build = node::digest_text(machine)};
  greetings_.resize(static_cast<std::size_t>(ranks_));
  constexpr int kBytes = sizeof(Greeting);
  check(MPI_Allgather(&own, kBytes, MPI_BYTE, greetings_.data(), kBytes, MPI_BYTE, MPI_COMM_WORLD), "MPI_Allgather");
  std::vector<std::uint64_t> hosts;
  for (std::int32_t rank = 0; rank < ranks_; ++rank) {
    if (greeting(rank).build != own.build) {
      throw node::EnvironmentError("rank " + std::to_string(rank) +
                                   ": found another build of the program than that of rank " + std::to_string(rank_) +
                                   "; expected one on all hosts (lpu_cluster --version)");
    }
    if (is_here(rank)) {
      members_.push_back(rank);
    }
    hosts.push_back(greeting(rank).host);
  }
  std::sort(hosts.begin(), hosts.end());
  hosts_ = static_cast<std::int32_t>(std::unique(hosts.begin(), hosts.end()) - hosts.begin());
}

RankExchange::Implementation::~Implementation() {
  // What is still on its way needs its buffer. A peer that takes nothing for so long is gone; then the job ends anyway.
  const auto end = Clock::now() + 2s;
  while (!outgoing_.requests.empty() && Clock::now() < end) {
    int is_done = 0;
    if (MPI_Testall(
            static_cast<int>(outgoing_.requests.size()), outgoing_.requests.data(), &is_done, MPI_STATUSES_IGNORE) !=
            MPI_SUCCESS ||
        is_done != 0) {
      return;
    }
    std::this_thread::sleep_for(1ms);
  }
  for (auto& buffer : outgoing_.bytes) {
    static_cast<void>(buffer.release());  // MPI may still read it
  }
}

std::int32_t RankExchange::Implementation::member(std::int32_t rank) const {
  return static_cast<std::int32_t>(std::lower_bound(members_.begin(), members_.end(), rank) - members_.begin());
}

// ---- control

void RankExchange::Implementation::send_control(std::int32_t to, std::string bytes) {
  // The last byte says in which window the receiver's board counts the message: none, the first, the second, ...
  bytes.push_back(has_bell(to) ? generation_ : '\0');
  outgoing_.bytes.push_back(std::make_unique<std::string>(std::move(bytes)));
  const std::string& buffer = *outgoing_.bytes.back();
  outgoing_.requests.push_back(MPI_REQUEST_NULL);
  check(MPI_Isend(buffer.data(),
                  static_cast<int>(buffer.size()),
                  MPI_BYTE,
                  to,
                  kTagControl,
                  MPI_COMM_WORLD,
                  &outgoing_.requests.back()),
        "MPI_Isend");
  if (has_bell(to)) {
    board(to).control.fetch_add(1, std::memory_order_seq_cst);
    ring_bell(board(to));
  }
}

std::optional<ControlMessage> RankExchange::Implementation::next_control() {
  const bool is_announced = window_.is_open() && board(rank_).control.load(std::memory_order_acquire) != control_seen_;
  const auto now = Clock::now();
  const std::chrono::nanoseconds every = is_woken_by_all() ? kCalmNap : std::max<std::chrono::nanoseconds>(nap_, 1ms);
  if (!is_announced && now - last_probe_ < every) {
    return std::nullopt;
  }
  int is_there = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status{};
  check(MPI_Improbe(MPI_ANY_SOURCE, kTagControl, MPI_COMM_WORLD, &is_there, &message, &status), "MPI_Improbe");
  if (is_there == 0) {
    last_probe_ = now;
    return std::nullopt;
  }
  int length = 0;
  check(MPI_Get_count(&status, MPI_BYTE, &length), "MPI_Get_count");
  ControlMessage out{.from = status.MPI_SOURCE, .bytes = std::string(static_cast<std::size_t>(length), '\0')};
  check(MPI_Mrecv(out.bytes.data(), length, MPI_BYTE, &message, &status), "MPI_Mrecv");
  control_seen_ += out.bytes.back() != '\0' && out.bytes.back() == generation_ ? 1U : 0U;
  out.bytes.pop_back();
  return out;
}

// ---- making the way

void RankExchange::Implementation::send_setup(std::int32_t to, std::string_view bytes) const {
  check(MPI_Send(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, to, kTagSetup, MPI_COMM_WORLD), "MPI_Send");
}

std::string RankExchange::Implementation::receive_setup(std::int32_t from) const {
  for (auto nap = 100us;; nap = std::min<std::chrono::microseconds>(2 * nap, kLongestNap)) {
    int is_there = 0;
    MPI_Message message = MPI_MESSAGE_NULL;
    MPI_Status status{};
    check(MPI_Improbe(from, kTagSetup, MPI_COMM_WORLD, &is_there, &message, &status), "MPI_Improbe");
    if (is_there != 0) {
      int length = 0;
      check(MPI_Get_count(&status, MPI_BYTE, &length), "MPI_Get_count");
      std::string bytes(static_cast<std::size_t>(length), '\0');
      check(MPI_Mrecv(bytes.data(), length, MPI_BYTE, &message, &status), "MPI_Mrecv");
      return bytes;
    }
    std::this_thread::sleep_for(nap);
  }
}

/// The lowest rank of the host makes the window, the others open it; all have it, or none.
std::string RankExchange::Implementation::share_window(std::int64_t bytes) {
  const std::int32_t leader = members_.front();
  std::string why;
  if (rank_ != leader) {
    const std::string sent = receive_setup(leader);
    const auto handle = read<SharedWindow::Handle>(std::as_bytes(std::span(sent)));
    why = handle.descriptor < 0 ? "" : window_.open(handle);
    send_setup(leader, why);
    why = receive_setup(leader);
  } else {
    why = window_.create(bytes);
    const SharedWindow::Handle handle = window_.handle();
    const auto raw = std::as_bytes(std::span(&handle, 1));
    for (const std::int32_t rank : members_) {
      if (rank != leader) {
        send_setup(rank, {reinterpret_cast<const char*>(raw.data()), raw.size()});
      }
    }
    for (const std::int32_t rank : members_) {
      const std::string answer = rank == leader ? std::string() : receive_setup(rank);
      why = why.empty() && !answer.empty() ? "rank " + std::to_string(rank) + ": " + answer : why;
    }
    for (const std::int32_t rank : members_) {
      if (rank != leader) {
        send_setup(rank, why);
      }
    }
  }
  if (!why.empty()) {
    window_.close();
  }
  return why;
}

/// What the execution before left behind.
void RankExchange::Implementation::forget() {
  window_.close();
  out_.clear();
  in_.clear();
  has_mpi_streams_ = false;
  is_closed_ = false;
  is_finished_ = false;
  bell_seen_ = 0;
  control_seen_ = 0;
  counts_ = {};
  ++generation_;
}

std::string RankExchange::Implementation::open(std::span<const PairLoad> pairs, Carrier carrier) {
  forget();
  struct Place {
    std::int64_t offset = 0;
    std::int64_t room = 0;
  };
  std::vector<Place> places;
  std::int64_t bytes = SharedWindow::boards_bytes(static_cast<std::int32_t>(members_.size()));
  for (const PairLoad& pair : pairs) {
    if (!is_here(pair.from) || !is_here(pair.to)) {
      places.emplace_back();
      continue;
    }
    constexpr std::int64_t kPage = 4096;
    const std::int64_t room = (pair.bytes + kPage - 1) / kPage * kPage;
    places.push_back({.offset = bytes, .room = room});
    bytes += SharedWindow::ring_bytes(room);
  }
  std::string why;
  if (carrier != Carrier::kMpi && members_.size() > 1) {
    why = share_window(bytes);
    if (!why.empty() && carrier == Carrier::kSharedMemory) {
      throw node::EnvironmentError("shared memory: found " + why + "; expected " + std::to_string(bytes) + " bytes");
    }
  }
  out_of_.assign(static_cast<std::size_t>(ranks_), -1);
  in_of_.assign(static_cast<std::size_t>(ranks_), -1);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const PairLoad& pair = pairs[i];
    if (pair.from != rank_ && pair.to != rank_) {
      continue;
    }
    const bool is_shared = places[i].room > 0 && window_.is_open();
    has_mpi_streams_ = has_mpi_streams_ || !is_shared;
    const ByteRing ring = is_shared ? window_.ring(places[i].offset, places[i].room) : ByteRing();
    if (pair.from == rank_) {
      out_of_[static_cast<std::size_t>(pair.to)] = static_cast<std::int32_t>(out_.size());
      out_.push_back({.to = pair.to, .ring = ring, .unsent = {}});
    } else {
      in_of_[static_cast<std::size_t>(pair.from)] = static_cast<std::int32_t>(in_.size());
      in_.push_back({.from = pair.from, .ring = ring, .bytes = {}});
    }
  }
  return why;
}

// ---- vectors

OutStream& RankExchange::Implementation::stream_to(std::int32_t rank) {
  const std::int32_t at = out_of_[static_cast<std::size_t>(rank)];
  LPU_CHECK(at >= 0, "a message to rank " + std::to_string(rank) + ", which the schedule does not send to");
  return out_[static_cast<std::size_t>(at)];
}

std::vector<std::byte>& RankExchange::Implementation::begin_record(std::int32_t to,
                                                                   RecordKind kind,
                                                                   Delivery at,
                                                                   std::size_t body_bytes) {
  LPU_CHECK(!is_finished_, "a record behind the end of its plane");
  OutStream& stream = stream_to(to);
  const std::size_t bytes = sizeof(RecordHead) + body_bytes;
  append(stream.unsent,
         RecordHead{.bytes = static_cast<std::uint32_t>(bytes), .kind = kind, .chip = at.chip, .link = at.link});
  ++stream.messages;
  ++counts_.sent;
  counts_.bytes_sent += static_cast<std::int64_t>(bytes);
  return stream.unsent;
}

void RankExchange::Implementation::send(std::int32_t to,
                                        Delivery at,
                                        const node::MessageHeader& header,
                                        std::span<const std::uint64_t> values) {
  std::vector<std::byte>& unsent = begin_record(to, RecordKind::kMessage, at, sizeof(header) + values.size_bytes());
  append(unsent, header);
  const auto raw = std::as_bytes(values);
  unsent.insert(unsent.end(), raw.begin(), raw.end());
}

void RankExchange::Implementation::send_bytes(std::int32_t to,
                                              RecordKind kind,
                                              Delivery at,
                                              std::span<const std::byte> bytes) {
  std::vector<std::byte>& unsent = begin_record(to, kind, at, bytes.size());
  unsent.insert(unsent.end(), bytes.begin(), bytes.end());
}

void RankExchange::Implementation::finish() {
  is_finished_ = true;
  for (OutStream& stream : out_) {
    append(stream.unsent, RecordHead{.bytes = sizeof(RecordHead) + 8, .kind = RecordKind::kFinish});
    append(stream.unsent, stream.messages);
  }
  flush();
}

void RankExchange::Implementation::reopen() {
  LPU_CHECK(is_finished_ && has_received_all(), "a plane that begins before the one before it has ended");
  is_finished_ = false;
  for (InStream& stream : in_) {
    stream.has_finished = false;
  }
  --bell_seen_;  // records of this plane may be here already, and nobody rings again for them
}

void RankExchange::Implementation::flush() {
  for (OutStream& stream : out_) {
    if (!stream.unsent.empty()) {
      flush(stream);
    }
  }
}

void RankExchange::Implementation::flush(OutStream& stream) {
  if (!stream.ring.is_there()) {
    send_fragments(stream);
    return;
  }
  std::size_t written = stream.ring.write(stream.unsent);
  if (written < stream.unsent.size()) {
    // The receiver wakes this rank when it has made room; what it took just before it could see the flag fits now.
    stream.ring.is_full().store(1, std::memory_order_seq_cst);
    written += stream.ring.write(std::span(stream.unsent).subspan(written));
  }
  if (written > 0) {
    stream.unsent.erase(stream.unsent.begin(), stream.unsent.begin() + static_cast<std::ptrdiff_t>(written));
    ring_bell(board(stream.to));
  }
}

void RankExchange::Implementation::send_fragments(OutStream& stream) {
  const auto* bytes = reinterpret_cast<const char*>(stream.unsent.data());
  for (std::size_t at = 0; at < stream.unsent.size(); at += kLongestFragment) {
    const std::size_t length = std::min(kLongestFragment, stream.unsent.size() - at);
    if (idle_buffers_.empty()) {
      idle_buffers_.push_back(std::make_unique<std::string>());
    }
    outgoing_.bytes.push_back(std::move(idle_buffers_.back()));
    idle_buffers_.pop_back();
    std::string& buffer = *outgoing_.bytes.back();
    buffer.assign(bytes + at, length);
    outgoing_.requests.push_back(MPI_REQUEST_NULL);
    check(MPI_Isend(buffer.data(),
                    static_cast<int>(length),
                    MPI_BYTE,
                    stream.to,
                    kTagVectors,
                    MPI_COMM_WORLD,
                    &outgoing_.requests.back()),
          "MPI_Isend");
  }
  stream.unsent.clear();
}

void RankExchange::Implementation::complete_sends() {
  if (outgoing_.requests.empty()) {
    return;
  }
  completed_.resize(outgoing_.requests.size());
  int done = 0;
  check(MPI_Testsome(static_cast<int>(outgoing_.requests.size()),
                     outgoing_.requests.data(),
                     &done,
                     completed_.data(),
                     MPI_STATUSES_IGNORE),
        "MPI_Testsome");
  if (done <= 0) {
    return;
  }
  std::size_t kept = 0;
  for (std::size_t i = 0; i < outgoing_.requests.size(); ++i) {
    if (outgoing_.requests[i] != MPI_REQUEST_NULL) {
      std::swap(outgoing_.requests[kept], outgoing_.requests[i]);
      std::swap(outgoing_.bytes[kept], outgoing_.bytes[i]);
      ++kept;
    }
  }
  for (std::size_t i = kept; i < outgoing_.bytes.size(); ++i) {
    if (outgoing_.bytes[i]->capacity() <= 2 * kLongestFragment) {
      idle_buffers_.push_back(std::move(outgoing_.bytes[i]));
    }
  }
  outgoing_.requests.resize(kept);
  outgoing_.bytes.resize(kept);
}

void RankExchange::Implementation::take_fragments() {
  for (;;) {
    int is_there = 0;
    MPI_Message message = MPI_MESSAGE_NULL;
    MPI_Status status{};
    check(MPI_Improbe(MPI_ANY_SOURCE, kTagVectors, MPI_COMM_WORLD, &is_there, &message, &status), "MPI_Improbe");
    if (is_there == 0) {
      return;
    }
    int length = 0;
    check(MPI_Get_count(&status, MPI_BYTE, &length), "MPI_Get_count");
    const std::int32_t at = in_of_[static_cast<std::size_t>(status.MPI_SOURCE)];
    LPU_CHECK(at >= 0, "vectors from rank " + std::to_string(status.MPI_SOURCE) + ", which has none to send");
    std::vector<std::byte>& bytes = in_[static_cast<std::size_t>(at)].bytes;
    const std::size_t before = bytes.size();
    bytes.resize(before + static_cast<std::size_t>(length));
    check(MPI_Mrecv(bytes.data() + before, length, MPI_BYTE, &message, &status), "MPI_Mrecv");
  }
}

bool RankExchange::Implementation::receive(RankReceiver& into) {
  const std::int64_t before = counts_.received;
  if (has_mpi_streams_) {
    take_fragments();
    complete_sends();
  }
  if (window_.is_open()) {
    const std::uint32_t bell = board(rank_).bell.load(std::memory_order_acquire);
    if (bell == bell_seen_ && !has_mpi_streams_) {
      return false;
    }
    bell_seen_ = bell;
  }
  for (InStream& stream : in_) {
    if (stream.ring.is_there() && stream.ring.take(stream.bytes) > 0 &&
        stream.ring.is_full().exchange(0, std::memory_order_seq_cst) != 0) {
      ring_bell(board(stream.from));
    }
    if (!stream.bytes.empty()) {
      deliver(stream, into);
    }
  }
  if (counts_.received == before) {
    return false;
  }
  nap_ = kShortestNap;
  return true;
}

void RankExchange::Implementation::deliver(InStream& stream, RankReceiver& into) {
  std::span<const std::byte> left(stream.bytes);
  while (!stream.has_finished && left.size() >= sizeof(RecordHead)) {
    const auto head = read<RecordHead>(left);
    if (head.bytes < sizeof(RecordHead)) {
      fail_stream(stream, "a record of " + std::to_string(head.bytes) + " bytes");
    }
    if (left.size() < head.bytes) {
      break;
    }
    deliver_record(stream, head, left.subspan(sizeof(RecordHead), head.bytes - sizeof(RecordHead)), into);
    left = left.subspan(head.bytes);
  }
  stream.bytes.erase(stream.bytes.begin(), stream.bytes.end() - static_cast<std::ptrdiff_t>(left.size()));
}

void RankExchange::Implementation::deliver_record(InStream& stream,
                                                  const RecordHead& head,
                                                  std::span<const std::byte> body,
                                                  RankReceiver& into) {
  if (head.kind == RecordKind::kFinish) {
    const auto sent = body.size() == 8 ? read<std::int64_t>(body) : std::int64_t{-1};
    if (sent != stream.messages) {
      fail_stream(stream,
                  std::to_string(stream.messages) + " messages, and an end that counts " + std::to_string(sent));
    }
    stream.has_finished = true;
    return;
  }
  const bool is_taken = head.kind == RecordKind::kMessage  ? deliver_message(stream, head, body, into)
                        : head.kind == RecordKind::kVector ? into.accept_vector({head.chip, head.link}, body)
                        : head.kind == RecordKind::kNote   ? into.accept_note(body)
                                                           : false;
  if (!is_taken) {
    fail_stream(stream, "a message for chip " + std::to_string(head.chip) + ", link " + std::to_string(head.link));
  }
  ++stream.messages;
  ++counts_.received;
}

bool RankExchange::Implementation::deliver_message(InStream& stream,
                                                   const RecordHead& head,
                                                   std::span<const std::byte> body,
                                                   RankReceiver& into) {
  node::MessageHeader header;
  if (body.size() >= sizeof(header)) {
    header = read<node::MessageHeader>(body);
  }
  const std::size_t values = body.size() < sizeof(header) ? 0 : (body.size() - sizeof(header)) / 8;
  if (header.length < 1 || values < static_cast<std::size_t>(header.length)) {
    fail_stream(
        stream,
        "a message of " + std::to_string(header.length) + " vectors in " + std::to_string(head.bytes) + " bytes");
  }
  values_.resize(static_cast<std::size_t>(header.length));
  std::memcpy(values_.data(), body.data() + sizeof(header), values_.size() * 8);
  return into.accept({head.chip, head.link}, header, values_);
}

void RankExchange::Implementation::fail_stream(const InStream& stream, const std::string& found) const {
  throw node::EnvironmentError("messages from rank " + std::to_string(stream.from) + " to rank " +
                               std::to_string(rank_) + ": found " + found + "; expected what was sent");
}

bool RankExchange::Implementation::has_received_all() const {
  return std::all_of(in_.begin(), in_.end(), [](const InStream& stream) { return stream.has_finished; });
}

// ---- waiting

std::chrono::nanoseconds RankExchange::Implementation::next_nap() {
  const bool is_waiting_for_room =
      std::any_of(out_.begin(), out_.end(), [](const OutStream& stream) { return !stream.unsent.empty(); });
  if (is_waiting_for_room || !outgoing_.requests.empty()) {
    return 1ms;
  }
  nap_ = std::min<std::chrono::nanoseconds>(2 * nap_, kLongestNap);
  return is_woken_by_all() ? kCalmNap : nap_;
}

void RankExchange::Implementation::wait(std::chrono::microseconds at_most) {
  flush();
  complete_sends();
  const std::chrono::nanoseconds nap = std::min<std::chrono::nanoseconds>(next_nap(), at_most);
  ++counts_.sleeps;
  if (window_.is_open()) {
    Board& own = board(rank_);
    if (is_closed_) {
      bell_seen_ = own.bell.load(std::memory_order_seq_cst);
      if (own.control.load(std::memory_order_seq_cst) != control_seen_) {
        return;
      }
    }
    sleep_on_bell(own, bell_seen_, nap);
    counts_.wake_ups += own.bell.load(std::memory_order_relaxed) != bell_seen_ ? 1 : 0;
  } else {
    // Unlike std::this_thread::sleep_for a signal ends it.
    const timespec time{.tv_sec = 0, .tv_nsec = static_cast<long>(nap.count())};
    ::nanosleep(&time, nullptr);
  }
}

// ---- life and death

std::vector<std::int64_t> RankExchange::Implementation::host_pids() const {
  std::vector<std::int64_t> out(static_cast<std::size_t>(ranks_), 0);
  for (const std::int32_t rank : members_) {
    out[static_cast<std::size_t>(rank)] = greeting(rank).pid;
  }
  return out;
}

std::optional<std::int32_t> RankExchange::Implementation::lost_rank() const {
  if (is_ending_ || (window_.is_open() && board(rank_).is_ending.load() != 0)) {
    return std::nullopt;
  }
  for (const std::int32_t rank : members_) {
    const bool is_ending = window_.is_open() && board(rank).is_ending.load() != 0;
    if (rank != rank_ && !is_ending && !is_process_alive(greeting(rank).pid)) {
      return rank;
    }
  }
  return std::nullopt;
}

void RankExchange::Implementation::announce_end() {
  is_ending_ = true;
  if (window_.is_open()) {
    for (const std::int32_t rank : members_) {
      board(rank).is_ending.store(1);
    }
  }
}

bool RankExchange::Implementation::is_speaker() const {
  return std::none_of(members_.begin(), members_.end(), [this](std::int32_t rank) {
    return rank < rank_ && is_process_alive(greeting(rank).pid);
  });
}

// ---- the public face

RankExchange::RankExchange(const std::string& build) : implementation_(std::make_unique<Implementation>(build)) {}
RankExchange::~RankExchange() = default;
std::int32_t RankExchange::rank() const {
  return implementation_->rank_;
}
std::int32_t RankExchange::ranks() const {
  return implementation_->ranks_;
}
std::int32_t RankExchange::hosts() const {
  return implementation_->hosts_;
}
void RankExchange::send_control(std::int32_t to, std::string bytes) {
  implementation_->send_control(to, std::move(bytes));
}
std::optional<ControlMessage> RankExchange::next_control() {
  return implementation_->next_control();
}
std::string RankExchange::open(std::span<const PairLoad> pairs, Carrier carrier) {
  return implementation_->open(pairs, carrier);
}
bool RankExchange::has_shared_memory() const {
  return implementation_->window_.is_open();
}
void RankExchange::send(std::int32_t to,
                        Delivery at,
                        const node::MessageHeader& header,
                        std::span<const std::uint64_t> values) {
  implementation_->send(to, at, header, values);
}
void RankExchange::send_vector(std::int32_t to, Delivery at, std::span<const std::byte> vector) {
  implementation_->send_bytes(to, RecordKind::kVector, at, vector);
}
void RankExchange::send_note(std::int32_t to, std::span<const std::byte> note) {
  implementation_->send_bytes(to, RecordKind::kNote, {}, note);
}
void RankExchange::finish() {
  implementation_->finish();
}
void RankExchange::reopen() {
  implementation_->reopen();
}
void RankExchange::flush() {
  implementation_->flush();
}
bool RankExchange::receive(RankReceiver& into) {
  return implementation_->receive(into);
}
bool RankExchange::has_received_all() const {
  return implementation_->has_received_all();
}
void RankExchange::close() {
  implementation_->is_closed_ = true;
}
void RankExchange::wait(std::chrono::microseconds at_most) {
  implementation_->wait(at_most);
}
std::vector<std::int64_t> RankExchange::host_pids() const {
  return implementation_->host_pids();
}
std::optional<std::int32_t> RankExchange::lost_rank() const {
  return implementation_->lost_rank();
}
void RankExchange::announce_end() {
  implementation_->announce_end();
}
bool RankExchange::is_speaker() const {
  return implementation_->is_speaker();
}
const ExchangeCounts& RankExchange::counts() const {
  return implementation_->counts_;
}

}  // namespace lpu::interconnect
