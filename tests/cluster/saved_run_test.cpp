#include "saved_run.hpp"

#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep.hpp"
#include "lpu/node/error.hpp"
#include "lpu/scheduler/compile.hpp"
#include "runner.hpp"
#include "small_request.hpp"

// A cut between two tokens, at every token there is, changes nothing that an execution leaves: also where micro-batches
// fill the pipeline, so that on every chip iterations, and on every link vectors, are under way at the cut.

namespace lpu::cluster {
namespace {

constexpr std::int64_t kTokens = 6;

std::vector<ChipOutcome> outcomes(Runner& runner, const RunOptions& options) {
  EXPECT_EQ(execute(runner, options, nullptr), 0);
  return runner.outcomes();
}

/// One line a chip with all that it left, so that a difference names the chip.
std::vector<std::string> lines(const std::vector<ChipOutcome>& chips) {
  std::vector<std::string> out;
  for (const ChipOutcome& chip : chips) {
    const node::ChipMeasures& m = chip.measures;
    std::string line = "chip " + std::to_string(chip.chip) + ":";
    for (const std::int64_t value : {m.iterations,
                                     m.arrivals_checked,
                                     m.transfers,
                                     m.vectors,
                                     m.bursts,
                                     m.end,
                                     m.latency,
                                     m.interval_min,
                                     m.interval_max,
                                     m.period_min,
                                     m.period_max,
                                     m.units.installs,
                                     m.units.reads,
                                     m.units.sends,
                                     m.units.receives}) {
      line += " " + std::to_string(value);
    }
    line += " links " + std::to_string(std::accumulate(m.link_busy.begin(), m.link_busy.end(), std::int64_t{0}));
    out.push_back(line + " fold " + std::to_string(chip.fold));
  }
  return out;
}

TEST(SavedRun, EveryCutGoesOnToTheSameEnd) {
  for (const scheduler::CompileRequest& request : {test::small_request(), test::small_mixture_request()}) {
    const scheduler::ClusterProgram program = scheduler::compile(request).program;
    const std::uint64_t digest = scheduler::schedule_digest(program);
    for (const std::int32_t users : {1, 3, 4}) {
      RunOptions options;
      options.tokens = kTokens;
      options.users = users;
      Runner whole(program, digest, options);
      const std::vector<std::string> expected = lines(outcomes(whole, options));
      std::size_t under_way = 0;
      for (std::int64_t token = 1; token < kTokens; ++token) {
        Runner first(program, digest, options);
        first.stop_before(token);
        static_cast<void>(outcomes(first, options));
        const std::vector<SavedChip> saved = chips_from_bytes(to_bytes(first.saved_chips()), "saved");
        for (const SavedChip& chip : saved) {
          under_way += chip.state.flights.size();
        }
        Runner second(program, digest, options, {}, nullptr, saved);
        EXPECT_EQ(lines(outcomes(second, options)), expected)
            << request.model.name << ", " << users << " users, cut before token " << token;
      }
      EXPECT_EQ(under_way > 0, users > 2) << "one micro-batch leaves nothing under way, two do";
    }
  }
}

TEST(SavedRun, AStateThatTheProgramCannotHaveIsRefused) {
  const scheduler::ClusterProgram program = scheduler::compile(test::small_request()).program;
  RunOptions options;
  options.tokens = kTokens;
  options.users = 4;
  Runner first(program, 1, options);
  first.stop_before(2);
  static_cast<void>(outcomes(first, options));
  const std::vector<SavedChip> saved = first.saved_chips();
  const auto refused = [&](auto&& change) {
    std::vector<SavedChip> bad = saved;
    change(bad[1].state);
    EXPECT_THROW(Runner(program, 1, options, {}, nullptr, bad), node::InputError);
  };
  refused([](node::ChipSnapshot& state) { state.free_at.pop_back(); });
  refused([](node::ChipSnapshot& state) { state.group_end.push_back(0); });
  refused([](node::ChipSnapshot& state) { state.next_iteration = 1'000'000; });
  refused([](node::ChipSnapshot& state) { state.flights.at(0).next_event = 1U << 30U; });
  refused([](node::ChipSnapshot& state) { state.flights.at(0).writes.push_back(0); });
  refused([](node::ChipSnapshot& state) {
    state.transits.push_back({.iteration = state.flights.at(0).iteration, .link = 0, .burst = 1U << 30U});
  });
  EXPECT_THROW(static_cast<void>(chips_from_bytes(to_bytes(saved).substr(0, 100), "saved")), node::InputError);
}

}  // namespace
}  // namespace lpu::cluster
