#include <algorithm>
#include <filesystem>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "burst_verdict.hpp"
#include "lpu/node/chip_preset.hpp"
#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/model_preset.hpp"

// One whole layer of each model preset, as compiled for its default system: bursts and cells give one verdict, for the
// layer as it is, at intervals too small for it, and with a burst moved.

namespace lpu::scheduler {
namespace {

const std::filesystem::path kPresets = LPU_PRESETS;

class VerifyLayerProperty : public testing::TestWithParam<std::string> {
 protected:
  /// A text from the middle of the pipeline, cut down to what touches its first layer.
  static ClusterProgram layer_of(const std::string& model) {
    const ModelPreset preset = load_model_preset(node::FieldReader::load(kPresets / "models" / (model + ".json")));
    CompileRequest request;
    request.model = preset.model;
    request.chips = preset.chips;
    request.chip = node::load_chip_preset(node::FieldReader::load(kPresets / "chips" / "tsp-v1.json")).chip;
    ClusterProgram program = compile(request).program;
    const node::ChipBinding& middle = program.bindings[program.bindings.size() / 2];
    node::ChipProgram text = program.texts.at(static_cast<std::size_t>(middle.text));
    std::int32_t layer = 0;
    for (const node::Tensor& tensor : text.tensors) {
      layer = tensor.scope == node::TensorScope::kCache ? tensor.layer_slot : layer;
    }
    std::erase_if(text.instructions, [&](const node::Instruction& instruction) {
      return std::none_of(instruction.operands.begin(), instruction.operands.end(), [&](const node::StreamOperand& o) {
        return o.kind != node::OperandKind::kNone && text.tensors[o.tensor].layer_slot == layer;
      });
    });
    program.texts.assign(1, std::move(text));
    return program;
  }
};

TEST_P(VerifyLayerProperty, BurstsAndCellsAgree) {
  ClusterProgram program = layer_of(GetParam());
  const std::vector<node::Cell> cells = node::expand(program.texts[0], program.chip, program.plan.context);
  EXPECT_GT(cells.size(), 100'000U) << "not a whole layer";
  EXPECT_TRUE(test::cells_say_free(program, cells));
  EXPECT_TRUE(test::bursts_say_free(program));
  const std::int64_t interval = program.initiation_interval;
  for (const std::int64_t part : {2, 7}) {
    program.initiation_interval = interval / part;
    EXPECT_EQ(test::bursts_say_free(program), test::cells_say_free(program, cells))
        << "interval " << program.initiation_interval;
  }
  program.initiation_interval = interval;
  std::mt19937_64 random(1);
  for (int mutant = 0; mutant < 6; ++mutant) {
    ClusterProgram moved = program;
    auto& instructions = moved.texts[0].instructions;
    const auto which = std::uniform_int_distribution<std::size_t>(0, instructions.size() - 1)(random);
    instructions[which].start += std::uniform_int_distribution<std::int32_t>(1, 40)(random);
    // Cells of the others stay as they are.
    node::ChipProgram alone = moved.texts[0];
    alone.instructions.assign(1, instructions[which]);
    std::vector<node::Cell> all = cells;
    std::erase_if(all, [&](const node::Cell& cell) { return cell.instruction == static_cast<std::int32_t>(which); });
    for (node::Cell cell : node::expand(alone, moved.chip, moved.plan.context)) {
      cell.instruction = static_cast<std::int32_t>(which);
      all.push_back(cell);
    }
    EXPECT_EQ(test::bursts_say_free(moved), test::cells_say_free(moved, all))
        << "mutant " << mutant << ": instruction " << which;
  }
}

std::vector<std::string> presets() {
  std::vector<std::string> out;
  for (const auto& file : std::filesystem::directory_iterator(kPresets / "models")) {
    out.push_back(file.path().stem().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}
INSTANTIATE_TEST_SUITE_P(Presets, VerifyLayerProperty, testing::ValuesIn(presets()), [](const auto& one) {
  std::string name = one.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
});

}  // namespace
}  // namespace lpu::scheduler
