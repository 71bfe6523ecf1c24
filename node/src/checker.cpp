// What each kind of instance takes, finds and leaves.

#include "checker.hpp"

#include <algorithm>
#include <tuple>

#include "lpu/node/digest.hpp"
#include "lpu/node/identity.hpp"

namespace lpu::node {

std::int32_t CheckedChip::Checker::row_of(const Site& site,
                                          const Flight& flight,
                                          const Instruction& instruction,
                                          const StreamOperand& operand,
                                          const LoopIndex& at) const {
  LoopIndex moved = at;
  for (std::size_t l = 0; l < 3; ++l) {
    // What the unit keeps over a loop is the row that it took at the loop's start.
    if (operand.kind == OperandKind::kIn && (operand.held >> l & 1U) != 0) {
      moved[l] = 0;
    }
  }
  std::int64_t row = affine(operand.row, operand.row_stride, moved);
  if (operand.is_registered != 0) {
    row += flight.displacements[instruction.base_register].row;
  }
  const Tensor& tensor = text_.tensors[operand.tensor];
  const std::int64_t last = row + (operand.kind == OperandKind::kResident ? 0 : operand.streams - 1);
  if (row < 0 || last >= tensor.rows) {
    breach(site,
           "names rows " + std::to_string(row) + " to " + std::to_string(last) + " of '" + tensor.name +
               "', which has " + std::to_string(tensor.rows));
  }
  return static_cast<std::int32_t>(row);
}

std::uint64_t CheckedChip::Checker::value_of(const Site& site,
                                             Flight& flight,
                                             const Instruction& instruction,
                                             const StreamOperand& operand,
                                             std::int32_t row) const {
  const std::uint16_t tensor = operand.tensor;
  const Tensor& owner = text_.tensors[tensor];
  const bool is_gathered = owner.owner == TensorOwner::kGathered;
  const std::int32_t slot = is_gathered ? row / owner.rows_per_slot : 0;
  const std::int32_t in_batch = owner.scope == TensorScope::kCache ? user_in_batch(text_, instruction) : 0;
  if (is_gathered && static_cast<std::size_t>(slot) >= binding_.slot_owner.size()) {
    breach(site, "names " + name(tensor, row) + ", a part that no chip of the group owns");
  }
  const std::int32_t number = owner.scope == TensorScope::kCache && !is_gathered ? in_batch : slot;
  if (is_gathered && in_batch != 0) {
    return value_id(owner, binding_, plan_, flight.iteration, row, user_of(flight, instruction));
  }
  std::uint64_t& base =
      flight.bases[static_cast<std::size_t>(tables_.base_offset[tensor]) + static_cast<std::size_t>(number)];
  if (base == 0) {
    base = value_base(
        owner, binding_, plan_, flight.iteration, slot, plan_.group(flight.iteration) * plan_.micro_batch + in_batch);
  }
  return fold(base, static_cast<std::uint64_t>(is_gathered ? row % owner.rows_per_slot : row));
}

bool CheckedChip::Checker::take(const Site& site,
                                Flight& flight,
                                const Instruction& instruction,
                                const StreamOperand& operand,
                                const LoopIndex& at,
                                std::int32_t position,
                                bool may_be_absent) {
  const std::int32_t row = row_of(site, flight, instruction, operand, at);
  const std::int32_t first = operand.stream + at[2] * operand.stream_stride;
  const std::int64_t diagonal = StreamFile::diagonal(operand, site.cycle, position);
  for (std::int32_t j = 0; j < operand.streams; ++j) {
    const StandingValue* standing = streams_.find(streams_.lane(operand, first + j), diagonal, position);
    if (standing == nullptr) {
      if (may_be_absent) {
        return false;
      }
      breach(site,
             "takes " + name(operand.tensor, row + j) + " from stream " + std::to_string(first + j) + ", register " +
                 std::to_string(position) + ", where nothing stands");
    }
    if (standing->value != value_of(site, flight, instruction, operand, row + j)) {
      breach(site,
             "takes " + name(operand.tensor, row + j) + " from stream " + std::to_string(first + j) + ", register " +
                 std::to_string(position) + ", where " + name(standing->tensor, standing->row) + " of iteration " +
                 std::to_string(standing->iteration) + " stands (instruction " + std::to_string(standing->instruction) +
                 ")");
    }
  }
  return true;
}

void CheckedChip::Checker::take_inputs(
    const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at, std::int32_t position) {
  // A select takes the enabled ones of its operands: what a disabled read left out is not there.
  const bool is_select = instruction.opcode == Opcode::kSelect;
  bool is_any_there = false;
  for (const StreamOperand& operand : instruction.operands) {
    if (operand.kind == OperandKind::kIn && is_moved_here(operand, instruction, at)) {
      is_any_there = take(site, flight, instruction, operand, at, position, is_select) || is_any_there;
    }
  }
  if (is_select && !is_any_there) {
    breach(site, "selects among operands of which none is there");
  }
}

void CheckedChip::Checker::put(const Site& site,
                               Flight& flight,
                               const Instruction& instruction,
                               const StreamOperand& operand,
                               const LoopIndex& at,
                               std::int32_t position) {
  const std::int32_t row = row_of(site, flight, instruction, operand, at);
  const std::int32_t first = operand.stream + at[2] * operand.stream_stride;
  StandingValue value;
  value.diagonal = StreamFile::diagonal(operand, site.cycle + latency(instruction.opcode, chip_).count(), position);
  value.instruction = site.instruction;
  value.iteration = flight.iteration;
  value.tensor = operand.tensor;
  value.lowest = static_cast<std::uint8_t>(std::min<std::int32_t>(position, operand.reach));
  value.highest = static_cast<std::uint8_t>(std::max<std::int32_t>(position, operand.reach));
  for (std::int32_t j = 0; j < operand.streams; ++j) {
    value.row = row + j;
    value.value = value_of(site, flight, instruction, operand, value.row);
    const StandingValue* other = streams_.put(streams_.lane(operand, first + j), value, site.cycle);
    if (other != nullptr) {
      breach(site,
             "puts " + name(operand.tensor, value.row) + " on stream " + std::to_string(first + j) + ", where " +
                 name(other->tensor, other->row) + " of iteration " + std::to_string(other->iteration) +
                 " stands on the same diagonal (instruction " + std::to_string(other->instruction) + ")");
    }
  }
}

void CheckedChip::Checker::put_outputs(
    const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at, std::int32_t position) {
  for (const StreamOperand& operand : instruction.operands) {
    if (operand.kind == OperandKind::kOut && is_moved_here(operand, instruction, at)) {
      put(site, flight, instruction, operand, at, position);
    }
  }
}

void CheckedChip::Checker::access(const Site& site,
                                  Flight& flight,
                                  const Instruction& instruction,
                                  const InstanceEvent& event) {
  const Displacement& displacement = flight.displacements[instruction.base_register];
  if (!displacement.is_enabled) {
    return;
  }
  const std::int64_t slice = unit_of(instruction, event.at) + displacement.slice;
  const std::int64_t address = affine(instruction.address, instruction.address_stride, event.at) + displacement.address;
  memory_.take_port(site, instruction.opcode, instruction.hemisphere, slice, address);
  const Place place = make_place(instruction.hemisphere, slice, address, chip_);
  const std::int32_t position = chip_.slice_position(static_cast<std::int32_t>(slice));
  const StreamOperand& operand = instruction.operands[0];
  if (instruction.opcode == Opcode::kRead) {
    const std::int32_t row = row_of(site, flight, instruction, operand, event.at);
    memory_.read(site,
                 place,
                 {.tensor = operand.tensor,
                  .row = row,
                  .user = user_of(flight, instruction),
                  .value = value_of(site, flight, instruction, operand, row)});
    put(site, flight, instruction, operand, event.at, position);
    return;
  }
  take(site, flight, instruction, operand, event.at, position, false);
  if (text_.registers[instruction.base_register].kind == RegisterKind::kAppend) {
    append(site, flight, instruction, event, place);
    return;
  }
  const std::int32_t row = row_of(site, flight, instruction, operand, event.at);
  memory_.write(site,
                place,
                {.tensor = operand.tensor,
                 .row = row,
                 .user = user_of(flight, instruction),
                 .value = value_of(site, flight, instruction, operand, row)});
}

void CheckedChip::Checker::append(
    const Site& site, Flight& flight, const Instruction& instruction, const InstanceEvent& event, Place place) {
  const auto target = std::lower_bound(tables_.append_targets.begin(),
                                       tables_.append_targets.end(),
                                       event,
                                       [](const AppendTarget& a, const InstanceEvent& b) {
                                         return std::tie(a.instruction, a.at) < std::tie(b.instruction, b.at);
                                       });
  const std::int32_t row = target->row + flight.displacements[instruction.base_register].row;
  memory_.write(site, place, {.tensor = target->tensor, .row = row, .user = user_of(flight, instruction), .value = 0});
}

void CheckedChip::Checker::receive(const Site& site,
                                   Flight& flight,
                                   const Instruction& instruction,
                                   const LoopIndex& at) {
  LinkEnds& link = links_[static_cast<std::size_t>(unit_of(instruction, at))];
  if (link.last_take == site.cycle) {
    breach(site, "second take from its link in this cycle");
  }
  link.last_take = site.cycle;
  const std::int64_t arrival = site.cycle - instruction.argument;
  if (instruction.argument < 0) {
    breach(site, "takes a vector " + std::to_string(-instruction.argument) + " cycles before it arrives");
  }
  std::int64_t& depth_ago = link.takes[link.next_take];
  if (depth_ago != kNeverBefore && depth_ago > arrival) {
    breach(site,
           "more than " + std::to_string(chip_.link_queue_vectors) + " vectors wait in the receive queue of link " +
               std::to_string(unit_of(instruction, at)) + " at cycle " + std::to_string(arrival));
  }
  depth_ago = site.cycle;
  link.next_take = (link.next_take + 1) % link.takes.size();
  put_outputs(site, flight, instruction, at, chip_.sxm_position);
}

void CheckedChip::Checker::send(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at) {
  take_inputs(site, flight, instruction, at, chip_.sxm_position);
  LinkEnds& link = links_[static_cast<std::size_t>(unit_of(instruction, at))];
  if (link.last_push == site.cycle) {
    breach(site, "second push into its link in this cycle");
  }
  link.last_push = site.cycle;
  std::int64_t& depth_ago = link.starts[link.next_start];
  if (depth_ago != kNeverBefore && depth_ago > site.cycle) {
    breach(site,
           "more than " + std::to_string(chip_.link_queue_vectors) + " vectors wait in the send queue of link " +
               std::to_string(unit_of(instruction, at)));
  }
  depth_ago = std::max(site.cycle, link.free_at);
  link.free_at = depth_ago + chip_.link_serialisation.count();
  link.next_start = (link.next_start + 1) % link.starts.size();
}

void CheckedChip::Checker::operate(const Site& site,
                                   Flight& flight,
                                   const Instruction& instruction,
                                   const LoopIndex& at) {
  std::int32_t position = chip_.vxm_position;
  if (info(instruction.opcode).unit == Unit::kVxm) {
    for (std::int32_t alu = instruction.index; alu < instruction.index + instruction.alus; ++alu) {
      if (alus_[static_cast<std::size_t>(alu)] == site.cycle) {
        breach(site, "second use of ALU " + std::to_string(alu) + " in this cycle");
      }
      alus_[static_cast<std::size_t>(alu)] = site.cycle;
    }
  } else {
    std::int64_t& last = crossbars_[static_cast<std::size_t>(instruction.hemisphere)];
    if (last == site.cycle) {
      breach(site, "second instruction of its SXM in this cycle");
    }
    last = site.cycle;
    position = chip_.sxm_position;
  }
  take_inputs(site, flight, instruction, at, position);
  put_outputs(site, flight, instruction, at, position);
}

void CheckedChip::Checker::install(const Site& site,
                                   Flight& flight,
                                   const Instruction& instruction,
                                   const LoopIndex& at) {
  take_inputs(site, flight, instruction, at, chip_.mxm_position);
  LoopIndex tile_at = at;
  tile_at[1] = 0;
  const StreamOperand& tile = instruction.operands[1];
  const std::int32_t row = row_of(site, flight, instruction, tile, tile_at);
  plane(instruction, at).install(site, value_of(site, flight, instruction, tile, row), at[1], instruction.count[1]);
}

void CheckedChip::Checker::compute(const Site& site,
                                   Flight& flight,
                                   const Instruction& instruction,
                                   const LoopIndex& at) {
  take_inputs(site, flight, instruction, at, chip_.mxm_position);
  const StreamOperand& activation = instruction.operands[0];
  const StreamOperand& tile = instruction.operands[1];
  MatrixPlane::Product product;
  product.tile = value_of(site, flight, instruction, tile, row_of(site, flight, instruction, tile, at));
  product.tile_tensor = tile.tensor;
  product.activation =
      value_of(site, flight, instruction, activation, row_of(site, flight, instruction, activation, at));
  product.activation_tensor = activation.tensor;
  product.iteration = flight.iteration;
  product.is_first = (instruction.mode & kComputeOverwrites) != 0;
  for (std::size_t l = 0; l < 3; ++l) {
    product.is_first = product.is_first && ((instruction.mode >> l & 1U) == 0 || at[l] == 0);
  }
  const std::int64_t accumulator = affine(instruction.address, instruction.address_stride, at);
  plane(instruction, at).compute(site, static_cast<std::int32_t>(accumulator), product);
}

void CheckedChip::Checker::drain(const Site& site,
                                 Flight& flight,
                                 const Instruction& instruction,
                                 const LoopIndex& at) {
  const std::int64_t accumulator = affine(instruction.address, instruction.address_stride, at);
  plane(instruction, at)
      .drain(site,
             static_cast<std::int32_t>(accumulator),
             instruction.argument,
             text_.tensors[instruction.operands[0].tensor],
             flight.iteration);
  put_outputs(site, flight, instruction, at, chip_.mxm_position);
}

}  // namespace lpu::node
