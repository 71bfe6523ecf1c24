#include "lpu/node/field_reader.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include <boost/json.hpp>

#include "lpu/node/error.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::node {
namespace json = boost::json;

struct FieldReader::Document {
  std::string file;
  json::value root;
};

struct FieldReader::Node {
  std::shared_ptr<const Document> document;
  const json::object* object = nullptr;
  std::string path;                        ///< empty at the top
  mutable std::vector<std::string> known;  ///< keys that were asked for

  [[nodiscard]] const json::value* find(std::string_view key) const {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      known.emplace_back(key);
    }
    const auto* value = object->if_contains(json::string_view(key.data(), key.size()));
    return value == nullptr || value->is_null() ? nullptr : value;
  }
};

namespace {

constexpr std::uintmax_t kLargestText = 64ULL << 20U;

std::string shorten(const std::string& text) {
  constexpr std::size_t kLongest = 60;
  return text.size() <= kLongest ? text : text.substr(0, kLongest - 3) + "...";
}

std::string show(const json::value& value) {
  if (value.is_double()) {
    return shortest(value.get_double());
  }
  if (value.is_object()) {
    return "an object";
  }
  return shorten(json::serialize(value));
}

std::size_t line_of(std::string_view text, std::size_t offset) {
  return 1 + static_cast<std::size_t>(std::count(
                 text.begin(), text.begin() + static_cast<std::ptrdiff_t>(std::min(offset, text.size())), '\n'));
}

}  // namespace

std::string read_text_file(const std::filesystem::path& file) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::exists(status)) {
    throw InputError(file.string() + ": found no such file");
  }
  if (std::filesystem::is_directory(status)) {
    throw InputError(file.string() + ": found a folder; expected a file");
  }
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    throw InputError(file.string() + ": found a file that cannot be opened; expected read permission");
  }
  std::string text;
  char block[1 << 16];
  while (in.read(block, sizeof block), in.gcount() > 0) {
    text.append(block, static_cast<std::size_t>(in.gcount()));
    if (text.size() > kLargestText) {
      throw InputError(file.string() + ": found more than 64 MiB; expected a text file");
    }
  }
  return text;
}

FieldReader::FieldReader(std::shared_ptr<const Node> node) : node_(std::move(node)) {}

FieldReader FieldReader::parse(std::string_view text, std::string file) {
  json::stream_parser parser;
  json::error_code error;
  std::size_t offset = parser.write_some(text.data(), text.size(), error);
  if (!error) {
    const std::size_t rest = text.find_first_not_of(" \t\r\n", offset);
    if (rest != std::string_view::npos) {
      throw InputError(file + ":" + std::to_string(line_of(text, rest)) +
                       ": found text after the end of the JSON value");
    }
    offset = text.size();
    parser.finish(error);
  }
  if (error) {
    throw InputError(file + ":" + std::to_string(line_of(text, offset)) + ": found " +
                     (offset >= text.size() ? "the end of the text" : '\'' + printable(text.substr(offset, 1)) + '\'') +
                     "; expected JSON (" + error.message() + ")");
  }
  auto document = std::make_shared<Document>();
  document->file = std::move(file);
  document->root = parser.release();
  if (!document->root.is_object()) {
    throw InputError(document->file + ":1: found " + show(document->root) + "; expected a JSON object");
  }
  auto node = std::make_shared<Node>();
  node->object = &document->root.get_object();
  node->document = std::move(document);
  return FieldReader(std::move(node));
}

FieldReader FieldReader::load(const std::filesystem::path& file) {
  return parse(read_text_file(file), file.string());
}

const std::string& FieldReader::file() const {
  return node_->document->file;
}

std::string FieldReader::where() const {
  return node_->path.empty() ? file() : file() + ":" + node_->path;
}

std::string FieldReader::where(std::string_view key) const {
  return file() + ":" + (node_->path.empty() ? "" : node_->path + ".") + printable(key);
}

std::vector<std::string> FieldReader::keys() const {
  std::vector<std::string> out;
  for (const auto& member : *node_->object) {
    out.emplace_back(member.key());
  }
  return out;
}

bool FieldReader::has(std::string_view key) const {
  return node_->find(key) != nullptr;
}

bool FieldReader::has_object(std::string_view key) const {
  const json::value* value = node_->find(key);
  return value != nullptr && value->is_object();
}

void FieldReader::fail(std::string_view key, const std::string& expected) const {
  const auto* value = node_->object->if_contains(json::string_view(key.data(), key.size()));
  throw InputError(where(key) + ": found " + (value == nullptr ? "no such field" : show(*value)) + "; expected " +
                   expected);
}

FieldReader FieldReader::object(std::string_view key) const {
  const json::value* value = node_->find(key);
  if (value == nullptr || !value->is_object()) {
    fail(key, "an object");
  }
  auto node = std::make_shared<Node>();
  node->document = node_->document;
  node->object = &value->get_object();
  node->path = node_->path.empty() ? printable(key) : node_->path + "." + printable(key);
  return FieldReader(std::move(node));
}

std::int64_t FieldReader::integer(std::string_view key, std::int64_t minimum, std::int64_t maximum) const {
  const std::string expected = "a whole number from " + std::to_string(minimum) + " to " + std::to_string(maximum);
  const json::value* value = node_->find(key);
  if (value == nullptr) {
    fail(key, expected);
  }
  std::int64_t out = 0;
  if (value->is_int64()) {
    out = value->get_int64();
  } else if (value->is_double() && std::abs(value->get_double()) < 9e15 &&
             std::floor(value->get_double()) == value->get_double()) {
    out = static_cast<std::int64_t>(value->get_double());
  } else {
    fail(key, expected);
  }
  if (out < minimum || out > maximum) {
    fail(key, expected);
  }
  return out;
}

double FieldReader::number(std::string_view key, double minimum, double maximum) const {
  const std::string expected = "a number from " + shortest(minimum) + " to " + shortest(maximum);
  const json::value* value = node_->find(key);
  if (value == nullptr || !value->is_number()) {
    fail(key, expected);
  }
  const auto out = value->to_number<double>();
  if (!(out >= minimum && out <= maximum)) {
    fail(key, expected);
  }
  return out;
}

bool FieldReader::boolean(std::string_view key) const {
  const json::value* value = node_->find(key);
  if (value == nullptr || !value->is_bool()) {
    fail(key, "true or false");
  }
  return value->get_bool();
}

std::string FieldReader::text(std::string_view key) const {
  const json::value* value = node_->find(key);
  if (value == nullptr || !value->is_string()) {
    fail(key, "a string");
  }
  return std::string(value->get_string());
}

std::string FieldReader::literal(std::string_view key) const {
  const json::value* value = node_->find(key);
  if (value == nullptr || value->is_object() || value->is_array()) {
    fail(key, "a string or a number");
  }
  return value->is_string() ? std::string(value->get_string()) : show(*value);
}

std::vector<std::string> FieldReader::texts(std::string_view key) const {
  std::vector<std::string> out;
  const json::value* value = node_->find(key);
  if (value == nullptr) {
    return out;
  }
  if (!value->is_array()) {
    fail(key, "an array of strings");
  }
  for (const json::value& element : value->get_array()) {
    if (!element.is_string()) {
      fail(key, "an array of strings");
    }
    out.emplace_back(element.get_string());
  }
  return out;
}

std::vector<std::int64_t> FieldReader::integers(std::string_view key,
                                                std::int64_t minimum,
                                                std::int64_t maximum) const {
  const std::string expected =
      "an array of whole numbers from " + std::to_string(minimum) + " to " + std::to_string(maximum);
  const json::value* value = node_->find(key);
  if (value == nullptr || !value->is_array()) {
    fail(key, expected);
  }
  std::vector<std::int64_t> out;
  for (const json::value& element : value->get_array()) {
    if (!element.is_int64() || element.get_int64() < minimum || element.get_int64() > maximum) {
      fail(key, expected);
    }
    out.push_back(element.get_int64());
  }
  return out;
}

std::string FieldReader::shown(std::string_view key) const {
  const json::value* value = node_->find(key);
  return value == nullptr ? "no such field" : show(*value);
}

void FieldReader::refuse_other_keys() const {
  for (const std::string& key : keys()) {
    if (std::find(node_->known.begin(), node_->known.end(), key) == node_->known.end()) {
      throw InputError(where(key) + ": found an unknown field; expected one of the known ones" +
                       (node_->known.size() <= 12 ? known_values(key, node_->known) : did_you_mean(key, node_->known)));
    }
  }
}

}  // namespace lpu::node
