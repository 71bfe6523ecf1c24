#include <algorithm>
#include <array>
#include <ostream>
#include <ranges>

#include <boost/json.hpp>

#include "lpu/node/error.hpp"
#include "lpu/scheduler/inspect.hpp"
#include "program_fields.hpp"
#include "selection.hpp"

namespace lpu::scheduler {
namespace {

namespace json = boost::json;
using fields::Struct;

constexpr json::string_view view(std::string_view text) {
  return {text.data(), text.size()};
}

/// Makes values of one line; all of a line's memory goes at once.
class LineMaker {
 public:
  [[nodiscard]] json::object object() const { return json::object(storage_); }

  template <typename T>
  [[nodiscard]] json::value make(const T& value) const {
    if constexpr (std::is_same_v<T, bool>) {
      return json::value(value, storage_);
    } else if constexpr (std::is_unsigned_v<T>) {
      return json::value(std::uint64_t{value}, storage_);
    } else if constexpr (std::is_integral_v<T>) {
      return json::value(std::int64_t{value}, storage_);
    } else if constexpr (std::is_enum_v<T>) {
      return json::value(view(fields::spelling(value)), storage_);
    } else if constexpr (std::is_same_v<T, std::string>) {
      return json::value(view(value), storage_);
    } else if constexpr (Struct<T>) {
      json::object out = object();
      add_fields(value, out);
      return out;
    } else if constexpr (std::is_same_v<T, decltype(node::Instruction::operands)>) {
      return make_list(std::span(value).first(used_operands(value)));
    } else if constexpr (std::ranges::range<T>) {
      return make_list(value);
    } else {
      return json::value(value.count(), storage_);  // a Quantity
    }
  }
  template <Struct T>
  void add_fields(const T& value, json::object& out) const {
    fields::each<T>([&](const auto& field) { out.emplace(view(field.name), make(fields::get(value, field))); });
  }

 private:
  template <typename Range>
  [[nodiscard]] json::value make_list(const Range& values) const {
    json::array out(storage_);
    out.reserve(std::ranges::size(values));
    for (const auto& value : values) {
      out.push_back(make(value));
    }
    return out;
  }
  /// Operands up to the last that says anything.
  [[nodiscard]] static std::size_t used_operands(const decltype(node::Instruction::operands)& operands) {
    std::size_t used = operands.size();
    while (used > 0 && is_unused(operands[used - 1])) {
      --used;
    }
    return used;
  }
  [[nodiscard]] static bool is_unused(const node::StreamOperand& operand) {
    const node::StreamOperand ordinary{};
    bool same = true;
    fields::each<node::StreamOperand>([&](const auto& field) {
      const auto& a = fields::get(operand, field);
      const auto& b = fields::get(ordinary, field);
      if constexpr (std::ranges::range<decltype(a)>) {
        same = same && std::ranges::equal(a, b);
      } else {
        same = same && a == b;
      }
    });
    return same;
  }

  json::storage_ptr storage_ = json::make_shared_resource<json::monotonic_resource>();
};

void print(const json::object& line, std::ostream& out) {
  out << json::serialize(line) << '\n';
}

/// The recorded inputs as an object where that loses nothing, else as the string that they are.
[[nodiscard]] json::value inputs_value(const std::string& inputs) {
  json::parse_options options;
  options.allow_invalid_utf8 = true;
  json::error_code error;
  json::value parsed = json::parse(inputs, error, {}, options);
  if (!error && parsed.is_object() && json::serialize(parsed) == inputs) {
    return parsed;
  }
  return json::string(inputs);
}

void print_program(const ClusterProgram& program, const InspectOptions& options, std::ostream& out) {
  const LineMaker maker;
  json::object line = maker.object();
  line["schema"] = "lpu_cluster/inspect/1";
  line["version"] = options.version;
  line["command"] = options.command;
  line["inputs"] = inputs_value(program.inputs);
  line["record"] = "program";
  if (!options.selects_all()) {
    line["selection"] = true;
  }
  maker.add_fields(program, line);
  print(line, out);
}

/// Lists elements of one kind: a line each, with the text's number and the element's.
template <typename T>
void print_list(const char* record, std::size_t text, const std::vector<T>& elements, std::ostream& out) {
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const LineMaker maker;
    json::object line = maker.object();
    line["record"] = record;
    line["text"] = text;
    line["index"] = i;
    maker.add_fields(elements[i], line);
    print(line, out);
  }
}

void print_instruction(const ClusterProgram& program,
                       std::size_t text,
                       std::size_t index,
                       const std::vector<std::int32_t>& chips,
                       std::ostream& out) {
  const node::Instruction& instruction = program.texts[text].instructions[index];
  const node::Unit unit = node::info(instruction.opcode).unit;
  const LineMaker maker;
  json::object line = maker.object();
  line["record"] = "instruction";
  line["text"] = text;
  line["index"] = index;
  line["chip"] = chips.empty() ? -1 : chips.front();
  line["unit"] = view(fields::spelling(unit));
  line["position"] = node::unit_position(instruction, program.chip);
  if (unit == node::Unit::kMem) {
    line["bank"] = instruction.address % program.chip.banks_per_slice;
  }
  line["latency_cycles"] = node::latency(instruction.opcode, program.chip).count();
  maker.add_fields(instruction, line);
  print(line, out);
}

void print_text(const ClusterProgram& program, const Selection& selection, std::size_t at, std::ostream& out) {
  const node::ChipProgram& text = program.texts[at];
  const std::vector<std::int32_t> chips = chips_of(program, static_cast<std::int32_t>(at));
  const LineMaker maker;
  json::object line = maker.object();
  line["record"] = "text";
  line["text"] = at;
  line["chips"] = maker.make(chips);
  maker.add_fields(text, line);
  print(line, out);
  print_list("tensor", at, text.tensors, out);
  print_list("allocation", at, text.allocations, out);
  print_list("register", at, text.registers, out);
  print_list("transfer", at, text.transfers, out);
  for (std::size_t i = 0; i < text.instructions.size(); ++i) {
    if (selection.has(text.instructions[i])) {
      print_instruction(program, at, i, chips, out);
    }
  }
}

}  // namespace

void inspect_json(const ClusterProgram& program, const InspectOptions& options, std::ostream& out) {
  const Selection selection(program, options);
  print_program(program, options, out);
  for (const node::ChipBinding& binding : program.bindings) {
    if (selection.has_chip(binding.chip)) {
      const LineMaker maker;
      json::object line = maker.object();
      line["record"] = "binding";
      maker.add_fields(binding, line);
      print(line, out);
    }
  }
  for (std::size_t text = 0; text < program.texts.size(); ++text) {
    if (selection.has_text(text)) {
      print_text(program, selection, text, out);
    }
  }
  out << "{\"record\":\"end\"}\n";
}

}  // namespace lpu::scheduler
