#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lpu/node/instruction.hpp"

namespace lpu::node {

/// How long a tensor lives, and what its identity depends on besides (name, layer, row).
enum class TensorScope : std::uint8_t {
  kStatic,     ///< weights, tables: in memory from the start, never written
  kCache,      ///< KV: one copy per user; appended to in each iteration
  kIteration,  ///< activations: made new in each iteration
};

/// Whose value a row is.
enum class TensorOwner : std::uint8_t {
  kChip,        ///< this chip's own part: weights slice, partial results
  kReplicated,  ///< equal on all chips of the stage (and on the next stage's, for what crosses stages)
  kGathered,  ///< rows [slot * rows_per_slot, …) are the part of the chip that ChipBinding::slot_owner names for the
              ///< slot
};

/// How many vectors of a tensor an operation gives, or takes, in one iteration.
struct OperationCount {
  Opcode opcode = Opcode::kCopy;
  std::int64_t vectors = 0;
};

/// A value that vectors belong to: 320-byte rows, numbered. The row's identity is (name, layer, owner, row in the
/// owner's part, and per scope nothing | user | iteration); value_id() turns it into 8 bytes.
struct Tensor {
  std::string name;
  TensorScope scope = TensorScope::kIteration;
  TensorOwner owner = TensorOwner::kChip;
  std::int32_t layer_slot = 0;  ///< absolute layer = ChipBinding::first_layer + layer_slot
  std::int32_t rows = 0;
  std::int32_t rows_per_slot = 0;      ///< kGathered only
  std::vector<std::uint16_t> sources;  ///< tensors that it is computed from; empty: weights, cache, received
  /// The operations that compute it and those that compute from it, all of them, by opcode. Reads, writes and messages
  /// only move it; allocations and transfers account for them.
  std::vector<OperationCount> made_by{};
  std::vector<OperationCount> used_by{};
};

/// Row u of the tensor of this name: the new token of user u of the micro-batch. Where a chip reads by kToken
/// registers, its next iteration takes them from the rows that this one writes.
inline constexpr std::string_view kTokenTensor = "token";

/// Where rows of a tensor lie: row + Σ i_l row_stride_l at (slice + Σ i_l slice_stride_l, address + Σ i_l
/// address_stride_l), for all indices i_l < count_l. With a base register, displaced by it. Static and cache tensors
/// hold these rows from the start; iteration tensors are written there.
struct Allocation {
  std::uint16_t tensor = 0;
  Hemisphere hemisphere = Hemisphere::kWest;
  std::uint16_t base_register = 0;
  std::int32_t row = 0;
  std::int32_t slice = 0;
  std::int32_t address = 0;
  std::int32_t count[3] = {1, 1, 1};
  std::int32_t row_stride[3] = {0, 0, 0};
  std::int32_t slice_stride[3] = {0, 0, 0};
  std::int32_t address_stride[3] = {0, 0, 0};
};

/// Displacement of an operand in one iteration.
struct Displacement {
  std::int16_t slice = 0;
  std::int16_t address = 0;
  std::int32_t row = 0;
  bool is_enabled = true;  ///< false: the instance is issued (and its resources are taken) but does nothing
};

enum class RegisterKind : std::uint8_t {
  kNone,
  kBuffer,  ///< iteration k: address + (k mod copies) * stride
  kUser,    ///< table[user slot]; user slot = (k mod groups) * micro_batch + user_in_batch
  kAppend,  ///< as kUser, plus where the iteration's position falls in the cache (AppendMap)
  kExpert,  ///< the expert_slot-th chosen expert e, ascending: address + e * stride, row + e * row_stride
  /// Row v of the embedding, v the token of the user: enabled in hemisphere v mod 2; with i = v / 2 and n pieces in the
  /// table: table[i mod n] plus address i / n * stride, row v * row_stride. `experts` holds the vocabulary.
  kToken,
  kPosition,  ///< the iteration's position p: address + p * stride, row + p * row_stride (rotary tables)
};

/// Where position p of a cache falls: tile = p / positions_per_tile, column = p mod positions_per_tile.
/// Tile t lies in hemisphere (t / planes) mod 2, plane t mod planes, round t / (2 planes).
/// K (is_column), with j = column mod columns_per_cycle: enabled where first_column <= j < first_column + columns;
/// slice
/// + (j - first_column) * slice_stride, address + round * round_stride + column / columns_per_cycle, row + p *
/// row_stride. V: every instance of the burst is a masked write; address + round * round_stride, row + tile *
/// row_stride. The register belongs to one (hemisphere, plane): elsewhere the displacement is disabled.
struct AppendMap {
  bool is_column = false;
  std::int32_t positions_per_tile = 0;
  std::int32_t planes = 0;
  std::int32_t hemisphere = 0;
  std::int32_t plane = 0;
  std::int32_t columns = 0;       ///< K: columns of this piece of the stripe
  std::int32_t slice_stride = 1;  ///< K: slices from column to column (bytes of a value)
  std::int32_t first_column = 0;  ///< K: first of the columns_per_cycle columns that this piece holds
  std::int32_t columns_per_cycle = 0;
  std::int32_t round_stride = 0;  ///< addresses
  std::int32_t row_stride = 0;    ///< rows per position (K) or per tile (V)
};

struct BaseRegister {
  RegisterKind kind = RegisterKind::kNone;
  std::int32_t copies = 1;
  std::int32_t stride = 0;
  std::int32_t row_stride = 0;
  std::int32_t user_in_batch = 0;
  std::int32_t expert_slot = 0;
  std::int32_t experts = 0;  ///< kExpert: experts of the layer; kToken: rows of the vocabulary
  std::int32_t layer_slot = 0;
  AppendMap append{};               ///< kAppend; kToken uses its hemisphere
  std::vector<Displacement> table;  ///< kUser, kAppend: per user slot
};

/// A message: the vectors that one link carries in one iteration for one purpose. Send and Receive of the same transfer
/// carry the same name on both chips; with a loop over links, one transfer per link.
struct Transfer {
  std::string name;
  std::int32_t layer_slot = 0;
  std::int32_t vectors = 0;  ///< on each link, in one iteration
};

/// Rows of the layer budget (`plan --explain`).
enum class OperatorPart : std::uint8_t {
  kInstall,
  kActivationSlots,
  kFill,
  kVxm,
  kSxm,
  kAttention,
  kRouter,
  kWires,
  kWaiting,
  kHop,
  kEnds
};

/// One chip's program text: a loop body that is issued once per iteration (micro-batch x token). Equal texts are stored
/// once. Instructions are in (start, unit, index) order.
struct ChipProgram {
  std::vector<Instruction> instructions;
  std::vector<Tensor> tensors;
  std::vector<Allocation> allocations;
  std::vector<BaseRegister> registers;  ///< [0] is kNone
  std::vector<Transfer> transfers;
  std::int32_t layers = 0;    ///< layer slots of the stage
  std::int32_t makespan = 0;  ///< last cycle in which an instruction of the iteration occupies anything, + 1
};

struct LinkPeer {
  std::int32_t chip = -1;  ///< -1: not wired
  std::int32_t link = -1;  ///< link number at the peer
};

/// What makes a text one chip's own: where it stands, who its peers are, when its iterations start.
struct ChipBinding {
  std::int32_t chip = 0;
  std::int32_t text = 0;  ///< index in ClusterProgram::texts; -1: an idle chip
  std::int32_t stage = 0;
  std::int32_t group_position = 0;  ///< in its TP group
  std::int32_t first_layer = 0;
  std::int64_t offset = 0;               ///< cycles from an iteration's start at stage 0 to its start here
  std::vector<LinkPeer> peers;           ///< per link
  std::vector<std::int32_t> slot_owner;  ///< group position of the owner of gathered slot s
};

}  // namespace lpu::node
