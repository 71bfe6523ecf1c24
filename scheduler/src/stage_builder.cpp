#include "stage_builder.hpp"

#include <algorithm>
#include <tuple>

#include "lpu/node/error.hpp"
#include "lpu/node/quantity.hpp"
#include "lpu/scheduler/compile.hpp"

namespace lpu::scheduler {

using node::Hemisphere;
using node::Instruction;
using node::Opcode;
using node::OperandKind;
using node::StreamOperand;
using node::Unit;

namespace {
constexpr std::int64_t kRefusalsCounted = 256;
constexpr std::int32_t kEarlyTrials = 64;  // starts of a window tried before its planned one
constexpr std::int64_t kHorizon = 60'000;  // starts tried in an empty machine: more than the longest window is a bug
}  // namespace

StageBuilder::StageBuilder(const node::ChipSpec& chip,
                           std::int64_t period,
                           std::int32_t scratch_slices,
                           std::int64_t link_grid)
    : chip_(chip),
      period_(period),
      scratch_slices_(scratch_slices),
      table_(chip, period),
      links_(chip, period, link_grid) {
  program_.registers.emplace_back();
}

TensorId StageBuilder::tensor(node::Tensor tensor) {
  LPU_CHECK(program_.tensors.size() < 65535, tensor.name);
  program_.tensors.push_back(std::move(tensor));
  return static_cast<TensorId>(program_.tensors.size() - 1);
}

std::uint16_t StageBuilder::base_register(node::BaseRegister base) {
  program_.registers.push_back(std::move(base));
  return static_cast<std::uint16_t>(program_.registers.size() - 1);
}

std::uint16_t StageBuilder::transfer(std::string name, std::int32_t layer_slot, std::int32_t vectors) {
  program_.transfers.push_back({std::move(name), layer_slot, vectors});
  return static_cast<std::uint16_t>(program_.transfers.size() - 1);
}

BufferId StageBuilder::buffer(TensorId tensor,
                              Hemisphere hemisphere,
                              std::int32_t slice,
                              std::int32_t width,
                              std::int32_t rows,
                              std::int32_t first_row) {
  Buffer made;
  made.tensor = tensor;
  made.hemisphere = hemisphere;
  made.width = width;
  made.slice = slice % scratch_slices_ / width * width;
  made.rows = rows;
  made.first_row = first_row;
  made.ready.assign(static_cast<std::size_t>(rows), kUnset);
  made.writer.assign(static_cast<std::size_t>(rows), -1);
  buffers_.push_back(std::move(made));
  static_copies_.push_back(1);
  return static_cast<BufferId>(buffers_.size()) - 1;
}

BufferId StageBuilder::static_buffer(TensorId tensor,
                                     Hemisphere hemisphere,
                                     std::int32_t slice,
                                     std::int32_t width,
                                     std::int32_t rows,
                                     std::uint16_t base_register,
                                     std::int32_t copies,
                                     std::int32_t first_row) {
  const BufferId id = buffer(tensor, hemisphere, slice, width, rows, first_row);
  Buffer& made = at(id);
  made.is_static = true;
  made.base_register = base_register;
  std::fill(made.ready.begin(), made.ready.end(), std::int64_t{-1'000'000'000});
  static_copies_.back() = copies;
  return id;
}

void StageBuilder::keep_until(BufferId id, std::int64_t cycle) {
  at(id).last_read = std::max(at(id).last_read, cycle);
}

template <typename Visit>
void StageBuilder::for_each_row(const Draft& draft, std::int64_t start, Visit&& visit) const {
  const Instruction& in = draft.instruction;
  const StreamOperand& operand = in.operands[0];
  const Buffer& buffer = buffers_[static_cast<std::size_t>(draft.buffer)];
  for (std::int32_t a = 0; a < in.count[0]; ++a) {
    for (std::int32_t b = 0; b < in.count[1]; ++b) {
      for (std::int32_t c = 0; c < in.count[2]; ++c) {
        // Scratch slices of one buffer stand at one position, so that instances need no shift along the diagonal.
        const std::int64_t cycle = start + in.start + std::int64_t{a} * in.period[0] + std::int64_t{b} * in.period[1] +
                                   std::int64_t{c} * in.period[2];
        const std::int32_t row = operand.row + a * operand.row_stride[0] + b * operand.row_stride[1] +
                                 c * operand.row_stride[2] - buffer.first_row;
        LPU_CHECK(row >= 0 && row < buffer.rows, program_.tensors[buffer.tensor].name + " row " + std::to_string(row));
        visit(Row{draft.buffer, row, cycle});
      }
    }
  }
}

std::int64_t StageBuilder::ready_time(const Template& shape, PlacementId* cause) const {
  std::int64_t earliest = shape.not_before;
  PlacementId why = shape.after;
  // Rows that the template itself writes before it reads them.
  std::map<std::pair<BufferId, std::int32_t>, std::int64_t> own;
  for (const Draft& draft : shape.drafts) {
    if (draft.buffer >= 0 && draft.instruction.opcode == Opcode::kWrite && shape.reads_own_rows) {
      for_each_row(draft, 0, [&](const Row& row) { own[{row.buffer, row.row}] = row.cycle; });
    }
  }
  for (const Draft& draft : shape.drafts) {
    if (draft.buffer < 0 || draft.instruction.opcode != Opcode::kRead) {
      continue;
    }
    for_each_row(draft, 0, [&](const Row& row) {
      const Buffer& buffer = buffers_[static_cast<std::size_t>(row.buffer)];
      const std::int64_t ready = buffer.ready[static_cast<std::size_t>(row.row)];
      if (const auto made = own.find({row.buffer, row.row}); made != own.end() && ready == kUnset) {
        LPU_CHECK(row.cycle > made->second + chip_.instruction_propagation.count(),
                  program_.tensors[buffer.tensor].name + " read too soon in its own template");
        return;
      }
      LPU_CHECK(ready != kUnset,
                program_.tensors[buffer.tensor].name + " row " + std::to_string(row.row) + " read before it is made");
      if (ready - row.cycle > earliest) {
        earliest = ready - row.cycle;
        why = buffer.writer[static_cast<std::size_t>(row.row)];
      }
    });
  }
  if (cause != nullptr) {
    *cause = why;
  }
  return earliest;
}

std::int64_t StageBuilder::ready(BufferId id, std::int32_t row, std::int32_t rows, PlacementId* cause) const {
  const Buffer& buffer = buffers_[static_cast<std::size_t>(id)];
  const auto first = buffer.ready.begin() + (row - buffer.first_row);
  const auto latest = std::max_element(first, first + rows);
  LPU_CHECK(*latest != kUnset, program_.tensors[buffer.tensor].name);
  *cause = buffer.writer[static_cast<std::size_t>(latest - buffer.ready.begin())];
  return *latest;
}

bool StageBuilder::try_at(const Template& shape, std::int64_t start, std::vector<std::int32_t>& streams) {
  const std::size_t before = table_.mark();
  // Big reads last: a window's are thousands of cells, and what refuses it is mostly an ALU, a plane or a stream.
  enum class Claim : std::uint8_t { kUnit, kFixedStreams, kBigRead };
  const auto claim_of = [](const Draft& draft) {
    constexpr std::int32_t kBig = 256;
    return node::info(draft.instruction.opcode).unit == Unit::kMem && instances(draft.instruction) > kBig
               ? Claim::kBigRead
               : Claim::kUnit;
  };
  for (const Claim claim : {Claim::kUnit, Claim::kFixedStreams, Claim::kBigRead}) {
    for (const Draft& draft : shape.drafts) {
      bool is_free = true;
      if (claim == Claim::kFixedStreams) {
        for (std::size_t at = 0; is_free && at < draft.variable.size(); ++at) {
          const StreamOperand& operand = draft.instruction.operands[at];
          is_free = operand.kind != OperandKind::kOut || draft.variable[at] >= 0 ||
                    table_.try_stream(draft.instruction, start, operand);
        }
      } else if (claim_of(draft) == claim) {
        is_free = table_.try_units(draft.instruction, start, draft.reach);
      }
      if (!is_free) {
        table_.roll_back(before);
        return false;
      }
    }
  }
  for (std::size_t variable = 0; variable < shape.variables.size(); ++variable) {
    const StreamVariable& value = shape.variables[variable];
    bool is_found = false;
    for (std::int32_t stream = value.first_choice; !is_found && stream + value.streams - 1 <= value.last_choice;
         ++stream) {
      const std::size_t trial = table_.mark();
      bool is_free = true;
      for (const Draft& draft : shape.drafts) {
        for (std::size_t at = 0; is_free && at < draft.variable.size(); ++at) {
          if (draft.variable[at] != static_cast<VariableId>(variable) ||
              draft.instruction.operands[at].kind != OperandKind::kOut) {
            continue;
          }
          StreamOperand operand = draft.instruction.operands[at];
          operand.stream = static_cast<std::uint8_t>(stream + operand.stream);
          is_free = table_.try_stream(draft.instruction, start, operand);
        }
      }
      if (is_free) {
        streams[variable] = stream;
        is_found = true;
      } else {
        table_.roll_back(trial);
      }
    }
    if (!is_found) {
      table_.roll_back(before);
      return false;
    }
  }
  return true;
}

bool StageBuilder::fits_alone(const Template& shape) const {
  constexpr std::int64_t kSomeTime = 4'096;  // bursts of a template start before and after its own cycle 0
  ReservationTable alone(chip_, 0);
  return std::all_of(shape.drafts.begin(), shape.drafts.end(), [&](const Draft& draft) {
    return alone.try_units(draft.instruction, kSomeTime, draft.reach);
  });
}

PlacementId StageBuilder::try_place(const Template& shape, std::int64_t earliest, std::int64_t attempts) {
  std::vector<std::int32_t> streams(shape.variables.size(), 0);
  std::int64_t start = std::max(earliest, ready_time(shape));
  const std::int64_t last = start + attempts;
  while (start < last && !try_at(shape, start, streams)) {
    ++start;
  }
  if (start == last) {
    return -1;
  }
  if (!keeps_log_) {
    table_.clear_log();
  }
  return commit(shape, start, streams);
}

std::optional<StageBuilder::Reservation> StageBuilder::reserve(const Template& shape, std::int64_t start) {
  std::vector<std::int32_t> streams(shape.variables.size(), 0);
  table_.clear_log();
  if (!try_at(shape, start, streams)) {
    return std::nullopt;
  }
  Reservation made = table_.taken();
  table_.clear_log();
  return made;
}

PlacementId StageBuilder::place_reserved(const Template& shape,
                                         std::int64_t planned,
                                         std::int64_t length,
                                         const Reservation& reservation) {
  table_.give_back(reservation);
  std::vector<std::int32_t> streams(shape.variables.size(), 0);
  std::int64_t start = ready_time(shape);
  bool is_placed = false;
  for (std::int32_t trials = 0; !is_placed && start < planned && trials < kEarlyTrials;) {
    // Most starts are refused by another window: the first after it is the next that may do.
    const std::int64_t taken = table_.last_install(start, start + length);
    if (taken < start) {
      ++trials;
      is_placed = try_at(shape, start, streams);
    }
    start = is_placed ? start : std::max(taken, start) + 1;
  }
  if (!is_placed) {
    start = planned;
    LPU_CHECK(try_at(shape, start, streams), "a place that was reserved");
  }
  table_.clear_log();
  return commit(shape, start, streams);
}

PlacementId StageBuilder::commit(const Template& shape, std::int64_t start, const std::vector<std::int32_t>& streams) {
  PlacementId cause = -1;
  const std::int64_t inputs = ready_time(shape, &cause);
  const auto id = static_cast<PlacementId>(placements_.size());
  Placement placed{.part = shape.part,
                   .earliest = inputs,
                   .start = start,
                   .end = start,
                   .cause = cause,
                   .activation_slots = shape.activation_slots,
                   .sxm_trips = shape.sxm_trips};
  const std::int64_t settle = chip_.instruction_propagation.count() + 1;
  for (const Draft& draft : shape.drafts) {
    Instruction in = draft.instruction;
    in.start = static_cast<std::int32_t>(in.start + start);
    in.operator_part = static_cast<std::uint8_t>(shape.part);
    for (std::size_t at = 0; at < draft.variable.size(); ++at) {
      if (draft.variable[at] >= 0) {
        in.operands[at].stream =
            static_cast<std::uint8_t>(in.operands[at].stream + streams[static_cast<std::size_t>(draft.variable[at])]);
      }
    }
    if (draft.buffer >= 0) {
      for_each_row(draft, start, [&](const Row& row) {
        Buffer& buffer = at(row.buffer);
        if (in.opcode == Opcode::kRead) {
          buffer.last_read = std::max(buffer.last_read, row.cycle);
          return;
        }
        auto& ready = buffer.ready[static_cast<std::size_t>(row.row)];
        ready = std::max(ready, row.cycle + settle);
        buffer.writer[static_cast<std::size_t>(row.row)] = id;
        buffer.first_write = std::min(buffer.first_write, row.cycle);
        buffer.last_read = std::max(buffer.last_read, row.cycle);
        placed.end = std::max(placed.end, row.cycle + settle);
      });
    }
    std::int64_t last_issue = in.start;
    for (std::size_t loop = 0; loop < 3; ++loop) {
      last_issue += std::int64_t{in.count[loop] - 1} * in.period[loop];
    }
    busy_until_ = std::max(busy_until_, last_issue + 1 + node::latency(in.opcode, chip_).count());
    program_.instructions.push_back(in);
    instruction_buffer_.push_back(draft.buffer);
    instruction_positions_.push_back(draft.positions);
  }
  placements_.push_back(placed);
  return id;
}

PlacementId StageBuilder::place(const Template& shape, std::int64_t earliest) {
  const std::int64_t horizon = period_ > 0 ? period_ + 64 : kHorizon;
  const PlacementId id = try_place(shape, earliest, horizon);
  if (id < 0) {
    const std::string why = "no free start: " + why_refused(shape, std::max(earliest, ready_time(shape)));
    if (period_ > 0) {
      throw NoSchedule(why);
    }
    throw node::BugError(why);
  }
  return id;
}

std::string StageBuilder::why_refused(const Template& shape, std::int64_t start) {
  std::map<std::string, std::int32_t> refusals;
  for (std::int64_t at = start; at < start + kRefusalsCounted; ++at) {
    const std::size_t before = table_.mark();
    std::string why = "a stream";
    for (const Draft& draft : shape.drafts) {
      if (!table_.try_units(draft.instruction, at, draft.reach)) {
        const Instruction& in = draft.instruction;
        const StreamOperand& first = in.operands[0];
        why = std::string(node::info(in.opcode).name) + " on unit " + std::to_string(in.index) + " of hemisphere " +
              std::to_string(static_cast<int>(in.hemisphere)) + " (" +
              (first.tensor < program_.tensors.size() ? program_.tensors[first.tensor].name : std::string("a value")) +
              " row " + std::to_string(first.row) + ", counts " + std::to_string(in.count[0]) + " x " +
              std::to_string(in.count[1]) + " x " + std::to_string(in.count[2]) + ", periods " +
              std::to_string(in.period[0]) + ", " + std::to_string(in.period[1]) + ")";
        break;
      }
    }
    table_.roll_back(before);
    ++refusals[why];
  }
  const auto most = std::max_element(
      refusals.begin(), refusals.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most->first + " refused " + std::to_string(most->second) + " of " + std::to_string(kRefusalsCounted) +
         " starts of " + std::to_string(shape.drafts.size()) + " bursts";
}

void StageBuilder::add_source(TensorId tensor, TensorId source) {
  auto& sources = program_.tensors[tensor].sources;
  if (std::find(sources.begin(), sources.end(), source) == sources.end()) {
    sources.push_back(source);
  }
}

void StageBuilder::end_window(PlacementId id, std::int64_t end, std::int64_t install) {
  placements_[static_cast<std::size_t>(id)].end = end;
  placements_[static_cast<std::size_t>(id)].install = install;
}

void StageBuilder::end_placement(PlacementId id, std::int64_t end) {
  auto& placed = placements_[static_cast<std::size_t>(id)];
  placed.end = std::max(placed.end, end);
}

void StageBuilder::set_cause(PlacementId id, PlacementId cause) {
  Placement& placed = placements_[static_cast<std::size_t>(id)];
  placed.cause = cause;
  placed.earliest = placed.start;
}

PlacementId StageBuilder::event(node::OperatorPart part, std::int64_t start, std::int64_t end, PlacementId cause) {
  placements_.push_back({.part = part, .earliest = start, .start = start, .end = end, .cause = cause});
  return static_cast<PlacementId>(placements_.size()) - 1;
}

std::int64_t StageBuilder::end_of_all() const {
  std::int64_t end = busy_until_;
  for (const Placement& placed : placements_) {
    end = std::max(end, placed.end);
  }
  return end;
}

std::array<std::size_t, 3> StageBuilder::checkpoint() {
  keeps_log_ = true;
  return {table_.mark(), program_.instructions.size(), placements_.size()};
}

void StageBuilder::restore(const std::array<std::size_t, 3>& point) {
  table_.roll_back(point[0]);
  program_.instructions.resize(point[1]);
  instruction_buffer_.resize(point[1]);
  instruction_positions_.resize(point[1]);
  placements_.resize(point[2]);
  keeps_log_ = false;
}

std::vector<std::int32_t> StageBuilder::text_classes(std::int32_t positions) const {
  std::vector<std::int32_t> out;
  for (std::int32_t p = 0; p < positions; ++p) {
    std::int32_t first = p;
    for (std::int32_t q = 0; q < p && first == p; ++q) {
      const bool is_same =
          std::all_of(instruction_positions_.begin(), instruction_positions_.end(), [&](std::uint64_t mask) {
            return ((mask >> static_cast<unsigned>(p) ^ mask >> static_cast<unsigned>(q)) & 1U) == 0;
          });
      if (is_same) {
        first = q;
      }
    }
    out.push_back(first);
  }
  return out;
}

node::ChipProgram StageBuilder::finish(std::int64_t initiation_interval,
                                       std::int32_t position,
                                       const std::vector<std::int32_t>& limits) const {
  node::ChipProgram program = program_;
  program.instructions.clear();
  std::vector<BufferId> instruction_buffer;
  for (std::size_t i = 0; i < program_.instructions.size(); ++i) {
    if ((instruction_positions_[i] >> static_cast<unsigned>(position) & 1U) != 0) {
      program.instructions.push_back(program_.instructions[i]);
      instruction_buffer.push_back(instruction_buffer_[i]);
      declare_operation(program, program_.instructions[i]);
    }
  }
  merge_bursts(program.instructions, instruction_buffer);
  std::map<std::pair<std::int32_t, std::int32_t>, std::uint16_t> buffer_registers;
  std::vector<std::int32_t> base(buffers_.size(), 0);
  std::vector<std::uint16_t> registers(buffers_.size(), 0);
  const std::vector<std::int32_t> nothing(limits.size(), 0);
  std::array<std::vector<std::int32_t>, 2> first_free{nothing, nothing};  // per hemisphere and scratch slice
  for (std::size_t id = 0; id < buffers_.size(); ++id) {
    const Buffer& buffer = buffers_[id];
    const bool is_unused = !buffer.is_static && buffer.first_write == std::numeric_limits<std::int64_t>::max();
    if (is_unused) {
      continue;
    }
    std::int32_t copies = static_copies_[id];
    std::int32_t height = static_cast<std::int32_t>(node::ceil_div(buffer.rows, buffer.width)) + buffer.phase;
    height += height % 2;
    registers[id] = buffer.base_register;
    if (!buffer.is_static) {
      const std::int64_t life = buffer.last_read - buffer.first_write + 1;
      copies = static_cast<std::int32_t>(node::ceil_div(life, initiation_interval));
      if (copies > 1) {
        auto [slot, is_new] = buffer_registers.try_emplace({copies, height}, std::uint16_t{0});
        if (is_new) {
          slot->second = static_cast<std::uint16_t>(program.registers.size());
          program.registers.push_back(
              {.kind = node::RegisterKind::kBuffer, .copies = copies, .stride = height, .append = {}, .table = {}});
        }
        registers[id] = slot->second;
      }
    } else {
      height = static_cast<std::int32_t>(node::ceil_div(buffer.rows, buffer.width));
    }
    std::int32_t address = 0;
    std::vector<std::int32_t>& free = first_free[static_cast<std::size_t>(buffer.hemisphere)];
    for (std::int32_t s = buffer.slice; s < buffer.slice + buffer.width; ++s) {
      address = std::max(address, free[static_cast<std::size_t>(s)]);
    }
    address += address % 2;
    for (std::int32_t s = buffer.slice; s < buffer.slice + buffer.width; ++s) {
      free[static_cast<std::size_t>(s)] = address + copies * height;
    }
    base[id] = address;
    const std::int32_t full = buffer.rows / buffer.width;
    node::Allocation made{.tensor = buffer.tensor,
                          .hemisphere = buffer.hemisphere,
                          .base_register = registers[id],
                          .row = buffer.first_row,
                          .slice = buffer.slice,
                          .address = address + buffer.phase};
    if (full > 0) {
      made.count[0] = full;
      made.row_stride[0] = buffer.width;
      made.address_stride[0] = 1;
      made.count[1] = buffer.width;
      made.row_stride[1] = 1;
      made.slice_stride[1] = 1;
      program.allocations.push_back(made);
    }
    if (const std::int32_t rest = buffer.rows % buffer.width; rest > 0) {
      node::Allocation tail = made;
      tail.row = buffer.first_row + full * buffer.width;
      tail.address = address + buffer.phase + full;
      tail.count[0] = rest;
      tail.row_stride[0] = 1;
      tail.address_stride[0] = 0;
      tail.slice_stride[0] = 1;
      tail.count[1] = 1;
      program.allocations.push_back(tail);
    }
  }
  for (std::size_t i = 0; i < program.instructions.size(); ++i) {
    if (const BufferId id = instruction_buffer[i]; id >= 0) {
      Instruction& in = program.instructions[i];
      in.address = static_cast<std::uint16_t>(in.address + base[static_cast<std::size_t>(id)]);
      in.base_register = registers[static_cast<std::size_t>(id)];
    }
  }
  std::stable_sort(
      program.instructions.begin(), program.instructions.end(), [](const Instruction& a, const Instruction& b) {
        return std::tuple(a.start, node::info(a.opcode).unit, a.index, a.hemisphere) <
               std::tuple(b.start, node::info(b.opcode).unit, b.index, b.hemisphere);
      });
  // Program text lies behind the buffers of the emptiest near slice; its size is known now.
  std::int64_t text_bytes = 0;
  for (const Instruction& in : program.instructions) {
    text_bytes += node::text_size(in, chip_).count();
  }
  const auto text_rows = static_cast<std::int32_t>(node::ceil_div(text_bytes, chip_.vector_bytes));
  const std::vector<std::int32_t>& west = first_free[0];
  const std::vector<std::int32_t>& east = first_free[1];
  const auto emptiest_west = std::min_element(west.begin(), west.end());
  const auto emptiest_east = std::min_element(east.begin(), east.end());
  const bool is_west = *emptiest_west <= *emptiest_east;
  program.tensors.push_back({.name = "program_text",
                             .scope = node::TensorScope::kStatic,
                             .owner = node::TensorOwner::kChip,
                             .rows = text_rows,
                             .sources = {}});
  node::Allocation text{
      .tensor = static_cast<std::uint16_t>(program.tensors.size() - 1),
      .hemisphere = is_west ? Hemisphere::kWest : Hemisphere::kEast,
      .slice = static_cast<std::int32_t>(is_west ? emptiest_west - west.begin() : emptiest_east - east.begin()),
      .address = is_west ? *emptiest_west : *emptiest_east};
  text.count[0] = text_rows;
  text.row_stride[0] = 1;
  text.address_stride[0] = 1;
  program.allocations.push_back(text);
  first_free[static_cast<std::size_t>(text.hemisphere)][static_cast<std::size_t>(text.slice)] += text_rows;
  for (std::size_t slice = 0; slice < limits.size(); ++slice) {
    if (const std::int32_t needs = std::max(first_free[0][slice], first_free[1][slice]); needs > limits[slice]) {
      throw DoesNotFit("found " + std::to_string(needs) + " vectors of scratch in slice " + std::to_string(slice) +
                           " of a stage; expected at most " + std::to_string(limits[slice]) + " beside the weights",
                       0);
    }
  }
  program.makespan = static_cast<std::int32_t>(std::max(end_of_all(), busy_until_));
  return program;
}

namespace {

/// What two instructions must share to be instances of one burst.
auto signature(const Instruction& in, BufferId buffer) {
  std::array<std::tuple<int, int, int, int, int, int, int, int, int>, 4> operands;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const StreamOperand& o = in.operands[i];
    operands[i] = {static_cast<int>(o.kind),
                   static_cast<int>(o.hemisphere) * 2 + static_cast<int>(o.direction),
                   o.stream,
                   o.streams,
                   o.stream_stride,
                   o.reach,
                   o.held * 2 + o.is_registered,
                   o.tensor,
                   (o.row_stride[0] * 65537 + o.row_stride[1]) * 257 + o.row_stride[2]};
  }
  const bool is_memory = node::info(in.opcode).unit == Unit::kMem;
  return std::tuple(in.opcode,
                    in.hemisphere,
                    is_memory || node::info(in.opcode).unit == Unit::kVxm ? in.index : -1,
                    in.alus,
                    std::array{in.count[0], in.count[1], in.count[2]},
                    std::array{in.period[0], in.period[1], in.period[2]},
                    std::array{in.index_stride[0], in.index_stride[1], in.index_stride[2]},
                    std::array{in.address_stride[0], in.address_stride[1], in.address_stride[2]},
                    in.base_register,
                    in.mode,
                    in.operator_part,
                    in.transfer,
                    in.argument,
                    operands,
                    buffer);
}

struct Step {
  std::int32_t start = 0;
  std::int32_t index = 0;
  std::int32_t address = 0;
  std::array<std::int32_t, 4> rows{};
  bool operator==(const Step&) const = default;
};

Step step_between(const Instruction& a, const Instruction& b) {
  Step step{b.start - a.start, b.index - a.index, b.address - a.address, {}};
  for (std::size_t i = 0; i < step.rows.size(); ++i) {
    step.rows[i] = b.operands[i].row - a.operands[i].row;
  }
  return step;
}

bool fits(const Step& step) {
  const auto is_short = [](std::int32_t x) { return x >= -32768 && x <= 32767; };
  return step.start > 0 && step.index >= -128 && step.index <= 127 && is_short(step.address) &&
         std::all_of(step.rows.begin(), step.rows.end(), is_short);
}

/// Merge runs of equal steps into loop `loop`, where that loop is free.
void merge_into(std::size_t loop, std::vector<Instruction>& instructions, std::vector<BufferId>& buffers) {
  using Key = decltype(signature(instructions.front(), 0));
  std::map<Key, std::vector<std::size_t>> groups;
  std::vector<bool> is_gone(instructions.size(), false);
  for (std::size_t i = 0; i < instructions.size(); ++i) {
    const Instruction& in = instructions[i];
    const bool is_free =
        in.count[loop] == 1 && std::none_of(in.operands.begin(), in.operands.end(), [&](const StreamOperand& o) {
          return (o.held >> loop & 1U) != 0;
        });
    if (is_free && in.opcode != Opcode::kInstall && in.opcode != Opcode::kCompute) {
      groups[signature(in, buffers[i])].push_back(i);
    }
  }
  for (auto& [key, members] : groups) {
    std::sort(members.begin(), members.end(), [&](std::size_t a, std::size_t b) {
      return std::tuple(instructions[a].start, instructions[a].index, a) <
             std::tuple(instructions[b].start, instructions[b].index, b);
    });
    for (std::size_t first = 0; first + 1 < members.size();) {
      const Step step = step_between(instructions[members[first]], instructions[members[first + 1]]);
      std::size_t last = first + 1;
      while (last + 1 < members.size() &&
             step_between(instructions[members[last]], instructions[members[last + 1]]) == step) {
        ++last;
      }
      if (!fits(step)) {
        ++first;
        continue;
      }
      Instruction& head = instructions[members[first]];
      head.count[loop] = static_cast<std::uint16_t>(last - first + 1);
      head.period[loop] = step.start;
      head.index_stride[loop] = static_cast<std::int8_t>(step.index);
      head.address_stride[loop] = static_cast<std::int16_t>(step.address);
      for (std::size_t i = 0; i < step.rows.size(); ++i) {
        head.operands[i].row_stride[loop] = static_cast<std::int16_t>(step.rows[i]);
      }
      for (std::size_t i = first + 1; i <= last; ++i) {
        is_gone[members[i]] = true;
      }
      first = last + 1;
    }
  }
  std::size_t kept = 0;
  for (std::size_t i = 0; i < instructions.size(); ++i) {
    if (!is_gone[i]) {
      instructions[kept] = instructions[i];
      buffers[kept] = buffers[i];
      ++kept;
    }
  }
  instructions.resize(kept);
  buffers.resize(kept);
}

}  // namespace

void declare_operation(node::ChipProgram& text, const Instruction& instruction) {
  if (!node::computes(instruction.opcode)) {
    return;
  }
  for (const StreamOperand& operand : instruction.operands) {
    if (operand.kind != OperandKind::kIn && operand.kind != OperandKind::kOut) {
      continue;
    }
    node::Tensor& tensor = text.tensors[operand.tensor];
    std::vector<node::OperationCount>& counts = operand.kind == OperandKind::kOut ? tensor.made_by : tensor.used_by;
    const auto at = std::lower_bound(
        counts.begin(), counts.end(), instruction.opcode, [](const node::OperationCount& count, Opcode opcode) {
          return count.opcode < opcode;
        });
    const std::int64_t vectors = node::vectors_moved(instruction, operand);
    if (at != counts.end() && at->opcode == instruction.opcode) {
      at->vectors += vectors;
    } else {
      counts.insert(at, {.opcode = instruction.opcode, .vectors = vectors});
    }
  }
}

void merge_bursts(std::vector<Instruction>& instructions, std::vector<BufferId>& buffers) {
  if (instructions.empty()) {
    return;
  }
  merge_into(1, instructions, buffers);
  merge_into(0, instructions, buffers);
}

}  // namespace lpu::scheduler
