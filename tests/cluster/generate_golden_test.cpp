#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "checkpoint_program.hpp"
#include "checkpoint_writer.hpp"
#include "forward_pass.hpp"
#include "lpu/cluster/generate.hpp"
#include "lpu/node/error.hpp"
#include "lpu/scheduler/compile.hpp"
#include "random_models.hpp"

namespace lpu::cluster {
namespace {

using scheduler::Checkpoint;

struct Cut {
  const char* name;
  const char* model;
  std::int32_t chips, tp, pp;
};
void PrintTo(const Cut& cut, std::ostream* out) {
  *out << cut.name;
}
class ShippedModelOnChips : public testing::TestWithParam<Cut> {};
INSTANTIATE_TEST_SUITE_P(Cuts,
                         ShippedModelOnChips,
                         testing::Values(Cut{"Llama1", "shakespeare-llama-4m", 1, 1, 1},
                                         Cut{"Llama2", "shakespeare-llama-4m", 2, 2, 1},
                                         Cut{"Llama3", "shakespeare-llama-4m", 3, 1, 3},
                                         Cut{"Llama5", "shakespeare-llama-4m", 5, 2, 2},
                                         Cut{"Llama8", "shakespeare-llama-4m", 8, 8, 1},
                                         Cut{"Llama6Stages", "shakespeare-llama-4m", 6, 1, 6},
                                         Cut{"Llama64", "shakespeare-llama-4m", 64, 8, 8},
                                         Cut{"Mixtral1", "shakespeare-mixtral-5m", 1, 1, 1},
                                         Cut{"Mixtral2", "shakespeare-mixtral-5m", 2, 2, 1},
                                         Cut{"Mixtral5", "shakespeare-mixtral-5m", 5, 1, 5},
                                         Cut{"Mixtral8", "shakespeare-mixtral-5m", 8, 8, 1},
                                         Cut{"Mixtral32", "shakespeare-mixtral-5m", 32, 8, 4}),
                         [](const auto& test) { return std::string(test.param.name); });

/// The cluster says token for token, and bit for bit after the prompt, what the plain forward pass says.
void expect_plain_bits(const Checkpoint& checkpoint,
                       const scheduler::ClusterProgram& program,
                       const std::vector<std::int64_t>& prompt,
                       std::int64_t new_tokens) {
  const node::SimdTarget simd = node::choose_simd_target("auto");
  GenerateOptions options;
  options.prompt = prompt;
  options.new_tokens = new_tokens;
  options.simd = simd;
  const GenerateResult result = generate(program, checkpoint, options);
  test::ForwardPass pass(checkpoint, simd);
  std::vector<float> logits;
  for (const std::int64_t token : prompt) {
    logits = pass.step(token);
  }
  EXPECT_EQ(test::bits_of(result.logits_after_prompt), test::bits_of(logits));
  ASSERT_EQ(result.new_ids.size(), static_cast<std::size_t>(new_tokens));
  for (const std::int64_t id : result.new_ids) {
    ASSERT_EQ(id, node::arg_max(logits));
    logits = pass.step(id);
  }
}

TEST_P(ShippedModelOnChips, GivesTheBitsOfThePlainForwardPass) {
  const Checkpoint checkpoint = Checkpoint::open(std::string(LPU_MODELS "/") + GetParam().model);
  const std::string text = "ROMEO:\n";
  expect_plain_bits(checkpoint,
                    test::compile_checkpoint(checkpoint, GetParam().chips, GetParam().tp, GetParam().pp),
                    {text.begin(), text.end()},
                    4);
}

/// A small run whose result a fault must change.
GenerateResult short_run(const Checkpoint& checkpoint,
                         const scheduler::ClusterProgram& program,
                         const interconnect::PayloadTamperer& tamperer = {}) {
  GenerateOptions options;
  options.prompt = {82, 79, 77};
  options.new_tokens = 2;
  options.simd = node::choose_simd_target("auto");
  options.tamperer = tamperer;
  return generate(program, checkpoint, options);
}

Checkpoint shipped(const std::string& name) {
  return Checkpoint::open(LPU_MODELS "/" + name);
}

TEST(Generate, AFlippedBitOnAWireChangesResultAndExecution) {
  const Checkpoint checkpoint = shipped("shakespeare-llama-4m");
  const scheduler::ClusterProgram program = test::compile_checkpoint(checkpoint, 4, 2, 2);
  const GenerateResult plain = short_run(checkpoint, program);
  EXPECT_EQ(short_run(checkpoint, program).fold, plain.fold);
  std::int64_t vectors = 0;
  const GenerateResult flipped = short_run(checkpoint, program, [&](interconnect::Delivery, std::span<std::byte> v) {
    if (++vectors == 4) {  // the first value's highest byte
      v[5] ^= std::byte{1};
    }
    return true;
  });
  EXPECT_EQ(flipped.vectors_moved, plain.vectors_moved);
  EXPECT_NE(flipped.result_digest, plain.result_digest);
  EXPECT_NE(flipped.fold, plain.fold);
}

/// Moves every read of a tensor whose name begins so by some addresses.
scheduler::ClusterProgram with_moved_reads(scheduler::ClusterProgram program,
                                           const std::string& tensor,
                                           std::int32_t addresses) {
  int moved = 0;
  for (node::ChipProgram& text : program.texts) {
    for (node::Instruction& in : text.instructions) {
      if (in.opcode == node::Opcode::kRead && text.tensors[in.operands[0].tensor].name.starts_with(tensor)) {
        in.address = static_cast<std::uint16_t>(in.address + addresses);
        ++moved;
      }
    }
  }
  EXPECT_GT(moved, 0) << tensor;
  return program;
}

TEST(Generate, ReadsWeightsAndCacheThroughTheAddressesOfTheProgram) {
  const Checkpoint checkpoint = shipped("shakespeare-llama-4m");
  const scheduler::ClusterProgram program = test::compile_checkpoint(checkpoint, 1, 1, 1);
  const GenerateResult plain = short_run(checkpoint, program);
  for (const char* tensor : {"qkv.weights", "down.weights", "key.cache", "value.cache"}) {
    try {
      const GenerateResult moved = short_run(checkpoint, with_moved_reads(program, tensor, 1));
      EXPECT_NE(test::bits_of(moved.logits_after_prompt), test::bits_of(plain.logits_after_prompt)) << tensor;
    } catch (const node::InputError& error) {  // no position is visible: 0 / 0
      EXPECT_NE(std::string(error.what()).find("NaN"), std::string::npos) << tensor;
    }
  }
}

TEST(Generate, ReadsExpertsThroughTheRegistersOfTheProgram) {
  const Checkpoint checkpoint = shipped("shakespeare-mixtral-5m");
  scheduler::ClusterProgram program = test::compile_checkpoint(checkpoint, 1, 1, 1);
  const GenerateResult plain = short_run(checkpoint, program);
  for (node::BaseRegister& base : program.texts.front().registers) {
    if (base.kind == node::RegisterKind::kExpert) {
      base.expert_slot = 1 - base.expert_slot;
    }
  }
  EXPECT_NE(test::bits_of(short_run(checkpoint, program).logits_after_prompt),
            test::bits_of(plain.logits_after_prompt));
}

TEST(Generate, SamplesTheSameTokensOnAnyCluster) {
  const Checkpoint checkpoint = shipped("shakespeare-mixtral-5m");
  std::vector<std::int64_t> first;
  for (const std::int32_t chips : {1, 4}) {
    GenerateOptions options;
    options.prompt = {82, 79, 77};
    options.new_tokens = 12;
    options.sampling = {.temperature = 1.5, .top_k = 50, .top_p = 0.95, .seed = 3};
    const GenerateResult result = generate(test::compile_checkpoint(checkpoint, chips, chips, 1), checkpoint, options);
    first = first.empty() ? result.new_ids : first;
    EXPECT_EQ(result.new_ids, first);
  }
  EXPECT_NE(first, std::vector<std::int64_t>(12, first.front()));
}

TEST(Generate, RefusesTokensAndLengthsThatNoProgramTakes) {
  const Checkpoint checkpoint = shipped("shakespeare-llama-4m");
  const scheduler::ClusterProgram program = test::compile_checkpoint(checkpoint, 1, 1, 1);
  const auto message = [&](const GenerateOptions& options) {
    try {
      static_cast<void>(generate(program, checkpoint, options));
    } catch (const node::InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  GenerateOptions options;
  EXPECT_EQ(message(options), "--prompt: found no tokens; expected at least one");
  options.prompt = {1, 256};
  EXPECT_EQ(message(options), "--prompt-ids: found 256; expected token ids from 0 to 255");
  options.prompt = {1, 2};
  options.new_tokens = 128;
  EXPECT_EQ(message(options),
            "--max-new-tokens: found 129 positions with the prompt; expected at most 128, the program's context");
}

class RandomModelOnChips : public testing::TestWithParam<test::RandomModel> {};
INSTANTIATE_TEST_SUITE_P(Shapes, RandomModelOnChips, testing::ValuesIn(test::random_models()), [](const auto& test) {
  return std::string(test.param.name);
});

TEST_P(RandomModelOnChips, GivesTheBitsOfThePlainForwardPass) {
  const test::TemporaryFolder folder;
  test::write_checkpoint(folder.path(), GetParam().model, test::random_tensors(GetParam().model, GetParam().type, 50));
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  test::Sequence sequence(51);
  std::vector<std::int64_t> prompt;
  for (int i = 0; i < 70; ++i) {  // over one softmax block, the window, and into the next tile of the cache
    prompt.push_back(static_cast<std::int64_t>(sequence.bits() % 91));
  }
  for (const std::int32_t tp : {1, 4}) {
    SCOPED_TRACE(tp);
    expect_plain_bits(checkpoint, test::compile_checkpoint(checkpoint, 2 * tp, tp, 2), prompt, 3);
  }
}

}  // namespace
}  // namespace lpu::cluster
