#pragma once
#include <string>
#include <utility>
#include <vector>

#include <boost/json.hpp>

#include "lpu/scheduler/gpu_plan.hpp"
#include "lpu_points.hpp"

namespace lpu::cluster {

/// Where one user's token spends its time on one machine. Parts sum to the total.
struct Waterfall {
  std::string model, system;
  std::int32_t devices = 0, tp = 0, pp = 0;
  std::vector<std::pair<std::string, double>> parts;  ///< key of results.json, microseconds
  double total_us = 0;
};

/// The layers' cycles are divided as the typical layer's are (`plan --explain`); hops and ends stand apart.
[[nodiscard]] Waterfall lpu_waterfall(const LpuPoint& point,
                                      const scheduler::CompileRequest& request,
                                      std::string system);
[[nodiscard]] Waterfall gpu_waterfall(const scheduler::GpuPlan& plan, std::string model, std::string system);

[[nodiscard]] boost::json::object to_json(const Waterfall& waterfall);
/// Bars of one scale, machine under machine.
[[nodiscard]] std::string to_text(const std::vector<Waterfall>& waterfalls);

}  // namespace lpu::cluster
