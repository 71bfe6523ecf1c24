#include "numeric_passes.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "lpu/node/attention.hpp"

namespace lpu::node {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

ValuePtr scalar(float number) {
  auto out = make_counted<NumericValue>();
  out->numbers = {number};
  return out;
}

ValuePtr like(const NumericValue& value, std::vector<float> numbers) {
  auto out = make_counted<NumericValue>();
  out->lanes = value.lanes;
  out->label = value.label;
  out->numbers = std::move(numbers);
  return out;
}

/// The value's elements in ascending order.
struct Ascending {
  std::vector<std::int32_t> elements;
  std::vector<float> numbers;
};
Ascending ascending(const NumericValue& value) {
  std::vector<std::pair<std::int32_t, float>> pairs;
  for (std::size_t lane = 0; value.lanes && lane < value.lanes->size(); ++lane) {
    if ((*value.lanes)[lane] >= 0) {
      pairs.emplace_back((*value.lanes)[lane], value.numbers[lane]);
    }
  }
  std::stable_sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Ascending out;
  for (const auto& [element, number] : pairs) {
    out.elements.push_back(element);
    out.numbers.push_back(number);
  }
  return out;
}

/// Sums evaluated, all terms of the inputs together; what is evaluated stays.
ValuePtr evaluated(const PassContext& context, const std::vector<ValuePtr>& inputs) {
  std::vector<ProductTerm> terms;
  for (const ValuePtr& input : inputs) {
    terms.insert(terms.end(), input->terms.begin(), input->terms.end());
  }
  if (!terms.empty()) {
    return evaluate(*context.kernels, terms);
  }
  for (const ValuePtr& input : inputs) {
    if (!input->numbers.empty() && input->choices.empty()) {
      return input;
    }
  }
  return make_counted<NumericValue>();
}

/// factor · numbers, as the first term of a chain of fma.
ValuePtr resolved(const PassContext& context, const ValuePtr& value) {
  if (!value->has_factor) {
    return value;
  }
  std::vector<float> sum(value->numbers.size());
  context.kernels->accumulate(value->factor, value->numbers, sum);
  return like(*value, std::move(sum));
}

ValuePtr add(const PassContext& context, const ValuePtr& a, const ValuePtr& b) {
  if (a->has_factor) {
    const ValuePtr before = resolved(context, b);
    if (before->numbers.size() == a->numbers.size()) {
      std::vector<float> sum = before->numbers;
      context.kernels->accumulate(a->factor, a->numbers, sum);
      return like(*a, std::move(sum));
    }
  }
  const ValuePtr x = resolved(context, a);
  const ValuePtr y = resolved(context, b);
  if (x->lanes && y->lanes && *x->lanes == *y->lanes) {
    std::vector<float> sum(x->numbers.size());
    context.kernels->add(x->numbers, y->numbers, sum);
    return like(*x, std::move(sum));
  }
  return collect({x, y}, nullptr);
}

float largest(const NumericValue& value) {
  if (!value.lanes) {
    return value.numbers.empty() ? kLowest : value.numbers.front();
  }
  float out = kLowest;
  for (std::size_t lane = 0; lane < value.lanes->size(); ++lane) {
    if ((*value.lanes)[lane] >= 0 && value.numbers[lane] > out) {
      out = value.numbers[lane];
    }
  }
  return out;
}

/// The larger logit, the lower id of equals; what has no id loses.
ValuePtr better(const ValuePtr& a, const ValuePtr& b) {
  if (a->token < 0 || b->token < 0) {
    return a->token < 0 ? b : a;
  }
  const float x = a->numbers.front();
  const float y = b->numbers.front();
  return y > x || (y == x && b->token < a->token) ? b : a;
}

ValuePtr candidate(const std::vector<ValuePtr>& inputs) {
  if (inputs.size() == 2 && inputs[0]->lanes) {
    // The lowest id among the lanes that hold the largest logit.
    auto out = make_counted<NumericValue>();
    out->numbers = inputs[1]->numbers;
    for (std::size_t lane = 0; lane < inputs[0]->lanes->size(); ++lane) {
      const std::int32_t id = (*inputs[0]->lanes)[lane];
      if (id >= 0 && inputs[0]->numbers[lane] == out->numbers.front() && (out->token < 0 || id < out->token)) {
        out->token = id;
      }
    }
    return out;
  }
  return std::accumulate(inputs.begin() + 1, inputs.end(), inputs.front(), better);
}

ValuePtr scores(const PassContext& context, const std::vector<ValuePtr>& inputs) {
  const ValuePtr products = evaluated(context, inputs);
  auto lanes = std::make_shared<Lanes>();
  std::vector<float> numbers(products->numbers.size());
  context.kernels->multiply(products->numbers, context.model->score_scale(), numbers);
  const std::int64_t first = first_visible(context.position, context.model->window());
  for (std::size_t lane = 0; lane < numbers.size(); ++lane) {
    const std::int32_t position = (*products->lanes)[lane];
    const bool is_visible = position >= first && position <= context.position;
    lanes->push_back(is_visible ? position : -1);
    numbers[lane] = is_visible ? numbers[lane] : 0.0F;
  }
  auto out = make_counted<NumericValue>();
  out->lanes = std::move(lanes);
  out->numbers = std::move(numbers);
  return out;
}

ValuePtr exponentials(const PassContext& context, const NumericValue& values, float subtrahend) {
  std::vector<float> numbers(values.numbers.size());
  context.kernels->exponentials(values.numbers, subtrahend, numbers);
  for (std::size_t lane = 0; lane < numbers.size(); ++lane) {
    numbers[lane] = (*values.lanes)[lane] < 0 ? 0.0F : numbers[lane];
  }
  return like(values, std::move(numbers));
}

ValuePtr weigh(const PassContext& context, const std::vector<ValuePtr>& inputs, std::uint16_t out_tensor) {
  const auto routing =
      std::find_if(inputs.begin(), inputs.end(), [](const ValuePtr& input) { return !input->choices.empty(); });
  if (routing == inputs.end()) {
    return nullptr;
  }
  const std::int32_t slot = context.model->expert_slot(out_tensor);
  const RareList<ExpertChoice>& choices = (*routing)->choices;
  auto out = make_counted<NumericValue>(*evaluated(context, inputs));
  out->has_factor = true;
  if (static_cast<std::int64_t>(choices.size()) == context.model->experts_per_token() &&
      slot < static_cast<std::int32_t>(choices.size())) {
    out->factor = choices[static_cast<std::size_t>(slot)].weight;
  }
  return out;
}

ValuePtr convert(const PassContext& context, const std::vector<ValuePtr>& inputs, NumericRole role) {
  if (role == NumericRole::kCandidate) {
    auto out = make_counted<NumericValue>();
    out->numbers = {largest(*inputs.front())};
    out->token = inputs.size() > 1 ? inputs[1]->token : -1;
    return out;
  }
  const ValuePtr value = resolved(context, inputs.front());
  if (role != NumericRole::kKey) {
    return value;
  }
  if (!*context.in_order || (*context.in_order)->size() != value->numbers.size()) {
    auto lanes = std::make_shared<Lanes>(value->numbers.size());
    std::iota(lanes->begin(), lanes->end(), 0);
    *context.in_order = std::move(lanes);
  }
  auto out = make_counted<NumericValue>();
  out->lanes = *context.in_order;
  out->numbers = value->numbers;
  out->label = static_cast<std::int32_t>(context.position);
  return out;
}

ValuePtr multiply(const PassContext& context, const std::vector<ValuePtr>& inputs, NumericRole role) {
  if (role == NumericRole::kChoices) {
    auto out = make_counted<NumericValue>();
    out->choices =
        choose_experts(*context.kernels, ascending(*inputs.front()).numbers, context.model->experts_per_token());
    return out;
  }
  if (inputs.size() != 2) {
    return nullptr;
  }
  std::vector<float> numbers(inputs[0]->numbers.size());
  context.kernels->multiply(inputs[0]->numbers, inputs[1]->numbers.front(), numbers);
  return like(*inputs[0], std::move(numbers));
}

ValuePtr gated(const PassContext& context, const std::vector<ValuePtr>& inputs, const std::vector<bool>& east) {
  std::vector<ValuePtr> sides[2];
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    sides[east[i] ? 1 : 0].push_back(inputs[i]);
  }
  const ValuePtr gate = evaluated(context, sides[0]);
  const ValuePtr up = evaluated(context, sides[1]);
  if (gate->numbers.size() != up->numbers.size()) {
    return nullptr;
  }
  std::vector<float> numbers(gate->numbers.size());
  context.kernels->gated(gate->numbers, up->numbers, numbers);
  return like(*gate, std::move(numbers));
}

ValuePtr rotate(const PassContext& context, const NumericValue& head, const NumericValue& angles) {
  std::vector<float> numbers = head.numbers;
  const std::size_t half = numbers.size() / 2;
  if (angles.numbers.size() < 2 * half) {
    return nullptr;
  }
  const std::span<const float> table(angles.numbers);
  context.kernels->rotate(numbers, table.first(half), table.subspan(half, half));
  return like(head, std::move(numbers));
}

ValuePtr scale(const PassContext& context, const std::vector<ValuePtr>& inputs) {
  if (inputs.size() != 3 || !inputs[0]->lanes) {
    return nullptr;
  }
  std::vector<float> weights = inputs[1]->numbers;
  weights.resize(inputs[0]->numbers.size());
  std::vector<float> numbers(inputs[0]->numbers.size());
  context.kernels->scale(inputs[0]->numbers, inputs[2]->numbers.front(), weights, numbers);
  return like(*inputs[0], std::move(numbers));
}

float reciprocal_sum(const NumericValue& totals) {
  const Ascending p = ascending(totals);
  return 1.0F / softmax_sum(p.numbers, p.elements.empty() ? 0 : p.elements.front());
}

}  // namespace

ValuePtr vector_pass(const PassContext& context,
                     Opcode opcode,
                     const std::vector<ValuePtr>& inputs,
                     const std::vector<bool>& east,
                     std::uint16_t out) {
  const NumericRole role = context.model->role(out);
  if (inputs.empty()) {
    return nullptr;
  }
  if (role == NumericRole::kRouter) {
    return evaluated(context, inputs);  // the answer is computed whole, in the last step of the routing
  }
  const bool is_unevaluated = std::any_of(inputs.begin(), inputs.end(), [](const ValuePtr& input) {
    return !input->terms.empty() || input->numbers.empty();
  });
  switch (opcode) {
    case Opcode::kCopy:
    case Opcode::kSelect:
    case Opcode::kSquareAccumulate:
      return inputs.front();
    case Opcode::kAdd:
      return inputs.size() == 2 ? add(context, inputs[0], inputs[1]) : nullptr;
    case Opcode::kSum:
      return is_unevaluated ? evaluated(context, inputs) : collect(inputs, nullptr);
    case Opcode::kDequantise:
      return role == NumericRole::kWeighted ? weigh(context, inputs, out) : evaluated(context, inputs);
    case Opcode::kMaximum:
      if (role == NumericRole::kScores) {
        return scores(context, inputs);
      }
      if (std::any_of(inputs.begin(), inputs.end(), [](const ValuePtr& input) { return input->token >= 0; })) {
        return candidate(inputs);
      }
      return std::accumulate(inputs.begin() + 1, inputs.end(), scalar(largest(*inputs.front())), [&](auto a, auto b) {
        return merge(Opcode::kMaximum, a, b);
      });
    case Opcode::kCompareExchange:
      return candidate(inputs);
    case Opcode::kExponential:
      return inputs.size() == 2 && inputs[0]->lanes ? exponentials(context, *inputs[0], inputs[1]->numbers.front())
                                                    : nullptr;
    case Opcode::kReciprocalSquareRoot:
      return scalar(rms_factor(*context.kernels, ascending(*inputs.front()).numbers, context.model->rms_epsilon()));
    case Opcode::kReciprocal:
      return scalar(reciprocal_sum(*inputs.front()));
    case Opcode::kScale:
      return scale(context, inputs);
    case Opcode::kConvert:
      return convert(context, inputs, role);
    case Opcode::kMultiply:
      return multiply(context, inputs, role);
    case Opcode::kSiluMultiply:
      return gated(context, inputs, east);
    case Opcode::kRotaryMultiply:
      return inputs.size() >= 2 ? rotate(context, *inputs.front(), *inputs.back()) : nullptr;
    case Opcode::kRead:
    case Opcode::kWrite:
    case Opcode::kInstall:
    case Opcode::kCompute:
    case Opcode::kDrain:
    case Opcode::kWiden:
    case Opcode::kQuantise:
    case Opcode::kRotate:
    case Opcode::kReduceStep:
    case Opcode::kTranspose:
    case Opcode::kPack:
    case Opcode::kBroadcastLane:
    case Opcode::kSend:
    case Opcode::kReceive:
      return nullptr;
  }
  return nullptr;
}

ValuePtr second_output(Opcode opcode, NumericRole role, const ValuePtr& first) {
  return opcode == Opcode::kMaximum && role != NumericRole::kScores && first->lanes ? scalar(largest(*first)) : first;
}

ValuePtr merge(Opcode opcode, const ValuePtr& kept, const ValuePtr& next) {
  if (!kept) {
    return next;
  }
  if (opcode == Opcode::kMaximum && kept->token < 0 && next->token < 0) {
    return scalar(std::max(largest(*kept), largest(*next)));
  }
  return opcode == Opcode::kCompareExchange || opcode == Opcode::kMaximum ? better(kept, next)
                                                                          : collect({kept, next}, nullptr);
}

}  // namespace lpu::node
