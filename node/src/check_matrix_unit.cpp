#include "check_matrix_unit.hpp"

#include <algorithm>

namespace lpu::node {

MatrixPlane::MatrixPlane(const ChipSpec& chip)
    : latency_(latency(Opcode::kCompute, chip).count()),
      accumulators_(static_cast<std::size_t>(chip.mxm_accumulators_per_plane)) {}

void MatrixPlane::take_port(const Site& site, std::int64_t& last, const char* what) const {
  if (last == site.cycle) {
    breach(site, std::string("second ") + what + " of its MXM plane in this cycle");
  }
  last = site.cycle;
}

void MatrixPlane::install(const Site& site, std::uint64_t tile, std::int32_t group, std::int32_t groups) {
  take_port(site, last_install_, "install");
  if (group == 0) {
    if (buffered_groups_ > 0) {
      breach(site,
             is_complete_
                 ? "installs into a weight buffer whose tile (instruction " + std::to_string(installer_) +
                       ") no compute has made active yet"
                 : "installs into a weight buffer while instruction " + std::to_string(installer_) + " still fills it");
    }
    buffered_ = tile;
    installer_ = site.instruction;
    is_complete_ = false;
  } else if (buffered_groups_ != group || is_complete_ || buffered_ != tile) {
    breach(site,
           "installs column group " + std::to_string(group) + " of a tile of which the buffer holds " +
               std::to_string(buffered_ == tile && !is_complete_ ? buffered_groups_ : 0));
  }
  buffered_groups_ = group + 1;
  if (buffered_groups_ == groups) {
    is_complete_ = true;
    completed_ = site.cycle;
  }
}

void MatrixPlane::use_tile(const Site& site, std::uint64_t tile) {
  const bool is_in_buffer = buffered_groups_ > 0 && buffered_ == tile;
  if (is_in_buffer && is_complete_ && completed_ < site.cycle) {
    active_ = tile;
    is_active_ = true;
    buffered_groups_ = 0;
    is_complete_ = false;
    return;
  }
  if (is_active_ && active_ == tile) {
    return;
  }
  breach(site,
         is_in_buffer
             ? "computes with a tile before its last install (instruction " + std::to_string(installer_) + ") is over"
             : std::string("computes with a tile that does not stand in its MXM plane"));
}

void MatrixPlane::compute(const Site& site, std::int32_t accumulator, const Product& product) {
  take_port(site, last_compute_, "compute");
  use_tile(site, product.tile);
  Accumulator& sum = accumulators_[static_cast<std::size_t>(accumulator)];
  const std::string which = "accumulator " + std::to_string(accumulator);
  if (sum.last_drain == site.cycle) {
    breach(site, "computes into " + which + " in the cycle in which it is drained");
  }
  if (product.is_first) {
    if (sum.computes > 0) {
      breach(site,
             "overwrites " + which + ", whose sum (instruction " + std::to_string(sum.instruction) +
                 ") is not drained yet");
    }
    sum.iteration = product.iteration;
    sum.activations.clear();
    sum.tensors.clear();
  } else if (sum.computes == 0) {
    breach(site, "adds to " + which + ", which holds no sum");
  } else if (sum.iteration != product.iteration) {
    breach(site, "adds to " + which + ", which holds a sum of iteration " + std::to_string(sum.iteration));
  }
  if (std::find(sum.activations.begin(), sum.activations.end(), product.activation) != sum.activations.end()) {
    breach(site, "adds an activation row to " + which + " that its sum has already");
  }
  sum.activations.push_back(product.activation);
  for (const std::uint16_t tensor : {product.activation_tensor, product.tile_tensor}) {
    if (std::find(sum.tensors.begin(), sum.tensors.end(), tensor) == sum.tensors.end()) {
      sum.tensors.push_back(tensor);
    }
  }
  ++sum.computes;
  sum.last_compute = site.cycle;
  sum.instruction = site.instruction;
}

void MatrixPlane::drain(
    const Site& site, std::int32_t accumulator, std::int32_t computes, const Tensor& drained, std::int64_t iteration) {
  take_port(site, last_drain_, "drain");
  Accumulator& sum = accumulators_[static_cast<std::size_t>(accumulator)];
  const std::string which = "accumulator " + std::to_string(accumulator);
  if (sum.computes == 0) {
    breach(site, "drains " + which + ", which holds no sum");
  }
  if (sum.iteration != iteration) {
    breach(site, "drains " + which + ", which holds a sum of iteration " + std::to_string(sum.iteration));
  }
  if (sum.computes != computes) {
    breach(
        site,
        "drains " + which + " after " + std::to_string(sum.computes) + " of " + std::to_string(computes) + " computes");
  }
  if (site.cycle < sum.last_compute + latency_) {
    breach(site,
           "drains " + which + " " + std::to_string(site.cycle - sum.last_compute) +
               " cycles after its last compute; it can be from " + std::to_string(latency_) + " on");
  }
  for (const std::uint16_t tensor : sum.tensors) {
    if (std::find(drained.sources.begin(), drained.sources.end(), tensor) == drained.sources.end()) {
      breach(site,
             "drains '" + drained.name + "' from a sum over tensor " + std::to_string(tensor) +
                 ", which is none of its sources");
    }
  }
  sum.computes = 0;
  sum.last_drain = site.cycle;
}

void MatrixPlane::check_nothing_left(std::int32_t chip) const {
  if (buffered_groups_ > 0) {
    breach({.chip = chip, .cycle = last_install_, .instruction = installer_}, "installs a tile that no compute uses");
  }
  for (std::size_t i = 0; i < accumulators_.size(); ++i) {
    if (accumulators_[i].computes > 0) {
      breach({.chip = chip, .cycle = accumulators_[i].last_compute, .instruction = accumulators_[i].instruction},
             "adds to accumulator " + std::to_string(i) + ", which nobody drains");
    }
  }
}

}  // namespace lpu::node
