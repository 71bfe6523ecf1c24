#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "bounds.hpp"
#include "lpu/interconnect/topology.hpp"
#include "lpu/node/expand.hpp"
#include "lpu/scheduler/compile.hpp"
#include "lpu/scheduler/verify.hpp"
#include "placement.hpp"
#include "temporary_folder.hpp"
#include "test_chip.hpp"

// A loaded schedule that a reader can check by hand: one layer, two stages of one chip each, two users one interval
// apart. Its reservation table, rows = resources, columns = cycles modulo the interval, is
// tests/golden/reservation_table.txt (written anew where LPU_WRITE_GOLDEN is set).

namespace lpu::scheduler {
namespace {

/// One head of 16 values, 32 values everywhere else: every matrix is one tile.
CompileRequest two_stages() {
  CompileRequest out;
  out.chip = test::tsp_v1();
  out.model = {.name = "two stages",
               .hidden = 32,
               .layers = 1,
               .heads = 1,
               .kv_heads = 1,
               .head_dim = 16,
               .ffn = 32,
               .vocabulary = 32,
               .max_position = 16,
               .rope = {}};
  out.chips = 2;
  out.tensor_parallel = 1;
  out.pipeline_parallel = 2;
  out.context = 16;
  out.users = 2;
  out.objective = Objective::kThroughput;
  return out;
}

/// One character a cycle: what the resource does for whom, '.' where it is free.
class ReservationTable {
 public:
  ReservationTable(const ClusterProgram& program, std::int32_t chip) : program_(program) {
    const node::ChipBinding& binding = program.bindings[static_cast<std::size_t>(chip)];
    const node::ChipProgram& text = program.texts[static_cast<std::size_t>(binding.text)];
    std::map<std::int32_t, std::vector<std::pair<std::int64_t, char>>> pushes;
    for (const node::Cell& cell : node::expand(text, program.chip, program.plan.context)) {
      const char part = letter(text.instructions[static_cast<std::size_t>(cell.instruction)]);
      if (cell.resource.kind == node::ResourceKind::kLinkPush) {
        pushes[cell.resource.unit].emplace_back(cell.cycle, part);
      } else if (const std::string row = row_name(cell.resource); !row.empty()) {
        mark(row, cell.cycle, part);
      }
    }
    // A vector leaves its queue when the link is free, and has it for 24 cycles.
    const std::int64_t service = program.chip.link_serialisation.count();
    for (auto& [link, queue] : pushes) {
      std::sort(queue.begin(), queue.end());
      std::int64_t free_at = 0;
      for (const auto& [push, part] : queue) {
        const std::int64_t start = std::max(push, free_at);
        free_at = start + service;
        for (std::int64_t cycle = start; cycle < free_at; ++cycle) {
          mark("link " + std::to_string(link) + " sends", cycle, part);
        }
      }
    }
  }

  [[nodiscard]] const std::map<std::string, std::string>& rows() const { return rows_; }
  /// Cycles of an interval in which the resource is taken; 0 for a row that is not there.
  [[nodiscard]] std::int64_t taken(const std::string& row) const {
    const auto found = rows_.find(row);
    return found == rows_.end() ? 0
                                : static_cast<std::int64_t>(found->second.size()) -
                                      std::count(found->second.begin(), found->second.end(), '.');
  }
  /// No resource is taken twice in a cycle of the interval.
  [[nodiscard]] bool is_free_of_conflicts() const { return is_free_of_conflicts_; }

  [[nodiscard]] std::string text() const {
    std::string out;
    for (const auto& [name, cycles] : rows_) {
      out += name + std::string(kNames - name.size(), ' ') + cycles + "\n";
    }
    return out;
  }
  static constexpr std::size_t kNames = 16;  ///< columns of the rows' names

 private:
  /// By the part of the layer budget.
  static char letter(const node::Instruction& instruction) {
    static constexpr std::array<char, 11> kLetters = {'i', 'c', 'f', 'v', 's', 'a', 'r', 'w', '-', 'h', 'e'};
    return kLetters.at(instruction.operator_part);
  }
  static std::string two_digits(std::int32_t number) { return (number < 10 ? " " : "") + std::to_string(number); }

  [[nodiscard]] std::string row_name(const node::Resource& resource) const {
    const auto plane = [&](const std::string& verb) {
      const std::int32_t planes = program_.chip.mxm_planes_per_hemisphere;
      return std::string("MXM ") + (resource.unit < planes ? "W" : "E") + std::to_string(resource.unit % planes) + " " +
             verb;
    };
    switch (resource.kind) {
      case node::ResourceKind::kInstall:
        return plane("install");
      case node::ResourceKind::kCompute:
        return plane("compute");
      case node::ResourceKind::kDrain:
        return plane("drain");
      case node::ResourceKind::kAlu:
        return "VXM ALU " + two_digits(resource.unit);
      case node::ResourceKind::kSxm:
        return std::string("SXM ") + (resource.unit == 0 ? "W" : "E");
      case node::ResourceKind::kLinkTake:
        return "link " + std::to_string(resource.unit) + " takes";
      case node::ResourceKind::kReadPort:
      case node::ResourceKind::kWritePort:
      case node::ResourceKind::kBank:
      case node::ResourceKind::kStreamRegister:
      case node::ResourceKind::kSxmInputs:
      case node::ResourceKind::kSxmOutputs:
      case node::ResourceKind::kLinkPush:
      case node::ResourceKind::kQueue:
      case node::ResourceKind::kFetch:
        return {};  // SRAM, streams and queues: verify() and the expander judge them, a page has no room
    }
    return {};
  }

  void mark(const std::string& row, std::int64_t cycle, char part) {
    const std::int64_t interval = program_.initiation_interval;
    std::string& cycles = rows_.try_emplace(row, std::string(static_cast<std::size_t>(interval), '.')).first->second;
    char& at = cycles[static_cast<std::size_t>((cycle % interval + interval) % interval)];
    is_free_of_conflicts_ = is_free_of_conflicts_ && at == '.';
    at = part;
  }

  const ClusterProgram& program_;
  std::map<std::string, std::string> rows_;
  bool is_free_of_conflicts_ = true;
};

std::string ruler(std::int64_t interval) {
  std::string tens(ReservationTable::kNames, ' ');
  std::string ones = "cycle" + std::string(ReservationTable::kNames - 5, ' ');
  for (std::int64_t cycle = 0; cycle < interval; ++cycle) {
    tens += cycle % 10 == 0 ? std::to_string(cycle / 10 % 10) : " ";
    ones += std::to_string(cycle % 10);
  }
  return tens + "\n" + ones + "\n";
}

std::string page(const ClusterProgram& program) {
  std::string out =
      "Reservation table, cycles modulo the interval of " + std::to_string(program.initiation_interval) +
      ".\n"
      "i install, c activation, f fill and drain, v vector work, s lanes, a attention, h stage to stage,\n"
      "e embedding, head and the token's way back, . free. A cell is taken by one user after the other.\n";
  for (const node::ChipBinding& binding : program.bindings) {
    out += "\nchip " + std::to_string(binding.chip) + ", stage " + std::to_string(binding.stage) +
           ", starts in cycle " + std::to_string(binding.offset) + " of a token\n" +
           ruler(program.initiation_interval) + ReservationTable(program, binding.chip).text();
  }
  return out;
}

class ReservationGolden : public testing::Test {
 protected:
  static void SetUpTestSuite() { compiled_ = compile(two_stages()); }
  static const ClusterProgram& program() { return compiled_.program; }
  inline static Compiled compiled_;
};

TEST_F(ReservationGolden, TheTableIsTheOneThatWasChecked) {
  const std::string golden = std::string(LPU_GOLDEN "/") + "reservation_table.txt";
  const std::string table = page(program());
  if (std::getenv("LPU_WRITE_GOLDEN") != nullptr) {  // NOLINT(concurrency-mt-unsafe): one thread
    test::write_bytes(golden, table);
  }
  EXPECT_EQ(table, test::read_bytes(golden));
}

TEST_F(ReservationGolden, TheIntervalIsTheCablesTwoVectors) {
  // From stage to stage goes the residual: 32 values of 2 bytes, that is 2 vectors of one byte of each value; a link
  // takes a vector in 24 cycles, and the two chips share one cable each way. No other resource comes near:
  // - installs, per plane: 16 columns a cycle. q, k and v have 48 columns, 12 of them on each of 4 planes, one cycle;
  //   the output 32, one; K^T and V of 16 positions one each: 4. Second stage: gate and up, down, head: 3.
  // - vectors into the MXM: a token has one row of q, k, v; of the output; of the query; and of the probabilities: 4.
  const CompileRequest request = two_stages();
  const ComputePath path = make_path(request.compute, request.kv, request.chip);
  const Shard shard = make_shard(request.model, 1, request.chip);
  const std::vector<Stage> stages = cut_stages(request, shard, path, 2);
  ASSERT_EQ(stages[0], (Stage{.first_block = 0, .blocks = 1, .has_embedding = true}));
  ASSERT_EQ(stages[1], (Stage{.first_block = 1, .blocks = 2, .has_head = true}));
  const interconnect::Topology topology = interconnect::make_topology(request.chip, 2);
  const auto groups = place_groups(topology, 1, 2);
  const HopPlan hop = plan_hop(topology, groups[0], groups[1]);
  std::map<std::string, std::int64_t> first;
  std::map<std::string, std::int64_t> second;
  for (const ResourceUse& use : resource_uses(request, shard, path, stages[0], {}, hop)) {
    first[use.resource] = use.cycles;
  }
  for (const ResourceUse& use : resource_uses(request, shard, path, stages[1], hop, {})) {
    second[use.resource] = use.cycles;
  }
  EXPECT_EQ(first["cable"], 2 * 24);
  EXPECT_EQ(first["install port"], 4);
  EXPECT_EQ(first["MXM compute"], 4);
  EXPECT_EQ(second["cable"], 2 * 24);
  EXPECT_EQ(second["install port"], 3);
  EXPECT_EQ(second["MXM compute"], 3);
  EXPECT_EQ(compiled_.report.ii_lower_bound, 48);
  EXPECT_EQ(program().initiation_interval, 48);
}

TEST_F(ReservationGolden, TheTableHoldsWhatTheHandCounts) {
  const ReservationTable first(program(), 0);
  const ReservationTable second(program(), 1);
  EXPECT_TRUE(first.is_free_of_conflicts());
  EXPECT_TRUE(second.is_free_of_conflicts());
  // One install more than the bound counts: V's 16 columns lie in a stripe of even height, whose second row is padding.
  for (const char* plane : {"W0", "W1", "E0", "E1"}) {
    EXPECT_EQ(first.taken(std::string("MXM ") + plane + " install"), 4 + 1) << plane;
    EXPECT_EQ(second.taken(std::string("MXM ") + plane + " install"), 3) << plane;
    EXPECT_EQ(first.taken(std::string("MXM ") + plane + " compute"), 4) << plane;
    EXPECT_EQ(second.taken(std::string("MXM ") + plane + " compute"), 3) << plane;
  }
  // Both directions of the cable: link 0 joins neighbours. The residual has all of one, the token half of the other.
  EXPECT_EQ(first.taken("link 0 sends"), 48);
  EXPECT_EQ(second.taken("link 0 takes"), 2);
  EXPECT_EQ(second.taken("link 0 sends"), 24);
  EXPECT_EQ(first.taken("link 0 takes"), 1);
}

TEST_F(ReservationGolden, TwoUsersAreOneIntervalApartAndNeverMeet) {
  const node::IterationPlan plan = with_users(program(), 2);
  EXPECT_EQ(plan.groups, 2);
  EXPECT_EQ(plan.start(1) - plan.start(0), 48);
  // A user's next token waits for the one before it: two users leave the machine mostly idle.
  EXPECT_EQ(plan.start(2) - plan.start(0), plan.token_period);
  EXPECT_GE(plan.token_period, program().token_latency);
  EXPECT_TRUE(verify(program()).empty());
  // Both users' first two tokens, cell by cell in the chips' own cycles.
  for (const node::ChipBinding& binding : program().bindings) {
    const node::ChipProgram& text = program().texts[static_cast<std::size_t>(binding.text)];
    std::set<std::tuple<node::Resource, std::int64_t, std::int32_t>> taken;
    for (const node::Cell& cell : node::expand(text, program().chip, program().plan.context)) {
      if (node::capacity(cell.resource.kind, program().chip) > 1 || cell.instance < 0) {
        continue;
      }
      for (std::int64_t k = 0; k < 4; ++k) {
        const auto [at, is_new] = taken.insert({cell.resource, plan.start(k) + cell.cycle, cell.instruction});
        const auto after = std::next(at);
        const bool is_shared =
            after != taken.end() && std::get<0>(*after) == cell.resource && std::get<1>(*after) == std::get<1>(*at);
        EXPECT_FALSE(is_shared) << "chip " << binding.chip << ", instruction " << cell.instruction;
      }
    }
  }
}

}  // namespace
}  // namespace lpu::scheduler
