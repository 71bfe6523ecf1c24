#!/usr/bin/python3
"""Programs, wires and chips that are faulty: every fault ends the run, or shows in the fingerprint; none hangs."""
import re

from ranks import RankChecks

checks = RankChecks(users=2)
RUN = ["--program", "small.lpuprog", "--tokens", "3", "--users", "2"]
alone = checks.object("run", *RUN, "--json")
LINE = re.compile(r"lpu_cluster: \[rank (\d+)\] (chip \d+, cycle \d+, instruction -?\d+: .+)\n")
SOON = 10  # seconds, start of the ranks included


def fails(ranks, arguments, what, **keywords):
    """Exit code 3, nothing on stdout, one line; returns the line."""
    code, stdout, stderr, seconds = checks.run_ranks(ranks, *arguments, **keywords)
    checks.check(code == 3 and stdout == "", f"{what}: exit code {code}, stdout {stdout!r}, stderr {stderr!r}")
    checks.check(LINE.fullmatch(stderr) is not None, f"{what}: one line that names the rank: {stderr!r}")
    checks.check(seconds < SOON, f"{what}: ends soon: {seconds:.1f} s")
    return stderr


def faults(text):
    return {"LPU_CLUSTER_TEST_FAULTS": text}


# ---- programs with a planted fault, executed although it is known
for kind in ("missing-send", "missing-receive", "circular-wait"):
    checks.expect(["mutate", "small.lpuprog", "--kind", kind, "--seed", "5", "-o", "mutant.lpuprog"], 0)
    said = fails(8, ["--no-verify", "--program", "mutant.lpuprog"], kind)
    if kind == "missing-send":
        single = checks.run("run", "--no-verify", "--program", "mutant.lpuprog").stderr
        checks.check(": deadlock: chip " in said and LINE.sub(r"\2", said) == single.removeprefix("lpu_cluster: ").rstrip("\n"),
                     f"the chain of waits is that of one process: {said!r}, {single!r}")

# ---- a wire that is cut: all wait in the end, over ranks, and whoever is asked says for whom
for transport in ("shm", "mpi"):
    said = fails(7, [*RUN, "--transport", transport], f"a cut wire, {transport}", environment=faults("cut=6.0.1"))
    checks.check("deadlock: chip " in said and "of iteration 1 on link 0 from chip" in said, f"chain: {said!r}")

# ---- every chip sees the longer wire at once: still one line
fails(8, [*RUN, "--set", "link.flight=218cycles"], "a longer wire")

# ---- what happens on a wire or in a chip is seen
for ranks in (4, 16):
    said = fails(ranks, RUN, "a flipped bit", environment=faults("flip=6.0.1"))
    checks.check("chip 6, " in said and "is another value than row" in said, f"the flipped bit: {said!r}")
    fails(ranks, RUN, "swapped messages", environment=faults("swap=6.0.1"))
    for instruction in (0, 40, 41):
        result = checks.run_ranks(ranks, *RUN, "--json", environment=faults(f"skip=6.1.{instruction}"))
        checks.check(result[0] == 3 or (result[0] == 0 and f'"fingerprint": "{alone["fingerprint"]}"' not in result[1]),
                     f"skipped instruction {instruction}: exit code {result[0]}, and the same fingerprint")
unknown = checks.run_ranks(3, *RUN, environment=faults("flop=1"))
checks.check(unknown[0] == 2 and unknown[2].startswith("lpu_cluster: LPU_CLUSTER_TEST_FAULTS: found flop=1; expected "),
             f"an unknown fault: {unknown}")

# ---- errors before the start: one line, one code, from all ranks together
for arguments, line in (
        (["--model", "nope"], "--model: found nope; expected a model preset or a file; known: .+"),
        (["--nope"], r"--nope: found an unknown flag; expected one of lpu_cluster run --help"),
        (["--program", "nowhere.lpuprog"], r"nowhere\.lpuprog: found \"No such file or directory\"; expected .+"),
        (["--program", "small.lpuprog", "--users", "999"], "--users: found 999; expected 1 to 2, .+"),
        ([*RUN, "--transport", "pigeon"], "--transport: found pigeon; expected .+")):
    code, stdout, stderr, _ = checks.run_ranks(3, *arguments)
    checks.check(code == 2 and stdout == "" and re.fullmatch(f"lpu_cluster: {line}\n", stderr) is not None,
                 f"{arguments}: exit code {code}, stdout {stdout!r}, stderr {stderr!r}")

# ---- a launcher that starts tasks of which each takes itself for the only one
for environment in ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4"}):
    lonely = checks.expect(["run", *RUN], 4, stdout="", environment=environment)
    checks.check(re.fullmatch(r"lpu_cluster: MPI: found 1 rank where SLURM_\w+ is 4; expected as many: .*srun --mpi=pmix.*\n",
                              lonely.stderr) is not None, f"N tasks of one rank each: {lonely.stderr!r}")
    checks.expect(["run", *RUN], 4, stdout="", stderr="", environment={**environment, "SLURM_PROCID": "2"})
checks.expect(["run", *RUN], 0, stderr="", environment={"SLURM_PROCID": "0", "SLURM_NTASKS": "4"})  # once, in a batch script

checks.finish()
