#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>

namespace lpu::node {

/// Exit codes of the program; the only table of them.
enum class ExitCode : int {
  kDone = 0,
  kInput = 2,              ///< flag, config, checkpoint, program file, trace, a model that does not fit
  kScheduleViolation = 3,  ///< or deadlock
  kEnvironment = 4,        ///< disk full, memory, lost peer, MPI
  kBug = 70,
  kStateSaved = 75,
  kInterrupted = 130,
  kTerminated = 143,
};

/// The user's input is at fault. The message names file and field, what was found, what would be right.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Disk, memory, a peer or MPI is at fault.
class EnvironmentError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Where and why a program breaks the rules of the chip.
struct Violation {
  std::int32_t chip = -1;
  std::int64_t cycle = -1;        ///< -1: the fault has no cycle (a budget, a missing transfer)
  std::int32_t instruction = -1;  ///< index in the chip's program text; -1: none
  std::string reason;
  [[nodiscard]] std::string message() const;  ///< one line: "chip 3, cycle 1042, instruction 17: …"
};

/// A schedule that is not legal, or a run that left its schedule.
class ScheduleViolation : public std::runtime_error {
 public:
  explicit ScheduleViolation(Violation violation);
  [[nodiscard]] const Violation& violation() const { return violation_; }

 private:
  Violation violation_;
};

/// A broken invariant of ours (exit 70); thrown by LPU_CHECK, which is on in release builds too.
class BugError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void fail_check(const char* condition, const char* file, int line, const std::string& detail);

}  // namespace lpu::node

#define LPU_CHECK(condition, detail)                                                \
  do {                                                                              \
    if (!(condition)) {                                                             \
      ::lpu::node::fail_check(#condition, __FILE__, __LINE__, std::string(detail)); \
    }                                                                               \
  } while (false)
