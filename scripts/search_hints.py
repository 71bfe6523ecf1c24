#!/usr/bin/env python3
"""Searches schedules for objective throughput long, and keeps what was found as hints that the program ships.

    scripts/search_hints.py build/release/bin/lpu_cluster llama-2-70b --orders 2000 -- --chips 640 --tp 8 --pp 80

What stands after -- are flags of `plan`. The hint goes into cluster/hints/MODEL.json, in place of one for the
same request, if its interval is shorter, or equal with a shorter latency. The next build embeds it; a file for another
model has to be listed in cluster/CMakeLists.txt.
"""
import argparse
import json
import pathlib
import subprocess
import sys

KEYS = ("compute", "experts", "context", "micro_batch", "tp", "pp", "users")
FOLDER = pathlib.Path(__file__).resolve().parent.parent / "cluster" / "hints"


def name_of(hint):
    experts = " all-experts" if hint["experts"] == "all" else ""
    return (f"{hint['compute']}{experts} context {hint['context']} micro-batch {hint['micro_batch']} "
            f"tp {hint['tp']} pp {hint['pp']} users {hint['users']}")


def text_of(document):
    """JSON with one line a stage, so that a change of one hint is a small change of the file."""
    head = {key: value for key, value in document.items() if key != "hints"}
    lines = [f'  "{key}": {json.dumps(value)},' for key, value in head.items()]
    hints = []
    for key, hint in sorted(document["hints"].items()):
        fields = [f'      "{k}": {json.dumps(v)},' for k, v in hint.items() if k != "stages"]
        stages = [f'        "{k}": {json.dumps(v)}' for k, v in hint["stages"].items()]
        hints.append(f'    "{key}": {{\n' + "\n".join(fields) + '\n      "stages": {\n' + ",\n".join(stages)
                     + "\n      }\n    }")
    return "{\n" + "\n".join(lines) + '\n  "hints": {\n' + ",\n".join(hints) + "\n  }\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--orders", type=int, default=1000, help="orders tried at each interval (default 1000)")
    ours, flags = sys.argv[1:], []
    if "--" in ours:
        ours, flags = ours[:ours.index("--")], ours[ours.index("--") + 1:]
    arguments = parser.parse_args(ours)
    call = [arguments.program, "plan", "--model", arguments.model, "--objective", "throughput", "--search-orders",
            str(arguments.orders), "--json", *flags]
    done = subprocess.run(call, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        return done.returncode
    plan = json.loads(done.stdout)
    hint = plan.get("schedule_hint")
    if hint is None:
        sys.exit("search_hints.py: no order was found: stages run one iteration after the other")
    file = FOLDER / f"{arguments.model}.json"
    document = json.loads(file.read_text()) if file.exists() else {
        "description": "Where windows of MXM rounds start within the interval, found by scripts/search_hints.py.",
        "hints": {}}
    old = document["hints"].get(name_of(hint))
    found = (hint["interval_cycles"], hint["token_latency_cycles"])
    print(f"{name_of(hint)}: interval {found[0]:,} ({plan['ii_quality']:.3f}), latency {found[1]:,} cycles")
    if old and (old["interval_cycles"], old["token_latency_cycles"]) <= found:
        print("kept the one that was there: "
              f"interval {old['interval_cycles']:,}, latency {old['token_latency_cycles']:,} cycles")
        return 0
    document["hints"][name_of(hint)] = hint
    FOLDER.mkdir(exist_ok=True)
    file.write_text(text_of(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
