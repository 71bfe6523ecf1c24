#include "numeric_text.hpp"

#include <algorithm>
#include <utility>

namespace lpu::node {
namespace {

/// A row of a static tensor, and where it lies.
struct RowPlace {
  Place place = 0;
  std::int32_t row = 0;
  std::uint16_t tensor = 0;
};

/// Rows of an allocation of a static tensor, for every displacement of its register.
void add_rows(const ChipProgram& text,
              const Allocation& made,
              const ChipSpec& chip,
              std::int32_t context,
              std::vector<RowPlace>& rows) {
  const Tensor& tensor = text.tensors[made.tensor];
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
            rows.push_back({make_place(made.hemisphere, slice, address, chip), row, made.tensor});
          }
        }
      }
    }
  }
}

/// Rows one behind the other as runs: of a matrix of weights, as many as there are slices.
std::vector<NumericText::Tables::StaticRun> runs_of(std::vector<RowPlace> rows) {
  std::sort(rows.begin(), rows.end(), [](const RowPlace& a, const RowPlace& b) {
    return std::tie(a.place, a.tensor, a.row) < std::tie(b.place, b.tensor, b.row);
  });
  rows.erase(
      std::unique(rows.begin(), rows.end(), [](const RowPlace& a, const RowPlace& b) { return a.place == b.place; }),
      rows.end());
  std::vector<NumericText::Tables::StaticRun> runs;
  for (const RowPlace& row : rows) {
    if (!runs.empty()) {
      auto& last = runs.back();
      const std::int32_t stride = row.row - (last.row + (last.places - 1) * last.row_stride);
      if (last.tensor == row.tensor && last.place + last.places == row.place &&
          (last.places == 1 || stride == last.row_stride)) {
        last.row_stride = stride;
        ++last.places;
        continue;
      }
    }
    runs.push_back({.place = row.place, .row = row.row, .tensor = row.tensor});
  }
  runs.shrink_to_fit();
  return runs;
}

bool is_moved(const ChipProgram& text, const Instruction& burst) {
  const RegisterKind kind = text.registers[burst.base_register].kind;
  return info(burst.opcode).unit == Unit::kMem &&
         (kind == RegisterKind::kToken || kind == RegisterKind::kAppend || kind == RegisterKind::kUser);
}

}  // namespace

std::vector<StoredStep> steps_of(const ChipProgram& text,
                                 const std::vector<DisplacedBurst>& bursts,
                                 const ChipSpec& chip) {
  std::vector<Step> steps;
  std::size_t count = 0;
  for (const DisplacedBurst& burst : bursts) {
    count += static_cast<std::size_t>(instances(text.instructions[static_cast<std::size_t>(burst.instruction)]));
  }
  steps.reserve(count);
  for (const DisplacedBurst& burst : bursts) {
    const auto instruction = static_cast<std::uint32_t>(burst.instruction);
    const auto own = static_cast<std::uint32_t>(instances(text.instructions[instruction]));
    for (std::uint32_t ordinal = 0; ordinal < own; ++ordinal) {
      steps.push_back(read_step(text, {instruction, ordinal}, burst.slices, chip));
    }
  }
  std::sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return is_before(a, b); });
  std::vector<StoredStep> out;
  out.reserve(count);
  for (const Step& step : steps) {
    const Instruction& burst = text.instructions[static_cast<std::size_t>(step.instruction)];
    out.push_back({static_cast<std::uint32_t>(step.instruction),
                   (std::uint32_t{step.at[0]} * burst.count[1] + step.at[1]) * burst.count[2] + step.at[2]});
  }
  return out;
}

bool NumericText::Tables::find_static(Place place, StaticRow& found) const {
  const auto after = std::upper_bound(
      statics.begin(), statics.end(), place, [](Place wanted, const StaticRun& run) { return wanted < run.place; });
  if (after == statics.begin()) {
    return false;
  }
  const StaticRun& run = *(after - 1);
  if (place >= run.place + run.places) {
    return false;
  }
  found = {run.tensor, run.row + (place - run.place) * run.row_stride};
  return true;
}

NumericText::NumericText(const ChipProgram& text, const ChipSpec& chip, const IterationPlan& plan)
    : tables_(std::make_unique<Tables>()) {
  tables_->text = &text;
  std::vector<DisplacedBurst> own;
  for (std::size_t i = 0; i < text.instructions.size(); ++i) {
    const Instruction& burst = text.instructions[i];
    const Unit unit = info(burst.opcode).unit;
    tables_->keepers.push_back(unit == Unit::kVxm || unit == Unit::kSxm ? tables_->kept++ : -1);
    if (is_moved(text, burst)) {
      tables_->moving.push_back(static_cast<std::int32_t>(i));
    } else {
      own.push_back({static_cast<std::int32_t>(i), 0});
    }
  }
  tables_->steps = steps_of(text, own, chip);
  std::vector<RowPlace> rows;
  for (const Allocation& made : text.allocations) {
    const Tensor& tensor = text.tensors[made.tensor];
    if (tensor.scope == TensorScope::kStatic && tensor.rows > 0) {
      add_rows(text, made, chip, plan.context, rows);
    }
  }
  tables_->statics = runs_of(std::move(rows));
}
NumericText::~NumericText() = default;
NumericText::NumericText(NumericText&&) noexcept = default;

}  // namespace lpu::node
