#include "lpu/scheduler/assemble.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <istream>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <ranges>
#include <span>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <boost/json.hpp>

#include "lpu/node/error.hpp"
#include "lpu/node/suggestion.hpp"
#include "lpu/scheduler/well_formed.hpp"
#include "program_fields.hpp"

namespace lpu::scheduler {
namespace {

namespace json = boost::json;
using fields::Struct;

/// Where a value stands in its line; built on the way down, spelled only in errors.
struct Path {
  const Path* above = nullptr;
  std::string_view name;
  std::size_t element = 0;
  bool is_element = false;

  [[nodiscard]] std::string text() const {
    const std::string before = above != nullptr ? above->text() : std::string();
    if (is_element) {
      return before + "[" + std::to_string(element) + "]";
    }
    return before.empty() ? std::string(name) : before + "." + std::string(name);
  }
};

class Line {
 public:
  Line(const std::string& file, std::size_t number) : file_(&file), number_(number) {}

  [[noreturn]] void fail(const std::string& field, const std::string& found, const std::string& expected) const {
    throw node::InputError(*file_ + ":" + std::to_string(number_) + ": " + (field.empty() ? "" : field + ": ") +
                           "found " + found + "; expected " + expected);
  }
  [[noreturn]] void fail(const Path& path, const json::value& found, const std::string& expected) const {
    constexpr std::size_t kShown = 60;
    std::string shown = json::serialize(found);
    if (shown.size() > kShown) {
      shown = shown.substr(0, kShown) + "...";
    }
    fail(path.text(), shown, expected);
  }

  template <typename T>
  void take(const Path& path, const json::value& from, T& to) const {
    if constexpr (std::is_same_v<T, bool>) {
      if (!from.is_bool()) {
        fail(path, from, "true or false");
      }
      to = from.get_bool();
    } else if constexpr (std::is_integral_v<T>) {
      to = integer<T>(path, from, std::numeric_limits<T>::max());
    } else if constexpr (std::is_enum_v<T>) {
      to = enumerator<T>(path, from);
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!from.is_string()) {
        fail(path, from, "a string");
      }
      to.assign(from.get_string().data(), from.get_string().size());
    } else if constexpr (Struct<T>) {
      if (!from.is_object()) {
        fail(path, from, "an object");
      }
      take_fields(&path, from.get_object(), to, {});
    } else if constexpr (std::is_same_v<T, decltype(node::Instruction::operands)>) {
      take_operands(path, from, to);
    } else if constexpr (std::ranges::range<T>) {
      take_list(path, from, to);
    } else {
      to = T(integer<std::int64_t>(path, from, std::numeric_limits<std::int64_t>::max()));
    }
  }

  /// All fields of a struct, no others.
  /// @param beside  keys of the line that are no fields of the struct
  template <Struct T>
  void take_fields(const Path* above, const json::object& from, T& to, std::span<const std::string_view> beside) const {
    fields::each<T>([&](const auto& field) {
      const Path path{.above = above, .name = field.name};
      const json::value* value = from.if_contains({field.name.data(), field.name.size()});
      if (value == nullptr) {
        fail(path.text(), "no such field", "one");
      }
      fields::set(to, field, [&](auto& target) {
        if constexpr (std::is_same_v<std::remove_cvref_t<decltype(field)>, fields::HeldField>) {
          target = integer<std::uint8_t>(path, *value, fields::HeldField::kMost);
        } else {
          take(path, *value, target);
        }
      });
    });
    refuse_others<T>(above, from, beside);
  }

 private:
  template <typename T>
  [[nodiscard]] T integer(const Path& path, const json::value& from, T most) const {
    constexpr T kLeast = std::numeric_limits<T>::min();
    if (from.is_int64() && std::in_range<T>(from.get_int64()) && std::cmp_less_equal(from.get_int64(), most)) {
      return static_cast<T>(from.get_int64());
    }
    if (from.is_uint64() && std::in_range<T>(from.get_uint64()) && std::cmp_less_equal(from.get_uint64(), most)) {
      return static_cast<T>(from.get_uint64());
    }
    fail(path, from, "a whole number, " + std::to_string(kLeast) + " to " + std::to_string(most));
  }

  template <typename T>
  [[nodiscard]] T enumerator(const Path& path, const json::value& from) const {
    std::vector<std::string> known;
    for (std::uint8_t i = 0; fields::is_enumerator<T>(i); ++i) {
      const std::string_view word = fields::spelling(static_cast<T>(i));
      if (from.is_string() && from.get_string() == json::string_view(word.data(), word.size())) {
        return static_cast<T>(i);
      }
      known.emplace_back(word);
    }
    const std::string found = from.is_string() ? std::string(from.get_string()) : std::string();
    fail(path, from, "one of " + node::join(known) + node::did_you_mean(found, known));
  }

  void take_operands(const Path& path, const json::value& from, decltype(node::Instruction::operands)& to) const {
    if (!from.is_array() || from.get_array().size() > to.size()) {
      fail(path, from, "a list of at most " + std::to_string(to.size()));
    }
    take_elements(path, from.get_array(), to);
  }
  template <typename T>
  void take_list(const Path& path, const json::value& from, T& to) const {
    if constexpr (requires { to.resize(0); }) {
      if (!from.is_array()) {
        fail(path, from, "a list");
      }
      to.resize(from.get_array().size());
    } else {
      if (!from.is_array() || from.get_array().size() != std::size(to)) {
        fail(path, from, "a list of " + std::to_string(std::size(to)));
      }
    }
    take_elements(path, from.get_array(), to);
  }
  template <typename T>
  void take_elements(const Path& path, const json::array& from, T& to) const {
    for (std::size_t i = 0; i < from.size(); ++i) {
      take(Path{.above = &path, .name = {}, .element = i, .is_element = true}, from[i], to[i]);
    }
  }

  template <Struct T>
  void refuse_others(const Path* above, const json::object& from, std::span<const std::string_view> beside) const {
    for (const auto& pair : from) {
      const std::string_view key(pair.key().data(), pair.key().size());
      bool is_known = std::ranges::find(beside, key) != beside.end();
      fields::each<T>([&](const auto& field) { is_known = is_known || field.name == key; });
      if (is_known) {
        continue;
      }
      std::vector<std::string> known(beside.begin(), beside.end());
      fields::each<T>([&](const auto& field) { known.emplace_back(field.name); });
      fail(above != nullptr ? above->text() : std::string(),
           "field " + json::serialize(json::value(pair.key())),
           "one that listings have" + node::did_you_mean(key, known));
    }
  }

  const std::string* file_;
  std::size_t number_;
};

/// std::getline with a limit, so that a stream without line ends fills no memory.
[[nodiscard]] bool read_line(std::istream& in, std::string& line, const std::string& name, std::size_t number) {
  constexpr std::size_t kMost = std::size_t{64} << 20U;
  line.clear();
  std::streambuf& buffer = *in.rdbuf();
  using Traits = std::streambuf::traits_type;
  for (;;) {
    const auto c = buffer.sbumpc();
    if (Traits::eq_int_type(c, Traits::eof())) {
      return !line.empty();
    }
    if (c == '\n') {
      return true;
    }
    if (line.size() == kMost) {
      Line(name, number).fail("", "a line of more than 64 MiB", "a listing's line");
    }
    line.push_back(Traits::to_char_type(c));
  }
}

class Assembler {
 public:
  explicit Assembler(const std::string& name) : name_(name) {}

  [[nodiscard]] ClusterProgram run(std::istream& in) {
    std::string text;
    for (number_ = 1; read_line(in, text, name_, number_); ++number_) {
      if (text.find_first_not_of(" \t\r") != std::string::npos) {
        take_line(text);
      }
    }
    if (!has_ended_) {
      fail("the end of the listing",
           program_line_ == 0 ? "a line of record program" : "a line of record end before it");
    }
    program_.initiation_interval = program_.plan.initiation_interval;
    sort_texts();
    if (const auto fault = find_form_fault(program_)) {
      number_ = line_of(*fault);
      Line(name_, number_).fail(fault->field, fault->found, fault->expected);
    }
    return std::move(program_);
  }

 private:
  struct TextLines {
    std::size_t text = 0;
    std::vector<std::size_t> tensors, allocations, registers, transfers, instructions;
  };

  [[noreturn]] void fail(const std::string& found, const std::string& expected) const {
    Line(name_, number_).fail("", found, expected);
  }

  void take_line(const std::string& text) {
    json::parse_options options;
    options.allow_invalid_utf8 = true;  // names are bytes to us
    json::error_code error;
    const json::value value = json::parse(text, error, json::make_shared_resource<json::monotonic_resource>(), options);
    if (error) {
      fail("no JSON (" + error.message() + ")", "one JSON object a line");
    }
    const Line line(name_, number_);
    if (!value.is_object()) {
      line.fail(Path{.name = "line"}, value, "an object");
    }
    const json::object& object = value.get_object();
    const json::value* record = object.if_contains("record");
    const std::string word = record != nullptr && record->is_string() ? std::string(record->get_string()) : "";
    if (has_ended_) {
      fail("a line after record end", "none");
    }
    if ((word == "program") != (program_line_ == 0)) {
      fail("record \"" + word + "\"",
           program_line_ == 0 ? "a listing that begins with record program" : "one record program, the first");
    }
    if (word == "program") {
      take_program(line, object);
    } else if (word == "binding") {
      constexpr std::array<std::string_view, 1> kBeside{"record"};
      line.take_fields(nullptr, object, program_.bindings.emplace_back(), kBeside);
      binding_lines_.push_back(number_);
    } else if (word == "text") {
      take_text(line, object);
    } else if (word == "end") {
      has_ended_ = true;
    } else {
      take_element(line, object, word);
    }
  }

  void take_program(const Line& line, const json::object& object) {
    constexpr std::string_view kSchema = "lpu_cluster/inspect/1";
    const json::value* schema = object.if_contains("schema");
    if (schema == nullptr || !schema->is_string() ||
        schema->get_string() != json::string_view(kSchema.data(), kSchema.size())) {
      line.fail("schema",
                schema == nullptr ? std::string("no such field") : json::serialize(*schema),
                "\"" + std::string(kSchema) + "\"");
    }
    if (object.contains("selection")) {
      line.fail("selection", "a listing of a part of a program", "the whole program (inspect without a selection)");
    }
    const json::value* inputs = object.if_contains("inputs");
    if (inputs == nullptr || !(inputs->is_object() || inputs->is_string())) {
      line.fail("inputs", inputs == nullptr ? std::string("no such field") : json::serialize(*inputs), "an object");
    }
    program_.inputs = inputs->is_string() ? std::string(inputs->get_string()) : json::serialize(*inputs);
    constexpr std::array<std::string_view, 5> kBeside{"schema", "version", "command", "inputs", "record"};
    line.take_fields(nullptr, object, program_, kBeside);
    program_line_ = number_;
  }

  void take_text(const Line& line, const json::object& object) {
    check_number(line, object, "text", program_.texts.size());
    constexpr std::array<std::string_view, 3> kBeside{"record", "text", "chips"};
    line.take_fields(nullptr, object, program_.texts.emplace_back(), kBeside);
    text_lines_.emplace_back().text = number_;
  }

  void take_element(const Line& line, const json::object& object, const std::string& word) {
    static const std::vector<std::string> kKnown{
        "program", "binding", "text", "tensor", "allocation", "register", "transfer", "instruction", "end"};
    if (std::ranges::find(kKnown, word) == kKnown.end()) {
      line.fail("record", "\"" + word + "\"", "one of " + node::join(kKnown) + node::did_you_mean(word, kKnown));
    }
    if (program_.texts.empty()) {
      line.fail("record", "\"" + word + "\"", "record text before the elements of a text");
    }
    check_number(line, object, "text", program_.texts.size() - 1);
    node::ChipProgram& text = program_.texts.back();
    TextLines& lines = text_lines_.back();
    constexpr std::array<std::string_view, 3> kBeside{"record", "text", "index"};
    // Only what others name by its number has to say that number; instructions and allocations may be added and
    // removed.
    if (word == "tensor") {
      check_number(line, object, "index", text.tensors.size());
      add(line, object, text.tensors, lines.tensors, kBeside);
    } else if (word == "allocation") {
      add(line, object, text.allocations, lines.allocations, kBeside);
    } else if (word == "register") {
      check_number(line, object, "index", text.registers.size());
      add(line, object, text.registers, lines.registers, kBeside);
    } else if (word == "transfer") {
      check_number(line, object, "index", text.transfers.size());
      add(line, object, text.transfers, lines.transfers, kBeside);
    } else {
      constexpr std::array<std::string_view, 8> kDerived{
          "record", "text", "index", "chip", "unit", "position", "bank", "latency_cycles"};
      add(line, object, text.instructions, lines.instructions, kDerived);
    }
  }

  template <typename T>
  void add(const Line& line,
           const json::object& object,
           std::vector<T>& elements,
           std::vector<std::size_t>& lines,
           std::span<const std::string_view> beside) {
    line.take_fields(nullptr, object, elements.emplace_back(), beside);
    lines.push_back(number_);
  }

  static void check_number(const Line& line, const json::object& object, std::string_view key, std::size_t expected) {
    const json::value* value = object.if_contains({key.data(), key.size()});
    if (value == nullptr) {
      line.fail(std::string(key), "no such field", std::to_string(expected));
    }
    if (!value->is_int64() || !std::cmp_equal(value->get_int64(), expected)) {
      line.fail(Path{.name = key}, *value, std::to_string(expected) + ": numbers follow the lines");
    }
  }

  /// Instructions into a text's order, and the numbers of their lines along with them.
  void sort_texts() {
    for (std::size_t t = 0; t < program_.texts.size(); ++t) {
      std::vector<node::Instruction>& instructions = program_.texts[t].instructions;
      std::vector<std::size_t>& lines = text_lines_[t].instructions;
      std::vector<std::size_t> order(instructions.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::ranges::stable_sort(
          order, [&](std::size_t a, std::size_t b) { return comes_before(instructions[a], instructions[b]); });
      std::vector<node::Instruction> sorted;
      std::vector<std::size_t> sorted_lines;
      for (const std::size_t at : order) {
        sorted.push_back(instructions[at]);
        sorted_lines.push_back(lines[at]);
      }
      instructions = std::move(sorted);
      lines = std::move(sorted_lines);
    }
  }

  [[nodiscard]] std::size_t line_of(const FormFault& fault) const {
    const auto index = static_cast<std::size_t>(fault.index);
    if (fault.record == Record::kProgram) {
      return program_line_;
    }
    if (fault.record == Record::kBinding) {
      return binding_lines_[index];
    }
    const TextLines& lines = text_lines_[static_cast<std::size_t>(fault.text)];
    switch (fault.record) {
      case Record::kTensor:
        return lines.tensors[index];
      case Record::kAllocation:
        return lines.allocations[index];
      case Record::kRegister:
        return lines.registers[index];
      case Record::kTransfer:
        return lines.transfers[index];
      case Record::kInstruction:
        return lines.instructions[index];
      case Record::kProgram:
      case Record::kBinding:
      case Record::kText:
        break;
    }
    return lines.text;
  }

  std::string name_;
  std::size_t number_ = 0;
  ClusterProgram program_;
  bool has_ended_ = false;
  std::size_t program_line_ = 0;
  std::vector<std::size_t> binding_lines_;
  std::vector<TextLines> text_lines_;
};

}  // namespace

ClusterProgram assemble(std::istream& in, const std::string& name) {
  return Assembler(name).run(in);
}

ClusterProgram assemble(const std::filesystem::path& file) {
  std::error_code error;
  if (std::filesystem::is_directory(file, error)) {
    throw node::InputError(file.string() + ": found a folder; expected a listing (inspect --json)");
  }
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    const int reason = errno;
    throw node::InputError(file.string() + ": found \"" + std::generic_category().message(reason) +
                           "\"; expected a listing (inspect --json)");
  }
  return assemble(in, file.string());
}

}  // namespace lpu::scheduler
