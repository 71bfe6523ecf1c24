#!/usr/bin/python3
"""Text from the shipped checkpoints: what transformers says, the same bits on any cluster and SIMD target."""
import json
import os
import sys

from program import Checks

golden_folder = os.path.abspath(sys.argv[2])
checks = Checks()
TARGETS = ("scalar", "ssse3", "sse4", "avx2", "avx512")


def golden(model, case=0):
    with open(os.path.join(golden_folder, model + ".json")) as file:
        return json.load(file)["cases"][case]


for model, cuts in (("shakespeare-llama-4m", ((2, 2, 1), (5, 1, 5))), ("shakespeare-mixtral-5m", ((8, 8, 1),))):
    case = golden(model)
    for chips, tp, pp in cuts:
        told = checks.object("generate", "--checkpoint", model, "--prompt", case["prompt"], "--max-new-tokens", "64",
                             "--chips", str(chips), "--tp", str(tp), "--pp", str(pp), "--context", "128", "--json",
                             "--logits")
        checks.check(told["schema"] == "lpu_cluster/generate/1", f"schema: {told['schema']}")
        checks.check(told["new_ids"] == case["new_ids"], f"{model} on {chips} chips: new_ids {told['new_ids']}")
        checks.check(told["text"] == case["text"], f"{model}: text {told['text']!r}")
        errors = [abs(a - b) for a, b in zip(told["logits_after_prompt"], case["logits_after_prompt"])]
        checks.check(len(errors) == 256 and max(errors) < 1e-4, f"{model}: logits off by {max(errors, default=None)}")
        checks.check(told["bytes_moved"] == 320 * told["vectors_moved"], "bytes of the vectors moved")

digests = set()
ran = 0
for target in TARGETS:
    arguments = ["generate", "--prompt", "To be", "--max-new-tokens", "3", "--chips", "2", "--context", "128", "--json",
                 "--logits", "--simd", target]
    if checks.run(*arguments).returncode == 2:
        known = checks.run(*arguments).stderr
        checks.check(f"this CPU has no {target}" in known, f"{target}: {known}")
        continue
    told = checks.object(*arguments)
    checks.check(told["simd"] == target, f"ran {told['simd']} for {target}")
    digests.add((told["result_digest"], tuple(told["logits_after_prompt"])))
    ran += 1
checks.check(ran >= 1 and len(digests) == 1, f"{ran} targets, {len(digests)} results")

# The count of vectors is that of the program's listing, once a token.
checks.expect(["compile", "--model", os.path.join(os.path.dirname(os.path.dirname(checks.program)), "share", "lpu_cluster",
                                                  "models", "shakespeare-mixtral-5m"),
               "--chips", "4", "--tp", "2", "--pp", "2", "--context", "128", "--compute", "fp32ref", "-o", "m.lpuprog"], 0)
told = checks.object("generate", "--program", "m.lpuprog", "--prompt", "ab", "--max-new-tokens", "2", "--json")
records = [json.loads(line) for line in checks.run("inspect", "m.lpuprog", "--json").stdout.splitlines()]
chips_of = {record["text"]: len(record["chips"]) for record in records if record["record"] == "text"}
sent = sum(chips_of[r["text"]] * r["count"][0] * r["count"][1] * r["count"][2]
           for r in records if r["record"] == "instruction" and r["opcode"] == "send")
checks.check(told["vectors_moved"] == 3 * sent, f"{told['vectors_moved']} vectors moved in 3 tokens of {sent}")

# Faults of the program are found, proven or not.
kinds = [row["name"] for row in checks.object("mutate", "--list", "m.lpuprog", "--json")["kinds"] if row["applies"]]
for name in [n for n in kinds if "address" in n or "read" in n or "expert" in n]:
    checks.expect(["mutate", "m.lpuprog", "--kind", name, "-o", "broken.lpuprog"], 0)
    for flags in ([], ["--no-verify"]):
        result = checks.run("generate", "--program", "broken.lpuprog", "--prompt", "ab", "--max-new-tokens", "1", *flags)
        checks.check(result.returncode == 3, f"{name} {flags}: exit code {result.returncode}: {result.stderr}")

checks.refused(["generate", "--chips", "1"], "--prompt: found neither; expected --prompt TEXT or --prompt-ids 1,2,3")
checks.refused(["generate", "--prompt", "a", "--chips", "1", "--checkpoint", "shakespeare-lama-4m"],
               "--checkpoint: found shakespeare-lama-4m; expected a checkpoint's folder or file, or a shipped model; known: "
               "shakespeare-llama-4m, shakespeare-mixtral-5m; did you mean shakespeare-llama-4m?")
checks.refused(["generate", "--prompt", "a", "--chips", "1", "--compute", "w8a8"],
               "--compute: found compute path w8a8; expected fp32ref, which the numeric plane executes")
checks.refused(["generate", "--prompt-ids", "1,256", "--chips", "1"], "--prompt-ids: found 256; expected 0 to 255")
checks.refused(["generate", "--prompt", "a", "--top-p", "0"], "--top-p: found 0; expected a number from 1e-06 to 1")
checks.finish()
