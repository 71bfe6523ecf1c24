#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lpu/cluster/generate.hpp"
#include "lpu/node/numeric_snapshot.hpp"
#include "lpu/scheduler/checkpoint.hpp"
#include "lpu/scheduler/cluster_program.hpp"
#include "state_folder.hpp"

namespace lpu::cluster {

/// What decides a generation beside its length; nothing else does: not the ranks, not the instruction set.
struct GenerationKey {
  std::uint64_t schedule_digest = 0;
  std::uint64_t checkpoint_digest = 0;  ///< content_digest()
  std::vector<std::int64_t> prompt;
  node::Sampling sampling;
};
/// Reads every weight.
[[nodiscard]] GenerationKey key_of(const scheduler::ClusterProgram& program,
                                   const scheduler::Checkpoint& checkpoint,
                                   const GenerateOptions& options);

/// Answers between two positions.
struct SavedAnswers {
  std::int64_t position = 0;                 ///< nothing of it was executed, all before it is complete
  std::vector<std::int64_t> new_ids;         ///< so far; the last one is the token of the position
  std::vector<float> logits_after_prompt{};  ///< empty: the prompt is not yet through
  std::uint64_t result_digest = 0;           ///< so far
};

struct SavedNumericChip {
  std::int32_t chip = -1;
  node::NumericSnapshot state;
};

/// The numeric plane between two positions, or what one rank has of it.
struct NumericState {
  SavedAnswers answers;
  std::vector<SavedNumericChip> chips;  ///< by id, ascending
};

/// A generation that was stopped. The timing plane is no part of it: it takes about a hundredth of the numeric one's
/// time, and is executed again.
struct SavedGeneration {
  GenerationKey key;
  NumericState numbers;
  std::int64_t vectors = 0;  ///< moved so far
  TimeUse time;
  double numeric_wall_s = 0;
  double wall_s = 0;
};

/// Writes the chips of one rank.
/// @throws node::EnvironmentError  disk full and the like
[[nodiscard]] SavedPart save_numeric_part(const SaveOrder& order,
                                          std::int32_t rank,
                                          std::uint64_t schedule_digest,
                                          const std::vector<SavedNumericChip>& chips);
/// Makes the parts a state, and removes what earlier states left.
/// @param generation  its chips are those of the parts
void save_manifest(const SaveOrder& order, const SavedGeneration& generation, const std::vector<SavedPart>& parts);

/// Reads a state and judges it against the generation that is to go on.
/// @throws node::InputError  no state; a file that is missing, damaged or another generation's; a state of another
///                           program, checkpoint or prompt, of tokens chosen otherwise, or of no fewer of them than are
///                           asked for
[[nodiscard]] SavedGeneration load_saved_generation(const std::filesystem::path& folder,
                                                    const scheduler::ClusterProgram& program,
                                                    const GenerationKey& key,
                                                    const scheduler::Checkpoint& checkpoint,
                                                    const GenerateOptions& options);

/// For another rank.
[[nodiscard]] std::string to_bytes(const NumericState& state);
/// @throws node::InputError  bytes that are no state
[[nodiscard]] NumericState numbers_from_bytes(const std::string& bytes, const std::string& name);

}  // namespace lpu::cluster
