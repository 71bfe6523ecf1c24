#include "lpu/node/field_reader.hpp"

#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"

namespace lpu::node {
namespace {

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

FieldReader read(const char* text) {
  return FieldReader::parse(text, "f.json");
}

TEST(FieldReader, GivesEachTypeAndItsPlace) {
  const FieldReader reader = read(R"({"a": {"n": 3, "x": 0.5, "t": "w", "b": true, "l": ["p", "q"]}})");
  const FieldReader a = reader.object("a");
  EXPECT_EQ(a.where("n"), "f.json:a.n");
  EXPECT_EQ(a.integer("n", 0, 9), 3);
  EXPECT_EQ(a.number("x", 0, 1), 0.5);
  EXPECT_EQ(a.text("t"), "w");
  EXPECT_TRUE(a.boolean("b"));
  EXPECT_EQ(a.texts("l").size(), 2U);
  EXPECT_EQ(a.literal("n"), "3");
  EXPECT_NO_THROW(a.refuse_other_keys());
}

TEST(FieldReader, NullCountsAsAbsent) {
  EXPECT_FALSE(read(R"({"a": null})").has("a"));
}

TEST(FieldReader, WholeNumberMayBeWrittenWithAPoint) {
  EXPECT_EQ(read(R"({"a": 4.0})").integer("a", 0, 9), 4);
}

TEST(FieldReader, RefusesWithActualAndExpected) {
  EXPECT_EQ(message_of([] { static_cast<void>(read(R"({"a": 12})").integer("a", 0, 9)); }),
            "f.json:a: found 12; expected a whole number from 0 to 9");
  EXPECT_EQ(message_of([] { static_cast<void>(read(R"({"a": 2.5})").integer("a", 0, 9)); }),
            "f.json:a: found 2.5; expected a whole number from 0 to 9");
  EXPECT_EQ(message_of([] { static_cast<void>(read(R"({"a": "7"})").integer("a", 0, 9)); }),
            "f.json:a: found \"7\"; expected a whole number from 0 to 9");
  EXPECT_EQ(message_of([] { static_cast<void>(read(R"({})").integer("a", 0, 9)); }),
            "f.json:a: found no such field; expected a whole number from 0 to 9");
  EXPECT_EQ(message_of([] { static_cast<void>(read(R"({"a": 1e400})").number("a", 0, 9)); }),
            "f.json:a: found inf; expected a number from 0 to 9");
  EXPECT_EQ(message_of([] { static_cast<void>(read(R"({"a": []})").object("a")); }),
            "f.json:a: found []; expected an object");
}

TEST(FieldReader, UnknownKeyNamesTheNearestKnownOne) {
  EXPECT_EQ(
      message_of([] {
        const FieldReader reader = read(R"({"clokc": 1})");
        static_cast<void>(reader.has("clock"));
        static_cast<void>(reader.has("name"));
        reader.refuse_other_keys();
      }),
      "f.json:clokc: found an unknown field; expected one of the known ones; known: clock, name; did you mean clock?");
}

TEST(FieldReader, SyntaxErrorNamesTheLine) {
  EXPECT_EQ(message_of([] {
              static_cast<void>(read("{\n  \"a\": 1,\n  b\n}"));
            }).rfind("f.json:3: found 'b'; expected JSON (", 0),
            0U);
  EXPECT_EQ(message_of([] {
              static_cast<void>(read("{\"a\": 1"));
            }).rfind("f.json:1: found the end of the text; expected JSON", 0),
            0U);
  EXPECT_EQ(
      message_of([] { static_cast<void>(read("")); }).rfind("f.json:1: found the end of the text; expected JSON", 0),
      0U);
  EXPECT_EQ(message_of([] { static_cast<void>(read("[1]")); }), "f.json:1: found [1]; expected a JSON object");
  EXPECT_EQ(message_of([] { static_cast<void>(read("{}\n{}")); }),
            "f.json:2: found text after the end of the JSON value");
}

TEST(FieldReader, DeepNestingIsRefused) {
  EXPECT_NE(message_of([] { static_cast<void>(FieldReader::parse("{\"a\":" + std::string(100'000, '['), "f.json")); }),
            "accepted");
}

TEST(ReadTextFile, NamesWhatIsNotAFile) {
  EXPECT_EQ(message_of([] { static_cast<void>(read_text_file("/nonexistent/f.json")); }),
            "/nonexistent/f.json: found no such file");
  EXPECT_EQ(message_of([] { static_cast<void>(read_text_file("/")); }), "/: found a folder; expected a file");
}

}  // namespace
}  // namespace lpu::node
