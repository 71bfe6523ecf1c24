#!/usr/bin/python3
"""Help, version, lists and configurations: what every verb has, as a user meets it."""
import json
import re

from program import Checks

checks = Checks()
VERBS = ["list", "plan", "compile", "verify", "inspect", "run", "mutate", "assemble", "generate", "compare", "demo"]

general = checks.expect(["--help"], 0, stderr="")
checks.check(all(f"\n  {verb} " in general.stdout for verb in VERBS), "the general help names every verb")
for verb in VERBS:
    text = checks.expect([verb, "--help"], 0, stderr="").stdout
    checks.check("examples:\n" in text, f"{verb} --help ends with examples")
    checks.check(all(len(line) <= 80 for line in text.splitlines()), f"{verb} --help is at most 80 columns wide")
    for example in text.split("examples:\n")[1].splitlines():
        words = example.split("|")[0].split(">")[0].split()
        checks.check(words[0] in ("lpu_cluster", "mpirun"), f"an example of {verb} --help: {example}")
        parsed = checks.run(*words[words.index("lpu_cluster") + 1:], "--help")
        checks.check(parsed.returncode == 0, f"an example of {verb} --help: {parsed.stderr}")
        if "--kind" in words:
            kinds = [kind["name"] for kind in checks.object("mutate", "--list", "--json")["kinds"]]
            checks.check(words[words.index("--kind") + 1] in kinds, f"an example names a kind that is none: {example}")
    for flag in ("--json", "--quiet", "--log-level", "--help"):
        checks.check(f"  {flag}" in text, f"{verb} --help knows {flag}")

version = checks.expect(["--version"], 0, stderr="").stdout
checks.check(re.fullmatch(r"lpu_cluster \d+\.\d+\.\d+\ncommit   \S+\nMPI      .+\ncompiler .+\n", version) is not None,
             f"version: {version!r}")
checks.check({"version", "commit", "mpi", "compiler"} <= set(checks.object("--version", "--json")), "version as JSON")

for kind, names in {"chips": {"tsp-v1"}, "gpus": {"h100-80g-sxm", "a100-80g-sxm", "a100-80g-pcie"},
                    "nccl": {"nccl-2.30"},
                    "systems": {"node-8", "rack-64", "dgx-h100", "dgx-a100", "hgx-pcie-numa"},
                    "models": {"llama-2-7b", "llama-2-70b", "llama-3-8b", "llama-3-70b", "mistral-7b", "mixtral-8x7b",
                               "mixtral-8x22b"}}.items():
    listed = checks.object("list", kind, "--json")
    checks.check(listed["schema"] == "lpu_cluster/list/1", "schema of list")
    checks.check({"schema", "version", "command", "inputs"} <= set(listed), "keys that every object has")
    checks.check({preset["name"] for preset in listed[kind]} == names, f"names of {kind}")
    for preset in listed[kind]:
        for name, field in preset["fields"].items():
            checks.check(field["value"] and field["source"], f"{kind} {preset['name']} {name}: value and source")
    table = checks.expect(["list", kind], 0, stderr="").stdout
    checks.check(all(name in table for name in names), f"list {kind} names all")
    checks.check(all(len(line) <= 80 for line in table.splitlines()), f"list {kind} is at most 80 columns wide")

# The effective configuration runs again, and says what was changed.
FLAGS = ["--model", "mixtral-8x7b", "--chips", "256", "--tp", "8", "--compute", "w8a16", "--micro-batch", "2",
         "--users", "saturating", "--context", "2k", "--set", "chip.sram=500MB", "--set", "link.rate=14GB/s",
         "--set", "model.layers=40"]
first = checks.object("plan", *FLAGS, "--print-config")
inputs = first["inputs"]
checks.check(inputs["modified"] == ["chip.sram=500MB", "link.rate=14GB/s", "model.layers=40"], "settings are recorded")
checks.check(inputs["chip"]["vectors_per_slice"] == "17754 vectors", "chip.sram sets the rows of a slice")
checks.check(inputs["chip"]["link_serialisation"] == "22 cycles", "link.rate sets the serialisation")
checks.check(inputs["model"]["layers"] == "40 layers", "model.layers")
checks.check((inputs["kv"], inputs["context"], inputs["tp"], inputs["pp"]) == ("fp16", 2048, 8, None), "flags and defaults")
with open("config.json", "w", encoding="utf-8") as file:
    json.dump(first, file)
again = checks.object("plan", "--config", "config.json", "--print-config")
checks.check(again["inputs"] == inputs, "a configuration reads back to itself")
on_top = checks.object("plan", "--config", "config.json", "--chips", "512", "--print-config")
checks.check(on_top["inputs"] == {**inputs, "chips": 512}, "flags go on top of a configuration")

defaults = {"llama-2-7b": 64, "llama-3-8b": 64, "mistral-7b": 64, "mixtral-8x7b": 256, "llama-2-70b": 576,
            "llama-3-70b": 576, "mixtral-8x22b": 904}
for model, chips in defaults.items():
    config = checks.object("plan", "--model", model, "--print-config")["inputs"]
    checks.check((config["chips"], config["context"], config["compute"], config["kv"], config["users"],
                  config["micro_batch"], config["objective"]) == (chips, 1024, "w8a8", "int8", 1, 1, "latency"),
                 f"defaults of {model}")
checks.check(checks.object("plan", "--model", "llama-3-8b", "--system", "node-8", "--print-config")["inputs"]["chips"] == 8,
             "a system says how many chips")

# Under a launcher one rank speaks.
for variable in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK"):
    checks.expect(["list", "models"], 0, stdout="", stderr="", environment={variable: "3"})

checks.finish()
