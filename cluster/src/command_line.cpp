#include "command_line.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

#include <boost/program_options.hpp>

#include "lpu/node/error.hpp"
#include "lpu/node/quantity_text.hpp"
#include "lpu/node/suggestion.hpp"

namespace lpu::cluster {
namespace {

namespace po = boost::program_options;
using node::InputError;

struct VerbRow {
  Verb verb;
  std::string_view name;
  std::string_view usage;  ///< what stands between the verb and its flags
  std::string_view doc;
  std::string_view examples;
};

constexpr VerbRow kVerbs[] = {
    {Verb::kList,
     "list",
     "chips|gpus|nccl|systems|models [NAME|FILE]",
     "what is built in, with unit and source",
     "  lpu_cluster list models\n"
     "  lpu_cluster list chips tsp-v1 --json\n"},
    {Verb::kPlan,
     "plan",
     "",
     "does it fit, which TP x PP, how fast, what binds",
     "  lpu_cluster plan --model llama-2-70b --chips 576 --explain\n"
     "  lpu_cluster plan --model mixtral-8x7b --compute w8a16 --experts all\n"
     "  lpu_cluster plan --model llama-3-8b --set chip.sram=500MB --json\n"
     "  lpu_cluster plan --model llama-2-70b --chips 640 --tp 8 --pp 80 --pareto\n"},
    {Verb::kCompile,
     "compile",
     "",
     "the cluster's program, as one verified file",
     "  lpu_cluster compile --model llama-3-8b --chips 64 -o llama.lpuprog\n"
     "  lpu_cluster compile --model llama-3-8b --objective throughput -o busy.lpuprog\n"},
    {Verb::kVerify,
     "verify",
     "FILE",
     "is a program free of conflicts",
     "  lpu_cluster verify llama.lpuprog\n"
     "  lpu_cluster verify llama.lpuprog --most 20\n"},
    {Verb::kInspect,
     "inspect",
     "FILE",
     "every instruction of a program",
     "  lpu_cluster inspect llama.lpuprog --trace-chips 0 | less\n"
     "  lpu_cluster inspect llama.lpuprog --json > llama.jsonl\n"},
    {Verb::kRun,
     "run",
     "",
     "execute in lockstep in the timing plane, no weights loaded",
     "  lpu_cluster run --model llama-3-8b --tokens 8\n"
     "  lpu_cluster run --program llama.lpuprog --tokens 32 --json\n"
     "  mpirun -np 64 lpu_cluster run --model llama-2-70b --chips 576 --users 32\n"
     "  lpu_cluster run --program llama.lpuprog --trace t.json --trace-chips 0-15\n"
     "  lpu_cluster run --program llama.lpuprog --set link.flight=218cycles\n"
     "  lpu_cluster run --program llama.lpuprog --tokens 100k --save-state state\n"
     "  lpu_cluster run --program llama.lpuprog --tokens 100k --resume state\n"},
    {Verb::kMutate,
     "mutate",
     "FILE",
     "a program with one planted fault, for tests and teaching",
     "  lpu_cluster mutate --list\n"
     "  lpu_cluster mutate llama.lpuprog --kind receive-off -o broken.lpuprog\n"},
    {Verb::kAssemble,
     "assemble",
     "FILE.jsonl",
     "the inverse of inspect --json",
     "  lpu_cluster inspect llama.lpuprog --json --own-texts 3 > edited.jsonl\n"
     "  lpu_cluster assemble edited.jsonl -o edited.lpuprog\n"},
    {Verb::kGenerate,
     "generate",
     "",
     "real tokens from a checkpoint, by the emulated chips",
     "  lpu_cluster generate --prompt ROMEO: --max-new-tokens 40 --chips 8\n"
     "  lpu_cluster generate --checkpoint shakespeare-llama-4m --prompt KING --json\n"
     "  mpirun -np 64 lpu_cluster generate --prompt ROMEO: --chips 64\n"
     "  lpu_cluster generate --prompt HAMLET: --temperature 0.8 --top-k 40 --seed 7\n"},
    {Verb::kCompare,
     "compare",
     "",
     "LPU against GPU over numbers of devices, with verdicts",
     "  lpu_cluster compare --model llama-3-8b\n"
     "  lpu_cluster compare --model llama-2-70b --system rack-64 --chips 576,1152\n"
     "  lpu_cluster compare --model llama-3-8b --micro-batch 1,best --slo-tpot-ms 2,5\n"
     "  lpu_cluster compare --model mixtral-8x7b --output-dir . --json\n"},
    {Verb::kDemo,
     "demo",
     "",
     "the tour: tokens, lockstep, curves, verdicts",
     "  mpirun -np 64 lpu_cluster\n"
     "  lpu_cluster demo --model llama-3-8b --output-dir .\n"},
};

constexpr std::uint32_t bit(Verb verb) {
  return 1U << static_cast<unsigned>(verb);
}
constexpr std::uint32_t kAll = ~0U;
constexpr std::uint32_t kCompiling = bit(Verb::kPlan) | bit(Verb::kCompile) | bit(Verb::kRun);
constexpr std::uint32_t kComparing = bit(Verb::kCompare);
constexpr std::uint32_t kTouring = bit(Verb::kDemo);
constexpr std::uint32_t kAlsoComparing = kCompiling | kComparing;
constexpr std::uint32_t kGenerating = bit(Verb::kGenerate);
constexpr std::uint32_t kAlsoGenerating = kCompiling | kGenerating;
constexpr std::uint32_t kReading =
    bit(Verb::kVerify) | bit(Verb::kInspect) | bit(Verb::kMutate) | bit(Verb::kRun) | bit(Verb::kGenerate);
constexpr std::uint32_t kWriting = bit(Verb::kCompile) | bit(Verb::kMutate) | bit(Verb::kAssemble);

struct FlagRow {
  std::string_view name;
  std::string_view placeholder;  ///< of the value; empty: a switch
  std::string_view initial;      ///< default that value() returns; empty: none
  std::string_view shown;        ///< default as the help says it; empty: `initial`
  std::string_view range;        ///< with the unit
  std::string_view doc;
  std::uint32_t verbs;
};

constexpr FlagRow kFlags[] = {
    {"model", "NAME|FILE|DIR", "", "none", "preset, config.json or its folder", "the model", kAlsoComparing | kTouring},
    {"system",
     "NAME|FILE",
     "",
     "none",
     "preset or JSON file",
     "chips, and how many; compare: a list",
     kAlsoGenerating | kComparing},
    {"chip", "NAME|FILE", "", "tsp-v1", "preset or JSON file", "the chip, in place of the system's", kAlsoGenerating},
    {"chips",
     "N",
     "",
     "the model's, else smallest",
     "1 to 9280 chips",
     "size of the system; compare: a list",
     kAlsoGenerating | kComparing},
    {"tp", "N", "", "searched", "1, 2, 4 or 8 chips of a node", "tensor parallel degree", kAlsoGenerating | kComparing},
    {"pp", "N", "", "searched", "1 to 3 x layers stages", "pipeline parallel stages", kAlsoGenerating | kComparing},
    {"micro-batch", "N", "1", "", "1 to 32 users", "users of an iteration; compare: 1,4,best", kAlsoComparing},
    {"users", "N|saturating", "1", "", "1 to 1000000 users", "that KV is allocated for, and that run", kCompiling},
    {"context",
     "N",
     "",
     "1k, or the model's",
     "1 to 1024k positions",
     "KV bucket; k = 1024",
     kAlsoGenerating | kComparing},
    {"compute",
     "PATH",
     "w8a8",
     "",
     "w8a8, w8a16, fp16, fp32ref",
     "compute path; generate: fp32ref",
     kAlsoGenerating | kComparing},
    {"kv", "TYPE", "", "by compute path", "int8, fp16, fp32", "type of the KV cache", kAlsoGenerating | kComparing},
    {"experts", "MODE", "indirect", "", "indirect, all", "experts that a layer installs", kAlsoGenerating | kComparing},
    {"objective", "NAME", "latency", "", "latency, throughput", "empty or loaded machine", kAlsoGenerating},
    {"sampling", "PLACE", "chip", "", "chip", "where the next token is chosen", kCompiling},
    {"search-orders",
     "N",
     "0",
     "the scheduler's",
     "0 to 1000000 orders",
     "phase orders tried for throughput; 0: default",
     kAlsoComparing | kTouring},
    {"seed",
     "N",
     "1",
     "",
     "0 to 2^63-1",
     "of routing and tokens, or of the fault",
     kAlsoGenerating | kComparing | bit(Verb::kMutate)},
    {"set",
     "PATH=VALUE",
     "",
     "none",
     "a preset's field, with unit",
     "change a constant; may be repeated",
     kAlsoGenerating | kComparing},
    {"explain", "", "", "", "", "the layer budget by part", bit(Verb::kPlan)},
    {"pareto", "", "", "", "", "pairs of II and latency, both objectives", bit(Verb::kPlan)},
    {"program", "FILE", "", "none", "a .lpuprog file", "the program; run: in place of --model", kReading},
    {"trace-chips",
     "A-B",
     "",
     "all; run: 0-7",
     "chips of the program",
     "list or trace these chips",
     bit(Verb::kInspect) | bit(Verb::kRun)},
    {"trace-cycles",
     "A-B",
     "",
     "all",
     "cycles: of an iteration; run: in all",
     "list or trace what issues in them",
     bit(Verb::kInspect) | bit(Verb::kRun)},
    {"trace",
     "FILE",
     "",
     "none",
     "path of the .json to write",
     "bursts as Chrome trace, at most 200,000",
     bit(Verb::kRun)},
    {"unit", "NAME", "", "all", "mem, mxm, vxm, sxm, c2c", "list this unit", bit(Verb::kInspect)},
    {"own-texts",
     "A-B",
     "",
     "none",
     "chips of the program",
     "give each a text that it shares with none",
     bit(Verb::kInspect)},
    {"slo-tpot-ms",
     "MS,...",
     "",
     "2,5,10,20,50",
     "0.01 to 100000 ms",
     "time per output token that users accept",
     kComparing},
    {"tokens", "N", "8", "", "1 to 1000000 tokens", "decode steps of each user", bit(Verb::kRun)},
    {"no-verify", "", "", "", "", "check every burst while it runs instead", bit(Verb::kRun) | kGenerating},
    {"save-state",
     "DIR",
     "",
     "none",
     "a folder that all hosts see",
     "SIGUSR1: save the run there, exit code 75",
     bit(Verb::kRun)},
    {"resume",
     "DIR",
     "",
     "none",
     "folder of --save-state, any ranks",
     "go on from there; other flags as before",
     bit(Verb::kRun)},
    {"transport", "NAME", "auto", "", "auto, shm, mpi", "between ranks of one host", bit(Verb::kRun) | kGenerating},
    {"checkpoint", "NAME|DIR|FILE", "shakespeare-mixtral-5m", "", "name, folder, file", "the weights", kGenerating},
    {"prompt", "TEXT", "", "none", "for vocabularies of bytes", "what to go on from", kGenerating},
    {"prompt-ids", "N,N,...", "", "none", "token ids", "the same as token ids", kGenerating},
    {"max-new-tokens", "N", "64", "", "1 to the context, tokens", "how many tokens to add", kGenerating},
    {"logits", "", "", "", "", "with --json: the logits after the prompt", kGenerating},
    {"simd",
     "TARGET",
     "auto",
     "",
     "auto, scalar, ssse3, sse4, avx2, avx512",
     "instruction set of the kernels; the bits are the same",
     kGenerating},
    {"temperature", "X", "0", "", "0 (greedy), 0.001 to 100", "how even the choice is", kGenerating},
    {"top-k", "N", "0", "", "0 (all) to the vocabulary, tokens", "choose among so many", kGenerating},
    {"top-p", "X", "1", "", "0.000001 to 1", "choose among the fewest that reach this probability", kGenerating},
    {"most", "N", "1", "", "1 to 1000000 breaches", "stop after so many", bit(Verb::kVerify)},
    {"kind", "NAME", "", "none", "see --list", "the fault to plant", bit(Verb::kMutate)},
    {"list", "", "", "", "", "the kinds of faults; with FILE: which apply", bit(Verb::kMutate)},
    {"output", "FILE", "", "none", "path of the file to write", "also -o", kWriting},
    {"output-dir",
     "DIR",
     "",
     "none",
     "an existing folder",
     "write results.json there",
     kAlsoGenerating | kComparing | kTouring},
    {"config", "FILE", "", "none", "JSON of --print-config", "start from it; flags go on top", kAlsoGenerating},
    {"print-config", "", "", "", "", "print the effective configuration and stop", kAlsoGenerating},
    {"json", "", "", "", "", "one JSON object on stdout", kAll},
    {"quiet", "", "", "", "", "no progress, no logs", kAll},
    {"log-level", "LEVEL", "warn", "", "trace, debug, info, warn, error, off", "logs on stderr", kAll},
    {"help", "", "", "", "", "this text; also -h", kAll},
    {"version", "", "", "", "", "version, commit, MPI and compiler", kAll},
};

const FlagRow* find_flag(std::string_view flag) {
  const auto* row =
      std::find_if(std::begin(kFlags), std::end(kFlags), [&](const FlagRow& r) { return r.name == flag; });
  return row == std::end(kFlags) ? nullptr : row;
}

const VerbRow& row_of(Verb verb) {
  return kVerbs[static_cast<std::size_t>(verb)];
}

std::vector<std::string> verb_names() {
  std::vector<std::string> out;
  for (const VerbRow& row : kVerbs) {
    out.emplace_back(row.name);
  }
  return out;
}

std::vector<std::string> flag_names(std::optional<Verb> verb) {
  std::vector<std::string> out;
  for (const FlagRow& row : kFlags) {
    if (!verb || (row.verbs & bit(*verb)) != 0) {
      out.push_back("--" + std::string(row.name));
    }
  }
  return out;
}

[[noreturn]] void refuse_flag(const std::string& flag, std::optional<Verb> verb) {
  throw InputError(flag + ": found an unknown flag; expected one of lpu_cluster" +
                   (verb ? " " + std::string(name(*verb)) : "") + " --help" +
                   node::did_you_mean(flag, flag_names(verb)));
}

/// "help" and "version" are flags here.
[[noreturn]] void refuse_verb(const std::string& word) {
  const std::string flag = "--" + word;
  const FlagRow* row = find_flag(word);
  const bool is_flag = row != nullptr && row->verbs == kAll;
  throw InputError(word + ": found an unknown verb; expected one of the known ones" +
                   (is_flag ? "; known: " + node::join(verb_names()) + "; did you mean " + flag + "?"
                            : node::known_values(word, verb_names())));
}

/// The words of the call as Boost sees them: no guessing of shortened flags.
po::parsed_options parse_words(const std::vector<std::string>& words) {
  po::options_description description;
  for (const FlagRow& row : kFlags) {
    const std::string names = std::string(row.name) + (row.name == "output" ? ",o" : row.name == "help" ? ",h" : "");
    if (row.placeholder.empty()) {
      description.add_options()(names.c_str(), "");
    } else {
      description.add_options()(names.c_str(), po::value<std::string>(), "");
    }
  }
  namespace style = po::command_line_style;
  const int how = (style::unix_style & ~style::allow_guessing & ~style::allow_sticky);
  return po::command_line_parser(words).options(description).style(how).allow_unregistered().run();
}

std::string as_typed(const std::vector<std::string>& words) {
  std::string out = "lpu_cluster";
  for (const std::string& word : words) {
    const bool is_plain = !word.empty() && word.find_first_of(" \t\n\"'\\$`*?;&|<>()") == std::string::npos;
    out += ' ';
    if (is_plain) {
      out += word;
      continue;
    }
    out += '\'';
    for (const char c : word) {
      out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    }
    out += '\'';
  }
  return out;
}

void take_flag(CommandLine& line, const po::option& option) {
  const FlagRow& row = *find_flag(option.string_key);
  const std::string flag = "--" + option.string_key;
  if (line.verb && (row.verbs & bit(*line.verb)) == 0) {
    throw InputError(flag + ": found a flag that " + std::string(name(*line.verb)) +
                     " does not take; expected one of lpu_cluster " + std::string(name(*line.verb)) + " --help" +
                     node::did_you_mean(flag, flag_names(line.verb)));
  }
  const std::string value = option.value.empty() ? std::string() : option.value.front();
  if (row.name == "set") {
    line.settings.push_back(value);
    return;
  }
  if (!line.values.emplace(option.string_key, value).second && !row.placeholder.empty()) {
    throw InputError(flag + ": found it twice; expected one value");
  }
}

std::string padded(std::string_view text, std::size_t width) {
  return std::string(text) + std::string(text.size() < width ? width - text.size() : 1, ' ');
}

std::string flag_help(const FlagRow& row) {
  std::string out =
      "  " +
      padded("--" + std::string(row.name) + (row.placeholder.empty() ? "" : " ") + std::string(row.placeholder), 24);
  out += std::string(row.doc) + "\n";
  if (!row.range.empty()) {
    const std::string_view shown = row.shown.empty() ? row.initial : row.shown;
    out += std::string(26, ' ') + std::string(row.range) + "; default: " + std::string(shown) + "\n";
  }
  return out;
}

std::string general_help() {
  std::string out =
      "lpu_cluster: compiles a language model into one cycle-exact program per chip of\n"
      "a cluster of Language Processing Units, proves it, and executes it in lockstep.\n\n"
      "usage: lpu_cluster [VERB] [flags]; without a verb: demo\n\nverbs:\n";
  for (const VerbRow& row : kVerbs) {
    out += "  " + padded(row.name, 10) + std::string(row.doc) + "\n";
  }
  out += "\nflags of every verb:\n";
  for (const FlagRow& row : kFlags) {
    if (row.verbs == kAll) {
      out += flag_help(row);
    }
  }
  out +=
      "\nexamples:\n"
      "  mpirun -np 64 lpu_cluster\n"
      "  lpu_cluster list models\n"
      "  lpu_cluster plan --model llama-2-70b --chips 576 --explain\n"
      "  lpu_cluster compile --model llama-3-8b -o llama.lpuprog\n"
      "  lpu_cluster run --program llama.lpuprog --tokens 32\n"
      "  lpu_cluster plan --help\n";
  return out;
}

}  // namespace

std::string_view name(Verb verb) {
  return row_of(verb).name;
}

std::string CommandLine::value(std::string_view flag) const {
  const auto found = values.find(flag);
  if (found != values.end()) {
    return found->second;
  }
  const FlagRow* row = find_flag(flag);
  LPU_CHECK(row != nullptr, flag);
  return std::string(row->initial);
}

CommandLine parse_command_line(std::span<const char* const> arguments) {
  std::vector<std::string> words(arguments.begin(), arguments.end());
  CommandLine line;
  line.command = as_typed(words);
  if (!words.empty() && !words.front().empty() && words.front().front() != '-') {
    const auto* row =
        std::find_if(std::begin(kVerbs), std::end(kVerbs), [&](const VerbRow& r) { return r.name == words.front(); });
    if (row == std::end(kVerbs)) {
      refuse_verb(words.front());
    }
    line.verb = row->verb;
    words.erase(words.begin());
  } else {
    const auto asks = [&](std::string_view flag) { return std::find(words.begin(), words.end(), flag) != words.end(); };
    if (!asks("--help") && !asks("-h") && !asks("--version")) {
      line.verb = Verb::kDemo;
    }
  }
  try {
    for (const po::option& option : parse_words(words).options) {
      if (option.unregistered) {
        const std::string flag = option.original_tokens.front();
        refuse_flag(flag.substr(0, flag.find('=')), line.verb);
      }
      if (option.position_key != -1) {
        line.words.insert(line.words.end(), option.value.begin(), option.value.end());
        continue;
      }
      take_flag(line, option);
    }
  } catch (const po::invalid_command_line_syntax& error) {
    const std::string flag = error.get_option_name();
    throw InputError(flag + ": found " +
                     (error.kind() == po::invalid_command_line_syntax::extra_parameter
                          ? "a value; expected none"
                          : "no value; expected one after it"));
  } catch (const po::error& error) {
    throw InputError("command line: found " + std::string(error.what()) + "; expected flags of lpu_cluster --help");
  }
  return line;
}

std::string help(std::optional<Verb> verb) {
  if (!verb) {
    return general_help();
  }
  const VerbRow& row = row_of(*verb);
  std::string out = "lpu_cluster " + std::string(row.name) + ": " + std::string(row.doc) + "\n\nusage: lpu_cluster " +
                    std::string(row.name) + (row.usage.empty() ? "" : " ") + std::string(row.usage) +
                    " [flags]\n\nflags:\n";
  for (const FlagRow& flag : kFlags) {
    if ((flag.verbs & bit(*verb)) != 0) {
      out += flag_help(flag);
    }
  }
  out += "\nexamples:\n" + std::string(row.examples);
  return out;
}

std::int64_t parse_integer(const std::string& flag,
                           const std::string& text,
                           std::int64_t minimum,
                           std::int64_t maximum) {
  const std::string where = "--" + flag;
  const std::int64_t value = node::parse_quantity(text, node::Dimension::kCount, where);
  if (value < minimum || value > maximum) {
    throw InputError(where + ": found " + text + "; expected " + std::to_string(minimum) + " to " +
                     std::to_string(maximum));
  }
  return value;
}

std::vector<std::string> parse_list(const std::string& flag, const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    out.push_back(text.substr(at, end - at));
    if (out.back().empty()) {
      throw InputError("--" + flag + ": found " + (text.empty() ? "nothing" : text) +
                       "; expected values with commas between them");
    }
    at = end + 1;
  }
  return out;
}

std::pair<std::int64_t, std::int64_t> parse_span(const std::string& flag, const std::string& text) {
  if (text.empty() || text.find_first_not_of("0123456789-") != std::string::npos) {
    throw InputError("--" + flag + ": found " + text + "; expected a number or two of them, such as 0-7");
  }
  const std::size_t dash = text.find('-');
  const std::string first = text.substr(0, dash);
  const std::string last = dash == std::string::npos ? first : text.substr(dash + 1);
  constexpr std::int64_t kMost = std::int64_t{1} << 60U;
  const std::pair<std::int64_t, std::int64_t> out = {parse_integer(flag, first, 0, kMost),
                                                     parse_integer(flag, last, 0, kMost)};
  if (out.second < out.first) {
    throw InputError("--" + flag + ": found " + text + "; expected the smaller number first");
  }
  return out;
}

}  // namespace lpu::cluster
