#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// One way to break a legal program.
struct MutationKind {
  std::string_view name;
  std::string_view doc;
};
[[nodiscard]] std::span<const MutationKind> mutation_table();

/// Where a fault can be seen.
struct FaultSite {
  std::int32_t chip = -1;         ///< -1: the cluster
  std::int64_t cycle = -1;        ///< of the iteration on its chip; -1: none
  std::int64_t last_cycle = -1;   ///< where every instance of a burst is wrong: that of the last one; -1: as cycle
  std::int32_t instruction = -1;  ///< in the mutant's text of the chip; -1: none (it is missing, or the fault has none)
};

/// What was planted: for tests and for teaching. Nothing of it is in the program.
struct Planted {
  std::string kind;
  FaultSite site;  ///< the edited place
  std::vector<FaultSite>
      witnesses;            ///< others that take part: the burst collided with, the reader, the other end of a link
  std::string description;  ///< one line, for people
};

struct Mutant {
  ClusterProgram program;
  Planted planted;
};

/// A legal program with exactly one fault, well-formed as before; the seed chooses chip, text and burst.
///
/// The fault is local: a chip that shares its text gets a copy of its own. Every mutant breaks a rule of
/// node/README.md, whatever the seed; that is argued from the rules for each kind (mutate.cpp), never asked of
/// verify().
///
/// @pre  the program is legal
/// @throws node::InputError  an unknown kind (names the nearest), or one that does not apply
[[nodiscard]] Mutant mutate(const ClusterProgram& program, std::string_view kind, std::uint64_t seed);

/// A kind, and whether mutate() has a place for it in one program.
struct MutationOffer {
  std::string_view name;
  std::string_view doc;
  bool applies = true;
};
/// All kinds; `applies` is true for each.
[[nodiscard]] std::vector<MutationOffer> list_mutations();
[[nodiscard]] std::vector<MutationOffer> list_mutations(const ClusterProgram& program);

}  // namespace lpu::scheduler
