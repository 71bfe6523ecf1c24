#include "command_line_tables.hpp"

namespace lpu::cluster {
namespace {

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
     "  lpu_cluster generate --prompt HAMLET: --temperature 0.8 --top-k 40 --seed 7\n"
     "  lpu_cluster generate --prompt KING --max-new-tokens 200 --save-state state\n"
     "  lpu_cluster generate --prompt KING --max-new-tokens 200 --resume state\n"},
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
     bit(Verb::kRun) | kGenerating},
    {"resume",
     "DIR",
     "",
     "none",
     "folder of --save-state, any ranks",
     "go on from there; other flags as before",
     bit(Verb::kRun) | kGenerating},
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
    {"names", "", "", "", "", "names alone, one a line", bit(Verb::kList)},
    {"list", "", "", "", "", "the kinds of faults; with FILE: which apply", bit(Verb::kMutate)},
    {"output", "FILE", "", "none", "path of the file to write", "also -o", kWriting, 'o'},
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
    {"help", "", "", "", "", "this text; also -h", kAll, 'h'},
    {"version", "", "", "", "", "version, commit, MPI and compiler", kAll},
};

constexpr ExitRow kExits[] = {
    {"0", "done"},
    {"2", "input: a flag, a preset, a config, a program file, a model that does not fit"},
    {"3", "a schedule violation, or a deadlock"},
    {"4", "environment: disk full, no memory, MPI, a lost rank"},
    {"70", "a bug of ours"},
    {"75", "stopped on request, its state saved (--save-state): resume"},
    {"130, 143", "ended by INT or TERM; what a run prints then is marked partial"},
};

}  // namespace

std::span<const VerbRow> verb_rows() {
  return kVerbs;
}

std::span<const FlagRow> flag_rows() {
  return kFlags;
}

std::span<const ExitRow> exit_rows() {
  return kExits;
}

bool is_flag_of(const FlagRow& flag, Verb verb) {
  return (flag.verbs & bit(verb)) != 0;
}

bool is_of_every_verb(const FlagRow& flag) {
  return flag.verbs == kAll;
}

std::string_view shown_default(const FlagRow& flag) {
  return flag.shown.empty() ? flag.initial : flag.shown;
}

}  // namespace lpu::cluster
