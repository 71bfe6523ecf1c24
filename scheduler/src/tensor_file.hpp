#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lpu::scheduler {

/// One tensor as a safetensors header states it; its bytes lie inside the file (checked).
struct FileTensor {
  std::string type;                 ///< "BF16", "F32", …
  std::vector<std::int64_t> shape;  ///< sizes >= 0
  std::int64_t begin = 0;           ///< bytes, from the start of the data
  std::int64_t end = 0;
};

/// A safetensors file, mapped read-only: nothing but its header is read until somebody asks for a tensor's bytes.
///
/// @source huggingface/safetensors, README "Format": 8 bytes header length, JSON header, data
class TensorFile {
 public:
  /// @throws InputError  the file is none, is damaged, or breaks one of the rules in scheduler/README.md, "Checkpoints"
  [[nodiscard]] static TensorFile open(const std::filesystem::path& file);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::map<std::string, FileTensor, std::less<>>& tensors() const { return tensors_; }
  [[nodiscard]] std::span<const std::byte> bytes(const FileTensor& tensor) const;

 private:
  std::string name_;  ///< as messages say it
  std::map<std::string, FileTensor, std::less<>> tensors_;
  std::shared_ptr<const void> mapping_;  ///< keeps the bytes mapped
  std::span<const std::byte> data_;
};

}  // namespace lpu::scheduler
