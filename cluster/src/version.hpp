#pragma once
#include <string>

namespace lpu::cluster {

[[nodiscard]] std::string version();      ///< "0.1.0"
[[nodiscard]] std::string commit();       ///< twelve digits, "+" where the tree differed; "unknown"
[[nodiscard]] std::string compiler();     ///< "GNU 12.2.0"
[[nodiscard]] std::string mpi_library();  ///< first words of what the MPI library says of itself

}  // namespace lpu::cluster
