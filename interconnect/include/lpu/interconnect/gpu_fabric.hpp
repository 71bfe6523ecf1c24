#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lpu/node/field_reader.hpp"
#include "lpu/node/preset_fields.hpp"

namespace lpu::interconnect {

/// How the GPUs of a cluster are joined: inside a node NVLink through NVSwitch, or PCIe and the link between the two
/// sockets (NUMA); between nodes InfiniBand. Rates are of one direction.
///
/// Values come from a preset (cluster/presets/systems/*.json, kind gpu-system), with unit and source of each.
struct GpuFabric {
  std::string name;
  std::string gpu;   ///< preset of its GPUs, or a file's path
  std::string nccl;  ///< preset of NCCL's constants, or a file's path
  std::int32_t gpus_per_node = 0;
  std::string inside;  ///< nvlink, pcie: what joins the GPUs of a node
  std::string cpu;     ///< intel, amd: NCCL's limits between nodes depend on it

  std::int32_t channels_in_node = 0;  ///< rings that NCCL's search finds
  double channel_gigabytes_per_second_in_node = 0;
  std::int32_t channels_between_nodes = 0;
  double channel_gigabytes_per_second_between_nodes = 0;
  double nvlink_gigabytes_per_second = 0;  ///< of one GPU, all its links, as NCCL counts it; 0: none

  double link_peak_gigabytes_per_second = 0;  ///< of one GPU inside the node, on paper
  double hop_in_node_us = 0;                  ///< of a send and its receive
  double hop_in_node_gigabytes_per_second = 0;
  double hop_between_nodes_us = 0;

  std::int32_t nics = 0;  ///< of a node
  double nic_gigabytes_per_second = 0;
  double nic_peak_gigabytes_per_second = 0;
  double pcie_gigabytes_per_second = 0;
  double socket_link_gigabytes_per_second = 0;  ///< UPI or xGMI
  std::vector<double> gpu_sockets;              ///< of each GPU of a node: 0 or 1
  std::vector<double> nic_sockets;              ///< of each NIC

  /// The engine's all-reduce in a node, min over both kernels of start + bytes / rate, for 2, 4 and 8 GPUs; rate 0:
  /// none.
  std::vector<double> one_shot_start_us;
  std::vector<double> one_shot_gigabytes_per_second;
  std::vector<double> two_shot_start_us;
  std::vector<double> two_shot_gigabytes_per_second;

  /// What NCCL was measured to take, as a multiple of its own model: at these sizes (linear in log size between them,
  /// constant outside), for 2, 4 and 8 GPUs of a node and between nodes.
  std::vector<double> measured_at_bytes;
  std::vector<double> measured_over_model_2;
  std::vector<double> measured_over_model_4;
  std::vector<double> measured_over_model_8;
  std::vector<double> measured_over_model_nodes;

  double host_power_watts = 0;  ///< of a node without its GPUs
  double host_price_usd = 0;    ///< likewise

  [[nodiscard]] bool has_nvlink() const { return inside == "nvlink"; }
  /// Whether the first `gpus` of a node sit on more than one socket.
  [[nodiscard]] bool spans_sockets(std::int32_t gpus) const;
  [[nodiscard]] std::int32_t nodes(std::int32_t gpus) const { return (gpus + gpus_per_node - 1) / gpus_per_node; }
};

[[nodiscard]] std::span<const node::PresetField<GpuFabric>> gpu_fabric_fields();

/// @throws node::InputError  "<where>…: found …" for the first field that contradicts another or is an unknown word
void check_gpu_fabric(const GpuFabric& fabric, const std::string& where);

/// A fabric with the origin of each constant.
struct GpuFabricPreset {
  GpuFabric fabric;
  std::string description;
  node::Sources sources;
};
/// Reads `{"kind": "gpu-system", …}`. @throws node::InputError
[[nodiscard]] GpuFabricPreset load_gpu_fabric_preset(const node::FieldReader& reader);

/// Rate at which one GPU of a node reaches the network, GB/s, with all of the node's GPUs doing so: its share of the
/// NICs on its own socket; where that socket has none, of those of the other one, through the link between the sockets.
[[nodiscard]] double network_gigabytes_per_second(const GpuFabric& fabric, std::int32_t gpu_of_node);

/// One hop of a pipeline: `bytes` from each GPU of a stage to its partner in the next, microseconds.
[[nodiscard]] double hop_us(const GpuFabric& fabric, double bytes, bool leaves_node);
/// The same with nothing but rates on paper.
[[nodiscard]] double ideal_hop_us(const GpuFabric& fabric, double bytes, bool leaves_node);

}  // namespace lpu::interconnect
