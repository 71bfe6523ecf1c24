#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace lpu::node {

/// What goes ahead of a message's vectors.
///
/// A message is a run of consecutive vectors of one link whose starts on the wire are equally far apart. There is no
/// arrival cycle in it: the receiver computes that from the link model and compares it with its own program.
struct MessageHeader {
  std::uint64_t schedule_digest = 0;  ///< of the sender's cluster program
  std::uint64_t transfer = 0;         ///< digest of the transfer's name
  std::uint64_t fold = 0;             ///< running fingerprint of the sender after its Send
  std::int64_t iteration = 0;
  std::int64_t departure = 0;  ///< cycle in which the first vector starts on the wire, common clock
  std::int32_t step = 0;       ///< cycles from one start to the next; 0 with one vector
  std::int32_t length = 0;     ///< vectors, >= 1
};

/// A message as it lies in the receiver's mailbox.
struct MessageView {
  const MessageHeader* header = nullptr;  ///< nullptr: nothing has come yet
  const std::uint64_t* values = nullptr;  ///< header->length value ids
};

/// What a waiting chip waits for.
struct Wait {
  std::int32_t chip = -1;
  std::int64_t cycle = 0;  ///< last take of the Receive
  std::int32_t instruction = -1;
  std::int32_t link = -1;
  std::int32_t from = -1;  ///< chip at the far end; -1: the link is not wired
  std::int64_t iteration = 0;
  std::string transfer;
};

/// One chip's ends of its links: what a chip needs from above.
///
/// The chip may assume
/// - that messages of one link come in the order in which they were sent, each exactly once;
/// - that `front` keeps its answer valid until `pop` of the same link.
/// An implementation must not
/// - block, in any of the three (who sleeps is decided by whoever runs the chip);
/// - change or reorder what it carries.
class Port {
 public:
  Port() = default;
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;
  Port(Port&&) = delete;
  Port& operator=(Port&&) = delete;
  virtual ~Port() = default;

  /// Takes a message for the chip at the far end of `link`.
  /// @param values  header.length value ids; copied
  virtual void send(std::int32_t link, const MessageHeader& header, std::span<const std::uint64_t> values) = 0;
  /// The oldest message of `link` that has come and was not popped.
  [[nodiscard]] virtual MessageView front(std::int32_t link) = 0;
  /// @pre front(link) holds a message
  virtual void pop(std::int32_t link) = 0;
};

}  // namespace lpu::node
