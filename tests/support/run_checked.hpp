#pragma once
#include <optional>

#include "lpu/cluster/run_program.hpp"
#include "lpu/node/error.hpp"

namespace lpu::test {

/// Runs a program with every rule of node/README.md checked: the breach that stops it, or none.
inline std::optional<node::Violation> run_checked(const scheduler::ClusterProgram& program,
                                                  std::int32_t users,
                                                  std::int64_t tokens) {
  cluster::RunOptions options;
  options.users = users;
  options.tokens = tokens;
  options.checks = cluster::Checks::kAll;
  try {
    (void)cluster::run_program(program, options);
  } catch (const node::ScheduleViolation& violation) {
    return violation.violation();
  }
  return std::nullopt;
}

}  // namespace lpu::test
