#include "checked_text.hpp"

#include <algorithm>
#include <map>
#include <tuple>

#include "lpu/node/burst_table.hpp"
#include "lpu/node/checked_chip.hpp"
#include "lpu/node/identity.hpp"

namespace lpu::node {

bool is_in_sram(std::int64_t slice, std::int64_t address, const ChipSpec& chip) {
  return slice >= 0 && slice < chip.slices_per_hemisphere && address >= 0 && address < chip.vectors_per_slice;
}

namespace {

std::string describe(Hemisphere hemisphere, std::int64_t slice, std::int64_t address) {
  return std::string("hemisphere ") + (hemisphere == Hemisphere::kWest ? "W" : "E") + ", slice " +
         std::to_string(slice) + ", address " + std::to_string(address);
}

}  // namespace

std::string describe(Place place, const ChipSpec& chip) {
  const std::int32_t slice = place / chip.vectors_per_slice;
  return describe(static_cast<Hemisphere>(slice / chip.slices_per_hemisphere),
                  slice % chip.slices_per_hemisphere,
                  place % chip.vectors_per_slice);
}

namespace {

/// Registers of one class move an access alike while they hold the same copy, user, expert, token or position.
std::vector<std::int32_t> register_classes(const ChipProgram& text) {
  std::map<std::vector<std::int64_t>, std::int32_t> known;
  std::vector<std::int32_t> classes;
  for (std::size_t i = 0; i < text.registers.size(); ++i) {
    const BaseRegister& base = text.registers[i];
    std::vector<std::int64_t> key;
    const bool moves_nothing =
        base.kind == RegisterKind::kNone || (base.kind == RegisterKind::kBuffer && base.copies == 1);
    if (!moves_nothing) {
      key = {static_cast<std::int64_t>(base.kind),
             base.copies,
             base.stride,
             base.row_stride,
             base.experts,
             base.append.hemisphere};
      if (base.kind == RegisterKind::kAppend) {
        key.push_back(static_cast<std::int64_t>(i));  // where it appends is its own
      }
      if (base.kind == RegisterKind::kUser) {
        key.push_back(base.user_in_batch);
      }
      for (const Displacement& displacement : base.table) {
        key.insert(key.end(),
                   {displacement.slice, displacement.address, displacement.row, displacement.is_enabled ? 1 : 0});
      }
    }
    classes.push_back(known.try_emplace(key, static_cast<std::int32_t>(known.size())).first->second);
  }
  return classes;
}

struct UserDisplacement {
  Displacement displacement;
  std::uint16_t user = 0;
};

/// Rows that (tensor, register class) may be accessed at, before displacement.
struct RowAt {
  std::int64_t place = 0;
  std::int32_t row = 0;
  std::uint16_t tensor = 0;
  friend bool operator<(const RowAt& a, const RowAt& b) { return std::tie(a.place, a.row) < std::tie(b.place, b.row); }
};

class TextChecker {
 public:
  TextChecker(const ChipProgram& text,
              const ChipSpec& chip,
              const IterationPlan& plan,
              std::int32_t chip_id,
              CheckedTextTables& out)
      : text_(text), chip_(chip), plan_(plan), chip_id_(chip_id), out_(out), classes_(register_classes(text)) {}

  void run() {
    out_.text = &text_;
    out_.chip = &chip_;
    const std::size_t places = static_cast<std::size_t>(chip_.vectors());
    out_.contents.assign(places, {});
    out_.dynamic.assign(places, -1);
    for (const Allocation& allocation : text_.allocations) {
      fill(allocation);
    }
    check_overlaps();
    check_program_text();
    for (auto& [key, rows] : rows_) {
      std::sort(rows.begin(), rows.end());
    }
    check_instructions(text_, chip_, chip_id_);
    for (std::size_t i = 0; i < text_.instructions.size(); ++i) {
      at_ = static_cast<std::int32_t>(i);
      if (info(text_.instructions[i].opcode).unit == Unit::kMem) {
        check_accesses(text_.instructions[i]);
      }
    }
    check_steady_state(text_, chip_, plan_, chip_id_);
    check_operations(text_, chip_id_);
    number_bases();
    make_events();
  }

 private:
  [[noreturn]] void fail(std::int64_t cycle, const std::string& reason) const {
    throw ScheduleViolation({.chip = chip_id_, .cycle = cycle, .instruction = at_, .reason = reason});
  }
  [[nodiscard]] const Tensor& tensor(std::uint16_t at) const { return text_.tensors[at]; }

  [[nodiscard]] std::vector<UserDisplacement> displacements(const Allocation& allocation) const {
    const BaseRegister& base = text_.registers[allocation.base_register];
    const TensorScope scope = tensor(allocation.tensor).scope;
    std::vector<UserDisplacement> out;
    if (scope == TensorScope::kCache && base.kind == RegisterKind::kUser) {
      for (std::size_t user = static_cast<std::size_t>(base.user_in_batch); user < base.table.size();
           user += static_cast<std::size_t>(plan_.micro_batch)) {
        if (base.table[user].is_enabled) {
          out.push_back({base.table[user], static_cast<std::uint16_t>(user)});
        }
      }
      return out;
    }
    if (base.kind == RegisterKind::kAppend) {
      return out;  // rows of a cache that its own allocations place
    }
    for (const Displacement& displacement : all_displacements(base, plan_.context)) {
      out.push_back({displacement, 0});
    }
    return out;
  }

  void fill(const Allocation& allocation) {
    at_ = -1;
    const std::vector<UserDisplacement> moves = displacements(allocation);
    auto& rows = rows_[{allocation.tensor, classes_[allocation.base_register]}];
    const bool appends = text_.registers[allocation.base_register].kind == RegisterKind::kAppend;
    std::int32_t i[3];
    for (i[0] = 0; i[0] < allocation.count[0]; ++i[0]) {
      for (i[1] = 0; i[1] < allocation.count[1]; ++i[1]) {
        for (i[2] = 0; i[2] < allocation.count[2]; ++i[2]) {
          std::int64_t row = allocation.row;
          std::int64_t slice = allocation.slice;
          std::int64_t address = allocation.address;
          for (std::size_t l = 0; l < 3; ++l) {
            row += std::int64_t{i[l]} * allocation.row_stride[l];
            slice += std::int64_t{i[l]} * allocation.slice_stride[l];
            address += std::int64_t{i[l]} * allocation.address_stride[l];
          }
          const std::int64_t key = place_key(allocation.hemisphere, slice, address);
          rows.push_back({.place = key, .row = static_cast<std::int32_t>(row), .tensor = allocation.tensor});
          if (appends) {
            append_rows_[allocation.base_register].push_back(rows.back());
          }
          for (const UserDisplacement& move : moves) {
            put(allocation,
                row + move.displacement.row,
                slice + move.displacement.slice,
                address + move.displacement.address,
                move.user);
          }
        }
      }
    }
  }

  void put(
      const Allocation& allocation, std::int64_t row, std::int64_t slice, std::int64_t address, std::uint16_t user) {
    const Tensor& owner = tensor(allocation.tensor);
    if (!is_in_sram(slice, address, chip_)) {
      fail(-1,
           "row " + std::to_string(row) + " of '" + owner.name + "' lies at " +
               describe(allocation.hemisphere, slice, address) + ", outside of SRAM");
    }
    const Place place = make_place(allocation.hemisphere, slice, address, chip_);
    if (owner.scope == TensorScope::kIteration) {
      std::int32_t& record = out_.dynamic[static_cast<std::size_t>(place)];
      record = record < 0 ? out_.dynamic_places++ : record;
      return;
    }
    Content& content = out_.contents[static_cast<std::size_t>(place)];
    if (content.tensor != Content::kNothing &&
        (content.tensor != allocation.tensor || content.row != row || content.user != user)) {
      fail(-1,
           describe(place, chip_) + " holds row " + std::to_string(content.row) + " of '" +
               tensor(content.tensor).name + "' and row " + std::to_string(row) + " of '" + owner.name + "'" +
               (content.user != user ? " of another user" : ""));
    }
    content = {.tensor = allocation.tensor, .user = user, .row = static_cast<std::int32_t>(row)};
  }

  void check_overlaps() const {
    for (std::size_t place = 0; place < out_.contents.size(); ++place) {
      if (out_.contents[place].tensor != Content::kNothing && out_.dynamic[place] >= 0) {
        fail(-1,
             describe(static_cast<Place>(place), chip_) + " holds row " + std::to_string(out_.contents[place].row) +
                 " of '" + tensor(out_.contents[place].tensor).name +
                 "' and is allocated to a tensor that every iteration writes");
      }
    }
  }

  void check_program_text() const {
    std::int64_t needed = 0;
    for (const Instruction& instruction : text_.instructions) {
      needed += text_size(instruction, chip_).count();
    }
    std::int64_t rows = 0;
    for (const Content& content : out_.contents) {
      rows += content.tensor != Content::kNothing && tensor(content.tensor).name == "program_text" ? 1 : 0;
    }
    if (needed > rows * chip_.vector_bytes) {
      fail(-1,
           "program text takes " + std::to_string(needed) + " B, its allocation has " +
               std::to_string(rows * chip_.vector_bytes) + " B");
    }
  }

  void check_accesses(const Instruction& instruction) {
    const StreamOperand& moved = instruction.operands[0];
    const bool is_write = instruction.opcode == Opcode::kWrite;
    if (text_.registers[instruction.base_register].kind == RegisterKind::kAppend && is_write) {
      find_append_targets(instruction);
      return;
    }
    const auto& rows = rows_[{moved.tensor, classes_[instruction.base_register]}];
    for_each_instance(instruction, [&](const LoopIndex& at) {
      const std::int64_t slice = unit_of(instruction, at);
      const std::int64_t address = affine(instruction.address, instruction.address_stride, at);
      const auto row = static_cast<std::int32_t>(affine(moved.row, moved.row_stride, at));
      const std::int64_t key = place_key(instruction.hemisphere, slice, address);
      const auto found = std::lower_bound(rows.begin(), rows.end(), RowAt{.place = key, .row = row});
      if (found != rows.end() && found->place == key && found->row == row) {
        return;
      }
      const auto other = std::lower_bound(rows.begin(), rows.end(), RowAt{.place = key, .row = -1});
      const bool is_allocated = other != rows.end() && other->place == key;
      fail(issue_cycle(instruction, at, slice, chip_),
           std::string(is_write ? "writes" : "reads") + " row " + std::to_string(row) + " of '" +
               tensor(moved.tensor).name + "' at " + describe(instruction.hemisphere, slice, address) + ", " +
               (is_allocated ? "where row " + std::to_string(other->row) + " lies"
                             : std::string("outside of its allocations")));
    });
  }

  /// The allocation with the append's register says which row of which cache the new value becomes.
  void find_append_targets(const Instruction& instruction) {
    const StreamOperand& moved = instruction.operands[0];
    auto& rows = append_rows_[instruction.base_register];
    std::sort(rows.begin(), rows.end());
    for_each_instance(instruction, [&](const LoopIndex& at) {
      const std::int64_t slice = unit_of(instruction, at);
      const std::int64_t address = affine(instruction.address, instruction.address_stride, at);
      const std::int64_t key = place_key(instruction.hemisphere, slice, address);
      for (auto row = std::lower_bound(
               rows.begin(), rows.end(), RowAt{.place = key, .row = std::numeric_limits<std::int32_t>::min()});
           row != rows.end() && row->place == key;
           ++row) {
        const auto& sources = tensor(row->tensor).sources;
        if (std::find(sources.begin(), sources.end(), moved.tensor) != sources.end()) {
          out_.append_targets.push_back({.instruction = at_, .at = at, .tensor = row->tensor, .row = row->row});
          return;
        }
      }
      fail(issue_cycle(instruction, at, slice, chip_),
           "appends '" + tensor(moved.tensor).name + "' at " + describe(instruction.hemisphere, slice, address) +
               ", where no cache that is made of it lies");
    });
  }

  void number_bases() {
    for (const Tensor& one : text_.tensors) {
      out_.base_offset.push_back(out_.value_bases);
      const std::int32_t slots =
          one.owner == TensorOwner::kGathered ? (one.rows + one.rows_per_slot - 1) / one.rows_per_slot : 1;
      out_.value_bases += one.scope == TensorScope::kCache ? std::max(slots, plan_.micro_batch) : slots;
    }
  }

  void make_events() {
    std::int32_t last_queue = 0;
    for (std::size_t i = 0; i < text_.instructions.size(); ++i) {
      const Instruction& instruction = text_.instructions[i];
      const auto number = static_cast<std::int32_t>(i);
      out_.events.push_back({.cycle = instruction.start, .instruction = number, .kind = InstanceKind::kFetch});
      if (moves_slices(instruction)) {
        out_.moving.push_back(number);
      } else {
        place_burst(text_, number, 0, chip_, out_.events);
      }
    }
    std::sort(out_.events.begin(), out_.events.end(), is_before);
    last_queue =
        2 * chip_.slices_per_hemisphere + 6 * chip_.mxm_planes_per_hemisphere + chip_.vxm_alus + 6 + 2 * chip_.links();
    out_.queues = last_queue;
  }

  [[nodiscard]] bool moves_slices(const Instruction& instruction) const {
    const BaseRegister& base = text_.registers[instruction.base_register];
    if (info(instruction.opcode).unit != Unit::kMem) {
      return false;
    }
    const bool has_table =
        base.kind == RegisterKind::kUser || base.kind == RegisterKind::kAppend || base.kind == RegisterKind::kToken;
    const bool table_moves =
        has_table && std::any_of(base.table.begin(), base.table.end(), [](const Displacement& displacement) {
          return displacement.slice != 0;
        });
    return table_moves || (base.kind == RegisterKind::kAppend && base.append.is_column);
  }

  const ChipProgram& text_;
  const ChipSpec& chip_;
  const IterationPlan& plan_;
  std::int32_t chip_id_;
  CheckedTextTables& out_;
  std::vector<std::int32_t> classes_;
  std::map<std::pair<std::uint16_t, std::int32_t>, std::vector<RowAt>> rows_;
  std::map<std::uint16_t, std::vector<RowAt>> append_rows_;
  std::int32_t at_ = -1;
};

}  // namespace

CheckedText::CheckedText(const ChipProgram& text, const ChipSpec& chip, const IterationPlan& plan, std::int32_t chip_id)
    : tables_(std::make_unique<CheckedTextTables>()) {
  TextChecker(text, chip, plan, chip_id, *tables_).run();
}
CheckedText::~CheckedText() = default;
CheckedText::CheckedText(CheckedText&&) noexcept = default;
CheckedText& CheckedText::operator=(CheckedText&&) noexcept = default;

}  // namespace lpu::node
