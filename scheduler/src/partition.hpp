#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "lpu/scheduler/compile.hpp"
#include "memory_map.hpp"

namespace lpu::scheduler {

/// How a compute path uses the MXM: what a weight, an activation and a wire value cost.
struct ComputePath {
  std::int32_t weight_bytes = 1;        ///< in SRAM
  std::int32_t activation_streams = 1;  ///< bytes of an activation at the MXM
  std::int32_t wire_bytes = 2;
  std::int32_t kv_bytes = 1;
  bool quantises = true;                 ///< activations are int8 with one scale a token
  bool widens = false;                   ///< weights pass the VXM on their way
  bool pairs_planes = false;             ///< one tile of 320 x 160 on the two planes of a hemisphere
  std::int32_t tile_columns = 320;       ///< per plane, or per plane pair
  std::int32_t install_columns = 16;     ///< per cycle, plane or pair
  std::int32_t install_streams = 32;     ///< per hemisphere and cycle, at the MXM
  std::int32_t stored_slices = 32;       ///< per hemisphere and cycle, in SRAM
  std::int32_t kv_install_columns = 16;  ///< K^T and V as weights: never widened
  std::int32_t kv_streams = 32;
  std::int32_t compute_cycles = 1;  ///< MXM cycles an activation vector takes
  bool hides_activations = false;   ///< activation streams are free while weights install
};
[[nodiscard]] ComputePath make_path(Compute compute, KvType kv, const node::ChipSpec& chip);

/// `elements` values on each chip, as wire vectors: groups of 320 lanes, the last one partly filled.
struct Packing {
  std::int32_t elements = 0;   ///< per chip, a multiple of 16
  std::int32_t full = 0;       ///< whole groups
  std::int32_t remainder = 0;  ///< lanes of the last group; 0: none
  std::int32_t groups = 0;     ///< full + (remainder ? 1 : 0)
};
[[nodiscard]] Packing pack(std::int64_t elements, const node::ChipSpec& chip);

/// A gathered vector as MXM rows of 320 lanes. Slots in the west become rows first, then those in the east.
///
/// Where remainders of several slots fit side by side in one row, senders shift them there and the VXM adds them up.
/// Else (kJoined) the SXM joins all lanes of a half into full rows on the way, and the last lanes of both halves share
/// a row if they can.
struct Rowing {
  std::array<std::int32_t, 2> tiles{0, 0};  ///< rows of each half
  bool is_joined = false;
  bool shares_last = false;         ///< joined: the east's last row also holds the west's last lanes
  std::int32_t slots_per_tile = 1;  ///< not joined: remainders that share a row
  [[nodiscard]] std::int32_t total() const { return tiles[0] + tiles[1]; }
};
[[nodiscard]] Rowing make_rows(const Packing& packing, std::int32_t west_slots, std::int32_t east_slots);

/// What one chip of a TP group holds of a layer. Uneven divisions are padded to the largest part, and counted.
struct Shard {
  std::int32_t tensor_parallel = 1;
  std::int32_t query_heads = 0;  ///< per chip
  std::int32_t kv_heads = 0;     ///< per chip; replicated where TP > KV heads
  std::int32_t head_dim = 0;
  Packing hidden, attention, ffn, vocabulary;
  /// Slots of a gather whose rows lie in the west / east hemisphere: peers by link, the chip's own part in the east.
  [[nodiscard]] std::int32_t west_slots() const {
    return tensor_parallel == 1 ? 0 : (tensor_parallel < 5 ? tensor_parallel - 1 : 4);
  }
  [[nodiscard]] std::int32_t east_slots() const { return tensor_parallel - west_slots(); }
  /// MXM rows of a gathered vector: both hemispheres' halves.
  [[nodiscard]] Rowing rows(const Packing& packing) const { return make_rows(packing, west_slots(), east_slots()); }
  [[nodiscard]] std::int32_t tiles(const Packing& packing) const { return rows(packing).total(); }
};
[[nodiscard]] Shard make_shard(const ModelConfig& model, std::int32_t tensor_parallel, const node::ChipSpec& chip);

/// One matrix multiplication of a chip: tiles of k times columns, cut into windows of whole column blocks.
struct Linear {
  std::int32_t tiles = 0;  ///< rows of k, in MXM rows of 320
  std::int32_t columns = 0;
  std::int32_t block_columns = 0;  ///< of a full block over all planes
  [[nodiscard]] std::int32_t blocks() const { return (columns + block_columns - 1) / block_columns; }
};
/// Columns of each plane (or pair) in a block of `columns` columns: a multiple of the install width.
[[nodiscard]] std::int32_t columns_per_place(std::int32_t columns, const ComputePath& path);
/// Install cycles of one k tile of that block.
[[nodiscard]] std::int32_t install_cycles(std::int32_t columns, const ComputePath& path);
/// Install cycles of the whole matrix.
[[nodiscard]] std::int64_t install_cycles(const Linear& linear, const ComputePath& path);
/// Addresses (of `stored_slices` slices in both hemispheres) that the matrix takes.
[[nodiscard]] std::int64_t stored_rows(const Linear& linear, const ComputePath& path);

struct LayerLinears {
  Linear qkv, output, gate_up, down, router;
};
[[nodiscard]] LayerLinears layer_linears(const ModelConfig& model, const Shard& shard, const ComputePath& path);
/// The matrix widened so that one plane (or pair) holds all its columns: a token's results are then one row of its sum.
/// What the other places install is computed and discarded.
[[nodiscard]] Linear in_one_place(Linear linear, const ComputePath& path);
[[nodiscard]] Linear head_linear(const Shard& shard, const ComputePath& path);

/// K^T and V of one KV head, one user, one layer: positions dealt over the planes.
struct KvTiling {
  std::int32_t places = 4;        ///< planes (or pairs) that hold tiles at a time
  std::int32_t rounds = 1;        ///< installs of each place
  std::int32_t positions = 0;     ///< per tile, a multiple of 16
  std::int32_t key_cycles = 0;    ///< install cycles of one K^T tile
  std::int32_t value_cycles = 0;  ///< of one V tile
  [[nodiscard]] std::int32_t addresses() const { return rounds * (key_cycles + value_cycles); }  ///< of 32 slices
};
[[nodiscard]] KvTiling kv_tiling(std::int32_t context, std::int32_t head_dim, const ComputePath& path);

/// A third of a layer, the grain of stages: cuts after attention's output, after gate/up, after down.
enum class Block : std::uint8_t { kAttention, kGateUp, kDown };

/// Consecutive blocks on one TP group.
struct Stage {
  std::int32_t first_block = 0;  ///< 3 * layer + block
  std::int32_t blocks = 0;
  bool has_embedding = false;
  bool has_head = false;
  [[nodiscard]] Block block(std::int32_t i) const { return static_cast<Block>((first_block + i) % 3); }
  [[nodiscard]] std::int32_t layer(std::int32_t i) const { return (first_block + i) / 3; }
  bool operator==(const Stage&) const = default;
};

/// Busy cycles of a block by the search's cost model (installs and activation slots; expert slots counted).
[[nodiscard]] std::int64_t block_cycles(const CompileRequest& request,
                                        const Shard& shard,
                                        const ComputePath& path,
                                        Block block);

/// Users that KV is allocated for: whole micro-batches.
[[nodiscard]] std::int32_t user_slots(const CompileRequest& request);

/// Cut the model into `stages` stages so that the slowest is as fast as can be and each fits, KV included.
[[nodiscard]] std::vector<Stage> cut_stages(const CompileRequest& request,
                                            const Shard& shard,
                                            const ComputePath& path,
                                            std::int32_t stages);

/// Addresses that scratch keeps in each near slice.
[[nodiscard]] Scratch scratch_of(const CompileRequest& request, const Stage& stage);

/// Slices that hold one token's row of the embedding side by side: 1, 2 or 4; and the addresses it takes.
struct EmbeddingRows {
  std::int32_t slices = 1;
  std::int32_t height = 1;
};
[[nodiscard]] EmbeddingRows embedding_rows(const Shard& shard, const ComputePath& path);

/// SRAM of one chip of a stage: rows of 32-slice stripes for weights, of KV per user, scratch and tables.
struct StageMemory {
  std::int64_t weight_stripes = 0;  ///< addresses of 32 slices x 2 hemispheres
  std::int64_t row_stripes = 0;     ///< of them, what is read row by row (the embedding)
  std::int64_t kv_stripes_per_user = 0;
  std::int64_t weight_bytes = 0;
  std::int64_t kv_bytes_per_user = 0;
};
[[nodiscard]] StageMemory stage_memory(const CompileRequest& request,
                                       const Shard& shard,
                                       const ComputePath& path,
                                       const Stage& stage);
/// TP and PP degree.
struct Degrees {
  std::int32_t tensor_parallel = 1;
  std::int32_t pipeline_parallel = 1;
};
/// Degrees that the search looks at: those asked for, or every TP with stages that divide the layers, that layers
/// divide, or that use all chips.
[[nodiscard]] std::vector<Degrees> possible_degrees(const CompileRequest& request);

/// Stripes that a stage's chips hold.
[[nodiscard]] std::int64_t stage_capacity(const CompileRequest& request,
                                          const ComputePath& path,
                                          const Stage& stage,
                                          std::int64_t row_stripes);

/// Stripes that a stage takes with `users` users' KV, or nothing where they do not fit.
[[nodiscard]] std::optional<std::int64_t> stripes_of(const CompileRequest& request,
                                                     const ComputePath& path,
                                                     const StageMemory& memory,
                                                     const Stage& stage,
                                                     std::int64_t users);

/// Whether all stages hold the KV of the users asked for.
[[nodiscard]] bool fits(const CompileRequest& request,
                        const Shard& shard,
                        const ComputePath& path,
                        const std::vector<Stage>& stages);

/// The most users that some cut into so many stages has room for, in whole micro-batches; 0: not even one.
[[nodiscard]] std::int32_t most_users(const CompileRequest& given,
                                      const Shard& shard,
                                      const ComputePath& path,
                                      std::int32_t stages);

}  // namespace lpu::scheduler
