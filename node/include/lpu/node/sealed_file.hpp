#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace lpu::node {

/// A kind of binary file of ours: what it begins with, and how messages call it.
struct FileKind {
  std::string_view magic;  ///< 8 bytes
  std::uint32_t version = 1;
  std::string_view name;    ///< "a program file (*.lpuprog)"
  std::string_view plural;  ///< "program files"
};

/// A body behind its header: magic (8 bytes), version (4), body length (8), digest of all of these and of the body (8).
/// Numbers are little-endian.
[[nodiscard]] std::string seal(const FileKind& kind, std::string_view body);

/// The body, once its digest was found right: a parser never sees a flipped bit.
/// @param name  how messages call the bytes
/// @throws InputError  another magic or version, a length or a digest that does not match
[[nodiscard]] std::string_view unseal(const FileKind& kind, std::string_view bytes, const std::string& name);

/// Temporary name, sync, rename, sync of the folder: a reader sees all of the bytes, or what was there before.
/// @throws InputError        a path that cannot be written
/// @throws EnvironmentError  disk full and the like
void write_durably(const std::filesystem::path& file, std::string_view bytes);

/// @throws InputError        no regular file, or one that cannot be read
/// @throws EnvironmentError  disk or memory
[[nodiscard]] std::string read_whole(const FileKind& kind, const std::filesystem::path& file);

}  // namespace lpu::node
