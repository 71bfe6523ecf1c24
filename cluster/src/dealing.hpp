#pragma once
#include <cstdint>
#include <vector>

#include "lpu/interconnect/rank_exchange.hpp"
#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::cluster {

/// Which rank runs which chip.
struct Dealing {
  std::vector<std::int32_t> rank_of;  ///< per chip; -1: the chip holds no part of the model
  std::int32_t ranks_used = 0;        ///< the first so many
};

/// Deals chips to ranks, in the order of stages: whole stages where there are not more ranks than stages, else slices
/// of one stage. Neighbours on the wires are neighbours among ranks, which launchers place on one host.
[[nodiscard]] Dealing deal(const scheduler::ClusterProgram& program, std::int32_t ranks);

/// The program with the texts of one rank's chips alone; the wiring stays whole.
[[nodiscard]] scheduler::ClusterProgram part_of(const scheduler::ClusterProgram& program,
                                                const Dealing& dealing,
                                                std::int32_t rank);

/// Every pair of ranks of which one sends vectors to the other, in (from, to) order, with the most bytes that can be on
/// their way: no chip starts a user's next token before the last one has come back to stage 0, so one iteration of each
/// micro-batch can be under way, and a receiver that nobody waits for may be one iteration behind.
/// @param groups  micro-batches in flight
[[nodiscard]] std::vector<interconnect::PairLoad> pair_loads(const scheduler::ClusterProgram& program,
                                                             const Dealing& dealing,
                                                             std::int32_t groups);

/// The same pairs with room for the numeric plane: vectors with their bytes, and what ranks of the last stage and the
/// first tell rank 0, and it them. A ring that is too small would cost time, and nothing else.
[[nodiscard]] std::vector<interconnect::PairLoad> with_numbers(std::vector<interconnect::PairLoad> pairs,
                                                               const scheduler::ClusterProgram& program,
                                                               const Dealing& dealing);

}  // namespace lpu::cluster
