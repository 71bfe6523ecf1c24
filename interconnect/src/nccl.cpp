#include "lpu/interconnect/nccl.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "lpu/node/error.hpp"

namespace lpu::interconnect {
namespace {

using node::kUnitOne;

const std::vector<node::PresetField<NcclSpec>>& rows() {
  static const std::vector<node::PresetField<NcclSpec>> kRows = {
      {"tree_base", "us", 0, 1e4, "LL, LL128, Simple", &NcclSpec::tree_base_us, 3},
      {"ring_base", "us", 0, 1e4, "LL, LL128, Simple", &NcclSpec::ring_base_us, 3},
      {"tree_nvlink", "us", 0, 1e4, "a hop; LL, LL128, Simple", &NcclSpec::tree_nvlink_us, 3},
      {"tree_pcie", "us", 0, 1e4, "a hop; LL, LL128, Simple", &NcclSpec::tree_pcie_us, 3},
      {"tree_network", "us", 0, 1e4, "a hop; LL, LL128, Simple", &NcclSpec::tree_network_us, 3},
      {"ring_nvlink", "us", 0, 1e4, "a hop; LL, LL128, Simple", &NcclSpec::ring_nvlink_us, 3},
      {"ring_pcie", "us", 0, 1e4, "a hop; LL, LL128, Simple", &NcclSpec::ring_pcie_us, 3},
      {"ring_network", "us", 0, 1e4, "a hop; LL, LL128, Simple", &NcclSpec::ring_network_us, 3},
      {"nvls", "us", 0, 1e4, "NVLS and NVLSTree inside the node", &NcclSpec::nvls_us},
      {"nvls_tree_network", "us", 0, 1e4, "NVLSTree, a level", &NcclSpec::nvls_tree_network_us},
      {"intel_overhead",
       "us",
       0,
       1e3,
       "least hop of a ring over several nodes; x 3 for Simple",
       &NcclSpec::intel_overhead_us},
      {"amd_overhead", "us", 0, 1e3, "the same", &NcclSpec::amd_overhead_us},
      {"plateau", kUnitOne, 1, 10, "on the latency of Ring Simple over several nodes", &NcclSpec::plateau},
      {"plateau_slice", "B", 1, 1e6, "from this many bytes a channel and rank on", &NcclSpec::plateau_slice_bytes},
      {"ring_ll_share", kUnitOne, 0.01, 1, "of the bus that LL leaves for data", &NcclSpec::ring_ll_share},
      {"ring_ll128_share", kUnitOne, 0.01, 1, "of the bus that LL128 reaches", &NcclSpec::ring_ll128_share},
      {"tree_share", kUnitOne, 0.01, 1, "of the bus that a tree reaches", &NcclSpec::tree_share},
      {"tree_ll_divisor", kUnitOne, 1, 10, "of a tree's bus under LL", &NcclSpec::tree_ll_divisor},
      {"tree_ll128_share", kUnitOne, 0.01, 1, "of a tree's bus; 1 node, several", &NcclSpec::tree_ll128_share, 2},
      {"ampere_ll_cap", "GB/s", 0.1, 1e5, "1 node", &NcclSpec::ampere_ll_cap},
      {"hopper_ll_cap", "GB/s", 0.1, 1e5, "1 node", &NcclSpec::hopper_ll_cap},
      {"amd_ll_cap", "GB/s", 0.1, 1e5, "2 nodes, more", &NcclSpec::amd_ll_cap, 2},
      {"intel_ll_cap", "GB/s", 0.1, 1e5, "2 nodes, more", &NcclSpec::intel_ll_cap, 2},
      {"ampere_ring_ll128_cap", "GB/s", 0, 1e5, "a channel; 1 node, 2, more", &NcclSpec::ampere_ring_ll128_cap, 3},
      {"hopper_ring_ll128_cap", "GB/s", 0, 1e5, "a channel; 1 node, 2, more", &NcclSpec::hopper_ring_ll128_cap, 3},
      {"ampere_tree_ll128_cap", "GB/s", 0, 1e5, "a channel; 1 node, 2, more", &NcclSpec::ampere_tree_ll128_cap, 3},
      {"hopper_tree_ll128_cap", "GB/s", 0, 1e5, "a channel; 1 node, 2, more", &NcclSpec::hopper_tree_ll128_cap, 3},
      {"ampere_tree_cap", "GB/s", 0, 1e5, "a channel; 1 node, 2, more", &NcclSpec::ampere_tree_cap, 3},
      {"hopper_tree_cap", "GB/s", 0, 1e5, "a channel; 1 node, 2, more", &NcclSpec::hopper_tree_cap, 3},
      {"nvls_tree_cap", "GB/s", 0, 1e5, "a channel; 1 node, 2, more", &NcclSpec::nvls_tree_cap, 3},
      {"nvls_efficiency", kUnitOne, 0, 1, "of a channel's speed; 0: no NVLS", &NcclSpec::nvls_efficiency},
      {"nvls_channel_cap", "GB/s", 0.1, 1e6, "a channel inside a node", &NcclSpec::nvls_channel_cap},
      {"nvls_speeds", "GB/s", 0.1, 1e4, "what its search tries, descending", &NcclSpec::nvls_speeds, 0},
      {"tree_correction_ll",
       kUnitOne,
       0.01,
       1,
       "on a tree's rate, by log2(bytes / 64)",
       &NcclSpec::tree_correction_ll,
       0},
      {"tree_correction_ll128",
       kUnitOne,
       0.01,
       1,
       "on a tree's rate, by log2(bytes / 64)",
       &NcclSpec::tree_correction_ll128,
       0},
      {"tree_correction_simple",
       kUnitOne,
       0.01,
       1,
       "on a tree's rate, by log2(bytes / 64)",
       &NcclSpec::tree_correction_simple,
       0},
  };
  return kRows;
}

constexpr std::array<NcclProtocol, 3> kProtocols = {NcclProtocol::kLl, NcclProtocol::kLl128, NcclProtocol::kSimple};

/// What NCCL would know of a group once its search is done.
class Model {
 public:
  explicit Model(const NcclGroup& group)
      : nccl_(group.nccl), fabric_(group.fabric), is_hopper_(group.architecture == "hopper"), ranks_(group.ranks) {
    nodes_ = fabric_.nodes(group.ranks);
    per_node_ = std::min(group.ranks, fabric_.gpus_per_node);
    row_ = static_cast<std::size_t>(std::min(nodes_, 3) - 1);
    const bool is_one = nodes_ == 1;
    channels_ = is_one ? fabric_.channels_in_node : fabric_.channels_between_nodes;
    bus_ = channels_ *
           (is_one ? fabric_.channel_gigabytes_per_second_in_node : fabric_.channel_gigabytes_per_second_between_nodes);
    if (!is_one) {
      bus_ = std::min(bus_, fabric_.nics * fabric_.nic_gigabytes_per_second);
    }
    // Without NVLink a ring over both sockets crosses the link between them, whichever GPUs it joins there.
    if (!fabric_.has_nvlink() && fabric_.spans_sockets(per_node_)) {
      bus_ = std::min(bus_, fabric_.socket_link_gigabytes_per_second);
    }
  }

  [[nodiscard]] std::vector<NcclCost> costs(double bytes) const {
    std::vector<NcclCost> out;
    for (const NcclProtocol protocol : kProtocols) {
      if (protocol == NcclProtocol::kLl128 && !fabric_.has_nvlink()) {
        continue;  // needs stores of 128 bytes that stay whole, which PCIe does not promise
      }
      out.push_back(cost(NcclAlgorithm::kRing, protocol, ring_us(protocol, bytes), ring_bus(protocol), bytes));
      out.push_back(cost(NcclAlgorithm::kTree, protocol, tree_us(protocol), tree_bus(protocol, bytes), bytes));
    }
    const double nvls = nvls_bus();
    if (nvls > 0) {
      const NcclAlgorithm algorithm = nodes_ == 1 ? NcclAlgorithm::kNvls : NcclAlgorithm::kNvlsTree;
      const double levels = std::log2(static_cast<double>(nodes_));
      const double latency = nccl_.nvls_us + 2 * levels * nccl_.nvls_tree_network_us;
      out.push_back(cost(algorithm, NcclProtocol::kSimple, latency, nvls, bytes));
    }
    return out;
  }

 private:
  [[nodiscard]] double steps() const { return 2.0 * (ranks_ - 1); }

  /// `bus` as nccl-tests defines it: ranks / steps of it is the rate at which the user's bytes go.
  [[nodiscard]] NcclCost cost(
      NcclAlgorithm algorithm, NcclProtocol protocol, double latency, double bus, double bytes) const {
    const double algorithm_rate =
        algorithm == NcclAlgorithm::kTree ? 0.5 * bus : bus * static_cast<double>(ranks_) / steps();
    const double time = latency + bytes / (1e3 * algorithm_rate);
    return {algorithm, protocol, time, bytes / (1e3 * time) * steps() / static_cast<double>(ranks_)};
  }

  [[nodiscard]] double ll_cap() const {
    if (nodes_ == 1) {
      return is_hopper_ ? nccl_.hopper_ll_cap : nccl_.ampere_ll_cap;
    }
    return (fabric_.cpu == "amd" ? nccl_.amd_ll_cap : nccl_.intel_ll_cap)[row_ - 1];
  }

  [[nodiscard]] double of_channels(const std::vector<double>& ampere, const std::vector<double>& hopper) const {
    return channels_ * (is_hopper_ ? hopper : ampere)[row_];
  }

  [[nodiscard]] double ring_bus(NcclProtocol protocol) const {
    switch (protocol) {
      case NcclProtocol::kLl:
        return std::min(ll_cap(), nccl_.ring_ll_share * bus_);
      case NcclProtocol::kLl128:
        return std::min(nccl_.ring_ll128_share * bus_,
                        of_channels(nccl_.ampere_ring_ll128_cap, nccl_.hopper_ring_ll128_cap));
      case NcclProtocol::kSimple:
        return bus_;
    }
    return bus_;
  }

  [[nodiscard]] double tree_bus(NcclProtocol protocol, double bytes) const {
    const double tree = std::min(nccl_.tree_share * bus_, of_channels(nccl_.ampere_tree_cap, nccl_.hopper_tree_cap));
    switch (protocol) {
      case NcclProtocol::kLl:
        return std::min(tree / nccl_.tree_ll_divisor, ll_cap()) * corrected(nccl_.tree_correction_ll, bytes);
      case NcclProtocol::kLl128:
        return std::min(tree * nccl_.tree_ll128_share[nodes_ == 1 ? 0 : 1],
                        of_channels(nccl_.ampere_tree_ll128_cap, nccl_.hopper_tree_ll128_cap)) *
               corrected(nccl_.tree_correction_ll128, bytes);
      case NcclProtocol::kSimple:
        return tree * corrected(nccl_.tree_correction_simple, bytes);
    }
    return tree;
  }

  static double corrected(const std::vector<double>& factors, double bytes) {
    const double index = std::floor(std::log2(std::max(bytes, 64.0) / 64));
    return index < static_cast<double>(factors.size()) ? factors[static_cast<std::size_t>(index)] : 1;
  }

  [[nodiscard]] double ring_us(NcclProtocol protocol, double bytes) const {
    const auto p = static_cast<std::size_t>(protocol);
    const double network_steps = 2.0 * (nodes_ - 1);
    double inside = (fabric_.has_nvlink() ? nccl_.ring_nvlink_us : nccl_.ring_pcie_us)[p];
    if (nodes_ > 1) {
      const double overhead = fabric_.cpu == "amd" ? nccl_.amd_overhead_us : nccl_.intel_overhead_us;
      inside = std::max(inside, overhead * (protocol == NcclProtocol::kSimple ? 3 : 1));
    }
    const double latency =
        nccl_.ring_base_us[p] + (steps() - network_steps) * inside + network_steps * nccl_.ring_network_us[p];
    const bool is_on_plateau =
        protocol == NcclProtocol::kSimple && nodes_ > 1 && bytes >= nccl_.plateau_slice_bytes * channels_ * ranks_;
    return is_on_plateau ? nccl_.plateau * latency : latency;
  }

  [[nodiscard]] double tree_us(NcclProtocol protocol) const {
    const auto p = static_cast<std::size_t>(protocol);
    const double inside = (fabric_.has_nvlink() ? nccl_.tree_nvlink_us : nccl_.tree_pcie_us)[p];
    return nccl_.tree_base_us[p] +
           2 * ((per_node_ - 1) * inside + std::log2(static_cast<double>(nodes_)) * nccl_.tree_network_us[p]);
  }

  /// 0: the GPUs have no NVLS, or it has not enough of them.
  [[nodiscard]] double nvls_bus() const {
    if (!is_hopper_ || !fabric_.has_nvlink() || nccl_.nvls_efficiency == 0 || per_node_ < 3) {
      return 0;
    }
    // Every GPU is the head of one channel: the links carry its own and one copy for each.
    const double heads = per_node_;
    double speed = 0;
    for (const double candidate : nccl_.nvls_speeds) {
      if ((heads + 1) * candidate <= fabric_.nvlink_gigabytes_per_second) {
        speed = candidate;
        break;
      }
    }
    double channel = speed * nccl_.nvls_efficiency * 2 * (heads - 1) / heads;
    if (nodes_ == 1) {
      channel = std::min(channel, nccl_.nvls_channel_cap);
    } else {
      const double between = fabric_.channel_gigabytes_per_second_between_nodes * (nodes_ == 2 ? 2 : 1);
      channel = std::min({channel, between, nccl_.nvls_tree_cap[row_]});
    }
    return heads * channel;
  }

  const NcclSpec& nccl_;
  const GpuFabric& fabric_;
  bool is_hopper_;
  std::int32_t ranks_;
  std::int32_t nodes_ = 1;
  std::int32_t per_node_ = 1;
  std::size_t row_ = 0;  ///< of tables by 1 node, 2, more
  std::int32_t channels_ = 1;
  double bus_ = 0;
};

/// Linear in the logarithm of the size, constant outside.
double interpolated(const std::vector<double>& sizes, const std::vector<double>& values, double bytes) {
  if (sizes.empty()) {
    return 1;
  }
  const auto above = std::upper_bound(sizes.begin(), sizes.end(), bytes);
  if (above == sizes.begin() || above == sizes.end()) {
    return above == sizes.end() ? values.back() : values.front();
  }
  const auto i = static_cast<std::size_t>(above - sizes.begin());
  const double share = std::log(bytes / sizes[i - 1]) / std::log(sizes[i] / sizes[i - 1]);
  return values[i - 1] + share * (values[i] - values[i - 1]);
}

/// Index of the tables for 2, 4 and 8 GPUs.
std::size_t size_class(std::int32_t ranks) {
  return ranks <= 2 ? 0 : ranks <= 4 ? 1 : 2;
}

}  // namespace

std::span<const node::PresetField<NcclSpec>> nccl_fields() {
  return rows();
}

NcclPreset load_nccl_preset(const node::FieldReader& reader) {
  if (reader.text("kind") != "nccl") {
    reader.fail("kind", "nccl");
  }
  NcclPreset out;
  out.nccl.name = reader.text("name");
  out.description = reader.text("description");
  out.sources = node::read_fields(out.nccl, nccl_fields(), reader);
  reader.refuse_other_keys();
  return out;
}

std::string_view name(NcclAlgorithm algorithm) {
  constexpr std::array<std::string_view, 4> kNames = {"ring", "tree", "nvls", "nvls-tree"};
  return kNames[static_cast<std::size_t>(algorithm)];
}

std::string_view name(NcclProtocol protocol) {
  constexpr std::array<std::string_view, 3> kNames = {"ll", "ll128", "simple"};
  return kNames[static_cast<std::size_t>(protocol)];
}

std::vector<NcclCost> nccl_all_reduce_costs(const NcclGroup& group, double bytes) {
  LPU_CHECK(group.ranks > 1 && bytes > 0, "an all-reduce has ranks and bytes");
  return Model(group).costs(bytes);
}

NcclCost nccl_all_reduce(const NcclGroup& group, double bytes) {
  if (group.ranks == 1 || bytes <= 0) {
    return {};
  }
  const std::vector<NcclCost> costs = nccl_all_reduce_costs(group, bytes);
  return *std::min_element(
      costs.begin(), costs.end(), [](const NcclCost& a, const NcclCost& b) { return a.microseconds < b.microseconds; });
}

double measured_nccl_all_reduce_us(const NcclGroup& group, double bytes) {
  const GpuFabric& fabric = group.fabric;
  const std::array<const std::vector<double>*, 3> in_node = {
      &fabric.measured_over_model_2, &fabric.measured_over_model_4, &fabric.measured_over_model_8};
  const std::vector<double>& factors =
      fabric.nodes(group.ranks) > 1 ? fabric.measured_over_model_nodes : *in_node[size_class(group.ranks)];
  return nccl_all_reduce(group, bytes).microseconds * interpolated(fabric.measured_at_bytes, factors, bytes);
}

double engine_all_reduce_us(const NcclGroup& group, double bytes) {
  double best = measured_nccl_all_reduce_us(group, bytes);
  const GpuFabric& fabric = group.fabric;
  const std::size_t i = size_class(group.ranks);
  if (group.ranks == 1 || fabric.nodes(group.ranks) > 1) {
    return best;
  }
  if (fabric.one_shot_gigabytes_per_second[i] > 0) {
    best = std::min(best, fabric.one_shot_start_us[i] + bytes / (1e3 * fabric.one_shot_gigabytes_per_second[i]));
  }
  if (fabric.two_shot_gigabytes_per_second[i] > 0) {
    best = std::min(best, fabric.two_shot_start_us[i] + bytes / (1e3 * fabric.two_shot_gigabytes_per_second[i]));
  }
  return best;
}

double ideal_all_reduce_us(const NcclGroup& group, double bytes) {
  if (group.ranks == 1) {
    return 0;
  }
  const GpuFabric& fabric = group.fabric;
  const double nodes = fabric.nodes(group.ranks);
  const double inside = std::min(group.ranks, fabric.gpus_per_node);
  // A ring passes 2 (n-1)/n of the bytes over each GPU's link. A switch that adds up needs (n+1)/n of them.
  const bool switch_adds = fabric.has_nvlink() && group.architecture == "hopper" && group.nccl.nvls_efficiency > 0;
  const double ring = 2 * (inside - 1) / inside;
  const double passes = switch_adds ? std::min(ring, (inside + 1) / inside) : ring;
  const double in_node = passes * bytes / (1e3 * fabric.link_peak_gigabytes_per_second);
  const double between = 2 * (nodes - 1) / nodes * bytes / (1e3 * fabric.nics * fabric.nic_peak_gigabytes_per_second);
  return std::max(in_node, between);
}

}  // namespace lpu::interconnect
