#include "lpu/scheduler/checkpoint.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "lpu/node/error.hpp"
#include "lpu/node/field_reader.hpp"
#include "lpu/node/numeric_kernels.hpp"
#include "lpu/node/suggestion.hpp"
#include "lpu/scheduler/model_reader.hpp"
#include "tensor_file.hpp"

namespace lpu::scheduler {

struct Checkpoint::Content {
  /// A weight tensor, found and of the right shape.
  struct Place {
    node::StoredMatrix matrix;
    const TensorFile* file = nullptr;
  };
  ModelConfig model;
  std::vector<TensorFile> files;
  std::map<ModelTensor, Place> places;
};

namespace {

using node::FieldReader;
using node::InputError;
namespace fs = std::filesystem;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr std::string_view kIndexEnding = ".index.json";
constexpr std::size_t kMostNamed = 8;  // missing tensors that a message names

struct WeightType {
  std::string_view name;
  StoredType type;
};
constexpr std::array<WeightType, 3> kWeightTypes = {
    {{"F32", StoredType::kFloat32}, {"BF16", StoredType::kBfloat16}, {"F16", StoredType::kFloat16}}};

/// Buffers that older checkpoints carry along; the model's own frequencies stand for them.
bool is_ignored(std::string_view tensor) {
  return tensor.ends_with(".rotary_emb.inv_freq");
}

/// Which file holds which tensor: decided by the index, or the one file there is.
struct Layout {
  std::string name;  ///< of the file that decides, for messages
  std::vector<fs::path> files;
  std::map<std::string, std::size_t, std::less<>> file_of;  ///< tensor -> position in files; empty: one file holds all
};

fs::path deciding_file(const fs::path& where) {
  std::error_code error;
  if (!fs::is_directory(where, error)) {
    return where;
  }
  for (const std::string_view name : {kIndexFile, kSingleFile}) {
    if (fs::exists(where / name, error)) {
      return where / name;
    }
  }
  throw InputError(where.string() + ": found neither " + std::string(kSingleFile) + " nor " + std::string(kIndexFile) +
                   "; expected a checkpoint in safetensors");
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find_first_of("/\\") == std::string::npos;
}

/// Refuses names that lead out of the folder, and files that are not there: all of them in one message.
Layout read_index(const fs::path& index) {
  const FieldReader reader = FieldReader::load(index);
  const FieldReader map = reader.object("weight_map");
  Layout out;
  out.name = index.string();
  std::map<std::string, std::size_t> positions;
  for (const std::string& tensor : map.keys()) {
    const std::string file = map.text(tensor);
    if (!is_plain_name(file)) {
      map.fail(tensor, "the name of a file beside the index");
    }
    const auto [position, is_new] = positions.emplace(file, positions.size());
    if (is_new) {
      out.files.push_back(index.parent_path() / file);
    }
    out.file_of.emplace(tensor, position->second);
  }
  if (out.files.empty()) {
    reader.fail("weight_map", "at least one tensor");
  }
  std::vector<std::string> missing;
  for (const auto& [file, position] : positions) {
    std::error_code error;
    if (!fs::exists(out.files[position], error)) {
      missing.push_back(file);
    }
  }
  if (!missing.empty()) {
    throw InputError(out.name + ":weight_map: found no file " + node::join(missing) + "; expected all " +
                     std::to_string(positions.size()) + " files of the index beside it");
  }
  return out;
}

Layout read_layout(const fs::path& where) {
  const fs::path file = deciding_file(where);
  if (file.string().ends_with(kIndexEnding)) {
    return read_index(file);
  }
  return {file.string(), {file}, {}};
}

/// The file that must hold the tensor, and the tensor there; nothing where nobody names it.
struct Found {
  const TensorFile* file;
  const FileTensor* tensor;
};
std::optional<Found> find_tensor(const Layout& layout, const std::vector<TensorFile>& files, const std::string& name) {
  std::size_t position = 0;
  if (!layout.file_of.empty()) {
    const auto entry = layout.file_of.find(name);
    if (entry == layout.file_of.end()) {
      return std::nullopt;
    }
    position = entry->second;
  }
  const TensorFile& file = files[position];
  const auto tensor = file.tensors().find(name);
  if (tensor != file.tensors().end()) {
    return Found{&file, &tensor->second};
  }
  if (layout.file_of.empty()) {
    return std::nullopt;
  }
  throw InputError(file.name() + ": found no tensor " + node::printable(name) + "; expected it there, as " +
                   layout.name + " says");
}

std::string family_of(const ModelConfig& model) {
  switch (model.family) {
    case ModelFamily::kLlama:
      return "model_type llama";
    case ModelFamily::kMistral:
      return "model_type mistral";
    case ModelFamily::kMixtral:
      return "model_type mixtral";
  }
  return "";
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::vector<std::string> sizes;
  for (const std::int64_t size : shape) {
    sizes.push_back(std::to_string(size));
  }
  return "[" + node::join(sizes) + "]";
}

/// The tensor's matrix, after its type and shape.
node::StoredMatrix checked_matrix(const ModelConfig& model, const ModelTensor& id, const Found& found) {
  const std::string where = found.file->name() + ":" + name_of(model, id);
  const auto* type = std::find_if(
      kWeightTypes.begin(), kWeightTypes.end(), [&](const WeightType& row) { return row.name == found.tensor->type; });
  if (type == kWeightTypes.end()) {
    throw InputError(where + ".dtype: found " + found.tensor->type + "; expected F32, BF16 or F16");
  }
  const TensorShape shape = shape_of(model, id);
  const std::vector<std::int64_t> expected =
      shape.is_vector ? std::vector{shape.columns} : std::vector{shape.rows, shape.columns};
  if (found.tensor->shape != expected) {
    throw InputError(where + ".shape: found " + shape_text(found.tensor->shape) + "; expected " + shape_text(expected) +
                     ", as config.json has it");
  }
  return {found.file->bytes(*found.tensor).data(),
          type->type,
          shape.rows,
          shape.columns,
          shape.columns * node::stored_bytes(type->type)};
}

[[noreturn]] void refuse_missing(const ModelConfig& model, const Layout& layout, const std::vector<TensorFile>& files) {
  std::vector<std::string> missing;
  bool are_more = false;
  for (std::int64_t i = 0; i < tensor_count(model) && !are_more; ++i) {
    const std::string name = name_of(model, tensor_at(model, i));
    if (!find_tensor(layout, files, name)) {
      are_more = missing.size() == kMostNamed;
      if (!are_more) {
        missing.push_back(name);
      }
    }
  }
  throw InputError(layout.name + ": found no tensor " + node::join(missing) + (are_more ? " and others" : "") +
                   "; expected the " + std::to_string(tensor_count(model)) + " tensors of " + family_of(model) +
                   (model.ties_embeddings ? " with tied embeddings" : ""));
}

/// Tensors that somebody names but the model does not have would change what it computes.
void refuse_unknown(const ModelConfig& model, const Layout& layout, const TensorFile& first) {
  std::set<std::string, std::less<>> known = {"lm_head.weight"};
  for (std::int64_t i = 0; i < tensor_count(model); ++i) {
    known.insert(name_of(model, tensor_at(model, i)));
  }
  const auto refuse = [&](const std::string& name) {
    if (!known.contains(name) && !is_ignored(name)) {
      throw InputError(layout.name + ":" + node::printable(name) + ": found a tensor that " + family_of(model) +
                       " does not have; expected none but its own");
    }
  };
  for (const auto& [name, position] : layout.file_of) {
    refuse(name);
  }
  if (layout.file_of.empty()) {
    for (const auto& [name, tensor] : first.tensors()) {
      refuse(name);
    }
  }
}

/// A model that ties its embeddings may store the head all the same, if it is the embedding.
void check_tied_head(const ModelConfig& model, const Found& stored, const node::StoredMatrix& embedding) {
  const ModelTensor head = {.kind = TensorKind::kHead};
  const node::StoredMatrix matrix = checked_matrix(model, head, stored);
  if (matrix.type != embedding.type ||
      !std::equal(matrix.data, matrix.data + matrix.rows * matrix.row_bytes, embedding.data)) {
    throw InputError(stored.file->name() + ":" + name_of(model, head) + ": found other weights than those of " +
                     name_of(model, {.kind = TensorKind::kEmbedding}) +
                     "; expected the same, or no such tensor, as config.json ties them");
  }
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& where) {
  const Layout layout = read_layout(where);
  const fs::path folder = layout.files.front().parent_path();
  auto content = std::make_shared<Content>();
  content->model = read_hugging_face_config(FieldReader::load(folder / "config.json"),
                                            fs::absolute(folder / "config.json").parent_path().filename().string());
  ModelConfig& model = content->model;
  for (const fs::path& file : layout.files) {
    content->files.push_back(TensorFile::open(file));
  }
  bool is_wide = false;
  for (std::int64_t i = 0; i < tensor_count(model); ++i) {
    const ModelTensor id = tensor_at(model, i);
    const std::optional<Found> found = find_tensor(layout, content->files, name_of(model, id));
    if (!found) {
      refuse_missing(model, layout, content->files);
    }
    const node::StoredMatrix matrix = checked_matrix(model, id, *found);
    content->places.emplace(id, Content::Place{matrix, found->file});
    is_wide = is_wide || matrix.type == StoredType::kFloat32;
  }
  refuse_unknown(model, layout, content->files.front());
  const Content::Place embedding = content->places.at({.kind = TensorKind::kEmbedding});
  model.stored_type = is_wide ? StoredType::kFloat32 : embedding.matrix.type;
  if (model.ties_embeddings) {
    const ModelTensor head = {.kind = TensorKind::kHead};
    if (const std::optional<Found> stored = find_tensor(layout, content->files, name_of(model, head))) {
      check_tied_head(model, *stored, embedding.matrix);
    }
    content->places.emplace(head, embedding);
  }
  Checkpoint out;
  out.content_ = std::move(content);
  return out;
}

const ModelConfig& Checkpoint::model() const {
  return content_->model;
}

node::Bytes Checkpoint::weight_bytes() const {
  node::Bytes sum{};
  for (std::int64_t i = 0; i < tensor_count(model()); ++i) {
    const node::StoredMatrix weights = matrix(tensor_at(model(), i));
    sum += node::Bytes(weights.rows * weights.row_bytes);
  }
  return sum;
}

node::StoredMatrix Checkpoint::matrix(const ModelTensor& tensor) const {
  const auto place = content_->places.find(tensor);
  LPU_CHECK(place != content_->places.end(), name_of(model(), tensor));
  return place->second.matrix;
}

std::vector<float> Checkpoint::rows(const ModelTensor& tensor, std::int64_t first, std::int64_t count) const {
  const node::StoredMatrix weights = matrix(tensor);
  LPU_CHECK(first >= 0 && count >= 0 && first + count <= weights.rows, name_of(model(), tensor));
  std::vector<float> out(static_cast<std::size_t>(count * weights.columns));
  node::numeric_kernels(node::SimdTarget::kScalar).widen(weights.row(first), weights.type, out);
  return out;
}

void Checkpoint::refuse_non_finite(const ModelTensor& tensor, std::int64_t first, std::int64_t count) const {
  const node::StoredMatrix weights = matrix(tensor);
  LPU_CHECK(first >= 0 && count >= 0 && first + count <= weights.rows, name_of(model(), tensor));
  const auto found = node::find_non_finite(weights.row(first), weights.type, count * weights.columns);
  if (!found) {
    return;
  }
  float value = 0.0F;
  const std::int64_t row = first + *found / weights.columns;
  const std::int64_t column = *found % weights.columns;
  node::numeric_kernels(node::SimdTarget::kScalar)
      .widen(weights.row(row) + column * node::stored_bytes(weights.type), weights.type, {&value, 1});
  throw InputError(content_->places.at(tensor).file->name() + ":" + name_of(model(), tensor) + ": found " +
                   (value == value ? "infinity" : "NaN") + " in row " + std::to_string(row) + ", column " +
                   std::to_string(column) + "; expected finite weights");
}

void Checkpoint::refuse_non_finite() const {
  for (std::int64_t i = 0; i < tensor_count(model()); ++i) {
    const ModelTensor tensor = tensor_at(model(), i);
    refuse_non_finite(tensor, 0, matrix(tensor).rows);
  }
}

}  // namespace lpu::scheduler
