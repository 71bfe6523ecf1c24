#!/usr/bin/python3
"""However a run ends, it ends soon, says why, and leaves nothing behind.

ends.py PROGRAM MPIRUN [kills [seconds of a stop]]
"""
import random
import re
import sys

from ranks import RankChecks, is_running, json, os, rank_pids, signal, time

KILLS = int(sys.argv[3]) if len(sys.argv) > 3 else 4
STOP_S = float(sys.argv[4]) if len(sys.argv) > 4 else 3
RANKS = 8
checks = RankChecks()
LONG = ["--program", "small.lpuprog", "--tokens", "1000000"]
random.seed(7)


def shared_memory(job):
    """Segments of one job: ours would be named after the program, Open MPI's after its number."""
    return {name for name in os.listdir("/dev/shm") if "lpu" in name or f".{job:x}." in name}


def job_number(pid):
    with open(f"/proc/{pid}/environ", "rb") as file:
        return int(re.search(rb"OMPI_MCA_ess_base_jobid=(\d+)", file.read()).group(1))


def start(*arguments):
    """A job whose chips run: rank 0 says so. Returns mpirun and the ranks' process ids."""
    with open("stderr", "w", encoding="utf-8") as said:
        mpirun = checks.start(RANKS, *arguments, "--log-level", "info", stderr=said)
    pids = rank_pids(mpirun, RANKS)
    limit = time.monotonic() + 60
    while "vectors between ranks" not in words() and mpirun.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    return mpirun, pids


def words():
    with open("stderr", encoding="utf-8") as said:
        return said.read()


def end(what, mpirun, pids, action, within):
    """Does something to a running job; returns what it then says, but for its log."""
    job = job_number(pids[0])
    begin = time.monotonic()
    action()
    stdout, _ = mpirun.communicate(timeout=60)
    seconds = time.monotonic() - begin
    stderr = "".join(line for line in words().splitlines(True) if "] info: " not in line)
    checks.check(seconds <= within, f"{what}: ends within {within} s: {seconds:.1f} s")
    time.sleep(0.1)
    checks.check(not any(is_running(pid) for pid in pids), f"{what}: no process is left")
    checks.check(not shared_memory(job), f"{what}: no shared memory is left: {shared_memory(job)}")
    return stdout, stderr, seconds


# ---- a rank is killed
slowest = 0
for number in range(KILLS):
    mpirun, pids = start(*LONG, *(["--transport", "mpi"] if number % 4 == 3 else []))
    victim = random.randrange(RANKS)
    time.sleep(1.5 * random.random())
    stdout, stderr, seconds = end(f"rank {victim} killed", mpirun, pids, lambda: os.kill(pids[victim], signal.SIGKILL), 10)
    slowest = max(slowest, seconds)
    checks.check(mpirun.returncode != 0 and stdout == "", f"killed: exit code {mpirun.returncode}, stdout {stdout!r}")
    checks.check(stderr == f"lpu_cluster: rank {victim}: found it killed or lost; expected it to take part\n",
                 f"rank {victim} killed: one line names it: {stderr!r}")
print(f"{KILLS} ranks killed: the slowest end took {slowest:.1f} s")

# ---- a signal asks for the end: of one rank, or of the launcher (which makes SIGTERM of it, and has an exit code of its own)
for name, code in (("TERM", 143), ("INT", 130)):
    number = getattr(signal, f"SIG{name}")
    for target in ("rank", "launcher"):
        mpirun, pids = start(*LONG, "--json")
        time.sleep(1)
        pid = pids[3] if target == "rank" else mpirun.pid
        stdout, stderr, _ = end(f"{name} to a {target}", mpirun, pids, lambda: os.kill(pid, number), 5)
        checks.check(mpirun.returncode == code if target == "rank" else mpirun.returncode != 0,
                     f"{name} to a {target}: exit code {mpirun.returncode}")
        try:
            result = json.loads(stdout)
        except ValueError:
            checks.check(False, f"{name} to a {target}: partial results: {stdout[:200]!r}, {stderr!r}")
            continue
        checks.check(result["partial"] is True and result["fingerprint"] is None and
                     0 < result["iterations"] < result["iterations_planned"] and result["chips"] == 16,
                     f"{name} to a {target}: marked as partial, after {result['iterations']} iterations")

# ---- a rank is stopped, and continues: nothing has happened
begin = time.monotonic()
checks.object("run", "--program", "small.lpuprog", "--tokens", "500", "--json")
tokens = int(500 * 2 / (time.monotonic() - begin)) + 500  # two seconds of one process, some more of eight
FEW = ["--program", "small.lpuprog", "--tokens", str(tokens)]
expected = checks.object("run", *FEW, "--json")["fingerprint"]
mpirun, pids = start(*FEW, "--json")
os.kill(pids[5], signal.SIGSTOP)
time.sleep(STOP_S)
checks.check(mpirun.poll() is None, "a stopped rank is no reason to end")
stdout, stderr, _ = end("a rank continued", mpirun, pids, lambda: os.kill(pids[5], signal.SIGCONT), 60)
alarms = [line for line in stderr.splitlines() if not line.startswith("lpu_cluster: run: token ")]  # progress is none
checks.check(mpirun.returncode == 0 and not alarms, f"stopped and continued: {mpirun.returncode}, {stderr!r}")
checks.check(mpirun.returncode == 0 and json.loads(stdout)["fingerprint"] == expected, "stopped and continued: the same fingerprint")

checks.finish()
