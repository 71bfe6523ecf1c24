#pragma once
#include <string>

#include <boost/json.hpp>

#include "lpu/cluster/run_program.hpp"
#include "lpu/interconnect/rank_exchange.hpp"

namespace lpu::cluster {

// What the verbs that run on ranks say of them, in the same words.

/// @throws node::InputError  none of auto, shm, mpi
[[nodiscard]] interconnect::Carrier parse_carrier(const std::string& text);

void add_ranks(boost::json::object& out, const RunResult& result);
[[nodiscard]] std::string ranks_text(const RunResult& result);
/// "12.3 %"
[[nodiscard]] std::string percent(double share);

}  // namespace lpu::cluster
