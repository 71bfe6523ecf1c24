#!/usr/bin/python3
"""How long tests took, label by label, beside their budgets; and the slowest five.

    scripts/test_times.py BUILD_FOLDER JUNIT_FILE      of `ctest --output-junit JUNIT_FILE`

A budget that is passed is named, no error: machines differ. Exit code 2: a file is missing or damaged.
"""
import collections
import json
import subprocess
import sys
import xml.etree.ElementTree

# Seconds of a label's tests one after another, on two cores with nothing else to do and everything built.
BUDGETS = {"unit": 40, "property": 75, "golden": 20, "validation": 15, "fuzz": 3, "canary": 3, "mpi": 130, "e2e": 120, "slurm": 45,
           "browser": 20}
BUDGET_IN_ALL = 180  # of all tests, side by side
SLOWEST = 5


def labels_of(build):
    """The first label of each test: its scope."""
    listed = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], capture_output=True, text=True, check=True)
    out = {}
    for test in json.loads(listed.stdout)["tests"]:
        labels = next((one["value"] for one in test.get("properties", []) if one["name"] == "LABELS"), ["no label"])
        out[test["name"]] = labels[0]
    return out


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    build, path = sys.argv[1:]
    try:
        suite = xml.etree.ElementTree.parse(path).getroot()
        labels = labels_of(build)
        whole = float(suite.get("time"))
        tests = [(float(case.get("time")), case.get("name"), case.find("skipped") is not None)
                 for case in suite.iter("testcase")]
    except (OSError, ValueError, TypeError, xml.etree.ElementTree.ParseError, subprocess.CalledProcessError) as error:
        print(f"test_times.py: {path}: found {error}; expected what ctest --output-junit wrote for {build}", file=sys.stderr)
        sys.exit(2)
    seconds, counts = collections.Counter(), collections.Counter()
    for taken, name, _ in tests:
        label = labels.get(name, "no label")
        seconds[label] += taken
        counts[label] += 1
    print(f"\n{'label':<12}{'tests':>6}{'seconds':>9}{'budget':>8}")
    rows = [(label, counts[label], seconds[label], BUDGETS.get(label)) for label in sorted(counts, key=lambda one: -seconds[one])]
    rows.append(("in all", len(tests), whole, BUDGET_IN_ALL))
    for label, count, taken, budget in rows:
        over = "  over its budget" if budget is not None and taken > budget else ""
        print(f"{label:<12}{count:>6}{taken:>9.1f}{'none' if budget is None else budget:>8}{over}")
    print("\nslowest")
    for taken, name, _ in sorted(tests, reverse=True)[:SLOWEST]:
        print(f"  {taken:>7.1f} s  {name}")
    for _, name, is_skipped in tests:
        if is_skipped:
            print(f"test_times.py: skipped: {name}")


if __name__ == "__main__":
    main()
