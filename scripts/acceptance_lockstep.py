#!/usr/bin/python3
"""What was asked of the lockstep run, line by line, on a built program: the figure, and PASS or MISS.

Each check is a function that reports one line for each thing that was asked; `--only` names some of them. What the short
tests of tests/mpi check on a small model is run here on whole models, and as often as was asked.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODELS = {"llama-3-8b": 64, "mixtral-8x7b": 256, "llama-2-70b": 576}
RANKS = (1, 2, 3, 7, 8, 64)
MPIRUN = ["mpirun", "--oversubscribe", "-q"]
MEGABYTE, GIBIBYTE = 10**6, 2**30
CHECKS = {}


def check(function):
    """Makes the function known by its name."""
    CHECKS[function.__name__] = function
    return function


class Acceptance:
    """Calls the program in an empty folder, and collects the verdicts."""

    def __init__(self, program):
        self.program = program
        self.misses = 0
        self.files = {}

    def report(self, holds, what):
        self.misses += not holds
        print(f"  {'PASS' if holds else 'MISS'}  {what}", flush=True)

    def file(self, model, *flags):
        """A compiled program, compiled once."""
        name = "-".join([model, *flags]).replace("--", "").replace("/", "_") + ".lpuprog"
        if name not in self.files:
            subprocess.run([self.program, "compile", "--model", model, *flags, "-o", name, "--quiet"], check=True,
                           stdout=subprocess.DEVNULL, timeout=900)
            self.files[name] = True
        return name

    def run(self, ranks, *arguments, environment=None, before=(), timeout=600):
        """The result of `run`, by so many ranks (0: without a launcher); what it said where it failed."""
        launcher = [*MPIRUN, "-np", str(ranks)] if ranks > 0 else []
        begin = time.monotonic()
        done = subprocess.run([*before, *launcher, self.program, "run", *arguments, "--json"], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}, timeout=timeout, check=False)
        try:
            out = json.loads(done.stdout)
        except ValueError:
            out = {}
        out.update(code=done.returncode, said=done.stderr.strip(), seconds=time.monotonic() - begin)
        return out

    def script(self, name, *arguments, timeout=3600):
        """A script of tests/mpi: exit code and what it printed."""
        done = subprocess.run([sys.executable, "-B", os.path.join(SOURCE, "tests", "mpi", name), self.program,
                               " ".join(MPIRUN), *arguments], capture_output=True, text=True, timeout=timeout, check=False)
        return done.returncode, done.stdout.strip()


@check
def fingerprints(on):
    """One fingerprint for any number of ranks, however late, loaded, and whatever carries the vectors."""
    for model, chips in MODELS.items():
        file = on.file(model, "--chips", str(chips))
        run = ["--program", file, "--tokens", "4"]
        alone = on.run(0, *run)["fingerprint"]
        found = {ranks: on.run(ranks, *run) for ranks in RANKS}
        on.report(all(result.get("fingerprint") == alone for result in found.values()),
                  f"{model}, {chips} chips: {alone} on {', '.join(map(str, RANKS))} ranks; messages between ranks "
                  f"{', '.join(str(result.get('messages_between_ranks')) for result in found.values())}")
        late = on.run(8, *run, environment={"LPU_CLUSTER_TEST_FAULTS": "delay=200"})
        on.report(late.get("fingerprint") == alone, f"{model}: ranks late at random (0 to 200 us a turn): {late['seconds']:.1f} s")
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(20)]
        try:
            loaded = on.run(8, *run)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        on.report(loaded.get("fingerprint") == alone, f"{model}: beside 20 busy processes: {loaded['seconds']:.1f} s")
        for ranks in (8, 64):
            mpi = on.run(ranks, *run, "--transport", "mpi")
            on.report(mpi.get("fingerprint") == alone and mpi.get("transport") == "MPI",
                      f"{model}: without shared memory, {ranks} ranks: {mpi['seconds']:.1f} s")
        code, said = on.script("two_hosts.py", os.path.abspath(file), "4", "4")
        on.report(code == 0, f"{model}: over two hosts (network namespaces), 4 + 4 ranks: {said.splitlines()[-1:]}")
    model = "llama-3-8b"
    base = on.run(8, "--program", on.file(model, "--chips", "64"), "--tokens", "4")["fingerprint"]
    for flags in (["--chips", "72"], ["--chips", "64", "--context", "2k"]):
        other = on.run(8, "--program", on.file(model, *flags), "--tokens", "4")["fingerprint"]
        on.report(other not in (None, base), f"{model} {' '.join(flags)}: another fingerprint, {other}")


@check
def faults(on):
    """Programs, wires and chips that are faulty; launchers that start N tasks of one rank."""
    code, said = on.script("faults.py")
    on.report(code == 0, f"faults end the run or show in the fingerprint, on 3, 4, 7, 8 and 16 ranks: {said}")


@check
def speed(on):
    """Llama-2-70B on 576 chips, 64 ranks, every transfer exchanged."""
    file = on.file("llama-2-70b", "--chips", "576", "--users", "64", "--context", "512")
    users = on.run(64, "--program", file, "--users", "64", "--tokens", "8")
    on.report(users["wall_s"] <= 10, f"64 users x 8 tokens: {users['wall_s']:.2f} s beyond MPI's start ({users['seconds']:.1f} s with "
              f"it); {users['messages_between_ranks']} messages between ranks, {users['wake_ups'] / 8:.0f} wake-ups a token")
    file = on.file("llama-2-70b", "--chips", "576")
    short, long = (on.run(64, "--program", file, "--tokens", tokens) for tokens in ("8", "136"))
    token_ms = 1000 * (long["wall_s"] - short["wall_s"]) / 128
    on.report(token_ms <= 30, f"one user: {token_ms:.1f} ms a token, after {short['wall_s'] - 8 * token_ms / 1000:.2f} s of set-up; "
              f"{long['wake_ups'] / 136:.0f} wake-ups a token, on the machine as it is (load {os.getloadavg()[0]:.1f})")
    memory = max(users["memory_bytes_per_rank_max"], long["memory_bytes_per_rank_max"])
    on.report(memory <= 25 * MEGABYTE, f"memory: {memory / MEGABYTE:.1f} MB for the largest of 64 ranks")
    memory = max(users["memory_bytes"], long["memory_bytes"])
    on.report(memory <= 1.5 * GIBIBYTE, f"memory: {memory / GIBIBYTE:.2f} GiB in all")


@check
def ends(on):
    """50 ranks killed at random moments; signals; a rank stopped for 20 s."""
    code, said = on.script("ends.py", "50", "20")
    on.report(code == 0, f"kills, signals, a stop of 20 s: {said}")


@check
def limits(on):
    """Little shared memory, a full disk, more ranks than chips, a number of ranks that divides nothing."""
    file = on.file("llama-2-70b", "--chips", "576")
    run = ["--program", file, "--tokens", "4"]
    alone = on.run(0, *run)["fingerprint"]
    for megabytes in ("64", "1"):
        space = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size={megabytes}m none /dev/shm && exec "$@"', "sh"]
        small = on.run(64, *run, before=space)
        on.report(small.get("fingerprint") == alone,
                  f"/dev/shm of {megabytes} MB, 64 ranks: {small.get('transport')} {small['said'][:150]}")
    os.makedirs("disk", exist_ok=True)
    space = ["unshare", "--mount", "sh", "-c",
             'mount -t tmpfs -o size=64k none disk && (head -c 100000 /dev/zero > disk/full 2>/dev/null || true) && exec "$@"', "sh"]
    full = on.run(8, *run, "--output-dir", "disk", before=space)
    on.report(full["code"] == 4 and re.fullmatch(r"lpu_cluster: \[rank 0\] disk/results\.json: found .+", full["said"]) is not None,
              f"a full disk: exit code {full['code']}: {full['said']}")
    small = ["--program", on.file("llama-3-8b", "--chips", "64"), "--tokens", "2"]
    alone = on.run(0, *small)["fingerprint"]
    for ranks in (70, 37):
        some = on.run(ranks, *small)
        on.report(some.get("fingerprint") == alone, f"{ranks} ranks for 64 chips: {some.get('ranks_idle')} idle")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="the checks, and what each is about")
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("program", nargs="?", default="")
    arguments = parser.parse_args()
    if arguments.list:
        for name, function in CHECKS.items():
            print(f"{name}: {function.__doc__}")
        return 0
    names = arguments.only.split(",") if arguments.only else list(CHECKS)
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        parser.error(f"--only: found {unknown[0]}; known: {', '.join(CHECKS)}")
    builds = [arguments.program] if arguments.program else [f"{SOURCE}/build/{kind}/bin/lpu_cluster" for kind in ("release", "ci")]
    program = next((os.path.abspath(path) for path in builds if os.path.exists(path)), None)
    if program is None:
        parser.error(f"found no program at {' or '.join(builds)}")
    on = Acceptance(program)
    with tempfile.TemporaryDirectory(prefix="lpu_cluster_acceptance_") as folder:
        os.chdir(folder)
        for name in names:
            print(f"{name}: {CHECKS[name].__doc__}", flush=True)
            try:
                CHECKS[name](on)
            except (KeyError, subprocess.SubprocessError) as error:
                on.report(False, f"{name} was cut short: {error!r}")
    print(f"{on.misses} misses")
    return 1 if on.misses else 0


if __name__ == "__main__":
    sys.exit(main())
