#pragma once
#include <cstdint>
#include <string>

#include <boost/json.hpp>

#include "configuration.hpp"
#include "lpu/scheduler/compile.hpp"

namespace lpu::cluster {

/// What a number of users gets out of a program.
struct Service {
  std::int32_t users = 0;
  std::int64_t token_period = 0;  ///< cycles between two tokens of one user
  double tokens_per_second_per_user = 0;
  double tokens_per_second = 0;
};
[[nodiscard]] Service serve(const scheduler::ClusterProgram& program, std::int32_t users);

/// Figures of `plan`, with the keys that others build on.
void add_plan(boost::json::object& out,
              const scheduler::CompileRequest& request,
              const scheduler::Compiled& compiled,
              std::int32_t smallest_chips);

/// The same for people: a page of at most 80 columns.
[[nodiscard]] std::string plan_text(const Configuration& configuration,
                                    const scheduler::Compiled& compiled,
                                    std::int32_t smallest_chips);
/// Layer budget by part, the token's way, and what binds.
[[nodiscard]] std::string explain_text(const scheduler::CompileRequest& request, const scheduler::Compiled& compiled);

/// "870", "24,312", "9.87".
[[nodiscard]] std::string rate_text(double per_second);

}  // namespace lpu::cluster
