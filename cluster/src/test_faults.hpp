#pragma once
#include <cstdint>
#include <string>

#include "lpu/cluster/generate.hpp"
#include "lpu/cluster/run_program.hpp"

namespace lpu::cluster {

/// Faults of the wires and of chips, for tests of the program as a whole: LPU_CLUSTER_TEST_FAULTS, a list of
///
///     delay=N            after each turn of a chip its rank sleeps for 0 to N us, at random
///     flip=CHIP.LINK.K   one bit of a value id on its way to this link end, in iteration K
///     swap=CHIP.LINK.K   the first message of iteration K to this link end comes after its successor
///     cut=CHIP.LINK.K    nothing of iteration K, and nothing after it, comes to this link end
///     bit=CHIP.LINK.N    one bit of a number on its way to this link end: in the N-th vector there (from 0) that holds
///                        more than zeros, or the first one after it; numeric plane
///     low=CHIP.LINK.N    likewise the lowest bit: of the mantissa where N is the first of a value's four vectors. The
///                        execution shows it; the result too, unless an addition to a larger number rounds it away
///     lose=CHIP.LINK.N   the N-th vector to this link end (from 0) never comes; numeric plane
///     skip=CHIP.K.I      the chip leaves out instruction I in iteration K
///
/// separated by commas. Empty where it is not set. A result with planted faults says so.
[[nodiscard]] std::string faults_of_environment();

/// @throws node::InputError  a fault that is none of these
void plant_faults(const std::string& faults, std::int32_t rank, RunOptions& options);

/// Those of the numeric plane.
void plant_numeric_faults(const std::string& faults, GenerateOptions& options);

}  // namespace lpu::cluster
