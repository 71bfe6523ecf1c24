#include "lpu/node/sourced_value.hpp"

namespace lpu::node {

SourcedValue read_sourced(const FieldReader& reader, std::string_view key) {
  if (!reader.has_object(key)) {
    reader.fail(key, "an object with value and source");
  }
  const FieldReader field = reader.object(key);
  SourcedValue out{field.literal("value"), field.text("source"), field.where("value")};
  if (field.has("unit")) {
    const std::string unit = field.text("unit");
    if (unit != kUnitOne && unit != kUnitWord) {
      out.value += " " + unit;
    }
  }
  if (out.source.find_first_not_of(' ') == std::string::npos) {
    field.fail("source", "where the value comes from");
  }
  field.refuse_other_keys();
  return out;
}

}  // namespace lpu::node
