#!/usr/bin/python3
"""Real tokens are the same whatever number of ranks makes them; and whatever goes wrong ends the job, or shows.

generate_on_ranks.py PROGRAM MPIRUN
"""
import re

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


def result(ranks, *arguments, **keywords):
    code, stdout, stderr = end_of(ranks, *arguments, "--json", "--logits", **keywords)
    checks.check(code == 0 and stderr == "", f"np {ranks} {arguments}: exit code {code}: {stderr}")
    try:
        return json.loads(stdout)
    except ValueError:
        return {}


def expect_same(told, expected, what, keys=KEYS):
    for key in keys:
        checks.check(told.get(key) == expected[key], f"{what}: {key}: {told.get(key)}, expected {expected[key]}")


# ---- one program: any number of ranks, either transport, ranks that are late
model = os.path.join(os.path.dirname(os.path.dirname(checks.program)), "share", "lpu_cluster", "models", "shakespeare-mixtral-5m")
checks.expect(["compile", "--model", model, "--chips", "16", "--tp", "4", "--pp", "4", "--context", "128", "--compute", "fp32ref",
               "-o", "m.lpuprog"], 0)
RUN = ["--program", "m.lpuprog", "--prompt", "To be", "--max-new-tokens", "6"]
alone = checks.object("generate", *RUN, "--json", "--logits")
for ranks, flags in ((1, []), (2, []), (3, ["--transport", "mpi"]), (7, []), (8, ["--transport", "shm"]), (18, [])):
    told = result(ranks, *RUN, *flags)
    expect_same(told, alone, f"np {ranks}")
    checks.check(told.get("ranks") == ranks and told.get("ranks_idle") == max(0, ranks - 16), f"np {ranks}: {told.get('ranks')}")
    share = told.get("time_share", {})
    checks.check(set(share) == {"kernels", "moving", "waiting", "bookkeeping"} and abs(sum(share.values()) - 1) < 1e-6 and
                 all(value >= 0 for value in share.values()), f"np {ranks}: shares of the time: {share}")
    limit = 1.15 * (told.get("weight_bytes", 0) + told.get("kv_bytes", 0)) + 20e6 * ranks
    checks.check(ranks < 7 or 0 < told.get("memory_bytes", 0) <= limit, f"np {ranks}: {told.get('memory_bytes')} bytes, limit {limit}")
late = result(5, *RUN, environment={"LPU_CLUSTER_TEST_FAULTS": "delay=1000"})
expect_same(late, alone, "late ranks")
text = end_of(3, *RUN)[1]
checks.check(re.search(r"\n  ranks +3 on 1 host, shared memory\n(.*\n)*  time +kernels .* moving .* waiting .* bookkeeping ", text)
             is not None, f"what people read: {text}")

# ---- other cuts of the same model, and tokens that rank 0 draws
for ranks, chips, tp, pp in ((3, 5, 1, 5), (7, 8, 8, 1)):
    told = result(ranks, *RUN[2:], "--context", "128", "--chips", str(chips), "--tp", str(tp), "--pp", str(pp))
    expect_same(told, alone, f"np {ranks}, {chips} chips", ("new_ids", "result_digest", "logits_after_prompt"))
DRAW = [*RUN, "--temperature", "1.2", "--top-k", "50", "--top-p", "0.95", "--seed", "11"]
drawn = checks.object("generate", *DRAW, "--json", "--logits")
checks.check(drawn["new_ids"] != alone["new_ids"], "drawn tokens are others")
for ranks in (3, 16):
    expect_same(result(ranks, *DRAW), drawn, f"np {ranks}, drawn")

# ---- a configuration runs again
told = checks.object("generate", *DRAW, "--print-config")
with open("again.json", "w", encoding="utf-8") as file:
    json.dump(told, file)
expect_same(result(2, "--config", "again.json"), drawn, "a configuration of a program file")
FLAGS = ["--prompt", "O", "--max-new-tokens", "2", "--chips", "4", "--context", "64", "--set", "link.flight=218cycles"]
told = result(2, *FLAGS)
with open("result.json", "w", encoding="utf-8") as file:
    json.dump(told, file)
expect_same(result(3, "--config", "result.json"), told, "a result as a configuration")

# ---- checkpoints that are not ours
for name, change in (("gqa5_tied", {"tie_word_embeddings": True}), ("llama3_odd_ffn", {"rope_scaling": checkpoints.LLAMA3_ROPE}),
                     ("six_experts_top3", checkpoints.EXPERTS)):
    config = {**checkpoints.SMALL, **change}
    checkpoints.write(name, config, checkpoints.random_tensors(config, 50))
    PROMPT = ["--checkpoint", name, "--prompt-ids", ",".join(str(7 * i % 91) for i in range(20)), "--max-new-tokens", "4", "--context", "64"]
    one = checks.object("generate", *PROMPT, "--chips", "1", "--json", "--logits")
    for ranks, chips, tp, pp in ((2, 4, 2, 2), (7, 8, 4, 2), (3, 3, 1, 3)):
        told = result(ranks, *PROMPT, "--chips", str(chips), "--tp", str(tp), "--pp", str(pp))
        expect_same(told, one, f"{name}: np {ranks}, {chips} chips", ("new_ids", "result_digest", "logits_after_prompt"))

# ---- a bit that flips on a wire changes the result and the execution, or ends the run
for ranks, fault in ((4, "bit=1.0.0"), (4, "bit=5.1.9"), (16, "bit=9.2.3"), (16, "bit=14.0.30"), (16, "bit=2.1.17")):
    code, stdout, stderr = end_of(ranks, *RUN, "--json", environment={"LPU_CLUSTER_TEST_FAULTS": fault})
    if code != 0:
        checks.check(code in (2, 3) and stdout == "" and stderr.count("\n") == 1, f"{fault}: exit code {code}, {stderr!r}")
        continue
    told = json.loads(stdout)
    checks.check(told["inputs"]["test_faults"] == fault, f"{fault}: the result says so")
    checks.check(told["result_digest"] != alone["result_digest"] and told["fingerprint"] != alone["fingerprint"],
                 f"{fault} on {ranks} ranks: {told['result_digest']}, {told['fingerprint']}")

# ---- a vector that never comes: all wait in the end, and whoever is asked says for whom
for ranks, transport in ((1, "auto"), (7, "shm"), (16, "mpi")):
    code, stdout, stderr = end_of(ranks, *RUN, "--transport", transport, environment={"LPU_CLUSTER_TEST_FAULTS": "lose=6.0.100"})
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


def fails(program, what):
    for ranks in (1, 8):
        code, stdout, stderr = end_of(ranks, "--no-verify", "--program", program, *RUN[2:])
        checks.check(code == 3 and stdout == "" and re.fullmatch(r"lpu_cluster: \[rank \d+\] chip \d+, cycle \d+, .+\n", stderr)
                     is not None, f"{what} on {ranks} ranks: exit code {code}, {stderr!r}")


for tensor in ("qkv.weights", "key.cache"):
    moved_reads(tensor, "edited.lpuprog")
    fails("edited.lpuprog", f"moved reads of {tensor}")
for kind in ("address-outside", "wrong-kv-address", "experts-swapped", "missing-send", "circular-wait"):
    checks.expect(["mutate", "m.lpuprog", "--kind", kind, "--seed", "3", "-o", "mutant.lpuprog"], 0)
    fails("mutant.lpuprog", kind)

# ---- damaged checkpoints: the same line and code on any number of ranks
for what, folder in checkpoints.write_damaged("damaged").items():
    ARGUMENTS = ["--checkpoint", folder, "--prompt-ids", "1,2", "--max-new-tokens", "1", "--chips", "8", "--context", "64"]
    one = checks.run("generate", *ARGUMENTS)
    checks.check(one.returncode == 2 and one.stdout == "" and one.stderr.count("\n") == 1 and "; expected " in one.stderr,
                 f"{what}: exit code {one.returncode}: {one.stderr!r}")
    code, stdout, stderr = end_of(8, *ARGUMENTS)
    checks.check((code, stdout, stderr) == (2, "", one.stderr), f"{what}: on 8 ranks {code}, {stderr!r}; alone {one.stderr!r}")
for arguments, line in ((["--prompt", "a", "--chips", "0"], "--chips: found 0; expected .+"),
                        (["--prompt-ids", "256"], "--prompt-ids: found 256; expected 0 to 255"),
                        (["--prompt", "a", "--transport", "pigeon"], "--transport: found pigeon; expected .+"),
                        (["--prompt", "a", "--set", "model.layers=2"], "--set: found model.layers=2; expected .+"),
                        (["--program", "m.lpuprog", "--prompt", "a", "--chips", "4"], "--chips: found beside --program; expected .+"),
                        (["--program", "m.lpuprog", "--prompt", "a", "--set", "link.flight=218cycles"], "--set: found link.flight=.+"),
                        (["--program", "m.lpuprog", "--prompt", "a", "--max-new-tokens", "500"],
                         "--max-new-tokens: found 500 positions with the prompt; expected at most 128, the program's context")):
    code, stdout, stderr = end_of(3, *arguments)
    checks.check(code == 2 and stdout == "" and re.fullmatch(f"lpu_cluster: {line}\n", stderr) is not None,
                 f"{arguments}: exit code {code}, {stderr!r}")

# ---- a job that is long enough to be ended in its numeric plane
LONG = ["--program", "m.lpuprog", "--prompt", "a", "--max-new-tokens", "127", "--json"]
SLOWLY = {"LPU_CLUSTER_TEST_FAULTS": "delay=4000"}


def numeric_job():
    """A job of which rank 0 has mapped the checkpoint and has been at work for a while; its ranks' process ids."""
    job = start(8, *LONG, environment=SLOWLY)
    pids = rank_pids(job, 8)
    time.sleep(3)
    return job, pids


job, pids = numeric_job()
os.kill(pids[5], signal.SIGKILL)
begin = time.monotonic()
stdout, stderr = job.communicate(timeout=60)
checks.check(job.returncode != 0 and stdout == "" and time.monotonic() - begin < 10, f"killed: {job.returncode}, {stdout!r}")
checks.check(stderr == "lpu_cluster: rank 5: found it killed or lost; expected it to take part\n", f"killed: {stderr!r}")
job, pids = numeric_job()
os.kill(pids[2], signal.SIGTERM)
begin = time.monotonic()
stdout, stderr = job.communicate(timeout=60)
checks.check(job.returncode == 143 and time.monotonic() - begin < 10, f"ended: exit code {job.returncode}, {stderr!r}")
try:
    told = json.loads(stdout)
    checks.check(told["partial"] is True and told["fingerprint"] is None and told["result_digest"] is None and
                 len(told["new_ids"]) < 127, f"ended: marked as partial: {told}")
except ValueError:
    checks.check(False, f"ended: partial results: {stdout[:200]!r}, {stderr!r}")

checks.finish()
