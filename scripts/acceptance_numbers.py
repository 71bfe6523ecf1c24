#!/usr/bin/python3
"""The full product of models, clusters and SIMD targets; one line a run, exit code 1 where one misses."""
import json
import os
import subprocess
import sys

MODELS = ("shakespeare-llama-4m", "shakespeare-mixtral-5m")
CHIPS = (1, 2, 3, 5, 8, 16, 64)
TARGETS = ("scalar", "ssse3", "sse4", "avx2", "avx512")
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden")
program = os.path.abspath(sys.argv[1])
misses = 0


def told(row, holds):
    global misses
    misses += not holds
    print(f"{'ok  ' if holds else 'MISS'} {row}", flush=True)


for model in MODELS:
    with open(os.path.join(GOLDEN, model + ".json")) as file:
        case = json.load(file)["cases"][0]
    digests = {}
    for chips in CHIPS:
        for target in TARGETS:
            result = subprocess.run(
                [program, "generate", "--checkpoint", model, "--prompt", case["prompt"], "--max-new-tokens", "64", "--chips",
                 str(chips), "--context", "128", "--simd", target, "--json", "--logits", "--quiet"],
                capture_output=True, text=True, timeout=600)
            row = f"{model:24} {chips:3} chips {target:7}"
            if result.returncode == 2 and f"this CPU has no {target}" in result.stderr:
                print(f"n/a  {row} this CPU has no {target}")
                continue
            if result.returncode != 0:
                told(f"{row} exit code {result.returncode}: {result.stderr.strip()}", False)
                continue
            out = json.loads(result.stdout)
            error = max(abs(a - b) for a, b in zip(out["logits_after_prompt"], case["logits_after_prompt"]))
            digests.setdefault(out["result_digest"], row)
            holds = out["new_ids"] == case["new_ids"] and error < 1e-4 and len(digests) == 1 and out["simd"] == target
            told(f"{row} TP {out['tp']} x PP {out['pp']:2}  {out['result_digest']}  off by {error:.1e}  {out['wall_s']:5.1f} s",
                 holds)
    told(f"{model}: {len(digests)} result(s)", len(digests) == 1)
sys.exit(1 if misses else 0)
