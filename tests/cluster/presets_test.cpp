#include "lpu/cluster/presets.hpp"

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <boost/json.hpp>
#include <gtest/gtest.h>

#include "lpu/node/error.hpp"
#include "lpu/node/field_reader.hpp"
#include "test_chip.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;

/// A number with its unit ("217 cycles"), or a value with a "unit" beside it.
bool has_unit(const json::object& field) {
  if (const json::value* unit = field.if_contains("unit")) {
    return unit->is_string() && !unit->get_string().empty();
  }
  const json::value* value = field.if_contains("value");
  if (value == nullptr || !value->is_string()) {
    return false;
  }
  const std::string text(value->get_string());
  // A list of words names its own kinds.
  return text.find(' ') != std::string::npos && text.find_last_not_of("0123456789. ") != std::string::npos;
}

std::vector<fs::path> preset_files() {
  std::vector<fs::path> out;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(LPU_PRESETS)) {
    if (entry.path().extension() == ".json") {
      out.push_back(entry.path());
    }
  }
  return out;
}

TEST(Presets, EveryFieldOfEveryFileHasUnitAndSource) {
  std::size_t fields = 0;
  for (const fs::path& file : preset_files()) {
    const json::object preset = json::parse(node::read_text_file(file)).as_object();
    for (const auto& member : preset) {
      if (member.key() == "kind" || member.key() == "name" || member.key() == "description") {
        EXPECT_TRUE(member.value().is_string()) << file << " " << member.key();
        continue;
      }
      ASSERT_TRUE(member.value().is_object()) << file << " " << member.key();
      const json::object& field = member.value().get_object();
      EXPECT_TRUE(has_unit(field)) << file << " " << member.key();
      const json::value* source = field.if_contains("source");
      EXPECT_TRUE(source != nullptr && source->is_string() && source->get_string().size() > 5)
          << file << " " << member.key();
      ++fields;
    }
  }
  EXPECT_GT(fields, 150U);
}

TEST(Presets, TheProgramHoldsEveryFile) {
  std::set<std::string> held;
  for (const PresetKind kind : kPresetKinds) {
    for (const std::string& name : preset_names(kind)) {
      held.insert(std::string(folder(kind)) + "/" + name + ".json");
    }
  }
  std::set<std::string> files;
  for (const fs::path& file : preset_files()) {
    files.insert(fs::relative(file, LPU_PRESETS).string());
  }
  EXPECT_EQ(held, files);
}

TEST(Presets, EachLoadsUnderItsOwnName) {
  for (const std::string& name : preset_names(PresetKind::kChips)) {
    EXPECT_EQ(load_chip(name, "here").chip.name, name);
  }
  for (const std::string& name : preset_names(PresetKind::kGpus)) {
    EXPECT_EQ(load_gpu(name, "here").gpu.name, name);
  }
  for (const std::string& name : preset_names(PresetKind::kNccl)) {
    EXPECT_EQ(load_nccl(name, "here").nccl.name, name);
  }
  for (const std::string& name : preset_names(PresetKind::kSystems)) {
    if (is_gpu_system(name, "here")) {
      EXPECT_EQ(load_gpu_system(name, "here").system.fabric.name, name);
      continue;
    }
    const SystemPreset system = load_system(name, "here");
    EXPECT_EQ(system.name, name);
    EXPECT_NO_THROW(static_cast<void>(load_chip(system.chip, "here")));
  }
  for (const std::string& name : preset_names(PresetKind::kModels)) {
    EXPECT_EQ(load_model(name, "here").model.name, name);
  }
}

struct Published {
  const char* model;
  std::int64_t parameters;
  std::int32_t chips;
};
class ModelPresets : public testing::TestWithParam<Published> {};

/// Number of weights as the checkpoints on the model hub have it (model.safetensors.index.json, total size / 2 bytes).
TEST_P(ModelPresets, CountsThePublishedWeights) {
  const scheduler::ModelPreset preset = load_model(GetParam().model, "here");
  EXPECT_EQ(scheduler::parameters(preset.model), GetParam().parameters);
  EXPECT_EQ(preset.chips, GetParam().chips);
}
INSTANTIATE_TEST_SUITE_P(Published,
                         ModelPresets,
                         testing::Values(Published{"llama-2-7b", 6'738'415'616, 64},
                                         Published{"llama-2-70b", 68'976'648'192, 576},
                                         Published{"llama-3-8b", 8'030'261'248, 64},
                                         Published{"llama-3-70b", 70'553'706'496, 576},
                                         Published{"mistral-7b", 7'241'732'096, 64},
                                         Published{"mixtral-8x7b", 46'702'792'704, 256},
                                         Published{"mixtral-8x22b", 140'620'634'112, 904}),
                         [](const auto& test) {
                           std::string name = test.param.model;
                           for (char& c : name) {
                             c = c == '-' ? '_' : c;
                           }
                           return name;
                         });

TEST(Presets, TheChipOfTheLowerFloorsTestsIsTheShippedOne) {
  const node::ChipSpec shipped = load_chip("tsp-v1", "here").chip;
  const node::ChipSpec of_tests = test::tsp_v1();
  for (const std::string& field : node::chip_field_names()) {
    EXPECT_EQ(node::chip_field_text(of_tests, field), node::chip_field_text(shipped, field)) << field;
  }
}

TEST(Presets, AGpuSystemJoinsGpuFabricAndNccl) {
  const scheduler::GpuSystem system = load_gpu_system("dgx-h100", "here").system;
  EXPECT_EQ(system.gpu.name, "h100-80g-sxm");
  EXPECT_EQ(system.nccl.name, "nccl-2.30");
  EXPECT_FALSE(is_gpu_system("rack-64", "here"));
  try {
    static_cast<void>(load_system("dgx-h100", "--system"));
    FAIL();
  } catch (const node::InputError& error) {
    EXPECT_STREQ(error.what(), "dgx-h100:kind: found \"gpu-system\"; expected system: one of chips, not of GPUs");
  }
}

TEST(Presets, SettingsReachEveryPartOfAGpuSystem) {
  scheduler::GpuSystem system = load_gpu_system("dgx-h100", "here").system;
  const std::vector<node::Setting> settings = {{"gpu.hbm_rate", "4.8 TB/s"},
                                               {"fabric.host_power", "6 kW"},
                                               {"nccl.nvls", "20 us"},
                                               {"chip.clock", "1 GHz"}};  // of the other machine
  apply_gpu_settings(system, settings);
  EXPECT_EQ(system.gpu.hbm_gigabytes_per_second, 4800);
  EXPECT_EQ(system.fabric.host_power_watts, 6000);
  EXPECT_EQ(system.nccl.nvls_us, 20);
  const std::vector<node::Setting> contradiction = {{"gpu.hbm_rate", "1 TB/s"}};
  EXPECT_THROW(apply_gpu_settings(system, contradiction), node::InputError);
  const std::vector<node::Setting> another = {{"fabric.gpu", "a100-80g-sxm"}};
  EXPECT_THROW(apply_gpu_settings(system, another), node::InputError);
  for (const std::string& path : gpu_setting_paths()) {
    EXPECT_TRUE(path.starts_with("gpu.") || path.starts_with("fabric.") || path.starts_with("nccl.")) << path;
  }
}

TEST(Presets, UnknownNameListsTheKnownOnes) {
  try {
    static_cast<void>(load_chip("tsp-v2", "--chip"));
    FAIL();
  } catch (const node::InputError& error) {
    EXPECT_STREQ(error.what(),
                 "--chip: found tsp-v2; expected a chip preset or a file; known: tsp-v1; did you mean tsp-v1?");
  }
}

}  // namespace
}  // namespace lpu::cluster
