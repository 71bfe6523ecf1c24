#include "lpu/node/floating_point.hpp"

#include <cfenv>

#include "lpu/node/error.hpp"

namespace lpu::node {

void set_arithmetic_mode() {
  LPU_CHECK(std::fesetenv(FE_DFL_ENV) == 0, "the default floating-point environment");
}

}  // namespace lpu::node
