#include "bounds.hpp"

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "hop_plan.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"

namespace lpu::scheduler {

using node::ceil_div;

namespace {

/// Expert slots that a stage reserves; 1: dense.
std::int64_t expert_slots(const CompileRequest& request) {
  const ModelConfig& model = request.model;
  if (model.experts == 0) {
    return 1;
  }
  return request.experts == ExpertMode::kAll ? model.experts
                                             : std::min(model.experts, model.experts_per_token * request.micro_batch);
}

/// Lengths that follow from the chip's constants.
struct Lengths {
  explicit Lengths(const node::ChipSpec& chip)
      : pass(chip.vxm_latency.count()),
        transcendental(chip.vxm_transcendental_latency.count()),
        shuffle(chip.sxm_latency.count()),
        to_sxm(std::abs(chip.sxm_position - chip.vxm_position)),
        to_mxm(std::abs(chip.mxm_position - chip.vxm_position)),
        mxm_to_sxm(std::abs(chip.mxm_position - chip.sxm_position)),
        sxm_to_slice(std::abs(chip.sxm_position - chip.slice_position(chip.slices_per_hemisphere - 1))),
        from_slice(std::abs(chip.slice_position(0) - chip.vxm_position)),
        settle(chip.instruction_propagation.count() + 1),
        multiply(chip.mxm_latency.count()),
        service(chip.link_serialisation.count()),
        link(chip.link_latency().count()),
        hop(chip.link_latency().count() + chip.c2c_memory_path().count()),
        routing(chip.moe_routing.count()) {}

  std::int64_t pass;            ///< VXM chain
  std::int64_t transcendental;  ///< VXM chain with exp or rsqrt
  std::int64_t shuffle;         ///< SXM
  std::int64_t to_sxm;          ///< VXM to SXM and C2C
  std::int64_t to_mxm;          ///< VXM to MXM
  std::int64_t mxm_to_sxm;
  std::int64_t sxm_to_slice;  ///< the nearest slice
  std::int64_t from_slice;    ///< the nearest slice to the VXM
  std::int64_t settle;        ///< from a write to the first read
  std::int64_t multiply;      ///< compute to drain
  std::int64_t service;       ///< a vector on a link
  std::int64_t link;          ///< start on the link to receive
  std::int64_t hop;           ///< of one vector, SRAM to SRAM
  std::int64_t routing;       ///< softmax and top-k of the router

  [[nodiscard]] std::int64_t drain() const { return multiply + to_mxm; }  ///< last compute to the sum at the VXM
  /// Over all lanes: from a value on the VXM's output to the input of the last fold; three trips, two folds between
  /// them.
  [[nodiscard]] std::int64_t reduction() const { return 3 * (2 * to_sxm + shuffle) + 2 * pass; }
  [[nodiscard]] std::int64_t store_activation() const { return to_mxm + settle; }  ///< VXM by SRAM to MXM
};

/// Vectors of a chip's own part become ready in steps, as column blocks finish.
struct Emission {
  std::int64_t at = 0;       ///< the value stands on the VXM's output
  std::int64_t vectors = 0;  ///< wire vectors that cannot leave earlier
};

struct Emissions {
  std::vector<Emission> steps;
  bool packs = false;  ///< the SXM joins lanes into wire vectors before they leave
};

/// Tiles of one matrix on the MXM, in half cycles: where planes are separate, an activation blocks one of two.
class Rounds {
 public:
  Rounds(const Linear& linear, const ComputePath& path, std::int64_t batch)
      : tiles_(linear.tiles), extra_((batch - 1) * path.compute_cycles) {
    const std::int64_t slots = path.hides_activations ? 0 : path.pairs_planes ? 2 * batch : batch;
    for (std::int32_t b = 0; b < linear.blocks(); ++b) {
      const std::int32_t columns = std::min(linear.block_columns, linear.columns - b * linear.block_columns);
      columns_.push_back(columns);
      install_.push_back(install_cycles(columns, path));
      halves_.push_back(std::max(2 * std::int64_t{install_.back()} + slots, 2 * batch * path.compute_cycles));
    }
  }

  [[nodiscard]] std::int32_t blocks() const { return static_cast<std::int32_t>(columns_.size()); }
  [[nodiscard]] std::int32_t columns(std::int32_t block) const { return columns_[static_cast<std::size_t>(block)]; }
  [[nodiscard]] std::int64_t first_install() const { return install_.front(); }
  /// From the first compute of `matrices` matrices, one after another, to the last one of block `block` of the last of
  /// them.
  [[nodiscard]] std::int64_t span(std::int32_t block, std::int64_t matrices = 1) const {
    std::int64_t halves = -halves_.front();
    for (std::int32_t b = 0; b < blocks(); ++b) {
      halves += tiles_ * halves_[static_cast<std::size_t>(b)] * (b <= block ? matrices : matrices - 1);
    }
    return (halves + 1) / 2 + extra_;
  }
  [[nodiscard]] std::int64_t span() const { return span(blocks() - 1); }
  /// Of `tiles` tiles of each block.
  [[nodiscard]] std::int64_t span_of_tiles(std::int64_t tiles) const {
    std::int64_t halves = -halves_.front();
    for (const std::int64_t one : halves_) {
      halves += tiles * one;
    }
    return (std::max<std::int64_t>(halves, 0) + 1) / 2 + extra_;
  }
  [[nodiscard]] std::int64_t tiles() const { return tiles_; }

 private:
  std::int64_t tiles_;
  std::int64_t extra_;
  std::vector<std::int32_t> columns_;
  std::vector<std::int32_t> install_;
  std::vector<std::int64_t> halves_;
};

/// A token's way through the cluster: `now` is the length so far.
class TokenPath {
 public:
  TokenPath(const CompileRequest& request, const Shard& shard, const ComputePath& path)
      : request_(request),
        shard_(shard),
        path_(path),
        lengths_(request.chip),
        linears_(layer_linears(request.model, shard, path)),
        batch_(request.micro_batch),
        slots_(expert_slots(request)) {}

  std::vector<PathStep> take(std::span<const Stage> stages, std::span<const HopPlan> hops, std::int32_t return_hops) {
    for (std::size_t s = 0; s < stages.size(); ++s) {
      stage_ = static_cast<std::int32_t>(s);
      walk(stages[s]);
      if (!stages[s].has_head) {
        cross(hops[s]);
      }
    }
    block_ = -1;
    step("token.return", now_ + return_hops * lengths_.hop);
    return std::move(steps_);
  }

 private:
  void step(const std::string& name, std::int64_t end) {
    steps_.push_back({.stage = stage_, .block = block_, .operator_name = name, .cycles = end - now_});
    now_ = end;
  }

  [[nodiscard]] std::int64_t wire_vectors(const Packing& packing) const {
    return batch_ * packing.groups * path_.wire_bytes;
  }
  /// From the VXM's output to the link: by SRAM, and by the SXM first where lanes are joined.
  [[nodiscard]] std::int64_t to_link(bool packs) const {
    return lengths_.to_sxm + lengths_.settle + (packs ? lengths_.shuffle + 2 * lengths_.sxm_to_slice : 0);
  }
  /// Last of the emitted vectors on one link, each of `copies` chips' parts going over it.
  [[nodiscard]] std::int64_t last_start(const Emissions& made, std::int64_t copies) const {
    std::int64_t last = 0;
    for (const Emission& one : made.steps) {
      last = std::max(last, one.at + to_link(made.packs) + (one.vectors * copies - 1) * lengths_.service);
    }
    return last;
  }
  [[nodiscard]] std::int64_t from_link() const { return lengths_.link + lengths_.settle + lengths_.to_sxm; }

  /// Until the last vector of all parts can enter the VXM.
  void gather(const std::string& name, const Emissions& made) {
    own_ = made.steps.front().at;
    if (shard_.tensor_parallel == 1) {
      first_ = own_;
      return;
    }
    first_ = own_ + to_link(made.packs) + from_link();
    step(name, last_start(made, 1) + from_link());
  }

  /// RMSNorm: two passes and a reduction (that of the activations' largest runs beside it).
  void normalise(const std::string& name) {
    step(name, now_ + lengths_.pass + lengths_.reduction() + lengths_.transcendental + lengths_.pass);
    is_whole_ = true;
  }

  /// A gathered vector becomes activations.
  void requantise(const std::string& name) {
    step(name,
         now_ + (path_.quantises ? lengths_.pass + lengths_.reduction() + lengths_.transcendental : 0) + lengths_.pass);
    is_whole_ = path_.quantises;
  }

  /// From activations at the VXM to the last compute.
  ///
  /// @param matrices  one after another, on the same activations
  /// @param wait      cycles by which the first tile comes late: 0 where it is installed beforehand
  /// @return          what the last matrix makes, column block by column block
  Emissions multiply(const std::string& name,
                     const Linear& linear,
                     const Packing& packing,
                     std::int32_t columns_per_lane,
                     std::int64_t finish,
                     std::int64_t matrices,
                     std::int64_t wait) {
    const Rounds rounds(linear, path_, batch_);
    const std::int64_t ready = now_ + lengths_.store_activation() + wait;
    std::int64_t release = ready;
    std::int64_t last = ready + rounds.span(rounds.blocks() - 1, matrices);
    if (!is_whole_) {
      // Rows are used as they come: first the chip's own, then those of the first vectors, then the last ones.
      const std::int64_t pass = lengths_.pass + lengths_.store_activation();
      const std::int64_t own_tiles = ceil_div(rounds.tiles(), shard_.tensor_parallel);
      release = own_ + pass;
      last = std::max({release + rounds.span(),
                       first_ + pass + rounds.span_of_tiles(rounds.tiles() - own_tiles),
                       ready + rounds.span_of_tiles(1)});
    }
    port_ = std::max(port_, release - rounds.first_install()) + matrices * install_cycles(linear, path_);
    last = std::max(last, port_);
    Emissions out;
    const std::int32_t vector = request_.chip.vector_bytes;
    const std::int32_t places = (path_.pairs_planes ? 2 : 4) / columns_per_lane;
    std::int64_t lanes = 0;
    for (std::int32_t b = 0; b < rounds.blocks() && lanes < packing.elements; ++b) {
      const std::int32_t each = columns_per_place(rounds.columns(b), path_);
      const std::int64_t left = packing.elements - lanes;
      const bool is_last = left <= places * each;
      out.steps.push_back({.at = (is_last ? last : release + rounds.span(b, matrices)) + lengths_.drain() + finish,
                           .vectors = batch_ * (packing.groups - lanes / vector) * path_.wire_bytes});
      out.packs = out.packs || (each != vector && (!is_last || left > each));
      lanes += places * each;
    }
    step(name, last);
    return out;
  }
  /// Sums leave the MXM, are scaled or activated.
  void drain(const std::string& name, const Emissions& made) { step(name, made.steps.back().at); }

  /// From the last compute of queries, keys and values to the chip's part of the attention.
  Emissions attend() {
    const KvTiling kv = kv_tiling(request_.context, shard_.head_dim, path_);
    const std::int64_t columns = path_.kv_install_columns;
    const std::int64_t key_cycles = kv.positions / columns;
    const std::int64_t value_cycles = ceil_div(shard_.head_dim, columns);
    const std::int64_t group = shard_.query_heads / shard_.kv_heads;
    const std::int64_t units = shard_.kv_heads * batch_;
    const std::int64_t slots = path_.pairs_planes ? 2 * group : group;  // half cycles
    const auto tile = [&](std::int64_t install) {
      return std::max(2 * install + slots, 2 * group * path_.compute_cycles);
    };
    const std::int64_t queries = (group - 1) * path_.compute_cycles;
    const std::int64_t scale = lengths_.reduction() + lengths_.transcendental + lengths_.pass;
    // Sums pass the SXM on their way to the VXM, which scales and turns them.
    step("rope", now_ + lengths_.multiply + lengths_.mxm_to_sxm + lengths_.shuffle + lengths_.to_sxm + lengths_.pass);
    step("quantise.key", now_ + (path_.quantises ? scale : 0));
    // The key to SRAM and, with the other columns, into the MXM; the query is there by then.
    step("append.key", now_ + lengths_.store_activation());
    step("scores", now_ + key_cycles + ((units * kv.rounds - 1) * tile(key_cycles) + 1) / 2 + queries);
    step("scores.drain", now_ + lengths_.drain() + lengths_.pass);
    step("softmax.maximum", now_ + lengths_.reduction() + lengths_.pass);
    step("softmax.exponential", now_ + lengths_.transcendental);
    step("quantise.probability", now_ + (path_.quantises ? scale : 0));
    step("attended", now_ + lengths_.store_activation() + ((kv.rounds - 1) * tile(value_cycles) + 1) / 2 + queries);
    step("attended.drain", now_ + lengths_.drain() + lengths_.pass);
    // The heads of one unit are ready together; those of the last one leave last.
    const std::int64_t vector = request_.chip.vector_bytes;
    const std::int64_t groups = units == 1 ? shard_.attention.groups : ceil_div(group * shard_.head_dim, vector);
    return {.steps = {{.at = now_, .vectors = groups * path_.wire_bytes}},
            .packs = shard_.query_heads > 1 && shard_.head_dim != vector};
  }

  void route() {
    const Rounds rounds(linears_.router, path_, batch_);
    step("router", now_ + lengths_.store_activation() + rounds.span());
    step("routing", now_ + lengths_.routing);
  }

  void walk(const Stage& stage) {
    block_ = -1;
    if (stage.has_embedding) {
      step("embedding", now_ + lengths_.from_slice + lengths_.pass);
      gather("gather.residual", {.steps = {{.at = now_, .vectors = wire_vectors(shard_.hidden)}}});
    }
    port_ = 0;
    const bool chooses = request_.model.experts > 0 && request_.experts == ExpertMode::kIndirect;
    for (std::int32_t i = 0; i < stage.blocks; ++i) {
      block_ = stage.first_block + i;
      switch (stage.block(i)) {
        case Block::kAttention: {
          gather_last("gather.ffn_output");
          normalise("attention_norm");
          multiply("qkv", linears_.qkv, {}, 1, 0, 1, 0);
          gather("gather.attention", attend());
          requantise("attention.rows");
          made_ = multiply("output", linears_.output, shard_.hidden, 1, lengths_.pass, 1, 0);
          drain("output.drain", *made_);
          break;
        }
        case Block::kGateUp:
          gather_last("gather.attention_output");
          normalise("ffn_norm");
          if (chooses) {
            route();
          }
          made_ = multiply("gate_up",
                           linears_.gate_up,
                           shard_.ffn,
                           2,
                           lengths_.transcendental,
                           slots_,
                           chooses ? install_cycles(linears_.gate_up.columns, path_) : 0);
          drain("gate_up.drain", *made_);
          break;
        case Block::kDown:
          gather_last("gather.ffn_hidden");
          requantise("ffn.rows");
          // The last expert's matrix waits for its gather; the port has them all behind gate and up.
          port_ += (slots_ - 1) * install_cycles(linears_.down, path_);
          made_ = multiply("down", linears_.down, shard_.hidden, 1, lengths_.pass, 1, 0);
          drain("down.drain", *made_);
          break;
      }
    }
    block_ = -1;
    if (stage.has_head) {
      predict();
    }
  }

  /// What the last block made; nothing where the stage begins (its hop has gathered).
  void gather_last(const std::string& name) {
    if (made_) {
      gather(name, *made_);
      made_.reset();
    }
  }

  void predict() {
    gather_last("gather.ffn_output");
    normalise("final_norm");
    drain("head.drain", multiply("head", head_linear(shard_, path_), shard_.vocabulary, 1, lengths_.pass, 1, 0));
    step("argmax", now_ + lengths_.reduction() + lengths_.pass);
    if (shard_.tensor_parallel > 1) {
      step("gather.candidate", now_ + to_link(false) + from_link());
      step("argmax.slots", now_ + lengths_.pass);
    }
    step("token.store", now_ + lengths_.from_slice + lengths_.settle);
  }

  /// Own parts to the next stage's equal positions, by gateways, and there to all: at the VXM.
  void cross(const HopPlan& hop) {
    block_ = -1;
    const std::int64_t first = made_->steps.front().at + to_link(made_->packs) + from_link();
    // The last vector on the cable is the gateway's own, or one that came and goes on by a local link.
    std::int64_t last = last_start(*made_, hop.block) + from_link();
    if (hop.block > 1) {
      last = std::max(last, last_start(*made_, hop.block - 1) + from_link() + 2 * lengths_.hop);
    }
    step("hop", last);
    own_ = first_ = first;
    if (shard_.tensor_parallel > 1) {
      step("hop.gather", now_ + lengths_.hop);
      first_ += lengths_.hop;
    }
    made_.reset();
  }

  const CompileRequest& request_;
  const Shard& shard_;
  const ComputePath& path_;
  const Lengths lengths_;
  const LayerLinears linears_;
  const std::int64_t batch_;
  const std::int64_t slots_;

  std::vector<PathStep> steps_;
  std::int32_t stage_ = 0;
  std::int32_t block_ = -1;
  std::int64_t now_ = 0;
  std::int64_t own_ = 0;           ///< the chip's own part of the vector last gathered, at the VXM
  std::int64_t first_ = 0;         ///< its first vectors from others, at the VXM
  std::int64_t port_ = 0;          ///< all installs of the stage so far are over
  bool is_whole_ = true;           ///< activations become ready at once
  std::optional<Emissions> made_;  ///< own parts of what the last block made
};

std::int64_t longest(const std::vector<ResourceUse>& uses) {
  std::int64_t most = 0;
  for (const ResourceUse& use : uses) {
    most = std::max(most, use.cycles);
  }
  return most;
}

}  // namespace

std::vector<ResourceUse> resource_uses(const CompileRequest& request,
                                       const Shard& shard,
                                       const ComputePath& path,
                                       const Stage& stage,
                                       const HopPlan& entry,
                                       const HopPlan& exit) {
  const node::ChipSpec& chip = request.chip;
  const LayerLinears linears = layer_linears(request.model, shard, path);
  const KvTiling kv = kv_tiling(request.context, shard.head_dim, path);
  const std::int64_t batch = request.micro_batch;
  const std::int64_t slots = expert_slots(request);
  const std::int64_t group = shard.query_heads / shard.kv_heads;

  std::int64_t weights = 0;      // install cycles of weight matrices
  std::int64_t cache = 0;        // of K^T and V
  std::int64_t activations = 0;  // vectors that enter the MXM of a hemisphere
  std::int64_t computes = 0;     // of a plane
  std::int64_t sums = 0;         // drained vectors of 4 streams, all planes
  std::int64_t gathered = 0;     // wire vectors on a local link
  std::int64_t passes = 0;       // operations of the VXM, a vector each
  const auto multiply = [&](const Linear& linear, std::int64_t matrices) {
    weights += matrices * install_cycles(linear, path);
    activations += matrices * batch * linear.tiles * linear.blocks();
    computes += matrices * batch * linear.tiles * linear.blocks();
    sums += matrices * batch * ceil_div(linear.columns, path.tile_columns) * (path.pairs_planes ? 2 : 1);
  };
  const std::int64_t links = shard.tensor_parallel > 1 ? 1 : 0;
  const auto gather = [&](const Packing& packing, std::int64_t times) {
    gathered += links * times * batch * packing.groups * path.wire_bytes;
  };
  const auto groups = [&](const Packing& packing) { return batch * shard.tiles(packing); };
  // RMSNorm: the sum of squares two operations, the scaling two; the residual's sum and the quantisation's largest and
  // its rounding one each.
  const auto normalise = [&](std::int64_t updates) {
    passes += groups(shard.hidden) * (4 + updates + (path.quantises ? 2 : 0));
  };
  bool has_update = false;
  gather(shard.hidden, 1);  // what enters
  for (std::int32_t i = 0; i < stage.blocks; ++i) {
    if (stage.block(i) != Block::kDown) {
      gather(shard.hidden, has_update ? 1 : 0);
      normalise(has_update ? 1 : 0);
    }
    switch (stage.block(i)) {
      case Block::kAttention: {
        const std::int64_t units = shard.kv_heads * batch;
        const std::int64_t tiles = units * kv.rounds;
        multiply(linears.qkv, 1);
        multiply(linears.output, 1);
        cache += tiles * (kv.positions / path.kv_install_columns + ceil_div(shard.head_dim, path.kv_install_columns));
        activations += tiles * group * (path.pairs_planes ? 2 : 3);  // queries serve both planes, probabilities one
        computes += tiles * group * 2;
        sums += (tiles + units) * group * 4;
        // Scores: largest, difference, exponential, sum; and two for their quantisation.
        passes += tiles * group * kv.places * (path.quantises ? 6 : 4);
        passes += groups(shard.attention) * (path.quantises ? 2 : 1);
        gather(shard.attention, 1);
        break;
      }
      case Block::kGateUp:
        multiply(linears.gate_up, slots);
        if (request.model.experts > 0) {
          multiply(linears.router, 1);
        }
        break;
      case Block::kDown:
        multiply(linears.down, slots);
        passes += slots * groups(shard.ffn) * (path.quantises ? 2 : 1);
        gather(shard.ffn, slots);
        break;
    }
    has_update = stage.block(i) != Block::kGateUp;
  }
  if (stage.has_head) {
    gather(shard.hidden, has_update ? 1 : 0);
    normalise(has_update ? 1 : 0);
    multiply(head_linear(shard, path), 1);
    gathered += links * batch;  // the candidates
  }
  const auto crosses = [&](Block next) {
    return batch * path.wire_bytes * (shard.hidden.groups + (next == Block::kDown ? slots * shard.ffn.groups : 0));
  };
  const std::int64_t in = stage.has_embedding ? 0 : crosses(stage.block(0));
  const std::int64_t out = stage.has_head ? 0 : crosses(stage.block(stage.blocks));
  const std::int64_t relayed = std::max(entry.block > 1 ? in : 0, exit.block > 1 ? out : 0);
  const std::int64_t service = chip.link_serialisation.count();
  const std::int64_t streams = chip.streams_per_direction;
  const std::int64_t installed = weights * path.install_streams + cache * path.kv_streams;
  passes += ceil_div(sums, path.pairs_planes ? 2 : 1);
  return {
      {"install port", weights + cache},
      {"local link", service * (gathered + relayed)},
      {"cable", service * std::max(in * entry.block, out * exit.block)},
      {"memory reads",
       ceil_div(weights * path.stored_slices + cache * path.kv_streams + activations * path.activation_streams,
                chip.slices_per_hemisphere)},
      {"vector unit", (path.widens ? weights : 0) + ceil_div(passes, chip.vxm_alus)},
      {"streams to the MXM", ceil_div(installed + activations * path.activation_streams, streams)},
      {"streams to the VXM", ceil_div((path.widens ? weights * path.stored_slices : 0) + sums * 4 / 2, streams)},
      {"MXM compute", computes * path.compute_cycles},
  };
}

std::int64_t interval_lower_bound(const CompileRequest& request,
                                  const Shard& shard,
                                  const ComputePath& path,
                                  const Stage& stage,
                                  const HopPlan& entry,
                                  const HopPlan& exit) {
  return longest(resource_uses(request, shard, path, stage, entry, exit));
}

std::int64_t interval_lower_bound(const CompileRequest& request,
                                  const Shard& shard,
                                  const ComputePath& path,
                                  std::span<const Stage> stages,
                                  std::span<const HopPlan> hops) {
  LPU_CHECK(hops.size() + 1 == stages.size(), "a hop between two stages");
  std::int64_t most = 0;
  const HopPlan none;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    most = std::max(most,
                    interval_lower_bound(
                        request, shard, path, stages[s], s > 0 ? hops[s - 1] : none, s < hops.size() ? hops[s] : none));
  }
  return most;
}

std::vector<PathStep> latency_path(const CompileRequest& request,
                                   const Shard& shard,
                                   const ComputePath& path,
                                   std::span<const Stage> stages,
                                   std::span<const HopPlan> hops,
                                   std::int32_t return_hops) {
  LPU_CHECK(hops.size() + 1 == stages.size(), "a hop between two stages");
  return TokenPath(request, shard, path).take(stages, hops, return_hops);
}

std::int64_t latency_lower_bound(const CompileRequest& request,
                                 const Shard& shard,
                                 const ComputePath& path,
                                 std::span<const Stage> stages,
                                 std::span<const HopPlan> hops,
                                 std::int32_t return_hops) {
  std::int64_t cycles = 0;
  for (const PathStep& step : latency_path(request, shard, path, stages, hops, return_hops)) {
    cycles += step.cycles;
  }
  return cycles;
}

}  // namespace lpu::scheduler
