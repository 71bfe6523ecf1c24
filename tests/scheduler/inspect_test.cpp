#include "lpu/scheduler/inspect.hpp"

#include <cstdlib>
#include <sstream>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"
#include "lpu/scheduler/assemble.hpp"
#include "lpu/scheduler/program_file.hpp"
#include "lpu/scheduler/verify.hpp"
#include "rich_program.hpp"
#include "temporary_folder.hpp"

namespace lpu::scheduler {
namespace {

using test::TemporaryFolder;

[[nodiscard]] std::string json_listing(const ClusterProgram& program, const InspectOptions& options = {}) {
  std::ostringstream out;
  inspect_json(program, options, out);
  return out.str();
}
[[nodiscard]] std::string text_listing(const ClusterProgram& program, const InspectOptions& options = {}) {
  std::ostringstream out;
  inspect(program, options, out);
  return out.str();
}
[[nodiscard]] std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++found;
  }
  return found;
}

TEST(Inspect, AssemblesBackToTheSameBytes) {
  const TemporaryFolder folder;
  ClusterProgram program = test::RichProgram({.stages = 2, .group = 3, .fillers = 2}).program();
  for (const char* inputs : {"{}",
                             R"({"model":"ring","users":8,"rate":1.5E0,"set":["a=b"]})",
                             "",
                             "not JSON \xff",
                             R"({ "spaced": true })"}) {
    program.inputs = inputs;
    save_program(program, folder / "a.lpuprog");
    std::istringstream in(json_listing(load_program(folder / "a.lpuprog"), {.version = "1", .command = "inspect"}));
    save_program(assemble(in, "listing"), folder / "b.lpuprog");
    EXPECT_EQ(test::read_bytes(folder / "a.lpuprog"), test::read_bytes(folder / "b.lpuprog")) << inputs;
  }
}

TEST(Inspect, ListsAnAssemblyThatPeopleCanRead) {
  const std::filesystem::path golden = std::filesystem::path(LPU_GOLDEN) / "ring_listing.txt";
  const std::string listing = text_listing(test::make_ring({.stages = 2}));
  if (std::getenv("LPU_WRITE_GOLDEN") != nullptr) {  // NOLINT(concurrency-mt-unsafe): one thread
    test::write_bytes(golden, listing);
  }
  EXPECT_EQ(listing, test::read_bytes(golden));
}

TEST(Inspect, SelectsByChipCycleAndUnit) {
  const ClusterProgram program = test::make_ring({.stages = 2});
  const std::string all = json_listing(program);
  EXPECT_EQ(count(all, R"("record":"instruction")"), 38U);
  const std::string one = json_listing(program, {.chips = {2}});
  EXPECT_EQ(count(one, R"("record":"binding")"), 1U);
  EXPECT_EQ(count(one, R"("record":"text")"), 1U);
  EXPECT_EQ(count(one, R"("text":1,"index")"), count(one, R"("index")"));
  const std::string links = json_listing(program, {.unit = node::Unit::kC2c});
  EXPECT_EQ(count(links, R"("record":"instruction")"), 8U);
  // The weights' read issues from cycle 571 to 590 at its own slice, and three later at the slices farther out.
  const std::string window =
      text_listing(program, {.chips = {0}, .cycles = std::pair<std::int64_t, std::int64_t>{593, 593}});
  EXPECT_EQ(count(window, "  read    "), 2U) << window;
  EXPECT_EQ(count(window, "  install "), 1U) << window;
  EXPECT_EQ(count(window, "  compute "), 0U) << window;
}

TEST(Inspect, ASelectionIsNoProgram) {
  std::istringstream in(json_listing(test::make_ring({}), {.unit = node::Unit::kMem}));
  try {
    (void)assemble(in, "part.jsonl");
    FAIL();
  } catch (const node::InputError& error) {
    EXPECT_STREQ(error.what(),
                 "part.jsonl:1: selection: found a listing of a part of a program; expected the whole program (inspect "
                 "without a selection)");
  }
}

TEST(Inspect, NamesAChipThatIsNotThere) {
  try {
    (void)text_listing(test::make_ring({}), {.chips = {2}});
    FAIL();
  } catch (const node::InputError& error) {
    EXPECT_STREQ(error.what(), "found chip 2; expected 0 to 1");
  }
  try {
    (void)parse_unit("mxn");
    FAIL();
  } catch (const node::InputError& error) {
    EXPECT_STREQ(error.what(),
                 "--unit: found mxn; expected one of the chip's; known: mem, mxm, vxm, sxm, c2c; did you mean mxm?");
  }
}

TEST(Inspect, AChipWithItsOwnTextRunsTheSameProgram) {
  const ClusterProgram program = test::make_ring({.group = 4});
  const std::vector<std::int32_t> chips{1, 3};
  const ClusterProgram own = with_own_texts(program, chips);
  ASSERT_EQ(own.texts.size(), 3U);
  EXPECT_EQ(own.bindings[0].text, 0);
  EXPECT_EQ(own.bindings[1].text, 1);
  EXPECT_EQ(own.bindings[2].text, 0);
  EXPECT_EQ(own.bindings[3].text, 2);
  EXPECT_TRUE(verify(own).empty());
  // All four: the last one that is left keeps the text that they shared.
  const std::vector<std::int32_t> all{0, 1, 2, 3};
  const ClusterProgram apart = with_own_texts(program, all);
  EXPECT_EQ(apart.texts.size(), 4U);
  EXPECT_EQ(apart.bindings[3].text, 0);
  EXPECT_EQ(with_own_texts(apart, all).texts.size(), 4U);
}

}  // namespace
}  // namespace lpu::scheduler
