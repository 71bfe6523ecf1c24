#include "bounds.hpp"

#include <algorithm>
#include <array>
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
  return request.experts == ExpertMode::kAll ? model.experts : std::min(model.experts, model.experts_per_token * request.micro_batch);
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

  std::int64_t pass;             ///< VXM chain
  std::int64_t transcendental;   ///< VXM chain with exp or rsqrt
  std::int64_t shuffle;          ///< SXM
  std::int64_t to_sxm;           ///< VXM to SXM and C2C
  std::int64_t to_mxm;           ///< VXM to MXM
  std::int64_t mxm_to_sxm;
  std::int64_t sxm_to_slice;     ///< the nearest slice
  std::int64_t from_slice;       ///< the nearest slice to the VXM
  std::int64_t settle;           ///< from a write to the first read
  std::int64_t multiply;         ///< compute to drain
  std::int64_t service;          ///< a vector on a link
  std::int64_t link;             ///< start on the link to receive
  std::int64_t hop;              ///< of one vector, SRAM to SRAM
  std::int64_t routing;          ///< softmax and top-k of the router

  [[nodiscard]] std::int64_t drain() const { return multiply + to_mxm; }  ///< last compute to the sum at the VXM
  /// Over all lanes: from a value on the VXM's output to the input of the last fold; three trips, two folds between them.
  [[nodiscard]] std::int64_t reduction() const { return 3 * (2 * to_sxm + shuffle) + 2 * pass; }
  [[nodiscard]] std::int64_t store_activation() const { return to_mxm + settle; }  ///< VXM by SRAM to MXM
};

/// Vectors of a chip's own part become ready in steps, as column blocks finish.
struct Emission {
  std::int64_t at = 0;         ///< the value stands on the VXM's output
  std::int64_t vectors = 0;    ///< wire vectors that cannot leave earlier
};

struct Emissions {
  std::vector<Emission> steps;
  bool packs = false;          ///< the SXM joins lanes into wire vectors before they leave
};

/// Tiles of one matrix on the MXM, in half cycles: where planes are separate, an activation blocks one of two.
class Rounds {
 public:
  Rounds(const Linear& linear, const ComputePath& path, std::int64_t batch) : tiles_(linear.tiles), extra_((batch - 1) * path.compute_cycles) {
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
  /// From the first compute of `matrices` matrices, one after another, to the last one of block `block` of the last of them.
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
        cross(stages[s], hops[s]);
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

  [[nodiscard]] std::int64_t wire_vectors(const Packing& packing) const { return batch_ * packing.groups * path_.wire_bytes; }
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
  /// The gathered vector's last part at the VXM.
  void gather(const std::string& name, const Emissions& made) {
    if (shard_.tensor_parallel == 1) {
      own_ = first_ = now_ = std::max(now_, made.steps.back().at);
      return;
    }
    const std::int64_t arrive = lengths_.link + lengths_.settle + lengths_.to_sxm;
    own_ = made.steps.front().at;
    first_ = own_ + to_link(made.packs) + arrive;
    step(name, last_start(made, 1) + arrive);
  }

  /// One after another: RMSNorm's two passes and its reduction (the activations' largest beside it).
  void normalise(const std::string& name) {
    step(name, now_ + lengths_.pass + lengths_.reduction() + lengths_.transcendental + lengths_.pass);
    own_ = first_ = now_;
    is_whole_ = true;
  }
  /// A gathered vector becomes activations.
  void requantise(const std::string& name) {
    if (path_.quantises) {
      step(name, now_ + lengths_.pass + lengths_.reduction() + lengths_.transcendental + lengths_.pass);
    } else {
      step(name, now_ + lengths_.pass);
    }
    is_whole_ = path_.quantises;
  }

  /// From activations at the VXM to the last compute; own parts as they are made.
  Emissions multiply(const std::string& name, const Linear& linear, const Packing& packing, bool pairs_columns, std::int64_t finish,
                     std::int64_t matrices, bool is_chosen) {
    const Rounds rounds(linear, path_, batch_);
    const std::int64_t wait = is_chosen ? rounds.first_install() : 0;  // a chosen expert's tile is not known earlier
    const std::int64_t ready = now_ + lengths_.store_activation() + wait;
    std::int64_t last = 0;
    std::int64_t release = ready;
    if (is_whole_) {
      last = ready + rounds.span(rounds.blocks() - 1, matrices);
    } else {
      // Rows are used as they come: first the chip's own, then those of the first vectors, then the last ones.
      const std::int64_t pass = lengths_.pass + lengths_.store_activation() + wait;
      const std::int64_t own_tiles = ceil_div(rounds.tiles(), shard_.tensor_parallel);
      release = own_ + pass;
      last = std::max({release + rounds.span(), first_ + pass + rounds.span_of_tiles(rounds.tiles() - own_tiles), ready + rounds.span_of_tiles(1)});
    }
    const std::int64_t begin = release - rounds.first_install();
    const std::int64_t busy = matrices * install_cycles(linear, path_);
    port_ = std::max(port_, begin) + busy;
    const std::int64_t shift = std::max<std::int64_t>(0, port_ - last);
    last += shift;
    Emissions out;
    const std::int32_t places = path_.pairs_planes ? 2 : 4;
    const std::int32_t used = places / (pairs_columns ? 2 : 1);
    std::int64_t lanes = 0;
    std::int64_t left = packing.groups;
    for (std::int32_t b = 0; b < rounds.blocks(); ++b) {
      const std::int32_t each = columns_per_place(rounds.columns(b), path_);
      const std::int64_t block_end = is_whole_ ? ready + rounds.span(b, matrices) + shift : last - (rounds.span() - rounds.span(b));
      out.steps.push_back({.at = block_end + lengths_.drain() + finish, .vectors = batch_ * left * path_.wire_bytes});
      const std::int64_t before = lanes;
      lanes = std::min<std::int64_t>(packing.elements, lanes + used * each);
      out.packs = out.packs || (lanes - before > each && each != request_.chip.vector_bytes) || (b + 1 < rounds.blocks() && used * each % request_.chip.vector_bytes != 0);
      left = b + 1 < rounds.blocks() ? packing.groups - lanes / request_.chip.vector_bytes : 0;
    }
    std::erase_if(out.steps, [](const Emission& one) { return one.vectors == 0; });
    step(name, last);
    step(name + ".drain", last + lengths_.drain() + finish);
    return out;
  }

  Emissions attend() {
    const KvTiling kv = kv_tiling(request_.context, shard_.head_dim, path_);
    const std::int64_t columns = path_.kv_install_columns;
    const std::int64_t key_cycles = kv.positions / columns;
    const std::int64_t value_cycles = ceil_div(shard_.head_dim, columns);
    const std::int64_t group = shard_.query_heads / shard_.kv_heads;
    const std::int64_t units = shard_.kv_heads * batch_;
    const std::int64_t halves = path_.pairs_planes ? 2 * group : group;  // activation slots of a tile
    const auto tile = [&](std::int64_t install) { return std::max(2 * install + halves, 2 * group * path_.compute_cycles); };
    const std::int64_t queries = (group - 1) * path_.compute_cycles;
    const std::int64_t scale = lengths_.reduction() + lengths_.transcendental + lengths_.pass;
    // Sums pass the SXM on their way to the VXM, which scales and turns them.
    step("rope", now_ - lengths_.drain() - lengths_.pass + lengths_.multiply + lengths_.mxm_to_sxm + lengths_.shuffle + lengths_.to_sxm + lengths_.pass);
    if (path_.quantises) {
      step("quantise.qk", now_ + scale);
    }
    // Key to SRAM and, with the other columns, into the MXM; the query follows it.
    step("append.key", now_ + lengths_.store_activation());
    step("scores", now_ + key_cycles + ((units * kv.rounds - 1) * tile(key_cycles) + 1) / 2 + queries);
    step("scores.drain", now_ + lengths_.drain() + lengths_.pass);
    step("softmax.maximum", now_ + lengths_.reduction() + lengths_.pass);
    step("softmax.exponential", now_ + lengths_.transcendental);
    if (path_.quantises) {
      step("quantise.probability", now_ + scale);
    } else {
      step("convert.probability", now_);
    }
    step("probability.store", now_ + lengths_.store_activation());
    step("attended", now_ + ((kv.rounds - 1) * tile(value_cycles) + 1) / 2 + queries);
    step("attended.drain", now_ + lengths_.drain() + lengths_.pass);
    // Heads of the last unit leave last; with one unit all do.
    const std::int64_t all = wire_vectors(shard_.attention);
    const std::int64_t last_groups = units == 1 ? shard_.attention.groups : ceil_div(group * shard_.head_dim, request_.chip.vector_bytes);
    return {.steps = {{.at = now_, .vectors = units == 1 ? all : last_groups * path_.wire_bytes}},
            .packs = shard_.query_heads > 1 && shard_.head_dim != request_.chip.vector_bytes};
  }

  void route() {
    const Rounds rounds(linears_.router, path_, batch_);
    step("router", now_ + lengths_.store_activation() + rounds.span());
    step("router.drain", now_ + lengths_.drain() + lengths_.pass);
    step("routing", now_ + lengths_.routing);
  }

  void walk(const Stage& stage) {
    if (stage.has_embedding) {
      block_ = -1;
      step("embedding", lengths_.from_slice + lengths_.pass);
      residual_ = {.steps = {{.at = now_, .vectors = wire_vectors(shard_.hidden)}}};
      gather("gather.residual", *residual_);
      residual_.reset();
    }
    port_ = 0;
    for (std::int32_t i = 0; i < stage.blocks; ++i) {
      block_ = stage.first_block + i;
      switch (stage.block(i)) {
        case Block::kAttention: {
          enter_block();
          normalise("attention_norm");
          multiply("qkv", linears_.qkv, {}, false, lengths_.pass, 1, false);
          const Emissions attended = attend();
          gather("gather.attention", attended);
          requantise("attention.rows");
          residual_ = multiply("output", linears_.output, shard_.hidden, false, lengths_.pass, 1, false);
          break;
        }
        case Block::kGateUp:
          enter_block();
          normalise("ffn_norm");
          if (request_.model.experts > 0 && request_.experts == ExpertMode::kIndirect) {
            route();
          }
          hidden_ = multiply("gate_up", linears_.gate_up, shard_.ffn, true, lengths_.transcendental, slots_,
                             request_.model.experts > 0 && request_.experts == ExpertMode::kIndirect);
          break;
        case Block::kDown:
          gather("gather.ffn_hidden", *hidden_);
          hidden_.reset();
          requantise("ffn.rows");
          down();
          break;
      }
    }
    if (stage.has_head) {
      block_ = -1;
      enter_block();
      predict();
    }
  }

  /// The last expert's matrix follows its gather; the port has all of them behind gate and up.
  void down() {
    const std::int64_t others = (slots_ - 1) * install_cycles(linears_.down, path_);
    port_ += others;
    residual_ = multiply("down", linears_.down, shard_.hidden, false, lengths_.pass, 1, false);
  }

  void enter_block() {
    if (residual_) {
      gather("gather.update", *residual_);
      residual_.reset();
    }
  }

  void predict() {
    normalise("final_norm");
    const Emissions logits = multiply("head", head_linear(shard_, path_), shard_.vocabulary, false, lengths_.pass, 1, false);
    step("argmax", now_ + lengths_.reduction() + lengths_.pass);
    if (shard_.tensor_parallel > 1) {
      const std::int64_t arrive = lengths_.link + lengths_.settle + lengths_.to_sxm;
      step("gather.candidate", now_ + to_link(false) + (batch_ - 1) * lengths_.service + arrive);
      step("argmax.slots", now_ + lengths_.pass);
    }
    step("token.store", now_ + lengths_.from_slice + lengths_.settle);
  }

  /// Own parts to the next stage's equal positions, by gateways, and there to all: at the VXM.
  void cross(const Stage& stage, const HopPlan& hop) {
    block_ = -1;
    const Emissions& made = stage.block(stage.blocks - 1) == Block::kGateUp ? *hidden_ : *residual_;
    const std::int64_t block = hop.block;
    const std::int64_t store = to_link(made.packs);
    const std::int64_t arrive = lengths_.link + lengths_.settle + lengths_.to_sxm;
    const std::int64_t relay = lengths_.hop;
    // The last vector on the cable is the gateway's own, or one that came and goes on by a local link.
    std::int64_t end = last_start(made, block) + arrive;
    if (block > 1) {
      end = std::max(end, last_start(made, block - 1) + relay + arrive + relay);
    }
    const bool is_gathered = shard_.tensor_parallel > 1;
    static_cast<void>(store);
    step("hop", end);
    if (is_gathered) {
      step("hop.gather", now_ + relay);
    }
    own_ = first_ = now_;
    if (stage.block(stage.blocks - 1) == Block::kGateUp) {
      // The hidden vector stands gathered: down begins at once.
      hidden_ = Emissions{.steps = {{.at = now_, .vectors = 1}}};
      is_crossed_ = true;
    } else {
      residual_.reset();
    }
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
  std::int64_t own_ = 0;        ///< the chip's own part of the vector last gathered: at the VXM
  std::int64_t first_ = 0;      ///< its first vectors from others: at the VXM
  std::int64_t port_ = 0;       ///< all installs so far are over
  bool is_whole_ = true;        ///< activations become ready at once
  bool is_crossed_ = false;
  std::optional<Emissions> residual_, hidden_;
};

}  // namespace
