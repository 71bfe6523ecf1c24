#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "check_site.hpp"
#include "lpu/node/chip_spec.hpp"
#include "lpu/node/program.hpp"

namespace lpu::node {

/// The plane of one MXM: its weight buffer, its active tile and its accumulators.
class MatrixPlane {
 public:
  explicit MatrixPlane(const ChipSpec& chip);

  /// A column group enters the buffer.
  /// @param tile   value id of the tile's first row
  /// @param group  index of loop 1
  void install(const Site& site, std::uint64_t tile, std::int32_t group, std::int32_t groups);

  struct Product {
    std::uint64_t tile = 0;
    std::uint64_t activation = 0;
    std::uint16_t tile_tensor = 0;
    std::uint16_t activation_tensor = 0;
    std::int64_t iteration = 0;
    bool is_first = false;  ///< overwrites the accumulator
  };
  void compute(const Site& site, std::int32_t accumulator, const Product& product);

  /// @param computes  that the sum has to be made of
  /// @param sources   tensors that the drained one is computed from
  void drain(
      const Site& site, std::int32_t accumulator, std::int32_t computes, const Tensor& drained, std::int64_t iteration);

  /// A tile that nobody used, a sum that nobody drained.
  void check_nothing_left(std::int32_t chip) const;

 private:
  static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::min();
  struct Accumulator {
    std::int32_t computes = 0;  ///< 0: free
    std::int64_t iteration = 0;
    std::int64_t last_compute = kNever;
    std::int64_t last_drain = kNever;
    std::int32_t instruction = -1;
    std::vector<std::uint64_t> activations;
    std::vector<std::uint16_t> tensors;  ///< that went into it
  };
  void use_tile(const Site& site, std::uint64_t tile);
  void take_port(const Site& site, std::int64_t& last, const char* what) const;

  std::int64_t latency_;
  std::int64_t last_install_ = kNever;
  std::int64_t last_compute_ = kNever;
  std::int64_t last_drain_ = kNever;
  std::uint64_t buffered_ = 0;
  std::int32_t buffered_groups_ = 0;  ///< 0: the buffer is free
  bool is_complete_ = false;
  std::int64_t completed_ = 0;
  std::int32_t installer_ = -1;
  std::uint64_t active_ = 0;
  bool is_active_ = false;
  std::vector<Accumulator> accumulators_;
};

}  // namespace lpu::node
