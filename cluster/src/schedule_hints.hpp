#pragma once
#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "lpu/scheduler/compile.hpp"

namespace lpu::cluster {

/// What searches for objective throughput found for a model, as the program ships it (cluster/hints); none: empty.
[[nodiscard]] std::vector<scheduler::ScheduleHint> shipped_hints(const std::string& model);

/// A hint in the form of cluster/hints.
[[nodiscard]] boost::json::object to_json(const scheduler::ScheduleHint& hint);

}  // namespace lpu::cluster
