#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lpu/cluster/run_program.hpp"
#include "lpu/interconnect/in_process_transport.hpp"
#include "lpu/node/chip_snapshot.hpp"
#include "lpu/scheduler/cluster_program.hpp"
#include "state_folder.hpp"

namespace lpu::cluster {

/// A chip of a run that was stopped between two tokens.
struct SavedChip {
  std::int32_t chip = -1;
  node::ChipSnapshot state;
  std::vector<interconnect::StoredMessage> messages;  ///< that had come, or were on their way to it
};

/// How far a run was when its state was saved, and what it had taken until then.
struct SavedRun {
  std::uint64_t schedule_digest = 0;
  std::int32_t users = 0;
  std::int64_t token = 0;  ///< nothing from its first cycle on was executed
  std::int64_t messages_in_process = 0;
  std::int64_t messages_between_ranks = 0;
  std::int64_t bytes_between_ranks = 0;
  double wall_s = 0;
  std::vector<SavedChip> chips;  ///< by id, ascending
};

/// Writes the chips of one rank.
/// @throws node::EnvironmentError  disk full and the like
[[nodiscard]] SavedPart save_part(const SaveOrder& order,
                                  std::int32_t rank,
                                  std::uint64_t schedule_digest,
                                  const std::vector<SavedChip>& chips);
/// Makes the parts a state, and removes what earlier states left.
/// @param run  its chips are those of the parts
void save_manifest(const SaveOrder& order, const SavedRun& run, const std::vector<SavedPart>& parts);

/// Reads a state and judges it against the program and the run that is to go on.
/// @throws node::InputError  no state; a file that is missing, damaged or another run's; a state of another program, of
///                           other users or of no fewer tokens than are asked for
[[nodiscard]] SavedRun load_saved_run(const std::filesystem::path& folder,
                                      const scheduler::ClusterProgram& program,
                                      const RunOptions& options);

/// Chips as bytes, for another rank.
[[nodiscard]] std::string to_bytes(const std::vector<SavedChip>& chips);
/// @throws node::InputError  bytes that are no chips
[[nodiscard]] std::vector<SavedChip> chips_from_bytes(const std::string& bytes, const std::string& name);

}  // namespace lpu::cluster
