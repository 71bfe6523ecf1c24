#include "lpu/interconnect/gpu_fabric.hpp"

#include <algorithm>

#include "lpu/node/error.hpp"

namespace lpu::interconnect {
namespace {

using node::InputError;
using node::kUnitOne;
using node::kUnitWord;

const std::vector<node::PresetField<GpuFabric>>& rows() {
  static const std::vector<node::PresetField<GpuFabric>> kRows = {
      {"gpu", kUnitWord, 0, 0, "preset of its GPUs", &GpuFabric::gpu, 0},
      {"nccl", kUnitWord, 0, 0, "preset of NCCL's constants", &GpuFabric::nccl, 0},
      {"gpus_per_node", "GPUs", 2, 64, "that share a host", &GpuFabric::gpus_per_node},
      {"inside", kUnitWord, 0, 0, "nvlink or pcie: what joins the GPUs of a node", &GpuFabric::inside, 0},
      {"cpu", kUnitWord, 0, 0, "intel or amd", &GpuFabric::cpu, 0},
      {"channels_in_node", "channels", 1, 64, "rings that NCCL's search finds", &GpuFabric::channels_in_node},
      {"channel_rate_in_node", "GB/s", 0.1, 1e4, "of each", &GpuFabric::channel_gigabytes_per_second_in_node},
      {"channels_between_nodes", "channels", 1, 64, "rings over several nodes", &GpuFabric::channels_between_nodes},
      {"channel_rate_between_nodes",
       "GB/s",
       0.1,
       1e4,
       "of each",
       &GpuFabric::channel_gigabytes_per_second_between_nodes},
      {"nvlink_rate",
       "GB/s",
       0,
       1e5,
       "of one GPU's links as NCCL counts them; 0: none",
       &GpuFabric::nvlink_gigabytes_per_second},
      {"link_peak",
       "GB/s",
       0.1,
       1e5,
       "of one GPU inside the node, on paper, one direction",
       &GpuFabric::link_peak_gigabytes_per_second},
      {"hop_in_node", "us", 0, 1e4, "fixed time of a send and its receive", &GpuFabric::hop_in_node_us},
      {"hop_rate_in_node", "GB/s", 0.1, 1e5, "measured, one direction", &GpuFabric::hop_in_node_gigabytes_per_second},
      {"hop_between_nodes", "us", 0, 1e4, "fixed time of a send and its receive", &GpuFabric::hop_between_nodes_us},
      {"nics", "NICs", 1, 64, "of a node", &GpuFabric::nics},
      {"nic_rate", "GB/s", 0.1, 1e4, "of one, measured", &GpuFabric::nic_gigabytes_per_second},
      {"nic_peak", "GB/s", 0.1, 1e4, "of one, on paper", &GpuFabric::nic_peak_gigabytes_per_second},
      {"pcie_rate", "GB/s", 0.1, 1e4, "of one GPU's port", &GpuFabric::pcie_gigabytes_per_second},
      {"socket_link_rate",
       "GB/s",
       0.1,
       1e4,
       "UPI or xGMI between the two sockets",
       &GpuFabric::socket_link_gigabytes_per_second},
      {"gpu_sockets", kUnitOne, 0, 1, "socket of each GPU", &GpuFabric::gpu_sockets, 0},
      {"nic_sockets", kUnitOne, 0, 1, "socket of each NIC", &GpuFabric::nic_sockets, 0},
      {"one_shot_start",
       "us",
       0,
       1e4,
       "engine's all-reduce on 2, 4, 8 GPUs: every GPU reads all others",
       &GpuFabric::one_shot_start_us,
       3},
      {"one_shot_rate",
       "GB/s",
       0,
       1e5,
       "its bytes beyond that; 0: the engine has none",
       &GpuFabric::one_shot_gigabytes_per_second,
       3},
      {"two_shot_start",
       "us",
       0,
       1e4,
       "engine's all-reduce on 2, 4, 8 GPUs: reduce-scatter, then all-gather",
       &GpuFabric::two_shot_start_us,
       3},
      {"two_shot_rate",
       "GB/s",
       0,
       1e5,
       "its bytes beyond that; 0: the engine has none",
       &GpuFabric::two_shot_gigabytes_per_second,
       3},
      {"measured_at", "B", 1, 1e12, "sizes of the following", &GpuFabric::measured_at_bytes, 0},
      {"measured_over_model_2",
       kUnitOne,
       0.1,
       10,
       "NCCL measured / its model, 2 GPUs of a node",
       &GpuFabric::measured_over_model_2,
       0},
      {"measured_over_model_4", kUnitOne, 0.1, 10, "4 GPUs of a node", &GpuFabric::measured_over_model_4, 0},
      {"measured_over_model_8", kUnitOne, 0.1, 10, "8 GPUs of a node", &GpuFabric::measured_over_model_8, 0},
      {"measured_over_model_nodes", kUnitOne, 0.1, 10, "several nodes", &GpuFabric::measured_over_model_nodes, 0},
      {"host_power", "W", 0, 1e6, "of a node without its GPUs", &GpuFabric::host_power_watts},
      {"host_price", "USD", 0, 1e9, "of a node without its GPUs", &GpuFabric::host_price_usd},
  };
  return kRows;
}

void check_word(const std::string& found, const std::vector<std::string>& known, const std::string& where) {
  if (std::find(known.begin(), known.end(), found) == known.end()) {
    throw InputError(where + ": found " + node::printable(found) + "; expected one of the known words" +
                     node::known_values(found, known));
  }
}

void check_count(const std::vector<double>& list, std::size_t expected, const std::string& where) {
  if (list.size() != expected) {
    throw InputError(where + ": found " + std::to_string(list.size()) + " numbers; expected " +
                     std::to_string(expected));
  }
}

double on_socket(const std::vector<double>& sockets, double socket) {
  return static_cast<double>(std::count(sockets.begin(), sockets.end(), socket));
}

}  // namespace

std::span<const node::PresetField<GpuFabric>> gpu_fabric_fields() {
  return rows();
}

bool GpuFabric::spans_sockets(std::int32_t gpus) const {
  const auto end = gpu_sockets.begin() + std::min<std::ptrdiff_t>(gpus, std::ssize(gpu_sockets));
  return std::any_of(gpu_sockets.begin(), end, [&](double socket) { return socket != gpu_sockets.front(); });
}

void check_gpu_fabric(const GpuFabric& fabric, const std::string& where) {
  check_word(fabric.inside, {"nvlink", "pcie"}, where + "inside");
  check_word(fabric.cpu, {"intel", "amd"}, where + "cpu");
  check_count(fabric.gpu_sockets, static_cast<std::size_t>(fabric.gpus_per_node), where + "gpu_sockets");
  check_count(fabric.nic_sockets, static_cast<std::size_t>(fabric.nics), where + "nic_sockets");
  for (const double socket : fabric.gpu_sockets) {
    if (socket != 0 && socket != 1) {
      throw InputError(where + "gpu_sockets: found " + node::format_numbers({&socket, 1}, kUnitOne) +
                       "; expected socket 0 or 1");
    }
  }
  if (fabric.has_nvlink() != (fabric.nvlink_gigabytes_per_second > 0)) {
    throw InputError(where + "nvlink_rate: found " +
                     node::format_numbers({&fabric.nvlink_gigabytes_per_second, 1}, "GB/s") + "; expected " +
                     (fabric.has_nvlink() ? "a rate: the inside is nvlink" : "0 GB/s: the inside is pcie"));
  }
  const std::size_t sizes = fabric.measured_at_bytes.size();
  check_count(fabric.measured_over_model_2, sizes, where + "measured_over_model_2");
  check_count(fabric.measured_over_model_4, sizes, where + "measured_over_model_4");
  check_count(fabric.measured_over_model_8, sizes, where + "measured_over_model_8");
  check_count(fabric.measured_over_model_nodes, sizes, where + "measured_over_model_nodes");
  if (!std::is_sorted(fabric.measured_at_bytes.begin(), fabric.measured_at_bytes.end(), std::less_equal<>())) {
    throw InputError(where + "measured_at: found sizes out of order; expected each larger than the one before");
  }
}

GpuFabricPreset load_gpu_fabric_preset(const node::FieldReader& reader) {
  if (reader.text("kind") != "gpu-system") {
    reader.fail("kind", "gpu-system");
  }
  GpuFabricPreset out;
  out.fabric.name = reader.text("name");
  out.description = reader.text("description");
  out.sources = node::read_fields(out.fabric, gpu_fabric_fields(), reader);
  reader.refuse_other_keys();
  check_gpu_fabric(out.fabric, reader.where() + ":");
  return out;
}

double network_gigabytes_per_second(const GpuFabric& fabric, std::int32_t gpu_of_node) {
  const double socket = fabric.gpu_sockets[static_cast<std::size_t>(gpu_of_node)];
  const double neighbours = on_socket(fabric.gpu_sockets, socket);
  const double own_nics = on_socket(fabric.nic_sockets, socket);
  const double other_nics = static_cast<double>(fabric.nics) - own_nics;
  const double other_gpus = static_cast<double>(fabric.gpus_per_node) - neighbours;
  // NICs of a socket serve its own GPUs, and those of the other socket where that has none.
  const double sharers = neighbours + (other_nics == 0 ? other_gpus : 0);
  const double through_nics =
      own_nics > 0 ? own_nics * fabric.nic_gigabytes_per_second / sharers
                   : std::min(other_nics * fabric.nic_gigabytes_per_second / static_cast<double>(fabric.gpus_per_node),
                              fabric.socket_link_gigabytes_per_second / neighbours);
  return std::min(through_nics, fabric.pcie_gigabytes_per_second);
}

double hop_us(const GpuFabric& fabric, double bytes, bool leaves_node) {
  if (!leaves_node) {
    return fabric.hop_in_node_us + bytes / (1e3 * fabric.hop_in_node_gigabytes_per_second);
  }
  double slowest = fabric.pcie_gigabytes_per_second;
  for (std::int32_t gpu = 0; gpu < fabric.gpus_per_node; ++gpu) {
    slowest = std::min(slowest, network_gigabytes_per_second(fabric, gpu));
  }
  return fabric.hop_between_nodes_us + bytes / (1e3 * slowest);
}

double ideal_hop_us(const GpuFabric& fabric, double bytes, bool leaves_node) {
  const double rate = leaves_node ? fabric.nic_peak_gigabytes_per_second * static_cast<double>(fabric.nics) /
                                        static_cast<double>(fabric.gpus_per_node)
                                  : fabric.link_peak_gigabytes_per_second;
  return bytes / (1e3 * rate);
}

}  // namespace lpu::interconnect
