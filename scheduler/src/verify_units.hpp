#pragma once
#include "verify_facts.hpp"
#include "verify_lane_map.hpp"
#include "verify_lanes.hpp"

namespace lpu::scheduler::proof {

/// Claim what each instance takes: ports, banks and queues of slices, MXM ports, ALUs, SXM, link ends. The queues of
/// other units start an instruction exactly when the unit issues its first instance: the unit's own cell says as much.
void claim_units(const TextFacts& facts, const LaneMap& map, LaneTable& table);

/// Claim the stream registers that outputs cross, from the unit to their reach.
void claim_streams(const TextFacts& facts, const LaneMap& map, LaneTable& table);

/// Name every cell that is taken twice, in one iteration or by overlapping ones.
void prove_claims(const TextFacts& facts, const LaneMap& map, const LaneTable& table, Findings& findings);

/// Streams that an SXM instruction takes and gives.
void prove_sxm_width(const TextFacts& facts, Findings& findings);

/// Bytes fetched a cycle, and the program text's allocation.
void prove_fetch(const TextFacts& facts, Findings& findings);
void prove_text_size(const TextFacts& facts, Findings& findings);

/// The instruction queues from which a text's bursts start are no more than the chip has.
void prove_queues(const TextFacts& facts, Findings& findings);

}  // namespace lpu::scheduler::proof
