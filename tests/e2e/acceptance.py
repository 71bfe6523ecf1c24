#!/usr/bin/python3
"""The acceptance script can pass and can fail: quick checks hold for the program, none for one that does nothing."""
import os
import subprocess
import sys

from program import Checks

source = os.path.abspath(sys.argv[2])
script = os.path.join(source, "scripts", "acceptance_compiler.sh")
checks = Checks()


def accept(*arguments):
    return subprocess.run([script, *arguments], capture_output=True, text=True, timeout=250, check=False)


listed = accept("--list").stdout.split()
checks.check({"budget", "agreement", "latency", "throughput", "mutants", "cost", "run_time"} <= set(listed),
             f"checks: {listed}")

QUICK = ["misfit", "presets", "configs", "folders", "wires"]
held = accept("--only", ",".join(QUICK), checks.program)
verdicts = [line.split()[0] for line in held.stdout.splitlines() if line.startswith(("PASS", "MISS"))]
checks.check(held.returncode == 0 and "MISS" not in verdicts, f"what is quick holds: {held.stdout}{held.stderr}")
checks.check(len(verdicts) >= 14, f"{len(verdicts)} verdicts")

with open("idle", "w", encoding="utf-8") as file:
    file.write("#!/bin/sh\nexit 0\n")
os.chmod("idle", 0o755)
missed = accept("--only", "misfit,presets,wires,budget,latency", "idle")
verdicts = [line.split()[0] for line in missed.stdout.splitlines() if line.startswith(("PASS", "MISS"))]
checks.check(missed.returncode == 1 and verdicts and "PASS" not in verdicts,
             f"a program that does nothing misses everything: {missed.stdout}{missed.stderr}")
checks.check(accept("--only", "no_such_check", checks.program).returncode == 2, "an unknown check is refused")
checks.finish()
