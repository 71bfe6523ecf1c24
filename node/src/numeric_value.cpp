#include "lpu/node/numeric_value.hpp"

#include <algorithm>
#include <bit>
#include <span>
#include <utility>

#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

constexpr std::int32_t kParts = 4;  // bytes of a lane

/// A column of a tile, wherever its numbers are.
struct Column {
  std::int32_t label = -1;
  const Lanes* lanes = nullptr;
  const std::byte* stored = nullptr;            ///< a whole row of a checkpoint's matrix; null: there is none
  StoredType type = StoredType::kFloat32;       ///< of stored
  std::int64_t elements = 0;                    ///< of stored
  const std::vector<float>* numbers = nullptr;  ///< per lane; null: stored

  [[nodiscard]] std::int64_t stored_row_bytes() const { return elements * stored_bytes(type); }
};

Column stored_column(const WeightColumns& weights, std::int32_t index) {
  const WeightColumns::Column& column = weights.columns[static_cast<std::size_t>(index)];
  return {.label = column.label,
          .lanes = weights.lanes[column.tile].get(),
          .stored = column.row,
          .type = column.type,
          .elements = weights.elements};
}

Column column_of(const Cell& cell) {
  const NumericValue& value = *cell.value;
  if (value.weights != nullptr) {
    return stored_column(*value.weights, cell.part / kParts);
  }
  return {.label = value.label, .lanes = value.lanes.get(), .numbers = &value.numbers};
}

/// Calls visit(column) in the order of the install.
template <typename Visit>
void for_each_column(const WeightTile& tile, Visit visit) {
  for (const WeightTile::Run& run : tile.runs) {
    if (!run.first.value) {
      visit(Column{});
    } else if (run.first.value->weights == nullptr) {
      visit(column_of(run.first));
    } else {
      for (std::int32_t i = 0; i < run.columns; ++i) {
        visit(stored_column(*run.first.value->weights, run.first.part / kParts + i));
      }
    }
  }
}

/// The lanes' numbers, weights widened.
std::vector<float> numbers_of(const Column& column) {
  if (column.numbers != nullptr) {
    return *column.numbers;
  }
  if (column.lanes == nullptr) {
    return {};
  }
  std::vector<float> out(column.lanes->size());
  const NumericKernels& kernels = numeric_kernels(SimdTarget::kScalar);
  for (std::size_t lane = 0; column.stored != nullptr && lane < out.size(); ++lane) {
    if (const std::int32_t element = (*column.lanes)[lane]; element >= 0) {
      kernels.widen(column.stored + element * stored_bytes(column.type), column.type, {&out[lane], 1});
    }
  }
  return out;
}

/// Every term's contribution to one label.
struct Sum {
  std::int32_t label = -1;
  std::vector<std::pair<Column, const NumericValue*>> parts;  ///< column, activation
};

std::vector<Sum> by_label(const std::vector<ProductTerm>& terms) {
  std::vector<Sum> out;
  std::vector<std::int32_t> at;  // per label: which sum; -1: none yet
  for (const ProductTerm& term : terms) {
    for_each_column(*term.tile, [&](const Column& column) {
      if (column.label < 0) {
        if (terms.size() == 1) {
          out.push_back({});  // a padding keeps its lane
        }
        return;
      }
      const auto label = static_cast<std::size_t>(column.label);
      if (label >= at.size()) {
        at.resize(label + 1, -1);
      }
      if (at[label] < 0) {
        at[label] = static_cast<std::int32_t>(out.size());
        out.push_back({column.label, {}});
      }
      out[static_cast<std::size_t>(at[label])].parts.emplace_back(column, term.activation.get());
    });
  }
  return out;
}

/// x[element of the lane] = the lane's number.
void scatter(const Lanes& elements, const std::vector<float>& numbers, std::vector<float>& x) {
  const std::size_t lanes = std::min(elements.size(), numbers.size());
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    const std::int32_t element = elements[lane];
    if (element >= 0) {
      if (static_cast<std::size_t>(element) >= x.size()) {
        x.resize(static_cast<std::size_t>(element) + 1);
      }
      x[static_cast<std::size_t>(element)] = numbers[lane];
    }
  }
}

/// The tile's lanes, where all its columns are of matrices of weights and have the same; nullptr: they are not.
const Lanes* common_lanes(const WeightTile& tile) {
  const Lanes* lanes = nullptr;
  bool is_one = true;
  for_each_column(tile, [&](const Column& column) {
    lanes = lanes == nullptr ? column.lanes : lanes;
    is_one = is_one && column.numbers == nullptr && column.lanes != nullptr && column.lanes == lanes;
  });
  return is_one ? lanes : nullptr;
}

/// Tiles that hold other elements of the same stored rows.
bool have_equal_rows(const WeightTile& a, const WeightTile& b) {
  return std::equal(
      a.runs.begin(),
      a.runs.end(),
      b.runs.begin(),
      b.runs.end(),
      [](const WeightTile::Run& x, const WeightTile::Run& y) {
        const auto* own = &x.first.value->weights->columns[static_cast<std::size_t>(x.first.part / kParts)];
        const auto* other = &y.first.value->weights->columns[static_cast<std::size_t>(y.first.part / kParts)];
        return x.columns == y.columns && std::equal(own, own + x.columns, other, [](const auto& c, const auto& d) {
                 return c.label == d.label && c.row == d.row;
               });
      });
}

/// Tiles of the same columns, and what they are multiplied with.
struct RowGroup {
  const WeightTile* tile = nullptr;
  std::vector<std::pair<const Lanes*, const NumericValue*>> activations;
};

/// @return nothing where a tile is no part of whole rows, or a label is in two groups
std::vector<RowGroup> groups_of_rows(const std::vector<ProductTerm>& terms) {
  std::vector<RowGroup> out;
  for (const ProductTerm& term : terms) {
    const Lanes* lanes = common_lanes(*term.tile);
    if (lanes == nullptr) {
      return {};
    }
    const auto same = std::find_if(
        out.begin(), out.end(), [&](const RowGroup& group) { return have_equal_rows(*group.tile, *term.tile); });
    RowGroup& group = same == out.end() ? out.emplace_back(RowGroup{term.tile.get(), {}}) : *same;
    group.activations.emplace_back(lanes, term.activation.get());
  }
  std::vector<bool> is_there;
  bool is_unique = true;
  for (const RowGroup& group : out) {
    for_each_column(*group.tile, [&](const Column& column) {
      const auto label = static_cast<std::size_t>(std::max(column.label, 0));
      if (column.label >= 0) {
        is_there.resize(std::max(is_there.size(), label + 1));
        is_unique = is_unique && !is_there[label];
        is_there[label] = true;
      }
    });
  }
  return is_unique ? out : std::vector<RowGroup>();
}

/// Columns that are whole rows of stored matrices: activations are put in the order of their elements once a group.
void evaluate_rows(const NumericKernels& kernels,
                   const std::vector<RowGroup>& groups,
                   bool keeps_paddings,
                   Lanes& labels,
                   std::vector<float>& numbers) {
  std::vector<float> x;
  for (const RowGroup& group : groups) {
    x.clear();
    for (const auto& [lanes, activation] : group.activations) {
      scatter(*lanes, activation->numbers, x);
    }
    StoredMatrix rows;
    const auto flush = [&] {
      if (rows.rows > 0) {
        x.resize(static_cast<std::size_t>(rows.columns));
        kernels.linear(rows, x, std::span(numbers).last(static_cast<std::size_t>(rows.rows)));
        rows.rows = 0;
      }
    };
    for_each_column(*group.tile, [&](const Column& column) {
      const bool goes_on = column.label >= 0 && rows.rows > 0 && column.type == rows.type &&
                           column.stored == rows.data + rows.rows * rows.row_bytes;
      if (!goes_on) {
        flush();
      }
      if (column.label < 0 && !keeps_paddings) {
        return;
      }
      labels.push_back(column.label);
      numbers.push_back(0.0F);
      if (goes_on) {
        ++rows.rows;
      } else if (column.label >= 0) {
        rows = {column.stored, column.type, 1, column.elements, column.stored_row_bytes()};
      }
    });
    flush();
  }
}

/// Elements 0, 1, 2, ... in lanes 0, 1, 2, ...
bool are_in_order(const Lanes& lanes) {
  for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
    if (lanes[lane] != static_cast<std::int32_t>(lane)) {
      return false;
    }
  }
  return true;
}

/// Any columns: elements of both sides are gathered label by label.
float evaluate_one(const NumericKernels& kernels, const Sum& sum, const Lanes* in_order) {
  float y = 0.0F;
  if (sum.parts.size() == 1) {
    const auto& [column, activation] = sum.parts.front();
    const std::size_t size = column.numbers == nullptr ? 0 : column.numbers->size();
    if (size > 0 && column.lanes == in_order && in_order != nullptr && in_order->size() == size &&
        activation->numbers.size() >= size) {
      const auto count = static_cast<std::int64_t>(size);
      kernels.linear({std::as_bytes(std::span(*column.numbers)).data(), StoredType::kFloat32, 1, count, 4 * count},
                     std::span(activation->numbers).first(size),
                     {&y, 1});
      return y;
    }
  }
  std::vector<float> x;
  std::vector<float> weights;
  for (const auto& [column, activation] : sum.parts) {
    if (column.lanes == nullptr) {
      continue;
    }
    scatter(*column.lanes, activation->numbers, x);
    scatter(*column.lanes, numbers_of(column), weights);
  }
  x.resize(std::max(x.size(), weights.size()));
  weights.resize(x.size());
  const auto count = static_cast<std::int64_t>(x.size());
  const StoredMatrix row = {std::as_bytes(std::span(weights)).data(), StoredType::kFloat32, 1, count, 4 * count};
  kernels.linear(row, x, {&y, 1});
  return y;
}

/// Probabilities times values: positions ascending, in blocks.
void evaluate_blocked(const NumericKernels& kernels, const std::vector<Sum>& sums, std::vector<float>& out) {
  std::vector<float> p;
  const Lanes* known = nullptr;
  const NumericValue* known_activation = nullptr;
  for (const Sum& sum : sums) {
    for (const auto& [column, activation] : sum.parts) {
      if (column.lanes != nullptr && (column.lanes != known || activation != known_activation)) {
        scatter(*column.lanes, activation->numbers, p);
      }
      known = column.lanes;
      known_activation = activation;
    }
  }
  std::vector<float> matrix(p.size() * sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) {
    for (const auto& [column, activation] : sums[i].parts) {
      if (column.lanes == nullptr || column.numbers == nullptr) {
        continue;
      }
      const std::size_t lanes = std::min(column.lanes->size(), column.numbers->size());
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        const auto position = static_cast<std::size_t>((*column.lanes)[lane]);
        if ((*column.lanes)[lane] >= 0 && position < p.size()) {
          matrix[position * sums.size() + i] = (*column.numbers)[lane];
        }
      }
    }
  }
  const auto width = static_cast<std::int64_t>(sums.size());
  kernels.weighted_sum(p,
                       0,
                       {std::as_bytes(std::span(matrix)).data(),
                        StoredType::kFloat32,
                        static_cast<std::int64_t>(p.size()),
                        width,
                        4 * width},
                       out);
}

/// Numbers that stand for the value on a link.
std::vector<float> wire_numbers(const Cell& row) {
  const NumericValue& value = *row.value;
  if (!value.choices.empty()) {
    std::vector<float> out{std::bit_cast<float>(static_cast<std::uint32_t>(value.choices.size()))};
    for (const ExpertChoice& choice : value.choices) {
      out.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(choice.expert)));
      out.push_back(choice.weight);
    }
    return out;
  }
  if (!value.lanes && value.numbers.size() == 1) {
    return {value.numbers.front(), std::bit_cast<float>(value.token)};
  }
  return numbers_of(column_of(row));
}

/// What a link's numbers stood for.
void unpack(NumericValue& value) {
  const std::vector<float> numbers = std::move(value.numbers);
  value.numbers.clear();
  if (value.packed == Packed::kCandidate && numbers.size() > 1) {
    value.numbers = {numbers[0]};
    value.token = std::bit_cast<std::int32_t>(numbers[1]);
  }
  if (value.packed == Packed::kChoices && !numbers.empty()) {
    const std::size_t most = (numbers.size() - 1) / 2;
    const std::size_t count = std::min<std::size_t>(most, std::bit_cast<std::uint32_t>(numbers[0]));
    std::vector<ExpertChoice> choices;
    for (std::size_t i = 0; i < count; ++i) {
      choices.push_back({std::bit_cast<std::int32_t>(numbers[2 * i + 1]), numbers[2 * i + 2]});
    }
    value.choices = std::move(choices);
  }
  value.packed = Packed::kNo;
}

}  // namespace

void encode(const Cell& row, std::span<std::byte> bytes) {
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  if (!row.value) {
    return;
  }
  const std::vector<float> numbers = wire_numbers(row);
  const auto shift = static_cast<std::uint32_t>(8 * (row.part % kParts));
  for (std::size_t lane = 0; lane < std::min(numbers.size(), bytes.size()); ++lane) {
    bytes[lane] = static_cast<std::byte>(std::bit_cast<std::uint32_t>(numbers[lane]) >> shift & 0xffU);
  }
}

Cell decode(std::span<const std::byte> bytes, std::int32_t part, const LanesPtr& lanes, Packed packed) {
  auto value = make_counted<NumericValue>();
  value->lanes = lanes;
  value->packed = packed;
  value->numbers.resize(lanes ? std::min(lanes->size(), bytes.size()) : bytes.size());
  const auto shift = static_cast<std::uint32_t>(8 * part);
  for (std::size_t lane = 0; lane < value->numbers.size(); ++lane) {
    value->numbers[lane] = std::bit_cast<float>(std::to_integer<std::uint32_t>(bytes[lane]) << shift);
  }
  return {std::move(value), part};
}

namespace {

/// @return whether the rows are the bytes of one value, in their order; of weights: of one column
bool are_of_one_value(const Cell* rows, std::int32_t count) {
  for (std::int32_t part = 1; part < count; ++part) {
    if (rows[part].value != rows[0].value || rows[part].part != rows[0].part + part) {
      return false;
    }
  }
  return rows[0].value && (rows[0].value->weights == nullptr || rows[0].part % kParts + count <= kParts);
}

/// Lanes put together byte by byte.
ValuePtr put_together(const Cell* rows, std::int32_t count) {
  for (std::int32_t part = 0; part < count; ++part) {
    if (!rows[part].value) {
      return nullptr;
    }
  }
  auto out = make_counted<NumericValue>(*rows[0].value);
  if (out->weights != nullptr) {
    const WeightColumns& weights = *out->weights;
    const auto& column = weights.columns[static_cast<std::size_t>(rows[0].part / kParts)];
    out->label = column.label;
    out->lanes = weights.lanes[column.tile];
    out->weights = nullptr;
  }
  std::vector<std::uint32_t> bits;
  for (std::int32_t part = 0; part < count; ++part) {
    const std::vector<float> numbers = numbers_of(column_of(rows[part]));
    bits.resize(std::max(bits.size(), numbers.size()));
    const auto from = static_cast<std::uint32_t>(8 * (rows[part].part % kParts));
    const auto to = static_cast<std::uint32_t>(8 * part);
    for (std::size_t lane = 0; lane < numbers.size(); ++lane) {
      bits[lane] |= (std::bit_cast<std::uint32_t>(numbers[lane]) >> from & 0xffU) << to;
    }
  }
  out->numbers.clear();
  for (const std::uint32_t word : bits) {
    out->numbers.push_back(std::bit_cast<float>(word));
  }
  if (out->packed != Packed::kNo) {
    unpack(*out);
  }
  return out;
}

}  // namespace

ValuePtr assemble(const Cell* rows, std::int32_t count) {
  return are_of_one_value(rows, count) && rows[0].value->weights == nullptr ? rows[0].value : put_together(rows, count);
}

Cell assemble_column(const Cell* rows) {
  return are_of_one_value(rows, kParts) ? rows[0] : Cell{put_together(rows, kParts), 0};
}

void WeightTile::push_back(Cell column) {
  if (!runs.empty() && column.value && column.value->weights != nullptr) {
    Run& last = runs.back();
    if (last.first.value == column.value && last.first.part + kParts * last.columns == column.part) {
      ++last.columns;
      return;
    }
  }
  runs.push_back({std::move(column), 1});
}

ValuePtr evaluate(const NumericKernels& kernels, const std::vector<ProductTerm>& terms) {
  auto lanes = std::make_shared<Lanes>();
  auto out = make_counted<NumericValue>();
  const bool is_blocked = !terms.empty() && terms.front().tile->is_blocked;
  if (const auto groups = is_blocked ? std::vector<RowGroup>() : groups_of_rows(terms); !groups.empty()) {
    evaluate_rows(kernels, groups, terms.size() == 1, *lanes, out->numbers);
    out->lanes = std::move(lanes);
    return out;
  }
  const std::vector<Sum> sums = by_label(terms);
  for (const Sum& sum : sums) {
    lanes->push_back(sum.label);
  }
  out->numbers.resize(sums.size());
  if (is_blocked) {
    evaluate_blocked(kernels, sums, out->numbers);
  } else {
    const Lanes* known = nullptr;
    const Lanes* in_order = nullptr;
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const Lanes* own = sums[i].parts.empty() ? nullptr : sums[i].parts.front().first.lanes;
      if (own != nullptr && own != known) {
        in_order = are_in_order(*own) ? own : in_order;
        known = own;
      }
      out->numbers[i] = evaluate_one(kernels, sums[i], in_order);
    }
  }
  out->lanes = std::move(lanes);
  return out;
}

ValuePtr collect(const std::vector<ValuePtr>& parts, const LanesPtr& lanes) {
  auto out = make_counted<NumericValue>();
  if (!lanes) {
    auto all = std::make_shared<Lanes>();
    for (const ValuePtr& part : parts) {
      for (std::size_t lane = 0; part->lanes && lane < part->lanes->size(); ++lane) {
        if ((*part->lanes)[lane] >= 0) {
          all->push_back((*part->lanes)[lane]);
          out->numbers.push_back(part->numbers[lane]);
        }
      }
    }
    out->lanes = std::move(all);
    return out;
  }
  out->lanes = lanes;
  out->numbers.resize(lanes->size());
  const auto wanted = std::minmax_element(lanes->begin(), lanes->end());
  if (lanes->empty() || *wanted.second < 0) {
    return out;
  }
  const std::int32_t first = std::max(0, *wanted.first);
  std::vector<float> elements(static_cast<std::size_t>(*wanted.second - first) + 1);
  for (const ValuePtr& part : parts) {
    for (std::size_t lane = 0; part->lanes && lane < part->lanes->size(); ++lane) {
      const std::int32_t element = (*part->lanes)[lane];
      if (element >= first && element <= *wanted.second) {
        elements[static_cast<std::size_t>(element - first)] = part->numbers[lane];
      }
    }
  }
  for (std::size_t lane = 0; lane < lanes->size(); ++lane) {
    const std::int32_t element = (*lanes)[lane];
    out->numbers[lane] = element < 0 ? 0.0F : elements[static_cast<std::size_t>(element - first)];
  }
  return out;
}

}  // namespace lpu::node
