#include "tensor_file.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include <boost/interprocess/file_mapping.hpp>
#include <boost/interprocess/mapped_region.hpp>

#include "lpu/node/error.hpp"
#include "lpu/node/field_reader.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::scheduler {
namespace {

using node::EnvironmentError;
using node::FieldReader;
using node::InputError;

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kLongestHeader = 100'000'000;  // the format's own limit
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::string_view kMetadata = "__metadata__";
constexpr std::string_view kLfsPointer = "version https://git-lfs.github.com/spec/";

struct ElementType {
  std::string_view name;
  std::int64_t bytes;
};
/// Every type of the format, so that a file's layout can be checked whatever it holds.
constexpr std::array<ElementType, 15> kTypes = {{{"BOOL", 1},
                                                 {"U8", 1},
                                                 {"I8", 1},
                                                 {"F8_E5M2", 1},
                                                 {"F8_E4M3", 1},
                                                 {"I16", 2},
                                                 {"U16", 2},
                                                 {"F16", 2},
                                                 {"BF16", 2},
                                                 {"I32", 4},
                                                 {"U32", 4},
                                                 {"F32", 4},
                                                 {"F64", 8},
                                                 {"I64", 8},
                                                 {"U64", 8}}};

struct Mapping {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
};

Mapping map_file(const std::filesystem::path& file) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::is_regular_file(status)) {
    throw InputError(file.string() + ": found " +
                     (std::filesystem::exists(status) ? "no regular file" : "no such file") +
                     "; expected a safetensors file");
  }
  if (std::filesystem::file_size(file, error) == 0 && !error) {
    return {};
  }
  namespace ipc = boost::interprocess;
  try {
    const ipc::file_mapping mapping(file.c_str(), ipc::read_only);
    auto region = std::make_shared<const ipc::mapped_region>(mapping, ipc::read_only);
    return {region, {static_cast<const std::byte*>(region->get_address()), region->get_size()}};
  } catch (const ipc::interprocess_exception& fault) {
    if (fault.get_error_code() == ipc::security_error) {
      throw InputError(file.string() + ": found a file that cannot be opened; expected read permission");
    }
    throw EnvironmentError(file.string() + ": cannot be mapped: " + fault.what());
  }
}

/// The JSON text between the length and the data.
std::string_view header_of(std::span<const std::byte> bytes, const std::string& name) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with(kLfsPointer)) {
    throw InputError(name + ": found a Git LFS pointer; expected the weights that it stands for");
  }
  if (bytes.size() < kLengthBytes) {
    throw InputError(name + ": found " + std::to_string(bytes.size()) +
                     " bytes; expected a safetensors file, which begins with 8 bytes that hold its header's length");
  }
  std::uint64_t length = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) {
    length = length << 8U | std::to_integer<std::uint64_t>(bytes[i]);
  }
  const std::uint64_t rest = bytes.size() - kLengthBytes;
  if (length > rest || length > kLongestHeader) {
    throw InputError(name + ": found a header of " + std::to_string(length) + " bytes; expected at most " +
                     std::to_string(std::min(rest, kLongestHeader)) +
                     (length > rest ? ", the bytes that follow its length" : ", the limit of safetensors"));
  }
  return text.substr(kLengthBytes, length);
}

/// Elements of a shape times bytes of each; nothing where that exceeds 2^63.
std::optional<std::int64_t> size_of(const std::vector<std::int64_t>& shape, std::int64_t element_bytes) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) {
    return 0;
  }
  std::int64_t size = element_bytes;
  for (const std::int64_t dimension : shape) {
    if (size > kMost / dimension) {
      return std::nullopt;
    }
    size *= dimension;
  }
  return size;
}

FileTensor read_tensor(const FieldReader& entry, std::int64_t data_bytes) {
  FileTensor tensor;
  tensor.type = entry.text("dtype");
  const auto* type =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const ElementType& row) { return row.name == tensor.type; });
  if (type == kTypes.end()) {
    entry.fail("dtype", "a type of safetensors: F32, BF16 or F16 for weights");
  }
  tensor.shape = entry.integers("shape", 0, kMost);
  const std::vector<std::int64_t> offsets = entry.integers("data_offsets", 0, kMost);
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_bytes) {
    entry.fail("data_offsets",
               "[begin, end] with 0 <= begin <= end <= " + std::to_string(data_bytes) + ", the data's bytes");
  }
  tensor.begin = offsets[0];
  tensor.end = offsets[1];
  const std::optional<std::int64_t> size = size_of(tensor.shape, type->bytes);
  if (!size || *size != tensor.end - tensor.begin) {
    entry.fail("data_offsets",
               (size ? std::to_string(*size) : "more than 2^63") + " bytes, as " + tensor.type + " of shape " +
                   entry.shown("shape") + " takes");
  }
  return tensor;
}

/// Tensors must lie one behind the other, from the first byte of the data to the last.
void check_layout(const std::map<std::string, FileTensor, std::less<>>& tensors,
                  std::int64_t data_bytes,
                  const std::string& name) {
  std::vector<const std::pair<const std::string, FileTensor>*> order;
  for (const auto& entry : tensors) {
    order.push_back(&entry);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  std::int64_t end = 0;
  for (const auto* entry : order) {
    if (entry->second.begin != end) {
      throw InputError(name + ":" + node::printable(entry->first) + ": found its data at byte " +
                       std::to_string(entry->second.begin) + "; expected byte " + std::to_string(end) +
                       ", where the tensor before it ends (" +
                       (entry->second.begin < end ? "they overlap)" : "bytes between them belong to no tensor)"));
    }
    end = entry->second.end;
  }
  if (end != data_bytes) {
    throw InputError(name + ": found " + std::to_string(data_bytes - end) +
                     " bytes after the last tensor; expected the file to end there");
  }
}

}  // namespace

TensorFile TensorFile::open(const std::filesystem::path& file) {
  TensorFile out;
  out.name_ = file.string();
  Mapping mapping = map_file(file);
  const std::string_view header = header_of(mapping.bytes, out.name_);
  out.mapping_ = std::move(mapping.owner);
  out.data_ = mapping.bytes.subspan(kLengthBytes + header.size());
  const auto data_bytes = static_cast<std::int64_t>(out.data_.size());
  const FieldReader reader = FieldReader::parse(header, out.name_);
  for (const std::string& key : reader.keys()) {
    if (key != kMetadata) {
      out.tensors_.emplace(key, read_tensor(reader.object(key), data_bytes));
    }
  }
  check_layout(out.tensors_, data_bytes, out.name_);
  return out;
}

std::span<const std::byte> TensorFile::bytes(const FileTensor& tensor) const {
  return data_.subspan(static_cast<std::size_t>(tensor.begin), static_cast<std::size_t>(tensor.end - tensor.begin));
}

}  // namespace lpu::scheduler
