#include "lpu/node/error.hpp"

namespace lpu::node {

std::string Violation::message() const {
  std::string out = chip < 0 ? std::string("cluster") : "chip " + std::to_string(chip);
  if (cycle >= 0) {
    out += ", cycle " + std::to_string(cycle);
  }
  if (instruction >= 0) {
    out += ", instruction " + std::to_string(instruction);
  }
  return out + ": " + reason;
}

ScheduleViolation::ScheduleViolation(Violation violation)
    : std::runtime_error(violation.message()), violation_(std::move(violation)) {}

void fail_check(const char* condition, const char* file, int line, const std::string& detail) {
  throw BugError(std::string(file) + ":" + std::to_string(line) + ": " + condition +
                 (detail.empty() ? "" : ": " + detail));
}

}  // namespace lpu::node
