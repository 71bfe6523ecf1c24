#include "lpu/scheduler/program_file.hpp"

#include <csignal>
#include <sstream>
#include <sys/resource.h>

#include <gtest/gtest.h>

#include "lpu/node/digest.hpp"
#include "lpu/node/error.hpp"
#include "lpu/scheduler/inspect.hpp"
#include "rich_program.hpp"
#include "temporary_folder.hpp"

namespace lpu::scheduler {
namespace {

using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;

[[nodiscard]] std::string listing(const ClusterProgram& program) {
  std::ostringstream out;
  inspect_json(program, {}, out);
  return out.str();
}

[[nodiscard]] std::string refusal(const std::filesystem::path& file) {
  try {
    (void)load_program(file);
  } catch (const node::InputError& error) {
    return error.what();
  }
  return "no error";
}

/// A file with any body, whose header and digest are in order: what the format allows, not what save_program() writes.
[[nodiscard]] std::string seal(const std::string& body) {
  const auto number = [](std::uint64_t value, std::size_t bytes) {
    std::string out;
    for (std::size_t i = 0; i < bytes; ++i) {
      out.push_back(static_cast<char>(value >> (8U * i) & 0xffU));
    }
    return out;
  };
  const std::string head = "LPUPROG\n" + number(2, 4) + number(body.size(), 8);
  return head + number(node::fold(node::digest_text(head), node::digest_text(body)), 8) + body;
}
constexpr std::size_t kHeader = 28;

TEST(ProgramFile, KeepsEverythingThatAProgramHolds) {
  const TemporaryFolder folder;
  ClusterProgram program = test::RichProgram({.stages = 2, .group = 3}).program();
  program.inputs = R"({"model":"ring","seed":1})";
  save_program(program, folder / "a.lpuprog");
  const ClusterProgram back = load_program(folder / "a.lpuprog");
  EXPECT_EQ(schedule_digest(back), schedule_digest(program));
  EXPECT_EQ(listing(back), listing(program));
  EXPECT_EQ(back.inputs, program.inputs);
  EXPECT_EQ(back.initiation_interval, program.initiation_interval);
}

TEST(ProgramFile, KeepsEveryFieldOfAnInstruction) {
  const TemporaryFolder folder;
  ClusterProgram program = test::make_ring({});
  node::Instruction& out = program.texts[0].instructions.back();
  out.start = 1'000'000;
  out.opcode = node::Opcode::kCompareExchange;
  out.hemisphere = node::Hemisphere::kEast;
  out.index = 3;
  out.alus = 2;
  out.address = 60'000;
  out.mode = 0x85;
  out.operator_part = 4;
  out.base_register = 1;
  out.argument = -7;
  for (std::size_t l = 0; l < 3; ++l) {
    const auto i = static_cast<std::int16_t>(l + 2);
    out.count[l] = static_cast<std::uint16_t>(i);
    out.period[l] = i * 1000;
    out.index_stride[l] = static_cast<std::int8_t>(i - 3);
    out.address_stride[l] = static_cast<std::int16_t>(-i * 100);
  }
  for (std::size_t o = 0; o < out.operands.size(); ++o) {
    node::StreamOperand& operand = out.operands[o];
    const auto i = static_cast<std::int16_t>(o + 1);
    operand.kind = o == 0 ? node::OperandKind::kNone : node::OperandKind::kIn;
    operand.hemisphere = node::Hemisphere::kEast;
    operand.direction = node::Direction::kInward;
    operand.stream = static_cast<std::uint8_t>(i);
    operand.streams = 4;
    operand.stream_stride = 1;
    operand.reach = static_cast<std::uint8_t>(i + 1);
    operand.held = 0xb;
    operand.is_registered = 1;
    operand.tensor = 1;
    operand.row = 70'000 * i;
    operand.row_stride[0] = i;
    operand.row_stride[1] = static_cast<std::int16_t>(-i);
    operand.row_stride[2] = static_cast<std::int16_t>(300 * i);
  }
  const node::Instruction in = out;
  save_program(program, folder / "a.lpuprog");
  const node::Instruction back = load_program(folder / "a.lpuprog").texts[0].instructions.back();
  EXPECT_EQ(back.start, in.start);
  EXPECT_EQ(back.opcode, in.opcode);
  EXPECT_EQ(back.hemisphere, in.hemisphere);
  EXPECT_EQ(back.index, in.index);
  EXPECT_EQ(back.alus, in.alus);
  EXPECT_EQ(back.address, in.address);
  EXPECT_EQ(back.mode, in.mode);
  EXPECT_EQ(back.operator_part, in.operator_part);
  EXPECT_EQ(back.base_register, in.base_register);
  EXPECT_EQ(back.argument, in.argument);
  for (std::size_t l = 0; l < 3; ++l) {
    EXPECT_EQ(back.count[l], in.count[l]);
    EXPECT_EQ(back.period[l], in.period[l]);
    EXPECT_EQ(back.index_stride[l], in.index_stride[l]);
    EXPECT_EQ(back.address_stride[l], in.address_stride[l]);
  }
  for (std::size_t o = 0; o < in.operands.size(); ++o) {
    const node::StreamOperand& a = back.operands[o];
    const node::StreamOperand& b = in.operands[o];
    EXPECT_EQ(a.kind, b.kind);
    EXPECT_EQ(a.hemisphere, b.hemisphere);
    EXPECT_EQ(a.direction, b.direction);
    EXPECT_EQ(a.stream, b.stream);
    EXPECT_EQ(a.streams, b.streams);
    EXPECT_EQ(a.stream_stride, b.stream_stride);
    EXPECT_EQ(a.reach, b.reach);
    EXPECT_EQ(a.held, b.held);
    EXPECT_EQ(a.is_registered, b.is_registered);
    EXPECT_EQ(a.tensor, b.tensor);
    EXPECT_EQ(a.row, b.row);
    for (std::size_t l = 0; l < 3; ++l) {
      EXPECT_EQ(a.row_stride[l], b.row_stride[l]);
    }
  }
}

TEST(ProgramFile, TakesAThirdOfTheMemoryOfItsInstructions) {
  const TemporaryFolder folder;
  const ClusterProgram program = test::make_ring({.group = 8, .phases = 30});
  save_program(program, folder / "a.lpuprog");
  const std::size_t instructions = program.texts[0].instructions.size();
  // Llama-2-70B has about 1,300 instructions a layer and 80 layers: 20 MB are 192 bytes an instruction, all else
  // included.
  EXPECT_LT(std::filesystem::file_size(folder / "a.lpuprog"), instructions * 64);
}

TEST(ProgramFile, RefusesEveryFlippedByte) {
  const std::string bytes = to_bytes(test::make_ring({.group = 1}));
  std::string flipped = bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      flipped[i] = static_cast<char>(bytes[i] ^ flip);
      ASSERT_THROW((void)from_bytes(flipped, "a"), node::InputError) << "byte " << i << " ^ " << flip;
    }
    flipped[i] = bytes[i];
  }
}

TEST(ProgramFile, RefusesTruncationAtEveryLengthAndBytesTooMany) {
  const std::string bytes = to_bytes(test::make_ring({.group = 1}));
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    ASSERT_THROW((void)from_bytes(bytes.substr(0, length), "a"), node::InputError) << length;
  }
  EXPECT_THROW((void)from_bytes(bytes + '\0', "a"), node::InputError);
  const TemporaryFolder folder;
  write_bytes(folder / "a.lpuprog", bytes.substr(0, bytes.size() / 2));
  EXPECT_THROW((void)load_program(folder / "a.lpuprog"), node::InputError);
}

TEST(ProgramFile, SaysWhatItFoundInOneLine) {
  const TemporaryFolder folder;
  const auto file = folder / "a.lpuprog";
  const std::string name = file.string() + ": ";
  EXPECT_EQ(refusal(file), name + "found \"No such file or directory\"; expected a program file (*.lpuprog)");
  EXPECT_EQ(refusal(folder.path()), folder.path().string() + ": found a folder; expected a program file (*.lpuprog)");
  write_bytes(file, "");
  EXPECT_EQ(refusal(file), name + "found an empty file; expected \"LPUPROG\\n\", with which program files begin");
  write_bytes(file, "{\"a\": 1}\n");
  EXPECT_EQ(refusal(file),
            name + "found magic \"{\\x22a\\x22: 1}\"; expected \"LPUPROG\\n\", with which program files begin");
  const std::string whole = seal("");
  write_bytes(file, whole.substr(0, 20));
  EXPECT_EQ(refusal(file), name + "found 20 bytes; expected a header of 28 bytes (truncated file)");
  std::string other = whole;
  other[8] = 9;
  write_bytes(file, other);
  EXPECT_EQ(refusal(file), name + "found format version 9; expected version 2");
  other = whole;
  other[12] = 5;
  write_bytes(file, other);
  EXPECT_EQ(refusal(file), name + "found a body of 0 bytes; expected 5, as the header says");
  other = seal("abc");
  other[kHeader] = 'x';
  write_bytes(file, other);
  EXPECT_TRUE(refusal(file).starts_with(name + "found content with digest ")) << refusal(file);
  write_bytes(file, whole);
  EXPECT_EQ(refusal(file), name + "body: found its end in the middle of a field; expected a whole program");
}

TEST(ProgramFile, AllocatesNothingThatTheFileCannotFill) {
  const TemporaryFolder folder;
  // Cereal's mark of little-endian, then a string of 2^63 bytes.
  write_bytes(folder / "a.lpuprog", seal("\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"));
  EXPECT_EQ(
      refusal(folder / "a.lpuprog"),
      (folder / "a.lpuprog").string() +
          ": inputs: found 9223372036854775808 elements; expected at most 0, which is all that the rest of the file "
          "can hold");
}

TEST(ProgramFile, SurvivesAnyBodyWithAValidDigest) {
  const std::string body = to_bytes(test::RichProgram({}).program()).substr(kHeader);
  std::uint64_t state = 1;
  int accepted = 0;
  constexpr int kTurns = 20'000;
  for (int turn = 0; turn < kTurns; ++turn) {
    std::string edited = body;
    for (int edit = 0; edit < 1 + turn % 3; ++edit) {
      state = node::mix(state);
      edited[state % edited.size()] = static_cast<char>(state >> 32U);
    }
    try {
      (void)from_bytes(seal(edited), "a");
      ++accepted;  // another program, and a well-formed one
    } catch (const node::InputError&) {
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, kTurns);
}

TEST(ProgramFile, NamesTheFieldThatNoProgramCanHave) {
  ClusterProgram program = test::make_ring({});
  program.texts[0].instructions[3].operands[0].tensor = 99;
  const TemporaryFolder folder;
  EXPECT_THROW(save_program(program, folder / "a.lpuprog"), node::BugError);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ProgramFile, LeavesNothingBehindWhereItCannotWrite) {
  const ClusterProgram program = test::make_ring({});
  const TemporaryFolder folder;
  const auto refused = [&](const std::filesystem::path& file) {
    try {
      save_program(program, file);
    } catch (const node::InputError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(refused(folder / "no/a.lpuprog"),
            (folder / "no/a.lpuprog").string() +
                ": found \"No such file or directory\"; expected a path that can be written");
  EXPECT_EQ(refused(folder.path()), folder.path().string() + ": found a folder; expected a path that can be written");
  EXPECT_EQ(refused("/dev/null"), "/dev/null: found no regular file; expected a path that can be written");
  write_bytes(folder / "file", "x");
  EXPECT_EQ(refused(folder / "file/a.lpuprog"),
            (folder / "file/a.lpuprog").string() + ": found \"Not a directory\"; expected a path that can be written");
  std::filesystem::remove(folder / "file");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ProgramFile, AFullDiskIsTheEnvironmentsFaultAndKeepsTheOldFile) {
  const ClusterProgram program = test::make_ring({});
  const TemporaryFolder folder;
  write_bytes(folder / "a.lpuprog", "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 512;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THROW(save_program(program, folder / "a.lpuprog"), node::EnvironmentError);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_bytes(folder / "a.lpuprog"), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), std::filesystem::directory_iterator{}),
            1);
}

}  // namespace
}  // namespace lpu::scheduler
