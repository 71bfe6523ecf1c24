#pragma once
#include <array>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "draft.hpp"
#include "hop_plan.hpp"
#include "memory_map.hpp"
#include "partition.hpp"
#include "stage_builder.hpp"

namespace lpu::scheduler {

inline constexpr std::array<node::Hemisphere, 2> kHemispheres{node::Hemisphere::kWest, node::Hemisphere::kEast};

/// A vector that every chip of the group holds in full: wire rows in SRAM, the west peers' parts in the west, the rest
/// (own part first) in the east. Row = (slot * micro_batch + token) * rows_per_token + group * wire_bytes + byte.
struct Gathered {
  TensorId tensor = 0;
  std::array<BufferId, 2> part{-1, -1};  ///< per hemisphere; -1 where no slot lies
  BufferId own_west = -1;                ///< the own part once more, for the western links
  Packing packing;
};

/// A vector as MXM rows, in both hemispheres: the west half's tiles, then the east half's.
/// Row of a half = (token * tiles + tile) * activation_streams + byte.
struct Activation {
  std::array<TensorId, 2> tensor{0, 0};                                 ///< per half
  std::array<std::array<BufferId, 2>, 2> buffer{{{-1, -1}, {-1, -1}}};  ///< [hemisphere][half]
  std::array<std::int32_t, 2> tiles{0, 0};                              ///< per half
  Rowing rows;
};

/// One reduction's result: a vector of equal lanes (fp32, four rows) in one hemisphere.
struct Scalar {
  TensorId tensor = 0;
  BufferId buffer = -1;
  std::int32_t row = 0;
  node::Hemisphere hemisphere = node::Hemisphere::kWest;
};

/// A block of columns of a weight matrix where it lies in SRAM.
struct WeightBlock {
  std::int32_t columns = 0;
  std::int32_t cycles = 0;     ///< install cycles of a tile
  std::int32_t first_row = 0;  ///< in the stored tensor
  /// Tiles [first, first + tiles) lie in one set of runs.
  struct Segment {
    std::int32_t first = 0;
    std::int32_t tiles = 0;
    std::vector<Run> runs;
  };
  std::vector<Segment> segments;
  std::vector<std::uint16_t> registers{0};  ///< per expert slot; {0} when dense
};

/// A weight matrix: stored rows in SRAM and what each plane of a hemisphere installs. Without widening that is the
/// stored row itself; else plane 0 takes the low bytes and plane 1 the high bytes, numbered alike.
struct Matrix {
  std::string name;
  TensorId stored = 0;
  std::array<TensorId, 2> installed{0, 0};  ///< per plane
  Linear linear;
  std::vector<WeightBlock> blocks;
  bool has_experts = false;
};

/// A GEMM's sums after its last round: where they are and from when they can be drained.
struct Sums {
  TensorId tensor = 0;
  std::int32_t first_row = 0;  ///< row of token 0, place 0
  std::int32_t accumulator = 0;
  std::size_t holding = 0;  ///< of the accumulators, in the lowering's list
  std::int32_t computes = 0;
  std::int32_t columns = 0;  ///< per place
  std::int64_t drain_from = 0;
  PlacementId placement = -1;
  std::size_t first_instruction = 0;  ///< of the program from which on its drains stand
};

/// A matrix times an activation, block by block: later blocks are multiplied when accumulators become free.
struct Product {
  const Matrix* matrix = nullptr;
  std::int32_t layer_slot = 0;
  const Activation* activation = nullptr;
  std::int32_t expert_slot = 0;
  TensorId sums = 0;
  std::vector<Sums> blocks;  ///< multiplied so far
};

/// Norm weights in SRAM, in the order of the gathered vector that they scale.
struct Gamma {
  TensorId tensor = 0;
  std::array<BufferId, 2> rows{-1, -1};  ///< per half
};

/// How a chip's outputs, plane by plane, become wire vectors: lanes of each part, and whether the SXM must join them.
struct PartPlan {
  std::vector<std::int64_t> lanes;
  TensorId part = 0;  ///< the unjoined parts; unused without packing
  bool packs = false;
};

inline constexpr std::int32_t kWestLocalLinks = 4;   // local links 0 to 3 stand in the west, 4 to 6 in the east
inline constexpr std::int64_t kFlowAttempts = 24;    // starts tried for a reduction in one flow before it goes by SRAM
inline constexpr std::int32_t kLongestWindow = 640;  // cycles; longer GEMM windows are cut in a crowded interval
inline constexpr std::int64_t kForever = 1'000'000'000'000;

enum class Load : std::uint8_t { kEmpty, kLoaded };

/// Grid of the vectors' starts on the links in a crowded interval, which must be a multiple of it: 1 while links have
/// room.
[[nodiscard]] std::int64_t link_grid(const CompileRequest& request);

/// Lowers the blocks of one stage to bursts, in dependency order, and places them as it goes.
class Lowering {
 public:
  /// A burst of MXM rounds, as the search sees it.
  struct Window {
    std::int64_t start = 0;    ///< first install
    std::int64_t length = 0;   ///< cycles for which it holds the install ports
    std::int64_t ready = 0;    ///< earliest start that its inputs allowed
    std::int32_t anchor = -1;  ///< window that its inputs come from on the way that was last; -1: from the stage before
    Template shape;            ///< what it takes; the search reserves it before anything else
  };
  struct WindowPlan {
    std::int64_t shortest = 0;  ///< length; shorter windows are not planned and take what is free
    std::vector<const Template*> shapes;
    std::vector<std::int64_t> phases;
  };

  /// @param load    loaded: windows are cut and spaced for a crowded interval
  /// @param period  initiation interval to schedule for; 0: one iteration in an empty machine
  /// @param plan    with a period: the planned windows (of an earlier lowering) and the start of each within it
  Lowering(const CompileRequest& request,
           const Shard& shard,
           const ComputePath& path,
           const Stage& stage,
           MemoryMap memory,
           std::int32_t user_slots,
           Load load,
           std::int64_t period,
           WindowPlan plan,
           HopPlan entry,
           HopPlan exit);

  /// Lower the whole stage.
  /// @throws NoSchedule  the phases leave something without a place; DoesNotFit
  void run();

  [[nodiscard]] const StageBuilder& builder() const { return builder_; }
  /// What is taken when: of no use to a schedule that is finished, and most of its memory.
  void forget_reservations() { builder_.table().clear(); }
  /// Per near slice: addresses that scratch may take.
  [[nodiscard]] std::vector<std::int32_t> scratch_limits() const;

  [[nodiscard]] const std::vector<Window>& windows() const { return windows_; }
  /// First and last moment of each block, for the layer budget.
  struct Span {
    Block block = Block::kAttention;
    std::int32_t layer = 0;
    PlacementId first = -1;
    PlacementId last = -1;
    std::int64_t start = 0;
    std::int64_t end = 0;
  };
  [[nodiscard]] const std::vector<Span>& spans() const { return spans_; }
  [[nodiscard]] std::int64_t users_fit() const { return users_fit_; }

  /// When the first vector leaves for the next stage (start on the wire); it arrives there in cycle 0.
  [[nodiscard]] std::int64_t hop_departure() const { return hop_departure_; }
  /// From the stage's cycle 0 to what it hands on: the first vector on the wire, or the token.
  [[nodiscard]] std::int64_t through_time() {
    return stage_.has_head ? builder_.placement(last_placement_).end : hop_departure_;
  }
  /// When the value that the stage makes for others, or the new token, is there: the end of its last placement.
  [[nodiscard]] PlacementId last_placement() const { return last_placement_; }
  [[nodiscard]] std::int64_t first_block_start() const { return first_block_start_; }
  [[nodiscard]] BufferId token_buffer(std::size_t side) const { return token_rows_[side]; }
  [[nodiscard]] TensorId token_tensor() const { return token_; }

 private:
  // --- memory and tensors
  TensorId tensor(const std::string& name,
                  std::int32_t layer_slot,
                  std::int32_t rows,
                  std::vector<TensorId> sources,
                  node::TensorScope scope = node::TensorScope::kIteration);
  Matrix declare(const std::string& name, std::int32_t layer_slot, const Linear& linear, std::int32_t experts);
  Gathered gathered(const std::string& name,
                    std::int32_t layer_slot,
                    const Packing& packing,
                    std::vector<TensorId> sources,
                    std::int32_t alternate);
  Activation activation(const std::string& name,
                        std::int32_t layer_slot,
                        const Packing& packing,
                        const std::vector<TensorId>& sources);
  std::array<BufferId, 2> partials(TensorId tensor, std::int32_t rows_per_side, std::int32_t slice = 8);

  // --- movement between chips
  void gather(Gathered& value, const std::string& name, std::int32_t layer_slot, node::OperatorPart part);
  /// A row on its way to the peers behind the links of one hemisphere, not yet placed.
  struct GatherSend {
    Template shape;
    std::int64_t lead = 0;  ///< from the template's start to the push
    std::vector<std::int32_t> links;
  };
  [[nodiscard]] GatherSend gather_send(const Gathered& value,
                                       node::Hemisphere hemisphere,
                                       std::int32_t own_row,
                                       std::uint16_t transfer,
                                       node::OperatorPart part);
  /// Place the receives of the peers' rows that arrive on all links at once. False: they find no place in time.
  [[nodiscard]] bool gather_take(const Gathered& value,
                                 std::int32_t row_in_part,
                                 const std::vector<std::int32_t>& links,
                                 std::uint16_t transfer,
                                 std::int64_t arrival,
                                 PlacementId sent,
                                 node::OperatorPart part);
  void gather_row(Gathered& value,
                  node::Hemisphere hemisphere,
                  std::int32_t row_in_part,
                  std::uint16_t transfer,
                  node::OperatorPart part);

  // --- vector operators
  Activation normalise(const std::string& name, std::int32_t layer_slot, Gathered& residual, const Gathered* update);
  Activation requantise(const std::string& name, std::int32_t layer_slot, const Gathered& value);
  /// Combine `groups` vectors a side, then all lanes; every lane of the result holds it.
  /// @param before  the pass that makes the vectors, not yet placed: placed here, or left with the reduction fused to
  /// it
  Scalar reduce(const std::string& name,
                std::int32_t layer_slot,
                TensorId partial,
                const std::array<BufferId, 2>& parts,
                std::int32_t first_row,
                std::int32_t groups,
                node::Opcode combine,
                node::Opcode finish,
                node::Hemisphere hemisphere,
                node::OperatorPart part,
                Template* before = nullptr,
                std::int32_t slice = 8);
  /// Place what a reduction has left unplaced.
  void place_rest(const Template& shape);
  /// `before`, with `shape` fused to it; or `shape` alone, `before` placed (or empty).
  const Template& chain(Template& before, const Template& shape, Kept rows);
  void scale_pass(const Gathered& value,
                  std::int32_t token,
                  const std::optional<Scalar>& scale,
                  const std::optional<Scalar>& quantum,
                  const Gamma* gamma,
                  const Activation& out,
                  TensorId intermediate,
                  node::OperatorPart part,
                  Template& before);

  void joined_pass(const Gathered& value,
                   std::int32_t token,
                   const std::optional<Scalar>& scale,
                   const std::optional<Scalar>& quantum,
                   const Gamma* gamma,
                   const Activation& out,
                   const std::string& name,
                   std::int32_t layer_slot,
                   node::OperatorPart part,
                   Template& before);

  /// Scale all groups of a vector by one burst a half, on their way to the SXM: the streams that carry them.
  std::array<VariableId, 2> scale_burst(Template& shape,
                                        const Gathered& value,
                                        std::int32_t token,
                                        const Scalar& scale,
                                        const Gamma& gamma,
                                        TensorId scaled,
                                        node::OperatorPart part);

  // --- matrices
  /// Cycles from the VXM issue of a widening to the install.
  [[nodiscard]] std::int64_t widen_lead() const {
    const node::ChipSpec& chip = request_.chip;
    return chip.vxm_latency.count() + chip.mxm_position - chip.vxm_position;
  }
  [[nodiscard]] std::int64_t round_cycles(std::int32_t install_cycles, std::int32_t vectors, bool hides) const;
  /// Planes that one instruction runs over, and the streams and rows of each.
  struct PlaneRows {
    std::int32_t plane;
    std::int32_t planes;
    std::int32_t streams;   ///< of each plane
    std::int32_t row_step;  ///< from plane to plane
  };
  [[nodiscard]] std::vector<PlaneRows> plane_rows() const;
  std::vector<Draft> weight_drafts(const Matrix& matrix,
                                   const WeightBlock& block,
                                   std::uint16_t base,
                                   std::int32_t first_tile,
                                   std::int32_t tiles,
                                   std::int64_t round);
  [[nodiscard]] std::vector<std::int32_t> window_cuts(std::int32_t tiles, std::int32_t cycles) const;
  /// @param before  what the sum continues; none: it begins
  Sums multiply(const Matrix& matrix,
                std::size_t block_index,
                std::int32_t expert_slot,
                const Activation& activation,
                TensorId sums,
                std::int32_t row,
                std::int32_t first_tile,
                std::int32_t tiles,
                const Sums* before);
  /// Declare a product; `matrix` and `activation` must outlive it.
  Product multiply_by_block(const Matrix& matrix,
                            std::int32_t layer_slot,
                            const Activation& activation,
                            std::int32_t expert_slot = 0);
  /// Sums of a block. Blocks are asked for in ascending order, each released before the next is asked for; as many as
  /// the accumulators hold are multiplied ahead.
  const Sums& sums_of(Product& product, std::size_t block);
  /// All drains of a sum are placed: its accumulators are free after the last of them.
  void release(const Sums& sum);
  /// Let an empty machine's window begin after accumulators for it have been drained.
  void wait_for_accumulators(Template& shape, std::int32_t count, std::int64_t first_compute);
  /// @return index in accumulators_
  std::size_t take_accumulators(std::int32_t count, std::int64_t from, std::int64_t to);
  void hold_until(std::size_t holding, std::int64_t to);
  /// Give the computes placed from `first_instruction` on their accumulators: new ones, or those that already hold the
  /// sum.
  /// @return index in accumulators_
  std::size_t hold_accumulators(std::size_t first_instruction,
                                const Sums* before,
                                std::int32_t count,
                                std::int64_t start,
                                std::int64_t drain_from);
  [[nodiscard]] std::int64_t planned_start(std::int64_t ready) const;
  PlacementId place_window(const Template& shape, std::int64_t length);
  [[nodiscard]] std::int32_t anchor_of(PlacementId cause) const;
  void reserve_windows();
  /// Cycles that sums may wait in the accumulators for the epilogue to find its place.
  [[nodiscard]] std::int64_t drain_slack() const { return 160 + 32 * batch_; }

  // --- outputs
  struct PlaceSide {
    node::Hemisphere hemisphere;
    std::int32_t plane;
    std::int32_t planes;
  };
  using Place = std::vector<PlaceSide>;  ///< sums that leave the MXM together
  [[nodiscard]] std::vector<Place> places(bool pairs_columns) const;
  std::vector<std::pair<Lane, Rows>> drain(Template& shape, const Sums& sum, const Place& place, std::int32_t token);
  void discard(const Sums& sum, const Place& place, node::OperatorPart part);
  PartPlan plan_parts(const std::string& name,
                      std::int32_t layer_slot,
                      std::vector<std::int64_t> lanes,
                      std::vector<TensorId> sources,
                      const Packing& packing);
  void emit_part(Template& shape,
                 std::int64_t at,
                 const std::vector<std::pair<Lane, Rows>>& inputs,
                 node::Opcode opcode,
                 const PartPlan& plan,
                 std::int32_t part_index,
                 std::int32_t token,
                 Gathered& out);
  void project(const std::string& name,
               std::int32_t layer_slot,
               Product product,
               node::Opcode opcode,
               bool pairs_columns,
               Gathered& out,
               node::OperatorPart part);

  // --- attention
  struct Piece {
    node::Hemisphere hemisphere;
    std::int32_t plane;
    std::int32_t stream;  ///< of the install
    std::int32_t column;  ///< within the plane's (or pair's) streams
    std::int32_t slices;
    std::int32_t slice;
    std::int32_t address;  ///< of user 0
    std::int32_t key_row;
    std::int32_t value_row;
  };
  /// K and V of one head, one layer: tensors, and where their stripes lie.
  struct CacheHead {
    TensorId keys = 0, values = 0, new_key = 0, new_value = 0, value_columns = 0;
    std::int32_t address = 0;
    std::vector<Piece> pieces;
  };
  void declare_cache();
  [[nodiscard]] std::vector<node::Displacement> user_table() const;
  CacheHead declare_cache_head(std::int32_t layer_slot, std::int32_t index, std::int32_t kv_head, std::int32_t token);
  void append(const CacheHead& head,
              std::int32_t layer_slot,
              std::int32_t token,
              bool is_key,
              TensorId heads,
              BufferId buffer,
              std::int32_t row,
              const std::optional<Scalar>& quantum,
              Template& before);
  Sums cache_window(const CacheHead& head,
                    std::int32_t token,
                    bool is_key,
                    std::int32_t first_round,
                    std::int32_t rounds,
                    std::int32_t vectors,
                    const std::array<TensorId, 2>& inputs,
                    const std::array<BufferId, 2>& rows,
                    std::int32_t first_row,
                    TensorId sums);
  Gathered attention(std::int32_t layer_slot, Product qkv, std::int32_t cache_index);
  void attend_token(std::int32_t layer_slot,
                    std::int32_t cache_index,
                    std::int32_t token,
                    TensorId heads,
                    const std::array<BufferId, 2>& head_buffer,
                    std::int32_t west_heads,
                    Gathered& out);
  void attend_head(std::int32_t layer_slot,
                   const CacheHead& cache,
                   std::int32_t kv_head,
                   std::int32_t token,
                   TensorId queries,
                   const std::array<BufferId, 2>& query_rows,
                   Gathered& out);
  void running_maximum(Template& shape,
                       TensorId tensor_in,
                       BufferId buffer,
                       std::int32_t row,
                       std::int32_t groups,
                       TensorId out,
                       std::int32_t out_row,
                       BufferId out_buffer,
                       std::size_t side);
  void convert_rows(TensorId tensor_in,
                    BufferId buffer,
                    std::int32_t row,
                    std::int32_t groups,
                    const std::optional<Scalar>& quantum,
                    TensorId out,
                    const std::array<BufferId, 2>& out_rows,
                    std::int32_t out_row,
                    std::int32_t out_step,
                    std::size_t side);
  void quantise_rows(TensorId tensor_in,
                     BufferId buffer,
                     std::int32_t groups,
                     const Scalar& quantum,
                     TensorId out,
                     BufferId out_buffer,
                     std::size_t side);
  Draft write_part(BufferId buffer, std::int32_t row, std::int32_t width, std::int64_t at, const Lane& lane);
  Draft read_part(BufferId buffer, std::int32_t row, std::int32_t width, std::int64_t at, const Lane& lane);
  static void widen_to(Draft& draft, std::int32_t width);

  // --- between stages, and the ends of the loop
  [[nodiscard]] std::int32_t slot_of_offset(std::int32_t offset) const;
  [[nodiscard]] std::uint64_t positions_at(const HopPlan& plan, std::int32_t offset) const;
  void enter();
  void leave();
  void exit_own(Gathered& out, const Gathered& value, const Gathered* update, std::int64_t earliest);
  void declare_embedding();
  void embed();
  /// A link of the chips at some positions of the group.
  struct LinkUse {
    std::int32_t link;
    std::uint64_t positions;
  };
  [[nodiscard]] static std::vector<LinkUse> gateway_links(const HopPlan& plan, std::int32_t Gateway::*link);
  BufferId ensure_own_west(const Gathered& value);
  PlacementId send_row(const std::array<BufferId, 2>& rows,
                       TensorId tensor_id,
                       std::int32_t row,
                       const std::vector<LinkUse>& uses,
                       std::uint16_t transfer,
                       std::int64_t earliest,
                       std::int64_t latest,
                       std::int64_t* departs);
  PlacementId copy_across(const std::array<BufferId, 2>& rows,
                          TensorId tensor_id,
                          const std::vector<std::pair<LinkUse, std::int32_t>>& uses);
  /// Send a row to chips of the group, at a time at which they can take it.
  /// @return the receive's placement
  PlacementId pass_row(const std::array<BufferId, 2>& from,
                       std::int32_t row,
                       const std::vector<LinkUse>& sends,
                       const std::array<BufferId, 2>& to,
                       const std::vector<std::pair<LinkUse, std::int32_t>>& takes,
                       TensorId tensor_id,
                       std::uint16_t transfer,
                       std::int64_t earliest);
  PlacementId receive_row(const std::array<BufferId, 2>& rows,
                          TensorId tensor_id,
                          const std::vector<std::pair<LinkUse, std::int32_t>>& uses,
                          std::uint16_t transfer,
                          std::int64_t arrival,
                          PlacementId sent);
  void predict();

  // --- the stage
  void declare_all();
  void lower_block(std::int32_t index);
  void route(std::int32_t layer_slot, const Matrix& router, const Activation& input);
  [[nodiscard]] Gathered combine(std::int32_t layer_slot, const Matrix& down);
  [[nodiscard]] std::string hidden_name(std::int32_t expert) const;
  [[nodiscard]] Packing routing_packing() const;
  /// What crosses from stage to stage besides the residual.
  [[nodiscard]] std::vector<Gathered*> extra_ports();
  void expect_ports();
  [[nodiscard]] std::int32_t slots() const { return request_.model.experts > 0 ? expert_slots_ : 1; }
  [[nodiscard]] std::int64_t search_span() const { return builder_.period() > 0 ? builder_.period() : 100'000; }
  [[nodiscard]] std::int32_t west_links() const { return shard_.west_slots(); }
  [[nodiscard]] std::int32_t east_links() const { return shard_.east_slots() - 1; }
  [[nodiscard]] std::int32_t own_slot() const { return shard_.west_slots(); }
  [[nodiscard]] std::int32_t rows_per_token(const Packing& packing) const { return packing.groups * path_.wire_bytes; }
  [[nodiscard]] Repeat paced(std::int32_t count) const { return {count, pass_period_}; }

  const CompileRequest& request_;
  const Shard shard_;
  const ComputePath path_;
  const Stage stage_;
  MemoryMap memory_;
  std::int32_t users_;
  Load load_;
  WindowPlan plan_;
  std::vector<StageBuilder::Reservation> reserved_;  ///< per planned window
  std::int32_t batch_;
  StageBuilder builder_;
  std::vector<Window> windows_;
  std::vector<Span> spans_;
  HopPlan entry_;
  HopPlan exit_;
  std::int64_t hop_departure_ = 0;
  std::int64_t first_block_start_ = 0;
  PlacementId last_placement_ = -1;
  PlacementId last_window_ = -1;
  std::map<PlacementId, std::int32_t> window_at_;  ///< index of the window that a placement is
  std::size_t planned_ = 0;                        ///< windows of the plan that are placed
  TensorId token_ = 0;
  std::array<BufferId, 2> token_rows_{-1, -1};
  TensorId embedding_ = 0;
  std::int32_t embedding_slice_ = 0;
  EmbeddingRows embedding_layout_;
  std::vector<std::uint16_t> token_registers_;  ///< per (token of the micro-batch, hemisphere)
  VariableId top_variable_ = -1;
  Matrix head_;
  std::int32_t pass_period_ = 1;
  std::int32_t expert_slots_ = 1;

  // state between blocks
  Gathered residual_;
  std::optional<Gathered> update_;  ///< output of the last block, not yet added to the residual
  std::string update_name_;
  std::vector<Gathered> hidden_;               ///< gate/up's output, one an expert slot
  std::optional<Gathered> routing_;            ///< chosen experts and their weights: own rows only
  std::vector<std::vector<Matrix>> matrices_;  ///< per block of the stage

  // KV cache
  std::int64_t kv_stride_ = 0;
  std::int64_t users_fit_ = 0;
  std::vector<Run> kv_runs_;
  KvTiling kv_;
  std::vector<std::uint16_t> user_registers_;  ///< per token of the micro-batch
  TensorId rope_ = 0;
  std::array<BufferId, 2> rope_rows_{-1, -1};
  std::map<std::pair<std::int32_t, std::int32_t>, std::pair<TensorId, TensorId>> cache_heads_;
  std::map<TensorId, std::int64_t> cache_ready_;
  std::map<TensorId, PlacementId> cache_writer_;
  std::map<std::pair<std::int32_t, std::int32_t>, PartPlan> attention_parts_;

  struct Busy {
    std::int32_t first, count;
    std::int64_t from, to;
    bool is_open = true;           ///< not all drains are placed: `to` is an estimate
    PlacementId released_by = -1;  ///< the last drain
  };
  [[nodiscard]] bool meets(
      const Busy& busy, std::int32_t first, std::int32_t count, std::int64_t from, std::int64_t to) const;
  std::vector<Busy> accumulators_;
  std::int32_t next_accumulator_ = 0;
};

}  // namespace lpu::scheduler
