#include "lpu/scheduler/model_preset.hpp"

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"

namespace lpu::scheduler {
namespace {

using node::FieldReader;

const std::string& preset_text() {
  static const std::string kText = node::read_text_file(LPU_PRESETS "/models/mixtral-8x7b.json");
  return kText;
}

ModelPreset load(const std::string& text) {
  return load_model_preset(FieldReader::parse(text, "model.json"));
}

std::string with(const std::string& from, const std::string& to) {
  std::string text = preset_text();
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const node::InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ModelPreset, ReadsAMixture) {
  const ModelPreset preset = load(preset_text());
  EXPECT_EQ(preset.chips, 256);
  EXPECT_EQ(preset.model.family, ModelFamily::kMixtral);
  EXPECT_EQ(preset.model.experts, 8);
  EXPECT_EQ(preset.model.experts_per_token, 2);
  EXPECT_EQ(preset.model.rope.theta, 1e6);
  EXPECT_EQ(parameters(preset.model), 46'702'792'704);  // Jiang et al. 2024: 47B
}

TEST(ModelPreset, EveryUsedFieldIsNeeded) {
  const ModelConfig model = load(preset_text()).model;
  for (const ModelField& field : model_fields()) {
    if (is_used(model, field.name)) {
      const std::string name(field.name);
      EXPECT_EQ(message_of([&] { static_cast<void>(load(with("\"" + name + "\": {", "\"x_" + name + "\": {"))); }),
                "model.json:" + name + ": found no such field; expected an object with value and source");
    }
  }
}

TEST(ModelPreset, RefusesWithOneClearLine) {
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"32 layers\"", "\"32 heads\""))); }),
            "model.json:layers.value: found 32 heads; expected a number of layers");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"8 heads\"", "\"5 heads\""))); }),
            "model.json:kv_heads: found 5; expected a divisor of the 32 query heads");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"2 experts\"", "\"9 experts\""))); }),
            "model.json:experts_per_token: found 9; expected 1 to 8");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"4096 elements\"", "\"0 elements\""))); }),
            "model.json:hidden.value: found 0; expected 1 to 1048576 elements");
}

TEST(ModelSettings, ChangeOneField) {
  ModelConfig model = load(preset_text()).model;
  apply_model_settings(model, std::vector<node::Setting>{{"model.layers", "40"}, {"model.rope_theta", "5e5"}});
  EXPECT_EQ(model.layers, 40);
  EXPECT_EQ(model.rope.theta, 5e5);
}

TEST(ModelSettings, EveryFieldCanBeSetToWhatItIs) {
  const ModelConfig model = load(preset_text()).model;
  for (const ModelField& field : model_fields()) {
    if (is_used(model, field.name)) {
      ModelConfig same = model;
      apply_model_settings(
          same, std::vector<node::Setting>{{"model." + std::string(field.name), model_field_text(model, field.name)}});
      EXPECT_EQ(model_field_text(same, field.name), model_field_text(model, field.name)) << field.name;
    }
  }
}

TEST(ModelSettings, UnknownPathNamesTheNearest) {
  ModelConfig model = load(preset_text()).model;
  EXPECT_EQ(message_of([&] {
              apply_model_settings(model, std::vector<node::Setting>{{"model.layer", "40"}});
            }),
            "--set model.layer: found an unknown path; expected a field of the model; did you mean model.layers?");
}

}  // namespace
}  // namespace lpu::scheduler
