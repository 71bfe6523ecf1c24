#include "lpu/node/checked_chip.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "check_matrix_unit.hpp"
#include "check_memory.hpp"
#include "check_site.hpp"
#include "check_streams.hpp"
#include "checked_text.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/identity.hpp"

namespace lpu::node {
namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kBefore = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kKinds = 8;  ///< more than InstanceKind has

/// One iteration under check.
struct Flight {
  std::int64_t iteration = 0;
  std::int64_t start = 0;            ///< on this chip, common clock
  std::size_t next = 0;              ///< in the text's events
  std::vector<InstanceEvent> moved;  ///< those that this iteration's displacements place
  std::size_t next_moved = 0;
  std::vector<Displacement> displacements;  ///< per register
  std::vector<std::uint64_t> bases;         ///< value bases; 0: not needed yet
};

/// Both ends of one link on this chip, as far as their queues go.
struct LinkEnds {
  std::int64_t last_push = kBefore;
  std::int64_t last_take = kBefore;
  std::int64_t free_at = kBefore;    ///< first cycle in which a vector may start
  std::vector<std::int64_t> starts;  ///< of the last vectors sent, a ring as deep as the queue
  std::vector<std::int64_t> takes;   ///< of the last vectors received
  std::size_t next_start = 0;
  std::size_t next_take = 0;
};

}  // namespace

class CheckedChip::Checker {
 public:
  Checker(const CheckedTextTables& tables,
          const ChipSpec& chip,
          const ChipBinding& binding,
          const IterationPlan& plan,
          std::int64_t iterations)
      : tables_(tables),
        text_(*tables.text),
        chip_(chip),
        binding_(binding),
        plan_(plan),
        iterations_(tables.events.empty() ? 0 : iterations),
        streams_(chip),
        memory_(tables),
        planes_(2 * static_cast<std::size_t>(chip.mxm_planes_per_hemisphere), MatrixPlane(chip)),
        alus_(static_cast<std::size_t>(chip.vxm_alus), kBefore),
        queues_(static_cast<std::size_t>(tables.queues), kBefore),
        links_(static_cast<std::size_t>(chip.links())) {
    for (LinkEnds& link : links_) {
      link.starts.assign(static_cast<std::size_t>(chip.link_queue_vectors), kBefore);
      link.takes = link.starts;
    }
  }

  /// Checks all that happens before a cycle.
  void advance(std::int64_t until);
  void finish() const {
    for (const MatrixPlane& plane : planes_) {
      plane.check_nothing_left(binding_.chip);
    }
  }

 private:
  [[nodiscard]] const InstanceEvent* peek(const Flight& flight) const;
  [[nodiscard]] std::int64_t key(const Flight& flight) const;
  [[nodiscard]] std::int64_t next_opening() const;
  void open();
  void check(Flight& flight, const InstanceEvent& event);
  void fetch(const Site& site, const Instruction& instruction);
  void dispatch(const Site& site, std::int32_t queue);
  void access(const Site& site, Flight& flight, const Instruction& instruction, const InstanceEvent& event);
  void append(
      const Site& site, Flight& flight, const Instruction& instruction, const InstanceEvent& event, Place place);
  void receive(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);
  void send(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);
  void operate(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);
  void install(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);
  void compute(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);
  void drain(const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at);

  void take_inputs(
      const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at, std::int32_t position);
  bool take(const Site& site,
            Flight& flight,
            const Instruction& instruction,
            const StreamOperand& operand,
            const LoopIndex& at,
            std::int32_t position,
            bool may_be_absent);
  void put_outputs(
      const Site& site, Flight& flight, const Instruction& instruction, const LoopIndex& at, std::int32_t position);
  void put(const Site& site,
           Flight& flight,
           const Instruction& instruction,
           const StreamOperand& operand,
           const LoopIndex& at,
           std::int32_t position);

  [[nodiscard]] std::int32_t row_of(const Site& site,
                                    const Flight& flight,
                                    const Instruction& instruction,
                                    const StreamOperand& operand,
                                    const LoopIndex& at) const;
  [[nodiscard]] std::uint64_t value_of(const Site& site,
                                       Flight& flight,
                                       const Instruction& instruction,
                                       const StreamOperand& operand,
                                       std::int32_t row) const;
  [[nodiscard]] std::int32_t user_of(const Flight& flight, const Instruction& instruction) const {
    return plan_.group(flight.iteration) * plan_.micro_batch + user_in_batch(text_, instruction);
  }
  [[nodiscard]] std::string name(std::uint16_t tensor, std::int32_t row) const {
    return "row " + std::to_string(row) + " of '" + text_.tensors[tensor].name + "'";
  }
  [[nodiscard]] MatrixPlane& plane(const Instruction& instruction, const LoopIndex& at) {
    return planes_[static_cast<std::size_t>(static_cast<std::int64_t>(instruction.hemisphere) *
                                                chip_.mxm_planes_per_hemisphere +
                                            unit_of(instruction, at))];
  }

  const CheckedTextTables& tables_;
  const ChipProgram& text_;
  const ChipSpec& chip_;
  const ChipBinding& binding_;
  const IterationPlan& plan_;
  std::int64_t iterations_;
  std::int64_t next_iteration_ = 0;
  std::vector<std::unique_ptr<Flight>> flights_;
  StreamFile streams_;
  Memory memory_;
  std::vector<MatrixPlane> planes_;
  std::vector<std::int64_t> alus_;  ///< last cycle of each
  std::int64_t crossbars_[2] = {kBefore, kBefore};
  std::vector<std::int64_t> queues_;
  std::vector<LinkEnds> links_;
  std::int64_t fetch_cycle_ = kBefore;
  std::int64_t fetched_ = 0;
};

const InstanceEvent* CheckedChip::Checker::peek(const Flight& flight) const {
  const InstanceEvent* still = flight.next < tables_.events.size() ? &tables_.events[flight.next] : nullptr;
  const InstanceEvent* moved = flight.next_moved < flight.moved.size() ? &flight.moved[flight.next_moved] : nullptr;
  if (still == nullptr || moved == nullptr) {
    return still == nullptr ? moved : still;
  }
  return is_before(*moved, *still) ? moved : still;
}

std::int64_t CheckedChip::Checker::key(const Flight& flight) const {
  const InstanceEvent* event = peek(flight);
  return event == nullptr ? kNever : (flight.start + event->cycle) * kKinds + static_cast<std::int64_t>(event->kind);
}

std::int64_t CheckedChip::Checker::next_opening() const {
  if (next_iteration_ == iterations_) {
    return kNever;
  }
  // A displaced access may come a few cycles before everything else.
  return (plan_.start(next_iteration_) + binding_.offset + tables_.events.front().cycle - 2 * chip_.mxm_position) *
         kKinds;
}

void CheckedChip::Checker::open() {
  auto flight = std::make_unique<Flight>();
  flight->iteration = next_iteration_++;
  flight->start = plan_.start(flight->iteration) + binding_.offset;
  flight->bases.assign(static_cast<std::size_t>(tables_.value_bases), 0);
  for (const BaseRegister& base : text_.registers) {
    std::vector<std::int32_t> experts;
    if (base.kind == RegisterKind::kExpert) {
      experts = expert_slots(plan_, flight->iteration, binding_.first_layer + base.layer_slot);
    }
    flight->displacements.push_back(displace(base, plan_, flight->iteration, experts));
  }
  for (const std::int32_t instruction : tables_.moving) {
    const Instruction& burst = text_.instructions[static_cast<std::size_t>(instruction)];
    // A disabled one does nothing; that it takes the resources of some displacement was checked with the steady state.
    const Displacement& displacement = flight->displacements[burst.base_register];
    if (displacement.is_enabled) {
      place_burst(text_, instruction, displacement.slice, chip_, flight->moved);
    }
  }
  std::sort(flight->moved.begin(), flight->moved.end(), is_before);
  for (const AppendTarget& target : tables_.append_targets) {
    const Instruction& instruction = text_.instructions[static_cast<std::size_t>(target.instruction)];
    const Displacement& displacement = flight->displacements[instruction.base_register];
    const std::int64_t slice = unit_of(instruction, target.at) + displacement.slice;
    const std::int64_t address =
        affine(instruction.address, instruction.address_stride, target.at) + displacement.address;
    if (displacement.is_enabled && is_in_sram(slice, address, chip_)) {
      memory_.expect_append(make_place(instruction.hemisphere, slice, address, chip_), target.instruction);
    }
  }
  flights_.push_back(std::move(flight));
}

void CheckedChip::Checker::advance(std::int64_t until) {
  const std::int64_t end = until == kNever ? kNever : until * kKinds;
  for (;;) {
    Flight* first = nullptr;
    std::int64_t first_key = kNever;
    std::int64_t limit = std::min(end, next_opening());
    for (const auto& flight : flights_) {
      const std::int64_t own = key(*flight);
      if (first == nullptr || own < first_key) {
        limit = first == nullptr ? limit : std::min(limit, first_key);
        first = flight.get();
        first_key = own;
      } else {
        limit = std::min(limit, own);
      }
    }
    if (first_key >= next_opening() && next_opening() < end) {
      open();
      continue;
    }
    if (first == nullptr || first_key >= end) {
      return;
    }
    do {
      const InstanceEvent& event = *peek(*first);
      check(*first, event);
      if (first->next < tables_.events.size() && &event == &tables_.events[first->next]) {
        ++first->next;
      } else {
        ++first->next_moved;
      }
      first_key = key(*first);
    } while (first_key <= limit && first_key < end);
    if (first_key == kNever) {
      flights_.erase(
          std::find_if(flights_.begin(), flights_.end(), [&](const auto& flight) { return flight.get() == first; }));
    }
  }
}

void CheckedChip::Checker::check(Flight& flight, const InstanceEvent& event) {
  const Instruction& instruction = text_.instructions[static_cast<std::size_t>(event.instruction)];
  const Site site{.chip = binding_.chip, .cycle = flight.start + event.cycle, .instruction = event.instruction};
  if (event.cycle < 0) {
    breach(site, "issues " + std::to_string(-event.cycle) + " cycles before its iteration starts");
  }
  switch (event.kind) {
    case InstanceKind::kFetch:
      fetch(site, instruction);
      return;
    case InstanceKind::kDispatch:
      dispatch(site, event.queue);
      return;
    case InstanceKind::kSource:
      if (instruction.opcode == Opcode::kReceive) {
        receive(site, flight, instruction, event.at);
      } else {
        access(site, flight, instruction, event);
      }
      return;
    case InstanceKind::kDrain:
      drain(site, flight, instruction, event.at);
      return;
    case InstanceKind::kCompute:
      compute(site, flight, instruction, event.at);
      return;
    case InstanceKind::kOperate:
      if (instruction.opcode == Opcode::kInstall) {
        install(site, flight, instruction, event.at);
      } else if (instruction.opcode == Opcode::kSend) {
        send(site, flight, instruction, event.at);
      } else {
        operate(site, flight, instruction, event.at);
      }
      return;
    case InstanceKind::kWrite:
      access(site, flight, instruction, event);
      return;
  }
}

void CheckedChip::Checker::fetch(const Site& site, const Instruction& instruction) {
  fetched_ = site.cycle == fetch_cycle_ ? fetched_ : 0;
  fetch_cycle_ = site.cycle;
  fetched_ += text_size(instruction, chip_).count();
  if (fetched_ > chip_.fetch_bytes_per_cycle) {
    breach(site,
           "fetches " + std::to_string(fetched_) + " B of program text in one cycle; " +
               std::to_string(chip_.fetch_bytes_per_cycle) + " B can be");
  }
}

void CheckedChip::Checker::dispatch(const Site& site, std::int32_t queue) {
  std::int64_t& last = queues_[static_cast<std::size_t>(queue)];
  if (last == site.cycle) {
    breach(site, "starts in a cycle in which its instruction queue starts another burst");
  }
  last = site.cycle;
}

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
  const bool has_user = owner.scope == TensorScope::kCache && operand.is_registered != 0;
  const std::int32_t in_batch = has_user ? user_in_batch(text_, instruction) : 0;
  if (is_gathered && static_cast<std::size_t>(slot) >= binding_.slot_owner.size()) {
    breach(site, "names " + name(tensor, row) + ", a part that no chip of the group owns");
  }
  const std::int32_t number = owner.scope == TensorScope::kCache && !is_gathered ? in_batch : slot;
  if (is_gathered && in_batch != 0) {
    return value_id(owner, binding_, plan_, flight.iteration, row, user_of(flight, instruction));
  }
  std::uint64_t& base = flight.bases[static_cast<std::size_t>(tables_.base_offset[tensor] + number)];
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
  if (depth_ago != kBefore && depth_ago > arrival) {
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
  if (depth_ago != kBefore && depth_ago > site.cycle) {
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

CheckedChip::CheckedChip(const CheckedText& text,
                         const ChipSpec& chip,
                         const ChipBinding& binding,
                         const IterationPlan& plan,
                         std::int64_t iterations,
                         Emulator& emulator)
    : checker_(std::make_unique<Checker>(text.tables(), chip, binding, plan, iterations)), emulator_(&emulator) {}
CheckedChip::~CheckedChip() = default;
CheckedChip::CheckedChip(CheckedChip&&) noexcept = default;
CheckedChip& CheckedChip::operator=(CheckedChip&&) noexcept = default;

ChipState CheckedChip::run() {
  ChipState state = ChipState::kReady;
  try {
    state = emulator_->run();
  } catch (const ScheduleViolation& late) {
    checker_->advance(late.violation().cycle);  // what went wrong before it is the cause
    throw;
  }
  checker_->advance(emulator_->settled());
  if (state == ChipState::kDone) {
    checker_->finish();
  }
  return state;
}

}  // namespace lpu::node
