#pragma once
#include <string>

#include "lpu/interconnect/gpu_fabric.hpp"
#include "lpu/interconnect/nccl.hpp"
#include "lpu/node/gpu_spec.hpp"
#include "preset_file.hpp"

namespace lpu::test {

/// A GPU system as the program would load it.
struct GpuPresets {
  node::GpuSpec gpu;
  interconnect::GpuFabric fabric;
  interconnect::NcclSpec nccl;
};

inline GpuPresets gpu_presets(const std::string& system) {
  GpuPresets out;
  out.fabric = interconnect::load_gpu_fabric_preset(preset_file("systems", system)).fabric;
  out.gpu = node::load_gpu_preset(preset_file("gpus", out.fabric.gpu)).gpu;
  out.nccl = interconnect::load_nccl_preset(preset_file("nccl", out.fabric.nccl)).nccl;
  return out;
}

}  // namespace lpu::test
