#include "verify_appends.hpp"

#include <algorithm>
#include <tuple>

namespace lpu::scheduler::proof {

using node::RegisterKind;

bool AppendProof::append(std::int32_t number, const Run& at) {
  const Instruction& instruction = facts_.text.instructions[static_cast<std::size_t>(number)];
  const std::int64_t cycle = slice_cycle(instruction, facts_.chip, at.cycle, at.index);
  const CacheRow* row = appended(instruction, at);
  if (row == nullptr) {
    findings_.add(cycle,
                  number,
                  "appends " + value_of(facts_, only_operand(instruction).tensor, at.row) + " at " +
                      place_name(instruction, at.index, at.address) +
                      ", where no allocation with that register holds a row of a cache made from it");
    return false;
  }
  const std::vector<CacheOf>& caches = caches_of(instruction.base_register, row->tensor);
  for (const Displacement& position : *facts_.base(instruction).appends) {
    const bool is_held = std::any_of(caches.begin(), caches.end(), [&](const CacheOf& cache) {
      return falls_on(cache, *row, number, at, position);
    });
    if (!is_held) {
      findings_.add(
          cycle,
          number,
          "appends " + value_of(facts_, row->tensor, std::int64_t{row->row} + position.row) + " at " +
              place_name(instruction, at.index + position.slice, std::int64_t{at.address} + position.address) +
              " plus the user's part, where no cache of that user holds the row");
      return false;
    }
  }
  ++instances_[{row->tensor, number}];
  return true;
}

bool AppendProof::falls_on(
    const CacheOf& cache, const CacheRow& row, std::int32_t number, const Run& at, const Displacement& position) {
  const node::Hemisphere hemisphere = facts_.text.instructions[static_cast<std::size_t>(number)].hemisphere;
  return std::all_of(cache.differences.begin(), cache.differences.end(), [&](const Displacement& by) {
    const RowIndex::Range range = index_.find(row.tensor, std::int64_t{row.row} + position.row + by.row);
    const Place place = place_of(
        hemisphere, at.index + position.slice + by.slice, std::int64_t{at.address} + position.address + by.address);
    const std::uint32_t stored = index_.find_in(range, place, cache.image_class);
    if (stored < range.end) {
      note(stored, number, at, position.slice);
    }
    return stored < range.end;
  });
}

void AppendProof::note(std::uint32_t stored, std::int32_t number, const Run& at, std::int32_t moved) {
  const Instruction& instruction = facts_.text.instructions[static_cast<std::size_t>(number)];
  for (const Displacement& user : facts_.text.registers[instruction.base_register].table) {
    const std::int32_t slice = at.index + moved + user.slice;
    if (slice >= 0 && slice < facts_.chip.slices_per_hemisphere) {
      const std::int64_t cycle = slice_cycle(instruction, facts_.chip, at.cycle, slice);
      lives_[stored].writes.include(cycle, cycle, number);
    }
  }
}

const AppendProof::CacheRow* AppendProof::appended(const Instruction& instruction, const Run& at) {
  const std::uint16_t made_from = only_operand(instruction).tensor;
  const auto& rows = rows_of(instruction.base_register);
  for (auto [row, last] = rows.equal_range(place_of(instruction.hemisphere, at.index, at.address)); row != last;
       ++row) {
    const node::Tensor& tensor = facts_.text.tensors[row->second.tensor];
    if (tensor.scope == node::TensorScope::kCache &&
        std::find(tensor.sources.begin(), tensor.sources.end(), made_from) != tensor.sources.end()) {
      return &row->second;
    }
  }
  return nullptr;
}

const std::multimap<Place, AppendProof::CacheRow>& AppendProof::rows_of(std::uint16_t append_register) {
  const auto known = rows_.find(append_register);
  if (known != rows_.end()) {
    return known->second;
  }
  std::multimap<Place, CacheRow>& rows = rows_[append_register];
  for (const node::Allocation& allocation : facts_.text.allocations) {
    if (allocation.base_register == append_register) {
      for_each_cell(allocation, [&](std::int32_t slice, std::int32_t address, std::int32_t row) {
        rows.insert({place_of(allocation.hemisphere, slice, address), {allocation.tensor, row}});
      });
    }
  }
  return rows;
}

const std::vector<AppendProof::CacheOf>& AppendProof::caches_of(std::uint16_t append_register, std::uint16_t tensor) {
  auto [slot, is_new] = caches_.try_emplace({append_register, tensor});
  if (!is_new) {
    return slot->second;
  }
  std::vector<CacheOf>& caches = slot->second;
  const node::BaseRegister& append = facts_.text.registers[append_register];
  for (const std::int32_t number : index_.allocations()) {
    const node::Allocation& allocation = facts_.text.allocations[static_cast<std::size_t>(number)];
    const node::BaseRegister& cache = facts_.text.registers[allocation.base_register];
    const bool is_users = cache.kind == RegisterKind::kUser && cache.user_in_batch == append.user_in_batch;
    const std::int32_t image_class = facts_.registers[allocation.base_register].image_class;
    const bool is_known = std::any_of(
        caches.begin(), caches.end(), [&](const CacheOf& known) { return known.image_class == image_class; });
    if (allocation.tensor == tensor && !is_known && (is_users || cache.kind == RegisterKind::kNone)) {
      caches.push_back({image_class, differences(append, cache)});
    }
  }
  return caches;
}

std::vector<Displacement> AppendProof::differences(const node::BaseRegister& append,
                                                   const node::BaseRegister& cache) const {
  std::vector<Displacement> out;
  const auto key = [](const Displacement& d) { return std::tuple{d.slice, d.address, d.row}; };
  for (std::size_t user = static_cast<std::size_t>(append.user_in_batch); user < append.table.size();
       user += static_cast<std::size_t>(facts_.program.plan.micro_batch)) {
    const Displacement from = user < cache.table.size() ? cache.table[user] : Displacement{};
    const Displacement by{.slice = static_cast<std::int16_t>(append.table[user].slice - from.slice),
                          .address = static_cast<std::int16_t>(append.table[user].address - from.address),
                          .row = append.table[user].row - from.row};
    if (std::none_of(out.begin(), out.end(), [&](const Displacement& d) { return key(d) == key(by); })) {
      out.push_back(by);
    }
  }
  return out;
}

void AppendProof::prove_coverage() {
  std::map<std::pair<std::uint16_t, std::int32_t>, Coverage> by_user;
  for (const auto& [by, instances] : instances_) {
    const Instruction& instruction = facts_.text.instructions[static_cast<std::size_t>(by.second)];
    const std::vector<bool>& is_here = *facts_.base(instruction).appends_at;
    Coverage& coverage = by_user[{by.first, facts_.text.registers[instruction.base_register].user_in_batch}];
    coverage.rows.resize(is_here.size(), 0);
    coverage.instruction = by.second;
    for (std::size_t position = 0; position < is_here.size(); ++position) {
      coverage.rows[position] += is_here[position] ? instances : 0;
    }
  }
  for (const auto& [of, coverage] : by_user) {
    const auto most = std::max_element(coverage.rows.begin(), coverage.rows.end());
    const auto least = std::min_element(coverage.rows.begin(), coverage.rows.end());
    if (most == coverage.rows.end() || *most == *least) {
      continue;
    }
    findings_.add(facts_.text.instructions[static_cast<std::size_t>(coverage.instruction)].start,
                  coverage.instruction,
                  "'" + facts_.text.tensors[of.first].name + "' gets " + std::to_string(*least) + " rows at position " +
                      std::to_string(least - coverage.rows.begin()) + " and " + std::to_string(*most) +
                      " at position " + std::to_string(most - coverage.rows.begin()) + ": an append is missing");
  }
}

}  // namespace lpu::scheduler::proof
