#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "lpu/node/quantity.hpp"
#include "lpu/node/stored_type.hpp"
#include "lpu/scheduler/model_config.hpp"
#include "lpu/scheduler/model_tensor.hpp"

namespace lpu::scheduler {

/// A model's weights as Hugging Face stores them: config.json beside one safetensors file, or beside several and their
/// index. Files are mapped read-only; opening reads their headers alone. Copies share the mapping.
class Checkpoint {
 public:
  /// @param where  a folder (model.safetensors.index.json decides where both it and model.safetensors are there), a
  ///               *.safetensors file or a *.index.json file; config.json lies in the same folder
  /// @throws InputError  one line with file, tensor, found, expected, for every rule of scheduler/README.md,
  ///                     "Checkpoints", but that of finite weights; before it nothing as large as a tensor is allocated
  [[nodiscard]] static Checkpoint open(const std::filesystem::path& where);

  /// Its stored_type is that of the widest weight, whatever config.json says of it.
  [[nodiscard]] const ModelConfig& model() const;
  [[nodiscard]] node::Bytes weight_bytes() const;

  /// The tensor where it lies in its file; a vector is one row. Valid as long as a copy of the checkpoint is.
  [[nodiscard]] node::StoredMatrix matrix(const ModelTensor& tensor) const;

  /// Rows of a tensor, widened to fp32 exactly: (rows, columns), row-major.
  [[nodiscard]] std::vector<float> rows(const ModelTensor& tensor, std::int64_t first, std::int64_t count) const;

  /// Reads these rows of the tensor.
  /// @throws InputError  one of their weights is infinite or NaN
  void refuse_non_finite(const ModelTensor& tensor, std::int64_t first, std::int64_t count) const;
  /// All tensors: reads every byte of the checkpoint.
  void refuse_non_finite() const;

 private:
  struct Content;
  std::shared_ptr<const Content> content_;
};

}  // namespace lpu::scheduler
