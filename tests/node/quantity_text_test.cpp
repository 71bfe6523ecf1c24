#include "lpu/node/quantity_text.hpp"

#include <cstdint>
#include <string>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

struct Case {
  const char* name;
  const char* text;
  Dimension dimension;
  const char* noun;
  std::int64_t clock;
  std::int64_t value;
};

class ParseQuantity : public testing::TestWithParam<Case> {};

TEST_P(ParseQuantity, GivesBaseUnits) {
  const Case& c = GetParam();
  EXPECT_EQ(parse_quantity(c.text, c.dimension, "here", c.noun, Hertz(c.clock)), c.value);
}

INSTANTIATE_TEST_SUITE_P(
    Units,
    ParseQuantity,
    testing::Values(Case{"Mebibytes", "220 MiB", Dimension::kBytes, "", 0, 230'686'720},
                    Case{"MegabytesGlued", "500MB", Dimension::kBytes, "", 0, 500'000'000},
                    Case{"FractionOfGigabyte", "1.5 GB", Dimension::kBytes, "", 0, 1'500'000'000},
                    Case{"Kibibytes", "64 KiB", Dimension::kBytes, "", 0, 65'536},
                    Case{"Cycles", "217cycles", Dimension::kCycles, "", 0, 217},
                    Case{"OneCycle", "1 cycle", Dimension::kCycles, "", 0, 1},
                    Case{"NanosecondsRoundUp", "241 ns", Dimension::kCycles, "", 900'000'000, 217},
                    Case{"MicrosecondsExact", "10 us", Dimension::kCycles, "", 900'000'000, 9000},
                    Case{"MillisecondsExact", "2 ms", Dimension::kCycles, "", 1'000'000'000, 2'000'000},
                    Case{"Megahertz", "900 MHz", Dimension::kHertz, "", 0, 900'000'000},
                    Case{"Gigahertz", "1.25GHz", Dimension::kHertz, "", 0, 1'250'000'000},
                    Case{"Rate", "12.5 GB/s", Dimension::kBytesPerSecond, "", 0, 12'500'000'000},
                    Case{"BitRate", "30 Gbit/s", Dimension::kBytesPerSecond, "", 0, 3'750'000'000},
                    Case{"Watts", "185 W", Dimension::kMilliWatts, "", 0, 185'000},
                    Case{"PlainCount", "44", Dimension::kCount, "slices", 0, 44},
                    Case{"NamedCount", "44 slices", Dimension::kCount, "slices", 0, 44},
                    Case{"SingularCount", "1 plane", Dimension::kCount, "planes", 0, 1},
                    Case{"KiloContext", "4k", Dimension::kCount, "", 0, 4096},
                    Case{"KiloNamed", "2k positions", Dimension::kCount, "positions", 0, 2048}),
    [](const auto& test) { return std::string(test.param.name); });

struct Refusal {
  const char* name;
  const char* text;
  Dimension dimension;
  const char* noun;
  std::int64_t clock;
  const char* message;
};

class RefuseQuantity : public testing::TestWithParam<Refusal> {};

TEST_P(RefuseQuantity, SaysWhatWouldBeRight) {
  const Refusal& c = GetParam();
  try {
    static_cast<void>(parse_quantity(c.text, c.dimension, "here", c.noun, Hertz(c.clock)));
    FAIL() << "accepted " << c.text;
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), c.message);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Messages,
    RefuseQuantity,
    testing::Values(
        Refusal{"BareCycles",
                "217",
                Dimension::kCycles,
                "",
                0,
                "here: found 217; expected a unit after the number: append cycles"},
        Refusal{"BareCyclesWithClock",
                "217",
                Dimension::kCycles,
                "",
                900'000'000,
                "here: found 217; expected a unit after the number: append cycles, ns, us or ms"},
        Refusal{"BareRate",
                "12.5",
                Dimension::kBytesPerSecond,
                "",
                0,
                "here: found 12.5; expected a unit after the number: append B/s, kB/s, MB/s, GB/s, TB/s or Gbit/s"},
        Refusal{"Misspelt",
                "217 cycels",
                Dimension::kCycles,
                "",
                0,
                "here: found 217 cycels; expected a unit of cycles; did you mean cycles?"},
        Refusal{"WrongKind", "217 MB", Dimension::kCycles, "", 0, "here: found 217 MB; expected a unit of cycles"},
        Refusal{"Fraction",
                "217.5 cycles",
                Dimension::kCycles,
                "",
                0,
                "here: found 217.5 cycles; expected a whole number of cycles"},
        Refusal{"Negative",
                "-5 cycles",
                Dimension::kCycles,
                "",
                0,
                "here: found -5 cycles; expected a number of 0 or more, such as 8 cycles"},
        Refusal{"Nothing",
                "",
                Dimension::kCycles,
                "",
                0,
                "here: found nothing; expected a number of 0 or more, such as 8 cycles"},
        Refusal{"TrailingPoint",
                "5.",
                Dimension::kCount,
                "slices",
                0,
                "here: found 5.; expected a number of 0 or more, such as 8 slices"},
        Refusal{"OtherThing",
                "44 planes",
                Dimension::kCount,
                "slices",
                0,
                "here: found 44 planes; expected a number of slices"},
        Refusal{"TooLarge",
                "99999999 TB",
                Dimension::kBytes,
                "",
                0,
                "here: found 99999999 TB; expected at most 9223372036854775807 bytes"},
        Refusal{"TooManyDigits",
                "1234567890123456789012345",
                Dimension::kCount,
                "",
                0,
                "here: found 1234567890123456789012345; expected at most 24 digits"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(FormatQuantity, ReadsBackToTheSameValue) {
  for (const Dimension dimension : {Dimension::kCount,
                                    Dimension::kBytes,
                                    Dimension::kCycles,
                                    Dimension::kHertz,
                                    Dimension::kBytesPerSecond,
                                    Dimension::kMilliWatts}) {
    for (const std::int64_t value : {0LL,
                                     1LL,
                                     7LL,
                                     320LL,
                                     1024LL,
                                     2304LL,
                                     230'686'720LL,
                                     900'000'000LL,
                                     12'500'000'000LL,
                                     9'223'372'036'854'775'807LL}) {
      const std::string text = format_quantity(value, dimension, "slices");
      EXPECT_EQ(parse_quantity(text, dimension, "here", "slices"), value) << text;
    }
  }
}

TEST(FormatQuantity, ChoosesTheShortestExactUnit) {
  EXPECT_EQ(format_quantity(230'686'720, Dimension::kBytes), "220 MiB");
  EXPECT_EQ(format_quantity(500'000'000, Dimension::kBytes), "500 MB");
  EXPECT_EQ(format_quantity(320, Dimension::kBytes), "320 B");
  EXPECT_EQ(format_quantity(12'500'000'000, Dimension::kBytesPerSecond), "12.5 GB/s");
  EXPECT_EQ(format_quantity(217, Dimension::kCycles), "217 cycles");
}

TEST(Text, NumbersForPeople) {
  EXPECT_EQ(with_thousands(0), "0");
  EXPECT_EQ(with_thousands(999), "999");
  EXPECT_EQ(with_thousands(1000), "1,000");
  EXPECT_EQ(with_thousands(-1234567), "-1,234,567");
  EXPECT_EQ(cycles_with_time(Cycles(11'270), Hertz(900'000'000)), "11,270 cycles = 12.5 us");
  EXPECT_EQ(cycles_with_time(Cycles(3'000'000), Hertz(900'000'000)), "3,000,000 cycles = 3.33 ms");
  EXPECT_EQ(cycles_with_time(Cycles(0), Hertz(900'000'000)), "0 cycles = 0.00 us");
  EXPECT_EQ(approximate_bytes(Bytes(230'686'720)), "231 MB");
  EXPECT_EQ(approximate_bytes(Bytes(999)), "999 B");
  EXPECT_EQ(approximate_bytes(Bytes(999'600)), "1.00 MB");
  EXPECT_EQ(shortest(500000.0), "500000");
  EXPECT_EQ(shortest(1e-5), "1e-05");
  EXPECT_EQ(shortest(0.1), "0.1");
}

}  // namespace
}  // namespace lpu::node
