#!/usr/bin/python3
"""A generation that is stopped between two positions and goes on, on another number of ranks, says what it would have said; a
state that is damaged, or another generation's, is refused.

save_generation.py PROGRAM MPIRUN
"""
import re
import shutil

from ranks import json, mpirun_command, os, rank_pids, signal, subprocess, time, wait_for_words  # first: it makes ../e2e known
from program import Checks

TOKENS = 60
# What is to be stopped sleeps between turns of chips, about half a second in the timing plane and one in the numeric one on 1 to 10
# ranks, however fast the machine is: a signal 0.8 s after the start comes in the middle.
LATE = {"LPU_CLUSTER_TEST_FAULTS": "delay=500"}
MIDDLE = 0.8
checks = Checks()
MODELS = os.path.join(os.path.dirname(os.path.dirname(checks.program)), "share", "lpu_cluster", "models")
SAME = ["new_ids", "text", "result_digest", "fingerprint", "logits_after_prompt", "vectors_moved", "bytes_moved", "transfers", "partial"]


def compiled(name, model, chips, tp, pp):
    checks.expect(["compile", "--model", f"{MODELS}/{model}", "--chips", str(chips), "--tp", str(tp), "--pp", str(pp), "--context",
                   "256", "--compute", "fp32ref", "-o", name], 0)


compiled("m.lpuprog", "shakespeare-mixtral-5m", 8, 2, 4)
GREEDY = ["generate", "--program", "m.lpuprog", "--prompt", "KING", "--max-new-tokens", str(TOKENS)]
DRAWN = [*GREEDY, "--temperature", "1.2", "--top-k", "50", "--top-p", "0.95", "--seed", "11"]
greedy, drawn = (checks.object(*call, "--json", "--logits") for call in (GREEDY, DRAWN))
checks.check(greedy["new_ids"] != drawn["new_ids"], "drawn tokens are others")


def stop(ranks, call, state, *arguments, to="launcher", after=MIDDLE):
    """Generates until SIGUSR1, which comes after so many seconds; returns what it printed."""
    command = [checks.program] if ranks == 0 else mpirun_command(ranks, checks.program)
    with open("stderr", "w", encoding="utf-8") as said:
        process = subprocess.Popen([*command, *call, "--save-state", state, *arguments, "--json", "--log-level", "info"],
                                   stdout=subprocess.PIPE, stderr=said, text=True, stdin=subprocess.DEVNULL,
                                   env={**os.environ, **LATE})
    if ranks > 0:
        pids = rank_pids(process, ranks)
        wait_for_words(process, "stderr", "vectors between ranks")
    time.sleep(after)
    os.kill(process.pid if to == "launcher" else pids[to], signal.SIGUSR1)
    stdout, _ = process.communicate(timeout=60)
    where = f"{ranks} ranks, signal to {to}"
    with open("stderr", encoding="utf-8") as said:
        checks.check(process.returncode == 75, f"{where}: exit code {process.returncode}, {stdout[:200]!r}, {said.read()!r}")
    result = json.loads(stdout) if process.returncode == 75 else {}
    position = result.get("stopped_before_token", -1)
    checks.check(result.get("partial") is True and result.get("fingerprint", "") is None and result.get("result_digest", "") is None and
                 result.get("state_saved") == state and 0 <= position < TOKENS + 3 and
                 len(result.get("new_ids", [])) == max(0, position - 3), f"{where}: says that it is not complete")
    names = sorted(os.listdir(state))
    checks.check(names[:1] == ["manifest"] and len(names) == 1 + min(max(ranks, 1), 8), f"{where}: one file a rank with chips and the manifest: {names}")
    return result


def result(ranks, call, state, *arguments):
    command = [checks.program] if ranks == 0 else mpirun_command(ranks, checks.program)
    done = subprocess.run([*command, *call, "--resume", state, *arguments, "--json", "--logits"], capture_output=True, text=True,
                          timeout=100, stdin=subprocess.DEVNULL, check=False)
    checks.check(done.returncode == 0, f"np {ranks}, --resume {state}: exit code {done.returncode}: {done.stderr}")
    return json.loads(done.stdout) if done.returncode == 0 else {}


def same(told, expected, where):
    for key in SAME:
        checks.check(told.get(key) == expected[key], f"{where}: {key}: {told.get(key)}, undisturbed {expected[key]}")


# ---- stopped on 4 ranks and resumed on 1, in one process, on 3, with other instructions
first = stop(4, GREEDY, "a")
shutil.copytree("a", "kept")
same(result(1, GREEDY, "a", "--simd", "scalar"), greedy, "4, 1 ranks")
again = stop(0, GREEDY, "a", "--resume", "a")
checks.check(again.get("resumed_at_token") == first.get("stopped_before_token", -1) <= again.get("stopped_before_token", -1),
             "the second part begins where the first one ended")
last = result(3, GREEDY, "a")
same(last, greedy, "4, none, 3 ranks")
checks.check(last.get("resumed_at_token") == again.get("stopped_before_token") and last.get("wall_s", 0) > MIDDLE,
             "the time of the parts before counts")

# ---- tokens that rank 0 draws; the signal to one rank; ranks without chips; a signal that comes in the timing plane
stop(3, DRAWN, "d", to=2)
same(result(2, DRAWN, "d"), drawn, "drawn: 3, 2 ranks")
stop(10, GREEDY, "i", to=9)
text = checks.run(*GREEDY, "--resume", "i").stdout
checks.check("  resumed at position " in text and greedy["fingerprint"] in text and greedy["result_digest"] in text and
             greedy["text"] in text, f"10 ranks for 8 chips, none; what people read: {text}")
early = stop(2, DRAWN, "e", after=0)
same(result(3, DRAWN, "e"), drawn, f"stopped before position {early.get('stopped_before_token')}, 3 ranks")

# ---- damaged states, and those of other generations
MANIFEST, PART = "bad/manifest", "bad/state-1.rank-2"


def flip(path, at):
    def damage():
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x10]))
    return damage


def cut(path, size):
    return lambda: os.truncate(path, size)


DAMAGES = [
    ("no manifest", lambda: os.remove(MANIFEST), "--resume: found no bad/manifest; expected a folder that --save-state has written to"),
    ("no part", lambda: os.remove(PART), re.compile(rf'{PART}: found "No such file or directory"; expected a part of a saved generation')),
    ("a part of another rank", lambda: shutil.copy(PART.replace("rank-2", "rank-1"), PART),
     re.compile(rf"{PART}: found digest \w+; expected \w+, as the manifest says")),
    ("half a manifest", cut(MANIFEST, 60), re.compile(r"bad/manifest: found a body of 32 bytes; expected \d+, as the header says")),
    ("an empty part", cut(PART, 0), f'{PART}: found an empty file; expected "LPUCACHE", with which parts of saved generations begin'),
    ("half a part", cut(PART, 700), re.compile(rf"{PART}: found a body of 672 bytes; expected \d+, as the header says")),
]
for name in sorted(os.listdir("kept")):
    size = os.path.getsize(f"kept/{name}")
    places = {MANIFEST: (3, 27, size // 2), PART: (17, 28, size - 1)}.get(f"bad/{name}", (size // 3,))
    DAMAGES += [(f"byte {at} of {name}", flip(f"bad/{name}", at), re.compile(rf"bad/{name}: found .*; expected .*")) for at in places]
for what, damage, line in DAMAGES:
    shutil.copytree("kept", "bad")
    damage()
    done = checks.run(*GREEDY, "--resume", "bad")
    said = done.stderr[len("lpu_cluster: "):].rstrip("\n")
    fits = line.fullmatch(said) if isinstance(line, re.Pattern) else line == said
    checks.check(done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and fits,
                 f"{what}: exit code {done.returncode}: {done.stderr!r}")
    shutil.rmtree("bad")

compiled("other.lpuprog", "shakespeare-mixtral-5m", 8, 8, 1)
shutil.copytree(f"{MODELS}/shakespeare-mixtral-5m", "tuned")
flip("tuned/model.safetensors", os.path.getsize("tuned/model.safetensors") - 2)()
REFUSED = [
    (["--program", "other.lpuprog", *GREEDY[3:]],
     r"found a state of the program with schedule digest \w+; expected \w+, the program that is to go on"),
    ([*GREEDY[1:], "--checkpoint", "tuned"], r"found a state of the checkpoint with digest \w+; expected \w+, as --checkpoint has it"),
    ([*GREEDY[1:3], "--prompt", "KINGS", *GREEDY[5:]],
     r"found a state of another prompt, of 4 tokens with digest \w+; expected 5 tokens with digest \w+"),
    ([*GREEDY[1:], "--seed", "2"], r"found a state of --temperature 0 --top-k 0 --top-p 1 --seed 1; expected .* --seed 2"),
    ([*GREEDY[1:], "--temperature", "0.5"], r"found a state of --temperature 0 .*; expected --temperature 0\.5 .*"),
    ([*GREEDY[1:], "--top-k", "3"], r"found a state of .*; expected .* --top-k 3 .*"),
    ([*GREEDY[1:-1], "1"],
     r"found a state before position \d+; expected fewer than 4 positions to be done, as --max-new-tokens says"),
]
for arguments, line in REFUSED:
    done = checks.run("generate", *arguments, "--resume", "kept")
    checks.check(done.returncode == 2 and done.stdout == "" and re.fullmatch(f"lpu_cluster: kept/manifest: {line}\n", done.stderr),
                 f"{arguments}: exit code {done.returncode}: {done.stderr!r}")
checks.refused(["run", "--program", "m.lpuprog", "--resume", "kept"],
               'kept/manifest: found magic "LPUTEXTS"; expected "LPUSTATE", with which manifests of saved states begin')
done = subprocess.run(mpirun_command(3, checks.program, *GREEDY, "--resume", "absent"), capture_output=True, text=True, timeout=60,
                      stdin=subprocess.DEVNULL, check=False)
checks.check(done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1 and "found no absent/manifest" in done.stderr,
             f"on ranks: {done.returncode}, {done.stderr!r}")
more = checks.object(*GREEDY[:-1], str(TOKENS + 1), "--resume", "kept", "--json")
checks.check(more["new_ids"][:-1] == greedy["new_ids"] and len(more["new_ids"]) == TOKENS + 1,
             "what was kept is whole; more tokens than before are fine")

checks.finish()
