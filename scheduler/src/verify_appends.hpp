#pragma once
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "verify_burst.hpp"
#include "verify_memory.hpp"
#include "verify_rows.hpp"

namespace lpu::scheduler::proof {

/// Writes through kAppend registers, which turn an iteration's new values into rows of the caches.
class AppendProof {
 public:
  /// @param lives  of the index's rows: appends are noted as writes
  AppendProof(const TextFacts& facts, const RowIndex& index, std::vector<Life>& lives, Findings& findings)
      : facts_(facts), index_(index), lives_(lives), findings_(findings) {}

  /// One instance: the register's allocation says which row of a cache the value becomes; for every user and position
  /// it must be the row that the cache's own allocation has there.
  /// @param at  a run of which the first instance counts
  /// @return false: a breach was found
  bool append(std::int32_t number, const Run& at);

  /// Every position of a cache that is appended to at all gets as many rows as every other.
  void prove_coverage();

 private:
  struct CacheRow {
    std::uint16_t tensor = 0;
    std::int32_t row = 0;
  };
  /// A register that places a cache per user, and how an append's users lie against it: one difference where all agree.
  struct CacheOf {
    std::int32_t image_class = 0;
    std::vector<Displacement> differences;
  };
  /// Rows appended per position, of one user in the batch.
  struct Coverage {
    std::vector<std::int64_t> rows;
    std::int32_t instruction = -1;
  };

  const CacheRow* appended(const Instruction& instruction, const Run& at);
  const std::multimap<Place, CacheRow>& rows_of(std::uint16_t append_register);
  const std::vector<CacheOf>& caches_of(std::uint16_t append_register, std::uint16_t tensor);
  [[nodiscard]] std::vector<Displacement> differences(const node::BaseRegister& append,
                                                      const node::BaseRegister& cache) const;
  bool falls_on(
      const CacheOf& cache, const CacheRow& row, std::int32_t number, const Run& at, const Displacement& position);
  void note(std::uint32_t stored, std::int32_t number, const Run& at, std::int32_t moved);

  const TextFacts& facts_;
  const RowIndex& index_;
  std::vector<Life>& lives_;
  Findings& findings_;
  std::map<std::uint16_t, std::multimap<Place, CacheRow>> rows_;
  std::map<std::pair<std::uint16_t, std::uint16_t>, std::vector<CacheOf>> caches_;
  std::map<std::pair<std::uint16_t, std::int32_t>, std::int64_t> instances_;  ///< by tensor and instruction
};

}  // namespace lpu::scheduler::proof
