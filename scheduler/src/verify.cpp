#include "lpu/scheduler/verify.hpp"

#include <algorithm>
#include <memory>

#include "lpu/scheduler/well_formed.hpp"
#include "verify_facts.hpp"
#include "verify_links.hpp"
#include "verify_memory.hpp"
#include "verify_mxm.hpp"
#include "verify_shape.hpp"
#include "verify_streams.hpp"
#include "verify_token.hpp"
#include "verify_units.hpp"
#include "verify_users.hpp"

namespace lpu::scheduler {
namespace {

using proof::Findings;
using proof::TextProof;

/// All that one text must keep by itself. Null when its instructions are not even of a shape that its units serve.
std::unique_ptr<TextProof> prove_text(const ClusterProgram& program,
                                      const node::ChipProgram& text,
                                      Findings& findings) {
  auto out = std::make_unique<TextProof>(TextProof{proof::gather_facts(program, text), {}});
  const proof::TextFacts& facts = out->facts;
  if (!proof::prove_shapes(facts, findings)) {
    return nullptr;
  }
  const proof::LaneMap map(program.chip);
  proof::LaneTable table;
  proof::claim_units(facts, map, table);
  proof::claim_streams(facts, map, table);
  proof::prove_mxm(facts, map, table, findings);
  out->links = proof::prove_link_ends(facts, map, table, findings);
  proof::prove_claims(facts, map, table, findings);
  proof::prove_sxm_width(facts, findings);
  proof::prove_fetch(facts, findings);
  proof::prove_queues(facts, findings);
  proof::prove_text_size(facts, findings);
  proof::prove_rows(facts, findings);
  proof::prove_sources(facts, findings);
  proof::prove_operations(facts, findings);
  proof::prove_values(facts, map, findings);
  proof::RowIndex index;
  if (index.build(facts, findings)) {
    proof::prove_places(facts, index, proof::prove_accesses(facts, index, findings), findings);
  }
  return out;
}

/// Figures of the clockwork that decide when iterations may overlap.
void prove_clockwork(const ClusterProgram& program, const std::vector<std::int64_t>& ends, Findings& findings) {
  for (const node::ChipBinding& chip : program.bindings) {
    if (chip.text < 0) {
      continue;
    }
    const std::int64_t makespan = program.texts[static_cast<std::size_t>(chip.text)].makespan;
    if (makespan > program.busy_span) {
      findings.add_at(chip.chip,
                      -1,
                      -1,
                      "makespan of " + std::to_string(makespan) + " cycles; the program's busy span is " +
                          std::to_string(program.busy_span));
    }
    const std::int64_t end = chip.offset + ends[static_cast<std::size_t>(chip.text)];
    if (end > program.token_latency) {
      findings.add_at(chip.chip,
                      -1,
                      -1,
                      "is at work until cycle " + std::to_string(end) + " of a token; the program's token latency is " +
                          std::to_string(program.token_latency));
    }
  }
}

}  // namespace

std::vector<node::Violation> verify(const ClusterProgram& program, std::size_t most) {
  check_well_formed(program);
  proof::check_limits(program);
  Findings findings;
  std::vector<std::unique_ptr<TextProof>> owned(program.texts.size());
  std::vector<const TextProof*> texts(program.texts.size(), nullptr);
  std::vector<std::int64_t> ends(program.texts.size(), 0);
  std::vector<bool> is_proved(program.texts.size(), false);
  for (const node::ChipBinding& chip : program.bindings) {
    const auto text = static_cast<std::size_t>(std::max(chip.text, 0));
    if (chip.text < 0 || is_proved[text]) {
      continue;
    }
    is_proved[text] = true;
    findings.set_chip(chip.chip);
    owned[text] = prove_text(program, program.texts[text], findings);
    texts[text] = owned[text].get();
    if (owned[text] != nullptr) {
      ends[text] = proof::prove_makespan(owned[text]->facts, findings);
    }
  }
  proof::prove_transfers(program, texts, findings);
  proof::prove_token_loop(program, texts, findings);
  proof::prove_users(program, texts, findings);
  prove_clockwork(program, ends, findings);
  return findings.sorted(most);
}

}  // namespace lpu::scheduler
