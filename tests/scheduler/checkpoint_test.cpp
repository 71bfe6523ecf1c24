#include "lpu/scheduler/checkpoint.hpp"

#include <bit>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "checkpoint_writer.hpp"
#include "lpu/node/error.hpp"
#include "temporary_folder.hpp"

namespace lpu::scheduler {
namespace {

using test::WrittenTensor;

ModelConfig tiny_model() {
  ModelConfig model;
  model.hidden = 4;
  model.layers = 2;
  model.heads = 2;
  model.kv_heads = 1;
  model.head_dim = 4;
  model.ffn = 6;
  model.vocabulary = 5;
  model.max_position = 16;
  return model;
}

ModelConfig tiny_mixture() {
  ModelConfig model = tiny_model();
  model.family = ModelFamily::kMixtral;
  model.experts = 3;
  model.experts_per_token = 2;
  return model;
}

WrittenTensor& tensor_named(std::vector<WrittenTensor>& tensors, const std::string& name) {
  for (WrittenTensor& tensor : tensors) {
    if (tensor.name == name) {
      return tensor;
    }
  }
  throw std::runtime_error(name);
}

/// What opening, and reading all weights, complains about; "accepted" where it does not. The folder's name is cut off.
std::string message_of(const std::filesystem::path& folder) {
  try {
    Checkpoint::open(folder).refuse_non_finite();
  } catch (const node::InputError& error) {
    std::string text = error.what();
    for (std::size_t at = text.find(folder.string()); at != std::string::npos; at = text.find(folder.string())) {
      text.replace(at, folder.string().size() + 1, "");
    }
    return text;
  }
  return "accepted";
}

/// Two shards and their index; the second holds what lies behind the first `cut` tensors.
void write_shards(const std::filesystem::path& folder,
                  const std::vector<WrittenTensor>& tensors,
                  std::size_t cut,
                  const std::function<std::string(const WrittenTensor&, std::string)>& file_of = {}) {
  const auto middle = tensors.begin() + static_cast<std::ptrdiff_t>(cut);
  test::write_bytes(folder / "a.safetensors", test::tensor_file({tensors.begin(), middle}));
  test::write_bytes(folder / "b.safetensors", test::tensor_file({middle, tensors.end()}));
  std::string map;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string file = i < cut ? "a.safetensors" : "b.safetensors";
    map += (i == 0 ? "\"" : ", \"") + tensors[i].name + "\": \"" + (file_of ? file_of(tensors[i], file) : file) + "\"";
  }
  test::write_bytes(folder / "model.safetensors.index.json", R"({"metadata": {}, "weight_map": {)" + map + "}}");
}

struct Stored {
  const char* name;
  StoredType type;
};
void PrintTo(const Stored& stored, std::ostream* out) {
  *out << stored.name;
}
class EveryStoredType : public testing::TestWithParam<Stored> {};
INSTANTIATE_TEST_SUITE_P(Checkpoint,
                         EveryStoredType,
                         testing::Values(Stored{"F32", StoredType::kFloat32},
                                         Stored{"BF16", StoredType::kBfloat16},
                                         Stored{"F16", StoredType::kFloat16}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(EveryStoredType, RowsAreWidenedExactly) {
  for (const ModelConfig& model : {tiny_model(), tiny_mixture()}) {
    const test::TemporaryFolder folder;
    std::vector<WrittenTensor> tensors = test::random_tensors(model, GetParam().type, 1);
    for (WrittenTensor& tensor : tensors) {  // each number says where it is, in 7 bits
      std::vector<float> values;
      for (std::size_t i = 0; i < tensor.bytes.size() / static_cast<std::size_t>(stored_bytes(GetParam().type)); ++i) {
        values.push_back(0.25F * static_cast<float>(i + 1 + tensor.name.size()));
      }
      tensor.bytes = test::stored(values, GetParam().type);
    }
    test::write_checkpoint(folder.path(), model, tensors);
    const Checkpoint checkpoint = Checkpoint::open(folder.path());
    EXPECT_EQ(checkpoint.model().stored_type, GetParam().type);
    std::int64_t bytes = 0;
    for (std::int64_t i = 0; i < tensor_count(model); ++i) {
      const ModelTensor tensor = tensor_at(model, i);
      const TensorShape shape = shape_of(model, tensor);
      bytes += shape.rows * shape.columns * stored_bytes(GetParam().type);
      const std::int64_t first = shape.rows / 2;
      const std::vector<float> rows = checkpoint.rows(tensor, first, shape.rows - first);
      ASSERT_EQ(rows.size(), static_cast<std::size_t>((shape.rows - first) * shape.columns));
      for (std::size_t j = 0; j < rows.size(); ++j) {
        const auto index = j + static_cast<std::size_t>(first * shape.columns);
        EXPECT_EQ(rows[j], 0.25F * static_cast<float>(index + 1 + name_of(model, tensor).size()));
      }
    }
    EXPECT_EQ(checkpoint.weight_bytes(), node::Bytes(bytes));
  }
}

TEST(ModelTensor, CountsAndNamesAreThoseOfTheFamilies) {
  EXPECT_EQ(tensor_count(tiny_model()), 3 + 2 * 9);
  EXPECT_EQ(tensor_count(tiny_mixture()), 3 + 2 * (7 + 3 * 3));
  EXPECT_EQ(name_of(tiny_model(), {.kind = TensorKind::kUp, .layer = 1}), "model.layers.1.mlp.up_proj.weight");
  EXPECT_EQ(name_of(tiny_mixture(), {.kind = TensorKind::kUp, .layer = 1, .expert = 2}),
            "model.layers.1.block_sparse_moe.experts.2.w3.weight");
  EXPECT_EQ(name_of(tiny_mixture(), {.kind = TensorKind::kRouter}), "model.layers.0.block_sparse_moe.gate.weight");
  ModelConfig tied = tiny_model();
  tied.ties_embeddings = true;
  EXPECT_EQ(tensor_count(tied), 2 + 2 * 9);
}

TEST(RotaryFrequencies, ScaleAsTheConfigSays) {
  ModelConfig model = tiny_model();
  model.head_dim = 8;
  model.rope.theta = 1e4;
  EXPECT_EQ(rotary_frequencies(model)[1], 0x1.9ap-4);  // 0.1 in bf16
  model.stored_type = StoredType::kFloat32;
  const std::vector<double> plain = rotary_frequencies(model);
  EXPECT_EQ(plain, (std::vector<double>{1.0F, 0.1F, 0.01F, 0.001F}));
  model.rope.scaling = RopeScaling::kLinear;
  model.rope.factor = 4.0;
  EXPECT_EQ(rotary_frequencies(model)[1], plain[1] / 4.0);
  // Wave lengths 6.3, 63, 628, 6283 against an original context of 256: kept below 256 / 4, divided above 256 / 0.25.
  model.rope.scaling = RopeScaling::kLlama3;
  model.rope.low_frequency_factor = 0.25;
  model.rope.high_frequency_factor = 4.0;
  model.rope.original_max_position = 256;
  const std::vector<double> scaled = rotary_frequencies(model);
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_EQ(scaled[1], plain[1]);
  EXPECT_EQ(scaled[3], plain[3] / 4.0);
  const double smooth = (256.0 / (6.283185307179586 / plain[2]) - 0.25) / 3.75;
  EXPECT_FLOAT_EQ(static_cast<float>(scaled[2]),
                  static_cast<float>((1.0 - smooth) * plain[2] / 4.0 + smooth * plain[2]));
}

TEST(Checkpoint, ReadsUnalignedHeadersAndASingleFileByName) {
  for (std::size_t padding = 0; padding < 3; ++padding) {
    const test::TemporaryFolder folder;
    test::write_checkpoint(
        folder.path(), tiny_model(), test::random_tensors(tiny_model(), StoredType::kFloat32, 2), padding);
    const Checkpoint checkpoint = Checkpoint::open(folder / "model.safetensors");
    test::Sequence sequence(2);
    EXPECT_EQ(checkpoint.rows({}, 0, 1)[0], sequence.between(-1.0F, 1.0F));
  }
}

TEST(Checkpoint, TheIndexAloneDecidesWhichFileHoldsATensor) {
  const test::TemporaryFolder folder;
  const std::vector<WrittenTensor> tensors = test::random_tensors(tiny_model(), StoredType::kBfloat16, 3);
  test::write_checkpoint(folder.path(), tiny_model(), test::random_tensors(tiny_model(), StoredType::kBfloat16, 4));
  write_shards(folder.path(), tensors, 7);
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  test::Sequence sequence(3);
  const float first = sequence.between(-1.0F, 1.0F);
  EXPECT_EQ(checkpoint.rows({}, 0, 1)[0], std::bit_cast<float>(std::bit_cast<std::uint32_t>(first) & 0xffff0000U));
  EXPECT_EQ(message_of(folder.path()), "accepted");
  EXPECT_NO_THROW(static_cast<void>(Checkpoint::open(folder / "model.safetensors.index.json")));
}

TEST(Checkpoint, MixedTypesCountAsTheWidest) {
  const test::TemporaryFolder folder;
  std::vector<WrittenTensor> tensors = test::random_tensors(tiny_model(), StoredType::kBfloat16, 5);
  WrittenTensor& norm = tensor_named(tensors, "model.norm.weight");
  norm.type = "F32";
  norm.bytes += norm.bytes;
  test::write_checkpoint(folder.path(), tiny_model(), tensors);
  EXPECT_EQ(Checkpoint::open(folder.path()).model().stored_type, StoredType::kFloat32);
}

TEST(Checkpoint, TiedEmbeddingsStandForTheHead) {
  ModelConfig model = tiny_model();
  std::vector<WrittenTensor> tensors = test::random_tensors(model, StoredType::kBfloat16, 6);
  model.ties_embeddings = true;
  const test::TemporaryFolder folder;
  test::write_checkpoint(folder.path(), model, tensors);
  EXPECT_EQ(
      message_of(folder.path()),
      "model.safetensors:lm_head.weight: found other weights than those of model.embed_tokens.weight; expected the "
      "same, or no such tensor, as config.json ties them");
  tensor_named(tensors, "lm_head.weight").bytes = tensor_named(tensors, "model.embed_tokens.weight").bytes;
  test::write_checkpoint(folder.path(), model, tensors);
  EXPECT_EQ(message_of(folder.path()), "accepted");
  tensors.pop_back();
  test::write_checkpoint(folder.path(), model, tensors);
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  EXPECT_EQ(checkpoint.rows({.kind = TensorKind::kHead}, 0, 5), checkpoint.rows({}, 0, 5));
}

TEST(Checkpoint, FrequenciesOfOlderFilesAreIgnored) {
  const test::TemporaryFolder folder;
  std::vector<WrittenTensor> tensors = test::random_tensors(tiny_model(), StoredType::kBfloat16, 7);
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {2}, std::string(8, '\0')});
  test::write_checkpoint(folder.path(), tiny_model(), tensors);
  EXPECT_EQ(message_of(folder.path()), "accepted");
}

/// A fault planted in a small good checkpoint, and the one line that tells of it.
struct Damage {
  const char* name;
  std::function<void(const std::filesystem::path&, std::vector<WrittenTensor>)> write;
  const char* message;
};

void PrintTo(const Damage& damage, std::ostream* out) {
  *out << damage.name;
}

void write_file(const std::filesystem::path& folder, const std::string& bytes) {
  test::write_checkpoint(folder, tiny_model(), {});
  test::write_bytes(folder / "model.safetensors", bytes);
}

/// A good file with one word of its header replaced; the header's length stays right.
void write_edited(const std::filesystem::path& folder,
                  const std::vector<WrittenTensor>& tensors,
                  const std::string& old,
                  const std::string& replacement) {
  const std::string file = test::tensor_file(tensors);
  const std::size_t length = file.find("}}") + 2 - 8;
  std::string header = file.substr(8, length);
  const std::size_t at = header.find(old);
  if (at == std::string::npos) {
    throw std::runtime_error(old);
  }
  header.replace(at, old.size(), replacement);
  write_file(folder, test::length_bytes(header.size()) + header + file.substr(8 + length));
}

const std::vector<Damage>& damages() {
  static const std::vector<Damage> kDamages = {
      {"NoConfig",
       [](const auto& folder, const auto& tensors) {
         test::write_bytes(folder / "model.safetensors", test::tensor_file(tensors));
       },
       "config.json: found no such file"},
      {"NoWeights",
       [](const auto& folder, const auto&) { test::write_bytes(folder / "config.json", "{}"); },
       "FOLDER: found neither model.safetensors nor model.safetensors.index.json; expected a checkpoint in "
       "safetensors"},
      {"Empty",
       [](const auto& folder, const auto&) { write_file(folder, ""); },
       "model.safetensors: found 0 bytes; expected a safetensors file, which begins with 8 bytes that hold its "
       "header's "
       "length"},
      {"LfsPointer",
       [](const auto& folder, const auto&) {
         write_file(folder, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 8532440\n");
       },
       "model.safetensors: found a Git LFS pointer; expected the weights that it stands for"},
      {"HeaderLongerThanTheFile",
       [](const auto& folder, const auto&) { write_file(folder, test::length_bytes(11) + "0123456789"); },
       "model.safetensors: found a header of 11 bytes; expected at most 10, the bytes that follow its length"},
      {"HeaderOfTwoToThe63",
       [](const auto& folder, const auto&) { write_file(folder, test::length_bytes(1ULL << 63U) + "{}"); },
       "model.safetensors: found a header of 9223372036854775808 bytes; expected at most 2, the bytes that follow its "
       "length"},
      {"HeaderNoJson",
       [](const auto& folder, const auto&) { write_file(folder, test::length_bytes(4) + "{\"a\"data"); },
       "model.safetensors:1: found the end of the text; expected JSON (incomplete JSON)"},
      {"TensorNoObject",
       [](const auto& folder, const auto&) { write_file(folder, test::length_bytes(8) + "{\"a\": 1}"); },
       "model.safetensors:a: found 1; expected an object"},
      {"OffsetsOutOfRange",
       [](const auto& folder, const auto& tensors) { write_edited(folder, tensors, "[0,40]", "[0,99999]"); },
       "model.safetensors:model.embed_tokens.weight.data_offsets: found [0,99999]; expected [begin, end] with 0 <= "
       "begin "
       "<= end <= 792, the data's bytes"},
      {"OffsetsBackwards",
       [](const auto& folder, const auto& tensors) { write_edited(folder, tensors, "[0,40]", "[40,0]"); },
       "model.safetensors:model.embed_tokens.weight.data_offsets: found [40,0]; expected [begin, end] with 0 <= begin "
       "<= "
       "end <= 792, the data's bytes"},
      {"OffsetOfTwoToThe63",
       [](const auto& folder, const auto& tensors) {
         write_edited(folder, tensors, "[0,40]", "[0,9223372036854775808]");
       },
       "model.safetensors:model.embed_tokens.weight.data_offsets: found [0,9223372036854775808]; expected an array of "
       "whole numbers from 0 to 9223372036854775807"},
      {"ShapeOfTwoToThe63",
       [](const auto& folder, const auto& tensors) {
         write_edited(folder, tensors, "[5,4]", "[4611686018427387904,4]");
       },
       "model.safetensors:model.embed_tokens.weight.data_offsets: found [0,40]; expected more than 2^63 bytes, as BF16 "
       "of "
       "shape [4611686018427387904,4] takes"},
      {"SizeAndShapeDiffer",
       [](const auto& folder, const auto& tensors) { write_edited(folder, tensors, "[5,4]", "[6,4]"); },
       "model.safetensors:model.embed_tokens.weight.data_offsets: found [0,40]; expected 48 bytes, as BF16 of shape "
       "[6,4] "
       "takes"},
      {"Overlapping",
       [](const auto& folder, const auto& tensors) { write_edited(folder, tensors, "[40,48]", "[38,46]"); },
       "model.safetensors:model.layers.0.input_layernorm.weight: found its data at byte 38; expected byte 40, where "
       "the "
       "tensor before it ends (they overlap)"},
      {"Gap",
       [](const auto& folder, auto tensors) {
         tensors[0].bytes += "..";
         write_edited(folder, tensors, "[0,42]", "[0,40]");
       },
       "model.safetensors:model.layers.0.input_layernorm.weight: found its data at byte 42; expected byte 40, where "
       "the "
       "tensor before it ends (bytes between them belong to no tensor)"},
      {"BytesAfterTheLastTensor",
       [](const auto& folder, const auto& tensors) { write_file(folder, test::tensor_file(tensors) + "!"); },
       "model.safetensors: found 1 bytes after the last tensor; expected the file to end there"},
      {"CutOff",
       [](const auto& folder, const auto& tensors) {
         const std::string file = test::tensor_file(tensors);
         write_file(folder, file.substr(0, file.size() - 1));
       },
       "model.safetensors:lm_head.weight.data_offsets: found [752,792]; expected [begin, end] with 0 <= begin <= end "
       "<= "
       "791, the data's bytes"},
      {"TypeThatWeightsDoNotHave",
       [](const auto& folder, auto tensors) {
         tensor_named(tensors, "model.norm.weight").type = "I16";
         test::write_checkpoint(folder, tiny_model(), tensors);
       },
       "model.safetensors:model.norm.weight.dtype: found I16; expected F32, BF16 or F16"},
      {"EightBitFloat",
       [](const auto& folder, auto tensors) {
         WrittenTensor& tensor = tensor_named(tensors, "model.layers.1.mlp.up_proj.weight");
         tensor.type = "F8_E4M3";
         tensor.bytes.resize(tensor.bytes.size() / 2);
         test::write_checkpoint(folder, tiny_model(), tensors);
       },
       "model.safetensors:model.layers.1.mlp.up_proj.weight.dtype: found F8_E4M3; expected F32, BF16 or F16"},
      {"TypeThatNobodyKnows",
       [](const auto& folder, const auto& tensors) { write_edited(folder, tensors, "BF16", "F9"); },
       "model.safetensors:model.embed_tokens.weight.dtype: found \"F9\"; expected a type of safetensors: F32, BF16 or "
       "F16 "
       "for weights"},
      {"WrongShape",
       [](const auto& folder, auto tensors) {
         tensor_named(tensors, "model.layers.1.mlp.up_proj.weight").shape = {4, 6};
         test::write_checkpoint(folder, tiny_model(), tensors);
       },
       "model.safetensors:model.layers.1.mlp.up_proj.weight.shape: found [4, 6]; expected [6, 4], as config.json has "
       "it"},
      {"ZeroSize",
       [](const auto& folder, auto tensors) {
         tensor_named(tensors, "model.norm.weight") = {"model.norm.weight", "BF16", {0}, ""};
         test::write_checkpoint(folder, tiny_model(), tensors);
       },
       "model.safetensors:model.norm.weight.shape: found [0]; expected [4], as config.json has it"},
      {"MissingTensors",
       [](const auto& folder, auto tensors) {
         std::erase_if(tensors, [](const WrittenTensor& tensor) {
           return tensor.name == "model.norm.weight" || tensor.name == "model.layers.1.self_attn.q_proj.weight";
         });
         test::write_checkpoint(folder, tiny_model(), tensors);
       },
       "model.safetensors: found no tensor model.layers.1.self_attn.q_proj.weight, model.norm.weight; expected the 21 "
       "tensors of model_type llama"},
      {"NoHead",
       [](const auto& folder, auto tensors) {
         tensors.pop_back();
         test::write_checkpoint(folder, tiny_model(), tensors);
       },
       "model.safetensors: found no tensor lm_head.weight; expected the 21 tensors of model_type llama"},
      {"NoTensors",
       [](const auto& folder, const auto&) { test::write_checkpoint(folder, tiny_model(), {}); },
       "model.safetensors: found no tensor model.embed_tokens.weight, model.layers.0.input_layernorm.weight, "
       "model.layers.0.self_attn.q_proj.weight, model.layers.0.self_attn.k_proj.weight, "
       "model.layers.0.self_attn.v_proj.weight, model.layers.0.self_attn.o_proj.weight, "
       "model.layers.0.post_attention_layernorm.weight, model.layers.0.mlp.gate_proj.weight and others; expected the "
       "21 "
       "tensors of model_type llama"},
      {"TensorOfAnotherArithmetic",
       [](const auto& folder, auto tensors) {
         tensors.push_back({"model.layers.0.self_attn.q_proj.bias", "BF16", {8}, std::string(16, '\0')});
         test::write_checkpoint(folder, tiny_model(), tensors);
       },
       "model.safetensors:model.layers.0.self_attn.q_proj.bias: found a tensor that model_type llama does not have; "
       "expected none but its own"},
      {"NotANumber",
       [](const auto& folder, auto tensors) {
         tensor_named(tensors, "model.layers.0.mlp.down_proj.weight").bytes.replace(2 * (6 + 5), 2, "\xff\x7f");
         test::write_checkpoint(folder, tiny_model(), tensors);
       },
       "model.safetensors:model.layers.0.mlp.down_proj.weight: found NaN in row 1, column 5; expected finite weights"},
      {"Infinity",
       [](const auto& folder, auto tensors) {
         tensor_named(tensors, "lm_head.weight").bytes.replace(0, 2, std::string("\x80\xff", 2));
         test::write_checkpoint(folder, tiny_model(), tensors);
       },
       "model.safetensors:lm_head.weight: found infinity in row 0, column 0; expected finite weights"},
      {"MissingShards",
       [](const auto& folder, const auto& tensors) {
         test::write_checkpoint(folder, tiny_model(), {});
         write_shards(folder, tensors, 7);
         std::filesystem::remove(folder / "a.safetensors");
         std::filesystem::remove(folder / "b.safetensors");
       },
       "model.safetensors.index.json:weight_map: found no file a.safetensors, b.safetensors; expected all 2 files of "
       "the "
       "index beside it"},
      {"ShardWithoutItsTensor",
       [](const auto& folder, const auto& tensors) {
         test::write_checkpoint(folder, tiny_model(), {});
         write_shards(folder, tensors, 7, [](const WrittenTensor& tensor, std::string file) {
           return tensor.name == "model.norm.weight" ? "a.safetensors" : file;
         });
       },
       "a.safetensors: found no tensor model.norm.weight; expected it there, as model.safetensors.index.json says"},
      {"IndexWithoutATensor",
       [](const auto& folder, auto tensors) {
         test::write_checkpoint(folder, tiny_model(), {});
         tensors.pop_back();
         write_shards(folder, tensors, 7);
       },
       "model.safetensors.index.json: found no tensor lm_head.weight; expected the 21 tensors of model_type llama"},
      {"IndexOfNothing",
       [](const auto& folder, const auto&) {
         test::write_checkpoint(folder, tiny_model(), {});
         test::write_bytes(folder / "model.safetensors.index.json", R"({"weight_map": {}})");
       },
       "model.safetensors.index.json:weight_map: found an object; expected at least one tensor"},
      {"PathInTheIndex",
       [](const auto& folder, const auto& tensors) {
         test::write_checkpoint(folder, tiny_model(), {});
         write_shards(folder, tensors, 7, [](const WrittenTensor& tensor, std::string file) {
           return tensor.name == "model.norm.weight" ? "../b.safetensors" : file;
         });
       },
       "model.safetensors.index.json:weight_map.model.norm.weight: found \"../b.safetensors\"; expected the name of a "
       "file "
       "beside the index"},
  };
  return kDamages;
}

class DamagedCheckpoint : public testing::TestWithParam<Damage> {};
TEST_P(DamagedCheckpoint, IsRefusedInOneLine) {
  const test::TemporaryFolder folder;
  GetParam().write(folder.path(), test::random_tensors(tiny_model(), StoredType::kBfloat16, 8));
  std::string expected = GetParam().message;
  if (const std::size_t at = expected.find("FOLDER"); at != std::string::npos) {
    expected = folder.path().string() + expected.substr(at + 6);
    try {
      static_cast<void>(Checkpoint::open(folder.path()));
      FAIL() << "accepted";
    } catch (const node::InputError& error) {
      EXPECT_EQ(error.what(), expected);
    }
    return;
  }
  EXPECT_EQ(message_of(folder.path()), expected);
}
INSTANTIATE_TEST_SUITE_P(Checkpoint, DamagedCheckpoint, testing::ValuesIn(damages()), [](const auto& test) {
  return std::string(test.param.name);
});

}  // namespace
}  // namespace lpu::scheduler
