#!/usr/bin/python3
"""One combination of those that the acceptance runs in full (scripts/acceptance_numbers.sh): what transformers says, and
bit for bit what one chip says without SIMD; and in no more memory than was asked.

combination.py PROGRAM MPIRUN GOLDEN_FOLDER MODEL ONE_CHIP [CHIPS RANKS SIMD]

ONE_CHIP: the file that holds what one chip says; without CHIPS it is written.
"""
import sys

from ranks import json, mpirun_command, os, subprocess  # first: it makes ../e2e known
from program import Checks

golden_folder, model, one_chip = os.path.abspath(sys.argv[3]), sys.argv[4], os.path.abspath(sys.argv[5])
checks = Checks()
with open(os.path.join(golden_folder, model + ".json"), encoding="utf-8") as file:
    case = json.load(file)["cases"][0]
TOKENS = 8
GENERATE = ["generate", "--checkpoint", model, "--prompt", case["prompt"], "--max-new-tokens", str(TOKENS), "--context", "64",
            "--json", "--logits", "--quiet"]
if len(sys.argv) == 6:
    with open(one_chip, "w", encoding="utf-8") as file:
        json.dump(checks.object(*GENERATE, "--chips", "1", "--simd", "scalar"), file)
    checks.finish()
chips, ranks, simd = sys.argv[6:9]
done = subprocess.run(mpirun_command(ranks, checks.program, *GENERATE, "--chips", chips, "--simd", simd), capture_output=True,
                      text=True, timeout=200, stdin=subprocess.DEVNULL)
if done.returncode == 2:
    checks.check(done.stdout == "" and f"this CPU has no {simd}" in done.stderr and done.stderr.count("\n") == 1, done.stderr)
    checks.finish()
checks.check(done.returncode == 0, f"exit code {done.returncode}: {done.stderr}")
told = json.loads(done.stdout)
with open(one_chip, encoding="utf-8") as file:
    one = json.load(file)
checks.check(told["simd"] == simd and told["ranks"] == int(ranks) and told["chips"] == int(chips), "what ran is in the result")
checks.check(told["new_ids"] == case["new_ids"][:TOKENS], f"tokens: {told['new_ids']}")
errors = [abs(a - b) for a, b in zip(told["logits_after_prompt"], case["logits_after_prompt"])]
checks.check(len(errors) == 256 and max(errors) < 1e-4, f"logits off by {max(errors, default=None)}")
for key in ("logits_after_prompt", "result_digest"):
    checks.check(told[key] == one[key], f"{key}: {told[key]}, one chip {one[key]}")
limit = 1.15 * (told["weight_bytes"] + told["kv_bytes"]) + 20e6 * told["ranks"]
checks.check(0 < told["memory_bytes"] <= limit, f"memory: {told['memory_bytes']} bytes, limit {limit}")
checks.finish()
