#pragma once
#include "lpu/cluster/generate.hpp"
#include "lpu/node/sampling.hpp"

// cereal finds these by the namespaces of their arguments.
namespace lpu::node {

template <typename Archive>
void serialize(Archive& archive, Sampling& sampling) {
  archive(sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed);
}

}  // namespace lpu::node

namespace lpu::cluster {

template <typename Archive>
void serialize(Archive& archive, TimeUse& time) {
  archive(time.kernels_s, time.moving_s, time.waiting_s, time.other_s);
}

}  // namespace lpu::cluster
