#!/usr/bin/python3
"""The full product of models, chips, ranks and SIMD targets; then memory and speed. One line a run, exit code 1 where one misses.

acceptance_numbers.py PROGRAM [MODEL ...]
"""
import json
import os
import subprocess
import sys

MODELS = ("shakespeare-llama-4m", "shakespeare-mixtral-5m")
CHIPS = (1, 2, 3, 5, 8, 16, 64)
RANKS = (1, 2, 3, 7, 64)
TARGETS = ("scalar", "ssse3", "sse4", "avx2", "avx512")
FLIPS = ("low=1.0.0", "low=3.1.12", "low=2.1.16")  # on 16 chips, TP 4 x PP 4: CHIP.LINK.N
NEW_TOKENS = 3  # of the product; the golden file's 64 are generated once a model, on 1 chip and on 64
ENVIRONMENT = {
    **os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_orte_execute_quiet": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden")
if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help") or not os.access(sys.argv[1], os.X_OK):
    print(__doc__.strip(), file=sys.stderr)
    sys.exit(2)
program = os.path.abspath(sys.argv[1])
models = sys.argv[2:] or MODELS
misses = 0


def told(row, holds):
    global misses
    misses += not holds
    print(f"{'ok  ' if holds else 'MISS'} {row}", flush=True)


def generate(model, case, chips, ranks, target, new_tokens, *more, fault=""):
    """The result; text of an error else. No ranks: without a launcher."""
    launcher = ["mpirun", "-np", str(ranks)] if ranks > 0 else []
    done = subprocess.run(
        [*launcher, program, "generate", "--checkpoint", model, "--prompt", case["prompt"], "--max-new-tokens",
         str(new_tokens), "--chips", str(chips), "--context", "128", "--simd", target, "--json", "--logits", "--quiet", *more],
        capture_output=True, text=True, timeout=600, env={**ENVIRONMENT, "LPU_CLUSTER_TEST_FAULTS": fault}, stdin=subprocess.DEVNULL)
    return json.loads(done.stdout) if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr.strip()}"


def error_of(out, case):
    return max(abs(a - b) for a, b in zip(out["logits_after_prompt"], case["logits_after_prompt"]))


def shares_text(out):
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in out["time_share"].items())


def memory_of(out):
    """What was asked of the proportional set sizes of all ranks, and whether it holds."""
    held = out["weight_bytes"] + out["kv_bytes"]
    limit = 1.15 * held + 20e6 * out["ranks"]
    return f"{out['memory_bytes'] / 1e6:5.1f} of {limit / 1e6:.1f} MB", 0 < out["memory_bytes"] <= limit


def product(model, case):
    """Every cluster on every number of ranks with every instruction set: one result."""
    results, executions = {}, {}
    for chips in CHIPS:
        for target in TARGETS:
            for ranks in RANKS:
                row = f"{model:24} {chips:3} chips {ranks:3} ranks {target:7}"
                out = generate(model, case, chips, ranks, target, NEW_TOKENS)
                if isinstance(out, str):
                    lacks = out.startswith("exit code 2: ") and f"this CPU has no {target}" in out
                    told(f"{row} {'exit code 2: this CPU has none' if lacks else out}", lacks)
                    continue
                bits = json.dumps(out["logits_after_prompt"]) + out["result_digest"]
                results.setdefault(bits, row)
                executions.setdefault(chips, out["fingerprint"])
                error = error_of(out, case)
                memory, fits = memory_of(out)
                holds = (out["new_ids"] == case["new_ids"][:NEW_TOKENS] and error < 1e-4 and len(results) == 1 and
                         out["fingerprint"] == executions[chips] and (out["simd"], out["ranks"]) == (target, ranks) and fits)
                told(f"{row} TP {out['tp']} x PP {out['pp']:2}  result {out['result_digest']}  execution {out['fingerprint']}  "
                     f"off by {error:.1e}  {memory}  {out['wall_s']:5.2f} s", holds)
    told(f"{model}: {len(results)} result(s) of all combinations", len(results) == 1)


def whole_text(model, case):
    for chips, ranks in ((1, 1), (64, 2)):
        out = generate(model, case, chips, ranks, "auto", len(case["new_ids"]))
        holds = not isinstance(out, str) and out["new_ids"] == case["new_ids"]
        told(f"{model}: {len(case['new_ids'])} greedy tokens on {chips} chips are those of transformers", holds)


def flipped_bits(model, case):
    """The lowest bit of a mantissa on a wire changes what comes out, and what is said to have been executed."""
    def cut(fault):
        return generate(model, case, 16, 4, "auto", NEW_TOKENS, "--tp", "4", "--pp", "4", fault=fault)

    right = cut("")
    for fault in FLIPS:
        out = cut(fault)
        holds = not isinstance(out, str) and not isinstance(right, str) and all(
            out[key] != right[key] for key in ("result_digest", "fingerprint"))
        told(f"{model}: {fault} changes result and execution", holds)


def memory_and_speed(model, case):
    """Longer runs: the cache fills up."""
    one_rank = None
    for chips, ranks in ((1, 0), (1, 1), (8, 1), (8, 2), (8, 8), (16, 1), (64, 1), (64, 2), (64, 7), (64, 64)):
        out = generate(model, case, chips, ranks, "auto", 64)
        row = f"{model}: {chips} chips on {ranks or 'no'} ranks"
        if isinstance(out, str):
            told(f"{row}: memory and speed: {out}", False)
            continue
        memory, fits = memory_of(out)
        told(f"{row}: {memory}", fits)
        speed = out["tokens_per_wall_s"]
        one_rank = speed if (chips, ranks) == (64, 1) else one_rank
        ratio = f", {speed / one_rank:.2f} x one rank" if one_rank else ""
        print(f"     {row}: {speed:.1f} tokens/s{ratio}; {shares_text(out)}", flush=True)


for name in models:
    with open(os.path.join(GOLDEN, name + ".json"), encoding="utf-8") as file:
        golden = json.load(file)["cases"][0]
    product(name, golden)
    whole_text(name, golden)
    flipped_bits(name, golden)
    memory_and_speed(name, golden)
sys.exit(1 if misses else 0)
