#pragma once
#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "lpu/scheduler/compile.hpp"
#include "test_chip.hpp"

namespace lpu::test {

/// A request to compile, and the limits that it was made to break.
struct RandomRequest {
  scheduler::CompileRequest request;
  std::set<std::string> broken;  ///< "tp", "kv", …: the words that a refusal must begin its parts with; empty: none
};

/// Small models on small systems, drawn from a seed: what the compiler must have a program for, or refuse.
///
/// Widths are not multiples of a vector, heads not of TP; systems have 1, 3, 5, 7 chips and more; every compute path,
/// mixtures with odd expert counts, one KV head, heads that do not add up to the hidden size. About one request in
/// seven breaks one to three limits.
class RequestGenerator {
 public:
  explicit RequestGenerator(std::uint64_t seed) : random_(seed) {}

  RandomRequest make() {
    RandomRequest out;
    scheduler::CompileRequest& request = out.request;
    request.chip = tsp_v1();
    request.compute = one_of({scheduler::Compute::kW8A8,
                              scheduler::Compute::kW8A16,
                              scheduler::Compute::kFp16,
                              scheduler::Compute::kFp32Reference});
    request.kv = request.compute == scheduler::Compute::kW8A8            ? scheduler::KvType::kInt8
                 : request.compute == scheduler::Compute::kFp32Reference ? scheduler::KvType::kFp32
                                                                         : scheduler::KvType::kFp16;
    request.model = model(request.compute);
    if (is(1, 5)) {
      // The search for an interval takes tens of schedules: one layer, and no more than eight heads.
      request.objective = scheduler::Objective::kThroughput;
      request.model.layers = 1;
      request.model.kv_heads = std::min<std::int64_t>(request.model.kv_heads, 4);
      request.model.heads = request.model.kv_heads * pick(1, 2);
    }
    request.experts = one_of({scheduler::ExpertMode::kIndirect, scheduler::ExpertMode::kAll});
    request.sampling = one_of({scheduler::Sampling::kChip, scheduler::Sampling::kHost});
    request.search_orders = 1;
    request.micro_batch = is(1, 2) ? 1 : pick(2, 8);
    request.context = is(1, 8) ? pick(1, 16) : is(1, 8) ? pick(600, 2048) : pick(17, 600);
    if (is(2, 3)) {
      request.users = pick(1, 12);
    }
    request.seed = static_cast<std::uint64_t>(pick(1, 1'000'000));
    place(request);
    if (is(1, 7)) {
      for (std::int32_t i = pick(1, 3); i > 0; --i) {
        break_limit(out);
      }
      if (request.chips > 0 &&
          request.tensor_parallel.value_or(1) * request.pipeline_parallel.value_or(1) > request.chips) {
        out.broken.insert("tp x pp");
      }
    }
    return out;
  }

 private:
  std::int32_t pick(std::int32_t least, std::int32_t most) {
    return std::uniform_int_distribution<std::int32_t>(least, most)(random_);
  }
  bool is(std::int32_t parts, std::int32_t of) { return pick(1, of) <= parts; }
  template <typename T>
  T one_of(std::initializer_list<T> choices) {
    return choices.begin()[pick(0, static_cast<std::int32_t>(choices.size()) - 1)];
  }

  scheduler::ModelConfig model(scheduler::Compute compute) {
    scheduler::ModelConfig out;
    out.name = "random";
    out.hidden = is(1, 3) ? pick(1, 4) * 320 : pick(16, 1400);
    out.layers = pick(1, 3);
    out.kv_heads = one_of({1, 1, 2, 3, 4, 5, 6, 7, 8});
    out.heads = out.kv_heads * one_of({1, 2, 3, 4, 5, 8});
    const std::int32_t widest = compute == scheduler::Compute::kW8A8 ? 160 : 80;
    out.head_dim = 2 * (is(1, 3) ? one_of({32, 64}) : pick(1, widest));
    out.ffn = is(1, 3) ? pick(1, 4) * 320 : pick(16, 1800);
    out.vocabulary = pick(2, 3000);
    if (is(1, 3)) {
      out.family = scheduler::ModelFamily::kMixtral;
      out.experts = pick(1, 9);
      out.experts_per_token = pick(1, std::min(4, static_cast<std::int32_t>(out.experts)));
    }
    out.max_position = 2048;
    out.ties_embeddings = is(1, 3);
    return out;
  }

  /// System and degrees; about half of them left to the compiler.
  void place(scheduler::CompileRequest& request) {
    request.chips = one_of({0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 11, 13, 16, 17, 24});
    const std::int32_t most = request.chips == 0 ? 8 : request.chips;
    if (is(1, 2)) {
      std::int32_t tp = one_of({1, 2, 4, 8});
      while (tp > most) {
        tp /= 2;
      }
      request.tensor_parallel = tp;
    }
    if (is(1, 2)) {
      const std::int32_t groups = most / request.tensor_parallel.value_or(1);
      request.pipeline_parallel = pick(1, std::min(groups, static_cast<std::int32_t>(3 * request.model.layers)));
    }
  }

  void break_limit(RandomRequest& out) {
    scheduler::CompileRequest& request = out.request;
    switch (pick(0, 6)) {
      case 0:
        if (out.broken.insert("kv").second) {
          request.kv = request.kv == scheduler::KvType::kInt8 ? scheduler::KvType::kFp16 : scheduler::KvType::kInt8;
        }
        break;
      case 1:
        request.model.head_dim = 2 * pick(161, 400);
        out.broken.insert("head_dim");
        break;
      case 2:
        request.micro_batch = is(1, 2) ? pick(-3, 0) : pick(33, 1000);
        out.broken.insert("micro-batch");
        break;
      case 3:
        request.context = is(1, 2) ? pick(-3, 0) : pick(2049, 100'000);
        out.broken.insert("context");
        break;
      case 4:
        request.tensor_parallel = one_of({-1, 0, 3, 5, 6, 7, 9, 16});
        out.broken.insert("tp");
        break;
      case 5:
        request.pipeline_parallel =
            is(1, 2) ? pick(-2, 0) : static_cast<std::int32_t>(3 * request.model.layers) + pick(1, 9);
        out.broken.insert("pp");
        break;
      case 6:
        request.users = pick(-2, 0);
        out.broken.insert("users");
        break;
      default:
        break;
    }
  }

  std::mt19937_64 random_;
};

/// Everything that decides the outcome, as flags and settings of the program; for people who replay a case.
inline std::string describe(const scheduler::CompileRequest& r) {
  static constexpr const char* kComputes[] = {"w8a8", "w8a16", "fp16", "fp32ref"};
  static constexpr const char* kKvTypes[] = {"int8", "fp16", "fp32"};
  const scheduler::ModelConfig& m = r.model;
  std::ostringstream out;
  out << "--chips " << r.chips;
  if (r.tensor_parallel) {
    out << " --tp " << *r.tensor_parallel;
  }
  if (r.pipeline_parallel) {
    out << " --pp " << *r.pipeline_parallel;
  }
  out << " --micro-batch " << r.micro_batch;
  if (r.users) {
    out << " --users " << *r.users;
  }
  out << " --context " << r.context << " --compute " << kComputes[static_cast<std::size_t>(r.compute)] << " --kv "
      << kKvTypes[static_cast<std::size_t>(r.kv)] << " --experts "
      << (r.experts == scheduler::ExpertMode::kAll ? "all" : "indirect") << " --objective "
      << (r.objective == scheduler::Objective::kLatency ? "latency" : "throughput") << " --sampling "
      << (r.sampling == scheduler::Sampling::kChip ? "chip" : "host") << " --search-orders " << r.search_orders
      << " --seed " << r.seed << " --set model.hidden=" << m.hidden << " --set model.layers=" << m.layers
      << " --set model.heads=" << m.heads << " --set model.kv_heads=" << m.kv_heads
      << " --set model.head_dim=" << m.head_dim << " --set model.ffn=" << m.ffn
      << " --set model.vocabulary=" << m.vocabulary
      << " --set model.family=" << (m.family == scheduler::ModelFamily::kMixtral ? "mixtral" : "llama")
      << " --set model.experts=" << m.experts << " --set model.experts_per_token=" << m.experts_per_token
      << " --set model.ties_embeddings=" << (m.ties_embeddings ? "true" : "false");
  return out.str();
}

}  // namespace lpu::test
