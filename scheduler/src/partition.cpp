#include "partition.hpp"

#include <algorithm>
#include <limits>

#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"
#include "memory_map.hpp"

namespace lpu::scheduler {

using node::ceil_div;

namespace {

constexpr std::int32_t kLaneGrain = 16;  // one superlane: the grain at which lanes of a slice are padded

std::int32_t round_up(std::int64_t value, std::int64_t grain) {
  return static_cast<std::int32_t>(ceil_div(value, grain) * grain);
}

}  // namespace

ComputePath make_path(Compute compute, KvType kv, const node::ChipSpec& chip) {
  const std::int32_t plane_columns = chip.mxm_install_columns_per_cycle;
  ComputePath path;
  path.kv_bytes = kv == KvType::kInt8 ? 1 : kv == KvType::kFp16 ? 2 : 4;
  if (compute == Compute::kW8A8) {
    path.tile_columns = chip.mxm_columns;
    path.install_columns = plane_columns;
    path.install_streams = path.stored_slices = path.kv_streams = 2 * plane_columns;
    path.kv_install_columns = plane_columns;
    return path;
  }
  path.quantises = false;
  path.pairs_planes = true;
  path.tile_columns = chip.mxm_columns / 2;
  path.activation_streams = compute == Compute::kFp32Reference ? 4 : 2;
  path.wire_bytes = path.activation_streams;
  path.compute_cycles = compute == Compute::kFp32Reference ? 4 : 1;
  path.kv_install_columns = 2 * plane_columns / path.kv_bytes;
  path.kv_streams = 2 * plane_columns;
  switch (compute) {
    case Compute::kW8A16:
      path.widens = path.hides_activations = true;
      path.install_columns = chip.vxm_alus / 2;
      path.install_streams = 2 * path.install_columns;
      path.stored_slices = path.install_columns;
      break;
    case Compute::kFp16:
    case Compute::kFp32Reference:
      path.weight_bytes = compute == Compute::kFp16 ? 2 : 4;
      path.install_columns = 2 * plane_columns / path.weight_bytes;
      path.install_streams = path.stored_slices = 2 * plane_columns;
      break;
    case Compute::kW8A8:
      break;
  }
  return path;
}

Rowing make_rows(const Packing& packing, std::int32_t west_slots, std::int32_t east_slots) {
  constexpr std::int32_t kLanes = 320;
  const std::array<std::int32_t, 2> slots{west_slots, east_slots};
  Rowing added;
  Rowing joined{.is_joined = true};
  std::int32_t last_lanes = 0;
  added.slots_per_tile = packing.remainder == 0 ? 1 : kLanes / packing.remainder;
  for (std::size_t half = 0; half < 2; ++half) {
    added.tiles[half] =
        slots[half] * packing.full +
        (packing.remainder == 0 ? 0 : static_cast<std::int32_t>(ceil_div(slots[half], added.slots_per_tile)));
    joined.tiles[half] = static_cast<std::int32_t>(ceil_div(std::int64_t{slots[half]} * packing.elements, kLanes));
    const std::int32_t left = slots[half] * packing.elements % kLanes;
    last_lanes += left == 0 ? kLanes + 1 : left;
  }
  if (slots[0] > 0 && last_lanes <= kLanes) {
    joined.shares_last = true;
    joined.tiles[0] -= 1;
  }
  return joined.total() < added.total() ? joined : added;
}

Scratch scratch_of(const CompileRequest& request, const Stage& stage) {
  // Measured over the presets; the builder checks what a stage really takes.
  constexpr std::int32_t kAlways = 96;
  constexpr std::int32_t kPerEnd = 64;
  constexpr std::array<std::int32_t, 3> kPerBlock{400, 80, 60};
  constexpr std::int32_t kPerExpertSlot = 30;
  const auto experts = static_cast<std::int32_t>(request.model.experts);
  const std::int32_t slots = request.experts == ExpertMode::kAll
                                 ? experts
                                 : std::min(experts, static_cast<std::int32_t>(request.model.experts_per_token));
  Scratch out;
  out.rows = kAlways + (stage.has_embedding || stage.has_head ? kPerEnd : 0);
  for (std::int32_t i = 0; i < stage.blocks; ++i) {
    const bool is_attention = stage.block(i) == Block::kAttention;
    const std::int32_t hidden = is_attention ? 0 : kPerExpertSlot * std::max(slots, 1);
    out.rows += (kPerBlock[static_cast<std::size_t>(stage.block(i))] + hidden) * request.micro_batch;
    out.rotary_rows = is_attention ? request.context : out.rotary_rows;
  }
  return out;
}

EmbeddingRows embedding_rows(const Shard& shard, const ComputePath& path) {
  const std::int32_t vectors = shard.hidden.groups * path.weight_bytes;
  EmbeddingRows out;
  while (out.slices < 4 && (out.slices < vectors || out.slices < path.weight_bytes)) {
    out.slices *= 2;
  }
  out.height = static_cast<std::int32_t>(ceil_div(vectors, out.slices));
  return out;
}

Packing pack(std::int64_t elements, const node::ChipSpec& chip) {
  Packing out;
  out.elements = round_up(elements, kLaneGrain);
  out.full = out.elements / chip.vector_bytes;
  out.remainder = out.elements % chip.vector_bytes;
  out.groups = out.full + (out.remainder > 0 ? 1 : 0);
  return out;
}

Shard make_shard(const ModelConfig& model, std::int32_t tensor_parallel, const node::ChipSpec& chip) {
  Shard shard;
  shard.tensor_parallel = tensor_parallel;
  shard.head_dim = static_cast<std::int32_t>(model.head_dim);
  const auto kv = static_cast<std::int32_t>(model.kv_heads);
  const auto group = static_cast<std::int32_t>(model.query_heads_per_kv_head());
  if (tensor_parallel <= kv) {
    shard.kv_heads = static_cast<std::int32_t>(ceil_div(kv, tensor_parallel));
    shard.query_heads = shard.kv_heads * group;
  } else {
    shard.kv_heads = 1;
    shard.query_heads = static_cast<std::int32_t>(ceil_div(group, tensor_parallel / kv));
  }
  shard.hidden = pack(ceil_div(model.hidden, tensor_parallel), chip);
  shard.attention = pack(std::int64_t{shard.query_heads} * shard.head_dim, chip);
  shard.ffn = pack(ceil_div(model.ffn, tensor_parallel), chip);
  shard.vocabulary = pack(ceil_div(model.vocabulary, tensor_parallel), chip);
  return shard;
}

std::int32_t columns_per_place(std::int32_t columns, const ComputePath& path) {
  return round_up(ceil_div(columns, path.pairs_planes ? 2 : 4), path.install_columns);
}

std::int32_t install_cycles(std::int32_t columns, const ComputePath& path) {
  return columns_per_place(columns, path) / path.install_columns;
}

std::int64_t install_cycles(const Linear& linear, const ComputePath& path) {
  std::int64_t cycles = 0;
  for (std::int32_t block = 0; block < linear.blocks(); ++block) {
    const std::int32_t columns = std::min(linear.block_columns, linear.columns - block * linear.block_columns);
    cycles += std::int64_t{linear.tiles} * install_cycles(columns, path);
  }
  return cycles;
}

std::int64_t stored_rows(const Linear& linear, const ComputePath& path) {
  return install_cycles(linear, path) * path.stored_slices / 32;
}

LayerLinears layer_linears(const ModelConfig& model, const Shard& shard, const ComputePath& path) {
  const std::int32_t block = path.tile_columns * (path.pairs_planes ? 2 : 4);
  const auto make = [&](std::int32_t tiles, std::int64_t columns) {
    return Linear{.tiles = tiles, .columns = static_cast<std::int32_t>(columns), .block_columns = block};
  };
  LayerLinears out;
  out.qkv = make(shard.tiles(shard.hidden), std::int64_t{shard.query_heads + 2 * shard.kv_heads} * shard.head_dim);
  out.output = make(shard.tiles(shard.attention), shard.hidden.elements);
  out.gate_up = make(shard.tiles(shard.hidden), 2 * std::int64_t{shard.ffn.elements});
  out.down = make(shard.tiles(shard.ffn), shard.hidden.elements);
  out.router = make(model.experts > 0 ? shard.tiles(shard.hidden) : 0, model.experts);
  return out;
}

Linear in_one_place(Linear linear, const ComputePath& path) {
  linear.columns *= path.pairs_planes ? 2 : 4;
  return linear;
}

Linear head_linear(const Shard& shard, const ComputePath& path) {
  return {.tiles = shard.tiles(shard.hidden),
          .columns = shard.vocabulary.elements,
          .block_columns = path.tile_columns * (path.pairs_planes ? 2 : 4)};
}

KvTiling kv_tiling(std::int32_t context, std::int32_t head_dim, const ComputePath& path) {
  KvTiling out;
  out.places = path.pairs_planes ? 2 : 4;
  const std::int32_t most = path.tile_columns;
  out.rounds = static_cast<std::int32_t>(ceil_div(context, std::int64_t{out.places} * most));
  out.positions =
      round_up(ceil_div(context, std::int64_t{out.places} * out.rounds), std::max(16, path.kv_install_columns));
  out.key_cycles = out.positions / path.kv_install_columns;
  out.value_cycles = static_cast<std::int32_t>(ceil_div(head_dim, path.kv_install_columns));
  out.key_cycles += out.key_cycles % 2;  // even heights keep the bank phase the same for all users
  out.value_cycles += out.value_cycles % 2;
  return out;
}

std::int64_t block_cycles(const CompileRequest& request, const Shard& shard, const ComputePath& path, Block block) {
  const LayerLinears linears = layer_linears(request.model, shard, path);
  const std::int64_t slot = path.hides_activations ? 0 : std::int64_t{request.micro_batch} * path.compute_cycles;
  const auto busy = [&](const Linear& linear) {
    return install_cycles(linear, path) + linear.blocks() * linear.tiles * slot;
  };
  const std::int64_t installs =
      request.model.experts == 0 ? 1
      : request.experts == ExpertMode::kAll
          ? request.model.experts
          : std::min(request.model.experts, request.model.experts_per_token * request.micro_batch);
  switch (block) {
    case Block::kAttention: {
      const KvTiling kv = kv_tiling(request.context, shard.head_dim, path);
      return busy(linears.qkv) + busy(linears.output) +
             std::int64_t{shard.kv_heads} * request.micro_batch * kv.rounds * (kv.key_cycles + kv.value_cycles);
    }
    case Block::kGateUp:
      return installs * busy(linears.gate_up) +
             (request.model.experts > 0 ? busy(in_one_place(linears.router, path)) : 0);
    case Block::kDown:
      return installs * busy(linears.down);
  }
  return 0;
}

std::int32_t user_slots(const CompileRequest& request) {
  return static_cast<std::int32_t>(ceil_div(request.users.value_or(1), request.micro_batch)) * request.micro_batch;
}

StageMemory stage_memory(const CompileRequest& request,
                         const Shard& shard,
                         const ComputePath& path,
                         const Stage& stage) {
  const LayerLinears linears = layer_linears(request.model, shard, path);
  const std::int64_t experts = std::max<std::int64_t>(request.model.experts, 1);
  StageMemory out;
  for (std::int32_t i = 0; i < stage.blocks; ++i) {
    switch (stage.block(i)) {
      case Block::kAttention: {
        out.weight_stripes += stored_rows(linears.qkv, path) + stored_rows(linears.output, path);
        const KvTiling kv = kv_tiling(request.context, shard.head_dim, path);
        out.kv_stripes_per_user += std::int64_t{shard.kv_heads} * kv.addresses();
        break;
      }
      case Block::kGateUp:
        out.weight_stripes +=
            experts * stored_rows(linears.gate_up, path) + stored_rows(in_one_place(linears.router, path), path);
        break;
      case Block::kDown:
        out.weight_stripes += experts * stored_rows(linears.down, path);
        break;
    }
  }
  if (stage.has_head) {
    out.weight_stripes += stored_rows(head_linear(shard, path), path);
  }
  if (stage.has_embedding) {
    const EmbeddingRows rows = embedding_rows(shard, path);
    out.row_stripes = ceil_div(ceil_div(request.model.vocabulary, 2), 32 / rows.slices) * rows.height + 2;
    out.weight_stripes += out.row_stripes;
  }
  const std::int64_t stripe_bytes = std::int64_t{64} * request.chip.vector_bytes;
  out.weight_bytes = out.weight_stripes * stripe_bytes;
  out.kv_bytes_per_user = out.kv_stripes_per_user * stripe_bytes;
  return out;
}

std::int64_t stage_capacity(const CompileRequest& request,
                            const ComputePath& path,
                            const Stage& stage,
                            std::int64_t row_stripes) {
  return MemoryMap::capacity(request.chip, scratch_of(request, stage), path.stored_slices, row_stripes);
}

std::vector<Degrees> possible_degrees(const CompileRequest& request) {
  std::vector<Degrees> out;
  for (const std::int32_t tp : {1, 2, 4, 8}) {
    if (request.tensor_parallel.value_or(tp) != tp || tp > request.chips) {
      continue;
    }
    const std::int32_t groups = request.chips / 8 * (8 / tp) + request.chips % 8 / tp;
    const auto most = static_cast<std::int32_t>(std::min<std::int64_t>(groups, 3 * request.model.layers));
    for (std::int32_t pp = request.pipeline_parallel.value_or(1); pp <= request.pipeline_parallel.value_or(most);
         ++pp) {
      // One stage more than layers: a layer each, and the LM head alone.
      const bool is_natural = pp == most || request.model.layers % pp == 0 || pp % request.model.layers == 0 ||
                              pp == request.model.layers + 1;
      if (pp <= most && (request.pipeline_parallel || is_natural)) {
        out.push_back({tp, pp});
      }
    }
  }
  return out;
}

std::vector<Stage> cut_stages(const CompileRequest& request,
                              const Shard& shard,
                              const ComputePath& path,
                              std::int32_t stages) {
  const auto blocks = static_cast<std::int32_t>(3 * request.model.layers);
  const auto at = [](std::int32_t x) { return static_cast<std::size_t>(x); };
  // A stage's cost is the larger of its time and its memory, each against the model's mean, so that neither runs over.
  std::vector<std::int64_t> cycles(at(blocks) + 1, 0);
  std::vector<std::int64_t> stripes(at(blocks) + 1, 0);
  for (std::int32_t i = 0; i < blocks; ++i) {
    const Stage one{.first_block = i, .blocks = 1};
    cycles[at(i + 1)] = cycles[at(i)] + block_cycles(request, shard, path, one.block(0));
    const StageMemory memory = stage_memory(request, shard, path, one);
    stripes[at(i + 1)] =
        stripes[at(i)] + memory.weight_stripes + std::int64_t{user_slots(request)} * memory.kv_stripes_per_user;
  }
  const StageMemory embedding = stage_memory(request, shard, path, {.has_embedding = true});
  const StageMemory head = stage_memory(request, shard, path, {.has_head = true});
  const std::int64_t head_cycles = install_cycles(head_linear(shard, path), path);
  const std::int32_t longest = static_cast<std::int32_t>(ceil_div(blocks, stages)) + 6;
  // Cost of a stage from block a to b. Memory beyond the chip costs a lot, so that a cut that fits is found if there is
  // one.
  constexpr std::int64_t kUnreachable = std::numeric_limits<std::int64_t>::max() / 4;
  constexpr std::int64_t kOverflow = 1'000'000'000;
  const auto cost_of = [&](std::int32_t a, std::int32_t b) {
    std::int64_t rows = stripes[at(b)] - stripes[at(a)];
    std::int64_t busy = cycles[at(b)] - cycles[at(a)];
    if (a == 0) {
      rows += embedding.weight_stripes;
    }
    if (b == blocks) {
      rows += head.weight_stripes;
      busy += head_cycles;
    }
    const Stage stage{.first_block = a, .blocks = b - a, .has_embedding = a == 0, .has_head = b == blocks};
    const std::int64_t most_stripes = stage_capacity(request, path, stage, a == 0 ? embedding.row_stripes : 0);
    return busy + (rows > most_stripes ? kOverflow + rows : 0);
  };
  std::vector<std::vector<std::int64_t>> costs(at(blocks) + 1);  // per b, from a = b - 1 down
  for (std::int32_t b = 1; b <= blocks; ++b) {
    for (std::int32_t a = b - 1; a >= std::max(0, b - longest); --a) {
      costs[at(b)].push_back(cost_of(a, b));
    }
  }
  // best[s][b]: least possible slowest stage when the first b blocks fill s stages.
  std::vector<std::vector<std::int64_t>> best(at(stages) + 1, std::vector<std::int64_t>(at(blocks) + 1, kUnreachable));
  std::vector<std::vector<std::int32_t>> from(at(stages) + 1, std::vector<std::int32_t>(at(blocks) + 1, 0));
  best[0][0] = 0;
  for (std::int32_t s = 1; s <= stages; ++s) {
    for (std::int32_t b = s; b <= blocks; ++b) {
      for (std::int32_t a = std::max(s - 1, b - longest); a < b; ++a) {
        const std::int64_t slowest = std::max(best[at(s - 1)][at(a)], costs[at(b)][at(b - 1 - a)]);
        if (slowest < best[at(s)][at(b)]) {
          best[at(s)][at(b)] = slowest;
          from[at(s)][at(b)] = a;
        }
      }
    }
  }
  LPU_CHECK(best[at(stages)][at(blocks)] < kUnreachable, "stages");
  std::vector<Stage> out(at(stages));
  std::int32_t end = blocks;
  for (std::int32_t s = stages; s > 0; --s) {
    const std::int32_t begin = from[at(s)][at(end)];
    out[at(s - 1)] = {
        .first_block = begin, .blocks = end - begin, .has_embedding = begin == 0, .has_head = end == blocks};
    end = begin;
  }
  return out;
}

std::optional<std::int64_t> stripes_of(const CompileRequest& request,
                                       const ComputePath& path,
                                       const StageMemory& memory,
                                       const Stage& stage,
                                       std::int64_t users) {
  const std::int64_t stripes = memory.weight_stripes + users * memory.kv_stripes_per_user;
  return stripes <= stage_capacity(request, path, stage, memory.row_stripes) ? std::optional(stripes) : std::nullopt;
}

bool fits(const CompileRequest& request,
          const Shard& shard,
          const ComputePath& path,
          const std::vector<Stage>& stages) {
  return std::all_of(stages.begin(), stages.end(), [&](const Stage& stage) {
    return stripes_of(request, path, stage_memory(request, shard, path, stage), stage, user_slots(request)).has_value();
  });
}

std::int32_t most_users(const CompileRequest& given, const Shard& shard, const ComputePath& path, std::int32_t stages) {
  constexpr std::int32_t kMost = 1 << 20;  // more than any SRAM holds, and far from overflow
  CompileRequest request = given;
  const auto is_room_for = [&](std::int32_t micro_batches) {
    request.users = micro_batches * request.micro_batch;
    return fits(request, shard, path, cut_stages(request, shard, path, stages));
  };
  if (!is_room_for(1)) {
    return 0;
  }
  std::int32_t low = 1;  // in micro-batches
  std::int32_t high = 2;
  while (high < kMost / request.micro_batch && is_room_for(high)) {
    low = high;
    high *= 2;
  }
  while (high - low > 1) {
    const std::int32_t middle = low + (high - low) / 2;
    (is_room_for(middle) ? low : high) = middle;
  }
  return low * request.micro_batch;
}

}  // namespace lpu::scheduler
