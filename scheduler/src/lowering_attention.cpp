#include <algorithm>
#include <tuple>

#include "lowering.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"

namespace lpu::scheduler {

using node::Direction;
using node::Hemisphere;
using node::Opcode;
using node::OperandKind;
using node::OperatorPart;
using node::TensorScope;

namespace {

constexpr std::int32_t kFloatStreams = 4;
constexpr std::int32_t kPlaces = 4;
constexpr std::int32_t kHeadSlice = 0;
constexpr std::int32_t kPartSlice = 4;
constexpr std::int32_t kScoreSlice = 0;
constexpr std::int32_t kProbabilitySlice = 4;
constexpr std::int32_t kVectorSlice = 8;
constexpr std::int32_t kRotarySlice = 0;
constexpr std::int32_t kStripe = 32;

}  // namespace

void Lowering::declare_cache() {
  std::int32_t attentions = 0;
  for (std::int32_t i = 0; i < stage_.blocks; ++i) {
    attentions += stage_.block(i) == Block::kAttention ? 1 : 0;
  }
  kv_ = kv_tiling(request_.context, shard_.head_dim, path_);
  kv_stride_ = std::int64_t{attentions} * shard_.kv_heads * kv_.addresses();
  std::int64_t fit = 0;
  kv_runs_ = memory_.rest(static_cast<std::int32_t>(kv_stride_), &fit);
  users_fit_ = attentions > 0 ? fit : kForever;
  if (attentions == 0) {
    return;
  }
  if (users_ > fit) {
    throw DoesNotFit("KV of " + std::to_string(users_) + " users", 0);
  }
  for (std::int32_t token = 0; token < batch_; ++token) {
    user_registers_.push_back(builder_.base_register(
        {.kind = node::RegisterKind::kUser, .user_in_batch = token, .append = {}, .table = user_table()}));
  }
  rope_ = tensor("rotary_table", 0, request_.context * kFloatStreams, {}, TensorScope::kStatic);
  const std::uint16_t position = builder_.base_register(
      {.kind = node::RegisterKind::kPosition, .stride = 1, .row_stride = kFloatStreams, .append = {}, .table = {}});
  for (const Hemisphere hemisphere : kHemispheres) {
    rope_rows_[static_cast<std::size_t>(hemisphere)] = builder_.static_buffer(
        rope_, hemisphere, kRotarySlice, kFloatStreams, kFloatStreams, position, request_.context);
  }
}

std::vector<node::Displacement> Lowering::user_table() const {
  std::vector<node::Displacement> table;
  for (std::int64_t user = 0; user < users_; ++user) {
    table.push_back({.address = static_cast<std::int16_t>(user * kv_stride_)});
  }
  return table;
}

Lowering::CacheHead Lowering::declare_cache_head(std::int32_t layer_slot,
                                                 std::int32_t index,
                                                 std::int32_t kv_head,
                                                 std::int32_t token) {
  const std::string suffix = ".head" + std::to_string(kv_head);
  const std::int32_t segments = path_.pairs_planes ? 1 : 2;  // planes whose tiles have rows of their own
  const std::int32_t row_of_byte = path_.pairs_planes ? path_.kv_bytes : 1;
  const std::int32_t tiles = kv_.rounds * kv_.places;
  const std::int32_t dimension = kv_.value_cycles * path_.kv_install_columns;
  CacheHead out;
  out.address = index * kv_.addresses();
  out.new_key = tensor("key.new" + suffix + ".token" + std::to_string(token), layer_slot, path_.kv_bytes, {});
  out.new_value = tensor("value.new" + suffix + ".token" + std::to_string(token), layer_slot, path_.kv_bytes, {});
  out.value_columns = tensor("value.columns" + suffix + ".token" + std::to_string(token),
                             layer_slot,
                             dimension * row_of_byte,
                             {out.new_value});
  if (token == 0) {
    out.keys = tensor(
        "key.cache" + suffix, layer_slot, tiles * kv_.positions * row_of_byte, {out.new_key}, TensorScope::kCache);
    out.values = tensor(
        "value.cache" + suffix, layer_slot, tiles * dimension * row_of_byte, {out.value_columns}, TensorScope::kCache);
    cache_heads_[{layer_slot, kv_head}] = {out.keys, out.values};
  } else {
    std::tie(out.keys, out.values) = cache_heads_.at({layer_slot, kv_head});
    builder_.add_source(out.keys, out.new_key);
    builder_.add_source(out.values, out.value_columns);
  }
  // Reads: a stripe's rows are contiguous over a plane's 16 streams (or over the pair's 32); tiles follow one another.
  const std::uint16_t base = user_registers_[static_cast<std::size_t>(token)];
  const std::int32_t segment_streams = kStripe / segments;
  const std::int32_t key_tile_rows = kv_.positions * row_of_byte;
  const std::int32_t value_tile_rows = dimension * row_of_byte;
  for (const Hemisphere hemisphere : kHemispheres) {
    for (std::int32_t segment = 0; segment < segments; ++segment) {
      const std::int32_t first_tile = static_cast<std::int32_t>(hemisphere) * segments + segment;
      for (const Run& run : kv_runs_) {
        const std::int32_t low = std::max(run.first, segment * segment_streams);
        const std::int32_t high = std::min(run.first + run.slices, (segment + 1) * segment_streams);
        if (low >= high) {
          continue;
        }
        Piece piece{.hemisphere = hemisphere,
                    .plane = segment,
                    .stream = low,
                    .column = low - segment * segment_streams,
                    .slices = high - low,
                    .slice = run.slice + low - run.first,
                    .address = run.address + out.address,
                    .key_row = first_tile * key_tile_rows + low - segment * segment_streams,
                    .value_row = first_tile * value_tile_rows + low - segment * segment_streams};
        out.pieces.push_back(piece);
        for (const bool is_key : {true, false}) {
          node::Allocation made;
          made.tensor = is_key ? out.keys : out.values;
          made.hemisphere = hemisphere;
          made.base_register = base;
          made.row = is_key ? piece.key_row : piece.value_row;
          made.slice = piece.slice;
          made.address = piece.address + (is_key ? 0 : kv_.key_cycles);
          made.count[0] = kv_.rounds;
          made.row_stride[0] = kv_.places * (is_key ? key_tile_rows : value_tile_rows);
          made.address_stride[0] = kv_.key_cycles + kv_.value_cycles;
          // Even heights may leave a last, unused address.
          made.count[1] = is_key ? kv_.positions / path_.kv_install_columns : kv_.value_cycles;
          made.row_stride[1] = segment_streams;
          made.address_stride[1] = 1;
          made.count[2] = piece.slices;
          made.row_stride[2] = 1;
          made.slice_stride[2] = 1;
          builder_.allocation(made);
        }
      }
    }
  }
  return out;
}

void Lowering::append(const CacheHead& head,
                      std::int32_t layer_slot,
                      std::int32_t token,
                      bool is_key,
                      TensorId heads,
                      BufferId buffer,
                      std::int32_t row,
                      const std::optional<Scalar>& quantum,
                      Template& before) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t bytes = path_.kv_bytes;
  const Hemisphere from = builder_.at(buffer).hemisphere;
  const TensorId fresh = is_key ? head.new_key : head.new_value;
  builder_.add_source(fresh, heads);
  Template shape;
  shape.part = OperatorPart::kAttention;
  const VariableId x = shape.value(width);
  const Lane x_lane{.hemisphere = from, .direction = Direction::kInward, .variable = x, .streams = width};
  shape.drafts.push_back(read_rows(builder_, buffer, row, 0, chip.vxm_position, x_lane));
  Draft finishing = unit(quantum ? Opcode::kQuantise : Opcode::kConvert, 0, from, 12, 2);
  add(finishing, operand(OperandKind::kIn, x_lane, {heads, row}, 0), x);
  if (quantum) {
    builder_.add_source(fresh, quantum->tensor);
    const VariableId q = shape.value(kFloatStreams);
    const Lane q_lane{
        .hemisphere = quantum->hemisphere, .direction = Direction::kInward, .variable = q, .streams = kFloatStreams};
    shape.drafts.push_back(read_rows(builder_, quantum->buffer, quantum->row, 0, chip.vxm_position, q_lane));
    add(finishing, operand(OperandKind::kIn, q_lane, {quantum->tensor, quantum->row}, 0), q);
  }
  const std::int64_t made_at = chip.vxm_latency.count();
  const std::int32_t columns = path_.kv_install_columns;
  const std::int32_t planes = path_.pairs_planes ? 1 : chip.mxm_planes_per_hemisphere;
  const std::int32_t row_of_byte = path_.pairs_planes ? bytes : 1;
  for (const Hemisphere hemisphere : kHemispheres) {
    const VariableId made = shape.value(bytes);
    const Lane outward{.hemisphere = hemisphere, .variable = made, .streams = bytes};
    std::int32_t farthest = 0;
    for (const Piece& piece : head.pieces) {
      farthest = std::max(farthest, chip.slice_position(piece.slice + piece.slices - 1));
    }
    add(finishing, operand(OperandKind::kOut, outward, {fresh, 0}, is_key ? farthest : chip.sxm_position), made);
    std::vector<VariableId> turned;
    const std::int64_t at_sxm = made_at + chip.sxm_position - chip.vxm_position;
    if (!is_key) {
      for (std::int32_t byte = 0; byte < bytes; ++byte) {
        Draft transpose =
            unit(Opcode::kTranspose, at_sxm + byte * kv_.value_cycles, hemisphere, 0, 0, {kv_.value_cycles, 1});
        // The SXM keeps the vector while it deals out its columns.
        if (byte == 0) {
          add(transpose, operand(OperandKind::kIn, outward, {fresh, 0}, 0, kv_.value_cycles > 1 ? 1U : 0U), made);
        }
        const VariableId out = shape.value(columns);
        turned.push_back(out);
        const Lane inward{
            .hemisphere = hemisphere, .direction = Direction::kInward, .variable = out, .streams = columns};
        add(transpose,
            operand(
                OperandKind::kOut, inward, {head.value_columns, byte * kv_.value_cycles * columns, {columns, 0, 0}}, 1),
            out);
        shape.drafts.push_back(std::move(transpose));
      }
    }
    for (const Piece& piece : head.pieces) {
      if (piece.hemisphere != hemisphere) {
        continue;
      }
      // One register for each run of columns that a write can hit.
      node::BaseRegister base{.kind = node::RegisterKind::kAppend,
                              .user_in_batch = token,
                              .layer_slot = layer_slot,
                              .append = {},
                              .table = user_table()};
      base.append = {.is_column = is_key,
                     .positions_per_tile = kv_.positions,
                     .planes = planes,
                     .hemisphere = static_cast<std::int32_t>(hemisphere),
                     .plane = piece.plane,
                     .columns = piece.slices / row_of_byte,
                     .slice_stride = row_of_byte,
                     .first_column = piece.column / row_of_byte,
                     .columns_per_cycle = columns,
                     .round_stride = kv_.key_cycles + kv_.value_cycles,
                     .row_stride = is_key ? row_of_byte : kv_.value_cycles * columns * row_of_byte};
      const std::uint16_t id = builder_.base_register(base);
      const std::int32_t dimension = kv_.value_cycles * columns;
      for (std::int32_t byte = 0; byte < bytes; ++byte) {
        // K: one slice of the piece takes the vector. V: the columns of this byte, one after another.
        Draft write = unit(Opcode::kWrite, 0, hemisphere, piece.slice + (row_of_byte > 1 ? byte : 0), 0);
        node::Instruction& in = write.instruction;
        in.base_register = id;
        in.address = static_cast<std::uint16_t>(piece.address + (is_key ? 0 : kv_.key_cycles));
        const std::int32_t position = chip.slice_position(in.index);
        node::Allocation made_at_rows;
        made_at_rows.tensor = is_key ? head.keys : head.values;
        made_at_rows.hemisphere = hemisphere;
        made_at_rows.base_register = id;
        made_at_rows.slice = in.index;
        made_at_rows.address = in.address;
        if (is_key) {
          in.start = static_cast<std::int32_t>(made_at + position - chip.vxm_position);
          add(write,
              operand(OperandKind::kIn, {.hemisphere = hemisphere, .variable = made, .offset = byte}, {fresh, byte}, 0),
              made);
          write.reach.both_banks = true;
          write.reach.slices.clear();
          for (std::int32_t c = 0; c < base.append.columns; ++c) {
            write.reach.slices.push_back(c * row_of_byte);
          }
          made_at_rows.row = byte;
        } else {
          const std::int32_t step = row_of_byte;
          in.mode = node::kWriteMasked;
          in.count[0] = static_cast<std::uint16_t>(kv_.value_cycles);
          in.period[0] = kv_.value_cycles > 1 ? 1 : 0;
          in.address_stride[0] = 1;
          in.count[2] = static_cast<std::uint16_t>(piece.slices / step);
          in.index_stride[2] = static_cast<std::int8_t>(step);
          in.start = static_cast<std::int32_t>(at_sxm + byte * kv_.value_cycles + chip.sxm_latency.count() +
                                               chip.sxm_position - position);
          const VariableId out = turned[static_cast<std::size_t>(byte)];
          const std::int32_t first = piece.column / step;
          add(write,
              operand(OperandKind::kIn,
                      {.hemisphere = hemisphere,
                       .direction = Direction::kInward,
                       .variable = out,
                       .offset = first,
                       .stream_stride = 1},
                      {head.value_columns, byte * dimension + first, {columns, 0, 1}},
                      0),
              out);
          made_at_rows.row = piece.column + (row_of_byte > 1 ? byte : 0);
          made_at_rows.count[0] = kv_.value_cycles;
          made_at_rows.row_stride[0] = columns * row_of_byte;
          made_at_rows.address_stride[0] = 1;
          made_at_rows.count[1] = piece.slices / step;
          made_at_rows.row_stride[1] = step;
          made_at_rows.slice_stride[1] = step;
        }
        builder_.allocation(made_at_rows);
        shape.drafts.push_back(std::move(write));
      }
    }
  }
  shape.drafts.push_back(std::move(finishing));
  const Template& placed = chain(before, shape, Kept::kNo);
  const PlacementId id = builder_.place(placed);
  std::int64_t& ready = is_key ? cache_ready_[head.keys] : cache_ready_[head.values];
  PlacementId& by = is_key ? cache_writer_[head.keys] : cache_writer_[head.values];
  std::int64_t last = 0;
  for (const Draft& draft : placed.drafts) {
    if (draft.instruction.opcode == Opcode::kWrite && draft.buffer < 0) {
      last = std::max(last, builder_.placement(id).start + draft.instruction.start + draft.instruction.count[0] + 16);
    }
  }
  ready = last + chip.instruction_propagation.count() + 1;
  by = id;
  builder_.end_placement(id, ready);
}

Sums Lowering::cache_window(const CacheHead& head,
                            std::int32_t token,
                            bool is_key,
                            std::int32_t first_round,
                            std::int32_t rounds,
                            std::int32_t vectors,
                            const std::array<TensorId, 2>& inputs,
                            const std::array<BufferId, 2>& rows,
                            std::int32_t first_row,
                            TensorId sums) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t segments = path_.pairs_planes ? 1 : 2;
  const std::int32_t cycles = is_key ? kv_.positions / path_.kv_install_columns : kv_.value_cycles;
  const std::int64_t round = round_cycles(cycles, vectors, false);
  const std::int32_t row_of_byte = path_.pairs_planes ? path_.kv_bytes : 1;
  const std::int32_t tile_rows = (is_key ? kv_.positions : kv_.value_cycles * path_.kv_install_columns) * row_of_byte;
  const std::int32_t round_rows = kv_.places * tile_rows;
  const std::int32_t segment_streams = kStripe / segments;
  const TensorId cache = is_key ? head.keys : head.values;
  const std::uint16_t base = user_registers_[static_cast<std::size_t>(token)];
  const Repeat repeat{rounds, static_cast<std::int32_t>(round)};

  Template shape;
  shape.part = OperatorPart::kAttention;
  shape.not_before = cache_ready_.at(cache) + chip.mxm_position;
  shape.after = cache_writer_.at(cache);
  for (const Piece& piece : head.pieces) {
    Draft read = unit(Opcode::kRead,
                      chip.slice_position(piece.slice) - chip.mxm_position,
                      piece.hemisphere,
                      piece.slice,
                      0,
                      repeat,
                      {cycles, 1});
    node::Instruction& in = read.instruction;
    in.base_register = base;
    in.count[2] = static_cast<std::uint16_t>(piece.slices);
    in.index_stride[2] = 1;
    in.address = static_cast<std::uint16_t>(piece.address + (is_key ? 0 : kv_.key_cycles) +
                                            first_round * (kv_.key_cycles + kv_.value_cycles));
    in.address_stride[0] = static_cast<std::int16_t>(kv_.key_cycles + kv_.value_cycles);
    in.address_stride[1] = 1;
    const std::int32_t row = (is_key ? piece.key_row : piece.value_row) + first_round * round_rows;
    add(read,
        operand(OperandKind::kOut,
                {.hemisphere = piece.hemisphere, .offset = piece.stream, .stream_stride = 1},
                {cache, row, {round_rows, segment_streams, 1}},
                chip.mxm_position),
        -1);
    shape.drafts.push_back(std::move(read));
  }
  for (const Hemisphere hemisphere : kHemispheres) {
    const auto side = static_cast<std::size_t>(hemisphere);
    const std::int32_t row = static_cast<std::int32_t>(hemisphere) * segments * tile_rows + first_round * round_rows;
    const std::int32_t plane_streams = kStripe / chip.mxm_planes_per_hemisphere;
    const std::int32_t plane_rows = segments == 2 ? tile_rows : plane_streams;
    Draft install = unit(Opcode::kInstall, 0, hemisphere, 0, 0, repeat, {cycles, 1});
    install.instruction.base_register = base;
    install.instruction.count[2] = static_cast<std::uint16_t>(chip.mxm_planes_per_hemisphere);
    install.instruction.index_stride[2] = 1;
    add(install,
        operand(OperandKind::kIn,
                {.hemisphere = hemisphere, .streams = plane_streams, .stream_stride = plane_streams},
                {cache, row, {round_rows, segment_streams, plane_rows}},
                0),
        -1);
    add(install,
        operand(OperandKind::kResident, {.hemisphere = hemisphere}, {cache, row, {round_rows, 0, plane_rows}}, 0),
        -1);
    shape.drafts.push_back(std::move(install));

    // Activations: a query's row serves all tiles; a probability row is a tile's own.
    const std::int32_t width = path_.activation_streams;
    const bool is_split = !is_key && segments == 2;
    const std::int32_t streams = width * (is_split ? 2 : 1);
    const VariableId value = shape.value(streams);
    const Lane lane{.hemisphere = hemisphere, .variable = value, .streams = streams};
    const std::int32_t per_round = is_key ? 0 : vectors * streams;
    const std::int32_t in_row = builder_.at(rows[side]).first_row + first_row + (is_key ? 0 : first_round * per_round);
    shape.drafts.push_back(read_rows(builder_,
                                     rows[side],
                                     in_row,
                                     cycles,
                                     chip.mxm_position,
                                     lane,
                                     repeat,
                                     per_round,
                                     {vectors, path_.compute_cycles},
                                     streams));
    Draft compute = unit(Opcode::kCompute, cycles, hemisphere, 0, 0, repeat, {vectors, path_.compute_cycles});
    node::Instruction& in = compute.instruction;
    in.base_register = base;
    in.count[2] = static_cast<std::uint16_t>(chip.mxm_planes_per_hemisphere);
    in.index_stride[2] = 1;
    in.address_stride[0] = static_cast<std::int16_t>(is_key ? vectors : 0);
    in.address_stride[1] = 1;
    in.mode = is_key             ? node::kComputeOverwrites
              : first_round == 0 ? static_cast<std::uint8_t>(node::kComputeOverwrites | 1U)
                                 : std::uint8_t{0};
    Lane each = lane;
    each.streams = width;
    each.stream_stride = is_split ? width : 0;
    add(compute,
        operand(OperandKind::kIn, each, {inputs[side], in_row, {per_round, streams, is_split ? width : 0}}, 0),
        value);
    add(compute,
        operand(OperandKind::kResident, {.hemisphere = hemisphere}, {cache, row, {round_rows, 0, plane_rows}}, 0),
        -1);
    shape.drafts.push_back(std::move(compute));
  }
  const std::int64_t last = cycles + (rounds - 1) * round + std::int64_t{vectors - 1} * path_.compute_cycles;
  const std::int64_t drain_after = last + chip.mxm_latency.count();
  const std::int32_t count = vectors * (is_key ? rounds : 1);
  const std::size_t first_instruction = builder_.instructions().size();
  wait_for_accumulators(shape, count, cycles);
  const PlacementId id = place_window(shape, rounds * round);
  const std::int64_t start = builder_.placement(id).start;
  const std::size_t holding = hold_accumulators(first_instruction, nullptr, count, start + cycles, start + drain_after);
  builder_.end_window(id, builder_.placement(id).start + drain_after, 0);
  return {.tensor = sums,
          .first_row = 0,
          .accumulator = accumulators_[holding].first,
          .holding = holding,
          .computes = is_key ? 1 : first_round + rounds,
          .columns = kv_.positions,
          .drain_from = builder_.placement(id).start + drain_after,
          .placement = id,
          .first_instruction = builder_.instructions().size()};
}

Gathered Lowering::attention(std::int32_t layer_slot, Product qkv, std::int32_t cache_index) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t query_heads = shard_.query_heads;
  const std::int32_t kv_heads = shard_.kv_heads;
  const std::int32_t all_heads = query_heads + 2 * kv_heads;
  const std::int32_t dimension = shard_.head_dim;

  // Sums leave the accumulators as parts of a plane's columns; heads are cut out of them lane by lane.
  const std::vector<Place> all_places = places(false);
  struct Part {
    std::size_t block, place;
    std::int32_t first_lane, lanes;
  };
  std::vector<Part> parts;
  std::int32_t lane_count = 0;
  for (std::size_t b = 0; b < qkv.matrix->blocks.size(); ++b) {
    const std::int32_t columns = columns_per_place(qkv.matrix->blocks[b].columns, path_);
    for (std::size_t p = 0; p < all_places.size() && lane_count < all_heads * dimension; ++p) {
      const std::int32_t lanes = std::min(columns, all_heads * dimension - lane_count);
      parts.push_back({b, p, lane_count, lanes});
      lane_count += lanes;
    }
  }
  const std::int32_t part_width = kFloatStreams;  // two fp16 parts, or one fp32 part, side by side in four slices
  const std::int32_t part_rows =
      static_cast<std::int32_t>(node::ceil_div(static_cast<std::int64_t>(parts.size()) * width, part_width)) *
      part_width;
  const TensorId part_tensor = tensor("qkv.part", layer_slot, batch_ * part_rows, {qkv.sums});
  const std::array<BufferId, 2> part_buffer{
      builder_.buffer(part_tensor, Hemisphere::kWest, kPartSlice, part_width, batch_ * part_rows),
      builder_.buffer(part_tensor, Hemisphere::kEast, kPartSlice, part_width, batch_ * part_rows)};
  Gathered out = gathered("attention", layer_slot, shard_.attention, {}, 1);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Sums sum = sums_of(qkv, parts[i].block);
    for (std::int32_t token = 0; token < batch_; ++token) {
      Template shape;
      shape.part = OperatorPart::kAttention;
      shape.not_before = sum.drain_from;
      shape.after = sum.placement;
      const auto inputs = drain(shape, sum, all_places[parts[i].place], token);
      const std::int64_t at = chip.mxm_position - chip.vxm_position;
      Draft dequantise = unit(Opcode::kDequantise, at, Hemisphere::kWest, 12, 4);
      for (const auto& [lane, rows] : inputs) {
        add(dequantise, operand(OperandKind::kIn, lane, rows, 0), lane.variable);
      }
      const std::int32_t row = token * part_rows + static_cast<std::int32_t>(i) * width;
      for (const Hemisphere hemisphere : kHemispheres) {
        const VariableId made = shape.value(width);
        const Lane lane{.hemisphere = hemisphere, .variable = made, .streams = width};
        const BufferId buffer = part_buffer[static_cast<std::size_t>(hemisphere)];
        add(dequantise, operand(OperandKind::kOut, lane, {part_tensor, row}, position_of(builder_, buffer)), made);
        shape.drafts.push_back(write_part(buffer, row, width, at + chip.vxm_latency.count(), lane));
      }
      shape.drafts.push_back(std::move(dequantise));
      hold_until(sum.holding, builder_.placement(builder_.place(shape)).start);
    }
    if (i + 1 == parts.size() || parts[i + 1].block != parts[i].block) {
      for (std::size_t p = parts[i].place + 1; p < all_places.size(); ++p) {
        discard(sum, all_places[p], OperatorPart::kAttention);
      }
      release(sum);
    }
  }
  for (std::int32_t token = 0; token < batch_; ++token) {
    // Heads: lanes aligned and rotated by the SXM, turned by the VXM. Even heads in the west, odd ones in the east.
    const std::string suffix = ".token" + std::to_string(token);
    const TensorId turned = tensor("qkv.turned" + suffix, layer_slot, all_heads * 2 * width, {part_tensor});
    const TensorId heads = tensor("qkv.heads" + suffix, layer_slot, all_heads * width, {turned, rope_});
    const std::int32_t west_heads = (all_heads + 1) / 2;
    const std::array<BufferId, 2> head_buffer{
        builder_.buffer(heads, Hemisphere::kWest, kHeadSlice, width, west_heads * width, 0),
        builder_.buffer(
            heads, Hemisphere::kEast, kHeadSlice, width, (all_heads - west_heads) * width, west_heads * width)};
    // Head i stands at row position(i): queries first, alternating sides, so that each side's queries are contiguous.
    const auto place_of = [&](std::int32_t head) { return head % 2 == 0 ? head / 2 : west_heads + head / 2; };
    for (std::int32_t head = 0; head < all_heads; ++head) {
      const bool is_value = head >= query_heads + kv_heads;
      const Hemisphere hemisphere = kHemispheres[static_cast<std::size_t>(head % 2)];
      const auto side = static_cast<std::size_t>(head % 2);
      Template shape;
      shape.part = OperatorPart::kAttention;
      std::vector<std::int32_t> pieces;
      for (std::size_t i = 0; i < parts.size(); ++i) {
        if (parts[i].first_lane < (head + 1) * dimension && parts[i].first_lane + parts[i].lanes > head * dimension) {
          pieces.push_back(static_cast<std::int32_t>(i));
        }
      }
      // As many parts a cycle as lie side by side; the SXM keeps those of earlier cycles.
      const auto piece_count = static_cast<std::int32_t>(pieces.size());
      const std::int32_t at_a_time = part_width / width;
      const std::int32_t turns = static_cast<std::int32_t>(node::ceil_div(piece_count, at_a_time));
      const std::int64_t at_sxm = chip.sxm_position + turns - 1;
      Draft turn = unit(is_value ? Opcode::kPack : Opcode::kRotate, at_sxm, hemisphere, 0, 0);
      for (std::int32_t i = 0; i < turns; ++i) {
        const std::int64_t at = chip.sxm_position + i;
        Draft kept = unit(Opcode::kPack, at, hemisphere, 0, 0);
        Draft& taker = i + 1 < turns ? kept : turn;
        for (std::int32_t k = i * at_a_time; k < std::min(piece_count, (i + 1) * at_a_time); ++k) {
          const VariableId value = shape.value(width);
          const Lane lane{.hemisphere = hemisphere, .variable = value, .streams = width};
          const std::int32_t row = token * part_rows + pieces[static_cast<std::size_t>(k)] * width;
          shape.drafts.push_back(read_part(part_buffer[side], row, width, at, lane));
          add(taker, operand(OperandKind::kIn, lane, {part_tensor, row}, 0), value);
        }
        if (i + 1 < turns) {
          shape.drafts.push_back(std::move(kept));
        }
      }
      const std::int32_t turned_width = is_value ? width : 2 * width;
      const VariableId value = shape.value(turned_width);
      const Lane inward{
          .hemisphere = hemisphere, .direction = Direction::kInward, .variable = value, .streams = turned_width};
      const std::int32_t turned_row = place_of(head) * 2 * width;
      add(turn, operand(OperandKind::kOut, inward, {turned, turned_row}, chip.vxm_position), value);
      shape.drafts.push_back(std::move(turn));
      const std::int64_t at_vxm = at_sxm + chip.sxm_latency.count() + chip.sxm_position - chip.vxm_position;
      Draft rotary = unit(is_value ? Opcode::kConvert : Opcode::kRotaryMultiply,
                          at_vxm,
                          hemisphere,
                          12 + 2 * static_cast<std::int32_t>(side),
                          2);
      add(rotary, operand(OperandKind::kIn, inward, {turned, turned_row}, 0), value);
      if (!is_value) {
        const VariableId angles = shape.value(kFloatStreams);
        const Lane angle_lane{
            .hemisphere = hemisphere, .direction = Direction::kInward, .variable = angles, .streams = kFloatStreams};
        Draft read = read_rows(builder_, rope_rows_[side], 0, at_vxm, chip.vxm_position, angle_lane);
        read.reach.both_banks = true;
        read.instruction.operands[0].is_registered = 1;
        read.instruction.base_register = builder_.at(rope_rows_[side]).base_register;
        rotary.instruction.base_register = read.instruction.base_register;
        shape.drafts.push_back(std::move(read));
        auto in = operand(OperandKind::kIn, angle_lane, {rope_, 0}, 0);
        in.is_registered = 1;
        add(rotary, in, angles);
      }
      const VariableId made = shape.value(width);
      const Lane outward{.hemisphere = hemisphere, .variable = made, .streams = width};
      const std::int32_t row = place_of(head) * width;
      add(rotary, operand(OperandKind::kOut, outward, {heads, row}, position_of(builder_, head_buffer[side])), made);
      shape.drafts.push_back(std::move(rotary));
      shape.drafts.push_back(
          write_rows(builder_, head_buffer[side], row, at_vxm + chip.vxm_latency.count(), chip.vxm_position, outward));
      builder_.place(shape);
    }
    attend_token(layer_slot, cache_index, token, heads, head_buffer, west_heads, out);
  }
  return out;
}

void Lowering::attend_token(std::int32_t layer_slot,
                            std::int32_t cache_index,
                            std::int32_t token,
                            TensorId heads,
                            const std::array<BufferId, 2>& head_buffer,
                            std::int32_t west_heads,
                            Gathered& out) {
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t act = path_.activation_streams;
  const std::int32_t query_heads = shard_.query_heads;
  const std::int32_t kv_heads = shard_.kv_heads;
  const std::string suffix = ".token" + std::to_string(token);
  const auto row_of = [&](std::int32_t head) { return (head % 2 == 0 ? head / 2 : west_heads + head / 2) * width; };
  const auto side_of = [](std::int32_t head) { return static_cast<std::size_t>(head % 2); };

  // Queries as MXM rows, in both hemispheres: quantised with one scale for all of the chip's heads.
  const TensorId queries = tensor("query" + suffix, layer_slot, query_heads * act, {heads});
  const std::array<BufferId, 2> query_rows{
      builder_.buffer(queries, Hemisphere::kWest, kVectorSlice, act, query_heads * act),
      builder_.buffer(queries, Hemisphere::kEast, kVectorSlice, act, query_heads * act)};
  const std::array<std::int32_t, 2> side_queries{(query_heads + 1) / 2, query_heads / 2};
  std::optional<Scalar> quantum;
  if (path_.quantises) {
    const TensorId largest = tensor("query.largest" + suffix, layer_slot, 2 * kFloatStreams, {heads});
    const std::array<BufferId, 2> rows = partials(largest, kFloatStreams);
    Template shape;
    shape.part = OperatorPart::kAttention;
    for (std::size_t side = 0; side < 2; ++side) {
      if (side_queries[side] > 0) {
        running_maximum(shape,
                        heads,
                        head_buffer[side],
                        row_of(static_cast<std::int32_t>(side)),
                        side_queries[side],
                        largest,
                        static_cast<std::int32_t>(side) * kFloatStreams,
                        rows[side],
                        side);
      }
    }
    quantum = reduce("query.quantum" + suffix,
                     layer_slot,
                     largest,
                     {rows[0], side_queries[1] > 0 ? rows[1] : -1},
                     0,
                     1,
                     Opcode::kMaximum,
                     Opcode::kReciprocal,
                     Hemisphere::kWest,
                     OperatorPart::kAttention,
                     &shape);
    place_rest(shape);
    builder_.add_source(queries, quantum->tensor);
  }
  for (std::size_t side = 0; side < 2; ++side) {
    if (side_queries[side] > 0) {
      convert_rows(heads,
                   head_buffer[side],
                   row_of(static_cast<std::int32_t>(side)),
                   side_queries[side],
                   quantum,
                   queries,
                   query_rows,
                   static_cast<std::int32_t>(side) * act,
                   2 * act,
                   side);
    }
  }
  for (std::int32_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
    const CacheHead cache = declare_cache_head(layer_slot, cache_index * kv_heads + kv_head, kv_head, token);
    for (const bool is_key : {true, false}) {
      const std::int32_t head = query_heads + (is_key ? 0 : kv_heads) + kv_head;
      std::optional<Scalar> scale;
      Template shape;
      if (path_.quantises) {
        const std::string name =
            (is_key ? "key" : "value") + std::string(".quantum.head") + std::to_string(kv_head) + suffix;
        const TensorId largest = tensor(name + ".largest", layer_slot, 2 * kFloatStreams, {heads});
        const std::array<BufferId, 2> rows = partials(largest, kFloatStreams);
        shape.part = OperatorPart::kAttention;
        const std::size_t side = side_of(head);
        running_maximum(shape,
                        heads,
                        head_buffer[side],
                        row_of(head),
                        1,
                        largest,
                        static_cast<std::int32_t>(side) * kFloatStreams,
                        rows[side],
                        side);
        std::array<BufferId, 2> live{-1, -1};
        live[side] = rows[side];
        scale = reduce(name,
                       layer_slot,
                       largest,
                       live,
                       0,
                       1,
                       Opcode::kMaximum,
                       Opcode::kReciprocal,
                       is_key ? Hemisphere::kEast : Hemisphere::kWest,
                       OperatorPart::kAttention,
                       &shape);
      }
      append(cache, layer_slot, token, is_key, heads, head_buffer[side_of(head)], row_of(head), scale, shape);
    }
    attend_head(layer_slot, cache, kv_head, token, queries, query_rows, out);
  }
}

void Lowering::running_maximum(Template& shape,
                               TensorId tensor_in,
                               BufferId buffer,
                               std::int32_t row,
                               std::int32_t groups,
                               TensorId out,
                               std::int32_t out_row,
                               BufferId out_buffer,
                               std::size_t side) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const VariableId x = shape.value(width);
  const Lane x_lane{.hemisphere = kHemispheres[side], .direction = Direction::kInward, .variable = x, .streams = width};
  shape.drafts.push_back(read_rows(builder_, buffer, row, 0, chip.vxm_position, x_lane, paced(groups), width));
  Draft maximum = unit(Opcode::kMaximum, 0, kHemispheres[side], 2 * static_cast<std::int32_t>(side), 2, paced(groups));
  add(maximum, operand(OperandKind::kIn, x_lane, {tensor_in, row, {width, 0, 0}}, 0), x);
  const VariableId made = shape.value(kFloatStreams);
  const Lane lane{.hemisphere = kHemispheres[side], .variable = made, .streams = kFloatStreams};
  add(maximum,
      operand(OperandKind::kOut, lane, {out, out_row}, position_of(builder_, out_buffer), groups > 1 ? 1U : 0U),
      made);
  shape.drafts.push_back(std::move(maximum));
  shape.drafts.push_back(write_rows(builder_,
                                    out_buffer,
                                    out_row,
                                    std::int64_t{groups - 1} * pass_period_ + chip.vxm_latency.count(),
                                    chip.vxm_position,
                                    lane));
}

void Lowering::convert_rows(TensorId tensor_in,
                            BufferId buffer,
                            std::int32_t row,
                            std::int32_t groups,
                            const std::optional<Scalar>& quantum,
                            TensorId out,
                            const std::array<BufferId, 2>& out_rows,
                            std::int32_t out_row,
                            std::int32_t out_step,
                            std::size_t side) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t act = path_.activation_streams;
  Template shape;
  shape.part = OperatorPart::kAttention;
  const VariableId x = shape.value(width);
  const Lane x_lane{.hemisphere = kHemispheres[side], .direction = Direction::kInward, .variable = x, .streams = width};
  shape.drafts.push_back(read_rows(builder_, buffer, row, 0, chip.vxm_position, x_lane, paced(groups), width));
  Draft convert = unit(quantum ? Opcode::kQuantise : Opcode::kConvert,
                       0,
                       kHemispheres[side],
                       4 + 2 * static_cast<std::int32_t>(side),
                       2,
                       paced(groups));
  add(convert, operand(OperandKind::kIn, x_lane, {tensor_in, row, {width, 0, 0}}, 0), x);
  if (quantum) {
    const VariableId q = shape.value(kFloatStreams);
    const Lane q_lane{
        .hemisphere = quantum->hemisphere, .direction = Direction::kInward, .variable = q, .streams = kFloatStreams};
    shape.drafts.push_back(read_rows(builder_, quantum->buffer, quantum->row, 0, chip.vxm_position, q_lane));
    add(convert, operand(OperandKind::kIn, q_lane, {quantum->tensor, quantum->row}, 0, groups > 1 ? 1U : 0U), q);
  }
  for (const Hemisphere hemisphere : kHemispheres) {
    const BufferId target = out_rows[static_cast<std::size_t>(hemisphere)];
    if (target < 0) {
      continue;
    }
    const VariableId made = shape.value(act);
    const Lane lane{.hemisphere = hemisphere, .variable = made, .streams = act};
    add(convert,
        operand(OperandKind::kOut, lane, {out, out_row, {out_step, 0, 0}}, position_of(builder_, target)),
        made);
    shape.drafts.push_back(write_rows(
        builder_, target, out_row, chip.vxm_latency.count(), chip.vxm_position, lane, paced(groups), out_step));
  }
  shape.drafts.push_back(std::move(convert));
  builder_.place(shape);
}

void Lowering::attend_head(std::int32_t layer_slot,
                           const CacheHead& cache,
                           std::int32_t kv_head,
                           std::int32_t token,
                           TensorId queries,
                           const std::array<BufferId, 2>& query_rows,
                           Gathered& out) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t act = path_.activation_streams;
  const std::int32_t group = shard_.query_heads / shard_.kv_heads;  // queries that share this cache
  const std::int32_t side_places = path_.pairs_planes ? 1 : 2;
  const std::string suffix = ".head" + std::to_string(kv_head) + ".token" + std::to_string(token);
  const std::int32_t rounds = kv_.rounds;
  const std::int32_t side_groups =
      rounds * group * side_places;  // score vectors of a side; row group = (round, query, place)
  const TensorId sums =
      tensor("scores.sums" + suffix, layer_slot, rounds * group * kPlaces * kFloatStreams, {queries, cache.keys});
  const TensorId scores = tensor("scores" + suffix, layer_slot, 2 * side_groups * width, {sums});
  const TensorId largest = tensor("scores.largest" + suffix, layer_slot, 2 * rounds * group * kFloatStreams, {sums});
  const TensorId probabilities = tensor("probability" + suffix, layer_slot, 2 * side_groups * width, {scores});
  const TensorId totals =
      tensor("probability.totals" + suffix, layer_slot, 2 * rounds * group * kFloatStreams, {scores});
  std::array<BufferId, 2> score_rows{};
  std::array<BufferId, 2> probability_rows{};
  for (std::size_t side = 0; side < 2; ++side) {
    const auto first = static_cast<std::int32_t>(side) * side_groups * width;
    score_rows[side] = builder_.buffer(scores, kHemispheres[side], kScoreSlice, width, side_groups * width, first);
    probability_rows[side] =
        builder_.buffer(probabilities, kHemispheres[side], kProbabilitySlice, width, side_groups * width, first);
  }
  const std::array<BufferId, 2> largest_rows = partials(largest, rounds * group * kFloatStreams);
  const std::array<BufferId, 2> total_rows = partials(totals, rounds * group * kFloatStreams);

  // Scores, in windows of as many rounds as the accumulators hold.
  const bool flows = load_ == Load::kEmpty && rounds == 1;
  std::vector<Template> scored;
  Sums score_window;
  const std::int32_t window_rounds = std::max(1, chip.mxm_accumulators_per_plane / 2 / group);
  for (std::int32_t first = 0; first < rounds; first += window_rounds) {
    const std::int32_t count = std::min(window_rounds, rounds - first);
    const std::int32_t query_row = kv_head * group * act;
    const Sums window =
        cache_window(cache, token, true, first, count, group, {queries, queries}, query_rows, query_row, sums);
    for (std::int32_t round = first; round < first + count; ++round) {
      for (std::int32_t query = 0; query < group; ++query) {
        Template shape;
        shape.part = OperatorPart::kAttention;
        shape.not_before = window.drain_from;
        shape.after = window.placement;
        const std::int64_t at = chip.mxm_position - chip.vxm_position;
        for (std::size_t side = 0; side < 2; ++side) {
          const Hemisphere hemisphere = kHemispheres[side];
          // One drain a place, a cycle apart; pairs of planes leave together on eight streams.
          const std::int32_t drain_streams = path_.pairs_planes ? 2 * kFloatStreams : kFloatStreams;
          const VariableId value = shape.value(drain_streams);
          const Repeat by_place{side_places, 1};
          const std::int32_t row =
              ((round * group + query) * kPlaces + static_cast<std::int32_t>(side) * 2) * kFloatStreams;
          Draft drained = unit(Opcode::kDrain, 0, hemisphere, 0, 0, {}, by_place);
          drained.instruction.index_stride[1] = side_places > 1 ? 1 : 0;
          drained.instruction.count[2] = static_cast<std::uint16_t>(path_.pairs_planes ? 2 : 1);
          drained.instruction.index_stride[2] = path_.pairs_planes ? 1 : 0;
          drained.instruction.address =
              static_cast<std::uint16_t>(window.accumulator + (round - first) * group + query);
          drained.instruction.argument = 1;
          const Lane drain_lane{.hemisphere = hemisphere,
                                .direction = Direction::kInward,
                                .variable = value,
                                .streams = kFloatStreams,
                                .stream_stride = path_.pairs_planes ? kFloatStreams : 0};
          add(drained,
              operand(OperandKind::kOut,
                      drain_lane,
                      {sums, row, {0, side_places > 1 ? kFloatStreams : 0, path_.pairs_planes ? kFloatStreams : 0}},
                      chip.vxm_position),
              value);
          shape.drafts.push_back(std::move(drained));
          Draft scoring = unit(Opcode::kMaximum, at, hemisphere, 4 * static_cast<std::int32_t>(side), 4, {}, by_place);
          Lane in_lane = drain_lane;
          in_lane.streams = drain_streams;
          in_lane.stream_stride = 0;
          add(scoring,
              operand(OperandKind::kIn, in_lane, {sums, row, {0, side_places > 1 ? kFloatStreams : 0, 0}}, 0),
              value);
          const std::int64_t made_at = at + chip.vxm_latency.count();
          const VariableId score = shape.value(width);
          const Lane score_lane{.hemisphere = hemisphere, .variable = score, .streams = width};
          const std::int32_t score_row =
              builder_.at(score_rows[side]).first_row + (round * group + query) * side_places * width;
          add(scoring,
              operand(OperandKind::kOut,
                      score_lane,
                      {scores, score_row, {0, width, 0}},
                      position_of(builder_, score_rows[side])),
              score);
          shape.drafts.push_back(write_rows(
              builder_, score_rows[side], score_row, made_at, chip.vxm_position, score_lane, {}, 0, by_place, width));
          const VariableId top = shape.value(kFloatStreams);
          const Lane top_lane{.hemisphere = hemisphere, .variable = top, .streams = kFloatStreams};
          const std::int32_t top_row =
              builder_.at(largest_rows[side]).first_row + (query * rounds + round) * kFloatStreams;
          add(scoring,
              operand(OperandKind::kOut,
                      top_lane,
                      {largest, top_row},
                      position_of(builder_, largest_rows[side]),
                      side_places > 1 ? 2U : 0U),
              top);
          shape.drafts.push_back(write_rows(
              builder_, largest_rows[side], top_row, made_at + side_places - 1, chip.vxm_position, top_lane));
          shape.drafts.push_back(std::move(scoring));
        }
        if (flows) {
          scored.push_back(std::move(shape));  // the maximum over its lanes follows without a stop in SRAM
        } else {
          hold_until(window.holding, builder_.placement(builder_.place(shape)).start);
        }
        score_window = window;
      }
    }
    if (!flows) {
      release(window);
    }
  }
  // Softmax: maximum, exponential with running sum, and the sum's reciprocal, which scales the output.
  std::vector<Scalar> shares;
  const TensorId peaks =
      path_.quantises
          ? tensor("probability.peaks" + suffix, layer_slot, 2 * rounds * group * kFloatStreams, {probabilities})
          : TensorId{0};
  const std::array<BufferId, 2> peak_rows =
      path_.quantises ? partials(peaks, rounds * group * kFloatStreams) : std::array<BufferId, 2>{-1, -1};
  for (std::int32_t query = 0; query < group; ++query) {
    const std::string name = suffix + ".query" + std::to_string(query);
    const Scalar top = reduce("scores.maximum" + name,
                              layer_slot,
                              largest,
                              largest_rows,
                              query * rounds * kFloatStreams,
                              rounds,
                              Opcode::kMaximum,
                              Opcode::kMaximum,
                              kHemispheres[static_cast<std::size_t>(query % 2)],
                              OperatorPart::kAttention,
                              flows ? &scored[static_cast<std::size_t>(query)] : nullptr);
    builder_.add_source(probabilities, top.tensor);
    builder_.add_source(totals, top.tensor);
    for (std::int32_t round = 0; round < rounds; ++round) {
      Template shape;
      shape.part = OperatorPart::kAttention;
      const VariableId m = shape.value(kFloatStreams);
      const Lane m_lane{
          .hemisphere = top.hemisphere, .direction = Direction::kInward, .variable = m, .streams = kFloatStreams};
      shape.drafts.push_back(read_rows(builder_, top.buffer, top.row, 0, chip.vxm_position, m_lane));
      for (std::size_t side = 0; side < 2; ++side) {
        const Hemisphere hemisphere = kHemispheres[side];
        const Repeat by_place = paced(side_places);
        const std::int32_t row =
            builder_.at(score_rows[side]).first_row + (round * group + query) * side_places * width;
        const VariableId x = shape.value(width);
        const Lane x_lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = x, .streams = width};
        shape.drafts.push_back(
            read_rows(builder_, score_rows[side], row, 0, chip.vxm_position, x_lane, {}, 0, by_place, width));
        const unsigned hold = side_places > 1 ? 2U : 0U;
        Draft exponential =
            unit(Opcode::kExponential, 0, hemisphere, 4 * static_cast<std::int32_t>(side), 3, {}, by_place);
        add(exponential, operand(OperandKind::kIn, x_lane, {scores, row, {0, width, 0}}, 0), x);
        add(exponential, operand(OperandKind::kIn, m_lane, {top.tensor, top.row}, 0, hold), m);
        const std::int64_t made_at = chip.vxm_transcendental_latency.count();
        const VariableId p = shape.value(width);
        const Lane p_lane{.hemisphere = hemisphere, .variable = p, .streams = width};
        const Rows p_rows{probabilities, row, {0, width, 0}};
        add(exponential, operand(OperandKind::kOut, p_lane, p_rows, position_of(builder_, probability_rows[side])), p);
        shape.drafts.push_back(write_rows(
            builder_, probability_rows[side], row, made_at, chip.vxm_position, p_lane, {}, 0, by_place, width));
        const std::int64_t done = made_at + std::int64_t{side_places - 1} * pass_period_;
        const VariableId total = shape.value(kFloatStreams);
        const Lane total_lane{.hemisphere = hemisphere, .variable = total, .streams = kFloatStreams};
        const std::int32_t total_row =
            builder_.at(total_rows[side]).first_row + (query * rounds + round) * kFloatStreams;
        add(exponential,
            operand(OperandKind::kOut, total_lane, {totals, total_row}, position_of(builder_, total_rows[side]), hold),
            total);
        shape.drafts.push_back(write_rows(builder_, total_rows[side], total_row, done, chip.vxm_position, total_lane));
        shape.drafts.push_back(std::move(exponential));
        if (path_.quantises) {
          Draft peak =
              unit(Opcode::kMaximum, made_at, hemisphere, 8 + 2 * static_cast<std::int32_t>(side), 2, {}, by_place);
          add(peak, operand(OperandKind::kIn, p_lane, p_rows, 0), p);
          const VariableId high = shape.value(kFloatStreams);
          const Lane high_lane{.hemisphere = hemisphere, .variable = high, .streams = kFloatStreams};
          const std::int32_t high_row =
              builder_.at(peak_rows[side]).first_row + (query * rounds + round) * kFloatStreams;
          add(peak,
              operand(OperandKind::kOut, high_lane, {peaks, high_row}, position_of(builder_, peak_rows[side]), hold),
              high);
          shape.drafts.push_back(write_rows(
              builder_, peak_rows[side], high_row, done + chip.vxm_latency.count(), chip.vxm_position, high_lane));
          shape.drafts.push_back(std::move(peak));
        }
      }
      if (flows && !scored[static_cast<std::size_t>(query)].drafts.empty()) {
        const Template& placed = chain(scored[static_cast<std::size_t>(query)], shape, Kept::kNo);
        const std::int64_t start = builder_.placement(builder_.place(placed)).start;
        hold_until(score_window.holding, start);
      } else {
        builder_.place(shape);
      }
    }
    shares.push_back(reduce("probability.share" + name,
                            layer_slot,
                            totals,
                            total_rows,
                            query * rounds * kFloatStreams,
                            rounds,
                            Opcode::kSum,
                            Opcode::kReciprocal,
                            kHemispheres[static_cast<std::size_t>((query + 1) % 2)],
                            OperatorPart::kAttention));
  }
  if (flows) {
    release(score_window);
  }
  // Probabilities as MXM rows of their own tiles.
  std::array<TensorId, 2> rows_tensor{probabilities, probabilities};
  std::array<BufferId, 2> rows_buffer = probability_rows;
  if (path_.quantises) {
    const Scalar quantum = reduce("probability.quantum" + suffix,
                                  layer_slot,
                                  peaks,
                                  peak_rows,
                                  0,
                                  rounds * group,
                                  Opcode::kMaximum,
                                  Opcode::kReciprocal,
                                  Hemisphere::kWest,
                                  OperatorPart::kAttention);
    for (std::size_t side = 0; side < 2; ++side) {
      rows_tensor[side] = tensor("probability.int8" + suffix + (side == 0 ? ".west" : ".east"),
                                 layer_slot,
                                 side_groups * act,
                                 {probabilities, quantum.tensor});
      // Both planes' rows are read in one cycle: side by side in two slices.
      rows_buffer[side] =
          builder_.buffer(rows_tensor[side], kHemispheres[side], kVectorSlice + 2, 2, side_groups * act);
      quantise_rows(
          probabilities, probability_rows[side], side_groups, quantum, rows_tensor[side], rows_buffer[side], side);
    }
  }
  const TensorId output_sums =
      tensor("attended.sums" + suffix,
             layer_slot,
             group * kPlaces * kFloatStreams,
             path_.quantises ? std::vector<TensorId>{cache.values, rows_tensor[0], rows_tensor[1]}
                             : std::vector<TensorId>{cache.values, probabilities});
  const Sums window = cache_window(cache, token, false, 0, rounds, group, rows_tensor, rows_buffer, 0, output_sums);
  // Output: four planes' sums together, times the share, packed for the wire.
  const TensorId attended = tensor("attended" + suffix, layer_slot, group * kFloatStreams, {output_sums});
  std::vector<std::int64_t> lanes(static_cast<std::size_t>(shard_.query_heads), shard_.head_dim);
  if (attention_parts_.find({layer_slot, token}) == attention_parts_.end()) {
    attention_parts_[{layer_slot, token}] =
        plan_parts("attention.token" + std::to_string(token), layer_slot, lanes, {}, out.packing);
  }
  const PartPlan& plan = attention_parts_.at({layer_slot, token});
  for (std::int32_t query = 0; query < group; ++query) {
    const Scalar& share = shares[static_cast<std::size_t>(query)];
    Template shape;
    shape.part = OperatorPart::kAttention;
    shape.not_before = window.drain_from;
    shape.after = window.placement;
    const std::int64_t at = chip.mxm_position - chip.vxm_position;
    Sums one = window;
    one.tensor = output_sums;
    one.first_row = query * kPlaces * kFloatStreams;
    one.accumulator = window.accumulator + query;
    const auto inputs = drain(shape, one, {{Hemisphere::kWest, 0, 2}, {Hemisphere::kEast, 0, 2}}, 0);
    Draft together = unit(Opcode::kSum, at, Hemisphere::kWest, 8, 4);
    for (const auto& [lane, rows] : inputs) {
      add(together, operand(OperandKind::kIn, lane, rows, 0), lane.variable);
    }
    const VariableId whole = shape.value(kFloatStreams);
    const Lane whole_lane{.hemisphere = Hemisphere::kWest, .variable = whole, .streams = kFloatStreams};
    const Rows whole_rows{attended, query * kFloatStreams};
    add(together, operand(OperandKind::kOut, whole_lane, whole_rows, chip.vxm_position), whole);
    shape.drafts.push_back(std::move(together));
    const std::int64_t scale_at = at + chip.vxm_latency.count();
    const VariableId s = shape.value(kFloatStreams);
    const Lane s_lane{
        .hemisphere = share.hemisphere, .direction = Direction::kInward, .variable = s, .streams = kFloatStreams};
    shape.drafts.push_back(read_rows(builder_, share.buffer, share.row, scale_at, chip.vxm_position, s_lane));
    const TensorId target = plan.packs ? plan.part : out.tensor;
    builder_.add_source(target, attended);
    builder_.add_source(target, share.tensor);
    if (plan.packs) {
      builder_.add_source(out.tensor, plan.part);
    }
    emit_part(shape,
              scale_at,
              {{whole_lane, whole_rows}, {s_lane, {share.tensor, share.row}}},
              Opcode::kMultiply,
              plan,
              kv_head * group + query,
              token,
              out);
    hold_until(window.holding, builder_.placement(builder_.place(shape)).start);
  }
  release(window);
}

void Lowering::quantise_rows(TensorId tensor_in,
                             BufferId buffer,
                             std::int32_t groups,
                             const Scalar& quantum,
                             TensorId out,
                             BufferId out_buffer,
                             std::size_t side) {
  // Groups of (query, place): two places side by side fill one address of the target's two slices.
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int32_t act = path_.activation_streams;
  const std::int32_t first = builder_.at(buffer).first_row;
  const Hemisphere hemisphere = kHemispheres[side];
  Template shape;
  shape.part = OperatorPart::kAttention;
  const VariableId x = shape.value(width);
  const Lane x_lane{.hemisphere = hemisphere, .direction = Direction::kInward, .variable = x, .streams = width};
  shape.drafts.push_back(read_rows(builder_, buffer, first, 0, chip.vxm_position, x_lane, paced(groups), width));
  const VariableId q = shape.value(kFloatStreams);
  const Lane q_lane{
      .hemisphere = quantum.hemisphere, .direction = Direction::kInward, .variable = q, .streams = kFloatStreams};
  shape.drafts.push_back(read_rows(builder_, quantum.buffer, quantum.row, 0, chip.vxm_position, q_lane));
  Draft convert = unit(Opcode::kQuantise, 0, hemisphere, 4 + 2 * static_cast<std::int32_t>(side), 2, paced(groups));
  add(convert, operand(OperandKind::kIn, x_lane, {tensor_in, first, {width, 0, 0}}, 0), x);
  add(convert, operand(OperandKind::kIn, q_lane, {quantum.tensor, quantum.row}, 0, groups > 1 ? 1U : 0U), q);
  const VariableId made = shape.value(act);
  const Lane lane{.hemisphere = hemisphere, .variable = made, .streams = act};
  add(convert, operand(OperandKind::kOut, lane, {out, 0, {act, 0, 0}}, position_of(builder_, out_buffer)), made);
  shape.drafts.push_back(std::move(convert));
  for (std::int32_t place = 0; place < 2; ++place) {
    // Rows of one place, every second cycle of the pass.
    Draft write = write_row(
        builder_, out_buffer, place, chip.vxm_latency.count() + place * pass_period_, chip.vxm_position, lane);
    write.instruction.count[0] = static_cast<std::uint16_t>((groups + 1 - place) / 2);
    write.instruction.period[0] = 2 * pass_period_;
    write.instruction.address_stride[0] = 1;
    write.instruction.operands[0].row_stride[0] = 2;
    shape.drafts.push_back(std::move(write));
  }
  builder_.place(shape);
}

Draft Lowering::write_part(BufferId buffer, std::int32_t row, std::int32_t width, std::int64_t at, const Lane& lane) {
  Draft draft = write_row(builder_, buffer, row, at, builder_.chip().vxm_position, lane);
  widen_to(draft, width);
  return draft;
}

Draft Lowering::read_part(BufferId buffer, std::int32_t row, std::int32_t width, std::int64_t at, const Lane& lane) {
  Draft draft = read_row(builder_, buffer, row, at, builder_.chip().sxm_position, lane);
  widen_to(draft, width);
  return draft;
}

void Lowering::widen_to(Draft& draft, std::int32_t width) {
  draft.instruction.count[2] = static_cast<std::uint16_t>(width);
  draft.instruction.index_stride[2] = 1;
  draft.instruction.operands[0].stream_stride = 1;
  draft.instruction.operands[0].row_stride[2] = 1;
}

}  // namespace lpu::scheduler
