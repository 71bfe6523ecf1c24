#include "lpu/node/numeric_chip.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <string>
#include <tuple>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "numeric_passes.hpp"
#include "numeric_state.hpp"
#include "numeric_text.hpp"
#include "place_map.hpp"
#include "stream_rings.hpp"

namespace lpu::node {

namespace {

/// Rows of a cache go on from iteration to iteration.
bool is_cache_write(const ChipProgram& text, const Instruction& in) {
  const RegisterKind kind = text.registers[in.base_register].kind;
  return kind == RegisterKind::kAppend || kind == RegisterKind::kUser;
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

}  // namespace

/// The state of one chip: what stands in SRAM, on the streams, in the MXM.
class NumericChip::Machine {
 public:
  Machine(const NumericText::Tables& tables,
          StreamRings& streams,
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
        streams_(streams),
        displacements_(tables.text->registers.size()),
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
  [[nodiscard]] NumericSnapshot snapshot() const;
  void restore(const NumericSnapshot& from);

 private:
  static constexpr std::int32_t kRowsOfAValue = 4;
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
  /// A value of the cache that got one more position; what it was made of lives as long as its address is a key.
  struct Appended {
    ValuePtr before;
    ValuePtr value;
    std::int32_t rows = 0;  ///< that hold it now
  };
  /// The elements of a vector that is turned, one value each.
  struct Turned {
    ValuePtr vector;
    std::vector<ValuePtr> elements;
  };
  /// Elements of the vectors that entered the SXM.
  struct Pool {
    std::vector<float> numbers;  ///< per element
    std::vector<bool> is_there;
  };
  struct RegisterState {
    Displacement displacement;
    bool is_known = false;  ///< in this iteration
  };

  bool get_under_way();
  void read_own();
  void read_moved();
  bool advance();
  bool execute(const Step& step);
  void end_iteration();
  [[nodiscard]] Kept& kept();
  void forget_after_last(const Instruction& in, const LoopIndex& at);
  void access(const Instruction& in, const LoopIndex& at);
  bool receive(const Instruction& in, const LoopIndex& at);
  bool send(const Instruction& in, const LoopIndex& at);
  void encode_again(const Cell& row);
  void write(const Instruction& in, Place place, const Cell& cell);
  void choose(std::int32_t layer_slot, const Cell& row);
  [[nodiscard]] Cell masked(const Instruction& in, const Cell& before, const Cell& cell);
  [[nodiscard]] LanesPtr lanes_with(const LanesPtr& before, std::int32_t positions, std::int32_t position);
  void install(const Instruction& in, const LoopIndex& at);
  void compute(const Instruction& in, const LoopIndex& at);
  void drain(const Instruction& in, const LoopIndex& at);
  void copy(const Instruction& in, const LoopIndex& at);
  void vector(const Instruction& in, const LoopIndex& at);
  void cross_lane(const Instruction& in, const LoopIndex& at);
  void transpose(const Instruction& in, const LoopIndex& at);
  [[nodiscard]] static ValuePtr element_of(Turned& turned, const ValuePtr& vector, std::int32_t element);
  [[nodiscard]] ValuePtr packed(const Instruction& in, const StreamOperand& out, std::int32_t row);
  [[nodiscard]] const Displacement& displacement(const Instruction& in);
  [[nodiscard]] Displacement displacement_by(const BaseRegister& base) const;
  [[nodiscard]] std::int32_t row_of(const Instruction& in, const StreamOperand& operand, const LoopIndex& at);
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
           std::span<const Cell> cells);
  void put_value(const Instruction& in, const StreamOperand& operand, const LoopIndex& at, const ValuePtr& value);
  /// All inputs of the instance, held ones included: inputs_, east_, from_.
  void take_inputs(const Instruction& in, const LoopIndex& at);
  [[noreturn]] void fail(const std::string& reason) const;

  const NumericText::Tables& tables_;
  const ChipProgram& text_;
  const ChipSpec& chip_;
  const ChipBinding& binding_;
  const IterationPlan& plan_;
  NumericModel& model_;
  const NumericKernels& kernels_;
  PayloadPort& port_;
  StreamRings& streams_;                      ///< while it runs
  std::vector<StreamRings::Rider> riders_;    ///< while it waits
  std::vector<RegisterState> displacements_;  ///< per register
  std::vector<std::byte> wire_;               ///< the vector being sent or taken
  std::uint64_t fold_ = 0;
  NumericTimes times_;
  PlaceMap cache_;  ///< rows that stay
  PlaceMap rows_;   ///< of this iteration
  std::array<Planes, 2> planes_;
  std::array<Turned, 2> turned_;                                     ///< per hemisphere
  std::vector<std::unique_ptr<Kept>> kept_;                          ///< of instructions that keep something
  std::vector<Cell> cells_;                                          ///< of the instance under way
  std::vector<ValuePtr> inputs_;                                     ///< likewise
  std::vector<bool> east_;                                           ///< per input
  std::vector<std::uint16_t> from_;                                  ///< per input: its tensor
  std::map<std::pair<std::int32_t, std::uint16_t>, Pool> pools_;     ///< per (hemisphere, tensor that enters the SXM)
  std::map<std::int32_t, std::vector<std::int32_t>> experts_;        ///< per layer slot
  std::map<std::int32_t, std::array<Cell, kRowsOfAValue>> routing_;  ///< per layer slot: the answer's rows so far
  /// Of this iteration, by what decides it: the value before, the element, the bits of its number.
  std::map<std::tuple<const NumericValue*, std::int32_t, std::uint32_t>, Appended> appended_;
  /// Likewise lanes, by those before and the positions of a tile: those before, and the longer ones.
  std::map<std::pair<const Lanes*, std::int32_t>, std::pair<LanesPtr, LanesPtr>> lengthened_;
  LanesPtr in_order_;                    ///< of keys
  std::vector<StoredStep> moved_steps_;  ///< instances of this iteration whose slices a register gives
  std::size_t next_own_ = 0;             ///< of the text's own instances, behind own_
  std::size_t next_moved_ = 0;           ///< likewise
  Step own_;                             ///< the next one of the text's own
  Step moved_;                           ///< the next one of the others
  Step step_;
  bool has_own_ = false;
  bool has_moved_ = false;
  std::int64_t iteration_ = 0;
  std::int32_t token_in_ = 0;
  std::int32_t token_ = -1;
  std::vector<ValuePtr> logits_;
  bool is_under_way_ = false;  ///< the iteration
  const Step* now_ = nullptr;  ///< under way; null: the one before is done
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
  is_under_way_ = false;
}

/// With the first thing that it can do: until then most chips wait, and hold nothing while they do.
bool NumericChip::Machine::get_under_way() {
  next_own_ = 0;
  next_moved_ = 0;
  read_own();
  if (has_own_) {
    const Instruction& in = text_.instructions[static_cast<std::size_t>(own_.instruction)];
    if (in.opcode == Opcode::kReceive && !port_.has_vector(static_cast<std::int32_t>(unit_of(in, own_.at)))) {
      now_ = &own_;  // what it waits for
      return false;
    }
  }
  now_ = nullptr;
  is_under_way_ = true;
  std::fill(displacements_.begin(), displacements_.end(), RegisterState{});
  kept_.resize(static_cast<std::size_t>(tables_.kept));
  std::vector<DisplacedBurst> enabled;
  for (const std::int32_t instruction : tables_.moving) {
    const Displacement& at = displacement(text_.instructions[static_cast<std::size_t>(instruction)]);
    if (at.is_enabled) {
      enabled.push_back({instruction, at.slice});
    }
  }
  moved_steps_ = steps_of(text_, enabled, chip_);
  read_moved();
  return true;
}

void NumericChip::Machine::read_own() {
  has_own_ = next_own_ < tables_.steps.size();
  if (has_own_) {
    own_ = read_step(text_, tables_.steps[next_own_++], 0, chip_);
  }
}

void NumericChip::Machine::read_moved() {
  has_moved_ = next_moved_ < moved_steps_.size();
  if (has_moved_) {
    const StoredStep& stored = moved_steps_[next_moved_++];
    moved_ = read_step(text_, stored, displacement(text_.instructions[stored.instruction]).slice, chip_);
  }
}

/// What an iteration made is done with: only the cache goes on to the next one. Most chips wait for their turn most of
/// the time, and must not hold all this while they do.
void NumericChip::Machine::end_iteration() {
  rows_.clear();
  kept_ = std::vector<std::unique_ptr<Kept>>();
  cells_.clear();
  inputs_.clear();
  moved_steps_ = {};
  riders_ = {};
  pools_.clear();
  experts_.clear();
  routing_.clear();
  appended_.clear();
  lengthened_.clear();
  turned_ = {};
  planes_ = {};
}

NumericSnapshot NumericChip::Machine::snapshot() const {
  NumericSnapshot out = snapshot_of(cache_);
  out.fold = fold_;
  return out;
}

void NumericChip::Machine::restore(const NumericSnapshot& from) {
  cache_ = cache_of(from, chip_, binding_.chip);
  fold_ = from.fold;
}

/// Of the text's own instances and those that a register has moved, the one that comes first.
bool NumericChip::Machine::advance() {
  if (has_moved_ && (!has_own_ || is_before(moved_, own_))) {
    step_ = moved_;
    read_moved();
  } else if (has_own_) {
    step_ = own_;
    read_own();
  } else {
    return false;
  }
  now_ = &step_;
  return true;
}

bool NumericChip::Machine::run() {
  if (!is_under_way_ && !get_under_way()) {
    return false;
  }
  streams_.clear();
  streams_.bring_back(riders_);
  while (now_ != nullptr || advance()) {
    if (!execute(*now_)) {
      riders_ = streams_.riders(now_->cycle);
      return false;
    }
    fold_ = node::fold(fold_,
                       static_cast<std::uint64_t>(now_->instruction) << 32U | static_cast<std::uint32_t>(now_->cycle));
    now_ = nullptr;
  }
  end_iteration();
  return true;
}

const Displacement& NumericChip::Machine::displacement(const Instruction& in) {
  RegisterState& state = displacements_[in.base_register];
  if (!state.is_known) {
    state = {displacement_by(text_.registers[in.base_register]), true};
  }
  return state.displacement;
}

Displacement NumericChip::Machine::displacement_by(const BaseRegister& base) const {
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

std::int32_t NumericChip::Machine::row_of(const Instruction& in, const StreamOperand& operand, const LoopIndex& at) {
  const auto row = static_cast<std::int32_t>(affine(operand.row, operand.row_stride, at));
  return operand.is_registered != 0 ? row + displacement(in).row : row;
}

NumericChip::Machine::Kept& NumericChip::Machine::kept() {
  std::unique_ptr<Kept>& kept =
      kept_[static_cast<std::size_t>(tables_.keepers[static_cast<std::size_t>(now_->instruction)])];
  if (!kept) {
    kept = std::make_unique<Kept>();
  }
  return *kept;
}

bool NumericChip::Machine::take(const StreamOperand& operand,
                                const LoopIndex& at,
                                std::int64_t cycle,
                                std::int32_t position,
                                std::vector<Cell>& cells) {
  cells.clear();
  const StreamRings::Diagonal diagonal = StreamRings::diagonal(operand, cycle, position);
  const std::int32_t first = operand.stream + at[2] * operand.stream_stride;
  for (std::int32_t j = 0; j < operand.streams; ++j) {
    const Cell* cell = streams_.find(diagonal, first + j);
    if (cell == nullptr) {
      return false;
    }
    cells.push_back(*cell);
  }
  return true;
}

void NumericChip::Machine::put(const StreamOperand& operand,
                               const LoopIndex& at,
                               std::int64_t cycle,
                               std::int32_t position,
                               std::span<const Cell> cells) {
  const StreamRings::Diagonal diagonal = StreamRings::diagonal(operand, cycle, position);
  std::int32_t stream = operand.stream + at[2] * operand.stream_stride;
  for (const Cell& cell : cells) {
    streams_.put(diagonal, stream++, cell);
  }
}

void NumericChip::Machine::put_value(const Instruction& in,
                                     const StreamOperand& operand,
                                     const LoopIndex& at,
                                     const ValuePtr& value) {
  cells_.clear();
  for (std::int32_t j = 0; j < operand.streams; ++j) {
    cells_.push_back({value, j % kRowsOfAValue});
  }
  put(operand, at, now_->cycle + latency(in.opcode, chip_).count(), unit_position(in, chip_), cells_);
}

bool NumericChip::Machine::execute(const Step& step) {
  const Instruction& in = text_.instructions[static_cast<std::size_t>(step.instruction)];
  const LoopIndex& at = step.at;
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
    auto value = make_counted<NumericValue>();
    std::memcpy(&value->token, wire_.data(), sizeof value->token);
    cells_.assign(1, {std::move(value), 0});
    put(operand, at, now_->cycle, unit_position(in, chip_), cells_);
    return true;
  }
  const Packed packed = role == NumericRole::kCandidate ? Packed::kCandidate
                        : role == NumericRole::kChoices ? Packed::kChoices
                                                        : Packed::kNo;
  cells_.assign(1, decode(wire_, row % kRowsOfAValue, model_.lanes(operand.tensor, row), packed));
  put(operand, at, now_->cycle, unit_position(in, chip_), cells_);
  return true;
}

bool NumericChip::Machine::send(const Instruction& in, const LoopIndex& at) {
  if (!take(in.operands[0], at, now_->cycle, unit_position(in, chip_), cells_)) {
    fail("sends what does not stand on its stream");
  }
  const Cell& row = cells_.front();
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
  auto bytes = make_counted<NumericValue>();
  bytes->numbers = row.value->numbers;
  bytes->lanes = std::make_shared<const Lanes>();
  encode({std::move(bytes), row.part}, wire_);
}

void NumericChip::Machine::access(const Instruction& in, const LoopIndex& at) {
  const Displacement& moved = displacement(in);
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
  cells_.assign(1, {});
  if (in.opcode == Opcode::kWrite) {
    if (!take(in.operands[0], at, now_->cycle, position, cells_)) {
      fail("writes what does not stand on its stream");
    }
    write(in, place, cells_.front());
    return;
  }
  if (NumericText::Tables::StaticRow fixed; tables_.find_static(place, fixed)) {
    cells_.front() = model_.static_row(fixed.tensor, fixed.row);
  } else if (!rows_.find(place, cells_.front())) {
    static_cast<void>(cache_.find(place, cells_.front()));
  }
  put(in.operands[0], at, now_->cycle, position, cells_);
}

void NumericChip::Machine::write(const Instruction& in, Place place, const Cell& cell) {
  const Tensor& tensor = text_.tensors[in.operands[0].tensor];
  PlaceMap& rows = is_cache_write(text_, in) ? cache_ : rows_;
  if ((in.mode & kWriteMasked) != 0) {
    if (cell.value) {
      Cell row;
      static_cast<void>(rows.find(place, row));
      rows.put(place, masked(in, row, cell));
    }
    return;
  }
  rows.put(place, cell);
  const NumericRole role = model_.role(in.operands[0].tensor);
  if (role == NumericRole::kChoices) {
    choose(tensor.layer_slot, cell);
  }
  if (cell.value && cell.value->token >= 0 && role == NumericRole::kToken) {
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
  std::fill(displacements_.begin(), displacements_.end(), RegisterState{});
}

/// A tile of positions, with the element of this one in its lane. The four rows of an element hold one value.
Cell NumericChip::Machine::masked(const Instruction& in, const Cell& before, const Cell& cell) {
  const AppendMap& map = text_.registers[in.base_register].append;
  if (map.positions_per_tile == 0) {
    fail("a masked write without a position");
  }
  const float number = cell.value->numbers.front();
  Appended& made = appended_[{before.value.get(), cell.value->label, std::bit_cast<std::uint32_t>(number)}];
  if (!made.value) {
    const std::int32_t position = plan_.position(iteration_);
    const auto lane = static_cast<std::size_t>(position % map.positions_per_tile);
    auto value = make_counted<NumericValue>();
    value->lanes = lanes_with(before.value ? before.value->lanes : nullptr, map.positions_per_tile, position);
    value->numbers.resize(value->lanes->size());
    if (before.value && before.value->numbers.size() == value->numbers.size()) {
      value->numbers = before.value->numbers;
    }
    value->numbers[lane] = number;
    value->label = cell.value->label;
    made = {before.value, std::move(value)};
  }
  const Cell row{made.value, cell.part};
  if (++made.rows == kRowsOfAValue) {
    appended_.erase({before.value.get(), cell.value->label, std::bit_cast<std::uint32_t>(number)});
  }
  return row;
}

/// The lanes of a tile of positions, with one more: the same for all elements.
LanesPtr NumericChip::Machine::lanes_with(const LanesPtr& before, std::int32_t positions, std::int32_t position) {
  auto& [kept, made] = lengthened_[{before.get(), positions}];
  if (!made) {
    const bool goes_on = before && before->size() == static_cast<std::size_t>(positions);
    auto lanes =
        goes_on ? std::make_shared<Lanes>(*before) : std::make_shared<Lanes>(static_cast<std::size_t>(positions), -1);
    (*lanes)[static_cast<std::size_t>(position % positions)] = position;
    kept = before;
    made = std::move(lanes);
  }
  return made;
}

void NumericChip::Machine::install(const Instruction& in, const LoopIndex& at) {
  Planes& planes = planes_[static_cast<std::size_t>(in.hemisphere)];
  if (at[1] == 0 && at[2] == 0) {
    planes.building = std::make_shared<WeightTile>();
    planes.building->is_blocked = model_.role(in.operands[1].tensor) == NumericRole::kValueCache;
  }
  if (!planes.building || !take(in.operands[0], at, now_->cycle, unit_position(in, chip_), cells_)) {
    fail("installs what does not stand on its streams");
  }
  for (std::size_t j = 0; j + kRowsOfAValue <= cells_.size(); j += kRowsOfAValue) {
    planes.building->push_back(assemble_column(&cells_[j]));
  }
  if (at[1] + 1 == in.count[1] && at[2] + 1 == in.count[2]) {
    planes.building->runs.shrink_to_fit();
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
  if (!take(in.operands[0], at, now_->cycle, unit_position(in, chip_), cells_)) {
    fail("computes with what does not stand on its streams");
  }
  const ValuePtr activation = assemble(cells_.data(), static_cast<std::int32_t>(cells_.size()));
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
  auto value = make_counted<NumericValue>();
  if (unit_of(in, at) == 0) {
    value->terms =
        planes_[static_cast<std::size_t>(in.hemisphere)].accumulators[affine(in.address, in.address_stride, at)];
  }
  put_value(in, in.operands[0], at, value);
}

void NumericChip::Machine::take_inputs(const Instruction& in, const LoopIndex& at) {
  Kept& kept = this->kept();
  inputs_.clear();
  east_.clear();
  from_.clear();
  for (std::size_t i = 0; i < in.operands.size(); ++i) {
    const StreamOperand& operand = in.operands[i];
    if (operand.kind != OperandKind::kIn) {
      continue;
    }
    if (is_moved_here(operand, in, at)) {
      kept.inputs[i].clear();
      if (!take(operand, at, now_->cycle, unit_position(in, chip_), cells_)) {
        if (in.opcode == Opcode::kSelect) {
          continue;
        }
        fail("takes " + text_.tensors[operand.tensor].name + ", which does not stand on its streams");
      }
      for (std::size_t j = 0; j < cells_.size(); j += kRowsOfAValue) {
        const auto count = static_cast<std::int32_t>(std::min<std::size_t>(kRowsOfAValue, cells_.size() - j));
        ValuePtr value = assemble(&cells_[j], count);
        if (!value) {
          fail("takes " + text_.tensors[operand.tensor].name + " from a row that nobody wrote");
        }
        kept.inputs[i].push_back(std::move(value));
      }
    }
    for (const ValuePtr& value : kept.inputs[i]) {
      inputs_.push_back(value);
      east_.push_back(operand.hemisphere == Hemisphere::kEast);
      from_.push_back(operand.tensor);
    }
  }
}

/// Rows go on as they are: a hop copies single bytes of a value.
void NumericChip::Machine::copy(const Instruction& in, const LoopIndex& at) {
  if (!take(in.operands[0], at, now_->cycle, unit_position(in, chip_), cells_)) {
    fail("copies what does not stand on its stream");
  }
  for (const StreamOperand& operand : in.operands) {
    if (operand.kind == OperandKind::kOut) {
      put(operand, at, now_->cycle + latency(in.opcode, chip_).count(), unit_position(in, chip_), cells_);
    }
  }
}

void NumericChip::Machine::vector(const Instruction& in, const LoopIndex& at) {
  take_inputs(in, at);
  Kept& kept = this->kept();
  ValuePtr first;
  const PassContext context{&kernels_, &model_, plan_.position(iteration_), &in_order_};
  for (const StreamOperand& operand : in.operands) {
    if (operand.kind != OperandKind::kOut) {
      continue;
    }
    const bool is_first = !first;
    if (is_first) {
      const Timer timer(times_.kernels);
      first = vector_pass(context, in.opcode, inputs_, east_, operand.tensor);
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
        auto moved = make_counted<NumericValue>(*value);
        moved->lanes = lanes;
        moved->numbers.resize(lanes->size());
        value = std::move(moved);
      } else if (value->lanes && *value->lanes != *lanes) {
        auto moved = make_counted<NumericValue>(*collect({value}, lanes));
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
  forget_after_last(in, at);
}

/// What a burst keeps from instance to instance is of no use after its last one.
void NumericChip::Machine::forget_after_last(const Instruction& in, const LoopIndex& at) {
  if (at[0] + 1 == in.count[0] && at[1] + 1 == in.count[1] && at[2] + 1 == in.count[2]) {
    kept_[static_cast<std::size_t>(tables_.keepers[static_cast<std::size_t>(now_->instruction)])].reset();
  }
}

ValuePtr NumericChip::Machine::packed(const Instruction& in, const StreamOperand& out, std::int32_t row) {
  const LanesPtr lanes = model_.lanes(out.tensor, row);
  if (!lanes) {
    fail("joins lanes of " + text_.tensors[out.tensor].name + ", whose layout is not known");
  }
  auto value = make_counted<NumericValue>();
  value->lanes = lanes;
  value->numbers.resize(lanes->size());
  for (const std::uint16_t source : text_.tensors[out.tensor].sources) {
    const auto pool = pools_.find({static_cast<std::int32_t>(in.hemisphere), source});
    if (pool == pools_.end()) {
      continue;
    }
    for (std::size_t lane = 0; lane < lanes->size(); ++lane) {
      const auto element = static_cast<std::size_t>((*lanes)[lane]);
      if ((*lanes)[lane] >= 0 && element < pool->second.numbers.size() && pool->second.is_there[element]) {
        value->numbers[lane] = pool->second.numbers[element];
      }
    }
  }
  return value;
}

void NumericChip::Machine::cross_lane(const Instruction& in, const LoopIndex& at) {
  take_inputs(in, at);
  const bool joins = in.opcode == Opcode::kPack || in.opcode == Opcode::kRotate;
  for (std::size_t i = 0; joins && i < inputs_.size(); ++i) {
    Pool& pool = pools_[{static_cast<std::int32_t>(in.hemisphere), from_[i]}];
    const LanesPtr& lanes = inputs_[i]->lanes;
    for (std::size_t lane = 0; lanes && lane < lanes->size(); ++lane) {
      const auto element = static_cast<std::size_t>((*lanes)[lane]);
      if ((*lanes)[lane] >= 0) {
        if (element >= pool.numbers.size()) {
          pool.numbers.resize(element + 1);
          pool.is_there.resize(element + 1);
        }
        pool.numbers[element] = inputs_[i]->numbers[lane];
        pool.is_there[element] = true;
      }
    }
  }
  for (const StreamOperand& operand : in.operands) {
    if (operand.kind == OperandKind::kOut && is_moved_here(operand, in, at)) {
      put_value(in, operand, at, joins ? packed(in, operand, row_of(in, operand, at)) : inputs_.front());
    }
  }
  forget_after_last(in, at);
}

/// The same value for all four of its rows.
ValuePtr NumericChip::Machine::element_of(Turned& turned, const ValuePtr& vector, std::int32_t element) {
  if (turned.vector != vector) {
    turned.vector = vector;
    turned.elements.assign(vector->numbers.size(), nullptr);
  }
  ValuePtr& value = turned.elements[static_cast<std::size_t>(element)];
  if (!value) {
    auto one = make_counted<NumericValue>();
    one->numbers = {vector->numbers[static_cast<std::size_t>(element)]};
    one->label = element;
    value = std::move(one);
  }
  return value;
}

void NumericChip::Machine::transpose(const Instruction& in, const LoopIndex& at) {
  take_inputs(in, at);
  std::vector<ValuePtr> inputs = inputs_;
  // The SXM deals one vector out over several bursts: those that take nothing go on with what the first one took.
  if (inputs.empty()) {
    for (std::int32_t before = now_->instruction; before-- > 0 && inputs.empty();) {
      const Instruction& other = text_.instructions[static_cast<std::size_t>(before)];
      if (other.opcode == Opcode::kTranspose && other.hemisphere == in.hemisphere) {
        const auto& other_kept = kept_[static_cast<std::size_t>(tables_.keepers[static_cast<std::size_t>(before)])];
        inputs = other_kept ? other_kept->inputs[0] : inputs;
      }
    }
    kept().inputs[0] = inputs;
  }
  if (inputs.empty()) {
    fail("turns a vector that it did not take");
  }
  for (const StreamOperand& operand : in.operands) {
    if (operand.kind != OperandKind::kOut) {
      continue;
    }
    const std::int32_t row = row_of(in, operand, at);
    cells_.clear();
    for (std::int32_t j = 0; j < operand.streams; ++j) {
      const std::int32_t element = (row + j) % model_.value_width();
      Cell cell{nullptr, (row + j) / model_.value_width()};
      if (static_cast<std::size_t>(element) < inputs.front()->numbers.size()) {
        cell.value = element_of(turned_[static_cast<std::size_t>(in.hemisphere)], inputs.front(), element);
      }
      cells_.push_back(std::move(cell));
    }
    put(operand, at, now_->cycle + latency(in.opcode, chip_).count(), unit_position(in, chip_), cells_);
  }
}

NumericBench::NumericBench(const ChipSpec& chip) : streams_(std::make_unique<StreamRings>(chip)) {}
NumericBench::~NumericBench() = default;
NumericBench::NumericBench(NumericBench&&) noexcept = default;

NumericChip::NumericChip(const NumericText& text,
                         NumericBench& bench,
                         const ChipSpec& chip,
                         const ChipBinding& binding,
                         const IterationPlan& plan,
                         NumericModel& model,
                         const NumericKernels& kernels,
                         PayloadPort& port)
    : machine_(std::make_unique<Machine>(text.tables(), bench.streams(), chip, binding, plan, model, kernels, port)) {}
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
NumericSnapshot NumericChip::snapshot() const {
  return machine_->snapshot();
}
void NumericChip::restore(const NumericSnapshot& from) {
  machine_->restore(from);
}

}  // namespace lpu::node
