#include "lpu/scheduler/numeric_binding.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lpu/node/elementary.hpp"
#include "lpu/node/error.hpp"
#include "numeric_layout.hpp"

namespace lpu::scheduler {
namespace {

using node::Cell;
using node::LanesPtr;
using node::NumericRole;
using node::NumericValue;
using node::ValuePtr;

constexpr std::int32_t kBytes = 4;  // of a value of fp32ref

/// A static tensor's content.
enum class Content : std::uint8_t { kNone, kMatrix, kGamma, kEmbedding, kRotary };

/// Which layout the rows of a tensor have.
enum class Layout : std::uint8_t { kAsMade, kGathered, kRow, kJoined, kTurned, kHeadPart };

enum class MatrixKind : std::uint8_t { kQkv, kOutput, kGateUp, kRouter, kDown, kHead };

struct TensorUse {
  NumericRole role = NumericRole::kPlain;
  Content content = Content::kNone;
  Layout layout = Layout::kAsMade;
  Space space = Space::kHidden;
  MatrixKind matrix = MatrixKind::kQkv;
  TensorKind norm = TensorKind::kAttentionNorm;
  std::int32_t half = 0;
  std::int32_t expert_slot = 0;
};

struct RoleOfName {
  std::string_view prefix;
  NumericRole role;
};
constexpr std::array<RoleOfName, 9> kRoles = {{
    {"key.new.", NumericRole::kKey},
    {"value.new.", NumericRole::kValue},
    {"value.columns.", NumericRole::kValueColumns},
    {"value.cache.", NumericRole::kValueCache},
    {"scores.head", NumericRole::kScores},
    {"router.logits", NumericRole::kRouter},
    {"router.step", NumericRole::kRouter},
    {"ffn_output.weighted", NumericRole::kWeighted},
    {"logits.token", NumericRole::kLogits},
}};

struct MatrixOfName {
  std::string_view name;
  MatrixKind kind;
};
constexpr std::array<MatrixOfName, 6> kMatrices = {{
    {"qkv.weights", MatrixKind::kQkv},
    {"output.weights", MatrixKind::kOutput},
    {"gate_up.weights", MatrixKind::kGateUp},
    {"router.weights", MatrixKind::kRouter},
    {"down.weights", MatrixKind::kDown},
    {"head.weights", MatrixKind::kHead},
}};

struct SpaceOfName {
  std::string_view prefix;
  Space space;
};
/// Longer names first.
constexpr std::array<SpaceOfName, 9> kSpaces = {{
    {"attention_norm", Space::kHidden},
    {"attention_output", Space::kHidden},
    {"attention", Space::kAttention},
    {"ffn_norm", Space::kHidden},
    {"ffn_output", Space::kHidden},
    {"ffn_hidden", Space::kFfn},
    {"ffn.rows", Space::kFfn},
    {"final_norm", Space::kHidden},
    {"residual", Space::kHidden},
}};

std::optional<Space> space_of(std::string_view name) {
  for (const SpaceOfName& row : kSpaces) {
    if (name.starts_with(row.prefix)) {
      return row.space;
    }
  }
  return std::nullopt;
}

TensorUse use_of(const node::Tensor& tensor) {
  const std::string_view name = tensor.name;
  TensorUse out;
  for (const RoleOfName& row : kRoles) {
    if (name.starts_with(row.prefix)) {
      out.role = row.role;
    }
  }
  out.role = name == "routing"     ? NumericRole::kChoices
             : name == "candidate" ? NumericRole::kCandidate
             : name == "token"     ? NumericRole::kToken
                                   : out.role;
  if (const std::size_t at = name.find(".slot"); at != std::string_view::npos) {
    std::from_chars(name.data() + at + 5, name.data() + name.size(), out.expert_slot);
  }
  for (const MatrixOfName& row : kMatrices) {
    if (name == row.name) {
      out.content = Content::kMatrix;
      out.matrix = row.kind;
    }
  }
  if (name == "embedding") {
    out.content = Content::kEmbedding;
  } else if (name == "rotary_table") {
    out.content = Content::kRotary;
  } else if (name.ends_with(".gamma")) {
    out.content = Content::kGamma;
    out.norm = name.starts_with("attention") ? TensorKind::kAttentionNorm
               : name.starts_with("ffn")     ? TensorKind::kFfnNorm
                                             : TensorKind::kFinalNorm;
  }
  const std::optional<Space> space = space_of(name);
  out.space = space.value_or(Space::kHidden);
  const bool has_half = name.ends_with(".west") || name.ends_with(".east");
  out.half = name.ends_with(".east") ? 1 : 0;
  if (tensor.owner == node::TensorOwner::kGathered && space) {
    out.layout = Layout::kGathered;
  } else if (has_half && name.find(".out.") != std::string_view::npos) {
    out.layout = Layout::kRow;
  } else if (has_half && name.find(".joined") != std::string_view::npos) {
    out.layout = Layout::kJoined;
  } else if (name.starts_with("qkv.turned")) {
    out.layout = Layout::kTurned;
  } else if (name.starts_with("attention.token") && name.ends_with(".part")) {
    out.layout = Layout::kHeadPart;
  }
  return out;
}

/// Which rows of each of the model's tensors.
using RowsOfTensors = std::map<ModelTensor, std::vector<bool>>;

void require_one_user(const ClusterProgram& program) {
  if (program.plan.micro_batch != 1) {
    throw node::InputError("--program: found micro-batch " + std::to_string(program.plan.micro_batch) +
                           "; expected 1 in the numeric plane");
  }
}

}  // namespace

/// What the chips share.
struct NumericBinder::Common {
  Common(const ClusterProgram& own_program, const Checkpoint& own_checkpoint)
      : program(own_program),
        checkpoint(own_checkpoint),
        model(own_checkpoint.model()),
        path(make_path(Compute::kFp32Reference, KvType::kFp32, program.chip)),
        shard(make_shard(model, program.tensor_parallel, program.chip)),
        linears(layer_linears(model, shard, path)),
        head(head_linear(shard, path)),
        frequencies(rotary_frequencies(model)),
        uses(program.texts.size()) {
    linears.router = in_one_place(linears.router, path);
    const KvTiling kv = kv_tiling(program.plan.context, shard.head_dim, path);
    value_width = kv.value_cycles * path.kv_install_columns;
    for (std::size_t text = 0; text < uses.size(); ++text) {
      for (const node::Tensor& tensor : program.texts[text].tensors) {
        uses[text].push_back(use_of(tensor));
      }
    }
  }

  /// Row of the rotary table.
  [[nodiscard]] ValuePtr angles_at(std::int32_t position) {
    ValuePtr& value = angles[position];
    if (!value) {
      const std::size_t half = frequencies.size();
      auto out = node::make_counted<NumericValue>();
      out->numbers.resize(2 * half);
      node::rotary_angles(
          position, frequencies, std::span(out->numbers).first(half), std::span(out->numbers).subspan(half));
      value = std::move(out);
    }
    return value;
  }

  const ClusterProgram& program;
  const Checkpoint& checkpoint;
  const ModelConfig& model;
  ComputePath path;
  Shard shard;
  LayerLinears linears;
  Linear head;
  std::vector<double> frequencies;
  std::int32_t value_width = 0;
  std::vector<std::vector<TensorUse>> uses;  ///< per text and tensor
  std::map<std::int32_t, ValuePtr> angles;   ///< per position
  LanesPool lanes;
  std::map<std::pair<ModelTensor, const node::Lanes*>, ValuePtr> norms;  ///< weights, by whose lanes
};

namespace {

using Common = NumericBinder::Common;

class NumericBinding final : public node::NumericModel {
 public:
  NumericBinding(Common& common, const node::ChipBinding& binding)
      : common_(common),
        text_(common.program.texts[static_cast<std::size_t>(binding.text)]),
        uses_(common.uses[static_cast<std::size_t>(binding.text)]),
        binding_(binding),
        model_(common.model),
        layout_(model_, common.shard, binding, common.lanes),
        made_(text_.tensors.size()) {}

  [[nodiscard]] NumericRole role(std::uint16_t tensor) const override { return uses_[tensor].role; }
  [[nodiscard]] std::int32_t expert_slot(std::uint16_t tensor) const override { return uses_[tensor].expert_slot; }
  [[nodiscard]] std::int32_t value_width() const override { return common_.value_width; }
  [[nodiscard]] float score_scale() const override {
    return static_cast<float>(1.0 / std::sqrt(static_cast<double>(model_.head_dim)));
  }
  [[nodiscard]] std::int64_t window() const override { return model_.sliding_window; }
  [[nodiscard]] float rms_epsilon() const override { return static_cast<float>(model_.rms_epsilon); }
  [[nodiscard]] std::int64_t experts_per_token() const override { return model_.experts_per_token; }

  [[nodiscard]] Cell static_row(std::uint16_t tensor, std::int32_t row) override;
  [[nodiscard]] LanesPtr lanes(std::uint16_t tensor, std::int32_t row) const override;

  /// Marks the rows of the checkpoint that the chip holds a part of.
  void mark_rows(RowsOfTensors& rows) const;

 private:
  /// What a static tensor holds, made when it is read first.
  struct Made {
    node::WeightColumns weights;
    ValuePtr matrix;               ///< of the weights
    std::int32_t first = 0;        ///< group of rows that `values` begin with
    std::vector<ValuePtr> values;  ///< per group: vectors; of an embedding, those of one token
  };
  [[nodiscard]] ValuePtr vector_at(const TensorUse& use, std::int32_t layer, std::int32_t row) const;
  [[nodiscard]] ValuePtr stored_vector(const ModelTensor& tensor, std::int64_t row, const LanesPtr& lanes) const;
  [[nodiscard]] const Linear& linear_of(MatrixKind kind) const;
  /// The model's tensor and row that a column of the chip's matrix is; label -1: padding.
  struct Origin {
    ModelTensor tensor;
    std::int64_t row = 0;
    std::int64_t label = -1;
  };
  /// A column of a matrix in a tile: whose it is, and what it is multiplied with.
  struct Column {
    Origin from;
    std::int32_t tile = 0;
  };
  [[nodiscard]] Column column_at(const TensorUse& use, std::int32_t layer, std::int32_t row) const;
  void make_weights(Made& made, const TensorUse& use, std::int32_t layer, std::int32_t rows) const;
  [[nodiscard]] std::int32_t rows_per_token() const;
  [[nodiscard]] Origin origin(
      MatrixKind kind, std::int32_t layer, std::int32_t expert, std::int64_t column, std::int32_t hemisphere) const;
  [[nodiscard]] Origin qkv_origin(std::int32_t layer, std::int64_t column) const;
  [[nodiscard]] std::int32_t layer_of(std::size_t tensor) const {
    return binding_.first_layer + text_.tensors[tensor].layer_slot;
  }

  Common& common_;
  const node::ChipProgram& text_;
  const std::vector<TensorUse>& uses_;  ///< per tensor
  const node::ChipBinding& binding_;
  const ModelConfig& model_;
  NumericLayout layout_;
  std::vector<std::unique_ptr<Made>> made_;  ///< per tensor; none: not read so far
};

Cell NumericBinding::static_row(std::uint16_t tensor, std::int32_t row) {
  const TensorUse& use = uses_[tensor];
  if (use.content == Content::kNone) {
    return {nullptr, row % kBytes};
  }
  if (use.content == Content::kRotary) {
    return {common_.angles_at(row / kBytes), row % kBytes};
  }
  std::unique_ptr<Made>& made = made_[tensor];
  const std::int32_t rows = text_.tensors[tensor].rows;
  if (!made) {
    made = std::make_unique<Made>();
    if (use.content == Content::kMatrix) {
      make_weights(*made, use, layer_of(tensor), rows);
    }
  }
  if (made->matrix) {
    return {made->matrix, row};
  }
  const bool is_embedding = use.content == Content::kEmbedding;
  const std::int32_t window = is_embedding ? rows_per_token() : rows;
  const std::int32_t first = row / window * window / kBytes;
  if (made->first != first || made->values.empty()) {
    made->first = first;
    made->values.assign(static_cast<std::size_t>(window + kBytes - 1) / kBytes, nullptr);
  }
  ValuePtr& value = made->values[static_cast<std::size_t>(row / kBytes - first)];
  if (!value) {
    value = vector_at(use, layer_of(tensor), row);
  }
  return {value, row % kBytes};
}

LanesPtr NumericBinding::lanes(std::uint16_t tensor, std::int32_t row) const {
  const TensorUse& use = uses_[tensor];
  switch (use.layout) {
    case Layout::kAsMade:
      return nullptr;
    case Layout::kGathered: {
      const std::int32_t per_slot = text_.tensors[tensor].rows_per_slot;
      return layout_.gathered(use.space, row / per_slot, row % per_slot / kBytes);
    }
    case Layout::kRow:
      return layout_.row(use.space, use.half, row / kBytes);
    case Layout::kJoined:
      return layout_.joined(use.space, use.half, row / kBytes);
    case Layout::kTurned:
      return layout_.turned(row / (2 * kBytes));
    case Layout::kHeadPart:
      return layout_.head(row / kBytes);
  }
  return nullptr;
}

std::int32_t NumericBinding::rows_per_token() const {
  const EmbeddingRows rows = embedding_rows(common_.shard, common_.path);
  return rows.height * rows.slices;
}

/// A group of rows of a norm's weights or of the embedding.
ValuePtr NumericBinding::vector_at(const TensorUse& use, std::int32_t layer, std::int32_t row) const {
  if (use.content == Content::kGamma) {
    const std::int32_t groups = layout_.packing(Space::kHidden).groups;
    const ModelTensor norm{use.norm, use.norm == TensorKind::kFinalNorm ? 0 : layer, 0};
    const LanesPtr lanes = layout_.gathered(Space::kHidden, row / (groups * kBytes), row / kBytes % groups);
    ValuePtr& known = common_.norms[{norm, lanes.get()}];
    if (!known) {
      known = stored_vector(norm, 0, lanes);
    }
    return known;
  }
  const std::int32_t each = rows_per_token();
  return stored_vector({.kind = TensorKind::kEmbedding},
                       row / each,
                       layout_.gathered(Space::kHidden, common_.shard.west_slots(), row % each / kBytes));
}

ValuePtr NumericBinding::stored_vector(const ModelTensor& tensor, std::int64_t row, const LanesPtr& lanes) const {
  const node::StoredMatrix stored = common_.checkpoint.matrix(tensor);
  const node::NumericKernels& kernels = node::numeric_kernels(node::SimdTarget::kScalar);
  auto out = node::make_counted<NumericValue>();
  out->lanes = lanes;
  out->numbers.resize(lanes->size());
  for (std::size_t lane = 0; lane < lanes->size(); ++lane) {
    if ((*lanes)[lane] >= 0) {
      kernels.widen(
          stored.row(row) + (*lanes)[lane] * node::stored_bytes(stored.type), stored.type, {&out->numbers[lane], 1});
    }
  }
  return out;
}

const Linear& NumericBinding::linear_of(MatrixKind kind) const {
  switch (kind) {
    case MatrixKind::kQkv:
      return common_.linears.qkv;
    case MatrixKind::kOutput:
      return common_.linears.output;
    case MatrixKind::kGateUp:
      return common_.linears.gate_up;
    case MatrixKind::kRouter:
      return common_.linears.router;
    case MatrixKind::kDown:
      return common_.linears.down;
    case MatrixKind::kHead:
      return common_.head;
  }
  return common_.head;
}

NumericBinding::Origin NumericBinding::qkv_origin(std::int32_t layer, std::int64_t column) const {
  const Shard& shard = common_.shard;
  const auto head = static_cast<std::int32_t>(column / shard.head_dim);
  const std::int64_t d = column % shard.head_dim;
  const std::int32_t position = layout_.position();
  if (head < shard.query_heads) {
    const std::int64_t query = layout_.query_head(position, head);
    return {{TensorKind::kQuery, layer, 0}, query * shard.head_dim + d, query < 0 ? -1 : column};
  }
  const std::int32_t index = head - shard.query_heads;
  if (index >= 2 * shard.kv_heads) {
    return {};
  }
  const std::int64_t kv = layout_.kv_head(position, index % shard.kv_heads);
  const TensorKind kind = index < shard.kv_heads ? TensorKind::kKey : TensorKind::kValue;
  return {{kind, layer, 0}, kv * shard.head_dim + d, kv < 0 ? -1 : column};
}

NumericBinding::Origin NumericBinding::origin(
    MatrixKind kind, std::int32_t layer, std::int32_t expert, std::int64_t column, std::int32_t hemisphere) const {
  const auto part_row = [&](const ModelTensor& tensor, std::int64_t total) {
    const NumericLayout::Part own = layout_.own_part(total);
    const std::int64_t row = own.first + column;
    return Origin{tensor, row, column < own.count ? row : -1};
  };
  switch (kind) {
    case MatrixKind::kQkv:
      return qkv_origin(layer, column);
    case MatrixKind::kOutput:
      return part_row({TensorKind::kOutput, layer, 0}, model_.hidden);
    case MatrixKind::kGateUp:
      return part_row({hemisphere == 0 ? TensorKind::kGate : TensorKind::kUp, layer, expert}, model_.ffn);
    case MatrixKind::kRouter:
      return {{TensorKind::kRouter, layer, 0}, column, hemisphere == 0 && column < model_.experts ? column : -1};
    case MatrixKind::kDown:
      return part_row({TensorKind::kDown, layer, expert}, model_.hidden);
    case MatrixKind::kHead:
      return part_row({.kind = TensorKind::kHead}, model_.vocabulary);
  }
  return {};
}

NumericBinding::Column NumericBinding::column_at(const TensorUse& use, std::int32_t layer, std::int32_t row) const {
  const Linear& linear = linear_of(use.matrix);
  const ComputePath& path = common_.path;
  const std::int32_t streams = path.stored_slices;
  std::int32_t rows = 0;
  std::int64_t before = 0;  // columns of the blocks before
  std::int32_t all_rows = 0;
  const auto columns_of = [&](std::int32_t block) {
    return std::min(linear.block_columns, linear.columns - block * linear.block_columns);
  };
  for (std::int32_t b = 0; b < linear.blocks(); ++b) {
    all_rows += 2 * linear.tiles * install_cycles(columns_of(b), path) * streams;
  }
  const std::int32_t expert = row / all_rows;
  const std::int32_t within = row % all_rows;
  // Gate and up stand side by side in the two hemispheres; else the west's columns come first, then the east's.
  const bool is_paired = use.matrix == MatrixKind::kGateUp;
  for (std::int32_t b = 0; b < linear.blocks(); ++b) {
    const std::int32_t cycles = install_cycles(columns_of(b), path);
    const std::int32_t each = columns_per_place(columns_of(b), path);
    const std::int32_t block_rows = 2 * linear.tiles * cycles * streams;
    if (within >= rows + block_rows) {
      rows += block_rows;
      before += is_paired ? each : 2 * each;
      continue;
    }
    const std::int32_t place = (within - rows) / (cycles * streams);
    const std::int32_t rest = (within - rows) % (cycles * streams);
    const std::int32_t hemisphere = place % 2;
    const std::int32_t column = rest / streams * path.install_columns + rest % streams / kBytes;
    return {origin(use.matrix, layer, expert, before + (is_paired ? 0 : hemisphere * each) + column, hemisphere),
            place / 2};
  }
  return {};
}

void NumericBinding::make_weights(Made& made, const TensorUse& use, std::int32_t layer, std::int32_t rows) const {
  const Space space = use.matrix == MatrixKind::kOutput ? Space::kAttention
                      : use.matrix == MatrixKind::kDown ? Space::kFfn
                                                        : Space::kHidden;
  made.weights.columns.reserve(static_cast<std::size_t>(rows / kBytes));
  for (std::int32_t row = 0; row < rows; row += kBytes) {
    const auto [from, tile] = column_at(use, layer, row);
    while (made.weights.lanes.size() <= static_cast<std::size_t>(tile)) {
      made.weights.lanes.push_back(layout_.tile(space, static_cast<std::int32_t>(made.weights.lanes.size())));
    }
    node::WeightColumns::Column column{.tile = static_cast<std::uint16_t>(tile)};
    if (from.label >= 0) {
      const node::StoredMatrix stored = common_.checkpoint.matrix(from.tensor);
      column.row = stored.row(from.row);
      column.label = static_cast<std::int32_t>(from.label);
      column.type = stored.type;
      made.weights.elements = stored.columns;
    }
    made.weights.columns.push_back(column);
  }
  auto matrix = node::make_counted<NumericValue>();
  matrix->weights = &made.weights;
  made.matrix = std::move(matrix);
}

void NumericBinding::mark_rows(RowsOfTensors& rows) const {
  const auto mark = [&](ModelTensor tensor, std::int64_t row) {
    if (tensor.kind == TensorKind::kHead && model_.ties_embeddings) {
      tensor.kind = TensorKind::kEmbedding;
    }
    std::vector<bool>& marked = rows[tensor];
    marked.resize(static_cast<std::size_t>(common_.checkpoint.matrix(tensor).rows));
    marked[static_cast<std::size_t>(row)] = true;
  };
  for (std::size_t i = 0; i < uses_.size(); ++i) {
    const TensorUse& use = uses_[i];
    const std::int32_t layer = layer_of(i);
    switch (use.content) {
      case Content::kNone:
      case Content::kRotary:
        break;
      case Content::kMatrix:
        for (std::int32_t row = 0; row < text_.tensors[i].rows; row += kBytes) {
          if (const Origin from = column_at(use, layer, row).from; from.label >= 0) {
            mark(from.tensor, from.row);
          }
        }
        break;
      case Content::kGamma:
        mark({use.norm, use.norm == TensorKind::kFinalNorm ? 0 : layer, 0}, 0);
        break;
      case Content::kEmbedding:
        for (std::int64_t row = 0; row < model_.vocabulary; ++row) {
          mark({.kind = TensorKind::kEmbedding}, row);
        }
        break;
    }
  }
}

}  // namespace

NumericBinder::NumericBinder(const ClusterProgram& program, const Checkpoint& checkpoint) {
  require_one_user(program);
  common_ = std::make_unique<Common>(program, checkpoint);
}
NumericBinder::~NumericBinder() = default;

std::unique_ptr<node::NumericModel> NumericBinder::bind(const node::ChipBinding& binding) {
  return std::make_unique<NumericBinding>(*common_, binding);
}

void refuse_non_finite(const ClusterProgram& program, const Checkpoint& checkpoint) {
  require_one_user(program);
  Common common(program, checkpoint);
  RowsOfTensors rows;
  for (const node::ChipBinding& binding : program.bindings) {
    if (binding.text >= 0) {
      NumericBinding(common, binding).mark_rows(rows);
    }
  }
  const ModelConfig& model = checkpoint.model();
  for (std::int64_t i = 0; i < tensor_count(model); ++i) {
    const ModelTensor tensor = tensor_at(model, i);
    const auto found = rows.find(tensor);
    if (found == rows.end()) {
      continue;
    }
    const std::vector<bool>& marked = found->second;
    for (auto first = std::find(marked.begin(), marked.end(), true); first != marked.end();) {
      const auto end = std::find(first, marked.end(), false);
      checkpoint.refuse_non_finite(tensor, first - marked.begin(), end - first);
      first = std::find(end, marked.end(), true);
    }
  }
}

}  // namespace lpu::scheduler
