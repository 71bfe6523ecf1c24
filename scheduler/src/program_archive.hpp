#pragma once
#include <string>
#include <string_view>

#include "lpu/scheduler/cluster_program.hpp"

namespace lpu::scheduler {

/// The body of a program file: cereal portable binary.
[[nodiscard]] std::string encode(const ClusterProgram& program);

/// The inverse. Trusts no size: nothing is allocated that the body is too short to fill.
/// @throws node::InputError  without the file's name: what was found at which field, what was expected
[[nodiscard]] ClusterProgram decode(std::string_view body);

}  // namespace lpu::scheduler
