#include "waterfall.hpp"

#include <algorithm>
#include <cmath>

#include "console.hpp"
#include "lpu/node/quantity.hpp"
#include "lpu/node/quantity_text.hpp"

namespace lpu::cluster {

namespace json = boost::json;

Waterfall lpu_waterfall(const LpuPoint& point, const scheduler::CompileRequest& request, std::string system) {
  const scheduler::LayerBudget& layer = point.report.budget;
  const double us = 1e6 / static_cast<double>(request.chip.clock.count());
  const double scale = us * static_cast<double>(point.report.layers_cycles) /
                       static_cast<double>(std::max<std::int64_t>(layer.layer, 1));
  Waterfall out{.model = request.model.name,
                .system = std::move(system),
                .devices = point.tensor_parallel * point.pipeline_parallel,
                .tp = point.tensor_parallel,
                .pp = point.pipeline_parallel,
                .parts = {},
                .total_us = point.latency_us(request.chip)};
  const std::pair<const char*, std::int64_t> parts[] = {{"install", layer.install},
                                                        {"activation_slots", layer.activation_slots},
                                                        {"fill", layer.fill},
                                                        {"vxm", layer.vxm},
                                                        {"sxm", layer.sxm},
                                                        {"attention", layer.attention},
                                                        {"router", layer.router},
                                                        {"wires_exposed", layer.wires_exposed},
                                                        {"waiting", layer.waiting}};
  for (const auto& [key, cycles] : parts) {
    out.parts.emplace_back(key, scale * static_cast<double>(cycles));
  }
  out.parts.emplace_back("hops", us * static_cast<double>(point.report.hops_cycles));
  out.parts.emplace_back("ends", us * static_cast<double>(point.report.ends_cycles));
  return out;
}

Waterfall gpu_waterfall(const scheduler::GpuPlan& plan, std::string model, std::string system) {
  const scheduler::GpuParts& parts = plan.parts;
  return {.model = std::move(model),
          .system = std::move(system),
          .devices = plan.partition.devices(),
          .tp = plan.partition.tensor_parallel,
          .pp = plan.partition.pipeline_parallel,
          .parts = {{"hbm", parts.weights_us},
                    {"launch", parts.launch_us},
                    {"attention", parts.attention_us},
                    {"all_reduce", parts.all_reduce_us},
                    {"pipeline_hops", parts.pipeline_hops_us},
                    {"head", parts.head_us},
                    {"host", parts.host_us},
                    {"pipeline_wait", parts.pipeline_wait_us}},
          .total_us = parts.total()};
}

json::object to_json(const Waterfall& waterfall) {
  json::object parts;
  for (const auto& [key, us] : waterfall.parts) {
    parts[key] = us;
  }
  return {{"model", waterfall.model},
          {"system", waterfall.system},
          {"devices", waterfall.devices},
          {"tp", waterfall.tp},
          {"pp", waterfall.pp},
          {"parts_us", std::move(parts)},
          {"total_us", waterfall.total_us}};
}

std::string to_text(const std::vector<Waterfall>& waterfalls) {
  constexpr double kWidth = 40;
  std::string out;
  for (const Waterfall& waterfall : waterfalls) {
    double longest = 0;
    for (const Waterfall& other : waterfalls) {
      for (const auto& [key, us] : other.parts) {
        longest = other.model == waterfall.model ? std::max(longest, us) : longest;
      }
    }
    out += waterfall.model + " on " + waterfall.system + ", " + std::to_string(waterfall.devices) +
           " devices: " + node::fixed(waterfall.total_us, 0) + " us a token, one user\n";
    Table table;
    for (const auto& [key, us] : waterfall.parts) {
      if (us > 0) {
        std::string words = key;
        std::replace(words.begin(), words.end(), '_', ' ');
        table.add({words,
                   node::fixed(us, 1),
                   std::string(static_cast<std::size_t>(std::lround(kWidth * us / longest)), '#')});
      }
    }
    out += table.text();
  }
  return out;
}

}  // namespace lpu::cluster
