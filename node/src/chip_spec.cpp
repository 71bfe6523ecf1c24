#include "lpu/node/chip_spec.hpp"

#include <algorithm>

namespace lpu::node {

Cycles ChipSpec::link_latency() const {
  return link_serialisation + link_flight + std::max(c2c_endpoint - c2c_memory_path(), Cycles(0));
}

}  // namespace lpu::node
