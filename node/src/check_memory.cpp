#include "check_memory.hpp"

namespace lpu::node {

Memory::Memory(const CheckedTextTables& tables)
    : tables_(&tables),
      settle_(tables.chip->instruction_propagation.count() + 1),
      last_read_(2 * static_cast<std::size_t>(tables.chip->slices_per_hemisphere), kNever),
      last_write_(last_read_.size(), kNever),
      last_bank_(last_read_.size() * static_cast<std::size_t>(tables.chip->banks_per_slice), kNever),
      records_(static_cast<std::size_t>(tables.dynamic_places)) {}

std::string Memory::name(std::uint16_t tensor, std::int32_t row) const {
  return "row " + std::to_string(row) + " of '" + tables_->text->tensors[tensor].name + "'";
}

void Memory::take_port(
    const Site& site, Opcode opcode, Hemisphere hemisphere, std::int64_t slice, std::int64_t address) {
  const ChipSpec& chip = *tables_->chip;
  if (!is_in_sram(slice, address, chip)) {
    breach(site,
           "accesses slice " + std::to_string(slice) + ", address " + std::to_string(address) + ", outside of SRAM");
  }
  const auto at = static_cast<std::size_t>(static_cast<std::int64_t>(hemisphere) * chip.slices_per_hemisphere + slice);
  std::int64_t& last = opcode == Opcode::kRead ? last_read_[at] : last_write_[at];
  if (last == site.cycle) {
    breach(site,
           std::string("second ") + (opcode == Opcode::kRead ? "read" : "write") + " of slice " +
               std::to_string(slice) + " in this cycle");
  }
  last = site.cycle;
  const std::int64_t bank = address % chip.banks_per_slice;
  std::int64_t& last_bank =
      last_bank_[at * static_cast<std::size_t>(chip.banks_per_slice) + static_cast<std::size_t>(bank)];
  if (last_bank == site.cycle) {
    breach(site,
           "second access of bank " + std::to_string(bank) + " of slice " + std::to_string(slice) + " in this cycle");
  }
  last_bank = site.cycle;
}

void Memory::check_content(const Site& site, Place place, const NamedRow& row, const char* verb) const {
  const Content& content = tables_->contents[static_cast<std::size_t>(place)];
  if (content.tensor == Content::kNothing) {
    breach(site,
           std::string(verb) + " " + name(row.tensor, row.row) + " at " + describe(place, *tables_->chip) +
               ", which holds nothing");
  }
  const bool is_cache = tables_->text->tensors[row.tensor].scope == TensorScope::kCache;
  if (content.tensor != row.tensor || content.row != row.row || (is_cache && content.user != row.user)) {
    breach(site,
           std::string(verb) + " " + name(row.tensor, row.row) +
               (is_cache ? " of user " + std::to_string(row.user) : "") + " at " + describe(place, *tables_->chip) +
               ", which holds " + name(content.tensor, content.row) +
               (is_cache ? " of user " + std::to_string(content.user) : ""));
  }
}

void Memory::read(const Site& site, Place place, const NamedRow& row) {
  const std::int32_t at = tables_->dynamic[static_cast<std::size_t>(place)];
  std::int64_t written = kNever;
  if (at < 0) {
    check_content(site, place, row, "reads");
    const auto append = appends_.empty() ? appends_.end() : appends_.find(place);
    if (append != appends_.end()) {
      breach(site,
             "reads " + name(row.tensor, row.row) + " at " + describe(place, *tables_->chip) + " before instruction " +
                 std::to_string(append->second) + " appends to it");
    }
    if (!cache_written_.empty()) {
      const auto found = cache_written_.find(place);
      written = found == cache_written_.end() ? kNever : found->second;
    }
  } else {
    const Record& record = records_[static_cast<std::size_t>(at)];
    if (record.value != row.value || record.tensor == Content::kNothing) {
      breach(site,
             "reads " + name(row.tensor, row.row) + " at " + describe(place, *tables_->chip) + ", which holds " +
                 (record.tensor == Content::kNothing ? std::string("nothing yet")
                  : record.tensor == row.tensor && record.row == row.row
                      ? name(record.tensor, record.row) + " of another iteration"
                      : name(record.tensor, record.row)));
    }
    written = record.written;
  }
  if (written != kNever && site.cycle < written + settle_) {
    breach(site,
           "reads " + name(row.tensor, row.row) + " " + std::to_string(site.cycle - written) +
               " cycles after its write; it can be read " + std::to_string(settle_) + " after");
  }
}

void Memory::write(const Site& site, Place place, const NamedRow& row) {
  const std::int32_t at = tables_->dynamic[static_cast<std::size_t>(place)];
  if (at >= 0) {
    records_[static_cast<std::size_t>(at)] = {
        .value = row.value, .written = site.cycle, .row = row.row, .tensor = row.tensor};
    return;
  }
  check_content(site, place, row, "writes");
  constexpr std::size_t kMany = 4096;
  if (cache_written_.size() >= kMany) {
    std::erase_if(cache_written_, [&](const auto& entry) { return entry.second + settle_ < site.cycle; });
  }
  cache_written_[place] = site.cycle;
  appends_.erase(place);
}

}  // namespace lpu::node
