#pragma once
#include <cstdint>
#include <limits>
#include <unordered_map>
#include <vector>

#include "check_site.hpp"
#include "checked_text.hpp"

namespace lpu::node {

/// A row as an instruction names it.
struct NamedRow {
  std::uint16_t tensor = 0;
  std::int32_t row = 0;
  std::int32_t user = 0;  ///< caches
  std::uint64_t value = 0;
};

/// The SRAM of one chip: which value each row holds since when, and who uses which port and bank.
class Memory {
 public:
  explicit Memory(const CheckedTextTables& tables);

  /// One access of a slice in this cycle.
  void take_port(const Site& site, Opcode opcode, Hemisphere hemisphere, std::int64_t slice, std::int64_t address);
  /// An append of an iteration that starts now; until it is done nobody may read the row.
  void expect_append(Place place, std::int32_t instruction) { appends_[place] = instruction; }
  void read(const Site& site, Place place, const NamedRow& row);
  void write(const Site& site, Place place, const NamedRow& row);

 private:
  static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::min();
  struct Record {
    std::uint64_t value = 0;
    std::int64_t written = kNever;
    std::int32_t row = 0;
    std::uint16_t tensor = Content::kNothing;
  };
  void check_content(const Site& site, Place place, const NamedRow& row, const char* verb) const;
  [[nodiscard]] std::string name(std::uint16_t tensor, std::int32_t row) const;

  const CheckedTextTables* tables_;
  std::int64_t settle_;                  ///< N + 1
  std::vector<std::int64_t> last_read_;  ///< per slice
  std::vector<std::int64_t> last_write_;
  std::vector<std::int64_t> last_bank_;                    ///< per slice and bank
  std::vector<Record> records_;                            ///< rows of iteration tensors
  std::unordered_map<Place, std::int32_t> appends_;        ///< to come, and whose
  std::unordered_map<Place, std::int64_t> cache_written_;  ///< rows of caches that were written lately
};

}  // namespace lpu::node
