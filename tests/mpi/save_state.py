#!/usr/bin/python3
"""A run that is stopped between two tokens and goes on, on another number of ranks, ends as if nothing had happened; a state
that is damaged, or another run's, is refused.

save_state.py PROGRAM MPIRUN [seconds that the run takes in one process]
"""
import re
import shutil
import sys

from ranks import RankChecks, json, os, rank_pids, signal, subprocess, time, wait_for_words

SECONDS = float(sys.argv[3]) if len(sys.argv) > 3 else 3
checks = RankChecks(users=4)
RUN = ["--program", "small.lpuprog", "--users", "4"]  # four micro-batches fill the pipeline: iterations overlap on every chip
SAME = ["fingerprint", "schedule_digest", "makespan_cycles", "token_latency_cycles", "initiation_interval_cycles",
        "token_period_cycles", "arrivals_checked", "transfers", "vectors_moved", "bursts", "jitter_cycles_max", "occupancy",
        "link_busy_max", "tokens_per_second", "chips", "chips_idle", "iterations", "partial"]

begin = time.monotonic()
checks.object("run", *RUN, "--tokens", "400", "--json")
TOKENS = int(400 * SECONDS / (time.monotonic() - begin)) + 400
RUN += ["--tokens", str(TOKENS)]
undisturbed = checks.object("run", *RUN, "--json")


def stop(ranks, state, *arguments, to="launcher"):
    """Runs until SIGUSR1, which comes soon after the chips have begun; returns what it printed."""
    command = [checks.program, "run"] if ranks == 0 else checks.command(ranks)
    with open("stderr", "w", encoding="utf-8") as said:
        process = subprocess.Popen([*command, *RUN, "--save-state", state, *arguments, "--json", "--log-level", "info"],
                                   stdout=subprocess.PIPE, stderr=said, text=True, stdin=subprocess.DEVNULL)
    if ranks > 0:
        pids = rank_pids(process, ranks)
        wait_for_words(process, "stderr", "vectors between ranks")
    time.sleep(0.3)
    os.kill(process.pid if to == "launcher" else pids[to], signal.SIGUSR1)
    stdout, _ = process.communicate(timeout=60)
    where = f"{ranks} ranks, signal to {to}"
    checks.check(process.returncode == 75, f"{where}: exit code {process.returncode}, {stdout[:200]!r}")
    result = json.loads(stdout) if process.returncode == 75 else {}
    checks.check(result.get("partial") is True and result.get("fingerprint", "") is None and result.get("state_saved") == state and
                 0 < result.get("stopped_before_token", 0) < TOKENS, f"{where}: says that it is not complete")
    names = sorted(os.listdir(state))
    checks.check(len(names) == 1 + max(ranks, 1) and names[0] == "manifest", f"{where}: one file a rank and the manifest: {names}")
    return result


def same(result, where):
    for key in SAME:
        checks.check(result.get(key) == undisturbed[key], f"{where}: {key}: {result.get(key)}, undisturbed {undisturbed[key]}")
    for chip, expected in zip(result.get("per_chip", []), undisturbed["per_chip"]):
        checks.check({**chip, "rank": 0} == {**expected, "rank": 0}, f"{where}: figures of chip {expected['chip']}")


# ---- stopped and resumed, on 1, 2 and 7 ranks
first = stop(0, "a")
second = stop(7, "a", "--resume", "a")
checks.check(second.get("resumed_at_token") == first.get("stopped_before_token") < second.get("stopped_before_token", 0),
             "the second part begins where the first one ended")
shutil.copytree("a", "kept")
same(checks.result(2, *RUN, "--resume", "a"), "alone, 7, 2 ranks")
stop(2, "b", to=1)
last = checks.object("run", *RUN, "--resume", "b", "--save-state", "b", "--json")
same(last, "2 ranks, alone")
checks.check(last.get("wall_s", 0) > 0.3, "the time of the first part counts")
text = checks.run("run", *RUN, "--resume", "b").stdout
checks.check("  resumed at token " in text and undisturbed["fingerprint"] in text, f"what people read: {text[:300]}")
same(checks.result(1, *RUN, "--resume", "kept"), "alone, 7, 1 rank")

# ---- damaged states, and those of other runs
MANIFEST = "bad/manifest"
PART = next(f"bad/{name}" for name in sorted(os.listdir("kept")) if name.endswith("rank-3"))


def change(path, at, to=None):
    def damage():
        with open(path, "r+b") as file:
            content = bytearray(file.read())
            content[at] = content[at] ^ 0x10 if to is None else to
            file.seek(0)
            file.write(content)
    return damage


def cut(path, size):
    return lambda: os.truncate(path, size)


def replaced():
    shutil.copy(PART.replace("rank-3", "rank-4"), PART)


DAMAGES = [
    ("no manifest", lambda: os.remove(MANIFEST), "--resume: found no bad/manifest; expected a folder that --save-state has written to"),
    ("no part", lambda: os.remove(PART), re.compile(rf'{PART}: found "No such file or directory"; expected a part of a saved state')),
    ("a part of another rank", replaced, re.compile(rf"{PART}: found digest \w+; expected \w+, as the manifest says")),
    ("an empty manifest", cut(MANIFEST, 0),
     'bad/manifest: found an empty file; expected "LPUSTATE", with which manifests of saved states begin'),
    ("half a manifest", cut(MANIFEST, 60), re.compile(r"bad/manifest: found a body of 32 bytes; expected \d+, as the header says")),
    ("a cut header", cut(MANIFEST, 20), "bad/manifest: found 20 bytes; expected a header of 28 bytes (truncated file)"),
    ("an empty part", cut(PART, 0), f'{PART}: found an empty file; expected "LPUCHIPS", with which parts of saved states begin'),
    ("half a part", cut(PART, 700), re.compile(rf"{PART}: found a body of 672 bytes; expected \d+, as the header says")),
    ("another version", change(MANIFEST, 8, 9), "bad/manifest: found format version 9; expected version 1"),
]
for path in (MANIFEST, PART):
    size = os.path.getsize(path.replace("bad/", "kept/"))
    DAMAGES += [(f"byte {at} of {path}", change(path, at), re.compile(rf"{path}: found .*; expected .*"))
                for at in sorted({*range(0, 32, 5), *range(32, size, max(1, size // 12)), size - 1})]
for what, damage, line in DAMAGES:
    shutil.copytree("kept", "bad")
    damage()
    result = checks.run("run", *RUN, "--resume", "bad")
    said = result.stderr[len("lpu_cluster: "):].rstrip("\n")
    fits = line.fullmatch(said) if isinstance(line, re.Pattern) else line == said
    checks.check(result.returncode == 2 and result.stdout == "" and result.stderr.count("\n") == 1 and fits,
                 f"{what}: exit code {result.returncode}: {result.stderr!r}")
    shutil.rmtree("bad")

checks.expect(["compile", "--model", "small", "--chips", "8", "--tp", "4", "--pp", "2", "--context", "128", "--users", "4",
               "-o", "other.lpuprog"], 0)
REFUSED = [
    (["--program", "other.lpuprog", "--users", "4", "--tokens", str(TOKENS)],
     r"kept/manifest: found a state of the program with schedule digest \w+; expected \w+, the program that is to go on"),
    ([*RUN, "--set", "link.flight=218cycles"],
     r"kept/manifest: found a state of the program with schedule digest \w+; expected \w+, the program that is to go on"),
    (["--program", "small.lpuprog", "--users", "3", "--tokens", str(TOKENS)],
     r"kept/manifest: found a state of 4 users; expected 3, as --users says"),
    (["--program", "small.lpuprog", "--users", "4", "--tokens", "1"],
     r"kept/manifest: found a state before token \d+; expected fewer than 1 tokens to be done, as --tokens says"),
    ([*RUN, "--no-verify"], r"--resume: found beside --no-verify; expected one of them \(.*\)"),
]
for arguments, line in REFUSED:
    result = checks.run("run", *arguments, "--resume", "kept")
    checks.check(result.returncode == 2 and result.stdout == "" and re.fullmatch(f"lpu_cluster: {line}\n", result.stderr),
                 f"{arguments}: exit code {result.returncode}: {result.stderr!r}")
code, stdout, stderr, _ = checks.run_ranks(3, *RUN, "--resume", "absent")
checks.check(code == 2 and stdout == "" and stderr.count("\n") == 1 and "found no absent/manifest" in stderr, f"on ranks: {code}, {stderr!r}")
checks.refused(["run", *RUN, "--save-state", "no/where"],
               "--save-state: found no folder at no/where, and it cannot be made; expected a folder, or a name in an existing one")
same(checks.result(2, *RUN, "--resume", "kept"), "what was kept is whole")

# ---- a signal that comes when nothing can be saved any more changes nothing; without --save-state it ends the program
few = subprocess.Popen([checks.program, "run", "--program", "small.lpuprog", "--tokens", "1", "--save-state", "c", "--json"],
                       stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
time.sleep(0.01)
few.send_signal(signal.SIGUSR1)
stdout, _ = few.communicate(timeout=60)
checks.check(few.returncode in (0, -signal.SIGUSR1) and (few.returncode != 0 or json.loads(stdout)["partial"] is False),
             f"one token cannot be cut: {few.returncode}")

checks.finish()
