#include "lpu/scheduler/gpu_plan.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "lpu/node/quantity_text.hpp"

namespace lpu::scheduler {
namespace {

using interconnect::NcclGroup;
using node::GpuPrecision;
using node::InputError;

constexpr double kActivationBytes = 2;  // bf16 between kernels and on the wires, whatever the weights are
constexpr double kMicroseconds = 1e6;
constexpr std::int64_t kUsersMost = std::int64_t{1} << 20U;
constexpr double kSaturation = 1.05;

GpuPrecision precision(Compute compute) {
  switch (compute) {
    case Compute::kW8A8:
      return GpuPrecision::k8Bit;
    case Compute::kW8A16:
      return GpuPrecision::k8BitWeights;
    case Compute::kFp16:
      return GpuPrecision::k16Bit;
    case Compute::kFp32Reference:
      return GpuPrecision::k32Bit;
  }
  return GpuPrecision::k16Bit;
}

double kv_bytes(KvType kv) {
  switch (kv) {
    case KvType::kInt8:
      return 1;
    case KvType::kFp16:
      return 2;
    case KvType::kFp32:
      return 4;
  }
  return 2;
}

/// What one GPU of a TP group holds of each layer.
struct GpuShard {
  double hidden = 0, query = 0, key_value = 0, ffn = 0, vocabulary = 0;  ///< elements; key_value: of keys alone
  double layer_parameters = 0;
  double end_parameters = 0;  ///< of the embedding, and of the LM head where it is another matrix
};

double divided(std::int64_t a, std::int32_t b) {
  return static_cast<double>(node::ceil_div(a, b));
}

GpuShard make_gpu_shard(const ModelConfig& model, std::int32_t tensor_parallel) {
  GpuShard out;
  out.hidden = static_cast<double>(model.hidden);
  out.query = divided(model.heads, tensor_parallel) * static_cast<double>(model.head_dim);
  // Fewer KV heads than GPUs: each GPU has one, replicated.
  out.key_value = divided(model.kv_heads, tensor_parallel) * static_cast<double>(model.head_dim);
  out.ffn = divided(model.ffn, tensor_parallel);
  out.vocabulary = divided(model.vocabulary, tensor_parallel);
  const double experts = static_cast<double>(std::max<std::int64_t>(model.experts, 1));
  out.layer_parameters = out.hidden * (2 * out.query + 2 * out.key_value) + 3 * experts * out.hidden * out.ffn +
                         static_cast<double>(model.experts) * out.hidden;
  out.end_parameters = out.vocabulary * out.hidden;
  return out;
}

double positions(const GpuRequest& request) {
  const std::int64_t window = request.model.sliding_window;
  return static_cast<double>(window > 0 ? std::min<std::int64_t>(request.context, window) : request.context);
}

/// Bytes of keys and values that one GPU keeps of one layer for one user.
double layer_kv_bytes(const GpuRequest& request, const GpuShard& shard) {
  return 2 * shard.key_value * positions(request) * kv_bytes(request.kv);
}

/// Experts that the tokens of a step choose at least once, each expert as likely as another.
double distinct_experts(const ModelConfig& model, double rows) {
  const double experts = static_cast<double>(model.experts);
  const double missed = 1 - static_cast<double>(model.experts_per_token) / experts;
  return experts * (1 - std::pow(missed, rows));
}

/// Times of one step of `rows` users on one TP group.
class StepModel {
 public:
  StepModel(const GpuRequest& request, const GpuShard& shard, std::int32_t tensor_parallel, double rows)
      : request_(request),
        gpu_(request.system.gpu),
        shard_(shard),
        precision_(precision(request.compute)),
        group_{request.system.nccl, request.system.fabric, gpu_.architecture, tensor_parallel},
        rows_(rows) {}

  /// One layer; hops, head and host are of the whole step and stay 0.
  [[nodiscard]] GpuParts layer() const {
    GpuParts out;
    add_gemm(out, shard_.hidden, shard_.query + 2 * shard_.key_value);
    add_gemm(out, shard_.query, shard_.hidden);
    if (request_.model.experts == 0) {
      add_gemm(out, shard_.hidden, 2 * shard_.ffn);
      add_gemm(out, shard_.ffn, shard_.hidden);
    } else {
      add_experts(out);
    }
    const double kv = rows_ * layer_kv_bytes(request_, shard_);
    if (is_roofline()) {
      out.attention_us = kv / (1e3 * gpu_.hbm_gigabytes_per_second);
    } else {
      out.attention_us = node::attention_us(gpu_, kv);
      out.launch_us += gpu_.small_operators_us + small_operator_bytes() / (1e3 * gpu_.gemm_16bit_gigabytes_per_second);
    }
    out.all_reduce_us = 2 * all_reduce_us(rows_ * shard_.hidden * kActivationBytes);
    return out;
  }

  /// The embedding's rows, of which each GPU has some, added up.
  [[nodiscard]] double embedding_us() const { return all_reduce_us(rows_ * shard_.hidden * kActivationBytes); }

  /// LM head, and the gather of its logits: half of what an all-reduce of them takes.
  [[nodiscard]] double head_us() const {
    const double logits = rows_ * static_cast<double>(request_.model.vocabulary) * kActivationBytes;
    return gemm(shard_.hidden, shard_.vocabulary) + 0.5 * all_reduce_us(logits);
  }

  /// To the next stage: every GPU sends its partner all activations, or its share of them, which a gather (half an
  /// all-reduce) then completes. A token's way back to the first stage is its number.
  [[nodiscard]] double hop_us(bool leaves_node, bool is_token) const {
    const double bytes = is_token ? 4 * rows_ : rows_ * shard_.hidden * kActivationBytes;
    const interconnect::GpuFabric& fabric = request_.system.fabric;
    const auto send = [&](double sent) {
      return is_roofline() ? interconnect::ideal_hop_us(fabric, sent, leaves_node)
                           : interconnect::hop_us(fabric, sent, leaves_node);
    };
    return std::min(send(bytes), send(bytes / group_.ranks) + 0.5 * all_reduce_us(bytes));
  }

 private:
  [[nodiscard]] bool is_roofline() const { return request_.tier == GpuTier::kRoofline; }

  [[nodiscard]] double gemm(double inputs, double outputs) const {
    return is_roofline() ? node::gemm_roofline_us(gpu_, precision_, rows_, inputs, outputs)
                         : node::gemm_us(gpu_, precision_, rows_, inputs, outputs);
  }

  void add_gemm(GpuParts& parts, double inputs, double outputs) const {
    add(parts, gemm(inputs, outputs), node::gemm_start_us(gpu_, precision_));
  }

  void add(GpuParts& parts, double whole, double start) const {
    const double launch = is_roofline() ? 0 : std::min(start, whole);
    parts.launch_us += launch;
    parts.weights_us += whole - launch;
  }

  void add_experts(GpuParts& parts) const {
    const double expert = 3 * shard_.hidden * shard_.ffn;
    const double parameters =
        distinct_experts(request_.model, rows_) * expert + static_cast<double>(request_.model.experts) * shard_.hidden;
    const double operations = 2 * rows_ * static_cast<double>(request_.model.experts_per_token) * expert;
    add(parts,
        is_roofline() ? node::experts_roofline_us(gpu_, precision_, parameters, operations)
                      : node::experts_us(gpu_, precision_, parameters, operations),
        node::experts_start_us(gpu_, precision_));
  }

  /// What the kernels between the matrix multiplications read and write: two norms with their additions (8 hidden),
  /// rotary embedding and KV store, the activation (gate and up in, product out).
  [[nodiscard]] double small_operator_bytes() const {
    const double chosen = static_cast<double>(std::max<std::int64_t>(request_.model.experts_per_token, 1));
    return kActivationBytes * rows_ *
           (8 * shard_.hidden + 2 * (shard_.query + 2 * shard_.key_value) + 3 * chosen * shard_.ffn);
  }

  [[nodiscard]] double all_reduce_us(double bytes) const {
    if (group_.ranks == 1) {
      return 0;
    }
    switch (request_.tier) {
      case GpuTier::kRoofline:
        return interconnect::ideal_all_reduce_us(group_, bytes);
      case GpuTier::kNccl:
        return interconnect::measured_nccl_all_reduce_us(group_, bytes);
      case GpuTier::kEngine:
        return interconnect::engine_all_reduce_us(group_, bytes);
    }
    return 0;
  }

  const GpuRequest& request_;
  const node::GpuSpec& gpu_;
  const GpuShard& shard_;
  GpuPrecision precision_;
  NcclGroup group_;
  double rows_;
};

/// Layers of the stages: the last one, which has the LM head too, and the most that any other has.
struct StageSplit {
  std::int64_t last = 0;
  std::int64_t others = 0;
};

StageSplit split_stages(std::int64_t layers, std::int32_t stages, double layer_us, double head_us) {
  if (stages == 1) {
    return {layers, 0};
  }
  StageSplit best;
  double best_us = 0;
  for (std::int64_t last = 1; last <= node::ceil_div(layers, stages); ++last) {
    const std::int64_t others = node::ceil_div(layers - last, stages - 1);
    const double slowest =
        std::max(static_cast<double>(others) * layer_us, static_cast<double>(last) * layer_us + head_us);
    if (best.last == 0 || slowest <= best_us) {
      best = {last, others};
      best_us = slowest;
    }
  }
  return best;
}

/// Bytes on the fullest GPU.
struct GpuMemory {
  double weights = 0;
  double kv_per_user = 0;
  std::int64_t users_fit = 0;
};

GpuMemory gpu_memory(const GpuRequest& request, const GpuShard& shard, const StageSplit& split, std::int32_t stages) {
  const double width = node::weight_bytes(precision(request.compute));
  const double kv = layer_kv_bytes(request, shard);
  const double usable = request.system.gpu.hbm_usable_bytes();
  const bool is_one_matrix = request.model.ties_embeddings && stages == 1;
  const auto of_stage = [&](std::int64_t layers, double ends) {
    GpuMemory out;
    out.weights = width * (static_cast<double>(layers) * shard.layer_parameters + ends * shard.end_parameters);
    out.kv_per_user = static_cast<double>(layers) * kv;
    out.users_fit = out.weights > usable ? 0 : static_cast<std::int64_t>((usable - out.weights) / out.kv_per_user);
    return out;
  };
  const GpuMemory last = of_stage(split.last, stages == 1 && !is_one_matrix ? 2 : 1);
  if (stages == 1) {
    return last;
  }
  const GpuMemory first = of_stage(split.others, 1);
  return first.users_fit <= last.users_fit ? first : last;
}

/// Everything about a partition that does not depend on the batch.
class Instance {
 public:
  Instance(const GpuRequest& request, std::int32_t tensor_parallel, std::int32_t pipeline_parallel)
      : request_(request),
        tensor_parallel_(tensor_parallel),
        pipeline_parallel_(pipeline_parallel),
        shard_(make_gpu_shard(request.model, tensor_parallel)) {
    const StepModel step(request_, shard_, tensor_parallel_, 1);
    split_ = split_stages(request.model.layers, pipeline_parallel, step.layer().total(), step.head_us());
    memory_ = gpu_memory(request, shard_, split_, pipeline_parallel);
  }
  [[nodiscard]] const GpuMemory& memory() const { return memory_; }

  /// A token's parts with `micro_batches` of `rows` users each under way.
  [[nodiscard]] GpuParts parts(std::int32_t rows, std::int32_t micro_batches) const {
    const StepModel step(request_, shard_, tensor_parallel_, rows);
    GpuParts out = step.layer();
    const double layer_us = out.total();
    const auto layers = static_cast<double>(request_.model.layers);
    for (double* part : {&out.weights_us, &out.launch_us, &out.attention_us, &out.all_reduce_us}) {
      *part *= layers;
    }
    out.head_us = step.head_us();
    out.all_reduce_us += step.embedding_us();
    out.host_us =
        request_.counts_host_step && request_.tier != GpuTier::kRoofline ? request_.system.gpu.host_step_us : 0;
    double slowest = static_cast<double>(split_.last) * layer_us + out.head_us;
    if (pipeline_parallel_ > 1) {
      slowest = std::max(slowest, static_cast<double>(split_.others) * layer_us + step.embedding_us());
      for (std::int32_t stage = 0; stage < pipeline_parallel_; ++stage) {
        out.pipeline_hops_us += step.hop_us(leaves_node(stage), stage + 1 == pipeline_parallel_);
      }
    } else {
      slowest = out.total();
    }
    out.pipeline_wait_us = std::max(0.0, micro_batches * slowest - out.total());
    return out;
  }

  /// Share of the time in which the slowest stage works.
  [[nodiscard]] double busy(std::int32_t rows, std::int32_t micro_batches, double tpot_us) const {
    if (pipeline_parallel_ == 1) {
      return 1;
    }
    const StepModel step(request_, shard_, tensor_parallel_, rows);
    const double layer_us = step.layer().total();
    const double slowest = std::max(static_cast<double>(split_.last) * layer_us + step.head_us(),
                                    static_cast<double>(split_.others) * layer_us + step.embedding_us());
    return std::min(1.0, micro_batches * slowest / tpot_us);
  }

  [[nodiscard]] double tokens_per_second(std::int64_t rows, std::int32_t micro_batches) const {
    const double tpot = parts(static_cast<std::int32_t>(rows), micro_batches).total();
    return kMicroseconds * static_cast<double>(rows * micro_batches) / tpot;
  }

  /// Users beyond which doubling adds less than 5%, all stages busy; memory is not looked at.
  [[nodiscard]] std::int64_t users_saturating() const {
    std::int64_t rows = 1;
    double now = tokens_per_second(rows, pipeline_parallel_);
    while (rows < kUsersMost) {
      const double next = tokens_per_second(2 * rows, pipeline_parallel_);
      if (next < kSaturation * now) {
        break;
      }
      rows *= 2;
      now = next;
    }
    return rows * pipeline_parallel_;
  }

  /// The most users of a step, at most `most`, with TPOT <= slo_us; 0: not even one.
  [[nodiscard]] std::int64_t largest_step(std::int64_t most, std::int32_t micro_batches, double slo_us) const {
    const auto meets = [&](std::int64_t rows) {
      return parts(static_cast<std::int32_t>(rows), micro_batches).total() <= slo_us;
    };
    if (most < 1 || !meets(1)) {
      return 0;
    }
    std::int64_t low = 1;  // meets
    std::int64_t high = std::min(most, kUsersMost) + 1;
    while (high - low > 1) {
      const std::int64_t middle = low + (high - low) / 2;
      (meets(middle) ? low : high) = middle;
    }
    return low;
  }

  /// `replicas` equal instances on `devices` GPUs, which share the power and the price of their nodes.
  [[nodiscard]] GpuPlan plan(std::int32_t rows,
                             std::int32_t micro_batches,
                             std::int32_t replicas,
                             std::int32_t devices) const {
    GpuPlan out;
    out.partition = {tensor_parallel_, pipeline_parallel_, rows, micro_batches};
    out.devices = devices;
    out.devices_idle = devices - replicas * out.partition.devices();
    out.replicas = replicas;
    out.parts = parts(rows, micro_batches);
    out.tpot_us = out.parts.total();
    out.tokens_per_second_per_user = kMicroseconds / out.tpot_us;
    out.users = std::int64_t{replicas} * out.partition.users();
    out.tokens_per_second = out.tokens_per_second_per_user * static_cast<double>(out.users);
    out.pipeline_busy = busy(rows, micro_batches, out.tpot_us);
    out.hbm_bytes_weights = memory_.weights;
    out.hbm_bytes_kv_per_user = memory_.kv_per_user;
    out.users_fit = replicas * memory_.users_fit;
    out.users_saturating = replicas * users_saturating();
    const interconnect::GpuFabric& fabric = request_.system.fabric;
    const node::GpuSpec& gpu = request_.system.gpu;
    out.power_kw = devices * (gpu.power_watts + fabric.host_power_watts / fabric.gpus_per_node) / 1e3;
    out.price_usd = devices * (gpu.price_usd + fabric.host_price_usd / fabric.gpus_per_node);
    return out;
  }

 private:
  /// Whether the next stage is on another node; the last stage's next is the first. Groups follow one another.
  [[nodiscard]] bool leaves_node(std::int32_t stage) const {
    const std::int32_t per_node = request_.system.fabric.gpus_per_node;
    const std::int32_t next = (stage + 1) % pipeline_parallel_;
    return (next * tensor_parallel_) / per_node != (stage * tensor_parallel_) / per_node;
  }

  const GpuRequest& request_;
  std::int32_t tensor_parallel_;
  std::int32_t pipeline_parallel_;
  GpuShard shard_;
  StageSplit split_;
  GpuMemory memory_;
};

/// TP degrees that a search tries on `devices` GPUs.
std::vector<std::int32_t> degrees(const GpuRequest& request, std::int32_t devices) {
  std::vector<std::int32_t> out;
  const std::int32_t per_node = request.system.fabric.gpus_per_node;
  const std::int32_t most = std::min(devices, request.crosses_nodes ? devices : per_node);
  for (std::int32_t degree = 1; degree <= most; degree *= 2) {
    const bool fills_nodes = degree <= per_node || degree % per_node == 0;
    if (request.model.heads % degree == 0 && fills_nodes) {
      out.push_back(degree);
    }
  }
  return out;
}

/// Calls `visit(instance)` for every TP x PP on at most `devices` GPUs.
template <typename Visit>
void for_each_instance(const GpuRequest& request, std::int32_t devices, const Visit& visit) {
  for (const std::int32_t tensor_parallel : degrees(request, devices)) {
    const auto most =
        static_cast<std::int32_t>(std::min<std::int64_t>(devices / tensor_parallel, request.model.layers));
    for (std::int32_t pipeline_parallel = 1; pipeline_parallel <= most; ++pipeline_parallel) {
      visit(Instance(request, tensor_parallel, pipeline_parallel), tensor_parallel, pipeline_parallel);
    }
  }
}

/// The largest batch that a partition serves under an SLO.
struct Choice {
  GpuPartition partition;
  double tokens_per_second = 0;
};

std::vector<Choice> choices(const GpuRequest& request, std::int32_t devices, double slo_us) {
  std::vector<Choice> out;
  for_each_instance(request, devices, [&](const Instance& instance, std::int32_t tensor_parallel, std::int32_t stages) {
    // Where memory holds fewer users than stages, some stages wait.
    const std::int64_t fit = instance.memory().users_fit;
    const auto under_way = static_cast<std::int32_t>(std::min<std::int64_t>(stages, fit));
    const std::int64_t rows = under_way == 0 ? 0 : instance.largest_step(fit / under_way, under_way, slo_us);
    if (rows > 0) {
      out.push_back({{tensor_parallel, stages, static_cast<std::int32_t>(rows), under_way},
                     instance.tokens_per_second(rows, under_way)});
    }
  });
  return out;
}

/// The plan with the most tokens/s, `replicas(choice)` instances of each taken.
template <typename Replicas>
std::optional<GpuPlan> best_of(const GpuRequest& request,
                               std::int32_t devices,
                               double slo_us,
                               const Replicas& replicas) {
  const std::vector<Choice> all = choices(request, devices, slo_us);
  const auto rate = [&](const Choice& choice) { return replicas(choice) * choice.tokens_per_second; };
  const auto best =
      std::max_element(all.begin(), all.end(), [&](const Choice& a, const Choice& b) { return rate(a) < rate(b); });
  if (best == all.end()) {
    return std::nullopt;
  }
  const GpuPartition& partition = best->partition;
  const Instance instance(request, partition.tensor_parallel, partition.pipeline_parallel);
  return instance.plan(partition.micro_batch, partition.micro_batches, replicas(*best), devices);
}

void check_partition(const GpuRequest& request, const GpuPartition& partition) {
  const auto refuse = [](const std::string& what, std::int64_t found, const std::string& expected) {
    throw InputError("GPU " + what + ": found " + std::to_string(found) + "; expected " + expected);
  };
  const std::int32_t per_node = request.system.fabric.gpus_per_node;
  if (partition.tensor_parallel < 1 || request.model.heads % partition.tensor_parallel != 0) {
    refuse("tensor parallel degree",
           partition.tensor_parallel,
           "a divisor of the model's " + std::to_string(request.model.heads) + " heads");
  }
  if (partition.tensor_parallel > per_node && (!request.crosses_nodes || partition.tensor_parallel % per_node != 0)) {
    refuse("tensor parallel degree",
           partition.tensor_parallel,
           request.crosses_nodes ? "whole nodes of " + std::to_string(per_node)
                                 : "at most the " + std::to_string(per_node) + " GPUs of a node");
  }
  if (partition.pipeline_parallel < 1 || partition.pipeline_parallel > request.model.layers) {
    refuse("pipeline stages", partition.pipeline_parallel, "1 to " + std::to_string(request.model.layers));
  }
  if (partition.micro_batches < 1 || partition.micro_batches > partition.pipeline_parallel) {
    refuse("micro-batches under way",
           partition.micro_batches,
           "1 to the " + std::to_string(partition.pipeline_parallel) + " pipeline stages");
  }
  if (partition.micro_batch < 1) {
    refuse("micro-batch", partition.micro_batch, "1 or more");
  }
}

}  // namespace

std::string_view name(GpuTier tier) {
  switch (tier) {
    case GpuTier::kRoofline:
      return "roofline";
    case GpuTier::kNccl:
      return "nccl";
    case GpuTier::kEngine:
      return "engine";
  }
  return "?";
}

GpuPlan gpu_plan(const GpuRequest& request, const GpuPartition& partition) {
  check_partition(request, partition);
  const Instance instance(request, partition.tensor_parallel, partition.pipeline_parallel);
  if (instance.memory().users_fit < partition.users()) {
    const std::int32_t smallest = smallest_gpus(request);
    throw DoesNotFit(request.model.name + " on " + std::to_string(partition.devices()) + " x " +
                         request.system.gpu.name + ": found " +
                         node::approximate_bytes(node::Bytes(std::llround(instance.memory().weights))) +
                         " of weights on the fullest GPU and " +
                         node::approximate_bytes(node::Bytes(std::llround(instance.memory().kv_per_user))) +
                         " of KV a user for " + std::to_string(partition.users()) + "; expected at most " +
                         node::approximate_bytes(node::Bytes(std::llround(request.system.gpu.hbm_usable_bytes()))) +
                         " together, which hold " + std::to_string(instance.memory().users_fit) + " users" +
                         (smallest > 0 ? "; one user fits on " + std::to_string(smallest) + " GPUs" : ""),
                     smallest);
  }
  return instance.plan(partition.micro_batch, partition.micro_batches, 1, partition.devices());
}

std::optional<GpuPlan> best_gpu_plan(const GpuRequest& request, std::int32_t devices, double slo_us) {
  return best_of(request, devices, slo_us, [](const Choice& /*choice*/) { return 1; });
}

std::optional<GpuPlan> best_replicated_gpu_plan(const GpuRequest& request, std::int32_t devices, double slo_us) {
  return best_of(request, devices, slo_us, [&](const Choice& choice) { return devices / choice.partition.devices(); });
}

std::optional<GpuPlan> fastest_gpu_plan(const GpuRequest& request, std::int32_t devices) {
  std::optional<GpuPartition> best;
  double best_us = 0;
  for_each_instance(request, devices, [&](const Instance& instance, std::int32_t tensor_parallel, std::int32_t stages) {
    const double tpot_us = instance.parts(1, 1).total();
    if (instance.memory().users_fit > 0 && (!best || tpot_us < best_us)) {
      best = {tensor_parallel, stages, 1, 1};
      best_us = tpot_us;
    }
  });
  if (!best) {
    return std::nullopt;
  }
  return Instance(request, best->tensor_parallel, best->pipeline_parallel).plan(1, 1, 1, devices);
}

std::int32_t smallest_gpus(const GpuRequest& request) {
  std::int32_t best = 0;
  const std::int32_t per_node = request.system.fabric.gpus_per_node;
  for (const std::int32_t tensor_parallel : degrees(request, per_node)) {
    for (std::int32_t stages = 1; stages <= request.model.layers; ++stages) {
      if (Instance(request, tensor_parallel, stages).memory().users_fit > 0) {
        const std::int32_t devices = tensor_parallel * stages;
        best = best == 0 ? devices : std::min(best, devices);
        break;
      }
    }
  }
  return best;
}

}  // namespace lpu::scheduler
