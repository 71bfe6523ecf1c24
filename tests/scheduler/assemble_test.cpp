#include "lpu/scheduler/assemble.hpp"

#include <sstream>
#include <vector>

#include <gtest/gtest.h>

#include "lpu/node/error.hpp"
#include "lpu/scheduler/inspect.hpp"
#include "lpu/scheduler/verify.hpp"
#include "rich_program.hpp"

namespace lpu::scheduler {
namespace {

using Lines = std::vector<std::string>;

[[nodiscard]] Lines listing(const ClusterProgram& program) {
  std::stringstream stream;
  inspect_json(program, {}, stream);
  Lines lines;
  for (std::string line; std::getline(stream, line);) {
    lines.push_back(line);
  }
  return lines;
}
[[nodiscard]] ClusterProgram assemble_lines(const Lines& lines) {
  std::stringstream stream;
  for (const std::string& line : lines) {
    stream << line << "\n";
  }
  return assemble(stream, "f.jsonl");
}
[[nodiscard]] std::string refusal(const Lines& lines) {
  try {
    (void)assemble_lines(lines);
  } catch (const node::InputError& error) {
    return error.what();
  }
  return "no error";
}
/// Index of the first line that contains all parts.
[[nodiscard]] std::size_t find(const Lines& lines, const std::string& a, const std::string& b = "") {
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].find(a) != std::string::npos && lines[i].find(b) != std::string::npos) {
      return i;
    }
  }
  throw std::runtime_error("no line with " + a + " and " + b);
}
void edit(std::string& line, const std::string& from, const std::string& to) {
  const std::size_t at = line.find(from);
  ASSERT_NE(at, std::string::npos) << from << " in " << line;
  line.replace(at, from.size(), to);
}

struct Malformed {
  std::string name;
  std::string record;  ///< the first line of this kind is edited
  std::string from;
  std::string to;
  std::string message;  ///< after the line's number
};

class AssembleRefuses : public testing::TestWithParam<Malformed> {};

TEST_P(AssembleRefuses, Listing) {
  const Malformed& bad = GetParam();
  Lines lines = listing(test::make_ring({}));
  const std::size_t at = find(lines, "\"record\":\"" + bad.record + "\"");
  edit(lines[at], bad.from, bad.to);
  EXPECT_EQ(refusal(lines), "f.jsonl:" + std::to_string(at + 1) + ": " + bad.message);
}

INSTANTIATE_TEST_SUITE_P(
    Table,
    AssembleRefuses,
    testing::Values(
        Malformed{"NoJson", "binding", "{", "", "found no JSON (extra data); expected one JSON object a line"},
        Malformed{"NoObject", "end", "{\"record\":\"end\"}", "[1]", "line: found [1]; expected an object"},
        Malformed{"Schema",
                  "program",
                  "inspect/1",
                  "inspect/2",
                  "schema: found \"lpu_cluster/inspect/2\"; expected \"lpu_cluster/inspect/1\""},
        Malformed{
            "UnknownField", "instruction", "\"address\":", "\"adress\":", "address: found no such field; expected one"},
        Malformed{"FieldTooMany",
                  "instruction",
                  "\"address\":",
                  "\"adress\":1,\"address\":",
                  "found field \"adress\"; expected one that listings have; did you mean address?"},
        Malformed{"OperandField",
                  "instruction",
                  "\"reach\":",
                  "\"reech\":1,\"reach\":",
                  "operands[0]: found field \"reech\"; expected one that listings have; did you mean reach?"},
        Malformed{"Opcode",
                  "text",
                  "\"record\":\"text\"",
                  "\"record\":\"texts\"",
                  "record: found \"texts\"; expected one of program, binding, text, tensor, allocation, register, "
                  "transfer, instruction, end; did you mean text?"},
        Malformed{"Kind",
                  "instruction",
                  "\"kind\":\"out\"",
                  "\"kind\":\"outt\"",
                  "operands[0].kind: found \"outt\"; expected one of none, in, out, resident; did you mean out?"},
        Malformed{"NoNumber",
                  "instruction",
                  "\"start_cycle\":0",
                  "\"start_cycle\":\"0\"",
                  "start_cycle: found \"0\"; expected a whole number, -2147483648 to 2147483647"},
        Malformed{"Fraction",
                  "instruction",
                  "\"start_cycle\":0",
                  "\"start_cycle\":0.5",
                  "start_cycle: found 5E-1; expected a whole number, -2147483648 to 2147483647"},
        Malformed{"TooLarge",
                  "instruction",
                  "\"address\":0",
                  "\"address\":65536",
                  "address: found 65536; expected a whole number, 0 to 65535"},
        Malformed{"Held",
                  "instruction",
                  "\"held\":0",
                  "\"held\":16",
                  "operands[0].held: found 16; expected a whole number, 0 to 15"},
        Malformed{"NoBool",
                  "instruction",
                  "\"registered\":false",
                  "\"registered\":0",
                  "operands[0].registered: found 0; expected true or false"},
        Malformed{"ShortList",
                  "instruction",
                  "\"count\":[2,1,1]",
                  "\"count\":[2,1]",
                  "count: found [2,1]; expected a list of 3"},
        Malformed{"ListElement",
                  "instruction",
                  "\"count\":[2,1,1]",
                  "\"count\":[2,-1,1]",
                  "count[1]: found -1; expected a whole number, 0 to 65535"},
        Malformed{"ZeroCount",
                  "instruction",
                  "\"count\":[2,1,1]",
                  "\"count\":[2,0,1]",
                  "count[1]: found 0; expected 1 to 65535"},
        Malformed{"TensorNumber",
                  "instruction",
                  "\"tensor\":0",
                  "\"tensor\":77",
                  "operands[0].tensor: found 77; expected 0 to 5"},
        Malformed{"RegisterNumber",
                  "instruction",
                  "\"base_register\":0",
                  "\"base_register\":2",
                  "base_register: found 2; expected 0 to 1"},
        Malformed{"UnitNumber",
                  "instruction",
                  "\"unit_index\":0",
                  "\"unit_index\":44",
                  "unit_index: found slice 44; expected slice 0 to 43"},
        Malformed{"StreamNumber",
                  "instruction",
                  "\"stream\":0",
                  "\"stream\":32",
                  "operands[0].stream: found 32; expected 0 to 31"},
        Malformed{"WrongNumberOfTensor",
                  "tensor",
                  "\"index\":0",
                  "\"index\":1",
                  "index: found 1; expected 0: numbers follow the lines"},
        Malformed{"AllocationOutside",
                  "allocation",
                  "\"address\":0",
                  "\"address\":8191",
                  "address: found 8192; expected 0 to 8191"},
        Malformed{"PeerNumber",
                  "binding",
                  "{\"chip\":1,\"link\":0}",
                  "{\"chip\":2,\"link\":0}",
                  "peers[0].chip: found 2; expected -1 to 1"},
        Malformed{"Interval",
                  "program",
                  "\"initiation_interval_cycles\":677",
                  "\"initiation_interval_cycles\":0",
                  "clockwork.initiation_interval_cycles: found 0; expected 1 to 2147483647"},
        Malformed{"Inputs", "program", "\"inputs\":{}", "\"inputs\":1", "inputs: found 1; expected an object"}),
    [](const auto& one) { return one.param.name; });

TEST(Assemble, RefusesAListingThatIsCutOff) {
  Lines lines = listing(test::make_ring({}));
  lines.pop_back();
  EXPECT_EQ(refusal(lines),
            "f.jsonl:" + std::to_string(lines.size() + 1) +
                ": found the end of the listing; expected a line of record end before it");
  EXPECT_EQ(refusal({}), "f.jsonl:1: found the end of the listing; expected a line of record program");
  lines = listing(test::make_ring({}));
  lines.erase(lines.begin() + 1);
  EXPECT_EQ(refusal(lines), "f.jsonl:1: bindings: found 1; expected 2 or more, one a chip, spares included");
}

TEST(Assemble, RefusesLinesOutOfPlace) {
  const Lines whole = listing(test::make_ring({}));
  Lines lines(whole.begin() + 1, whole.end());
  EXPECT_EQ(refusal(lines), "f.jsonl:1: found record \"binding\"; expected a listing that begins with record program");
  lines = whole;
  lines.insert(lines.begin() + 1, whole[0]);
  EXPECT_EQ(refusal(lines), "f.jsonl:2: found record \"program\"; expected one record program, the first");
  lines = whole;
  lines.push_back(whole[1]);
  EXPECT_EQ(refusal(lines),
            "f.jsonl:" + std::to_string(lines.size()) + ": found a line after record end; expected none");
}

TEST(Assemble, KeepsFaultsForTheVerifier) {
  const Lines whole = listing(test::make_ring({}));
  ASSERT_TRUE(verify(assemble_lines(whole)).empty());

  Lines lines = whole;  // a burst one cycle later
  std::size_t at = find(lines, R"("opcode":"compute","hemisphere")");
  edit(lines[at], "\"start_cycle\":600", "\"start_cycle\":601");
  auto found = verify(assemble_lines(lines));
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found[0].chip, 0);
  EXPECT_EQ(found[0].cycle, 601);

  lines = whole;  // an address by one row
  at = find(lines, R"("opcode":"read")", R"("unit_index":12)");
  edit(lines[at], "\"address\":0", "\"address\":1");
  found = verify(assemble_lines(lines));
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found[0].cycle, 571);

  lines = whole;  // a peer
  edit(lines[1], "{\"chip\":1,\"link\":0}", "{\"chip\":0,\"link\":0}");
  EXPECT_FALSE(verify(assemble_lines(lines)).empty());

  lines = whole;  // a burst removed: the numbers of the others need no change
  lines.erase(lines.begin() + static_cast<std::ptrdiff_t>(find(lines, R"("opcode":"send")")));
  EXPECT_FALSE(verify(assemble_lines(lines)).empty());
}

TEST(Assemble, PutsMovedInstructionsIntoOrder) {
  Lines lines = listing(test::make_ring({}));
  const std::size_t first = find(lines, R"("record":"instruction")");
  std::rotate(lines.begin() + static_cast<std::ptrdiff_t>(first),
              lines.begin() + static_cast<std::ptrdiff_t>(first) + 4,
              lines.end() - 1);
  EXPECT_EQ(listing(assemble_lines(lines)), listing(test::make_ring({})));
}

TEST(Assemble, EditsOneChipThatHasItsOwnText) {
  const std::vector<std::int32_t> chips{1};
  Lines lines = listing(with_own_texts(test::make_ring({.group = 3}), chips));
  std::size_t at = find(lines, R"("opcode":"drain","hemisphere")", R"("text":1)");
  EXPECT_NE(lines[at].find(R"("chip":1)"), std::string::npos);
  edit(lines[at], "\"start_cycle\":641", "\"start_cycle\":640");
  const auto found = verify(assemble_lines(lines), 100);
  ASSERT_FALSE(found.empty());
  for (const auto& one : found) {
    EXPECT_EQ(one.chip, 1) << one.message();
  }
}

TEST(Assemble, NamesAFileThatIsNotThere) {
  try {
    (void)assemble(std::filesystem::path("/nowhere/f.jsonl"));
    FAIL();
  } catch (const node::InputError& error) {
    EXPECT_STREQ(error.what(),
                 "/nowhere/f.jsonl: found \"No such file or directory\"; expected a listing (inspect --json)");
  }
}

}  // namespace
}  // namespace lpu::scheduler
