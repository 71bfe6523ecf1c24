#pragma once
#include <cstdint>
#include <string>

#include "lpu/node/error.hpp"

namespace lpu::cluster {

/// What the environment says about how the program was started.
struct Launch {
  bool is_mpi = false;     ///< by a launcher that MPI knows
  bool is_first = true;    ///< the task that may speak for all
  std::int32_t tasks = 1;  ///< that the launcher says it started
  std::string source;      ///< the variable that says so; empty: none does
};
[[nodiscard]] Launch find_launch();

/// A launcher that started several tasks of which each takes itself for the only one.
/// @param ranks  that MPI counts
/// @throws node::EnvironmentError  tells what to do about it
void check_launch(const Launch& launch, std::int32_t ranks);

/// MPI from its start to its end.
class MpiSession {
 public:
  /// @throws node::EnvironmentError  MPI does not start
  MpiSession();
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
  MpiSession(MpiSession&&) = delete;
  MpiSession& operator=(MpiSession&&) = delete;

  [[nodiscard]] static std::int32_t ranks();
  /// Ends all ranks. One rank alone may call it: of two that do at once the first one's line and code are lost.
  [[noreturn]] static void abort(node::ExitCode code);
};

}  // namespace lpu::cluster
