#!/usr/bin/python3
"""A sweep under a real Slurm: munged, slurmctld and slurmd of this machine, brought up for the test.

slurm.py PROGRAM PROJECT_FOLDER. An array of six points on four tasks each; one is preempted by a signal, requeued and resumed, one
loses a rank and is tried again. Exit code 77, with the reason, where Slurm cannot be started.
"""
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

from program import Checks

PROJECT = os.path.abspath(sys.argv[2])
SLURM = os.path.join(PROJECT, "scripts", "slurm")
SMALL = {
    "model_type": "llama", "hidden_size": 1280, "num_hidden_layers": 4, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2560, "vocab_size": 4096,
    "max_position_embeddings": 1024, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
}
checks = Checks()


def sh(*command, timeout=60, **environment):
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
                          env={**os.environ, **environment}, check=False)


def wait_until(holds, what, seconds=90):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    checks.check(False, f"within {seconds} s: {what}")
    return None


def ranks_of(tokens, at_least=4):
    """Process ids of the program's ranks of one point, once so many run."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if words[0] == checks.program.encode() and str(tokens).encode() in words:
            found.append(int(pid))
    return found if len(found) >= at_least else []


def folder_of(tokens):
    for point in os.scandir("sweep/points"):
        with open(os.path.join(point.path, "arguments"), encoding="utf-8") as file:
            if str(tokens) in file.read().split("\n"):
                return point.path
    return "absent"


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def kill_a_rank(tokens):
    victims = wait_until(lambda: ranks_of(tokens), f"four tasks of the point with {tokens} tokens run")
    if victims:
        os.kill(victims[2], signal.SIGKILL)


def sweep_with_losses(big):
    """The six points; returns what the sweep printed."""
    with open("stderr", "w", encoding="utf-8") as said:
        sweep = subprocess.Popen([os.path.join(PROJECT, "scripts", "sweep.py"), "small.json", "--folder", "sweep", "--program",
                                  checks.program, "--slurm", "--jobs", "3", "--poll", "0.5", "--sbatch=--time=10"],
                                 stdout=subprocess.PIPE, stderr=said, text=True, stdin=subprocess.DEVNULL)
    killer = threading.Thread(target=kill_a_rank, args=(big + 1,))
    killer.start()
    try:
        # ---- one point is preempted: what Slurm sends a minute before it takes the node reaches the batch file alone
        if not wait_until(lambda: ranks_of(big), "four tasks of the point run"):
            return f"{read('stderr')}"
        time.sleep(0.7)
        job = read("sweep/job").strip()
        preempted = sh("scancel", "--signal=USR1", "--batch", f"{job}_4")
        checks.check(preempted.returncode == 0, f"scancel: {preempted.stderr}")
        point = folder_of(big)
        wait_until(lambda: "is back in the queue" in read(f"{point}/log"), f"the point is requeued: {read(f'{point}/log')}")
        checks.check(os.path.exists(f"{point}/state/manifest"), f"its state is saved: {read(f'{point}/stderr')}")

        # A requeued job waits two minutes, unless it is told otherwise; a step of the same number must be gone by then.
        wait_until(lambda: sh("squeue", "--noheader", "--format=%T %r", f"--jobs={job}_4").stdout == "PENDING BeginTime\n",
                   "the requeued point waits in the queue")
        wait_until(lambda: not ranks_of(big, at_least=1), "its first step is gone")
        time.sleep(1)
        sh("scontrol", "update", f"JobId={job}_4", "StartTime=now")
        wait_until(lambda: "going on from" in read(f"{point}/log"), "the requeued point goes on")

        killer.join()
        stdout, _ = sweep.communicate(timeout=200)
    finally:
        sweep.kill()
    checks.check(sweep.returncode == 0, f"the sweep: exit code {sweep.returncode}: {stdout} {read('stderr')} {read(f'{point}/log')}")
    return stdout


def check_sweep():
    os.mkdir("small")
    with open("small/config.json", "w", encoding="utf-8") as file:
        json.dump(SMALL, file)
    checks.expect(["compile", "--model", "small", "--chips", "16", "--tp", "4", "--pp", "4", "--context", "128", "--users", "4",
                   "-o", "small.lpuprog"], 0)
    begin = time.monotonic()
    checks.object("run", "--program", "small.lpuprog", "--users", "4", "--tokens", "400", "--json")
    big = int(400 * 3 / (time.monotonic() - begin)) + 400  # three seconds in one process
    cases = [{"users": users, "tokens": 40 + users} for users in (1, 2, 3, 4)]
    cases += [{"users": 4, "tokens": big}, {"users": 4, "tokens": big + 1}]
    with open("small.json", "w", encoding="utf-8") as file:
        json.dump({"name": "small", "verb": "run", "ranks": 4, "flags": {"program": "small.lpuprog"}, "cases": cases, "grid": {},
                   "columns": ["fingerprint", "makespan_cycles", "ranks", "resumed_at_token"]}, file)
    stdout = sweep_with_losses(big)
    checks.check(stdout.startswith("6 points, 6 finished, 0 failed: "), f"the sweep: {stdout}")
    checks.check(re.search("point 5, exit code (137|143): again: ", read("stderr")), f"the point that lost a rank is tried again: {read('stderr')}")
    with open("sweep/sweep.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    checks.check(len(rows) == 6, f"sweep.csv has {len(rows)} rows")
    for row, case in zip(rows, cases):
        alone = checks.object("run", "--program", "small.lpuprog", "--users", str(case["users"]), "--tokens", str(case["tokens"]), "--json")
        checks.check(row["status"] == "finished" and row["ranks"] == "4" and row["fingerprint"] == alone["fingerprint"] and
                     row["makespan_cycles"] == str(alone["makespan_cycles"]), f"{case}: {row}, undisturbed {alone['fingerprint']}")
    checks.check(int(rows[4]["resumed_at_token"] or -1) > 0, f"the preempted point was resumed: {rows[4]}")
    checks.check(rows[5]["resumed_at_token"] == "", f"the killed point began anew: {rows[5]}")
    return rows


def check_one_job(rows):
    """The batch file for one job, by both launchers."""
    for launch in ("srun", "mpirun"):
        done = sh("sbatch", "--wait", "--ntasks=3", "--output=one_job.log", os.path.join(SLURM, "one_job.sbatch"), timeout=120,
                  SCRIPTS=SLURM, PROGRAM=checks.program, FLAGS="--program small.lpuprog --users 2 --tokens 42", LAUNCH=launch,
                  RESULTS=os.path.abspath(f"results-{launch}"))
        said = f"{done.stderr} {read('one_job.log')} {read(f'results-{launch}/stderr')}"
        checks.check(done.returncode == 0 and read(f"results-{launch}/exit_code") == "0\n", f"one job, {launch}: {said}")
        if done.returncode == 0:
            result = json.loads(read(f"results-{launch}/stdout"))
            checks.check(result["fingerprint"] == rows[1]["fingerprint"] and result["ranks"] == 3, f"one job, {launch}: another result")


up = sh(os.path.join(SLURM, "local_slurm.sh"), "up", "slurm", "64")
if up.returncode != 0:
    print(f"skipped: no Slurm here: {up.stderr.strip()}" if up.returncode == 77 else f"local_slurm.sh: {up.stderr}")
    sys.exit(77 if up.returncode == 77 else 1)
os.environ["SLURM_CONF"] = os.path.abspath("slurm/slurm.conf")
try:
    check_one_job(check_sweep())
finally:
    sh(os.path.join(SLURM, "local_slurm.sh"), "down", "slurm")
checks.finish()
