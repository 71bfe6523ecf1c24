#include "published.hpp"

#include "comparison.hpp"
#include "configuration.hpp"
#include "console.hpp"
#include "embedded_presets.hpp"
#include "lpu/node/error.hpp"
#include "lpu/node/field_reader.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/sourced_value.hpp"
#include "lpu_points.hpp"
#include "plan_report.hpp"

namespace lpu::cluster {

namespace json = boost::json;
using scheduler::Compute;
using scheduler::ExpertMode;

std::optional<Published> published_speed(const std::string& model) {
  for (const PresetText& preset : embedded_presets()) {
    if (preset.kind != "published" || preset.name != model) {
      continue;
    }
    const node::FieldReader reader = node::FieldReader::parse(preset.text, "published/" + model + ".json");
    const auto count = [&](std::string_view key, std::string_view noun) {
      const node::SourcedValue field = node::read_sourced(reader, key);
      return node::parse_quantity(field.value, node::Dimension::kCount, field.where, noun);
    };
    Published out{.row = reader.text("row"),
                  .chips = static_cast<std::int32_t>(count("chips", "chips")),
                  .least = static_cast<double>(count("least", "tokens/s")),
                  .most = static_cast<double>(count("most", "tokens/s")),
                  .source = node::read_sourced(reader, "most").source};
    static_cast<void>(reader.text("name"));
    reader.refuse_other_keys();
    return out;
  }
  return std::nullopt;
}

std::vector<PublishedOverPredicted> validate_published(const scheduler::CompileRequest& request, bool has_all_experts) {
  const std::optional<Published> published = published_speed(request.model.name);
  if (!published) {
    return {};
  }
  std::vector<scheduler::CompileRequest> requests;
  for (const Compute compute : {Compute::kW8A8, Compute::kW8A16}) {
    for (const ExpertMode experts : {ExpertMode::kIndirect, ExpertMode::kAll}) {
      if (experts == ExpertMode::kAll && (request.model.experts == 0 || !has_all_experts)) {
        continue;
      }
      scheduler::CompileRequest one = request;
      one.chips = published->chips;
      one.compute = compute;
      one.kv = compute == Compute::kW8A8 ? scheduler::KvType::kInt8 : scheduler::KvType::kFp16;
      one.experts = experts;
      one.tensor_parallel.reset();
      one.pipeline_parallel.reset();
      requests.push_back(std::move(one));
    }
  }
  std::vector<std::optional<PublishedOverPredicted>> found(requests.size());
  in_parallel(static_cast<std::int32_t>(requests.size()), [&](std::int32_t task) {
    const auto at = static_cast<std::size_t>(task);
    const auto point = LpuPlanner(requests[at]).fastest(PointKind::kFilled);
    if (point) {
      found[at] = PublishedOverPredicted{
          .model = requests[at].model.name,
          .compute = std::string(name(requests[at].compute)),
          .experts = requests[at].model.experts > 0 ? std::string(name(requests[at].experts)) : std::string(),
          .published = *published,
          .chips_used = point->tensor_parallel * point->pipeline_parallel,
          .tp = point->tensor_parallel,
          .pp = point->pipeline_parallel,
          .predicted = point->tokens_per_second};
    }
  });
  std::vector<PublishedOverPredicted> out;
  for (auto& row : found) {
    if (row) {
      out.push_back(std::move(*row));
    }
  }
  return out;
}

json::array to_json(const std::vector<PublishedOverPredicted>& rows) {
  json::array out;
  for (const PublishedOverPredicted& row : rows) {
    out.push_back({{"row", row.published.row},
                   {"model", row.model},
                   {"compute", row.compute},
                   {"experts", row.experts.empty() ? json::value(nullptr) : json::value(row.experts)},
                   {"chips_published", row.published.chips},
                   {"chips_predicted", row.chips_used},
                   {"tp", row.tp},
                   {"pp", row.pp},
                   {"published_least", row.published.least},
                   {"published_most", row.published.most},
                   {"predicted", row.predicted},
                   {"published_over_predicted_least", row.least()},
                   {"published_over_predicted_most", row.most()},
                   {"source", row.published.source}});
  }
  return out;
}

std::string to_text(const std::vector<PublishedOverPredicted>& rows) {
  if (rows.empty()) {
    return {};
  }
  Table table;
  table.add({"", "model", "path", "experts", "chips", "TPxPP", "published", "ours", "published / ours"});
  for (const PublishedOverPredicted& row : rows) {
    table.add({row.published.row,
               row.model,
               row.compute,
               row.experts.empty() ? "-" : row.experts,
               std::to_string(row.published.chips),
               std::to_string(row.tp) + "x" + std::to_string(row.pp),
               node::fixed(row.published.least, 0) + "-" + node::fixed(row.published.most, 0),
               rate_text(row.predicted),
               node::fixed(row.least(), 2) + " to " + node::fixed(row.most(), 2)});
  }
  return "One user, tokens/s; nothing is fitted\n" + table.text();
}

}  // namespace lpu::cluster
