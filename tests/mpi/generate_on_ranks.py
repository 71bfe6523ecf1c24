#!/usr/bin/python3
"""Real tokens are the same whatever number of ranks makes them; and whatever goes wrong ends the job, or shows.

generate_on_ranks.py PROGRAM MPIRUN
"""
import re
from concurrent.futures import ThreadPoolExecutor

from ranks import json, mpirun_command, os, rank_pids, signal, subprocess, time  # first: it makes ../e2e known
import checkpoints
from program import Checks

checks = Checks()
KEYS = ("new_ids", "result_digest", "fingerprint", "logits_after_prompt", "vectors_moved", "transfers", "bytes_moved")


def start(ranks, *arguments, environment=None):
    return subprocess.Popen(mpirun_command(ranks, checks.program, "generate", *arguments), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                            env={**os.environ, **(environment or {})})


def end_of(ranks, *arguments, **keywords):
    """Exit code, stdout, stderr."""
    job = start(ranks, *arguments, **keywords)
    stdout, stderr = job.communicate(timeout=100)
    return job.returncode, stdout, stderr


def ends_of(calls):
    """Of several calls: (ranks, arguments, fault). A start of mpirun is mostly waiting: a few are under way at a time."""
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda call: end_of(call[0], *call[1], environment={"LPU_CLUSTER_TEST_FAULTS": call[2]}), calls))


def results(*calls):
    """Their JSON objects; of (ranks, arguments) or (ranks, arguments, fault)."""
    calls = [(ranks, [*arguments, "--json", "--logits"], *(fault or [""])) for ranks, arguments, *fault in calls]
    objects = []
    for (ranks, arguments, _), (code, stdout, stderr) in zip(calls, ends_of(calls)):
        checks.check(code == 0 and stderr == "", f"np {ranks} {arguments}: exit code {code}: {stderr}")
        try:
            objects.append(json.loads(stdout))
        except ValueError:
            objects.append({})
    return objects


def expect_same(told, expected, what, keys=KEYS):
    for key in keys:
        checks.check(told.get(key) == expected[key], f"{what}: {key}: {told.get(key)}, expected {expected[key]}")


# ---- one program: any number of ranks, either transport, ranks that are late
model = os.path.join(os.path.dirname(os.path.dirname(checks.program)), "share", "lpu_cluster", "models", "shakespeare-mixtral-5m")
checks.expect(["compile", "--model", model, "--chips", "16", "--tp", "4", "--pp", "4", "--context", "128", "--compute", "fp32ref",
               "-o", "m.lpuprog"], 0)
RUN = ["--program", "m.lpuprog", "--prompt", "To be", "--max-new-tokens", "6"]
alone = checks.object("generate", *RUN, "--json", "--logits")
CASES = ((1, []), (2, []), (3, ["--transport", "mpi"]), (7, []), (8, ["--transport", "shm"]), (18, []))
for (ranks, _), told in zip(CASES, results(*((ranks, [*RUN, *flags]) for ranks, flags in CASES))):
    expect_same(told, alone, f"np {ranks}")
    checks.check(told.get("ranks") == ranks and told.get("ranks_idle") == max(0, ranks - 16), f"np {ranks}: {told.get('ranks')}")
    share = told.get("time_share", {})
    checks.check(set(share) == {"kernels", "moving", "waiting", "bookkeeping"} and abs(sum(share.values()) - 1) < 1e-6 and
                 all(value >= 0 for value in share.values()), f"np {ranks}: shares of the time: {share}")
    limit = 1.15 * (told.get("weight_bytes", 0) + told.get("kv_bytes", 0)) + 20e6 * ranks
    checks.check(0 < told.get("memory_bytes", 0) <= limit, f"np {ranks}: {told.get('memory_bytes')} bytes, limit {limit}")
expect_same(results((5, RUN, "delay=1000"))[0], alone, "late ranks")
text = end_of(3, *RUN)[1]
checks.check(re.search(r"\n  ranks +3 on 1 host, shared memory\n(.*\n)*  time +kernels .* moving .* waiting .* bookkeeping ", text)
             is not None, f"what people read: {text}")

# ---- other cuts of the same model, and tokens that rank 0 draws
DRAW = [*RUN, "--temperature", "1.2", "--top-k", "50", "--top-p", "0.95", "--seed", "11"]
drawn = checks.object("generate", *DRAW, "--json", "--logits")
checks.check(drawn["new_ids"] != alone["new_ids"], "drawn tokens are others")


def cut(chips, tp, pp):
    return ["--chips", str(chips), "--tp", str(tp), "--pp", str(pp)]


OTHER = [*RUN[2:], "--context", "128"]
told = results((3, [*OTHER, *cut(5, 1, 5)]), (7, [*OTHER, *cut(8, 8, 1)]), (3, DRAW), (7, DRAW))
for cuts in told[:2]:
    expect_same(cuts, alone, f"{cuts.get('chips')} chips", ("new_ids", "result_digest", "logits_after_prompt"))
for again in told[2:]:
    expect_same(again, drawn, f"np {again.get('ranks')}, drawn")

# ---- a configuration runs again
told = checks.object("generate", *DRAW, "--print-config")
with open("again.json", "w", encoding="utf-8") as file:
    json.dump(told, file)
FLAGS = ["--prompt", "O", "--max-new-tokens", "2", "--chips", "4", "--context", "64", "--set", "link.flight=218cycles"]
again, told = results((2, ["--config", "again.json"]), (2, FLAGS))
expect_same(again, drawn, "a configuration of a program file")
with open("result.json", "w", encoding="utf-8") as file:
    json.dump(told, file)
expect_same(results((3, ["--config", "result.json"]))[0], told, "a result as a configuration")

# ---- checkpoints that are not ours
for name, change in (("gqa5_tied", {"tie_word_embeddings": True}), ("llama3_odd_ffn", {"rope_scaling": checkpoints.LLAMA3_ROPE}),
                     ("six_experts_top3", checkpoints.EXPERTS)):
    config = {**checkpoints.SMALL, **change}
    checkpoints.write(name, config, checkpoints.random_tensors(config, 50))
    PROMPT = ["--checkpoint", name, "--prompt-ids", ",".join(str(7 * i % 91) for i in range(20)), "--max-new-tokens", "4", "--context", "64"]
    one = checks.object("generate", *PROMPT, "--chips", "1", "--json", "--logits")
    for told in results(*((ranks, [*PROMPT, *cut(*shape)]) for ranks, shape in ((2, (4, 2, 2)), (7, (8, 4, 2)), (3, (3, 1, 3))))):
        expect_same(told, one, f"{name}: np {told.get('ranks')}, {told.get('chips')} chips",
                    ("new_ids", "result_digest", "logits_after_prompt"))

# ---- a bit that flips on a wire changes the result and the execution, or ends the run
FLIPS = ((1, "bit=1.0.0"), (4, "bit=5.1.9"), (16, "bit=9.2.3"), (3, "bit=14.0.30"), (2, "bit=2.1.17"),
         (4, "low=5.1.8"), (2, "low=2.1.16"))
for (ranks, fault), (code, stdout, stderr) in zip(FLIPS, ends_of([(ranks, [*RUN, "--json"], fault) for ranks, fault in FLIPS])):
    if code != 0:
        checks.check(code in (2, 3) and stdout == "" and stderr.count("\n") == 1, f"{fault}: exit code {code}, {stderr!r}")
        continue
    told = json.loads(stdout)
    checks.check(told["inputs"]["test_faults"] == fault, f"{fault}: the result says so")
    checks.check(told["result_digest"] != alone["result_digest"] and told["fingerprint"] != alone["fingerprint"],
                 f"{fault} on {ranks} ranks: {told['result_digest']}, {told['fingerprint']}")

# ---- a vector that never comes: all wait in the end, and whoever is asked says for whom
LOST = [(ranks, [*RUN, "--transport", transport], "lose=6.0.100") for ranks, transport in ((1, "auto"), (7, "shm"), (4, "mpi"))]
for (ranks, *_), (code, stdout, stderr) in zip(LOST, ends_of(LOST)):
    checks.check(code == 3 and stdout == "" and re.fullmatch(
        r"lpu_cluster: (\[rank 0\] )?chip \d+, cycle \d+, instruction \d+: deadlock: chip .+ from chip .+\n", stderr) is not None,
                 f"a lost vector on {ranks} ranks: exit code {code}, {stderr!r}")

# ---- faults of the program, executed although it is known: other rows of weights or cache, other experts, a lost message
def moved_reads(tensor, out):
    """The program, with every read of a tensor one address further on: rows of it that are live, and wrong."""
    names, lines, moved = {}, [], 0
    for line in checks.run("inspect", "m.lpuprog", "--json").stdout.splitlines():
        record = json.loads(line)
        if record["record"] == "tensor":
            names[record["text"], record["index"]] = record["name"]
        if record["record"] == "instruction" and record["opcode"] == "read" and names[
                record["text"], record["operands"][0]["tensor"]].startswith(tensor):
            record["address"] += 1
            line, moved = json.dumps(record), moved + 1
        lines.append(line)
    checks.check(moved > 0, f"reads of {tensor}")
    with open("edited.jsonl", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    checks.expect(["assemble", "edited.jsonl", "-o", out], 0)


WRONG = []
for tensor in ("qkv.weights", "key.cache"):
    WRONG.append(f"moved_{tensor}.lpuprog")
    moved_reads(tensor, WRONG[-1])
for kind in ("address-outside", "wrong-kv-address", "experts-swapped", "missing-send", "circular-wait"):
    WRONG.append(f"{kind}.lpuprog")
    checks.expect(["mutate", "m.lpuprog", "--kind", kind, "--seed", "3", "-o", WRONG[-1]], 0)
CALLS = [(ranks, ["--no-verify", "--program", program, *RUN[2:]], "") for program in WRONG for ranks in (1, 4)]
for (ranks, arguments, _), (code, stdout, stderr) in zip(CALLS, ends_of(CALLS)):
    checks.check(code == 3 and stdout == "" and re.fullmatch(("lpu_cluster: " if ranks == 1 else r"lpu_cluster: \[rank \d+\] ")
                                                             + r"chip \d+, cycle \d+, .+\n", stderr) is not None, f"{arguments[2]} on {ranks} ranks: exit code {code}, {stderr!r}")

# ---- damaged checkpoints: the same line and code on any number of ranks
DAMAGED = [["--checkpoint", folder, "--prompt-ids", "1,2", "--max-new-tokens", "1", "--chips", "8", "--context", "64"]
           for folder in checkpoints.write_damaged("damaged").values()]
for arguments, (code, stdout, stderr) in zip(DAMAGED, ends_of([(8, arguments, "") for arguments in DAMAGED])):
    one = checks.run("generate", *arguments)
    checks.check(one.returncode == 2 and one.stdout == "" and one.stderr.count("\n") == 1 and "; expected " in one.stderr,
                 f"{arguments[1]}: exit code {one.returncode}: {one.stderr!r}")
    checks.check((code, stdout, stderr) == (2, "", one.stderr),
                 f"{arguments[1]}: on 8 ranks {code}, {stderr!r}; alone {one.stderr!r}")
REFUSED = ((["--prompt", "a", "--chips", "0"], "--chips: found 0; expected .+"),
           (["--prompt-ids", "256"], "--prompt-ids: found 256; expected 0 to 255"),
           (["--prompt", "a", "--transport", "pigeon"], "--transport: found pigeon; expected .+"),
           (["--prompt", "a", "--set", "model.layers=2"], "--set: found model.layers=2; expected .+"),
           (["--program", "m.lpuprog", "--prompt", "a", "--chips", "4"], "--chips: found beside --program; expected .+"),
           (["--program", "m.lpuprog", "--prompt", "a", "--set", "link.flight=218cycles"], "--set: found link.flight=.+"),
           (["--program", "m.lpuprog", "--prompt", "a", "--max-new-tokens", "500"],
            "--max-new-tokens: found 500 positions with the prompt; expected at most 128, the program's context"))
for (arguments, line), (code, stdout, stderr) in zip(REFUSED, ends_of([(3, arguments, "") for arguments, _ in REFUSED])):
    checks.check(code == 2 and stdout == "" and re.fullmatch(f"lpu_cluster: {line}\n", stderr) is not None,
                 f"{arguments}: exit code {code}, {stderr!r}")

# ---- a job that is long enough to be ended in its numeric plane
LONG = ["--program", "m.lpuprog", "--prompt", "a", "--max-new-tokens", "127", "--json"]
SLOWLY = {"LPU_CLUSTER_TEST_FAULTS": "delay=4000"}


# Two jobs of which rank 0 has mapped the checkpoint and has been at work for a while.
jobs = [start(8, *LONG, environment=SLOWLY) for _ in range(2)]
pids = [rank_pids(job, 8) for job in jobs]
time.sleep(3)
os.kill(pids[0][5], signal.SIGKILL)
begin = time.monotonic()
stdout, stderr = jobs[0].communicate(timeout=60)
checks.check(jobs[0].returncode != 0 and stdout == "" and time.monotonic() - begin < 10, f"killed: {jobs[0].returncode}, {stdout!r}")
checks.check(stderr == "lpu_cluster: rank 5: found it killed or lost; expected it to take part\n", f"killed: {stderr!r}")
os.kill(pids[1][2], signal.SIGTERM)
begin = time.monotonic()
stdout, stderr = jobs[1].communicate(timeout=60)
checks.check(jobs[1].returncode == 143 and time.monotonic() - begin < 10, f"ended: exit code {jobs[1].returncode}, {stderr!r}")
try:
    told = json.loads(stdout)
    checks.check(told["partial"] is True and told["fingerprint"] is None and told["result_digest"] is None and
                 len(told["new_ids"]) < 127, f"ended: marked as partial: {told}")
except ValueError:
    checks.check(False, f"ended: partial results: {stdout[:200]!r}, {stderr!r}")

checks.finish()
