#pragma once
#include <vector>

#include "verify_facts.hpp"
#include "verify_links.hpp"

namespace lpu::scheduler::proof {

/// Users of a micro-batch never meet: values are followed from where a user comes in (the embedding row of its token,
/// its cache) through every instruction, every sum and over the wires. An instance brings together values of one user
/// and of nobody (weights, tables), a cache is appended to with its user's values, and chips that hold the same row
/// agree on whose it is.
///
/// @param texts  per text; null where no chip runs it or its own proof failed
/// @complexity one step per instance that touches a user's value, chip class and stage; none with one user a batch
void prove_users(const ClusterProgram& program, const std::vector<const TextProof*>& texts, Findings& findings);

}  // namespace lpu::scheduler::proof
