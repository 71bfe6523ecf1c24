#pragma once
#include <span>

#include "lpu/node/expand.hpp"
#include "lpu/scheduler/cluster_program.hpp"
#include "verify_facts.hpp"
#include "verify_streams.hpp"
#include "verify_units.hpp"

namespace lpu::test {

/// The verdict of burst arithmetic on the units, streams and fetches of a program's first text.
inline bool bursts_say_free(const scheduler::ClusterProgram& program) {
  namespace proof = scheduler::proof;
  const proof::TextFacts facts = proof::gather_facts(program, program.texts[0]);
  const proof::LaneMap map(program.chip);
  proof::LaneTable table;
  proof::Findings findings;
  proof::claim_units(facts, map, table);
  proof::claim_streams(facts, map, table);
  proof::prove_claims(facts, map, table, findings);
  proof::prove_sxm_width(facts, findings);
  proof::prove_fetch(facts, findings);
  return findings.is_empty();
}

/// The reference expander's.
inline bool cells_say_free(const scheduler::ClusterProgram& program, std::span<const node::Cell> cells) {
  return !node::find_collision(cells, program.initiation_interval, program.chip);
}

}  // namespace lpu::test
