#pragma once
#include <vector>

#include "verify_facts.hpp"
#include "verify_links.hpp"

namespace lpu::scheduler::proof {

/// The way round of a token: where a chip reads by a user's token, the row that the user's iteration before has written
/// is settled, N + 1 cycles after its last write, modulo the shortest period of a user's tokens.
///
/// @param texts  per text; null where no chip runs it or its own proof failed
void prove_token_loop(const ClusterProgram& program, const std::vector<const TextProof*>& texts, Findings& findings);

}  // namespace lpu::scheduler::proof
