#pragma once
#include <cstdint>

#include "lpu/node/chip_spec.hpp"
#include "lpu/node/numeric_snapshot.hpp"
#include "place_map.hpp"

namespace lpu::node {

/// A chip's cache as plain data; its fold is left open.
[[nodiscard]] NumericSnapshot snapshot_of(const PlaceMap& cache);

/// The inverse.
/// @param id  of the chip, for messages
/// @throws InputError  places outside of SRAM, indices of nothing, numbers that do not fill their lanes
[[nodiscard]] PlaceMap cache_of(const NumericSnapshot& from, const ChipSpec& chip, std::int32_t id);

}  // namespace lpu::node
