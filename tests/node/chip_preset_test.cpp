#include "lpu/node/chip_preset.hpp"

#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

const std::string& preset_text() {
  static const std::string kText = read_text_file(LPU_PRESETS "/chips/tsp-v1.json");
  return kText;
}

ChipPreset load(const std::string& text) {
  return load_chip_preset(FieldReader::parse(text, "chip.json"));
}

std::string with(const std::string& from, const std::string& to) {
  std::string text = preset_text();
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

ChipSpec with_settings(const std::vector<Setting>& settings) {
  ChipSpec chip = load(preset_text()).chip;
  apply_chip_settings(chip, settings);
  return chip;
}

TEST(ChipPreset, EveryFieldOfTheTableHasAValueAndASource) {
  const ChipPreset preset = load(preset_text());
  for (const std::string& field : chip_field_names()) {
    ASSERT_TRUE(preset.sources.count(field)) << field;
    EXPECT_FALSE(preset.sources.at(field).empty()) << field;
    EXPECT_FALSE(chip_field_text(preset.chip, field).empty()) << field;
  }
}

TEST(ChipPreset, HoldsThePublishedFigures) {
  const ChipSpec chip = load(preset_text()).chip;
  EXPECT_EQ(chip.sram(), Bytes(230'686'720));
  EXPECT_EQ(chip.links(), 11);
  EXPECT_EQ(chip.link_hemisphere[6], Hemisphere::kEast);
  EXPECT_EQ(chip.link_hemisphere[7], Hemisphere::kWest);
  EXPECT_EQ(chip.slice_position(43), 11);
  EXPECT_EQ(chip.link_serialisation, serialisation_at_rate(chip));
}

/// One field at a time: gone, unknown, without source, without unit, absurd.
TEST(ChipPreset, EveryFieldIsNeeded) {
  for (const std::string& field : chip_field_names()) {
    const std::string message =
        message_of([&] { static_cast<void>(load(with('"' + field + '"', "\"x_" + field + '"'))); });
    EXPECT_EQ(message, "chip.json:" + field + ": found no such field; expected an object with value and source");
  }
}

TEST(ChipPreset, RefusesWithOneClearLine) {
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"217 cycles\"", "217"))); }),
            "chip.json:link_flight.value: found 217; expected a unit after the number: append cycles, ns, us or ms");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"900 MHz\"", "\"900 THz\""))); }),
            "chip.json:clock.value: found 900 THz; expected a unit of Hz, kHz, MHz or GHz; did you mean Hz?");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"900 MHz\"", "\"0 MHz\""))); }),
            "chip.json:clock.value: found 0 Hz; expected 1 MHz to 10000 MHz");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"44 slices\"", "\"400 slices\""))); }),
            "chip.json:slices_per_hemisphere.value: found 400 slices; expected 1 slices to 127 slices");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"320 B\"", "\"321 B\""))); }),
            "chip.json:vector_bytes: found 321 B; expected 320 B (superlanes x lanes_per_superlane)");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"24 cycles\"", "\"25 cycles\""))); }),
            "chip.json:link_serialisation: found 25 cycles; expected 24 cycles (328 B at link_rate, rounded up)");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("west west west west", "west west west"))); }),
            "chip.json:link_hemisphere.value: found 10 words; expected west or east for each of 11 links");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"kind\": \"chip\"", "\"kind\": \"system\""))); }),
            "chip.json:kind: found \"system\"; expected chip");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("\"name\"", "\"clokc\": 3, \"name\""))); }),
            "chip.json:clokc: found an unknown field; expected one of the known ones; did you mean clock?");
  EXPECT_EQ(message_of([] { static_cast<void>(load(with("Abts et al., ISCA 2020, abstract (primary)", " "))); }),
            "chip.json:clock.source: found \" \"; expected where the value comes from");
}

TEST(ChipPreset, NumberAndUnitMayStandApart) {
  EXPECT_EQ(load(with("\"217 cycles\"", "217, \"unit\": \"cycles\"")).chip.link_flight, Cycles(217));
}

TEST(ChipSettings, SramIsRoundedDownToWholeRows) {
  const ChipSpec chip = with_settings({{"chip.sram", "500MB"}});
  EXPECT_EQ(chip.vectors_per_slice, 17'754);  // 500e6 / (88 x 320) = 17,755.7, an even number of rows
  EXPECT_LE(chip.sram(), Bytes(500'000'000));
}

TEST(ChipSettings, LinkRateSetsTheSerialisation) {
  EXPECT_EQ(with_settings({{"link.rate", "14GB/s"}}).link_serialisation, Cycles(22));
  EXPECT_EQ(with_settings({{"link.rate", "15 GB/s"}}).link_serialisation, Cycles(20));
  EXPECT_EQ(with_settings({{"link.serialisation", "20 cycles"}}).link_rate, BytesPerSecond(14'760'000'000));
}

TEST(ChipSettings, EveryFieldCanBeSetToWhatItIs) {
  const ChipSpec chip = load(preset_text()).chip;
  for (const std::string& field : chip_field_names()) {
    const ChipSpec same = with_settings({{"chip." + field, chip_field_text(chip, field)}});
    EXPECT_EQ(chip_field_text(same, field), chip_field_text(chip, field)) << field;
  }
}

TEST(ChipSettings, UnknownPathNamesTheNearest) {
  EXPECT_EQ(message_of([] {
              static_cast<void>(with_settings({{"link.fligth", "218cycles"}}));
            }),
            "--set link.fligth: found an unknown path; expected a field of the chip; did you mean link.flight?");
}

TEST(ChipSettings, ContradictionIsNamed) {
  EXPECT_EQ(message_of([] {
              static_cast<void>(with_settings({{"chip.superlanes", "10"}}));
            }),
            "--set chip.superlanes: vector_bytes: found 320 B; expected 160 B (superlanes x lanes_per_superlane)");
}

}  // namespace
}  // namespace lpu::node
