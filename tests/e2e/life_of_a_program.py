#!/usr/bin/python3
"""One small model through every verb: plan, compile, verify, inspect, assemble, run, mutate; and what must be refused."""
import json
import os
import re
import subprocess

from program import Checks

checks = Checks()

CONFIG = {
    "model_type": "llama", "hidden_size": 1280, "num_hidden_layers": 4, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2560, "vocab_size": 4096,
    "max_position_embeddings": 1024, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
}
os.mkdir("small")
with open("small/config.json", "w", encoding="utf-8") as file:
    json.dump(CONFIG, file)
MODEL = ["--model", "small", "--chips", "16", "--tp", "8", "--pp", "2", "--context", "128"]

# ---- plan: its keys, and sums that must close
PLAN_KEYS = {
    "schema", "version", "command", "inputs", "fits", "chips", "chips_idle", "tp", "pp", "micro_batch", "balance",
    "smallest_chips", "sram_bytes_used_max", "sram_bytes_per_chip", "users_fit", "users_saturating", "context", "kv",
    "token_latency_cycles", "token_latency_us", "tokens_per_second_per_user", "tokens_per_second",
    "initiation_interval_cycles", "ii_lower_bound_cycles", "ii_quality", "objective", "latency_lower_bound_cycles",
    "latency_quality", "clock_hz", "budget", "hops_cycles", "ends_cycles",
}
PARTS = ["install", "activation_slots", "fill", "vxm", "sxm", "attention", "router", "wires_exposed", "waiting"]
plan = checks.object("plan", *MODEL, "--json")
checks.check(PLAN_KEYS <= set(plan), f"keys of plan: missing {PLAN_KEYS - set(plan)}")
checks.check(plan["schema"] == "lpu_cluster/plan/1" and plan["fits"] is True, "plan answers")
checks.check(sum(plan["budget"][part] for part in PARTS) == plan["layer_cycles"], f"parts sum to the layer: {plan['budget']}")
checks.check(plan["layers_cycles"] + plan["hops_cycles"] + plan["ends_cycles"] == plan["token_latency_cycles"],
             "layers + hops + ends = token latency")
checks.check(sum(plan["sram_bytes_per_chip"].values()) == plan["sram_bytes_used_max"], "SRAM parts sum")
checks.check((plan["latency_quality"] or 0) >= 1 and (plan["ii_quality"] or 0) >= 1, "no schedule beats its bound")
text = checks.expect(["plan", *MODEL, "--explain"], 0, stderr="").stdout
checks.check("what binds" in text and "one token's way" in text, "plan --explain")
checks.check(all(len(line) <= 80 for line in text.splitlines()), "plan --explain is at most 80 columns wide")
pareto = checks.object("plan", *MODEL, "--pareto", "--json")["pareto"]
checks.check({row["objective"] for row in pareto} == {"latency", "throughput"}, "pairs of both objectives")
checks.check(all(row["initiation_interval_cycles"] > 0 for row in pareto), "each tokens/s names its II")

# ---- compile, verify, inspect, assemble
os.mkdir("results")
compiled = checks.object("compile", *MODEL, "-o", "small.lpuprog", "--json", "--output-dir", "results")
with open("results/results.json", encoding="utf-8") as file:
    checks.check(json.load(file) == compiled, "results.json is what stdout says")
checks.check(compiled["token_latency_cycles"] == plan["token_latency_cycles"], "compile and plan agree")
verified = checks.object("verify", "small.lpuprog", "--json")
checks.check(verified["verified"] is True and verified["breaches"] == [], "the program is legal")
checks.check(verified["schedule_digest"] == compiled["schedule_digest"] == plan["schedule_digest"], "one schedule")
checks.refused(["inspect", "small.lpuprog", "--trace-chips", "3,5"],
               "--trace-chips: found 3,5; expected a number or two of them, such as 0-7")
listing = checks.expect(["inspect", "small.lpuprog", "--json"], 0, stderr="").stdout
with open("small.jsonl", "w", encoding="utf-8") as file:
    file.write(listing)
checks.expect(["assemble", "small.jsonl", "-o", "again.lpuprog"], 0, stderr="")
with open("small.lpuprog", "rb") as first, open("again.lpuprog", "rb") as second:
    original = first.read()
    checks.check(original == second.read(), "assemble is the inverse of inspect")

# ---- run: what it measures is what plan said
run = checks.object("run", "--program", "small.lpuprog", "--tokens", "3", "--json")
for key in ("token_latency_cycles", "chips", "tp", "pp", "clock_hz", "schedule_digest"):
    checks.check(run[key] == plan[key], f"run and plan agree on {key}: {run[key]}, {plan[key]}")
checks.check({"fingerprint", "makespan_cycles", "arrivals_checked", "transfers", "jitter_cycles_max", "occupancy", "ranks",
              "wall_s", "chip_cycles_per_wall_s"} <= set(run), "keys of run")
checks.check(run["jitter_cycles_max"] == 0 and run["arrivals_checked"] > 0, "no jitter")
direct = checks.object("run", *MODEL, "--tokens", "3", "--json")
checks.check(direct["fingerprint"] == run["fingerprint"], "a file changes nothing")
every_rule = checks.object("run", "--program", "small.lpuprog", "--tokens", "3", "--no-verify", "--json")
checks.check(every_rule["fingerprint"] == run["fingerprint"], "checking every burst changes nothing")
for arguments in (["run", *MODEL, "--tokens", "3"], ["run", "--program", "small.lpuprog", "--tokens", "3"]):
    for more in ("--json", "--print-config"):
        result = checks.object(*arguments, "--json", more)
        with open("config.json", "w", encoding="utf-8") as file:
            json.dump(result, file)
        checks.check(checks.object("run", "--config", "config.json", "--json")["fingerprint"] == run["fingerprint"],
                     f"what decides the outcome runs again: {arguments} {more}")
loaded = checks.object("plan", *MODEL, "--objective", "throughput", "--users", "saturating", "--json")
measured = checks.object("run", *MODEL, "--objective", "throughput", "--users", "saturating", "--json")
for key in ("token_latency_cycles", "initiation_interval_cycles", "token_period_cycles", "users", "tokens_per_second"):
    checks.check(loaded[key] == measured[key], f"loaded: run and plan agree on {key}: {measured[key]}, {loaded[key]}")

BREACH = re.compile(r"lpu_cluster: chip \d+, cycle \d+, instruction \d+: .+\n")
late = checks.expect(["run", "--program", "small.lpuprog", "--set", "link.flight=218cycles"], 3, stdout="")
checks.check(BREACH.fullmatch(late.stderr) is not None, f"a longer wire is seen at the first arrival: {late.stderr}")

# ---- files that are not programs
for name, content in {"flipped": bytes([*original[:200], original[200] ^ 1, *original[201:]]), "cut": original[:-1],
                      "empty": b"", "other": b"{}"}.items():
    with open(f"{name}.lpuprog", "wb") as file:
        file.write(content)
    for verb in (["verify"], ["inspect"], ["run", "--program"], ["mutate", "--kind", "x", "-o", "y"]):
        refused = checks.expect([*verb, f"{name}.lpuprog"], 2, stdout="")
        checks.check(re.fullmatch(rf"lpu_cluster: {name}\.lpuprog: .+\n", refused.stderr) is not None,
                     f"{verb[0]} {name}: one line that names the file: {refused.stderr!r}")
checks.check(not os.path.exists("y"), "nothing is written for a file that is refused")

# ---- planted faults
kinds = checks.object("mutate", "--list", "small.lpuprog", "--json")["kinds"]
checks.check(len(kinds) >= 15, f"{len(kinds)} kinds of faults")
for kind in kinds:
    arguments = ["mutate", "small.lpuprog", "--kind", kind["name"], "--seed", "3", "-o", "mutant.lpuprog"]
    if not kind["applies"]:
        checks.expect(arguments, 2, stdout="")
        continue
    checks.expect(arguments, 0, stderr="")
    seen = checks.expect(["verify", "mutant.lpuprog"], 3)
    checks.check(len(seen.stderr.splitlines()) == 1, f"{kind['name']}: one line: {seen.stderr}")
    seen = checks.expect(["run", "--no-verify", "--program", "mutant.lpuprog"], 3, stdout="")
    checks.check(len(seen.stderr.splitlines()) == 1, f"{kind['name']}: one line: {seen.stderr}")
checks.expect(["mutate", "small.lpuprog", "--kind", "no_such_kind", "-o", "mutant.lpuprog"], 2, stdout="")

# ---- what does not fit
for model, flags in {"llama-2-70b": ["--chips", "576", "--compute", "fp16"], "mixtral-8x22b": ["--chips", "64"]}.items():
    misfit = checks.expect(["plan", "--model", model, *flags], 2, stdout="")
    checks.check(len(misfit.stderr.splitlines()) == 1, f"one line: {misfit.stderr}")
    answer = checks.object("plan", "--model", model, *flags, "--json", code=2)
    checks.check(answer.get("fits") is False and (answer.get("smallest_chips") or 0) > int(flags[1]), f"{model}: {answer.get('reason')}")

# ---- a full disk
if os.path.exists("/dev/full"):
    with open("/dev/full", "w", encoding="utf-8") as full:
        code = subprocess.run([checks.program, "list", "models"], stdout=full, stderr=subprocess.PIPE, check=False).returncode
        checks.check(code == 4, f"a full disk is the environment's fault: {code}")

checks.finish()
