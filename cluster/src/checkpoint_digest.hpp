#pragma once
#include <cstdint>

#include "lpu/scheduler/checkpoint.hpp"

namespace lpu::cluster {

/// Of the model and of how many bytes its weights take: tells a forgotten copy on another host without reading it.
[[nodiscard]] std::uint64_t shape_digest(const scheduler::Checkpoint& checkpoint);
/// Likewise with every weight, as it is stored; reads all of them.
[[nodiscard]] std::uint64_t content_digest(const scheduler::Checkpoint& checkpoint);

}  // namespace lpu::cluster
