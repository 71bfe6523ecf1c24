#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lpu/interconnect/gpu_fabric.hpp"

namespace lpu::interconnect {

/// Constants of NCCL's own cost model (cluster/presets/nccl/*.json). Triples are {LL, LL128, Simple}; per-node triples
/// are {1 node, 2 nodes, more}.
struct NcclSpec {
  std::string name;
  std::vector<double> tree_base_us;
  std::vector<double> ring_base_us;
  std::vector<double> tree_nvlink_us, tree_pcie_us, tree_network_us;  ///< per hop
  std::vector<double> ring_nvlink_us, ring_pcie_us, ring_network_us;
  double nvls_us = 0;                                 ///< NVLS and NVLSTree, inside the node
  double nvls_tree_network_us = 0;                    ///< per level
  double intel_overhead_us = 0, amd_overhead_us = 0;  ///< least time of a ring's hop inside a node, several nodes
  double plateau = 0;                                 ///< of Ring Simple over several nodes, on its latency
  double plateau_slice_bytes = 0;                     ///< from so many bytes a channel and rank on
  double tree_ll_divisor = 0;
  double ring_ll_share = 0, ring_ll128_share = 0, tree_share = 0;  ///< of the bus
  std::vector<double> tree_ll128_share;                            ///< 1 node, several

  double ampere_ll_cap = 0, hopper_ll_cap = 0;                       ///< GB/s, one node
  std::vector<double> amd_ll_cap, intel_ll_cap;                      ///< GB/s, {2 nodes, more}
  std::vector<double> ampere_ring_ll128_cap, hopper_ring_ll128_cap;  ///< GB/s per channel
  std::vector<double> ampere_tree_ll128_cap, hopper_tree_ll128_cap;
  std::vector<double> ampere_tree_cap, hopper_tree_cap;
  std::vector<double> nvls_tree_cap;  ///< GB/s per channel; NVLS and NVLSTree: Hopper alone
  double nvls_efficiency = 0;         ///< 0: switched off
  double nvls_channel_cap = 0;        ///< GB/s
  std::vector<double> nvls_speeds;    ///< GB/s, what its search tries, descending
  std::vector<double> tree_correction_ll, tree_correction_ll128, tree_correction_simple;  ///< by log2(bytes / 64)
};

[[nodiscard]] std::span<const node::PresetField<NcclSpec>> nccl_fields();

struct NcclPreset {
  NcclSpec nccl;
  std::string description;
  node::Sources sources;
};
/// Reads `{"kind": "nccl", …}`. @throws node::InputError
[[nodiscard]] NcclPreset load_nccl_preset(const node::FieldReader& reader);

enum class NcclAlgorithm : std::uint8_t { kRing, kTree, kNvls, kNvlsTree };
enum class NcclProtocol : std::uint8_t { kLl, kLl128, kSimple };
[[nodiscard]] std::string_view name(NcclAlgorithm algorithm);
[[nodiscard]] std::string_view name(NcclProtocol protocol);

/// `ranks` GPUs that reduce together, filling `fabric`'s nodes.
struct NcclGroup {
  const NcclSpec& nccl;
  const GpuFabric& fabric;
  std::string_view architecture;  ///< of the GPU: ampere, hopper
  std::int32_t ranks = 1;
};

/// What NCCL's model says of one way to reduce.
struct NcclCost {
  NcclAlgorithm algorithm{};
  NcclProtocol protocol{};
  double microseconds = 0;
  double bus_gigabytes_per_second = 0;  ///< as nccl-tests defines busbw, at this size
};

/// Every way that NCCL would consider for an all-reduce of `bytes`.
[[nodiscard]] std::vector<NcclCost> nccl_all_reduce_costs(const NcclGroup& group, double bytes);
/// The one it chooses: the cheapest of its model. 1 rank: no time.
[[nodiscard]] NcclCost nccl_all_reduce(const NcclGroup& group, double bytes);
/// The same, times what was measured over what the model says.
[[nodiscard]] double measured_nccl_all_reduce_us(const NcclGroup& group, double bytes);
/// The serving engine's own all-reduce inside a node (one-shot or two-shot over peer memory, in a CUDA graph), or
/// NCCL's where that is faster or the engine has none.
[[nodiscard]] double engine_all_reduce_us(const NcclGroup& group, double bytes);
/// No latency, every link at its rate on paper.
[[nodiscard]] double ideal_all_reduce_us(const NcclGroup& group, double bytes);

}  // namespace lpu::interconnect
