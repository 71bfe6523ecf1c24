#!/usr/bin/env python3
"""compare: its verdicts follow from scaling.csv alone, by arithmetic of this script's own."""
import csv
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

KEY = ("curve", "system", "model", "compute", "slo_tpot_ms")


def number(text):
    return float(text) if text else None


def verdict(rows, n0_of_x):
    if all(number(r["tokens_per_second"]) is None for r in rows):
        return "no N meets the SLO", None
    def is_saturated(row):
        return number(row["tokens_per_second"]) is not None and float(row["users_saturating"]) <= float(row["users_fit"])
    if rows[0]["curve"] == "X_rep" and n0_of_x is not None:
        starts = [r for r in rows if int(r["devices"]) == n0_of_x]
    else:
        starts = [r for r in rows if is_saturated(r)]
    if not starts:
        return "no N where the saturating users fit", None
    first = starts[0]
    n0 = int(first["devices"])
    base = float(first["tokens_per_second"]) / n0
    span = [r for r in rows if n0 <= int(r["devices"]) <= 8 * n0]
    hollow = [r for r in span if r["filled"] == "false"]
    solid = [(number(r["tokens_per_second"]) or 0) / int(r["devices"]) / base for r in span if r["filled"] != "false"]
    if first in hollow:
        return "not compiled: run compare", n0
    if any(e > 1.05 for e in solid):
        return "not saturated", n0
    if any(e < 0.90 for e in solid):
        return "no", n0
    if hollow:
        return "not compiled: run compare", n0
    return ("near-linear" if int(span[-1]["devices"]) >= 8 * n0 else "the grid ends before 8 x N0"), n0


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [program, "compare", "--model", "llama-3-8b", "--chips", "64,128,256", "--micro-batch", "1",
             "--slo-tpot-ms", "2,5", "--search-orders", "1", "--output-dir", folder, "--quiet"],
            stdout=subprocess.PIPE, text=True, check=True)
        wide = [line for line in done.stdout.splitlines() if len(line) > 80]
        assert not wide, wide
        results = json.loads((pathlib.Path(folder) / "results.json").read_text())
        rows = list(csv.DictReader((pathlib.Path(folder) / "scaling.csv").open()))
    assert list(rows[0]) == list(results["rows"][0]), "keys of the two files"
    assert len(rows) == len(results["rows"])
    told = {tuple("" if v[k] is None else str(v[k]).removesuffix(".0") for k in KEY): v for v in results["verdicts"]}
    starts = {}
    judged = 0
    for key, group in itertools.groupby(rows, key=lambda r: tuple(r[k].removesuffix(".0") for k in KEY)):
        if key[0].startswith("S"):
            continue
        found, n0 = verdict(list(group), starts.get(key[1:]))
        if key[0] == "X":
            starts[key[1:]] = n0
        assert (told[key]["verdict"], told[key]["n0"]) == (found, n0), (key, told[key], found, n0)
        judged += 1
    assert judged >= 4, judged
    rates = {int(row["devices"]): float(row["tokens_per_second"]) for row in rows
             if row["curve"] == "S_tp" and row["tokens_per_second"]}
    assert set(rates) == {1, 2, 4, 8, 16, 32}, rates
    assert rates[1] < rates[2] < rates[4] < rates[8] and rates[32] < rates[16] < rates[8], rates  # a node has 8
    for waterfall in results["waterfall"]:
        total = sum(waterfall["parts_us"].values())
        assert abs(total - waterfall["total_us"]) < 1e-6 * total, waterfall
    print(f"{judged} verdicts recomputed")


if __name__ == "__main__":
    main()
