#pragma once
#include <algorithm>

#include "lpu/node/error.hpp"
#include "lpu/scheduler/mutate.hpp"

namespace lpu::test {

/// Whether a breach is at one of the sites of what was planted: chip, cycle and instruction, where the site has them.
inline bool is_planted(const node::Violation& found, const scheduler::Planted& planted) {
  const auto is_at = [&](const scheduler::FaultSite& site) {
    return (site.chip < 0 || found.chip == site.chip) &&
           (site.cycle < 0 || (found.cycle >= site.cycle && found.cycle <= std::max(site.cycle, site.last_cycle))) &&
           (site.instruction < 0 || found.instruction == site.instruction);
  };
  return is_at(planted.site) || std::any_of(planted.witnesses.begin(), planted.witnesses.end(), is_at);
}

/// Whether a run that stopped names chip and instruction of one of the sites. Cycles are those of the common clock
/// there. A fault without a place of its own (a budget) is at any; what met the planted burst may name it as the other
/// party.
inline bool is_named(const node::Violation& found, const scheduler::Planted& planted) {
  const auto names = [&](std::int32_t instruction) {
    const std::string text = "instruction " + std::to_string(instruction);
    const std::size_t at = found.reason.find(text);
    return found.instruction == instruction ||
           (at != std::string::npos && found.reason.find_first_of("0123456789", at + text.size()) != at + text.size());
  };
  const auto is_at = [&](const scheduler::FaultSite& site) {
    return (site.chip < 0 || site.chip == found.chip) && (site.instruction < 0 || names(site.instruction)) &&
           (site.chip >= 0 || site.instruction >= 0);
  };
  const bool has_place = planted.site.chip >= 0 || planted.site.instruction >= 0 || !planted.witnesses.empty();
  return !has_place || is_at(planted.site) || std::any_of(planted.witnesses.begin(), planted.witnesses.end(), is_at);
}

}  // namespace lpu::test
