#include "ranks_report.hpp"

#include <algorithm>
#include <vector>

#include "lpu/node/error.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::cluster {

using node::InputError;

namespace {

std::string transport(const RunResult& result) {
  if (result.ranks == 1) {
    return "in process";
  }
  const std::string same_host = result.uses_shared_memory ? "shared memory" : "MPI";
  return result.hosts > 1 && result.uses_shared_memory ? same_host + ", MPI between hosts" : same_host;
}

}  // namespace

interconnect::Carrier parse_carrier(const std::string& text) {
  static const std::vector<std::string> kKnown = {"auto", "shm", "mpi"};
  const auto found = std::find(kKnown.begin(), kKnown.end(), text);
  if (found == kKnown.end()) {
    throw InputError("--transport: found " + text + "; expected a carrier of vectors between ranks" +
                     node::known_values(text, kKnown));
  }
  return static_cast<interconnect::Carrier>(found - kKnown.begin());
}

void add_ranks(boost::json::object& out, const RunResult& result) {
  out["ranks"] = result.ranks;
  out["ranks_idle"] = result.ranks_idle;
  out["hosts"] = result.hosts;
  out["transport"] = transport(result);
  out["sleeps"] = result.sleeps;
  out["wake_ups"] = result.wake_ups;
  out["memory_bytes"] = result.memory_bytes;
  out["memory_bytes_per_rank_max"] = result.memory_bytes_max;
}

std::string percent(double share) {
  return node::fixed(100 * share, 1) + " %";
}

std::string ranks_text(const RunResult& result) {
  std::string out = std::to_string(result.ranks);
  if (result.ranks > 1) {
    out += " on " + std::to_string(result.hosts) + (result.hosts == 1 ? " host" : " hosts") + ", " + transport(result);
  }
  if (result.ranks_idle > 0) {
    out += "; " + std::to_string(result.ranks_idle) + " idle (no chip left for them)";
  }
  return out;
}

}  // namespace lpu::cluster
