#include "lpu/node/numeric_chip.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string>
#include <unordered_map>

#include "checked_text.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "numeric_passes.hpp"

namespace lpu::node {

struct NumericText::Tables {
  /// A row of a static tensor.
  struct StaticRow {
    std::uint16_t tensor = 0;
    std::int32_t row = 0;
  };
  const ChipProgram* text = nullptr;
  std::vector<InstanceEvent> events;  ///< of bursts that no register moves from slice to slice
  std::vector<std::int32_t> moving;   ///< the others
  std::unordered_map<Place, StaticRow> statics;
};

namespace {

bool is_dispatch(const InstanceEvent& event) {
  return event.kind == InstanceKind::kDispatch || event.kind == InstanceKind::kFetch;
}

void add_events(const ChipProgram& text,
                std::int32_t instruction,
                std::int32_t slices,
                const ChipSpec& chip,
                std::vector<InstanceEvent>& events) {
  const auto before = static_cast<std::ptrdiff_t>(events.size());
  place_burst(text, instruction, slices, chip, events);
  events.erase(std::remove_if(events.begin() + before, events.end(), is_dispatch), events.end());
}

/// Adds its own lifetime to a sum.
class Timer {
 public:
  explicit Timer(std::chrono::nanoseconds& sum) : sum_(sum) {}
  ~Timer() { sum_ += std::chrono::steady_clock::now() - begin_; }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  Timer(Timer&&) = delete;
  Timer& operator=(Timer&&) = delete;

 private:
  std::chrono::nanoseconds& sum_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// Rows of static tensors by their places, for every displacement of the allocation's register.
void find_statics(NumericText::Tables& tables, const ChipSpec& chip, std::int32_t context) {
  const ChipProgram& text = *tables.text;
  for (const Allocation& made : text.allocations) {
    const Tensor& tensor = text.tensors[made.tensor];
    if (tensor.scope != TensorScope::kStatic || tensor.rows == 0) {
      continue;
    }
    const BaseRegister& base = text.registers[made.base_register];
    for (const Displacement& moved : all_displacements(base, context)) {
      LoopIndex at{};
      for (at[0] = 0; at[0] < made.count[0]; ++at[0]) {
        for (at[1] = 0; at[1] < made.count[1]; ++at[1]) {
          for (at[2] = 0; at[2] < made.count[2]; ++at[2]) {
            const std::int64_t slice = affine(made.slice, made.slice_stride, at) + moved.slice;
            const std::int64_t address = affine(made.address, made.address_stride, at) + moved.address;
            const auto row = static_cast<std::int32_t>(affine(made.row, made.row_stride, at)) + moved.row;
            if (is_in_sram(slice, address, chip) && row < tensor.rows) {
              tables.statics[make_place(made.hemisphere, slice, address, chip)] = {made.tensor, row};
            }
          }
        }
      }
    }
  }
}

}  // namespace

NumericText::NumericText(const ChipProgram& text, const ChipSpec& chip, const IterationPlan& plan)
    : tables_(std::make_unique<Tables>()) {
  tables_->text = &text;
  for (std::size_t i = 0; i < text.instructions.size(); ++i) {
    const Instruction& burst = text.instructions[i];
    const RegisterKind kind = text.registers[burst.base_register].kind;
    const bool is_memory = info(burst.opcode).unit == Unit::kMem;
    if (is_memory && (kind == RegisterKind::kToken || kind == RegisterKind::kAppend || kind == RegisterKind::kUser)) {
      tables_->moving.push_back(static_cast<std::int32_t>(i));
    } else {
      add_events(text, static_cast<std::int32_t>(i), 0, chip, tables_->events);
    }
  }
  std::sort(tables_->events.begin(), tables_->events.end(), is_before);
  find_statics(*tables_, chip, plan.context);
}
NumericText::~NumericText() = default;
NumericText::NumericText(NumericText&&) noexcept = default;

/// The state of one chip: what stands in SRAM, on the streams, in the MXM.
class NumericChip::Machine {
 public:
  Machine(const NumericText::Tables& tables,
          const ChipSpec& chip,
          const ChipBinding& binding,
          const IterationPlan& plan,
          NumericModel& model,
          const NumericKernels& kernels,
          PayloadPort& port)
      : tables_(tables),
        text_(*tables.text),
        chip_(chip),
        binding_(binding),
        plan_(plan),
        model_(model),
        kernels_(kernels),
        port_(port),
        streams_(static_cast<std::size_t>(4 * chip.streams_per_direction) * kRing),
        wire_(static_cast<std::size_t>(chip.vector_bytes)) {}

  void begin(std::int64_t k, std::int32_t token);
  bool run();
  [[nodiscard]] Wait wait() const;
  [[nodiscard]] std::int32_t waits_on() const;
  [[nodiscard]] bool takes_token() const;
  [[nodiscard]] const NumericTimes& times() const { return times_; }
  [[nodiscard]] std::uint64_t fold() const { return fold_; }
  [[nodiscard]] std::int32_t token() const { return token_; }
  [[nodiscard]] std::span<const ValuePtr> logits() const { return logits_; }

 private:
  static constexpr std::int32_t kRowsOfAValue = 4;
  static constexpr std::int64_t kRing = 64;  ///< more cycles than a value is on its way
  struct Standing {
    std::int64_t diagonal = INT64_MIN;
    Cell cell;
  };
  /// The weights of one hemisphere's two planes.
  struct Planes {
    using Name = std::pair<std::uint16_t, std::int32_t>;
    std::shared_ptr<WeightTile> building;
    std::shared_ptr<const WeightTile> complete;
    std::shared_ptr<const WeightTile> active;
    Name complete_name{};
    Name active_name{};
    std::map<std::int64_t, std::vector<ProductTerm>> accumulators;
  };
  /// What an instruction keeps from instance to instance.
  struct Kept {
    std::array<std::vector<ValuePtr>, 4> inputs;
    ValuePtr sum;
  };
  using Pool = std::unordered_map<std::int32_t, float>;

  bool advance();
  bool execute(const InstanceEvent& event);
  void access(const Instruction& in, const LoopIndex& at);
  bool receive(const Instruction& in, const LoopIndex& at);
  bool send(const Instruction& in, const LoopIndex& at);
  void encode_again(const Cell& row);
  void write(const Instruction& in, Place place, const Cell& cell);
  void choose(std::int32_t layer_slot, const Cell& row);
  [[nodiscard]] Cell masked(const Instruction& in, const Cell& before, const Cell& cell) const;
  void install(const Instruction& in, const LoopIndex& at);
  void compute(const Instruction& in, const LoopIndex& at);
  void drain(const Instruction& in, const LoopIndex& at);
  void copy(const Instruction& in, const LoopIndex& at);
  void vector(const Instruction& in, const LoopIndex& at);
  void cross_lane(const Instruction& in, const LoopIndex& at);
  void transpose(const Instruction& in, const LoopIndex& at);
  [[nodiscard]] ValuePtr packed(const Instruction& in, const StreamOperand& out, std::int32_t row);
  [[nodiscard]] Displacement displacement(const Instruction& in) const;
  [[nodiscard]] std::int32_t row_of(const Instruction& in, const StreamOperand& operand, const LoopIndex& at) const;
  [[nodiscard]] Standing& place_on(const StreamOperand& operand,
                                   std::int32_t stream,
                                   std::int64_t cycle,
                                   std::int32_t position,
                                   std::int64_t* diagonal);
  /// @return false: nothing stands there
  bool take(const StreamOperand& operand,
            const LoopIndex& at,
            std::int64_t cycle,
            std::int32_t position,
            std::vector<Cell>& cells);
  void put(const StreamOperand& operand,
           const LoopIndex& at,
           std::int64_t cycle,
           std::int32_t position,
           const std::vector<Cell>& cells);
  void put_value(const Instruction& in, const StreamOperand& operand, const LoopIndex& at, const ValuePtr& value);
  /// All inputs of the instance, held ones included.
  void take_inputs(const Instruction& in,
                   const LoopIndex& at,
                   std::vector<ValuePtr>& inputs,
                   std::vector<bool>& east,
                   std::vector<std::uint16_t>& tensors);
  [[noreturn]] void fail(const std::string& reason) const;

  const NumericText::Tables& tables_;
  const ChipProgram& text_;
  const ChipSpec& chip_;
  const ChipBinding& binding_;
  const IterationPlan& plan_;
  NumericModel& model_;
  const NumericKernels& kernels_;
  PayloadPort& port_;
  std::vector<Standing> streams_;
  std::vector<std::byte> wire_;  ///< the vector being sent or taken
  std::uint64_t fold_ = 0;
  NumericTimes times_;
  std::unordered_map<Place, Cell> memory_;
  std::array<Planes, 2> planes_;
  std::vector<Kept> kept_;
  std::map<std::pair<std::int32_t, std::uint16_t>, Pool> pools_;     ///< per (hemisphere, tensor that enters the SXM)
  std::map<std::int32_t, std::vector<std::int32_t>> experts_;        ///< per layer slot
  std::map<std::int32_t, std::array<Cell, kRowsOfAValue>> routing_;  ///< per layer slot: the answer's rows so far
  std::vector<InstanceEvent> moved_;  ///< instances of this iteration whose slices a register gives
  std::size_t next_ = 0;              ///< of the text's own instances
  std::size_t next_moved_ = 0;
  std::int64_t iteration_ = 0;
  std::int32_t token_in_ = 0;
  std::int32_t token_ = -1;
  std::vector<ValuePtr> logits_;
  const InstanceEvent* now_ = nullptr;  ///< under way; null: the one before is done
};

void NumericChip::Machine::fail(const std::string& reason) const {
  throw ScheduleViolation({.chip = binding_.chip,
                           .cycle = now_->cycle + plan_.start(iteration_) + binding_.offset,
                           .instruction = now_->instruction,
                           .reason = reason});
}

void NumericChip::Machine::begin(std::int64_t k, std::int32_t token) {
  iteration_ = k;
  token_in_ = token;
  token_ = -1;
  logits_.clear();
  pools_.clear();
  experts_.clear();
  routing_.clear();
  kept_.assign(text_.instructions.size(), {});
  moved_.clear();
  for (const std::int32_t instruction : tables_.moving) {
    const Displacement at = displacement(text_.instructions[static_cast<std::size_t>(instruction)]);
    if (at.is_enabled) {
      add_events(text_, instruction, at.slice, chip_, moved_);
    }
  }
  std::sort(moved_.begin(), moved_.end(), is_before);
  next_ = 0;
  next_moved_ = 0;
}

/// Of the text's own instances and those that a register has moved, the one that comes first.
bool NumericChip::Machine::advance() {
  const bool has_own = next_ < tables_.events.size();
  if (next_moved_ < moved_.size() && (!has_own || is_before(moved_[next_moved_], tables_.events[next_]))) {
    now_ = &moved_[next_moved_++];
    return true;
  }
  now_ = has_own ? &tables_.events[next_++] : nullptr;
  return has_own;
}

bool NumericChip::Machine::run() {
  while (now_ != nullptr || advance()) {
    if (!execute(*now_)) {
      return false;
    }
    fold_ = node::fold(fold_,
                       static_cast<std::uint64_t>(now_->instruction) << 32U | static_cast<std::uint32_t>(now_->cycle));
    now_ = nullptr;
  }
  return true;
}

Displacement NumericChip::Machine::displacement(const Instruction& in) const {
  const BaseRegister& base = text_.registers[in.base_register];
  switch (base.kind) {
    case RegisterKind::kToken:
      return displace_by_token(base, token_in_);
    case RegisterKind::kExpert: {
      if (plan_.expert_slots >= plan_.experts) {
        return displace(base, plan_, iteration_, expert_slots(plan_, iteration_, 0));
      }
      const auto chosen = experts_.find(base.layer_slot);
      if (chosen == experts_.end() || base.expert_slot >= static_cast<std::int32_t>(chosen->second.size())) {
        fail("loads an expert before the routing has chosen one");
      }
      return displace(base, plan_, iteration_, chosen->second);
    }
    case RegisterKind::kNone:
    case RegisterKind::kBuffer:
    case RegisterKind::kUser:
    case RegisterKind::kAppend:
    case RegisterKind::kPosition:
      return displace(base, plan_, iteration_, {});
  }
  return {};
}

std::int32_t NumericChip::Machine::row_of(const Instruction& in,
                                          const StreamOperand& operand,
                                          const LoopIndex& at) const {
  const auto row = static_cast<std::int32_t>(affine(operand.row, operand.row_stride, at));
  return operand.is_registered != 0 ? row + displacement(in).row : row;
}

NumericChip::Machine::Standing& NumericChip::Machine::place_on(const StreamOperand& operand,
                                                               std::int32_t stream,
                                                               std::int64_t cycle,
                                                               std::int32_t position,
                                                               std::int64_t* diagonal) {
  const bool is_outward = operand.direction == Direction::kOutward;
  *diagonal = is_outward ? cycle - position : cycle + position;
  const std::int64_t lane =
      (static_cast<std::int64_t>(operand.hemisphere) * 2 + (is_outward ? 0 : 1)) * chip_.streams_per_direction + stream;
  return streams_[static_cast<std::size_t>(lane * kRing + ((*diagonal % kRing) + kRing) % kRing)];
}

bool NumericChip::Machine::take(const StreamOperand& operand,
                                const LoopIndex& at,
                                std::int64_t cycle,
                                std::int32_t position,
                                std::vector<Cell>& cells) {
  cells.clear();
  for (std::int32_t j = 0; j < operand.streams; ++j) {
    std::int64_t diagonal = 0;
    const Standing& standing =
        place_on(operand, operand.stream + at[2] * operand.stream_stride + j, cycle, position, &diagonal);
    if (standing.diagonal != diagonal) {
      return false;
    }
    cells.push_back(standing.cell);
  }
  return true;
}

void NumericChip::Machine::put(const StreamOperand& operand,
                               const LoopIndex& at,
                               std::int64_t cycle,
                               std::int32_t position,
                               const std::vector<Cell>& cells) {
  for (std::size_t j = 0; j < cells.size(); ++j) {
    std::int64_t diagonal = 0;
    Standing& standing = place_on(operand,
                                  operand.stream + at[2] * operand.stream_stride + static_cast<std::int32_t>(j),
                                  cycle,
                                  position,
                                  &diagonal);
    standing = {diagonal, cells[j]};
  }
}

void NumericChip::Machine::put_value(const Instruction& in,
                                     const StreamOperand& operand,
                                     const LoopIndex& at,
                                     const ValuePtr& value) {
  std::vector<Cell> cells;
  for (std::int32_t j = 0; j < operand.streams; ++j) {
    cells.push_back({value, j % 4});
  }
  put(operand, at, now_->cycle + latency(in.opcode, chip_).count(), unit_position(in, chip_), cells);
}

bool NumericChip::Machine::execute(const InstanceEvent& event) {
  const Instruction& in = text_.instructions[static_cast<std::size_t>(event.instruction)];
  const LoopIndex& at = event.at;
  switch (info(in.opcode).unit) {
    case Unit::kMem:
      access(in, at);
      return true;
    case Unit::kVxm:
      in.opcode == Opcode::kCopy ? copy(in, at) : vector(in, at);
      return true;
    case Unit::kSxm:
      in.opcode == Opcode::kTranspose ? transpose(in, at) : cross_lane(in, at);
      return true;
    case Unit::kC2c: {
      const Timer timer(times_.moving);
      return in.opcode == Opcode::kReceive ? receive(in, at) : send(in, at);
    }
    case Unit::kMxm:
      in.opcode == Opcode::kInstall ? install(in, at) : in.opcode == Opcode::kCompute ? compute(in, at) : drain(in, at);
      return true;
  }
  return true;
}

Wait NumericChip::Machine::wait() const {
  const Instruction& in = text_.instructions[static_cast<std::size_t>(now_->instruction)];
  const std::int32_t link = waits_on();
  return {.chip = binding_.chip,
          .cycle = now_->cycle + plan_.start(iteration_) + binding_.offset,
          .instruction = now_->instruction,
          .link = link,
          .from = binding_.peers[static_cast<std::size_t>(link)].chip,
          .iteration = iteration_,
          .transfer = text_.transfers[in.transfer].name};
}

std::int32_t NumericChip::Machine::waits_on() const {
  return static_cast<std::int32_t>(unit_of(text_.instructions[static_cast<std::size_t>(now_->instruction)], now_->at));
}

bool NumericChip::Machine::takes_token() const {
  return std::any_of(text_.registers.begin(), text_.registers.end(), [](const BaseRegister& base) {
    return base.kind == RegisterKind::kToken;
  });
}

bool NumericChip::Machine::receive(const Instruction& in, const LoopIndex& at) {
  if (!port_.receive(static_cast<std::int32_t>(unit_of(in, at)), wire_)) {
    return false;
  }
  fold_ = node::fold(fold_, digest_bytes(wire_));
  const StreamOperand& operand = in.operands[0];
  const std::int32_t row = row_of(in, operand, at);
  const NumericRole role = model_.role(operand.tensor);
  if (role == NumericRole::kToken) {
    auto value = std::make_shared<NumericValue>();
    std::memcpy(&value->token, wire_.data(), sizeof value->token);
    put(operand, at, now_->cycle, unit_position(in, chip_), {{value, 0}});
    return true;
  }
  const Packed packed = role == NumericRole::kCandidate ? Packed::kCandidate
                        : role == NumericRole::kChoices ? Packed::kChoices
                                                        : Packed::kNo;
  put(operand,
      at,
      now_->cycle,
      unit_position(in, chip_),
      {decode(wire_, row % kRowsOfAValue, model_.lanes(operand.tensor, row), packed)});
  return true;
}

bool NumericChip::Machine::send(const Instruction& in, const LoopIndex& at) {
  std::vector<Cell> cells;
  if (!take(in.operands[0], at, now_->cycle, unit_position(in, chip_), cells)) {
    fail("sends what does not stand on its stream");
  }
  const Cell& row = cells.front();
  if (row.value && model_.role(in.operands[0].tensor) == NumericRole::kToken) {
    std::fill(wire_.begin(), wire_.end(), std::byte{0});
    std::memcpy(wire_.data(), &row.value->token, sizeof row.value->token);
  } else if (row.value && row.value->packed == Packed::kNo) {
    encode(row, wire_);
  } else {
    encode_again(row);
  }
  fold_ = node::fold(fold_, digest_bytes(wire_));
  port_.send(static_cast<std::int32_t>(unit_of(in, at)), wire_);
  return true;
}

/// A row that came over a link and goes on: its bytes are its numbers' own.
void NumericChip::Machine::encode_again(const Cell& row) {
  std::fill(wire_.begin(), wire_.end(), std::byte{0});
  if (!row.value) {
    return;
  }
  NumericValue bytes;
  bytes.numbers = row.value->numbers;
  bytes.lanes = std::make_shared<const Lanes>();
  encode({std::make_shared<const NumericValue>(std::move(bytes)), row.part}, wire_);
}

void NumericChip::Machine::access(const Instruction& in, const LoopIndex& at) {
  const Displacement moved = displacement(in);
  if (!moved.is_enabled) {
    return;
  }
  const std::int64_t slice = unit_of(in, at) + moved.slice;
  const std::int64_t address = affine(in.address, in.address_stride, at) + moved.address;
  if (!is_in_sram(slice, address, chip_)) {
    fail("an access outside SRAM");
  }
  const Place place = make_place(in.hemisphere, slice, address, chip_);
  const std::int32_t position = chip_.slice_position(static_cast<std::int32_t>(slice));
  std::vector<Cell> cells(1);
  if (in.opcode == Opcode::kWrite) {
    if (!take(in.operands[0], at, now_->cycle, position, cells)) {
      fail("writes what does not stand on its stream");
    }
    write(in, place, cells.front());
    return;
  }
  if (const auto fixed = tables_.statics.find(place); fixed != tables_.statics.end()) {
    cells.front() = model_.static_row(fixed->second.tensor, fixed->second.row);
  } else if (const auto made = memory_.find(place); made != memory_.end()) {
    cells.front() = made->second;
  }
  put(in.operands[0], at, now_->cycle, position, cells);
}

void NumericChip::Machine::write(const Instruction& in, Place place, const Cell& cell) {
  if ((in.mode & kWriteMasked) != 0) {
    if (cell.value) {
      Cell& row = memory_[place];
      row = masked(in, row, cell);
    }
    return;
  }
  memory_[place] = cell;
  if (model_.role(in.operands[0].tensor) == NumericRole::kChoices) {
    choose(text_.tensors[in.operands[0].tensor].layer_slot, cell);
  }
  if (cell.value && cell.value->token >= 0 && model_.role(in.operands[0].tensor) == NumericRole::kToken) {
    token_ = cell.value->token;
  }
}

/// A row of the routing's answer: with the last of the four, the layer's expert registers are loaded.
void NumericChip::Machine::choose(std::int32_t layer_slot, const Cell& row) {
  std::array<Cell, kRowsOfAValue>& rows = routing_[layer_slot];
  rows[static_cast<std::size_t>(row.part % kRowsOfAValue)] = row;
  const ValuePtr answer = assemble(rows.data(), kRowsOfAValue);
  if (!answer) {
    return;
  }
  std::vector<std::int32_t> experts;
  for (const ExpertChoice& choice : answer->choices) {
    if (choice.expert < 0 || choice.expert >= plan_.experts) {
      fail("a routing's answer names expert " + std::to_string(choice.expert));
    }
    experts.push_back(static_cast<std::int32_t>(choice.expert));
  }
  experts_[layer_slot] = std::move(experts);
}

Cell NumericChip::Machine::masked(const Instruction& in, const Cell& before, const Cell& cell) const {
  const AppendMap& map = text_.registers[in.base_register].append;
  if (map.positions_per_tile == 0) {
    fail("a masked write without a position");
  }
  const std::int32_t position = plan_.position(iteration_);
  const auto lane = static_cast<std::size_t>(position % map.positions_per_tile);
  auto value = std::make_shared<NumericValue>();
  auto lanes = std::make_shared<Lanes>(static_cast<std::size_t>(map.positions_per_tile), -1);
  value->numbers.resize(lanes->size());
  if (before.value && before.value->lanes && before.value->lanes->size() == lanes->size()) {
    *lanes = *before.value->lanes;
    value->numbers = before.value->numbers;
  }
  (*lanes)[lane] = position;
  value->numbers[lane] = cell.value->numbers.front();
  value->label = cell.value->label;
  value->lanes = std::move(lanes);
  return {value, cell.part};
}

void NumericChip::Machine::install(const Instruction& in, const LoopIndex& at) {
  Planes& planes = planes_[static_cast<std::size_t>(in.hemisphere)];
  if (at[1] == 0 && at[2] == 0) {
    planes.building = std::make_shared<WeightTile>();
    planes.building->is_blocked = model_.role(in.operands[1].tensor) == NumericRole::kValueCache;
  }
  std::vector<Cell> cells;
  if (!planes.building || !take(in.operands[0], at, now_->cycle, unit_position(in, chip_), cells)) {
    fail("installs what does not stand on its streams");
  }
  constexpr std::size_t kBytes = 4;
  for (std::size_t j = 0; j + kBytes <= cells.size(); j += kBytes) {
    planes.building->columns.push_back(assemble(&cells[j], kBytes));
  }
  if (at[1] + 1 == in.count[1] && at[2] + 1 == in.count[2]) {
    planes.complete = std::move(planes.building);
    planes.complete_name = {in.operands[1].tensor, row_of(in, in.operands[1], {at[0], 0, 0})};
  }
}

void NumericChip::Machine::compute(const Instruction& in, const LoopIndex& at) {
  if (at[2] > 0) {
    return;  // the pair's tile was multiplied with its first plane
  }
  Planes& planes = planes_[static_cast<std::size_t>(in.hemisphere)];
  const Planes::Name name{in.operands[1].tensor, row_of(in, in.operands[1], at)};
  if (planes.complete && planes.complete_name == name) {
    planes.active = std::move(planes.complete);
    planes.active_name = name;
    planes.complete.reset();
  }
  if (!planes.active || planes.active_name != name) {
    fail("computes with a tile that does not stand in its planes");
  }
  std::vector<Cell> cells;
  if (!take(in.operands[0], at, now_->cycle, unit_position(in, chip_), cells)) {
    fail("computes with what does not stand on its streams");
  }
  const ValuePtr activation = assemble(cells.data(), static_cast<std::int32_t>(cells.size()));
  if (!activation) {
    fail("computes with a row that nobody wrote");
  }
  std::vector<ProductTerm>& sum = planes.accumulators[affine(in.address, in.address_stride, at)];
  bool overwrites = (in.mode & kComputeOverwrites) != 0;
  for (unsigned l = 0; l < 3; ++l) {
    overwrites = overwrites && ((in.mode >> l & 1U) == 0 || at[l] == 0);
  }
  if (overwrites) {
    sum.clear();
  }
  sum.push_back({planes.active, activation});
}

void NumericChip::Machine::drain(const Instruction& in, const LoopIndex& at) {
  auto value = std::make_shared<NumericValue>();
  if (unit_of(in, at) == 0) {
    value->terms =
        planes_[static_cast<std::size_t>(in.hemisphere)].accumulators[affine(in.address, in.address_stride, at)];
  }
  put_value(in, in.operands[0], at, value);
}

void NumericChip::Machine::take_inputs(const Instruction& in,
                                       const LoopIndex& at,
                                       std::vector<ValuePtr>& inputs,
                                       std::vector<bool>& east,
                                       std::vector<std::uint16_t>& tensors) {
  Kept& kept = kept_[static_cast<std::size_t>(now_->instruction)];
  std::vector<Cell> cells;
  for (std::size_t i = 0; i < in.operands.size(); ++i) {
    const StreamOperand& operand = in.operands[i];
    if (operand.kind != OperandKind::kIn) {
      continue;
    }
    if (is_moved_here(operand, in, at)) {
      kept.inputs[i].clear();
      if (!take(operand, at, now_->cycle, unit_position(in, chip_), cells)) {
        if (in.opcode == Opcode::kSelect) {
          continue;
        }
        fail("takes " + text_.tensors[operand.tensor].name + ", which does not stand on its streams");
      }
      constexpr std::size_t kBytes = 4;
      for (std::size_t j = 0; j < cells.size(); j += kBytes) {
        const auto count = static_cast<std::int32_t>(std::min(kBytes, cells.size() - j));
        ValuePtr value = assemble(&cells[j], count);
        if (!value) {
          fail("takes " + text_.tensors[operand.tensor].name + " from a row that nobody wrote");
        }
        kept.inputs[i].push_back(std::move(value));
      }
    }
    for (const ValuePtr& value : kept.inputs[i]) {
      inputs.push_back(value);
      east.push_back(operand.hemisphere == Hemisphere::kEast);
      tensors.push_back(operand.tensor);
    }
  }
}

/// Rows go on as they are: a hop copies single bytes of a value.
void NumericChip::Machine::copy(const Instruction& in, const LoopIndex& at) {
  std::vector<Cell> cells;
  if (!take(in.operands[0], at, now_->cycle, unit_position(in, chip_), cells)) {
    fail("copies what does not stand on its stream");
  }
  for (const StreamOperand& operand : in.operands) {
    if (operand.kind == OperandKind::kOut) {
      put(operand, at, now_->cycle + latency(in.opcode, chip_).count(), unit_position(in, chip_), cells);
    }
  }
}

void NumericChip::Machine::vector(const Instruction& in, const LoopIndex& at) {
  std::vector<ValuePtr> inputs;
  std::vector<bool> east;
  std::vector<std::uint16_t> tensors;
  take_inputs(in, at, inputs, east, tensors);
  Kept& kept = kept_[static_cast<std::size_t>(now_->instruction)];
  ValuePtr first;
  const PassContext context{&kernels_, &model_, plan_.position(iteration_)};
  for (const StreamOperand& operand : in.operands) {
    if (operand.kind != OperandKind::kOut) {
      continue;
    }
    const bool is_first = !first;
    if (is_first) {
      const Timer timer(times_.kernels);
      first = vector_pass(context, in.opcode, inputs, east, operand.tensor);
      if (!first) {
        fail("the pass " + std::string(info(in.opcode).name) + " to " + text_.tensors[operand.tensor].name +
             " has no meaning in the numeric plane");
      }
    }
    const NumericRole role = model_.role(operand.tensor);
    ValuePtr value = is_first ? first : second_output(in.opcode, role, first);
    if (operand.held != 0) {
      const bool restarts = [&] {
        for (unsigned l = 0; l < 3; ++l) {
          if ((operand.held >> l & 1U) != 0 && at[l] != 0) {
            return false;
          }
        }
        return true;
      }();
      kept.sum = restarts ? value : merge(in.opcode, kept.sum, value);
      value = kept.sum;
    }
    if (!is_moved_here(operand, in, at)) {
      continue;
    }
    const std::int32_t row = row_of(in, operand, at);
    if (const LanesPtr lanes = model_.lanes(operand.tensor, row);
        lanes && !value->numbers.empty() && value->token < 0) {
      if (in.opcode == Opcode::kMultiply) {
        auto moved = std::make_shared<NumericValue>(*value);
        moved->lanes = lanes;
        moved->numbers.resize(lanes->size());
        value = std::move(moved);
      } else if (value->lanes && *value->lanes != *lanes) {
        auto moved = std::make_shared<NumericValue>(*collect({value}, lanes));
        moved->factor = value->factor;
        moved->has_factor = value->has_factor;
        value = std::move(moved);
      }
    }
    if (role == NumericRole::kLogits) {
      logits_.push_back(value);
    }
    put_value(in, operand, at, value);
  }
}

ValuePtr NumericChip::Machine::packed(const Instruction& in, const StreamOperand& out, std::int32_t row) {
  const LanesPtr lanes = model_.lanes(out.tensor, row);
  if (!lanes) {
    fail("joins lanes of " + text_.tensors[out.tensor].name + ", whose layout is not known");
  }
  auto value = std::make_shared<NumericValue>();
  value->lanes = lanes;
  value->numbers.resize(lanes->size());
  for (const std::uint16_t source : text_.tensors[out.tensor].sources) {
    const auto pool = pools_.find({static_cast<std::int32_t>(in.hemisphere), source});
    if (pool == pools_.end()) {
      continue;
    }
    for (std::size_t lane = 0; lane < lanes->size(); ++lane) {
      if (const auto found = pool->second.find((*lanes)[lane]); found != pool->second.end()) {
        value->numbers[lane] = found->second;
      }
    }
  }
  return value;
}

void NumericChip::Machine::cross_lane(const Instruction& in, const LoopIndex& at) {
  std::vector<ValuePtr> inputs;
  std::vector<bool> east;
  std::vector<std::uint16_t> tensors;
  take_inputs(in, at, inputs, east, tensors);
  const bool joins = in.opcode == Opcode::kPack || in.opcode == Opcode::kRotate;
  for (std::size_t i = 0; joins && i < inputs.size(); ++i) {
    Pool& pool = pools_[{static_cast<std::int32_t>(in.hemisphere), tensors[i]}];
    const LanesPtr& lanes = inputs[i]->lanes;
    for (std::size_t lane = 0; lanes && lane < lanes->size(); ++lane) {
      if ((*lanes)[lane] >= 0) {
        pool[(*lanes)[lane]] = inputs[i]->numbers[lane];
      }
    }
  }
  for (const StreamOperand& operand : in.operands) {
    if (operand.kind == OperandKind::kOut && is_moved_here(operand, in, at)) {
      put_value(in, operand, at, joins ? packed(in, operand, row_of(in, operand, at)) : inputs.front());
    }
  }
}

void NumericChip::Machine::transpose(const Instruction& in, const LoopIndex& at) {
  std::vector<ValuePtr> inputs;
  std::vector<bool> east;
  std::vector<std::uint16_t> tensors;
  std::vector<Cell> cells;
  Kept& kept = kept_[static_cast<std::size_t>(now_->instruction)];
  take_inputs(in, at, inputs, east, tensors);
  // The SXM deals one vector out over several bursts: those that take nothing go on with what the first one took.
  if (inputs.empty()) {
    for (std::int32_t before = now_->instruction; before-- > 0 && inputs.empty();) {
      const Instruction& other = text_.instructions[static_cast<std::size_t>(before)];
      if (other.opcode == Opcode::kTranspose && other.hemisphere == in.hemisphere) {
        inputs = kept_[static_cast<std::size_t>(before)].inputs[0];
      }
    }
    kept.inputs[0] = inputs;
  }
  if (inputs.empty()) {
    fail("turns a vector that it did not take");
  }
  for (const StreamOperand& operand : in.operands) {
    if (operand.kind != OperandKind::kOut) {
      continue;
    }
    const std::int32_t row = row_of(in, operand, at);
    for (std::int32_t j = 0; j < operand.streams; ++j) {
      const std::int32_t element = (row + j) % model_.value_width();
      Cell cell{nullptr, (row + j) / model_.value_width()};
      if (static_cast<std::size_t>(element) < inputs.front()->numbers.size()) {
        auto one = std::make_shared<NumericValue>();
        one->numbers = {inputs.front()->numbers[static_cast<std::size_t>(element)]};
        one->label = element;
        cell.value = std::move(one);
      }
      cells.push_back(std::move(cell));
    }
    put(operand, at, now_->cycle + latency(in.opcode, chip_).count(), unit_position(in, chip_), cells);
  }
}

NumericChip::NumericChip(const NumericText& text,
                         const ChipSpec& chip,
                         const ChipBinding& binding,
                         const IterationPlan& plan,
                         NumericModel& model,
                         const NumericKernels& kernels,
                         PayloadPort& port)
    : machine_(std::make_unique<Machine>(text.tables(), chip, binding, plan, model, kernels, port)) {}
NumericChip::~NumericChip() = default;
NumericChip::NumericChip(NumericChip&&) noexcept = default;

void NumericChip::begin(std::int64_t k, std::int32_t token) {
  machine_->begin(k, token);
}
bool NumericChip::run() {
  return machine_->run();
}
Wait NumericChip::wait() const {
  return machine_->wait();
}
std::int32_t NumericChip::waits_on() const {
  return machine_->waits_on();
}
bool NumericChip::takes_token() const {
  return machine_->takes_token();
}
const NumericTimes& NumericChip::times() const {
  return machine_->times();
}
std::uint64_t NumericChip::fold() const {
  return machine_->fold();
}
std::int32_t NumericChip::token() const {
  return machine_->token();
}
std::span<const ValuePtr> NumericChip::logits() const {
  return machine_->logits();
}

}  // namespace lpu::node
