#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lpu::node {

/// The text of a file.
/// @throws InputError  "<file>: …": absent, a folder, unreadable, larger than 64 MiB
[[nodiscard]] std::string read_text_file(const std::filesystem::path& file);

/// Walks one JSON object, knows its file and path, and says both in every error.
///
/// Each question marks its key as known; refuse_other_keys() then turns any key that nobody asked for into an error
/// with the nearest known one. A key that holds null counts as absent. Messages follow one grammar:
/// `<file>:<path>: found <actual>; expected <what would be right>[; known: …][; did you mean …?]`.
/// Copies are cheap and share the record of known keys.
class FieldReader {
 public:
  /// @param file  how messages name the text
  /// @throws InputError  "<file>:<line>: …" where the text is not JSON or not an object
  [[nodiscard]] static FieldReader parse(std::string_view text, std::string file);
  [[nodiscard]] static FieldReader load(const std::filesystem::path& file);

  [[nodiscard]] const std::string& file() const;
  [[nodiscard]] std::string where() const;                      ///< "<file>:<path>", or the file at the top
  [[nodiscard]] std::string where(std::string_view key) const;  ///< "<file>:<path>.<key>"
  [[nodiscard]] std::vector<std::string> keys() const;          ///< in the file's order, null ones included

  [[nodiscard]] bool has(std::string_view key) const;
  [[nodiscard]] bool has_object(std::string_view key) const;

  /// @throws InputError  absent, another type, out of range (all of these, for the following five)
  [[nodiscard]] FieldReader object(std::string_view key) const;
  [[nodiscard]] std::int64_t integer(std::string_view key, std::int64_t minimum, std::int64_t maximum) const;
  [[nodiscard]] double number(std::string_view key, double minimum, double maximum) const;
  [[nodiscard]] bool boolean(std::string_view key) const;
  [[nodiscard]] std::string text(std::string_view key) const;

  /// A string's content, or the spelling of a number or a boolean: what a quantity with its unit is read from.
  [[nodiscard]] std::string literal(std::string_view key) const;
  [[nodiscard]] std::vector<std::string> texts(std::string_view key) const;  ///< an array of strings; absent: empty
  /// An array of whole numbers.
  /// @throws InputError  absent, another type, an element out of range
  [[nodiscard]] std::vector<std::int64_t> integers(std::string_view key,
                                                   std::int64_t minimum,
                                                   std::int64_t maximum) const;
  /// A value as JSON text, for messages.
  [[nodiscard]] std::string shown(std::string_view key) const;

  /// @throws InputError  a key that no question was asked about
  void refuse_other_keys() const;
  [[noreturn]] void fail(std::string_view key, const std::string& expected) const;

 private:
  struct Document;
  struct Node;
  explicit FieldReader(std::shared_ptr<const Node> node);
  std::shared_ptr<const Node> node_;
};

}  // namespace lpu::node
