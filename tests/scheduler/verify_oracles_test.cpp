#include <algorithm>
#include <map>
#include <random>
#include <tuple>

#include <gtest/gtest.h>

#include "tiny_program.hpp"
#include "verify_links.hpp"
#include "verify_memory.hpp"
#include "verify_static.hpp"
#include "verify_streams.hpp"
#include "verify_units.hpp"

// Closed forms of the verifier against loops that a child could write: random cases, one verdict.

namespace lpu::scheduler {
namespace {

using namespace test;  // the tiny program's builders
using node::Allocation;
using node::Hemisphere;
using node::Instruction;
using node::Opcode;
using node::RegisterKind;
using enum node::OperandKind;
using enum node::Direction;

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::int32_t operator()(std::int32_t least, std::int32_t most) {
    return std::uniform_int_distribution<std::int32_t>(least, most)(engine_);
  }

 private:
  std::mt19937_64 engine_;
};

/// A program of one empty text, with one tensor of each scope.
enum Scope : std::uint16_t { kStatic, kCache, kScratch };
ClusterProgram empty_program() {
  ClusterProgram program = tiny_program();
  program.texts[0] = {};
  node::ChipProgram& text = program.texts[0];
  text.registers.emplace_back();
  for (const node::TensorScope scope :
       {node::TensorScope::kStatic, node::TensorScope::kCache, node::TensorScope::kIteration}) {
    text.tensors.push_back({.name = "t", .scope = scope, .rows = 10'000, .sources = {}});
  }
  return program;
}

Allocation random_box(Random& pick, std::uint16_t tensor, std::int32_t most) {
  Allocation a;
  a.tensor = tensor;
  a.row = pick(0, 20);
  a.slice = pick(2, 4);
  a.address = pick(10, 30);
  for (std::size_t l = 0; l < 3; ++l) {
    a.count[l] = pick(1, most);
    a.row_stride[l] = pick(-1, 4);
    a.slice_stride[l] = pick(0, 3) == 0 ? pick(-1, 1) : 0;
    a.address_stride[l] = pick(-1, 3);
  }
  return a;
}

TEST(VerifyOracleProperty, StaticRowsOfBurstsLieWhereCellsSay) {
  std::int32_t inside = 0;
  for (std::uint64_t seed = 1; seed <= 4000; ++seed) {
    Random pick(seed);
    ClusterProgram program = empty_program();
    node::ChipProgram& text = program.texts[0];
    const std::int32_t boxes = pick(1, 3);
    for (std::int32_t i = 0; i < boxes; ++i) {
      text.allocations.push_back(random_box(pick, kStatic, 5));
    }
    // A burst that begins on a stored row and mostly follows an allocation's loops.
    const Allocation& a = text.allocations[static_cast<std::size_t>(pick(0, boxes - 1))];
    Instruction read =
        instruction(Opcode::kRead, 0, a.slice, a.address, {operand(kOut, kOutward, 0, 1, kStatic, a.row, 13)});
    for (std::size_t l = 0; l < 3; ++l) {
      const auto along = static_cast<std::size_t>(pick(0, 2));
      const std::int32_t times = pick(0, 4) == 0 ? 2 : 1;
      read.count[l] = static_cast<std::uint16_t>(pick(0, 2) == 0 ? 1 : pick(1, a.count[along]));
      read.period[l] = 1;
      read.index_stride[l] = static_cast<std::int8_t>(a.slice_stride[along] * times);
      read.address_stride[l] = static_cast<std::int16_t>(a.address_stride[along] * times);
      read.operands[0].row_stride[l] =
          static_cast<std::int16_t>(a.row_stride[along] * times + (pick(0, 19) == 0 ? 1 : 0));
    }
    std::multimap<std::tuple<int, int>, int> cells_of_rows;
    for (const Allocation& each : text.allocations) {
      proof::for_each_cell(each, [&](int slice, int address, int row) {
        cells_of_rows.insert({{slice, address}, row});
      });
    }
    bool all_inside = true;
    for (int i = 0; i < read.count[0]; ++i) {
      for (int j = 0; j < read.count[1]; ++j) {
        for (int k = 0; k < read.count[2]; ++k) {
          const auto sum = [&](const auto& stride) { return i * stride[0] + j * stride[1] + k * stride[2]; };
          const auto [first, last] =
              cells_of_rows.equal_range({a.slice + sum(read.index_stride), a.address + sum(read.address_stride)});
          const int row = a.row + sum(read.operands[0].row_stride);
          all_inside = all_inside && std::any_of(first, last, [&](const auto& cell) { return cell.second == row; });
        }
      }
    }
    const proof::TextFacts facts = proof::gather_facts(program, text);
    proof::Findings findings;
    proof::RowIndex index;
    ASSERT_TRUE(index.build(facts, findings));
    proof::StaticRows rows(facts, index.allocations());
    ASSERT_EQ(!rows.find_outside(read, read.operands[0]), all_inside) << "seed " << seed;
    inside += all_inside ? 1 : 0;
  }
  EXPECT_GT(inside, 1000);
  EXPECT_LT(inside, 3300);
}

TEST(VerifyOracleProperty, AllocationsAreApartWhereCellsAre) {
  std::int32_t sound = 0;
  for (std::uint64_t seed = 1; seed <= 4000; ++seed) {
    Random pick(seed);
    ClusterProgram program = empty_program();
    program.user_slots = 2;
    program.plan.micro_batch = 1;
    node::ChipProgram& text = program.texts[0];
    text.registers.push_back({.kind = RegisterKind::kBuffer, .copies = pick(1, 3), .stride = pick(1, 12), .table = {}});
    node::BaseRegister users;
    users.kind = RegisterKind::kUser;
    users.table = {{},
                   {.slice = static_cast<std::int16_t>(pick(0, 2)), .address = static_cast<std::int16_t>(pick(0, 20))}};
    text.registers.push_back(users);
    const std::int32_t boxes = pick(1, 4);
    for (std::int32_t i = 0; i < boxes; ++i) {
      const auto scope = static_cast<std::uint16_t>(pick(0, 2));
      Allocation a = random_box(pick, scope, 3);
      a.slice += pick(0, 20);
      a.base_register = static_cast<std::uint8_t>(scope == kCache ? 2 : pick(0, 1));
      text.allocations.push_back(a);
    }
    // One row, or none, a cell: that is, one (tensor, user, row) of what lasts, and no scratch beside it.
    std::map<std::tuple<int, int>, std::tuple<int, int, int>> lasting;
    bool is_apart = true;
    const proof::TextFacts facts = proof::gather_facts(program, text);
    for (const bool lasts : {true, false}) {
      for (const Allocation& a : text.allocations) {
        const auto& images = *facts.registers[a.base_register].images;
        for (std::size_t image = 0; image < images.size() && (a.tensor != kScratch) == lasts; ++image) {
          proof::for_each_cell(a, [&](int slice, int address, int row) {
            const std::tuple cell{slice + images[image].slice, address + images[image].address};
            const std::tuple what{
                int{a.tensor}, a.tensor == kCache ? static_cast<int>(image) : 0, row + images[image].row};
            const auto known = lasting.find(cell);
            is_apart = is_apart && (known == lasting.end() || (lasts && known->second == what));
            if (lasts) {
              lasting.try_emplace(cell, what);
            }
          });
        }
      }
    }
    proof::Findings findings;
    proof::RowIndex index;
    ASSERT_TRUE(index.build(facts, findings));
    static_cast<void>(proof::prove_cells(facts, index, findings));
    ASSERT_EQ(findings.is_empty(), is_apart) << "seed " << seed;
    sound += is_apart ? 1 : 0;
  }
  EXPECT_GT(sound, 1000);
  EXPECT_LT(sound, 3500);
}

TEST(VerifyOracleProperty, LivesOfOverlappingIterationsAreApartWhereTimelinesAre) {
  std::int32_t apart = 0;
  for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
    Random pick(seed);
    ClusterProgram program = empty_program();
    const std::int32_t interval = pick(10, 60);
    program.initiation_interval = program.plan.initiation_interval = interval;
    node::ChipProgram& text = program.texts[0];
    struct Row {
      std::int32_t address, copies, stride, write, read;
    };
    std::vector<Row> rows;
    const std::int32_t count = pick(1, 3);
    for (std::int32_t i = 0; i < count; ++i) {
      const Row row{pick(0, 3), pick(1, 3), pick(1, 3), pick(0, 100), 0};
      rows.push_back(row);
      rows.back().read = row.write + 21 + pick(0, 60);
      text.registers.push_back(
          {.kind = RegisterKind::kBuffer, .copies = row.copies, .stride = row.stride, .table = {}});
      Allocation a = cells(kEmbedding, 5, row.address, i);
      a.tensor = kScratch;
      a.base_register = static_cast<std::uint8_t>(1 + i);
      text.allocations.push_back(a);
      Instruction write =
          instruction(Opcode::kWrite, row.write, 5, row.address, {operand(kIn, kOutward, 0, 1, kScratch, i)});
      Instruction read = instruction(
          Opcode::kRead, rows.back().read, 5, row.address, {operand(kOut, kOutward, 0, 1, kScratch, i, 13)});
      write.base_register = read.base_register = static_cast<std::uint16_t>(1 + i);
      text.instructions.insert(text.instructions.end(), {write, read});
    }
    // Iterations k and k + j, m intervals apart, 1 <= j <= m: what the clockwork can bring about.
    bool is_apart = true;
    for (int m = 0; m <= 200 / interval + 1; ++m) {
      for (int j = m == 0 ? 0 : 1; j <= m; ++j) {
        for (int k = 0; k < 6; ++k) {
          for (std::size_t x = 0; x < rows.size(); ++x) {
            for (std::size_t y = 0; y < rows.size(); ++y) {
              const Row& a = rows[x];
              const Row& b = rows[y];
              const bool is_one = x == y && m == 0;
              const bool is_one_cell = a.address + k % a.copies * a.stride == b.address + (k + j) % b.copies * b.stride;
              const int shift = m * interval;
              const bool is_overlap = a.write <= b.read + shift && b.write + shift <= a.read;
              is_apart = is_apart && (is_one || !is_one_cell || !is_overlap);
            }
          }
        }
      }
    }
    const proof::TextFacts facts = proof::gather_facts(program, text);
    proof::Findings findings;
    proof::RowIndex index;
    ASSERT_TRUE(index.build(facts, findings));
    proof::prove_places(facts, index, proof::prove_accesses(facts, index, findings), findings);
    ASSERT_EQ(findings.is_empty(), is_apart) << "seed " << seed;
    apart += is_apart ? 1 : 0;
  }
  EXPECT_GT(apart, 500);
  EXPECT_LT(apart, 2500);
}

TEST(VerifyOracleProperty, InputsFindTheirValuesWhereAListOfStreamsSays) {
  std::int32_t found = 0;
  for (std::uint64_t seed = 1; seed <= 4000; ++seed) {
    Random pick(seed);
    ClusterProgram program = empty_program();
    node::ChipProgram& text = program.texts[0];
    // Outputs of the VXM, kept to some register; an add in the SXM or MXM would be no different from a write.
    const auto loops = [&](Instruction& out) {
      for (std::size_t l = 0; l < 3; ++l) {
        out.count[l] = static_cast<std::uint16_t>(pick(0, 1) == 0 ? 1 : pick(2, 4));
        out.period[l] = pick(1, 6);
        for (node::StreamOperand& each : out.operands) {
          each.row_stride[l] = static_cast<std::int16_t>(pick(0, 2));
        }
      }
      out.operands[0].held = static_cast<std::uint8_t>(pick(0, 2) == 0 ? pick(0, 7) : 0) & 15U;
    };
    const std::int32_t outputs = pick(1, 2);
    for (std::int32_t i = 0; i < outputs; ++i) {
      Instruction out = instruction(
          Opcode::kCopy, pick(0, 4), i, 0, {operand(kOut, kOutward, 0, pick(1, 2), kScratch, pick(0, 2), pick(2, 5))});
      loops(out);
      text.instructions.push_back(out);
    }
    Instruction in = text.instructions[0];
    in.opcode = Opcode::kWrite;
    in.operands[0].kind = kIn;
    in.operands[0].streams = 1;
    in.index = static_cast<std::uint8_t>(4 * pick(0, 5));  // registers 1 .. 6
    in.start += 5 + 1 + in.index / 4;
    if (pick(0, 2) == 0) {
      loops(in);
    }
    in.operands[0].held = 0;
    text.instructions.push_back(in);
    // (cycle at register 0, row, reach) of all that is put on stream 0.
    std::vector<std::tuple<int, int, int>> values;
    const auto each = [](const Instruction& i, const auto& visit) {
      for (int a = 0; a < i.count[0]; ++a) {
        for (int b = 0; b < i.count[1]; ++b) {
          for (int c = 0; c < i.count[2]; ++c) {
            const int at[3] = {a, b, c};
            bool is_kept = true;
            int cycle = i.start;
            int row = i.operands[0].row;
            for (std::size_t l = 0; l < 3; ++l) {
              is_kept = is_kept && ((i.operands[0].held >> l & 1U) == 0 || at[l] == i.count[l] - 1);
              cycle += at[l] * i.period[l];
              row += at[l] * i.operands[0].row_stride[l];
            }
            if (is_kept) {
              visit(cycle, row);
            }
          }
        }
      }
    };
    for (std::int32_t i = 0; i < outputs; ++i) {
      const Instruction& out = text.instructions[static_cast<std::size_t>(i)];
      each(out, [&](int cycle, int row) { values.emplace_back(cycle + 5, row, out.operands[0].reach); });
    }
    // Two values in one register are another proof's breach; such cases say nothing here.
    bool is_clash = false;
    for (std::size_t a = 0; a < values.size(); ++a) {
      for (std::size_t b = 0; b < a; ++b) {
        is_clash = is_clash || std::get<0>(values[a]) == std::get<0>(values[b]);
      }
    }
    if (is_clash) {
      continue;
    }
    bool all_found = true;
    const int position = 1 + in.index / 4;
    each(in, [&](int cycle, int row) {
      all_found = all_found && std::any_of(values.begin(), values.end(), [&](const auto& value) {
                    return std::get<0>(value) == cycle - position && std::get<1>(value) == row &&
                           std::get<2>(value) >= position;
                  });
    });
    const proof::TextFacts facts = proof::gather_facts(program, text);
    proof::Findings findings;
    proof::prove_values(facts, proof::LaneMap(program.chip), findings);
    ASSERT_EQ(findings.is_empty(), all_found) << "seed " << seed;
    found += all_found ? 1 : 0;
  }
  EXPECT_GT(found, 300);
}

/// What a link does when iterations start at these cycles: the wait of each vector in the near queue, in order of
/// pushes.
struct Served {
  std::int64_t push, start;
  std::size_t vector;
};
std::vector<Served> serve(const std::vector<std::int64_t>& pushes, const std::vector<std::int64_t>& starts) {
  std::vector<Served> all;
  for (const std::int64_t start : starts) {
    for (std::size_t i = 0; i < pushes.size(); ++i) {
      all.push_back({start + pushes[i], 0, i});
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const Served& a, const Served& b) { return a.push < b.push; });
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].start = i == 0 ? all[i].push : std::max(all[i].push, all[i - 1].start + 24);
  }
  return all;
}

TEST(VerifyOracleProperty, AVectorLeavesAsIfItsIterationWereAloneWhereQueuesSaySo) {
  std::int32_t legal = 0;
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    Random pick(seed);
    ClusterProgram program = empty_program();
    const std::int32_t interval = pick(30, 300);
    program.initiation_interval = program.plan.initiation_interval = interval;
    node::ChipProgram& text = program.texts[0];
    std::vector<std::int64_t> pushes;
    const std::int32_t count = pick(1, 5);
    for (std::int32_t i = 0; i < count; ++i) {
      const std::int32_t push = pick(0, 200);
      pushes.push_back(push);
      text.instructions.push_back(instruction(Opcode::kSend, push, 0, 0, {operand(kIn, kOutward, 0, 1, kScratch, 0)}));
    }
    text.transfers.push_back({.name = "x", .layer_slot = 0, .vectors = count});
    std::sort(pushes.begin(), pushes.end());
    bool is_alone = std::adjacent_find(pushes.begin(), pushes.end()) == pushes.end();
    const std::vector<Served> alone = serve(pushes, {0});
    const auto check = [&](const std::vector<std::int64_t>& starts) {
      const std::vector<Served> all = serve(pushes, starts);
      for (const Served& each : all) {
        is_alone = is_alone && each.start - each.push == alone[each.vector].start - alone[each.vector].push;
        const auto waiting = std::count_if(all.begin(), all.end(), [&](const Served& other) {
          return other.push <= each.push && other.start > each.push;
        });
        is_alone = is_alone && waiting <= 4;
        const auto pushed =
            std::count_if(all.begin(), all.end(), [&](const Served& other) { return other.push == each.push; });
        is_alone = is_alone && pushed == 1;
      }
    };
    for (int m = 1; m <= 400 / interval + 1; ++m) {
      check({0, std::int64_t{m} * interval});
    }
    std::vector<std::int64_t> many;
    for (int k = 0; k < 30; ++k) {
      many.push_back(std::int64_t{k} * interval);
    }
    check(many);
    const proof::TextFacts facts = proof::gather_facts(program, text);
    const proof::LaneMap map(program.chip);
    proof::Findings findings;
    proof::LaneTable table;
    proof::claim_units(facts, map, table);
    static_cast<void>(proof::prove_link_ends(facts, map, table, findings));
    proof::prove_claims(facts, map, table, findings);
    ASSERT_EQ(findings.is_empty(), is_alone) << "seed " << seed;
    legal += is_alone ? 1 : 0;
  }
  EXPECT_GT(legal, 300);
  EXPECT_LT(legal, 1700);
}

}  // namespace
}  // namespace lpu::scheduler
