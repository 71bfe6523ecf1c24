#include <algorithm>
#include <iterator>

#include "lowering.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"

namespace lpu::scheduler {

using node::Direction;
using node::Hemisphere;
using node::Opcode;
using node::OperandKind;
using node::OperatorPart;

namespace {
constexpr std::int32_t kPlaces = 4;      // planes of a chip: rows of a sum are numbered by place
constexpr std::int32_t kSumStreams = 4;  // fp32 or int32

/// Pieces of a matrix block on the near groups: enough to fill the far groups evenly, with the least padding.
std::int32_t near_segments(std::int32_t tiles) {
  constexpr std::int32_t kFewest = 6;
  constexpr std::int32_t kMost = 16;
  std::int32_t best = std::min(tiles, kFewest);
  std::int64_t least = node::ceil_div(tiles, best) * best;
  for (std::int32_t cuts = kFewest; cuts <= std::min(tiles, kMost); ++cuts) {
    if (node::ceil_div(tiles, cuts) * cuts < least) {
      least = node::ceil_div(tiles, cuts) * cuts;
      best = cuts;
    }
  }
  return best;
}

}  // namespace

Matrix Lowering::declare(const std::string& name, std::int32_t layer_slot, const Linear& linear, std::int32_t experts) {
  Matrix out;
  out.name = name;
  out.linear = linear;
  out.has_experts = experts > 0;
  const std::int32_t copies = std::max(experts, 1);
  const std::int32_t streams = path_.stored_slices;
  constexpr std::int32_t row_step = 1;
  std::int32_t rows = 0;
  for (std::int32_t b = 0; b < linear.blocks(); ++b) {
    WeightBlock block;
    block.columns = std::min(linear.block_columns, linear.columns - b * linear.block_columns);
    block.cycles = install_cycles(block.columns, path_);
    block.first_row = rows;
    rows += 2 * linear.tiles * block.cycles * streams;
    out.blocks.push_back(std::move(block));
  }
  out.stored = tensor(name + ".weights", layer_slot, rows * copies, {}, node::TensorScope::kStatic);
  out.installed = {out.stored, out.stored};
  if (path_.widens) {
    out.installed = {tensor(name + ".low", layer_slot, rows * copies, {out.stored}),
                     tensor(name + ".high", layer_slot, rows * copies, {out.stored})};
  }
  for (WeightBlock& block : out.blocks) {
    // Narrow stripes are dealt over the four quarters of the far slices, wide ones take all of them at once. Pieces of
    // experts are equally high, so that where room is short their number must divide the tiles well.
    const bool is_narrow = path_.stored_slices < 32;
    const std::int32_t cuts = memory_.wants_near() || (is_narrow && copies > 1 && memory_.is_tight())
                                  ? near_segments(linear.tiles)
                              : is_narrow ? std::min(linear.tiles, 4)
                                          : 1;
    std::int32_t height = static_cast<std::int32_t>(node::ceil_div(linear.tiles, cuts)) * block.cycles;
    height += height % 2;
    for (std::int32_t cut = 0; cut < cuts; ++cut) {
      WeightBlock::Segment segment{.first = linear.tiles * cut / cuts,
                                   .tiles = linear.tiles * (cut + 1) / cuts - linear.tiles * cut / cuts,
                                   .runs = {}};
      // Experts lie one stride apart, the same in all pieces: one register serves them.
      segment.runs =
          memory_.take(copies > 1 ? height * copies : segment.tiles * block.cycles, path_.stored_slices, cuts > 1);
      if (segment.runs.empty()) {
        throw DoesNotFit("found no SRAM for " + name + " of layer slot " + std::to_string(layer_slot) +
                             " of a stage; expected slices with as much left",
                         0);
      }
      block.segments.push_back(std::move(segment));
    }
    if (out.has_experts) {
      block.registers.clear();
      for (std::int32_t slot = 0; slot < expert_slots_; ++slot) {
        block.registers.push_back(builder_.base_register({.kind = node::RegisterKind::kExpert,
                                                          .stride = height,
                                                          .row_stride = rows,
                                                          .expert_slot = slot,
                                                          .experts = copies,
                                                          .layer_slot = layer_slot,
                                                          .append = {},
                                                          .table = {}}));
      }
    }
    for (const std::uint16_t base : block.registers) {
      for (const Hemisphere hemisphere : kHemispheres) {
        for (const WeightBlock::Segment& segment : block.segments) {
          for (const Run& run : segment.runs) {
            node::Allocation made;
            made.tensor = out.stored;
            made.hemisphere = hemisphere;
            made.base_register = base;
            made.row = block.first_row +
                       (2 * segment.first + static_cast<std::int32_t>(hemisphere)) * block.cycles * streams +
                       run.first * row_step;
            made.slice = run.slice;
            made.address = run.address;
            made.count[0] = segment.tiles;
            made.row_stride[0] = 2 * block.cycles * streams;
            made.address_stride[0] = block.cycles;
            made.count[1] = block.cycles;
            made.row_stride[1] = streams;
            made.address_stride[1] = 1;
            made.count[2] = run.slices;
            made.row_stride[2] = row_step;
            made.slice_stride[2] = 1;
            builder_.allocation(made);
          }
        }
      }
    }
  }
  return out;
}

std::int64_t Lowering::round_cycles(std::int32_t install_cycles, std::int32_t vectors, bool hides) const {
  if (hides) {
    return std::max<std::int64_t>(install_cycles + (load_ == Load::kLoaded ? 1 : 0),
                                  std::int64_t{vectors} * path_.compute_cycles);
  }
  return install_cycles + std::int64_t{vectors} * path_.compute_cycles;
}

std::vector<Lowering::PlaneRows> Lowering::plane_rows() const {
  const std::int32_t planes = builder_.chip().mxm_planes_per_hemisphere;
  if (path_.widens) {
    return {{0, 1, path_.stored_slices, 0}, {1, 1, path_.stored_slices, 0}};
  }
  return {{0, planes, path_.stored_slices / planes, path_.stored_slices / planes}};
}

std::vector<Draft> Lowering::weight_drafts(const Matrix& matrix,
                                           const WeightBlock& block,
                                           std::uint16_t base,
                                           std::int32_t first_tile,
                                           std::int32_t tiles,
                                           std::int64_t round) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t streams = path_.stored_slices;
  const std::int32_t tile_rows = 2 * block.cycles * streams;
  const Repeat rounds{tiles, static_cast<std::int32_t>(round)};
  const Repeat columns{block.cycles, 1};
  const std::int64_t widen_lead = this->widen_lead();
  std::vector<Draft> out;
  for (const Hemisphere hemisphere : kHemispheres) {
    const std::int32_t row =
        block.first_row + first_tile * tile_rows + static_cast<std::int32_t>(hemisphere) * block.cycles * streams;
    for (const WeightBlock::Segment& segment : block.segments) {
      const std::int32_t from = std::max(segment.first, first_tile);
      const std::int32_t to = std::min(segment.first + segment.tiles, first_tile + tiles);
      if (from >= to) {
        continue;
      }
      for (const Run& run : segment.runs) {
        const std::int32_t position = chip.slice_position(run.slice);
        const std::int64_t lead = path_.widens ? -widen_lead - position : position - chip.mxm_position;
        Draft read = unit(Opcode::kRead,
                          lead + (from - first_tile) * round,
                          hemisphere,
                          run.slice,
                          0,
                          {to - from, rounds.period},
                          columns);
        read.instruction.count[2] = static_cast<std::uint16_t>(run.slices);
        read.instruction.index_stride[2] = 1;
        read.instruction.address = static_cast<std::uint16_t>(run.address + (from - segment.first) * block.cycles);
        read.instruction.address_stride[0] = static_cast<std::int16_t>(block.cycles);
        read.instruction.address_stride[1] = 1;
        read.instruction.base_register = base;
        const Lane lane{.hemisphere = hemisphere,
                        .direction = path_.widens ? Direction::kInward : Direction::kOutward,
                        .offset = run.first,
                        .stream_stride = 1};
        auto value =
            operand(OperandKind::kOut,
                    lane,
                    {matrix.stored, row + (from - first_tile) * tile_rows + run.first, {tile_rows, streams, 1}},
                    path_.widens ? chip.vxm_position : chip.mxm_position);
        value.is_registered = base != 0;
        add(read, value, -1);
        out.push_back(std::move(read));
      }
    }
    if (path_.widens) {
      const auto at = static_cast<std::int32_t>(hemisphere);
      Draft widen =
          unit(Opcode::kWiden, -widen_lead, hemisphere, at * path_.stored_slices, path_.stored_slices, rounds, columns);
      widen.instruction.base_register = base;
      auto in = operand(OperandKind::kIn,
                        {.hemisphere = hemisphere, .direction = Direction::kInward, .streams = streams},
                        {matrix.stored, row, {tile_rows, streams, 0}},
                        0);
      in.is_registered = base != 0;
      add(widen, in, -1);
      for (std::int32_t plane = 0; plane < 2; ++plane) {
        auto made = operand(OperandKind::kOut,
                            {.hemisphere = hemisphere, .streams = streams, .offset = plane * streams},
                            {matrix.installed[static_cast<std::size_t>(plane)], row, {tile_rows, streams, 0}},
                            chip.mxm_position);
        made.is_registered = base != 0;
        add(widen, made, -1);
      }
      out.push_back(std::move(widen));
    }
    for (const PlaneRows& planes : plane_rows()) {
      Draft install = unit(Opcode::kInstall, 0, hemisphere, planes.plane, 0, rounds, columns);
      install.instruction.count[2] = static_cast<std::uint16_t>(planes.planes);
      install.instruction.index_stride[2] = planes.planes > 1 ? 1 : 0;
      install.instruction.base_register = base;
      const TensorId tensor_id = matrix.installed[static_cast<std::size_t>(planes.plane)];
      auto in = operand(OperandKind::kIn,
                        {.hemisphere = hemisphere,
                         .streams = planes.streams,
                         .offset = planes.plane * planes.streams,
                         .stream_stride = planes.planes > 1 ? planes.streams : 0},
                        {tensor_id, row, {tile_rows, streams, planes.row_step}},
                        0);
      auto tile = operand(
          OperandKind::kResident, {.hemisphere = hemisphere}, {tensor_id, row, {tile_rows, 0, planes.row_step}}, 0);
      in.is_registered = tile.is_registered = base != 0;
      add(install, in, -1);
      add(install, tile, -1);
      out.push_back(std::move(install));
    }
  }
  return out;
}

bool Lowering::meets(
    const Busy& busy, std::int32_t first, std::int32_t count, std::int64_t from, std::int64_t to) const {
  if (busy.first >= first + count || first >= busy.first + busy.count) {
    return false;
  }
  const std::int64_t period = builder_.period();
  if (period == 0) {
    return busy.from <= to && from <= busy.to;
  }
  const std::int64_t ahead = ((busy.from - from) % period + period) % period;  // busy starts so long after `from`
  return ahead <= to - from || period - ahead <= busy.to - busy.from || to - from >= period;
}

void Lowering::wait_for_accumulators(Template& shape, std::int32_t count, std::int64_t first_compute) {
  if (builder_.period() > 0) {
    return;
  }
  // Sums that are still to be drained hold theirs for ever.
  std::int64_t soonest = kForever;
  PlacementId cause = -1;
  for (std::int32_t first = 0; first + count <= builder_.chip().mxm_accumulators_per_plane; first += count) {
    std::int64_t free_from = 0;
    PlacementId last = -1;
    for (const Busy& busy : accumulators_) {
      if (busy.first < first + count && first < busy.first + busy.count) {
        const std::int64_t until = busy.is_open ? kForever : busy.to + 1;
        last = until > free_from ? busy.released_by : last;
        free_from = std::max(free_from, until);
      }
    }
    if (free_from < soonest) {
      soonest = free_from;
      cause = last;
    }
  }
  LPU_CHECK(soonest < kForever, "accumulators of sums that nobody drains");
  if (soonest - first_compute > builder_.ready_time(shape)) {
    shape.not_before = soonest - first_compute;
    shape.after = cause;
  }
}

std::size_t Lowering::take_accumulators(std::int32_t count, std::int64_t from, std::int64_t to) {
  // Round and round, so that a sum which stays longer than thought disturbs nobody soon.
  const bool is_alone = builder_.period() == 0;
  const std::int32_t regions = builder_.chip().mxm_accumulators_per_plane / count;
  for (std::int32_t i = 0; i < regions; ++i) {
    const std::int32_t first = (next_accumulator_ / count + i) % regions * count;
    const bool is_free = std::none_of(accumulators_.begin(), accumulators_.end(), [&](const Busy& busy) {
      const bool is_there = busy.first < first + count && first < busy.first + busy.count;
      return is_alone ? is_there && (busy.is_open || busy.to >= from) : meets(busy, first, count, from, to);
    });
    if (is_free) {
      accumulators_.push_back({first, count, from, to});
      next_accumulator_ = first + count;
      return accumulators_.size() - 1;
    }
  }
  throw NoSchedule("accumulators");
}

void Lowering::hold_until(std::size_t holding, std::int64_t to) {
  Busy& own = accumulators_[holding];
  if (own.to >= to) {
    return;
  }
  own.to = to;
  if (builder_.period() == 0) {
    return;
  }
  const auto met = std::count_if(accumulators_.begin(), accumulators_.end(), [&](const Busy& busy) {
    return meets(busy, own.first, own.count, own.from, own.to);
  });
  if (met > 1 || own.to - own.from >= builder_.period()) {
    throw NoSchedule("sums wait too long in the accumulators");
  }
}

void Lowering::release(const Sums& sum) {
  const std::vector<node::Instruction>& placed = builder_.instructions();
  const Busy& own = accumulators_[sum.holding];
  std::int64_t last = sum.drain_from;
  for (std::size_t i = sum.first_instruction; i < placed.size(); ++i) {
    if (placed[i].opcode == Opcode::kDrain && placed[i].operands[0].tensor == sum.tensor &&
        placed[i].address >= own.first && placed[i].address < own.first + own.count) {
      last = std::max<std::int64_t>(last, placed[i].start + std::int64_t{placed[i].count[1] - 1} * placed[i].period[1]);
    }
  }
  hold_until(sum.holding, last);
  Busy& released = accumulators_[sum.holding];
  released.to = last;
  if (builder_.period() > 0 && last - released.from >= builder_.period()) {
    throw NoSchedule("a sum is still in its accumulators when the next iteration's begins");
  }
  released.is_open = false;
  released.released_by = static_cast<PlacementId>(builder_.placements().size()) - 1;
}

std::size_t Lowering::hold_accumulators(std::size_t first_instruction,
                                        const Sums* before,
                                        std::int32_t count,
                                        std::int64_t start,
                                        std::int64_t drain_from) {
  const std::int64_t until = drain_from + drain_slack();
  const std::size_t holding = before == nullptr ? take_accumulators(count, start, until) : before->holding;
  hold_until(holding, until);
  std::vector<node::Instruction>& placed = builder_.instructions();
  for (std::size_t i = first_instruction; i < placed.size(); ++i) {
    if (placed[i].opcode == Opcode::kCompute) {
      placed[i].address = static_cast<std::uint16_t>(placed[i].address + accumulators_[holding].first);
    }
  }
  return holding;
}

void Lowering::reserve_windows() {
  for (std::size_t i = 0; i < plan_.shapes.size(); ++i) {
    auto reserved = builder_.reserve(*plan_.shapes[i], plan_.phases[i]);
    if (!reserved) {
      throw NoSchedule("window " + std::to_string(i) +
                       " meets another: " + builder_.why_refused(*plan_.shapes[i], plan_.phases[i]));
    }
    reserved_.push_back(std::move(*reserved));
  }
}

std::int64_t Lowering::planned_start(std::int64_t ready) const {
  LPU_CHECK(planned_ < plan_.phases.size(), "more windows than phases");
  const std::int64_t period = builder_.period();
  return ready + ((plan_.phases[planned_] - ready) % period + period) % period;
}

std::int32_t Lowering::anchor_of(PlacementId cause) const {
  while (cause >= 0) {
    if (const auto window = window_at_.find(cause); window != window_at_.end()) {
      return window->second;
    }
    cause = builder_.placement(cause).cause;
  }
  return -1;
}

PlacementId Lowering::place_window(const Template& shape, std::int64_t length) {
  PlacementId cause = -1;
  const std::int64_t ready = builder_.ready_time(shape, &cause);
  PlacementId id = -1;
  if (!plan_.phases.empty() && length >= plan_.shortest) {
    id = builder_.place_reserved(shape, planned_start(ready), length, reserved_[planned_]);
    ++planned_;
  } else {
    id = builder_.place(shape);
  }
  // Where the window before it still held the ports, that is what it waited for.
  if (plan_.phases.empty() && last_window_ >= 0 && builder_.placement(id).start > ready &&
      windows_.back().start + windows_.back().length > ready) {
    builder_.set_cause(id, last_window_);
  }
  last_window_ = id;
  window_at_[id] = static_cast<std::int32_t>(windows_.size());
  windows_.push_back({.start = builder_.placement(id).start,
                      .length = length,
                      .ready = ready,
                      .anchor = anchor_of(cause),
                      .shape = shape});
  return id;
}

Sums Lowering::multiply(const Matrix& matrix,
                        std::size_t block_index,
                        std::int32_t expert_slot,
                        const Activation& activation,
                        TensorId sums,
                        std::int32_t row,
                        std::int32_t first_tile,
                        std::int32_t tiles,
                        const Sums* before) {
  const node::ChipSpec& chip = builder_.chip();
  const WeightBlock& block = matrix.blocks[block_index];
  const std::uint16_t base = block.registers[static_cast<std::size_t>(expert_slot)];
  const std::int64_t round = round_cycles(block.cycles, batch_, path_.hides_activations);
  const std::int32_t streams = path_.stored_slices;
  const std::int32_t tile_rows = 2 * block.cycles * streams;
  const std::int32_t width = path_.activation_streams;

  Template shape;
  shape.part = OperatorPart::kInstall;
  if (matrix.has_experts && request_.experts == ExpertMode::kIndirect) {
    // The routing loads the base registers of the expert slots.
    shape.not_before =
        builder_.ready(
            routing_->part[1], own_slot() * batch_ * path_.wire_bytes, batch_ * path_.wire_bytes, &shape.after) +
        chip.mxm_position + widen_lead();
  }
  const auto wait_for = [&](std::int64_t cycle, PlacementId cause) {
    if (cycle > shape.not_before) {
      shape.not_before = cycle;
      shape.after = cause;
    }
  };
  if (load_ == Load::kLoaded && block_index > 0) {
    // Outputs are joined in block order.
    wait_for(windows_.back().start + windows_.back().length, last_window_);
  }
  if (before != nullptr) {
    // The rest of a sum comes after what it adds to.
    wait_for(before->drain_from - chip.mxm_latency.count(), before->placement);
  }
  shape.drafts = weight_drafts(matrix, block, base, first_tile, tiles, round);
  const std::int32_t first_free_stream = path_.hides_activations ? path_.install_streams : 0;
  for (std::int32_t half = 0; half < 2; ++half) {
    const auto h = static_cast<std::size_t>(half);
    const std::int32_t half_begin = half == 0 ? 0 : activation.tiles[0];
    const std::int32_t begin = std::max(first_tile, half_begin);
    const std::int32_t end = std::min(first_tile + tiles, half_begin + activation.tiles[h]);
    if (begin >= end) {
      continue;
    }
    const std::int64_t at = block.cycles + (begin - first_tile) * round;
    const Repeat rounds{end - begin, static_cast<std::int32_t>(round)};
    const Repeat tokens{batch_, path_.compute_cycles};
    const std::int32_t row_of_tile = (begin - half_begin) * width;
    for (const Hemisphere hemisphere : kHemispheres) {
      const auto side = static_cast<std::size_t>(hemisphere);
      const VariableId vector = shape.value(width, first_free_stream);
      const Lane lane{.hemisphere = hemisphere, .variable = vector, .streams = width};
      shape.drafts.push_back(read_rows(builder_,
                                       activation.buffer[side][h],
                                       row_of_tile,
                                       at,
                                       chip.mxm_position,
                                       lane,
                                       rounds,
                                       width,
                                       tokens,
                                       activation.tiles[h] * width));
      for (const PlaneRows& planes : plane_rows()) {
        Draft compute = unit(Opcode::kCompute, at, hemisphere, planes.plane, 0, rounds, tokens);
        compute.instruction.count[2] = static_cast<std::uint16_t>(planes.planes);
        compute.instruction.index_stride[2] = planes.planes > 1 ? 1 : 0;
        compute.instruction.address_stride[1] = 1;
        compute.instruction.base_register = base;
        compute.instruction.mode = before == nullptr && begin == first_tile
                                       ? static_cast<std::uint8_t>(node::kComputeOverwrites | 1U)
                                       : std::uint8_t{0};
        add(compute,
            operand(OperandKind::kIn,
                    lane,
                    {activation.tensor[h], row_of_tile, {width, activation.tiles[h] * width, 0}},
                    0),
            vector);
        auto tile = operand(
            OperandKind::kResident,
            {.hemisphere = hemisphere},
            {matrix.installed[static_cast<std::size_t>(planes.plane)],
             block.first_row + begin * tile_rows + static_cast<std::int32_t>(hemisphere) * block.cycles * streams,
             {tile_rows, 0, planes.row_step}},
            0);
        tile.is_registered = base != 0;
        add(compute, tile, -1);
        shape.drafts.push_back(std::move(compute));
      }
    }
  }
  const std::int64_t last = block.cycles + (tiles - 1) * round + std::int64_t{batch_ - 1} * path_.compute_cycles;
  shape.activation_slots = path_.hides_activations ? 0 : std::int64_t{tiles} * batch_ * path_.compute_cycles;
  const std::int64_t busy = tiles * round;
  const std::int64_t drain_after = last + chip.mxm_latency.count();
  const std::size_t first_instruction = builder_.instructions().size();
  if (before == nullptr) {
    wait_for_accumulators(shape, batch_, block.cycles);
  }
  const PlacementId id = place_window(shape, busy);
  const std::int64_t start = builder_.placement(id).start;
  const std::size_t holding =
      hold_accumulators(first_instruction, before, batch_, start + block.cycles, start + drain_after);
  builder_.end_window(id, start + drain_after, std::int64_t{tiles} * block.cycles);
  return {.tensor = sums,
          .first_row = row,
          .accumulator = accumulators_[holding].first,
          .holding = holding,
          .computes = first_tile + tiles,
          .columns = columns_per_place(block.columns, path_),
          .drain_from = start + drain_after,
          .placement = id,
          .first_instruction = builder_.instructions().size()};
}

Product Lowering::multiply_by_block(const Matrix& matrix,
                                    std::int32_t layer_slot,
                                    const Activation& activation,
                                    std::int32_t expert_slot) {
  std::vector<TensorId> sources{matrix.installed[0]};
  if (matrix.installed[1] != matrix.installed[0]) {
    sources.push_back(matrix.installed[1]);
  }
  for (std::size_t half = 0; half < 2; ++half) {
    if (activation.tiles[half] > 0) {
      sources.push_back(activation.tensor[half]);
    }
  }
  const auto blocks = static_cast<std::int32_t>(matrix.blocks.size());
  const std::string suffix = matrix.has_experts ? ".slot" + std::to_string(expert_slot) : "";
  const TensorId sums =
      tensor(matrix.name + suffix + ".sums", layer_slot, blocks * batch_ * kPlaces * kSumStreams, sources);
  return {.matrix = &matrix,
          .layer_slot = layer_slot,
          .activation = &activation,
          .expert_slot = expert_slot,
          .sums = sums,
          .blocks = {}};
}

const Sums& Lowering::sums_of(Product& product, std::size_t block) {
  const Matrix& matrix = *product.matrix;
  const std::size_t ahead = static_cast<std::size_t>(std::max(1, builder_.chip().mxm_accumulators_per_plane / batch_));
  while (product.blocks.size() < std::min(matrix.blocks.size(), block + ahead)) {
    const std::size_t b = product.blocks.size();
    const std::int32_t row = static_cast<std::int32_t>(b) * batch_ * kPlaces * kSumStreams;
    const std::vector<std::int32_t> cuts = window_cuts(matrix.linear.tiles, matrix.blocks[b].cycles);
    Sums sum;
    for (std::size_t cut = 0; cut + 1 < cuts.size(); ++cut) {
      sum = multiply(matrix,
                     b,
                     product.expert_slot,
                     *product.activation,
                     product.sums,
                     row,
                     cuts[cut],
                     cuts[cut + 1] - cuts[cut],
                     cut == 0 ? nullptr : &sum);
    }
    product.blocks.push_back(sum);
  }
  return product.blocks[block];
}

std::vector<std::int32_t> Lowering::window_cuts(std::int32_t tiles, std::int32_t cycles) const {
  // A window longer than about 600 cycles finds no place in a crowded interval: cut it, the accumulators keep the sum.
  std::vector<std::int32_t> cuts{0};
  if (load_ == Load::kLoaded) {
    const auto length = static_cast<std::int32_t>(tiles * round_cycles(cycles, batch_, path_.hides_activations));
    const std::int32_t parts = std::max(1, (length + kLongestWindow / 2) / kLongestWindow);
    for (std::int32_t part = 1; part < parts; ++part) {
      cuts.push_back(tiles * part / parts);
    }
  }
  cuts.push_back(tiles);
  return cuts;
}

void Lowering::emit_part(Template& shape,
                         std::int64_t at,
                         const std::vector<std::pair<Lane, Rows>>& inputs,
                         Opcode opcode,
                         const PartPlan& plan,
                         std::int32_t part_index,
                         std::int32_t token,
                         Gathered& out) {
  const node::ChipSpec& chip = builder_.chip();
  const std::int32_t width = path_.wire_bytes;
  const std::int64_t lanes = plan.lanes[static_cast<std::size_t>(part_index)];
  std::int64_t before = 0;
  for (std::int32_t i = 0; i < part_index; ++i) {
    before += plan.lanes[static_cast<std::size_t>(i)];
  }
  const bool is_last = part_index + 1 == static_cast<std::int32_t>(plan.lanes.size());
  const std::int64_t vector = chip.vector_bytes;
  std::int32_t group = static_cast<std::int32_t>(before / vector);
  std::int32_t completed = static_cast<std::int32_t>((before + lanes) / vector) - group;
  if (is_last) {
    completed = out.packing.groups - group;
  }
  const std::int32_t part_row = (token * static_cast<std::int32_t>(plan.lanes.size()) + part_index) * width;
  const std::int32_t own_row = (own_slot() * batch_ + token) * rows_per_token(out.packing);

  Draft compute = unit(opcode, at, Hemisphere::kWest, 12, 4);
  for (const auto& [lane, rows] : inputs) {
    add(compute, operand(OperandKind::kIn, lane, rows, 0), lane.variable);
  }
  const std::int64_t ready = at + node::latency(opcode, chip).count();
  std::vector<Draft> after;
  for (const Hemisphere hemisphere : kHemispheres) {
    const BufferId buffer = hemisphere == Hemisphere::kWest ? out.own_west : out.part[1];
    if (buffer < 0) {
      continue;
    }
    const VariableId made = shape.value(width);
    const Lane outward{.hemisphere = hemisphere, .variable = made, .streams = width};
    if (!plan.packs) {
      const std::int32_t row = own_row + group * width;
      add(compute, operand(OperandKind::kOut, outward, {out.tensor, row}, position_of(builder_, buffer)), made);
      after.push_back(write_rows(builder_, buffer, row, ready, chip.vxm_position, outward));
      continue;
    }
    add(compute, operand(OperandKind::kOut, outward, {plan.part, part_row}, chip.sxm_position), made);
    const std::int64_t at_sxm = ready + chip.sxm_position - chip.vxm_position;
    for (std::int32_t i = 0; i < std::max(completed, 1); ++i) {
      Draft packing = unit(Opcode::kPack, at_sxm + i, hemisphere, 0, 0);
      if (i == 0) {
        add(packing, operand(OperandKind::kIn, outward, {plan.part, part_row}, 0), made);
      }
      if (i < completed) {
        const VariableId packed = shape.value(width);
        const Lane inward{
            .hemisphere = hemisphere, .direction = Direction::kInward, .variable = packed, .streams = width};
        const std::int32_t row = own_row + (group + i) * width;
        add(packing, operand(OperandKind::kOut, inward, {out.tensor, row}, position_of(builder_, buffer)), packed);
        after.push_back(
            write_rows(builder_, buffer, row, at_sxm + i + chip.sxm_latency.count(), chip.sxm_position, inward));
      }
      after.push_back(std::move(packing));
    }
  }
  shape.drafts.push_back(std::move(compute));
  std::move(after.begin(), after.end(), std::back_inserter(shape.drafts));
}

PartPlan Lowering::plan_parts(const std::string& name,
                              std::int32_t layer_slot,
                              std::vector<std::int64_t> lanes,
                              std::vector<TensorId> sources,
                              const Packing& packing) {
  PartPlan plan{.lanes = std::move(lanes)};
  for (std::size_t i = 0; i + 1 < plan.lanes.size(); ++i) {
    plan.packs = plan.packs || plan.lanes[i] != builder_.chip().vector_bytes;
  }
  LPU_CHECK(plan.packs || static_cast<std::int32_t>(plan.lanes.size()) == packing.groups, name);
  if (plan.packs) {
    plan.part = tensor(name + ".part",
                       layer_slot,
                       static_cast<std::int32_t>(plan.lanes.size()) * batch_ * path_.wire_bytes,
                       std::move(sources));
  }
  return plan;
}

std::vector<Lowering::Place> Lowering::places(bool pairs_columns) const {
  if (!path_.pairs_planes && !pairs_columns) {
    return {{{Hemisphere::kWest, 0, 1}},
            {{Hemisphere::kWest, 1, 1}},
            {{Hemisphere::kEast, 0, 1}},
            {{Hemisphere::kEast, 1, 1}}};
  }
  if (path_.pairs_planes && pairs_columns) {
    return {{{Hemisphere::kWest, 0, 2}, {Hemisphere::kEast, 0, 2}}};
  }
  return {{{Hemisphere::kWest, 0, 2}}, {{Hemisphere::kEast, 0, 2}}};
}

std::vector<std::pair<Lane, Rows>> Lowering::drain(Template& shape,
                                                   const Sums& sum,
                                                   const Place& place,
                                                   std::int32_t token) {
  const node::ChipSpec& chip = builder_.chip();
  std::vector<std::pair<Lane, Rows>> out;
  for (const PlaceSide& side : place) {
    const std::int32_t streams = kSumStreams * side.planes;
    const VariableId value = shape.value(streams);
    const Lane lane{
        .hemisphere = side.hemisphere, .direction = Direction::kInward, .variable = value, .streams = streams};
    const std::int32_t row =
        sum.first_row + (token * kPlaces + static_cast<std::int32_t>(side.hemisphere) * 2 + side.plane) * kSumStreams;
    Draft draft = unit(Opcode::kDrain, 0, side.hemisphere, side.plane, 0);
    draft.instruction.count[2] = static_cast<std::uint16_t>(side.planes);
    draft.instruction.index_stride[2] = 1;
    draft.instruction.address = static_cast<std::uint16_t>(sum.accumulator + token);
    draft.instruction.argument = sum.computes;
    Lane each = lane;
    each.streams = kSumStreams;
    each.stream_stride = side.planes > 1 ? kSumStreams : 0;
    add(draft,
        operand(
            OperandKind::kOut, each, {sum.tensor, row, {0, 0, side.planes > 1 ? kSumStreams : 0}}, chip.vxm_position),
        value);
    shape.drafts.push_back(std::move(draft));
    out.emplace_back(lane, Rows{sum.tensor, row});
  }
  return out;
}

void Lowering::discard(const Sums& sum, const Place& place, OperatorPart part) {
  // A plane that no column reached summed zeros; its accumulator must be freed all the same.
  for (std::int32_t token = 0; token < batch_; ++token) {
    Template shape;
    shape.part = part;
    shape.not_before = sum.drain_from;
    shape.after = sum.placement;
    drain(shape, sum, place, token);
    for (Draft& draft : shape.drafts) {
      draft.instruction.operands[0].reach = static_cast<std::uint8_t>(builder_.chip().mxm_position);
    }
    hold_until(sum.holding, builder_.placement(builder_.place(shape)).start);
  }
}

void Lowering::project(const std::string& name,
                       std::int32_t layer_slot,
                       Product product,
                       Opcode opcode,
                       bool pairs_columns,
                       Gathered& out,
                       OperatorPart part) {
  const node::ChipSpec& chip = builder_.chip();
  const std::vector<Place> all_places = places(pairs_columns);
  std::vector<std::int64_t> lanes;
  std::vector<std::pair<std::size_t, std::size_t>> order;
  std::int64_t left = out.packing.elements;
  for (std::size_t b = 0; b < product.matrix->blocks.size(); ++b) {
    for (std::size_t p = 0; p < all_places.size(); ++p) {
      order.emplace_back(b, p);
      if (left > 0) {
        lanes.push_back(std::min<std::int64_t>(left, columns_per_place(product.matrix->blocks[b].columns, path_)));
        left -= lanes.back();
      }
    }
  }
  LPU_CHECK(left == 0, name + ": lanes");
  const PartPlan plan = plan_parts(name, layer_slot, lanes, {product.sums}, out.packing);
  builder_.add_source(out.tensor, plan.packs ? plan.part : product.sums);
  std::vector<std::int64_t> last(static_cast<std::size_t>(batch_), 0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto [block, place] = order[i];
    const Sums sum = sums_of(product, block);
    for (std::int32_t token = 0; token < batch_ && i < lanes.size(); ++token) {
      Template shape;
      shape.part = part;
      shape.not_before = sum.drain_from;
      shape.after = sum.placement;
      const auto inputs = drain(shape, sum, all_places[place], token);
      emit_part(
          shape, chip.mxm_position - chip.vxm_position, inputs, opcode, plan, static_cast<std::int32_t>(i), token, out);
      // The SXM joins parts in order.
      const PlacementId id = builder_.place(shape, plan.packs ? last[static_cast<std::size_t>(token)] + 2 : 0);
      last[static_cast<std::size_t>(token)] = builder_.placement(id).start;
      hold_until(sum.holding, builder_.placement(id).start);
    }
    if (i >= lanes.size()) {
      discard(sum, all_places[place], part);
    }
    if (place + 1 == all_places.size()) {
      release(sum);
    }
  }
}

}  // namespace lpu::scheduler
