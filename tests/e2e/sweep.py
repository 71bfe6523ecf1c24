#!/usr/bin/python3
"""scripts/sweep.py as a user calls it: interrupted, it goes on; failures are listed and retried; damaged experiments are refused.

sweep.py PROGRAM PROJECT_FOLDER [POINTS]
"""
import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

from program import Checks

PROJECT = os.path.abspath(sys.argv[2])
POINTS = int(sys.argv[3]) if len(sys.argv) > 3 else 12
SWEEP = os.path.join(PROJECT, "scripts", "sweep.py")
SMALL = {
    "model_type": "llama", "hidden_size": 320, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "head_dim": 64, "intermediate_size": 640, "vocab_size": 512, "max_position_embeddings": 256, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "torch_dtype": "bfloat16",
}
checks = Checks()


def sweep(*arguments, timeout=300):
    return subprocess.run([SWEEP, *arguments], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, check=False)


def experiment(path, **changes):
    content = {"name": "small", "verb": "run", "flags": {"program": "small.lpuprog"},
               "grid": {"users": [1, 2], "tokens": list(range(2, 2 + POINTS // 2))}, **changes}
    with open(path, "w", encoding="utf-8") as file:
        json.dump({key: value for key, value in content.items() if value != "absent"}, file)
    return path


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def finished(folder):
    try:
        return [name for name in os.listdir(f"{folder}/points") if os.path.exists(f"{folder}/points/{name}/exit_code")]
    except OSError:
        return []


def stand_in(name, script):
    """A program in front of the real one, as another build, or a machine with faults, would be."""
    with open(name, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\n{script}\nexec {checks.program} \"$@\"\n")
    os.chmod(name, 0o755)
    return name


os.mkdir("small")
with open("small/config.json", "w", encoding="utf-8") as config:
    json.dump(SMALL, config)
checks.expect(["compile", "--model", "small", "--chips", "4", "--tp", "2", "--pp", "2", "--context", "64", "--users", "2",
               "-o", "small.lpuprog"], 0)
experiment("small.json")
program = ["--program", checks.program]

# ---- what would run; nothing does
dry = sweep("small.json", "--folder", "dry", *program, "--dry-run")
checks.check(dry.returncode == 0 and dry.stdout.endswith(f"{POINTS} points, 0 finished\n") and not os.path.exists("dry") and
             "run --program small.lpuprog --users 2 --tokens 3 --json --quiet" in dry.stdout, f"--dry-run: {dry}")

# ---- interrupted three times it ends with the table of one that was not
whole = sweep("small.json", "--folder", "whole", *program, "--jobs", "2")
checks.check(whole.returncode == 0 and whole.stdout == f"{POINTS} points, {POINTS} finished, 0 failed: whole/sweep.csv\n", f"whole: {whole}")
checks.check(" s left" in whole.stderr and f"sweep: {POINTS} of {POINTS} finished\n" in whole.stderr, f"progress: {whole.stderr}")
slow = stand_in("slow", "sleep 0.2")  # the same version, and time to interrupt
for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
    before = len(finished("parts"))
    part = subprocess.Popen([SWEEP, "small.json", "--folder", "parts", "--program", slow], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while len(finished("parts")) < before + max(1, POINTS // 6) and time.monotonic() < limit:
        time.sleep(0.02)
    part.send_signal(number)
    checks.check(part.wait(timeout=60) == code, f"signal {number}: exit code {part.returncode}")
    checks.check(before < len(finished("parts")) < POINTS, f"signal {number}: {len(finished('parts'))} points are finished")
    if number != signal.SIGKILL:
        checks.check(read("parts/sweep.csv").count(",finished,") == len(finished("parts")), "what was finished is gathered")
times = {name: os.stat(f"parts/points/{name}/exit_code").st_mtime_ns for name in finished("parts")}
last = sweep("small.json", "--folder", "parts", *program)
checks.check(last.returncode == 0, f"the last part: {last}")
checks.check(all(os.stat(f"parts/points/{name}/exit_code").st_mtime_ns == at for name, at in times.items()), "no point ran twice")
checks.check(read("parts/sweep.csv") == read("whole/sweep.csv"), "the table is the same")
rows = list(csv.DictReader(read("whole/sweep.csv").splitlines()))
with sqlite3.connect("parts/sweep.sqlite") as base:
    stored = base.execute("SELECT users, tokens, status, fingerprint FROM points ORDER BY number").fetchall()
    results = dict(base.execute("SELECT digest, result FROM results").fetchall())
checks.check([tuple(map(str, row)) for row in stored] ==
             [(row["users"], row["tokens"], "finished", row["fingerprint"]) for row in rows], f"SQLite: {stored[:3]}")
checks.check(all(json.loads(results[row["digest"]])["fingerprint"] == row["fingerprint"] for row in rows), "SQLite holds the results")
alone = checks.object("run", "--program", "small.lpuprog", "--users", "2", "--tokens", "3", "--json")
checks.check(any(row["users"] == "2" and row["tokens"] == "3" and row["fingerprint"] == alone["fingerprint"] for row in rows),
             "a row says what the program says")

# ---- what decides a result decides what is finished: another build, and another file behind the same name
other = stand_in("other", 'if [ "$1" = --version ]; then echo \'{"version": "0", "commit": "other"}\'; exit; fi')
checks.check(", 0 finished\n" in sweep("small.json", "--folder", "whole", "--program", other, "--dry-run").stdout, "another build")
os.rename("small.lpuprog", "kept.lpuprog")
checks.expect(["compile", "--model", "small", "--chips", "4", "--tp", "2", "--pp", "2", "--context", "32", "--users", "2",
               "-o", "small.lpuprog"], 0)
checks.check(", 0 finished\n" in sweep("small.json", "--folder", "whole", *program, "--dry-run").stdout, "another file")
os.rename("kept.lpuprog", "small.lpuprog")
checks.check(f", {POINTS} finished\n" in sweep("small.json", "--folder", "whole", *program, "--dry-run").stdout, "the first one again")

# ---- a fault of the machine is tried again, one of the input is listed; what does not fit is a result
flaky = stand_in("flaky", 'if [ "$1" = run ] && ! [ -e "flaky.$7" ]; then touch "flaky.$7"; echo "no luck" >&2; exit 4; fi')
retried = sweep(experiment("few.json", grid={"users": [1], "tokens": [2, 3]}), "--folder", "flaky_sweep", "--program", flaky)
checks.check(retried.returncode == 0 and retried.stderr.count("exit code 4: again: no luck") == 2, f"retried: {retried}")
broken = stand_in("broken", 'if [ "$1" = run ]; then echo x >> calls; echo "no luck" >&2; exit 4; fi')
failed = sweep("few.json", "--folder", "broken_sweep", "--program", broken, "--retries", "1")
checks.check(failed.returncode == 1 and "2 points, 0 finished, 2 failed" in failed.stdout and read("calls").count("x") == 4 and
             failed.stderr.count("failed, exit code 4: ") == 2 and ",exit code 4: no luck," in read("broken_sweep/sweep.csv"),
             f"bounded retries: {failed}")
users = sweep(experiment("users.json", grid={"users": [2, 3], "tokens": [2]}), "--folder", "users", *program)
checks.check(users.returncode == 1 and "again" not in users.stderr and "point 1 failed, exit code 2: " in users.stderr and
             "3 users" in users.stderr + read("users/sweep.csv") or "expected" in users.stderr, f"a fault of the input: {users}")
fits = sweep(experiment("fits.json", verb="plan", flags={"model": "llama-3-8b"}, grid={"chips": [8]}, columns=["fits", "smallest_chips"]),
             "--folder", "fits", *program)
checks.check(fits.returncode == 0 and "0,8,does not fit,False,44,," in read("fits/sweep.csv"), f"what does not fit: {fits} {read('fits/sweep.csv')}")

# ---- damaged experiments
with open("broken.json", "w", encoding="utf-8") as file:
    file.write('{"name": "x",\n "verb" "run"}')
for damage, line in (
        ("absent.json", 'absent.json: found "No such file or directory"; expected an experiment, a JSON file'),
        ("broken.json", "broken.json:2: found Expecting ':' delimiter; expected JSON"),
        (dict(verb="absent"), "bad.json:verb: found no such field; expected a word"),
        (dict(verb=7), "bad.json:verb: found 7; expected a word"),
        (dict(grid="absent"), "bad.json:grid: found no such field; expected one"),
        (dict(grid={"users": 3}), "bad.json:grid.users: found 3; expected a list of values"),
        (dict(grid={"users": [[1]]}),
         "bad.json:grid.users: found [1]; expected a word, a number, true (a switch) or false (without it)"),
        (dict(grid={"--users": [1]}), 'bad.json:grid.--users: found "--users"; expected a flag without dashes, or "set PATH"'),
        (dict(flags={"json": True}),
         'bad.json:flags: found "json"; expected a flag that decides the result (the sweep sets the others)'),
        (dict(ranks=-1), "bad.json:ranks: found -1; expected a whole number from 0 (no MPI) to 100000"),
        (dict(cases=[3]), "bad.json:cases[0]: found 3; expected an object: flag and value"),
        (dict(extra=1),
         "bad.json:extra: found an unknown field; expected one of cases, columns, description, flags, grid, name, ranks, verb")):
    path = damage if isinstance(damage, str) else experiment("bad.json", **damage)
    refused = sweep(path, "--folder", "refused", *program)
    checks.check((refused.returncode, refused.stdout, refused.stderr) == (2, "", f"sweep.py: {line}\n"), f"{line}: {refused}")
twice = sweep(experiment("bad.json", grid={"users": [1, 1]}), "--folder", "refused", *program)
checks.check(twice.returncode == 2 and "found the same point twice" in twice.stderr and not os.path.exists("refused"), f"twice: {twice}")
for name in sorted(os.listdir(os.path.join(PROJECT, "scripts", "experiments"))):
    shipped = sweep(os.path.join(PROJECT, "scripts", "experiments", name), *program, "--dry-run")
    checks.check(shipped.returncode == 0 and " points, 0 finished" in shipped.stdout, f"{name}: {shipped}")
checks.finish()
