#include "version.hpp"

#include <array>

#include <mpi.h>

#include "build_info.hpp"

namespace lpu::cluster {

std::string version() {
  return kVersion;
}
std::string commit() {
  return kCommit;
}
std::string compiler() {
  return kCompiler;
}

std::string mpi_library() {
  // One of the few calls that MPI allows before MPI_Init.
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string all(text.data(), static_cast<std::size_t>(length));
  return all.substr(0, all.find_first_of(",\n"));
}

}  // namespace lpu::cluster
