#include "mpi_session.hpp"

#include <chrono>
#include <cstdlib>
#include <string_view>
#include <thread>

#include <mpi.h>

namespace lpu::cluster {
namespace {

const char* variable(const char* name) {
  return std::getenv(name);  // NOLINT(concurrency-mt-unsafe): before any thread starts
}

std::int32_t number(const char* name) {
  const char* text = variable(name);
  return text == nullptr ? -1 : static_cast<std::int32_t>(std::strtol(text, nullptr, 10));
}

}  // namespace

Launch find_launch() {
  Launch out;
  for (const char* rank : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (variable(rank) != nullptr) {
      out.is_mpi = std::string_view(rank) != "SLURM_PROCID";
      out.is_first = number(rank) == 0;
      break;
    }
  }
  for (const char* size : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    if (number(size) > 0) {
      out.tasks = number(size);
      out.source = size;
      return out;
    }
  }
  // The size of an allocation says little (a batch script may call the program once), unless this is one task of many.
  if (!out.is_mpi && (!out.is_first || variable("SLURM_STEP_ID") != nullptr) && number("SLURM_NTASKS") > 0) {
    out.tasks = number("SLURM_NTASKS");
    out.source = "SLURM_NTASKS";
  }
  return out;
}

void check_launch(const Launch& launch, std::int32_t ranks) {
  if (ranks == 1 && launch.tasks > 1) {
    throw node::EnvironmentError(
        "MPI: found 1 rank where " + launch.source + " is " + std::to_string(launch.tasks) +
        "; expected as many: under Slurm start with srun --mpi=pmix, or with mpirun, of the MPI "
        "that lpu_cluster --version names");
  }
}

MpiSession::MpiSession() {
  // Ranks outnumber cores: who waits inside MPI (at its start and end) must let others run.
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);  // NOLINT(concurrency-mt-unsafe): before any thread starts
  int provided = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SINGLE, &provided) != MPI_SUCCESS) {
    throw node::EnvironmentError("MPI: found that it does not start; expected MPI_Init to succeed");
  }
}

MpiSession::~MpiSession() {
  MPI_Finalize();
}

std::int32_t MpiSession::ranks() {
  int ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  return ranks;
}

void MpiSession::abort(node::ExitCode code) {
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::this_thread::sleep_for(std::chrono::seconds(10));  // some launchers let the caller go on
  std::_Exit(static_cast<int>(code));
}

}  // namespace lpu::cluster
