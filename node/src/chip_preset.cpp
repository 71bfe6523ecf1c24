#include "lpu/node/chip_preset.hpp"

#include <algorithm>
#include <optional>
#include <sstream>
#include <variant>

#include "lpu/node/error.hpp"
#include "lpu/node/sourced_value.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::node {
namespace {

using Member = std::variant<std::int32_t ChipSpec::*,
                            Cycles ChipSpec::*,
                            Hertz ChipSpec::*,
                            BytesPerSecond ChipSpec::*,
                            MilliWatts ChipSpec::*>;

struct Row {
  ChipField field;
  Member member;
};

constexpr std::int64_t kMega = 1'000'000;
constexpr std::int64_t kGiga = 1'000'000'000;
constexpr std::string_view kLinkHemisphere = "link_hemisphere";

/// Upper ends follow from the widths of Instruction (8 bit units and positions, 16 bit addresses) or exclude the
/// absurd.
constexpr Row kRows[] = {
    {{"clock", Dimension::kHertz, "", kMega, 10 * kGiga, "chip clock"}, &ChipSpec::clock},
    {{"superlanes", Dimension::kCount, "superlanes", 1, 64, "tiles of a slice"}, &ChipSpec::superlanes},
    {{"lanes_per_superlane", Dimension::kCount, "lanes", 1, 64, "lanes of a tile"}, &ChipSpec::lanes_per_superlane},
    {{"vector_bytes", Dimension::kBytes, "", 1, 4096, "one vector, the unit of all movement"}, &ChipSpec::vector_bytes},
    {{"slices_per_hemisphere", Dimension::kCount, "slices", 1, 127, "MEM slices of a hemisphere"},
     &ChipSpec::slices_per_hemisphere},
    {{"banks_per_slice", Dimension::kCount, "banks", 1, 16, "bank = address mod banks"}, &ChipSpec::banks_per_slice},
    {{"vectors_per_slice", Dimension::kCount, "vectors", 16, 65536, "rows of a slice"}, &ChipSpec::vectors_per_slice},
    {{"streams_per_direction", Dimension::kCount, "streams", 4, 64, "in each hemisphere"},
     &ChipSpec::streams_per_direction},
    {{"mxm_planes_per_hemisphere", Dimension::kCount, "planes", 1, 8, "MXM planes"},
     &ChipSpec::mxm_planes_per_hemisphere},
    {{"mxm_rows", Dimension::kCount, "rows", 1, 4096, "K of a tile, int8"}, &ChipSpec::mxm_rows},
    {{"mxm_columns", Dimension::kCount, "columns", 1, 4096, "N of a tile, int8"}, &ChipSpec::mxm_columns},
    {{"mxm_install_columns_per_cycle",
      Dimension::kCount,
      "columns",
      1,
      64,
      "installed a cycle and plane, a stream each"},
     &ChipSpec::mxm_install_columns_per_cycle},
    {{"mxm_accumulators_per_plane", Dimension::kCount, "vectors", 1, 32767, "sums that a plane holds"},
     &ChipSpec::mxm_accumulators_per_plane},
    {{"vxm_alus", Dimension::kCount, "ALUs", 1, 64, "on each lane"}, &ChipSpec::vxm_alus},
    {{"sxm_streams_per_cycle", Dimension::kCount, "streams", 1, 64, "into and out of an SXM"},
     &ChipSpec::sxm_streams_per_cycle},
    {{"icu_queues", Dimension::kCount, "queues", 1, 4096, "instruction queues of the chip"}, &ChipSpec::icu_queues},
    {{"fetch_bytes_per_cycle", Dimension::kBytes, "", 1, 1 << 20U, "instruction text fetched a cycle"},
     &ChipSpec::fetch_bytes_per_cycle},
    {{"instruction_bytes", Dimension::kBytes, "", 1, 4096, "an instruction's text, without loops"},
     &ChipSpec::instruction_bytes},
    {{"loop_bytes", Dimension::kBytes, "", 0, 4096, "text of each loop used"}, &ChipSpec::loop_bytes},
    {{"slices_per_position", Dimension::kCount, "slices", 1, 127, "that share a stream register"},
     &ChipSpec::slices_per_position},
    {{"vxm_position", Dimension::kCount, "hops", 0, 0, "stream register of the VXM"}, &ChipSpec::vxm_position},
    {{"sxm_position", Dimension::kCount, "hops", 1, 126, "stream register of SXM and C2C"}, &ChipSpec::sxm_position},
    {{"mxm_position", Dimension::kCount, "hops", 1, 127, "stream register of the MXM"}, &ChipSpec::mxm_position},
    {{"instruction_propagation", Dimension::kCycles, "", 0, 10'000, "N: first superlane to the last"},
     &ChipSpec::instruction_propagation},
    {{"vxm_latency", Dimension::kCycles, "", 1, 10'000, "d_func of a chain of operations"}, &ChipSpec::vxm_latency},
    {{"vxm_transcendental_latency", Dimension::kCycles, "", 1, 10'000, "d_func of exp, rsqrt"},
     &ChipSpec::vxm_transcendental_latency},
    {{"mxm_latency", Dimension::kCycles, "", 1, 10'000, "d_func of a compute"}, &ChipSpec::mxm_latency},
    {{"sxm_latency", Dimension::kCycles, "", 1, 10'000, "d_func of a shift or transpose"}, &ChipSpec::sxm_latency},
    {{"local_links", Dimension::kCount, "links", 0, 16, "to chips of the node"}, &ChipSpec::local_links},
    {{"global_links", Dimension::kCount, "links", 0, 16, "out of the node"}, &ChipSpec::global_links},
    {{"link_queue_vectors", Dimension::kCount, "vectors", 1, 4096, "queue at each link end"},
     &ChipSpec::link_queue_vectors},
    {{"link_serialisation", Dimension::kCycles, "", 1, 100'000, "a vector occupies a link for"},
     &ChipSpec::link_serialisation},
    {{"link_flight", Dimension::kCycles, "", 0, 1'000'000, "flight time of a link"}, &ChipSpec::link_flight},
    {{"c2c_endpoint", Dimension::kCycles, "", 0, 1'000'000, "rest of a hop, SRAM to SRAM, both ends"},
     &ChipSpec::c2c_endpoint},
    {{"moe_routing", Dimension::kCycles, "", 0, 1'000'000, "softmax and top-k of a router"}, &ChipSpec::moe_routing},
    {{"link_rate", Dimension::kBytesPerSecond, "", kMega, 1000 * kGiga, "each direction"}, &ChipSpec::link_rate},
    {{"link_overhead_bytes", Dimension::kBytes, "", 0, 4096, "on the wire beside a vector"},
     &ChipSpec::link_overhead_bytes},
    {{"die_links", Dimension::kCount, "links", 0, 64, "on the die"}, &ChipSpec::die_links},
    {{"lanes_per_link", Dimension::kCount, "lanes", 1, 64, "serial lanes of a link"}, &ChipSpec::lanes_per_link},
    {{"lane_rate", Dimension::kBytesPerSecond, "", kMega, 1000 * kGiga, "the die's fastest, each direction"},
     &ChipSpec::lane_rate},
    {{"pcie_rate", Dimension::kBytesPerSecond, "", kMega, 10'000 * kGiga, "host port"}, &ChipSpec::pcie_rate},
    {{"pcie_latency", Dimension::kCycles, "", 0, 10 * kGiga, "of a transfer"}, &ChipSpec::pcie_latency},
    {{"power_average", Dimension::kMilliWatts, "", 1, kGiga, "of the chip under load"}, &ChipSpec::power_average},
};

const Row* find_row(std::string_view name) {
  const auto* row =
      std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.field.name == name; });
  return row == std::end(kRows) ? nullptr : row;
}

std::int64_t get(const ChipSpec& chip, const Row& row) {
  return std::visit(
      [&](auto member) -> std::int64_t {
        if constexpr (std::is_same_v<decltype(member), std::int32_t ChipSpec::*>) {
          return chip.*member;
        } else {
          return (chip.*member).count();
        }
      },
      row.member);
}

void assign(ChipSpec& chip, const Row& row, std::int64_t value) {
  std::visit(
      [&](auto member) {
        if constexpr (std::is_same_v<decltype(member), std::int32_t ChipSpec::*>) {
          chip.*member = static_cast<std::int32_t>(value);  // in range: minimum and maximum of the row
        } else {
          chip.*member = std::remove_reference_t<decltype(chip.*member)>(value);
        }
      },
      row.member);
}

std::string text_of(const ChipField& field, std::int64_t value) {
  return format_quantity(value, field.dimension, field.noun);
}

void check_range(const ChipField& field, std::int64_t value, const std::string& where) {
  if (value < field.minimum || value > field.maximum) {
    const std::string range = field.minimum == field.maximum
                                  ? text_of(field, field.minimum)
                                  : text_of(field, field.minimum) + " to " + text_of(field, field.maximum);
    throw InputError(where + ": found " + text_of(field, value) + "; expected " + range);
  }
}

void set_number(ChipSpec& chip, const Row& row, std::string_view text, const std::string& where) {
  const std::int64_t value = parse_quantity(text, row.field.dimension, where, row.field.noun, chip.clock);
  check_range(row.field, value, where);
  assign(chip, row, value);
}

void set_hemispheres(ChipSpec& chip, const std::string& text, const std::string& where) {
  std::istringstream words(text);
  std::size_t link = 0;
  for (std::string word; words >> word; ++link) {
    if (link >= chip.link_hemisphere.size() || (word != "west" && word != "east")) {
      throw InputError(where + ": found " +
                       (link >= chip.link_hemisphere.size() ? "more than 16 words" : printable(word)) +
                       "; expected west or east for each of at most 16 links");
    }
    chip.link_hemisphere[link] = word == "west" ? Hemisphere::kWest : Hemisphere::kEast;
  }
  if (chip.links() > 0 && link != static_cast<std::size_t>(chip.links())) {
    throw InputError(where + ": found " + std::to_string(link) + " words; expected west or east for each of " +
                     std::to_string(chip.links()) + " links");
  }
}

std::int64_t wire_bytes(const ChipSpec& chip) {
  return std::int64_t{chip.vector_bytes} + chip.link_overhead_bytes;
}

struct PathAlias {
  std::string_view path;
  std::string_view field;
};
constexpr PathAlias kAliases[] = {
    {"link.rate", "link_rate"},
    {"link.flight", "link_flight"},
    {"link.serialisation", "link_serialisation"},
    {"link.endpoint", "c2c_endpoint"},
    {"link.queue", "link_queue_vectors"},
};
constexpr std::string_view kSramPath = "chip.sram";

std::string_view field_of_path(std::string_view path) {
  for (const PathAlias& alias : kAliases) {
    if (alias.path == path) {
      return alias.field;
    }
  }
  return path.starts_with("chip.") ? path.substr(5) : std::string_view();
}

void set_sram(ChipSpec& chip, std::string_view text, const std::string& where) {
  const std::int64_t bytes = parse_quantity(text, Dimension::kBytes, where);
  const std::int64_t row_of_all_slices = std::int64_t{2} * chip.slices_per_hemisphere * chip.vector_bytes;
  std::int64_t rows = bytes / row_of_all_slices;
  rows -= rows % chip.banks_per_slice;
  const Row& row = *find_row("vectors_per_slice");
  if (rows < row.field.minimum || rows > row.field.maximum) {
    throw InputError(where + ": found " + printable(text) + "; expected " +
                     format_quantity(row.field.minimum * row_of_all_slices, Dimension::kBytes) + " to " +
                     format_quantity(row.field.maximum * row_of_all_slices, Dimension::kBytes));
  }
  assign(chip, row, rows);
}

[[noreturn]] void contradict(const std::string& where,
                             std::string_view name,
                             const std::string& found,
                             const std::string& expected) {
  throw InputError(where + std::string(name) + ": found " + found + "; expected " + expected);
}

}  // namespace

std::span<const ChipField> chip_fields() {
  static const std::vector<ChipField> kFields = [] {
    std::vector<ChipField> out;
    for (const Row& row : kRows) {
      out.push_back(row.field);
    }
    return out;
  }();
  return kFields;
}

std::vector<std::string> chip_field_names() {
  std::vector<std::string> out;
  for (const Row& row : kRows) {
    out.emplace_back(row.field.name);
    if (row.field.name == "global_links") {
      out.emplace_back(kLinkHemisphere);
    }
  }
  return out;
}

std::string chip_field_text(const ChipSpec& chip, std::string_view field) {
  if (field == kLinkHemisphere) {
    std::string out;
    for (std::int32_t link = 0; link < chip.links(); ++link) {
      out += (link == 0 ? "" : " ");
      out += chip.link_hemisphere[static_cast<std::size_t>(link)] == Hemisphere::kWest ? "west" : "east";
    }
    return out;
  }
  const Row* row = find_row(field);
  LPU_CHECK(row != nullptr, field);
  return text_of(row->field, get(chip, *row));
}

Cycles serialisation_at_rate(const ChipSpec& chip) {
  // At most 8,192 B x 10^10 Hz < 2^47.
  return Cycles(ceil_div(wire_bytes(chip) * chip.clock.count(), chip.link_rate.count()));
}

ChipPreset load_chip_preset(const FieldReader& reader) {
  ChipPreset out;
  if (reader.text("kind") != "chip") {
    reader.fail("kind", "chip");
  }
  out.chip.name = reader.text("name");
  out.description = reader.text("description");
  for (const std::string& name : chip_field_names()) {
    const SourcedValue field = read_sourced(reader, name);
    if (name == kLinkHemisphere) {
      set_hemispheres(out.chip, field.value, field.where);
    } else {
      set_number(out.chip, *find_row(name), field.value, field.where);
    }
    out.sources[name] = field.source;
  }
  reader.refuse_other_keys();
  check_chip(out.chip, reader.where() + ":");
  return out;
}

ChipSpec load_effective_chip(const FieldReader& reader) {
  ChipSpec chip;
  chip.name = reader.text("name");
  for (const std::string& name : chip_field_names()) {
    if (name == kLinkHemisphere) {
      set_hemispheres(chip, reader.text(name), reader.where(name));
    } else {
      set_number(chip, *find_row(name), reader.literal(name), reader.where(name));
    }
  }
  reader.refuse_other_keys();
  check_chip(chip, reader.where() + ":");
  return chip;
}

std::vector<std::string> chip_setting_paths() {
  std::vector<std::string> out;
  for (const std::string& name : chip_field_names()) {
    out.push_back("chip." + name);
  }
  out.emplace_back(kSramPath);
  for (const PathAlias& alias : kAliases) {
    out.emplace_back(alias.path);
  }
  return out;
}

void apply_chip_settings(ChipSpec& chip, std::span<const Setting> settings) {
  bool is_rate_set = false;
  bool is_serialisation_set = false;
  bool is_clock_set = false;
  std::string where = "--set";
  for (const Setting& setting : settings) {
    where = "--set " + setting.path;
    const std::string_view name = field_of_path(setting.path);
    if (setting.path == kSramPath) {
      set_sram(chip, setting.value, where);
    } else if (name == kLinkHemisphere) {
      set_hemispheres(chip, setting.value, where);
    } else if (const Row* row = find_row(name)) {
      set_number(chip, *row, setting.value, where);
    } else {
      throw InputError(where + ": found an unknown path; expected a field of the chip" +
                       did_you_mean(setting.path, chip_setting_paths()));
    }
    is_rate_set = is_rate_set || name == "link_rate";
    is_serialisation_set = is_serialisation_set || name == "link_serialisation";
    is_clock_set = is_clock_set || name == "clock" || name == "vector_bytes" || name == "link_overhead_bytes";
  }
  if (is_rate_set && !is_serialisation_set) {
    chip.link_serialisation = serialisation_at_rate(chip);
  } else if (!is_rate_set && (is_serialisation_set || is_clock_set)) {
    chip.link_rate = BytesPerSecond(ceil_div(wire_bytes(chip) * chip.clock.count(), chip.link_serialisation.count()));
  }
  if (!settings.empty()) {
    check_chip(chip, where + ": ");
  }
}

void check_chip(const ChipSpec& chip, const std::string& where) {
  for (const Row& row : kRows) {
    check_range(row.field, get(chip, row), where + std::string(row.field.name));
  }
  const auto number = [](std::int64_t value) { return std::to_string(value); };
  const std::int32_t lanes = chip.superlanes * chip.lanes_per_superlane;
  if (chip.vector_bytes != lanes) {
    contradict(where,
               "vector_bytes",
               number(chip.vector_bytes) + " B",
               number(lanes) + " B (superlanes x lanes_per_superlane)");
  }
  if (chip.mxm_rows != chip.vector_bytes) {
    contradict(where,
               "mxm_rows",
               number(chip.mxm_rows) + " rows",
               number(chip.vector_bytes) + " rows (a byte of the vector each)");
  }
  if (chip.mxm_columns > chip.vector_bytes) {
    contradict(where,
               "mxm_columns",
               number(chip.mxm_columns) + " columns",
               "at most " + number(chip.vector_bytes) + " columns (one vector of results)");
  }
  if (chip.mxm_install_columns_per_cycle * chip.mxm_planes_per_hemisphere > chip.streams_per_direction) {
    contradict(where,
               "mxm_install_columns_per_cycle",
               number(chip.mxm_install_columns_per_cycle) + " columns",
               "at most " + number(chip.streams_per_direction / chip.mxm_planes_per_hemisphere) +
                   " columns (streams_per_direction / mxm_planes_per_hemisphere)");
  }
  if (chip.vectors_per_slice % chip.banks_per_slice != 0) {
    contradict(where,
               "vectors_per_slice",
               number(chip.vectors_per_slice) + " vectors",
               "a multiple of banks_per_slice, " + number(chip.banks_per_slice));
  }
  const std::int32_t last = chip.slice_position(chip.slices_per_hemisphere - 1);
  if (chip.sxm_position <= last) {
    contradict(where,
               "sxm_position",
               number(chip.sxm_position) + " hops",
               "more than " + number(last) + " hops (the outermost MEM slice)");
  }
  if (chip.mxm_position <= chip.sxm_position) {
    contradict(where,
               "mxm_position",
               number(chip.mxm_position) + " hops",
               "more than " + number(chip.sxm_position) + " hops (sxm_position)");
  }
  if (chip.links() > static_cast<std::int32_t>(chip.link_hemisphere.size())) {
    contradict(where, "global_links", number(chip.links()) + " links with local_links", "at most 16 together");
  }
  if (chip.links() > chip.die_links) {
    contradict(where,
               "die_links",
               number(chip.die_links) + " links",
               "at least " + number(chip.links()) + " links (local_links + global_links)");
  }
  if (chip.link_serialisation != serialisation_at_rate(chip)) {
    contradict(where,
               "link_serialisation",
               number(chip.link_serialisation.count()) + " cycles",
               number(serialisation_at_rate(chip).count()) + " cycles (" + number(wire_bytes(chip)) +
                   " B at link_rate, rounded up)");
  }
}

}  // namespace lpu::node
