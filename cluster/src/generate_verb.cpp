#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <boost/json.hpp>
#include <spdlog/spdlog.h>

#include "compiling.hpp"
#include "configuration.hpp"
#include "json_output.hpp"
#include "lpu/cluster/generate.hpp"
#include "lpu/cluster/run_program.hpp"
#include "lpu/node/digest.hpp"
#include "lpu/node/field_reader.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/scheduler/program_file.hpp"
#include "shipped_models.hpp"
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
  out.inputs = json::parse(out.program.inputs).as_object();
  out.inputs["program"] = file;
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

Job compile_job(const CommandLine& line, const Checkpoint& checkpoint, const Console& console) {
  Configuration configuration = configure(line);
  require_reference_path("--compute", std::string(name(configuration.request.compute)));
  if (configuration.request.kv != scheduler::KvType::kFp32) {
    throw InputError("--kv: found " + std::string(name(configuration.request.kv)) +
                     "; expected fp32, which the numeric plane executes");
  }
  configuration.request.model.stored_type = checkpoint.model().stored_type;
  configuration.request.inputs = compact(to_inputs(configuration));
  return {compile_spread(configuration.request, console), to_inputs(configuration)};
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

/// The same bursts in the timing plane: arrivals for a program that was proven, every rule for one that was not.
RunResult run_beside(const CommandLine& line, const scheduler::ClusterProgram& program, std::int64_t iterations) {
  RunOptions options;
  options.tokens = iterations;
  options.checks = line.has("no-verify") ? Checks::kAll : Checks::kArrivals;
  return run_program(program, options);
}

}  // namespace

node::ExitCode generate_text(const CommandLine& line, const Console& console) {
  refuse_words(line);
  static_cast<void>(output_folder(line));
  const auto begin = std::chrono::steady_clock::now();
  const std::filesystem::path where = find_checkpoint(line.value("checkpoint"));
  const Checkpoint checkpoint = Checkpoint::open(where);
  checkpoint.refuse_non_finite();
  const GenerateOptions options = read_options(line, checkpoint);
  const Job job = line.has("program") ? read_job(line, checkpoint, console)
                                      : compile_job(compiling_line(line, where), checkpoint, console);
  const std::int64_t iterations = static_cast<std::int64_t>(options.prompt.size()) + options.new_tokens - 1;
  const RunResult timing = run_beside(line, job.program, iterations);
  const GenerateResult result = generate(job.program, checkpoint, options);
  LPU_CHECK(result.vectors_moved == timing.vectors, std::to_string(result.vectors_moved) + " vectors moved");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  std::vector<std::int64_t> all = options.prompt;
  all.insert(all.end(), result.new_ids.begin(), result.new_ids.end());
  const bool has_text = checkpoint.model().vocabulary == kByteVocabulary;
  json::object object = result_object(line);
  object["inputs"] = job.inputs;
  object["checkpoint"] = line.value("checkpoint");
  object["prompt_ids"] = ids_array(options.prompt);
  object["new_ids"] = ids_array(result.new_ids);
  object["text"] = has_text ? json::value(text_of(all)) : json::value(nullptr);
  object["result_digest"] = node::to_hex(result.result_digest);
  object["fingerprint"] = node::to_hex(node::fold(timing.fingerprint, result.fold));
  object["chips"] = job.program.chips;
  object["tp"] = job.program.tensor_parallel;
  object["pp"] = job.program.pipeline_parallel;
  object["ranks"] = 1;
  object["simd"] = std::string(node::name_of(options.simd));
  object["transfers"] = timing.transfers;
  object["vectors_moved"] = result.vectors_moved;
  object["bytes_moved"] = result.bytes_moved;
  object["wall_s"] = seconds;
  if (line.has("logits")) {
    object["logits_after_prompt"] = logits_array(result.logits_after_prompt);
  }
  std::string text = has_text ? text_of(all) : std::string();
  for (std::size_t i = 0; !has_text && i < result.new_ids.size(); ++i) {
    text += (i == 0 ? "" : ",") + std::to_string(result.new_ids[i]);
  }
  print_result(line, console, object, text + "\n");
  return node::ExitCode::kDone;
}

}  // namespace lpu::cluster
