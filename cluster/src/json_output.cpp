#include "json_output.hpp"

#include <cmath>

#include "lpu/node/quantity_text.hpp"
#include "version.hpp"

namespace lpu::cluster {
namespace json = boost::json;
namespace {

constexpr std::size_t kLine = 100;

void write_compact(const json::value& value, std::string& out) {
  if (value.is_double()) {
    out += std::isfinite(value.get_double()) ? node::shortest(value.get_double()) : "null";
  } else if (value.is_object()) {
    std::string_view separator = "{";
    for (const auto& member : value.get_object()) {
      out += separator;
      out += json::serialize(json::string(member.key())) + ": ";
      write_compact(member.value(), out);
      separator = ", ";
    }
    out += value.get_object().empty() ? "{}" : "}";
  } else if (value.is_array()) {
    std::string_view separator = "[";
    for (const json::value& element : value.get_array()) {
      out += separator;
      write_compact(element, out);
      separator = ", ";
    }
    out += value.get_array().empty() ? "[]" : "]";
  } else {
    out += json::serialize(value);
  }
}

void write_pretty(const json::value& value, std::size_t indent, std::string& out, bool is_top) {
  std::string line;
  write_compact(value, line);
  if (!is_top && (indent + line.size() <= kLine || !(value.is_object() || value.is_array()))) {
    out += line;
    return;
  }
  const std::string margin(indent + 2, ' ');
  const bool is_object = value.is_object();
  std::string_view separator = is_object ? "{\n" : "[\n";
  const auto one = [&](const std::string& key, const json::value& element) {
    out += separator;
    out += margin + key;
    write_pretty(element, indent + 2, out, false);
    separator = ",\n";
  };
  if (is_object) {
    for (const auto& member : value.get_object()) {
      one(json::serialize(json::string(member.key())) + ": ", member.value());
    }
  } else {
    for (const json::value& element : value.get_array()) {
      one("", element);
    }
  }
  out += "\n" + std::string(indent, ' ') + (is_object ? "}" : "]");
}

}  // namespace

std::string compact(const json::value& value) {
  std::string out;
  write_compact(value, out);
  return out;
}

std::string pretty(const json::value& value) {
  std::string out;
  const bool is_nested =
      (value.is_object() && !value.get_object().empty()) || (value.is_array() && !value.get_array().empty());
  if (is_nested) {
    write_pretty(value, 0, out, true);
  } else {
    write_compact(value, out);
  }
  return out;
}

json::object result_object(const CommandLine& line) {
  json::object out;
  out["schema"] = "lpu_cluster/" + std::string(line.verb ? name(*line.verb) : "version") + "/1";
  out["version"] = version();
  out["command"] = line.command;
  return out;
}

}  // namespace lpu::cluster
