#include "lpu/node/numeric_value.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <unordered_map>

#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

constexpr std::int32_t kParts = 4;  // bytes of a lane

/// The lanes' numbers, weights widened.
std::vector<float> numbers_of(const NumericValue& value) {
  if (value.weights.data == nullptr) {
    return value.numbers;
  }
  const NumericKernels& kernels = numeric_kernels(SimdTarget::kScalar);
  std::vector<float> out(value.lanes->size());
  for (std::size_t lane = 0; lane < out.size(); ++lane) {
    const std::int32_t element = (*value.lanes)[lane];
    if (element >= 0) {
      kernels.widen(
          value.weights.data + element * stored_bytes(value.weights.type), value.weights.type, {&out[lane], 1});
    }
  }
  return out;
}

bool is_column_of(const NumericValue& column, const NumericValue& other) {
  return column.weights.data == other.weights.data && column.weights.data != nullptr;
}

/// Every term's contribution to one label.
struct Sum {
  std::int32_t label = -1;
  std::vector<std::pair<const NumericValue*, const NumericValue*>> parts;  ///< column, activation
};

std::vector<Sum> by_label(const std::vector<ProductTerm>& terms) {
  std::vector<Sum> out;
  std::unordered_map<std::int32_t, std::size_t> at;
  for (const ProductTerm& term : terms) {
    for (const ValuePtr& column : term.tile->columns) {
      const std::int32_t label = column ? column->label : -1;
      if (label < 0) {
        if (terms.size() == 1) {
          out.push_back({});  // a padding keeps its lane
        }
        continue;
      }
      const auto [entry, is_new] = at.emplace(label, out.size());
      if (is_new) {
        out.push_back({label, {}});
      }
      out[entry->second].parts.emplace_back(column.get(), term.activation.get());
    }
  }
  return out;
}

/// x[element of the column's lane] = the activation's number in that lane.
void scatter(const NumericValue& column, const NumericValue& activation, std::vector<float>& x) {
  const std::size_t lanes = std::min(column.lanes->size(), activation.numbers.size());
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    const std::int32_t element = (*column.lanes)[lane];
    if (element >= 0) {
      if (static_cast<std::size_t>(element) >= x.size()) {
        x.resize(static_cast<std::size_t>(element) + 1);
      }
      x[static_cast<std::size_t>(element)] = activation.numbers[lane];
    }
  }
}

/// Columns that are whole rows of one stored matrix: activations are put in the order of its elements once.
bool evaluate_rows(const NumericKernels& kernels, const std::vector<Sum>& sums, std::vector<float>& out) {
  const Sum* first = nullptr;
  for (const Sum& sum : sums) {
    if (sum.label < 0) {
      continue;
    }
    first = first == nullptr ? &sum : first;
    if (sum.parts.size() != first->parts.size()) {
      return false;
    }
    for (std::size_t i = 0; i < sum.parts.size(); ++i) {
      const auto& [column, activation] = sum.parts[i];
      if (!is_column_of(*column, *sum.parts.front().first) || activation != first->parts[i].second ||
          column->lanes != first->parts[i].first->lanes) {
        return false;
      }
    }
  }
  if (first == nullptr) {
    return true;
  }
  std::vector<float> x(static_cast<std::size_t>(first->parts.front().first->weights.columns));
  for (const auto& [column, activation] : first->parts) {
    scatter(*column, *activation, x);
  }
  for (std::size_t i = 0; i < sums.size();) {
    if (sums[i].label < 0) {
      ++i;
      continue;
    }
    StoredMatrix run = sums[i].parts.front().first->weights;
    std::size_t end = i + 1;
    while (end < sums.size() && sums[end].label >= 0 &&
           sums[end].parts.front().first->weights.data ==
               run.data + static_cast<std::int64_t>(end - i) * run.row_bytes) {
      ++end;
    }
    run.rows = static_cast<std::int64_t>(end - i);
    kernels.linear(run, x, std::span(out).subspan(i, end - i));
    i = end;
  }
  return true;
}

/// Any columns: elements of both sides are gathered label by label.
float evaluate_one(const NumericKernels& kernels, const Sum& sum) {
  std::vector<float> x;
  std::vector<float> weights;
  for (const auto& [column, activation] : sum.parts) {
    scatter(*column, *activation, x);
    NumericValue own;
    own.lanes = column->lanes;
    own.numbers = numbers_of(*column);
    scatter(own, own, weights);
  }
  x.resize(std::max(x.size(), weights.size()));
  weights.resize(x.size());
  const auto count = static_cast<std::int64_t>(x.size());
  const StoredMatrix row = {std::as_bytes(std::span(weights)).data(), StoredType::kFloat32, 1, count, 4 * count};
  float y = 0.0F;
  kernels.linear(row, x, {&y, 1});
  return y;
}

/// Probabilities times values: positions ascending, in blocks.
void evaluate_blocked(const NumericKernels& kernels, const std::vector<Sum>& sums, std::vector<float>& out) {
  std::vector<float> p;
  std::vector<std::vector<float>> values(sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) {
    for (const auto& [column, activation] : sums[i].parts) {
      scatter(*column, *activation, p);
      scatter(*column, *column, values[i]);
    }
  }
  std::vector<float> matrix(p.size() * sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) {
    for (std::size_t position = 0; position < std::min(p.size(), values[i].size()); ++position) {
      matrix[position * sums.size() + i] = values[i][position];
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
std::vector<float> wire_numbers(const NumericValue& value) {
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
  return numbers_of(value);
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
    for (std::size_t i = 0; i < count; ++i) {
      value.choices.push_back({std::bit_cast<std::int32_t>(numbers[2 * i + 1]), numbers[2 * i + 2]});
    }
  }
  value.packed = Packed::kNo;
}

}  // namespace

void encode(const Cell& row, std::span<std::byte> bytes) {
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  if (!row.value) {
    return;
  }
  const std::vector<float> numbers = wire_numbers(*row.value);
  const auto shift = static_cast<std::uint32_t>(8 * (row.part % kParts));
  for (std::size_t lane = 0; lane < std::min(numbers.size(), bytes.size()); ++lane) {
    bytes[lane] = static_cast<std::byte>(std::bit_cast<std::uint32_t>(numbers[lane]) >> shift & 0xffU);
  }
}

Cell decode(std::span<const std::byte> bytes, std::int32_t part, const LanesPtr& lanes, Packed packed) {
  auto value = std::make_shared<NumericValue>();
  value->lanes = lanes;
  value->packed = packed;
  value->numbers.resize(lanes ? std::min(lanes->size(), bytes.size()) : bytes.size());
  const auto shift = static_cast<std::uint32_t>(8 * part);
  for (std::size_t lane = 0; lane < value->numbers.size(); ++lane) {
    value->numbers[lane] = std::bit_cast<float>(std::to_integer<std::uint32_t>(bytes[lane]) << shift);
  }
  return {value, part};
}

ValuePtr assemble(const Cell* rows, std::int32_t count) {
  bool is_one = true;
  for (std::int32_t part = 0; part < count; ++part) {
    if (!rows[part].value) {
      return nullptr;
    }
    is_one = is_one && rows[part].value == rows[0].value && rows[part].part == rows[0].part + part;
  }
  if (is_one) {
    return rows[0].value;
  }
  auto out = std::make_shared<NumericValue>(*rows[0].value);
  std::vector<std::uint32_t> bits;
  for (std::int32_t part = 0; part < count; ++part) {
    const std::vector<float> numbers = numbers_of(*rows[part].value);
    bits.resize(std::max(bits.size(), numbers.size()));
    const auto from = static_cast<std::uint32_t>(8 * (rows[part].part % kParts));
    const auto to = static_cast<std::uint32_t>(8 * part);
    for (std::size_t lane = 0; lane < numbers.size(); ++lane) {
      bits[lane] |= (std::bit_cast<std::uint32_t>(numbers[lane]) >> from & 0xffU) << to;
    }
  }
  out->weights = {};
  out->numbers.clear();
  for (const std::uint32_t word : bits) {
    out->numbers.push_back(std::bit_cast<float>(word));
  }
  if (out->packed != Packed::kNo) {
    unpack(*out);
  }
  return out;
}

ValuePtr evaluate(const NumericKernels& kernels, const std::vector<ProductTerm>& terms) {
  const std::vector<Sum> sums = by_label(terms);
  auto lanes = std::make_shared<Lanes>();
  for (const Sum& sum : sums) {
    lanes->push_back(sum.label);
  }
  auto out = std::make_shared<NumericValue>();
  out->numbers.resize(sums.size());
  const bool is_blocked = !terms.empty() && terms.front().tile->is_blocked;
  if (is_blocked) {
    evaluate_blocked(kernels, sums, out->numbers);
  } else if (!evaluate_rows(kernels, sums, out->numbers)) {
    for (std::size_t i = 0; i < sums.size(); ++i) {
      out->numbers[i] = evaluate_one(kernels, sums[i]);
    }
  }
  out->lanes = std::move(lanes);
  return out;
}

ValuePtr collect(const std::vector<ValuePtr>& parts, const LanesPtr& lanes) {
  auto out = std::make_shared<NumericValue>();
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
  std::unordered_map<std::int32_t, float> elements;
  for (const ValuePtr& part : parts) {
    for (std::size_t lane = 0; part->lanes && lane < part->lanes->size(); ++lane) {
      if ((*part->lanes)[lane] >= 0) {
        elements[(*part->lanes)[lane]] = part->numbers[lane];
      }
    }
  }
  out->lanes = lanes;
  out->numbers.resize(lanes->size());
  for (std::size_t lane = 0; lane < lanes->size(); ++lane) {
    const auto found = elements.find((*lanes)[lane]);
    out->numbers[lane] = found == elements.end() ? 0.0F : found->second;
  }
  return out;
}

}  // namespace lpu::node
