#include "scaling.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "json_output.hpp"
#include "lpu/node/error.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;

constexpr double kNearLinear = 0.90;
constexpr double kSaturated = 1.05;
constexpr std::int64_t kSpan = 8;  // the claim is about [N0, 8 N0]

template <typename T>
json::value known(const std::optional<T>& value) {
  return value ? json::value(*value) : json::value(nullptr);
}
json::value known(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

std::string cell(const json::value& value) {
  if (value.is_null()) {
    return {};
  }
  return value.is_string() ? std::string(value.get_string()) : compact(value);
}

bool is_saturated(const ScalingRow& row) {
  return row.tokens_per_second && row.users_saturating && row.users_fit && *row.users_saturating <= *row.users_fit;
}

const ScalingRow* find_n0(std::span<const ScalingRow> curve, std::optional<std::int32_t> n0) {
  const auto found = std::find_if(curve.begin(), curve.end(), [&](const ScalingRow& row) {
    return n0 ? row.devices == *n0 && row.tokens_per_second.has_value() : is_saturated(row);
  });
  return found == curve.end() ? nullptr : &*found;
}

/// Of rows that have their efficiencies.
Verdict verdict_of(std::span<const ScalingRow> curve, const ScalingRow& first) {
  const auto is_hollow = [](const ScalingRow& row) { return row.filled.has_value() && !*row.filled; };
  bool is_low = false;
  bool is_high = false;
  bool has_hollow = is_hollow(first);
  std::int32_t last = 0;
  for (const ScalingRow& row : curve) {
    if (row.devices < first.devices || row.devices > kSpan * first.devices) {
      continue;
    }
    last = row.devices;
    if (is_hollow(row)) {
      has_hollow = true;
    } else {
      is_low = is_low || !row.efficiency_total || *row.efficiency_total < kNearLinear;
      is_high = is_high || row.efficiency_total.value_or(0) > kSaturated;
    }
  }
  if (is_hollow(first)) {
    return Verdict::kNotCompiled;
  }
  if (is_high) {
    return Verdict::kNotSaturated;
  }
  if (is_low) {
    return Verdict::kNo;
  }
  if (has_hollow) {
    return Verdict::kNotCompiled;
  }
  return last < kSpan * first.devices ? Verdict::kGridEnds : Verdict::kNearLinear;
}

}  // namespace

json::object to_json(const ScalingRow& row) {
  json::object out;
  out["curve"] = row.curve;
  out["system"] = row.system;
  out["model"] = row.model;
  out["compute"] = row.compute;
  out["kv"] = row.kv;
  out["context"] = row.context;
  out["devices"] = row.devices;
  out["filled"] = known(row.filled);
  out["n0"] = known(row.n0);
  out["users_saturating"] = known(row.users_saturating);
  out["users_fit"] = known(row.users_fit);
  out["token_latency_us"] = known(row.token_latency_us);
  out["tp"] = known(row.tp);
  out["pp"] = known(row.pp);
  out["micro_batch"] = known(row.micro_batch);
  out["users"] = known(row.users);
  out["slo_tpot_ms"] = known(row.slo_tpot_ms);
  out["tokens_per_second_per_user"] = known(row.tokens_per_second_per_user);
  out["tokens_per_second"] = known(row.tokens_per_second);
  out["efficiency_total"] = known(row.efficiency_total);
  out["replicas"] = row.replicas;
  out["jitter_cycles_max"] = known(row.jitter_cycles_max);
  out["occupancy"] = known(row.occupancy);
  out["latency_quality"] = known(row.latency_quality);
  out["published_over_predicted"] = known(row.published_over_predicted);
  out["tier"] = known(row.tier);
  out["power_kw"] = known(row.power_kw);
  out["tokens_per_second_per_kw"] = known(row.tokens_per_second_per_kw);
  out["capex_usd"] = known(row.capex_usd);
  out["fingerprint"] = known(row.fingerprint);
  return out;
}

std::string to_csv(std::span<const ScalingRow> rows) {
  std::string out;
  const auto add_line = [&](const json::object& object, bool is_header) {
    std::string_view separator;
    for (const auto& member : object) {
      out += separator;
      out += is_header ? std::string(member.key()) : cell(member.value());
      separator = ",";
    }
    out += "\n";
  };
  add_line(to_json(ScalingRow{}), true);
  for (const ScalingRow& row : rows) {
    add_line(to_json(row), false);
  }
  return out;
}

std::string_view words(Verdict verdict) {
  constexpr std::array<std::string_view, 7> kWords = {"near-linear",
                                                      "no",
                                                      "not saturated",
                                                      "no N where the saturating users fit",
                                                      "no N meets the SLO",
                                                      "the grid ends before 8 x N0",
                                                      "not compiled: run compare"};
  return kWords[static_cast<std::size_t>(verdict)];
}

double efficiency(double rate, std::int32_t devices, double rate_at_n0, std::int32_t n0) {
  return (rate / devices) / (rate_at_n0 / n0);
}

Verdict judge(std::span<ScalingRow> curve, std::optional<std::int32_t> n0) {
  if (std::none_of(curve.begin(), curve.end(), [](const auto& row) { return row.tokens_per_second.has_value(); })) {
    return Verdict::kNeverMeets;
  }
  const ScalingRow* first = find_n0(curve, n0);
  if (first == nullptr) {
    return Verdict::kNeverFits;
  }
  const double rate = *first->tokens_per_second;
  for (ScalingRow& row : curve) {
    row.n0 = first->devices;
    if (row.devices >= first->devices && row.tokens_per_second) {
      row.efficiency_total = efficiency(*row.tokens_per_second, row.devices, rate, first->devices);
    }
  }
  return verdict_of(curve, *first);
}

std::vector<ScalingRow> replicate(std::span<const ScalingRow> curve) {
  std::vector<ScalingRow> out;
  for (const ScalingRow& at : curve) {
    const ScalingRow* best = nullptr;
    double most = 0;
    for (const ScalingRow& one : curve) {
      const double rate = at.devices / one.devices * one.tokens_per_second.value_or(0);
      if (one.devices <= at.devices && rate > most) {
        most = rate;
        best = &one;
      }
    }
    ScalingRow row = best == nullptr ? at : *best;
    row.curve = "X_rep";
    row.devices = at.devices;
    row.n0.reset();
    row.efficiency_total.reset();
    if (best != nullptr) {
      row.replicas = at.devices / best->devices;
      row.tokens_per_second = most;
      for (std::optional<std::int64_t>* users : {&row.users, &row.users_fit, &row.users_saturating}) {
        if (*users) {
          **users *= row.replicas;
        }
      }
    }
    row.power_kw = at.power_kw;
    row.capex_usd = at.capex_usd;
    if (row.power_kw && row.tokens_per_second) {
      row.tokens_per_second_per_kw = *row.tokens_per_second / *row.power_kw;
    }
    out.push_back(std::move(row));
  }
  return out;
}

}  // namespace lpu::cluster
