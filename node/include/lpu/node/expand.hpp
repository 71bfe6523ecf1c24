#pragma once
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/program.hpp"

namespace lpu::node {

/// What an instance can occupy for a cycle. Accumulators and weight buffers hold values over time and are no cells.
enum class ResourceKind : std::uint8_t {
  kReadPort,        ///< unit: slice of the chip (hemisphere * slices + slice)
  kWritePort,       ///< unit: slice of the chip
  kBank,            ///< unit: slice of the chip, part: bank
  kStreamRegister,  ///< unit: (hemisphere * 2 + direction) * streams + stream, part: position
  kInstall,         ///< unit: plane of the chip (hemisphere * planes + plane)
  kCompute,         ///< unit: plane of the chip
  kDrain,           ///< unit: plane of the chip
  kAlu,             ///< unit: ALU
  kSxm,             ///< unit: hemisphere
  kSxmInputs,       ///< unit: hemisphere; amount: streams
  kSxmOutputs,      ///< unit: hemisphere; amount: streams
  kLinkPush,        ///< unit: link
  kLinkTake,        ///< unit: link
  kQueue,           ///< unit: kind of queue, part: which one of that kind
  kFetch,           ///< amount: bytes of program text
};

struct Resource {
  ResourceKind kind = ResourceKind::kReadPort;
  std::int32_t unit = 0;
  std::int32_t part = 0;
  auto operator<=>(const Resource&) const = default;
};

/// One resource in one cycle of an iteration, taken by one instance of one instruction.
struct Cell {
  Resource resource;
  std::int32_t amount = 1;  ///< of the resource's capacity
  std::int64_t cycle = 0;   ///< relative to the iteration; may be negative where a burst runs against its diagonal
  std::int32_t instruction = 0;
  std::int32_t instance = 0;  ///< -1: the burst as a whole (its dispatch, its fetch)
};

/// The reference expander: every cell that an iteration of a text takes, one instance after the other.
///
/// Naive on purpose: it is the oracle that burst arithmetic is judged by. Every displacement that a base register can
/// take is reserved; the displacements of one instance never conflict with each other.
///
/// @param context  positions of the cache bucket (appends fall on each of them)
/// @complexity one cell per instance, displacement and stream register crossed
[[nodiscard]] std::vector<Cell> expand(const ChipProgram& text, const ChipSpec& chip, std::int32_t context);

/// How much of a resource a cycle offers: 1, but for SXM streams and fetched bytes.
[[nodiscard]] std::int64_t capacity(ResourceKind kind, const ChipSpec& chip);

/// Two users of one cell; `second` is the one that no longer fits.
struct Collision {
  Cell first;
  Cell second;
};

/// Fold iterations that start any multiples of the interval apart onto one another and look for a cell that is taken
/// beyond its capacity: an iteration against itself, and against itself m intervals later.
///
/// @param interval  initiation interval, cycles, > 0
/// @return one collision; none: free of conflicts
[[nodiscard]] std::optional<Collision> find_collision(std::span<const Cell> cells,
                                                      std::int64_t interval,
                                                      const ChipSpec& chip);

}  // namespace lpu::node
