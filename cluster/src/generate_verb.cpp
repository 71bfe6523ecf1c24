#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <malloc.h>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json.hpp>
#include <spdlog/spdlog.h>

#include "compiling.hpp"
#include "configuration.hpp"
#include "json_output.hpp"
#include "lockstep.hpp"
#include "lpu/cluster/generate.hpp"
#include "lpu/cluster/run_program.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/field_reader.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/scheduler/numeric_binding.hpp"
#include "lpu/scheduler/program_file.hpp"
#include "ranks_report.hpp"
#include "shipped_models.hpp"
#include "stop_signal.hpp"
#include "test_faults.hpp"
#include "verbs.hpp"

namespace lpu::cluster {
namespace {

namespace json = boost::json;
using node::InputError;
using scheduler::Checkpoint;

constexpr std::int64_t kByteVocabulary = 256;  // each token is a byte
constexpr const char* kShippedChips = "64";

/// A program, and the record of what decided it.
struct Job {
  scheduler::ClusterProgram program;
  json::object inputs;
};

double number(const CommandLine& line, const std::string& flag, double minimum, double maximum) {
  const std::string text = line.value(flag);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= minimum && value <= maximum)) {
    throw InputError("--" + flag + ": found " + text + "; expected a number from " + node::shortest(minimum) + " to " +
                     node::shortest(maximum));
  }
  return value;
}

/// A recorded generation stands for its flags.
CommandLine with_recorded_generation(const CommandLine& typed) {
  constexpr std::array<std::string_view, 11> kCompiling = {
      "system", "chip", "chips", "tp", "pp", "context", "compute", "kv", "experts", "objective", "config"};
  for (const std::string_view flag : kCompiling) {
    if (typed.has("program") && typed.has(std::string(flag))) {
      throw InputError("--" + std::string(flag) +
                       ": found beside --program; expected one of them (the program holds the rest)");
    }
  }
  if (typed.has("program") && !typed.settings.empty()) {
    throw InputError("--set: found " + typed.settings.front() +
                     " beside --program; expected one of them (numbers are computed by the chip it was compiled for)");
  }
  CommandLine line = with_recorded_flags(typed);
  if (typed.has("prompt")) {
    line.values.erase("prompt-ids");
  }
  if (line.has("config")) {
    const node::FieldReader inputs = node::FieldReader::load(line.value("config")).object("inputs");
    if (inputs.has("program")) {
      line.values.erase("config");
      line.values["program"] = inputs.text("program");
    }
  }
  for (const std::string& setting : line.settings) {
    if (setting.starts_with("model.")) {
      throw InputError("--set: found " + setting + "; expected fields of the chip or the system: the checkpoint says " +
                       "what the model is");
    }
  }
  return line;
}

std::vector<std::int64_t> read_prompt(const CommandLine& line, const Checkpoint& checkpoint) {
  const std::int64_t vocabulary = checkpoint.model().vocabulary;
  if (line.has("prompt") == line.has("prompt-ids")) {
    throw InputError(std::string("--prompt: found ") + (line.has("prompt") ? "both" : "neither") +
                     "; expected --prompt TEXT or --prompt-ids 1,2,3");
  }
  std::vector<std::int64_t> out;
  if (line.has("prompt")) {
    if (vocabulary != kByteVocabulary) {
      throw InputError("--prompt: found a vocabulary of " + std::to_string(vocabulary) +
                       " tokens; expected one of 256, whose tokens are bytes, or --prompt-ids");
    }
    for (const char c : line.value("prompt")) {
      out.push_back(static_cast<unsigned char>(c));
    }
  } else {
    const std::string text = line.value("prompt-ids");
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t end = std::min(text.find(',', at), text.size());
      out.push_back(parse_integer("prompt-ids", text.substr(at, end - at), 0, vocabulary - 1));
      at = end + 1;
    }
  }
  if (out.empty()) {
    throw InputError("--prompt: found no token; expected at least one");
  }
  return out;
}

/// Bytes as text: what is no character of its own is shown as U+FFFD.
std::string text_of(const std::vector<std::int64_t>& ids) {
  std::string out;
  for (const std::int64_t id : ids) {
    out += id < 128 ? std::string(1, static_cast<char>(id)) : std::string("\xef\xbf\xbd");
  }
  return out;
}

/// The line as configure() reads it: the checkpoint's model, the reference path, one user.
CommandLine compiling_line(const CommandLine& typed, const std::filesystem::path& checkpoint) {
  CommandLine line = typed;
  const bool is_folder = std::filesystem::is_directory(checkpoint);
  line.values["model"] = ((is_folder ? checkpoint : checkpoint.parent_path()) / "config.json").string();
  line.values.emplace("compute", "fp32ref");
  if (!line.has("chips") && !line.has("system") && is_shipped_model(line.value("checkpoint"))) {
    line.values.emplace("chips", kShippedChips);
  }
  return line;
}

void require_reference_path(const std::string& where, const std::string& compute) {
  if (compute != "fp32ref") {
    throw InputError(where + ": found compute path " + compute +
                     "; expected fp32ref, which the numeric plane executes");
  }
}

/// The program must have been compiled for this model: field by field, but for its name.
void require_same_model(const std::string& file, const node::FieldReader& inputs, const json::object& model) {
  const node::FieldReader theirs = inputs.object("model");
  for (const auto& [key, value] : model) {
    const std::string expected = value.is_string() ? std::string(value.get_string()) : std::string();
    if (key == "name" || key == "stored_type") {
      continue;
    }
    if (!theirs.has(key) || theirs.literal(key) != expected) {
      throw InputError(file + ": found a program of a model with " + std::string(key) + " " +
                       (theirs.has(key) ? theirs.literal(key) : "none") + "; expected " + expected +
                       ", as the checkpoint has it");
    }
  }
}

Job read_job(const CommandLine& line, const Checkpoint& checkpoint, const Console& console) {
  const std::string file = line.value("program");
  Configuration own;
  own.request.model = checkpoint.model();
  Job out;
  out.program = scheduler::load_program(file);
  const node::FieldReader inputs = node::FieldReader::parse(out.program.inputs, file);
  require_reference_path(file, inputs.text("compute"));
  require_same_model(file, inputs, to_inputs(own).at("model").as_object());
  if (!line.has("no-verify")) {
    require_legal(out.program, console);
  }
  out.inputs["program"] = file;
  out.inputs["compiled_from"] = json::parse(out.program.inputs);
  return out;
}

/// Cuts that leave no chip without a slice, the widest first: TP over a node, PP over the rest.
struct Degrees {
  std::int32_t tensor_parallel = 1;
  std::int32_t pipeline_parallel = 1;
};
std::vector<Degrees> full_cuts(const scheduler::CompileRequest& request) {
  std::vector<Degrees> out;
  for (const std::int32_t degree : {8, 4, 2, 1}) {
    const std::int64_t stages = request.chips / degree;
    if (request.chips % degree == 0 && stages <= 3 * request.model.layers) {
      out.push_back({degree, static_cast<std::int32_t>(stages)});
    }
  }
  return out;
}

/// Compiles for all chips of the system where the degrees are left open: a plan would leave a small model's chips idle.
scheduler::ClusterProgram compile_spread(const scheduler::CompileRequest& request, const Console& console) {
  if (!request.tensor_parallel && !request.pipeline_parallel) {
    for (const Degrees& cut : full_cuts(request)) {
      scheduler::CompileRequest spread = request;
      spread.tensor_parallel = cut.tensor_parallel;
      spread.pipeline_parallel = cut.pipeline_parallel;
      try {
        return compile_and_verify(spread, console).program;
      } catch (const InputError& error) {
        console.log().info("TP {} x PP {}: {}", cut.tensor_parallel, cut.pipeline_parallel, error.what());
      }
    }
  }
  return compile_and_verify(request, console).program;
}

Configuration generating_configuration(const CommandLine& line, const Checkpoint& checkpoint) {
  Configuration configuration = configure(line);
  require_reference_path("--compute", std::string(name(configuration.request.compute)));
  if (configuration.request.kv != scheduler::KvType::kFp32) {
    throw InputError("--kv: found " + std::string(name(configuration.request.kv)) +
                     "; expected fp32, which the numeric plane executes");
  }
  configuration.request.model.stored_type = checkpoint.model().stored_type;
  configuration.request.inputs = compact(to_inputs(configuration));
  return configuration;
}

Job compile_job(const CommandLine& line, const Checkpoint& checkpoint, const Console& console) {
  const Configuration configuration = generating_configuration(line, checkpoint);
  return {compile_spread(configuration.request, console), to_inputs(configuration)};
}

/// What decides the outcome beside the program.
void add_generation_inputs(json::object& inputs, const CommandLine& line, const GenerateOptions& options) {
  std::string ids;
  for (const std::int64_t id : options.prompt) {
    ids += (ids.empty() ? "" : ",") + std::to_string(id);
  }
  inputs["checkpoint"] = line.value("checkpoint");
  inputs["prompt_ids"] = ids;
  inputs["max_new_tokens"] = options.new_tokens;
  inputs["temperature"] = options.sampling.temperature;
  inputs["top_k"] = options.sampling.top_k;
  inputs["top_p"] = options.sampling.top_p;
  inputs["seed"] = options.sampling.seed;
  inputs["no_verify"] = line.has("no-verify");
  if (!faults_of_environment().empty()) {
    inputs["test_faults"] = faults_of_environment();
  }
}

json::array logits_array(const std::vector<float>& logits) {
  json::array out;
  for (const float logit : logits) {
    char text[32];
    std::snprintf(text, sizeof text, "%.9g", static_cast<double>(logit));
    out.emplace_back(std::strtod(text, nullptr));
  }
  return out;
}

json::array ids_array(const std::vector<std::int64_t>& ids) {
  json::array out;
  for (const std::int64_t id : ids) {
    out.emplace_back(id);
  }
  return out;
}

GenerateOptions read_options(const CommandLine& line, const Checkpoint& checkpoint) {
  GenerateOptions out;
  out.prompt = read_prompt(line, checkpoint);
  out.new_tokens = parse_integer("max-new-tokens", line.value("max-new-tokens"), 1, 1'000'000);
  out.simd = node::choose_simd_target(line.value("simd"));
  out.sampling.temperature = number(line, "temperature", 0.0, 100.0);
  if (out.sampling.temperature > 0.0 && out.sampling.temperature < 1e-3) {
    throw InputError("--temperature: found " + line.value("temperature") + "; expected 0 (greedy), or 0.001 and more");
  }
  out.sampling.top_k = parse_integer("top-k", line.value("top-k"), 0, checkpoint.model().vocabulary);
  out.sampling.top_p = number(line, "top-p", 1e-6, 1.0);
  out.sampling.seed = static_cast<std::uint64_t>(
      parse_integer("seed", line.value("seed"), 0, std::numeric_limits<std::int64_t>::max()));
  return out;
}

/// The timing plane beside the numeric one: arrivals for a program that was proven, every rule for one that was not.
RunOptions timing_options(const CommandLine& line, const GenerateOptions& options) {
  RunOptions out;
  out.tokens = static_cast<std::int64_t>(options.prompt.size()) + options.new_tokens - 1;
  out.checks = line.has("no-verify") ? Checks::kAll : Checks::kArrivals;
  return out;
}

bool is_complete(const RankResult& executed) {
  return executed.numbers.ended_by_signal == 0 && executed.run.stopped_before_token < 0;
}

/// Shares of the ranks' time in the numeric plane.
struct Shares {
  double kernels = 0, moving = 0, waiting = 0, other = 0;
};
Shares shares_of(const TimeUse& time) {
  const double all = time.kernels_s + time.moving_s + time.waiting_s + time.other_s;
  return all > 0 ? Shares{time.kernels_s / all, time.moving_s / all, time.waiting_s / all, time.other_s / all}
                 : Shares{};
}

/// Bytes of the KV cache at the context bucket, every head once.
std::int64_t kv_bytes(const scheduler::ModelConfig& model, std::int64_t context) {
  constexpr std::int64_t kBytes = 4;
  return 2 * model.layers * model.kv_heads * model.head_dim * context * kBytes;
}

double tokens_per_second(const GenerateResult& result, const GenerateOptions& options) {
  const auto positions = static_cast<double>(options.prompt.size() + result.new_ids.size() - 1);
  return result.wall_s > 0 && !result.new_ids.empty() ? positions / result.wall_s : 0.0;
}

json::object to_json(const CommandLine& line,
                     const Job& job,
                     const Checkpoint& checkpoint,
                     const GenerateOptions& options,
                     const RankResult& executed,
                     const std::string& text) {
  const GenerateResult& result = executed.numbers;
  const RunResult& timing = executed.run;
  const bool is_whole = is_complete(executed);
  json::object out = result_object(line);
  out["inputs"] = job.inputs;
  out["checkpoint"] = line.value("checkpoint");
  out["prompt_ids"] = ids_array(options.prompt);
  out["new_ids"] = ids_array(result.new_ids);
  out["text"] = checkpoint.model().vocabulary == kByteVocabulary ? json::value(text) : json::value(nullptr);
  out["partial"] = !is_whole;
  if (result.ended_by_signal != 0) {
    out["ended_by_signal"] = result.ended_by_signal;
  }
  if (timing.stopped_before_token >= 0) {
    out["state_saved"] = line.value("save-state");
    out["stopped_before_token"] = timing.stopped_before_token;
  }
  if (timing.resumed_at_token >= 0) {
    out["resumed_at_token"] = timing.resumed_at_token;
  }
  out["result_digest"] = is_whole ? json::value(node::to_hex(result.result_digest)) : json::value(nullptr);
  out["fingerprint"] =
      is_whole ? json::value(node::to_hex(node::fold(timing.fingerprint, result.fold))) : json::value(nullptr);
  out["chips"] = job.program.chips;
  out["tp"] = job.program.tensor_parallel;
  out["pp"] = job.program.pipeline_parallel;
  out["simd"] = std::string(node::name_of(options.simd));
  out["transfers"] = timing.transfers;
  out["vectors_moved"] = result.vectors_moved;
  out["bytes_moved"] = result.bytes_moved;
  add_ranks(out, timing);
  out["weight_bytes"] = checkpoint.weight_bytes().count();
  out["kv_bytes"] = kv_bytes(checkpoint.model(), job.program.plan.context);
  const Shares shares = shares_of(result.time);
  out["time_share"] = json::object{{"kernels", shares.kernels},
                                   {"moving", shares.moving},
                                   {"waiting", shares.waiting},
                                   {"bookkeeping", shares.other}};
  out["tokens_per_wall_s"] = tokens_per_second(result, options);
  out["numeric_wall_s"] = result.wall_s;
  if (line.has("logits")) {
    out["logits_after_prompt"] = logits_array(result.logits_after_prompt);
  }
  return out;
}

/// What people read below the text.
std::string summary(const CommandLine& line,
                    const Job& job,
                    const GenerateOptions& options,
                    const RankResult& executed) {
  const GenerateResult& result = executed.numbers;
  const bool is_whole = is_complete(executed);
  const Shares shares = shares_of(result.time);
  Table table;
  table.add({"chips",
             std::to_string(job.program.chips) + ", TP " + std::to_string(job.program.tensor_parallel) + " x PP " +
                 std::to_string(job.program.pipeline_parallel)});
  table.add({"ranks", ranks_text(executed.run)});
  table.add({"speed", node::fixed(tokens_per_second(result, options), 1) + " tokens/s of wall time, prompt included"});
  table.add({"time",
             "kernels " + percent(shares.kernels) + ", moving " + percent(shares.moving) + ", waiting " +
                 percent(shares.waiting) + ", bookkeeping " + percent(shares.other)});
  table.add({"memory", node::fixed(static_cast<double>(executed.run.memory_bytes) / 1e6, 1) + " MB, all ranks"});
  table.add({"exchanged",
             node::with_thousands(executed.run.transfers) + " transfers, " +
                 node::with_thousands(result.vectors_moved) + " vectors with their bytes"});
  table.add({"result digest", is_whole ? node::to_hex(result.result_digest) : "n/a, not complete"});
  table.add({"fingerprint",
             is_whole ? node::to_hex(node::fold(executed.run.fingerprint, result.fold)) : "n/a, not complete"});
  std::string out;
  const std::string progress =
      std::to_string(result.new_ids.size()) + " of " + std::to_string(options.new_tokens) + " tokens";
  if (result.ended_by_signal != 0) {
    out += "  PARTIAL: ended by signal " + std::to_string(result.ended_by_signal) + " after " + progress + "\n";
  }
  if (executed.run.stopped_before_token >= 0) {
    out += "  STOPPED on request after " + progress + "; its state is saved:\n  go on with --resume " +
           line.value("save-state") + "\n";
  }
  if (executed.run.resumed_at_token >= 0) {
    out += "  resumed at position " + std::to_string(executed.run.resumed_at_token) + " from a saved state\n";
  }
  if (!faults_of_environment().empty()) {
    out += "  faults planted for a test: " + faults_of_environment() + "\n";
  }
  return out + table.text();
}

std::string generated_text(const Checkpoint& checkpoint, const GenerateOptions& options, const GenerateResult& result) {
  std::vector<std::int64_t> all = options.prompt;
  all.insert(all.end(), result.new_ids.begin(), result.new_ids.end());
  if (checkpoint.model().vocabulary == kByteVocabulary) {
    return text_of(all);
  }
  std::string out;
  for (const std::int64_t id : result.new_ids) {
    out += (out.empty() ? "" : ",") + std::to_string(id);
  }
  return out;
}

/// A generation and all that decided it.
struct Generation {
  Job job;
  GenerateOptions options;
  RankResult executed;
  std::string text;
  double seconds_before = 0;  ///< until its state was saved
};

Generation execute_generation(const CommandLine& line,
                              const std::filesystem::path& where,
                              const Checkpoint& checkpoint,
                              const Console& console,
                              RankGroup* group) {
  RankSettings settings{.carrier = parse_carrier(line.value("transport")), .trace = {}, .numbers = {}};
  if (line.has("save-state")) {
    settings.save = open_save_folder(line.value("save-state"));
    catch_save_signal();
  }
  GenerateOptions options = read_options(line, checkpoint);
  Job job = line.has("program") ? read_job(line, checkpoint, console)
                                : compile_job(compiling_line(line, where), checkpoint, console);
  check_generation(job.program, checkpoint, options);
  add_generation_inputs(job.inputs, line, options);
  ProgressLine progress(console);
  options.progress = [&](std::int64_t done, std::int64_t steps) {
    progress.show(static_cast<double>(done) / static_cast<double>(steps),
                  "generate: position " + std::to_string(done) + " of " + std::to_string(steps));
  };
  settings.numbers = NumericOrder{.checkpoint = where.string(), .options = options};
  if (settings.save || line.has("resume")) {
    settings.key = key_of(job.program, checkpoint, options);
  }
  if (line.has("resume")) {
    settings.saved_numbers =
        load_saved_generation(line.value("resume"), job.program, *settings.key, checkpoint, options);
  }
  const RunOptions run_options = timing_options(line, options);
  RankResult executed = group != nullptr ? run_on_ranks(job.program, run_options, settings, *group, console)
                                         : generate_alone(job.program, checkpoint, run_options, settings);
  const GenerateResult& result = executed.numbers;
  LPU_CHECK(!is_complete(executed) || result.vectors_moved == executed.run.vectors,
            std::to_string(result.vectors_moved) + " vectors moved");
  std::string text = generated_text(checkpoint, options, result);
  options.progress = {};
  const double seconds_before = settings.saved_numbers ? settings.saved_numbers->wall_s : 0.0;
  return {std::move(job), std::move(options), std::move(executed), std::move(text), seconds_before};
}

}  // namespace

json::object generate_inputs(const CommandLine& typed) {
  refuse_words(typed);
  const CommandLine line = with_recorded_generation(typed);
  const std::filesystem::path where = find_checkpoint(line.value("checkpoint"));
  const Checkpoint checkpoint = Checkpoint::open(where);
  const GenerateOptions options = read_options(line, checkpoint);
  json::object inputs;
  if (line.has("program")) {
    inputs["program"] = line.value("program");
    inputs["compiled_from"] = json::parse(scheduler::load_program(line.value("program")).inputs);
  } else {
    inputs = to_inputs(generating_configuration(compiling_line(line, where), checkpoint));
  }
  add_generation_inputs(inputs, line, options);
  return inputs;
}

node::ExitCode generate_text(const CommandLine& typed, const Console& console, RankGroup* group) {
  refuse_words(typed);
  static_cast<void>(output_folder(typed));
  const CommandLine line = with_recorded_generation(typed);
  const auto begin = std::chrono::steady_clock::now();
  const std::filesystem::path where = find_checkpoint(line.value("checkpoint"));
  const Checkpoint checkpoint = Checkpoint::open(where);
  const Generation generation = execute_generation(line, where, checkpoint, console, group);
  const GenerateResult& result = generation.executed.numbers;
  json::object object =
      to_json(line, generation.job, checkpoint, generation.options, generation.executed, generation.text);
  object["wall_s"] =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() + generation.seconds_before;
  print_result(line,
               console,
               object,
               generation.text + "\n\n" + summary(line, generation.job, generation.options, generation.executed));
  if (result.ended_by_signal != 0) {
    return static_cast<node::ExitCode>(128 + result.ended_by_signal);
  }
  return is_complete(generation.executed) ? node::ExitCode::kDone : node::ExitCode::kStateSaved;
}

GeneratedText generate_shipped(const std::string& checkpoint_name,
                               const std::string& prompt,
                               std::int32_t new_tokens,
                               std::int32_t chips,
                               const Console& console,
                               RankGroup* group) {
  CommandLine line;
  line.verb = Verb::kGenerate;
  line.values = {{"checkpoint", checkpoint_name},
                 {"prompt", prompt},
                 {"max-new-tokens", std::to_string(new_tokens)},
                 {"chips", std::to_string(chips)}};
  const std::filesystem::path where = find_checkpoint(checkpoint_name);
  const Checkpoint checkpoint = Checkpoint::open(where);
  const Generation generation = execute_generation(line, where, checkpoint, console, group);
  return {.text = generation.text,
          .result_digest = generation.executed.numbers.result_digest,
          .fingerprint = node::fold(generation.executed.run.fingerprint, generation.executed.numbers.fold),
          .chips = generation.job.program.chips,
          .tp = generation.job.program.tensor_parallel,
          .pp = generation.job.program.pipeline_parallel,
          .ranks = generation.executed.run.ranks,
          .ended_by_signal = generation.executed.numbers.ended_by_signal};
}

}  // namespace lpu::cluster
