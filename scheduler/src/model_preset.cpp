#include "lpu/scheduler/model_preset.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <variant>

#include "lpu/node/error.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/sourced_value.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::scheduler {
namespace {

using node::InputError;

template <typename Enum>
struct Word {
  Enum value;
  std::string_view name;
};

constexpr std::array<Word<ModelFamily>, 3> kFamilies = {{
    {ModelFamily::kLlama, "llama"},
    {ModelFamily::kMistral, "mistral"},
    {ModelFamily::kMixtral, "mixtral"},
}};
constexpr std::array<Word<RopeScaling>, 3> kScalings = {{
    {RopeScaling::kNone, "none"},
    {RopeScaling::kLinear, "linear"},
    {RopeScaling::kLlama3, "llama3"},
}};
constexpr std::array<Word<StoredType>, 3> kStoredTypes = {{
    {StoredType::kFloat32, "float32"},
    {StoredType::kBfloat16, "bfloat16"},
    {StoredType::kFloat16, "float16"},
}};
constexpr std::array<Word<bool>, 2> kTruths = {{{false, "false"}, {true, "true"}}};

/// A count with its limits.
struct Count {
  std::int64_t ModelConfig::*member;
  std::int64_t minimum;
  std::int64_t maximum;
};
/// A positive number with its limits.
struct Number {
  double ModelConfig::*member;
  double minimum;
  double maximum;
};
struct RopeNumber {
  double RopeConfig::*member;
  double minimum;
  double maximum;
};
struct RopeCount {
  std::int64_t RopeConfig::*member;
  std::int64_t minimum;
  std::int64_t maximum;
};
struct Family {};
struct Scaling {};
struct Stored {};
struct Ties {};

/// Which models must state a field.
enum class Needed : std::uint8_t { kAlways, kScaledRope, kLlama3Rope };

struct Row {
  ModelField field;
  Needed needed;
  std::variant<Count, Number, RopeNumber, RopeCount, Family, Scaling, Stored, Ties> kind;
};

constexpr std::int64_t kMany = 1LL << 24U;

const Row kRows[] = {
    {{"family", node::kUnitWord, "architecture"}, Needed::kAlways, Family{}},
    {{"hidden", "elements", "width of the residual"}, Needed::kAlways, Count{&ModelConfig::hidden, 1, 1LL << 20U}},
    {{"layers", "layers", "decoder layers"}, Needed::kAlways, Count{&ModelConfig::layers, 1, 10'000}},
    {{"heads", "heads", "query heads"}, Needed::kAlways, Count{&ModelConfig::heads, 1, 65'536}},
    {{"kv_heads", "heads", "key and value heads"}, Needed::kAlways, Count{&ModelConfig::kv_heads, 1, 65'536}},
    {{"head_dim", "elements", "width of a head"}, Needed::kAlways, Count{&ModelConfig::head_dim, 2, 65'536}},
    {{"ffn", "elements", "intermediate size, of one expert"}, Needed::kAlways, Count{&ModelConfig::ffn, 1, kMany}},
    {{"vocabulary", "tokens", "rows of embedding and LM head"},
     Needed::kAlways,
     Count{&ModelConfig::vocabulary, 2, kMany}},
    {{"experts", "experts", "of a mixture; 0: dense"}, Needed::kAlways, Count{&ModelConfig::experts, 0, 4096}},
    {{"experts_per_token", "experts", "chosen by the router"},
     Needed::kAlways,
     Count{&ModelConfig::experts_per_token, 0, 4096}},
    {{"max_position", "positions", "longest context"},
     Needed::kAlways,
     Count{&ModelConfig::max_position, 1, 1LL << 30U}},
    {{"sliding_window", "positions", "attention window; 0: none"},
     Needed::kAlways,
     Count{&ModelConfig::sliding_window, 0, 1LL << 30U}},
    {{"rms_epsilon", node::kUnitOne, "of the norms"}, Needed::kAlways, Number{&ModelConfig::rms_epsilon, 1e-12, 0.1}},
    {{"ties_embeddings", node::kUnitWord, "LM head shares the embedding"}, Needed::kAlways, Ties{}},
    {{"stored_type", node::kUnitWord, "of the checkpoint's weights"}, Needed::kAlways, Stored{}},
    {{"rope_theta", node::kUnitOne, "base of the rotary embedding"},
     Needed::kAlways,
     RopeNumber{&RopeConfig::theta, 1.0, 1e12}},
    {{"rope_scaling", node::kUnitWord, "none, linear or llama3"}, Needed::kAlways, Scaling{}},
    {{"rope_factor", node::kUnitOne, "of the scaling"}, Needed::kScaledRope, RopeNumber{&RopeConfig::factor, 1.0, 1e4}},
    {{"rope_low_frequency_factor", node::kUnitOne, "llama3 scaling"},
     Needed::kLlama3Rope,
     RopeNumber{&RopeConfig::low_frequency_factor, 1e-3, 1e4}},
    {{"rope_high_frequency_factor", node::kUnitOne, "llama3 scaling"},
     Needed::kLlama3Rope,
     RopeNumber{&RopeConfig::high_frequency_factor, 1e-3, 1e4}},
    {{"rope_original_max_position", "positions", "llama3 scaling"},
     Needed::kLlama3Rope,
     RopeCount{&RopeConfig::original_max_position, 1, 1LL << 30U}},
};

const Row* find_row(std::string_view name) {
  const auto* row =
      std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.field.name == name; });
  return row == std::end(kRows) ? nullptr : row;
}

bool is_needed(const Row& row, const ModelConfig& model) {
  switch (row.needed) {
    case Needed::kAlways:
      return true;
    case Needed::kScaledRope:
      return model.rope.scaling != RopeScaling::kNone;
    case Needed::kLlama3Rope:
      return model.rope.scaling == RopeScaling::kLlama3;
  }
  return true;
}

template <typename Table>
auto parse_word(const Table& table, std::string_view text, const std::string& where) {
  std::vector<std::string> known;
  for (const auto& word : table) {
    if (word.name == text) {
      return word.value;
    }
    known.emplace_back(word.name);
  }
  throw InputError(where + ": found " + node::printable(text) + "; expected one of the known words" +
                   node::known_values(text, known));
}

template <typename Table, typename Value>
std::string word_of(const Table& table, Value value) {
  for (const auto& word : table) {
    if (word.value == value) {
      return std::string(word.name);
    }
  }
  return {};
}

double parse_number(std::string_view text, double minimum, double maximum, const std::string& where) {
  double value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end.ec != std::errc() || end.ptr != text.data() + text.size() || !(value >= minimum && value <= maximum)) {
    throw InputError(where + ": found " + node::printable(text) + "; expected a number from " +
                     node::shortest(minimum) + " to " + node::shortest(maximum));
  }
  return value;
}

void check_count(
    const ModelField& field, std::int64_t value, std::int64_t minimum, std::int64_t maximum, const std::string& where) {
  if (value < minimum || value > maximum) {
    throw InputError(where + ": found " + std::to_string(value) + "; expected " + std::to_string(minimum) + " to " +
                     std::to_string(maximum) + " " + std::string(field.unit));
  }
}

std::int64_t parse_count(const ModelField& field,
                         std::string_view text,
                         std::int64_t minimum,
                         std::int64_t maximum,
                         const std::string& where) {
  const std::int64_t value = node::parse_quantity(text, node::Dimension::kCount, where, field.unit);
  check_count(field, value, minimum, maximum, where);
  return value;
}

/// Sets a field from its text.
struct Assign {
  ModelConfig& model;
  const ModelField& field;
  std::string_view text;
  const std::string& where;

  void operator()(const Count& c) const { model.*c.member = parse_count(field, text, c.minimum, c.maximum, where); }
  void operator()(const RopeCount& c) const {
    model.rope.*c.member = parse_count(field, text, c.minimum, c.maximum, where);
  }
  void operator()(const Number& n) const { model.*n.member = parse_number(text, n.minimum, n.maximum, where); }
  void operator()(const RopeNumber& n) const { model.rope.*n.member = parse_number(text, n.minimum, n.maximum, where); }
  void operator()(const Family&) const { model.family = parse_word(kFamilies, text, where); }
  void operator()(const Scaling&) const { model.rope.scaling = parse_word(kScalings, text, where); }
  void operator()(const Stored&) const { model.stored_type = parse_word(kStoredTypes, text, where); }
  void operator()(const Ties&) const { model.ties_embeddings = parse_word(kTruths, text, where); }
};

struct Show {
  const ModelConfig& model;
  const ModelField& field;

  std::string operator()(const Count& c) const { return count(model.*c.member); }
  std::string operator()(const RopeCount& c) const { return count(model.rope.*c.member); }
  std::string operator()(const Number& n) const { return node::shortest(model.*n.member); }
  std::string operator()(const RopeNumber& n) const { return node::shortest(model.rope.*n.member); }
  std::string operator()(const Family&) const { return word_of(kFamilies, model.family); }
  std::string operator()(const Scaling&) const { return word_of(kScalings, model.rope.scaling); }
  std::string operator()(const Stored&) const { return word_of(kStoredTypes, model.stored_type); }
  std::string operator()(const Ties&) const { return word_of(kTruths, model.ties_embeddings); }

  [[nodiscard]] std::string count(std::int64_t value) const {
    return node::format_quantity(value, node::Dimension::kCount, field.unit);
  }
};

/// Throws where a count or a number is out of its row's range.
struct CheckRange {
  const ModelConfig& model;
  const ModelField& field;
  const std::string& where;

  void operator()(const Count& c) const { check_count(field, model.*c.member, c.minimum, c.maximum, where); }
  void operator()(const RopeCount& c) const { check_count(field, model.rope.*c.member, c.minimum, c.maximum, where); }
  void operator()(const Number& n) const { number(model.*n.member, n.minimum, n.maximum); }
  void operator()(const RopeNumber& n) const { number(model.rope.*n.member, n.minimum, n.maximum); }
  void operator()(const Family&) const {}
  void operator()(const Scaling&) const {}
  void operator()(const Stored&) const {}
  void operator()(const Ties&) const {}

  void number(double value, double minimum, double maximum) const {
    if (!(value >= minimum && value <= maximum)) {
      throw InputError(where + ": found " + node::shortest(value) + "; expected a number from " +
                       node::shortest(minimum) + " to " + node::shortest(maximum));
    }
  }
};

void assign(ModelConfig& model, const Row& row, std::string_view text, const std::string& where) {
  std::visit(Assign{model, row.field, text, where}, row.kind);
}

}  // namespace

std::span<const ModelField> model_fields() {
  static const std::vector<ModelField> kFields = [] {
    std::vector<ModelField> out;
    for (const Row& row : kRows) {
      out.push_back(row.field);
    }
    return out;
  }();
  return kFields;
}

bool is_used(const ModelConfig& model, std::string_view field) {
  const Row* row = find_row(field);
  LPU_CHECK(row != nullptr, field);
  return is_needed(*row, model);
}

std::string model_field_text(const ModelConfig& model, std::string_view field) {
  const Row* row = find_row(field);
  LPU_CHECK(row != nullptr, field);
  return std::visit(Show{model, row->field}, row->kind);
}

ModelPreset load_model_preset(const node::FieldReader& reader) {
  if (reader.text("kind") != "model") {
    reader.fail("kind", "model");
  }
  ModelPreset out;
  out.model.name = reader.text("name");
  out.description = reader.text("description");
  const node::SourcedValue chips = node::read_sourced(reader, "chips");
  out.chips =
      static_cast<std::int32_t>(node::parse_quantity(chips.value, node::Dimension::kCount, chips.where, "chips"));
  if (out.chips < 1 || out.chips > 10'440) {
    throw InputError(chips.where + ": found " + chips.value + "; expected 1 to 10440 chips");
  }
  out.sources["chips"] = chips.source;
  for (const Row& row : kRows) {
    if (!is_needed(row, out.model) && !reader.has(row.field.name)) {
      continue;
    }
    const node::SourcedValue field = node::read_sourced(reader, row.field.name);
    assign(out.model, row, field.value, field.where);
    out.sources[std::string(row.field.name)] = field.source;
  }
  reader.refuse_other_keys();
  check_model(out.model, reader.where() + ":");
  return out;
}

ModelConfig load_effective_model(const node::FieldReader& reader) {
  ModelConfig model;
  model.name = reader.text("name");
  for (const Row& row : kRows) {
    if (is_needed(row, model) || reader.has(row.field.name)) {
      assign(model, row, reader.literal(row.field.name), reader.where(row.field.name));
    }
  }
  reader.refuse_other_keys();
  check_model(model, reader.where() + ":");
  return model;
}

std::vector<std::string> model_setting_paths() {
  std::vector<std::string> out;
  for (const Row& row : kRows) {
    out.push_back("model." + std::string(row.field.name));
  }
  return out;
}

void apply_model_settings(ModelConfig& model, std::span<const node::Setting> settings) {
  for (const node::Setting& setting : settings) {
    const std::string where = "--set " + setting.path;
    const Row* row = setting.path.starts_with("model.") ? find_row(std::string_view(setting.path).substr(6)) : nullptr;
    if (row == nullptr) {
      throw InputError(where + ": found an unknown path; expected a field of the model" +
                       node::did_you_mean(setting.path, model_setting_paths()));
    }
    assign(model, *row, setting.value, where);
  }
  if (!settings.empty()) {
    check_model(model, "--set model.");
  }
}

void check_model(const ModelConfig& model, const std::string& where) {
  for (const Row& row : kRows) {
    if (is_needed(row, model)) {
      std::visit(CheckRange{model, row.field, where + std::string(row.field.name)}, row.kind);
    }
  }
  const auto contradict = [&](std::string_view name, std::int64_t found, const std::string& expected) {
    throw InputError(where + std::string(name) + ": found " + std::to_string(found) + "; expected " + expected);
  };
  if (model.heads % model.kv_heads != 0) {
    contradict("kv_heads", model.kv_heads, "a divisor of the " + std::to_string(model.heads) + " query heads");
  }
  if (model.head_dim % 2 != 0) {
    contradict("head_dim", model.head_dim, "an even number (rotary pairs)");
  }
  const bool is_mixture = model.family == ModelFamily::kMixtral;
  if (is_mixture != (model.experts > 0)) {
    contradict("experts", model.experts, is_mixture ? "1 or more for mixtral" : "0 for a dense model");
  }
  if (model.experts_per_token > model.experts || (model.experts > 0 && model.experts_per_token == 0)) {
    contradict("experts_per_token",
               model.experts_per_token,
               model.experts == 0 ? std::string("0 for a dense model") : "1 to " + std::to_string(model.experts));
  }
  if (model.rope.scaling == RopeScaling::kLlama3 &&
      model.rope.low_frequency_factor >= model.rope.high_frequency_factor) {
    throw InputError(where + "rope_low_frequency_factor: found " + node::shortest(model.rope.low_frequency_factor) +
                     "; expected less than rope_high_frequency_factor, " +
                     node::shortest(model.rope.high_frequency_factor));
  }
}

std::int64_t parameters(const ModelConfig& model) {
  const std::int64_t attention = model.hidden * model.head_dim * (2 * model.heads + 2 * model.kv_heads);
  const std::int64_t experts = std::max<std::int64_t>(model.experts, 1);
  const std::int64_t feed_forward = experts * 3 * model.hidden * model.ffn + model.experts * model.hidden;
  const std::int64_t norms = (2 * model.layers + 1) * model.hidden;
  const std::int64_t ends = model.vocabulary * model.hidden * (model.ties_embeddings ? 1 : 2);
  return model.layers * (attention + feed_forward) + norms + ends;
}

}  // namespace lpu::scheduler
