#!/usr/bin/python3
"""Broken input of every kind: exit code 2, exactly one line on stderr, nothing on stdout, nothing written."""
import json
import os

from program import Checks

checks = Checks()
refused = checks.refused

# ---- flags and verbs
VERBS = "list, plan, compile, verify, inspect, run, mutate, assemble, generate, compare, demo"
MODELS = "llama-2-70b, llama-2-7b, llama-3-70b, llama-3-8b, mistral-7b, mixtral-8x22b, mixtral-8x7b"
refused(["plna"], f"plna: found an unknown verb; expected one of the known ones; known: {VERBS}; did you mean plan?")
refused(["help"], f"help: found an unknown verb; expected one of the known ones; known: {VERBS}; did you mean --help?")
refused(["--nope"], "--nope: found an unknown flag; expected one of lpu_cluster demo --help")
refused(["plan", "--modle", "llama-3-8b"],
        "--modle: found an unknown flag; expected one of lpu_cluster plan --help; did you mean --model?")
refused(["plan", "--mod", "llama-3-8b"],
        "--mod: found an unknown flag; expected one of lpu_cluster plan --help; did you mean --model?")
refused(["plan", "--chips"], "--chips: found no value; expected one after it")
refused(["plan", "--json=1"], "--json: found a value; expected none")
refused(["plan", "--chips", "8", "--chips", "9"], "--chips: found it twice; expected one value")
refused(["plan", "--tokens", "8"],
        "--tokens: found a flag that plan does not take; expected one of lpu_cluster plan --help")
refused(["plan", "llama-3-8b"], "plan: found llama-3-8b after it; expected flags only, see lpu_cluster plan --help")
refused(["plan"], f"--model: found nothing; expected a model preset or a file; known: {MODELS}")
refused(["plan", "--model", "llama-3-70"],
        f"--model: found llama-3-70; expected a model preset or a file; known: {MODELS}; did you mean llama-3-70b?")
refused(["plan", "--model", "absent/config.json"], "absent/config.json: found no such file")
refused(["plan", "--model", "an-owner/llama-3-8b"],
        f"--model: found no file or folder an-owner/llama-3-8b; expected a model preset or a file; known: {MODELS}; "
        "did you mean llama-3-8b?")
refused(["list"], "list: found nothing after it; expected what to list; known: chips, gpus, nccl, systems, models")
refused(["list", "chips", "tsp-v1", "--names"],
        "list: found --names with tsp-v1; expected it alone: a name a line, of all chips")
refused(["list", "chips", "--names", "--json"],
        "list: found --names with --json; expected it alone: a name a line, of all chips")
refused(["list", "model"],
        "list: found model; expected what to list; known: chips, gpus, nccl, systems, models; did you mean models?")
MODEL = ["plan", "--model", "llama-3-8b"]
refused(MODEL + ["--compute", "w8a9"],
        "--compute: found w8a9; expected one of the known words; known: w8a8, w8a16, fp16, fp32ref; did you mean w8a8?")
refused(MODEL + ["--objective", "speed"],
        "--objective: found speed; expected one of the known words; known: latency, throughput")
refused(MODEL + ["--sampling", "host"],
        "--sampling: found host; expected chip: no program takes the way through the host")
refused(MODEL + ["--chips", "0"], "--chips: found 0; expected 1 to 9280")
refused(MODEL + ["--chips", "-8"], "--chips: found -8; expected a number of 0 or more, such as 8")
refused(MODEL + ["--chips", "8.5"], "--chips: found 8.5; expected a whole number of things")
refused(MODEL + ["--chips", "eight"], "--chips: found eight; expected a number of 0 or more, such as 8")
refused(MODEL + ["--chips", "99999"], "--chips: found 99999; expected 1 to 9280")
refused(MODEL + ["--context", "16k"], "--context: found 16k; expected at most the model's 8192 positions")
refused(MODEL + ["--users", "many"], "--users: found many; expected 1 to 1000000, or saturating")
refused(MODEL + ["--log-level", "loud"],
        "--log-level: found loud; expected a level; known: trace, debug, info, warn, error, off")
refused(MODEL + ["--system", "rack-65"],
        "--system: found rack-65; expected a system preset or a file; known: dgx-a100, dgx-h100, hgx-pcie-numa, node-8, "
        "rack-64; did you mean rack-64?")
refused(MODEL + ["--system", "dgx-h100"],
        'dgx-h100:kind: found "gpu-system"; expected system: one of chips, not of GPUs')

# ---- settings
refused(MODEL + ["--set", "chip.sram"], "--set: found chip.sram; expected path=value, such as chip.sram=500MB")
refused(MODEL + ["--set", "chip.sram=500"],
        "--set chip.sram: found 500; expected a unit after the number: append B, kB, KiB, MB, MiB, GB, GiB, TB or TiB")
refused(MODEL + ["--set", "link.flight=218"],
        "--set link.flight: found 218; expected a unit after the number: append cycles, ns, us or ms")
refused(MODEL + ["--set", "link.fligth=218cycles"],
        "--set link.fligth: found an unknown path; expected chip.<field>, link.<field>, model.<field> or system.chips; "
        "did you mean link.flight?")
refused(MODEL + ["--set", "sram=500MB"],
        "--set sram: found an unknown path; expected chip.<field>, link.<field>, model.<field> or system.chips; "
        "did you mean chip.sram?")
refused(MODEL + ["--set", "chip.sram=1KiB"], "--set chip.sram: found 1KiB; expected 440 KiB to 1760 MiB")
refused(MODEL + ["--set", "model.kv_heads=5"],
        "--set model.kv_heads: found 5; expected a divisor of the 32 query heads")

# ---- presets of the user's own
chip = json.loads(json.dumps(checks.object("list", "chips", "tsp-v1", "--json")["chips"][0]["fields"]))


def chip_file(change):
    fields = {name: {"value": field["value"], "source": field["source"]} for name, field in chip.items()}
    preset = {"kind": "chip", "name": "mine", "description": "a test's", **fields}
    change(preset)
    with open("chip.json", "w", encoding="utf-8") as file:
        json.dump(preset, file)
    return MODEL + ["--chip", "chip.json", "--print-config"]


def missing(preset):
    del preset["link_flight"]


def unknown(preset):
    preset["link_fligth"] = preset.pop("link_flight")
    preset["link_flight"] = preset["link_fligth"]


def change_value(field, value):
    def change(preset):
        preset[field]["value"] = value
    return change


def no_source(preset):
    del preset["clock"]["source"]


result = checks.run(*chip_file(lambda preset: None))
checks.check(result.returncode == 0, f"a chip of the user's own is read: {result.stderr}")
refused(chip_file(missing), "chip.json:link_flight: found no such field; expected an object with value and source")
refused(chip_file(unknown),
        "chip.json:link_fligth: found an unknown field; expected one of the known ones; did you mean link_flight?")
refused(chip_file(no_source), "chip.json:clock.source: found no such field; expected a string")
refused(chip_file(change_value("clock", "900")),
        "chip.json:clock.value: found 900; expected a unit after the number: append Hz, kHz, MHz or GHz")
refused(chip_file(change_value("superlanes", "2000 superlanes")),
        "chip.json:superlanes.value: found 2000 superlanes; expected 1 superlanes to 64 superlanes")
refused(chip_file(change_value("mxm_position", "12 hops")),
        "chip.json:mxm_position: found 12 hops; expected more than 12 hops (sxm_position)")
with open("chip.json", "w", encoding="utf-8") as broken:
    broken.write('{"kind": "chip",\n  "name" "x"}')
refused(MODEL + ["--chip", "chip.json"], "chip.json:2: found '\"'; expected JSON (syntax error)")

# ---- Hugging Face configs
LLAMA = {
    "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 4, "intermediate_size": 640, "vocab_size": 256, "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-05, "hidden_act": "silu", "rope_theta": 10000.0, "torch_dtype": "bfloat16",
}


def config(**changes):
    os.makedirs("model", exist_ok=True)
    content = {key: value for key, value in {**LLAMA, **changes}.items() if value != "absent"}
    with open("model/config.json", "w", encoding="utf-8") as file:
        json.dump(content, file)
    return ["plan", "--model", "model", "--print-config"]


AT = "model/config.json:"
accepted = [
    {}, {"rope_theta": "absent", "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, {"head_dim": None},
    {"head_dim": 64}, {"num_key_value_heads": "absent"}, {"sliding_window": None}, {"sliding_window": 512},
    {"torch_dtype": "absent", "dtype": "float16"}, {"tie_word_embeddings": True}, {"unheard_of": [1, {"a": 2}]},
    {"rope_scaling": {"type": "linear", "factor": 4.0}}, {"model_type": "mistral"},
    {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 512}},
    {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2},
]
for changes in accepted:
    outcome = checks.run(*config(**changes))
    checks.check(outcome.returncode == 0, f"config with {changes}: {outcome.stderr}")

refused(config(model_type="qwen2"),
        AT + 'model_type: found "qwen2"; expected a model type that this program schedules; known: llama, mistral, mixtral')
refused(config(model_type="absent"), AT + "model_type: found no such field; expected a string")
refused(config(quantization_config={"quant_method": "awq"}),
        AT + 'quantization_config.quant_method: found "awq"; expected a checkpoint without quantization_config '
        "(--compute chooses the bits)")
refused(config(rope_scaling={"rope_type": "yarn", "factor": 4.0}),
        AT + 'rope_scaling.rope_type: found "yarn"; expected a rope scaling that this program computes; '
        "known: default, linear, llama3")
refused(config(hidden_act="gelu"), AT + 'hidden_act: found "gelu"; expected "silu" or "swish", or no such field')
refused(config(attention_bias=True), AT + "attention_bias: found true; expected false, or no such field")
refused(config(hidden_size="absent"),
        AT + "hidden_size: found no such field; expected a whole number from 1 to 1048576")
refused(config(num_hidden_layers=0), AT + "num_hidden_layers: found 0; expected a whole number from 1 to 10000")
refused(config(vocab_size=-5), AT + "vocab_size: found -5; expected a whole number from 2 to 16777216")
refused(config(rms_norm_eps="x"), AT + 'rms_norm_eps: found "x"; expected a number from 1e-12 to 0.1')
refused(config(num_attention_heads=7, num_key_value_heads=7),
        AT + "num_attention_heads: found 7; expected a number of heads that cuts hidden_size, 256, into equal even parts, "
        "or a head_dim")

# ---- places to write and files to read
refused(["compile", "--model", "llama-3-8b"],
        "-o: found nothing; expected the file to write, such as model.lpuprog")
refused(["compile", "--model", "llama-3-8b", "-o", "absent/x.lpuprog"],
        "-o: found no absent; expected an existing folder")
os.mkdir("folder")
refused(["compile", "--model", "llama-3-8b", "-o", "folder"], "-o: found folder, a folder; expected the name of a file to write")
refused(MODEL + ["--output-dir", "absent"], "--output-dir: found no absent; expected an existing folder")
refused(MODEL + ["--output-dir", "chip.json"],
        "--output-dir: found no folder at chip.json; expected an existing folder")
if os.geteuid() != 0:  # root may write everywhere
    os.mkdir("closed", mode=0o500)
    refused(["compile", "--model", "llama-3-8b", "-o", "closed/x.lpuprog"],
            "-o: found closed, which cannot be written; expected a folder with write permission")
refused(["verify"], "verify: found nothing after it; expected one program file")
refused(["verify", "a", "b"], "verify: found 2 words after it; expected one program file")
refused(["run", "x.lpuprog"],
        "run: found x.lpuprog after it; expected flags only, see lpu_cluster run --help; did you mean --program x.lpuprog?")
refused(["run", "--program", "x.lpuprog", "--model", "llama-3-8b"],
        "--model: found beside --program; expected one of them (the program holds the rest)")
checks.check(sorted(os.listdir(".")) == sorted(["chip.json", "folder", "model"] + (["closed"] if os.geteuid() else [])),
             f"a refused call left something behind: {os.listdir('.')}")

checks.finish()
