#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <boost/json.hpp>

#include "lpu/scheduler/compile.hpp"

namespace lpu::cluster {

/// One user's speed on real chips, as it was published (cluster/published).
struct Published {
  std::string row;  ///< R14, R15
  std::int32_t chips = 0;
  double least = 0;  ///< tokens/s a user
  double most = 0;
  std::string source;
};
/// Of a preset's model; nothing where none is known.
[[nodiscard]] std::optional<Published> published_speed(const std::string& model);

/// A published figure beside ours on as many chips, first principles, nothing fitted.
struct PublishedOverPredicted {
  std::string model, compute, experts;
  Published published;
  std::int32_t chips_used = 0;  ///< TP x PP; the rest of the published number idles
  std::int32_t tp = 0, pp = 0;
  double predicted = 0;  ///< tokens/s of one user
  [[nodiscard]] double least() const { return published.least / predicted; }
  [[nodiscard]] double most() const { return published.most / predicted; }
  [[nodiscard]] double middle() const { return (least() + most()) / 2; }
};

/// Every compute path that the chip has for 8-bit weights: w8a8, w8a16; experts: chosen ones, or all.
/// @param request  model and chip; the rest is set here
/// @param has_all_experts  also with every expert installed, which takes a minute to compile
/// @return  empty where nothing was published
[[nodiscard]] std::vector<PublishedOverPredicted> validate_published(const scheduler::CompileRequest& request,
                                                                     bool has_all_experts = true);

[[nodiscard]] boost::json::array to_json(const std::vector<PublishedOverPredicted>& rows);
[[nodiscard]] std::string to_text(const std::vector<PublishedOverPredicted>& rows);

}  // namespace lpu::cluster
