#include "checkpoint_digest.hpp"

#include <span>
#include <string>

#include "lpu/node/digest.hpp"
#include "lpu/scheduler/model_preset.hpp"

namespace lpu::cluster {

std::uint64_t shape_digest(const scheduler::Checkpoint& checkpoint) {
  std::string text = std::to_string(checkpoint.weight_bytes().count());
  for (const scheduler::ModelField& field : scheduler::model_fields()) {
    if (scheduler::is_used(checkpoint.model(), field.name)) {
      text += " " + scheduler::model_field_text(checkpoint.model(), field.name);
    }
  }
  return node::digest_text(text);
}

std::uint64_t content_digest(const scheduler::Checkpoint& checkpoint) {
  std::uint64_t out = shape_digest(checkpoint);
  for (std::int64_t index = 0; index < scheduler::tensor_count(checkpoint.model()); ++index) {
    const node::StoredMatrix weights = checkpoint.matrix(scheduler::tensor_at(checkpoint.model(), index));
    out = node::fold(out, static_cast<std::uint64_t>(weights.type));
    const std::int64_t used = weights.columns * node::stored_bytes(weights.type);
    const bool is_dense = used == weights.row_bytes;
    const std::int64_t pieces = is_dense ? 1 : weights.rows;
    for (std::int64_t row = 0; row < pieces; ++row) {
      const auto bytes = static_cast<std::size_t>(is_dense ? weights.rows * used : used);
      out = node::fold(out, node::digest_bytes({weights.row(row), bytes}));
    }
  }
  return out;
}

}  // namespace lpu::cluster
