#!/usr/bin/python3
"""Run a command; check exit code, stdout and stderr together (ctest's own regex check ignores the code)."""
import argparse
import re
import subprocess
import sys


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--code", type=int, default=0)
    parser.add_argument("--stderr", default=None, help="regex that must match all of stderr")
    parser.add_argument("--stdout", default=None, help="regex that must match all of stdout")
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    result = subprocess.run(command, capture_output=True, text=True, timeout=arguments.timeout)
    findings = []
    if result.returncode != arguments.code:
        findings.append(f"exit code: found {result.returncode}, expected {arguments.code}")
    for stream in ("stdout", "stderr"):
        wanted = getattr(arguments, stream)
        if wanted is not None and not re.fullmatch(wanted, getattr(result, stream), re.DOTALL):
            findings.append(f"{stream}: does not match {wanted!r}")
    if findings:
        print("\n".join(findings), "--- stdout", result.stdout, "--- stderr", result.stderr, sep="\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
