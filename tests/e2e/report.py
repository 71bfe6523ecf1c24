#!/usr/bin/python3
"""Results read as a DataFrame, and the report drawn from them: from files that compare wrote, and from one written now."""
import base64
import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys

from program import Checks

source = os.path.abspath(sys.argv[2])
results = os.path.join(source, "tests", "e2e", "results")
scripts = os.path.join(source, "scripts")
sys.path.insert(0, scripts)
import lpu_figures  # noqa: E402  after its folder is known
import lpu_results  # noqa: E402
import scaling_report  # noqa: E402

checks = Checks()
MANY, ONE = (os.path.join(results, name) for name in ("four_counts", "one_count"))


def draw(*arguments):
    return subprocess.run([os.path.join(scripts, "scaling_report.py"), *arguments], capture_output=True, text=True, timeout=60)


def draw_here(*arguments):
    """As draw(), without a process of its own: starting matplotlib takes longer than most figures."""
    stdout, stderr, typed, code = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["scaling_report.py", *arguments]
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            scaling_report.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = typed
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def refused(arguments, line):
    result = draw_here(*arguments)
    checks.check((result.returncode, result.stdout, result.stderr) == (2, "", f"scaling_report.py: {line}\n"),
                 f"expected exit code 2 and {line!r}: {arguments}: {result.returncode} {result.stdout}{result.stderr}")


def rows_in(text):
    return list(csv.DictReader(io.StringIO(text)))


def figures_of(page):
    """id of a figure: (its SVG, the rows behind its link)."""
    out = {}
    for name, body in re.findall(r'<figure id="(.*?)">(.*?)</figure>', page, re.DOTALL):
        encoded = re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]*)"', body)[1]
        out[name] = (body[:body.index("<figcaption>")], rows_in(base64.b64decode(encoded).decode("utf-8")))
    return out


def is_same_row(shown, row):
    """Equal in all columns of a row of scaling.csv, figures as figures."""
    def value(text):
        try:
            return float(text)
        except ValueError:
            return text.lower()
    return all(value(shown[key]) == value(row[key]) for key in row)


# The program's own results: schema, and both files say the same.
live = checks.run("compare", "--model", os.path.join(source, "cluster", "models", "shakespeare-llama-4m"), "--chips", "1",
                  "--micro-batch", "1", "--slo-tpot-ms", "5", "--output-dir", ".")
checks.check(live.returncode == 0, f"compare: {live.stderr}")
folders = [MANY, ONE] + ([os.getcwd()] if live.returncode == 0 else [])
for folder in folders:
    objects, lines = os.path.join(folder, "results.json"), os.path.join(folder, "scaling.csv")
    read = lpu_results.read(objects)
    declared = list(lpu_results.COLUMNS)
    checks.check(all(list(row) == declared for row in read["rows"]), f"{folder}: a row has the schema's keys in its order")
    a, b = lpu_results.load(objects), lpu_results.load(lines)
    checks.check(len(a) == len(read["rows"]) and a.drop(columns="file").equals(b.drop(columns="file")),
                 f"{folder}: results.json and scaling.csv are the same frame")
    checks.check(a["tokens_per_second"].iloc[0] == read["rows"][0]["tokens_per_second"], "a frame holds the file's figures")
    checks.check(str(a["users"].dtype) == "Int64" and str(a["filled"].dtype) == "boolean", f"types: {a.dtypes.to_dict()}")
both = lpu_results.load(os.path.join(MANY, "scaling.csv"), os.path.join(ONE, "results.json"))
checks.check(set(both["model"]) == {"shakespeare-llama-4m", "llama-2-70b"}, "several files become one frame")
with open("sweep.csv", "w", encoding="utf-8") as file:
    file.write("link_rate,devices,tokens_per_second\n14GB/s,64,\n,8,2.5\n")
sweep = lpu_results.load("sweep.csv")
checks.check(sweep["devices"].sum() == 72 and sweep["tokens_per_second"].isna().sum() == 1, "a sweep with a column of its own")
os.makedirs("other")
checks.expect(["plan", "--model", "llama-3-8b", "--output-dir", "other"], 0)
frame = lpu_results.load("other/results.json")
checks.check(len(frame) == 1 and frame["tp"][0] == 8 and frame["budget.install"][0] > 0, "another verb's result is one row")

# The page: each figure's data is what scaling.csv holds, and what the figure draws.
os.makedirs("page")
done = draw(os.path.join(MANY, "results.json"), os.path.join(ONE, "results.json"), "--output-dir", "page")
checks.check((done.returncode, done.stdout) == (0, "page/scaling.png\npage/scaling.svg\npage/report.html\n"),
             f"scaling_report.py: {done.returncode} {done.stdout}{done.stderr}")
page = open("page/report.html", encoding="utf-8").read()
figures = figures_of(page)
checks.check(set(figures) == {"r1-1-x", "r1-1-s", "r1-1-waterfall", "r1-1-frontier", "r2-1-x", "r2-1-s", "r2-1-waterfall",
                              "r2-1-frontier", "r2-published"}, f"figures: {sorted(figures)}")
for number, folder in (("r1", MANY), ("r2", ONE)):
    rows = rows_in(open(os.path.join(folder, "scaling.csv"), encoding="utf-8").read())
    read = lpu_results.read(os.path.join(folder, "results.json"))
    for kind, curves in (("x", ("X", "X_b1", "X_rep")), ("s", ("S",)), ("frontier", ("S", "X_rep"))):
        shown = figures[f"{number}-1-{kind}"][1]
        checks.check(shown and all(any(is_same_row(one, row) for row in rows) for one in shown),
                     f"{number} {kind}: the figure's data stand in scaling.csv")
        checks.check({one["curve"] for one in shown} <= set(curves), f"{number} {kind}: curves")
    expected = [row for row in rows if row["curve"].startswith("X") and row["slo_tpot_ms"] == "5"]
    checks.check(len(figures[f"{number}-1-x"][1]) == len(expected), f"{number}: all rows of X at 5 ms")
    parts = {(one["system"], part): value for one in read["waterfall"] for part, value in one["parts_us"].items()}
    shown = {(one["system"], one["part"]): float(one["us"]) for one in figures[f"{number}-1-waterfall"][1]}
    checks.check(shown == parts, f"{number}: the waterfall's data are the results'")
    checks.check(read["command"] in page and f"lpu_cluster {read['version']}" in page, f"{number}: command and version")

    panels = {panel.key: panel for _, group in lpu_figures.panels_of(read, number) for panel in group}
    for kind, column in (("x", "tokens_per_second"), ("s", "tokens_per_second_per_user")):
        axis = lpu_figures.figure_of(panels[f"{number}-1-{kind}"]).axes[0]
        points = {(float(x), float(y)) for line in axis.lines for x, y in zip(line.get_xdata(), line.get_ydata())
                  if line.get_marker() not in ("None", "")}
        data = {(float(row["devices"]), float(row[column])) for row in figures[f"{number}-1-{kind}"][1] if row[column]}
        checks.check(points == data, f"{number} {kind}: drawn {points ^ data}")
    axis = lpu_figures.figure_of(panels[f"{number}-1-x"]).axes[0]
    markers = [line for line in axis.lines if line.get_marker() == "o"]
    filled = sum(line.get_markerfacecolor() != lpu_figures.PAPER for line in markers)
    claimed = sum(row["filled"] == "true" and row["n0"] != "" and int(row["devices"]) >= int(row["n0"]) for row in expected)
    checks.check(filled == claimed, f"{number}: {filled} filled points, {claimed} compiled from N0 on")
    for axis in [axis for panel in panels.values() for axis in lpu_figures.figure_of(panel).axes if axis.axison]:
        named = [axis.get_xlabel(), axis.get_ylabel()]
        checks.check(any(named) or axis.get_title(loc="left"), f"{number}: an axis without a name")
published = figures["r2-published"][1]
checks.check([(float(row["published_least"]), float(row["predicted"])) for row in published]
             == [(row["published_least"], row["predicted"]) for row in lpu_results.read(os.path.join(ONE, "results.json"))["validation"]],
             "published against predicted")
checks.check("llama-2-70b" in figures["r2-published"][0] and ">443<" in figures["r2-1-waterfall"][0], "figures hold their text")

# One file that needs nothing else, light and dark, for any width.
addresses = set(re.findall(r'(?:href|src)="([^"]*)"', page)) | set(re.findall(r"url\(([^)]*)\)", page))
checks.check(all(address.startswith(("data:", "#")) for address in addresses), f"addresses: {[a[:40] for a in addresses]}")
names = re.findall(r'\bid="([^"]*)"', page)
checks.check(len(names) == len(set(names)), "every id is there once")
checks.check(all(address[1:] in names for address in addresses if address.startswith("#")), "every reference is there")
checks.check("prefers-color-scheme: dark" in page and "width=device-width" in page, "a dark face, a phone's width")
drawn = "".join(svg for svg, _ in figures.values())
checks.check("var(--ink)" in drawn and "var(--blue)" in drawn and not re.search("#[0-9a-f]{6}", drawn),
             f"figures have the page's colours only: {set(re.findall('#[0-9a-f]{6}', drawn))}")
sheet = open("page/scaling.svg", encoding="utf-8").read()
checks.check("--chips 1,2,4,8" in sheet and "fingerprint" in sheet, "the footer names the command and the fingerprint")
checks.check(open("page/scaling.png", "rb").read(8) == b"\x89PNG\r\n\x1a\n", "a PNG")

# One SLO is drawn, and named; every figure alone.
os.makedirs("each")
done = draw_here(os.path.join(MANY, "results.json"), "--slo-tpot-ms", "2", "--each", "--output-dir", "each")
checks.check(done.returncode == 0 and "TPOT ≤ 2 ms" in open("each/r1-1-x.svg", encoding="utf-8").read(), f"SLO: {done.stderr}")
checks.check(all(os.path.getsize(line) > 1000 for line in done.stdout.split()), "files that are named are there")
refused([os.path.join(MANY, "results.json"), "--slo-tpot-ms", "3", "--output-dir", "each"],
        f"--slo-tpot-ms: found 3, of which {MANY}/results.json has nothing; expected one of: 2, 5")

# An execution: the maps hold what it measured, the pipeline every burst of its trace.
os.makedirs("executed")
checks.expect(["run", "--model", "llama-3-8b", "--tokens", "1", "--output-dir", "executed", "--trace", "trace.json",
               "--trace-chips", "0-1", "--trace-cycles", "0-6000"], 0)
trace = lpu_results.read_trace("trace.json")
bars = lpu_figures.gantt_panel(trace, "t1").data
checks.check(list(bars["lane"].cat.categories) == [f"chip {chip} {unit}" for chip in (0, 1) for unit in ("C2C", "MEM", "MXM", "SXM", "VXM")],
             f"lanes: {list(bars['lane'].cat.categories)}")
lanes = {(event["pid"], event["tid"]): " ".join(event["args"]["name"].split()[:3]) for event in trace["traceEvents"]
         if event["name"] == "thread_name"}
busy = {lane: set() for lane in lanes.values()}
for event in trace["traceEvents"]:
    if event["ph"] == "X":
        start = event["args"]["cycle"]
        busy[lanes[event["pid"], event["tid"]]].update(range(start, start + event["args"]["cycles"]))
for lane, own in bars.groupby("lane"):
    cycles = [cycle for _, bar in own.iterrows() for cycle in range(bar["start_cycle"], bar["end_cycle"])]
    checks.check(sorted(busy[lane]) == sorted(cycles), f"{lane}: busy cycles of the bars and of the bursts")
os.makedirs("traced")
done = draw_here("executed/results.json", "--trace", "trace.json", "--output-dir", "traced")
checks.check(done.returncode == 0 and set(figures_of(open("traced/report.html", encoding="utf-8").read()))
             == {"r1-occupancy", "r1-links", "r1-nodes", "t1-gantt"}, f"an execution's page: {done.stderr}")
refused(["executed/results.json", "--trace", "executed/results.json"],
        "executed/results.json: found JSON without traceEvents and otherData.clock_hz; expected a trace of lpu_cluster run")
run = lpu_results.read("executed/results.json")
for panel in lpu_figures.run_panels(run, "r1")[:2]:
    image = lpu_figures.figure_of(panel).axes[0].images[0].get_array()
    kind, measured = (("links_busy", [chip["links_busy"] for chip in run["per_chip"]]) if panel.key == "r1-links"
                      else ("occupancy", [list(chip["occupancy"].values()) for chip in run["per_chip"]]))
    checks.check(image.T.tolist() == measured and panel.data.iloc[:, 1:].values.tolist() == measured, f"a map of {kind}")
nodes = lpu_figures.run_panels(run, "r1")[2]
image = lpu_figures.figure_of(nodes).axes[0].images[0].get_array()
loads = {}
for chip in run["per_chip"]:
    for peer, busy in zip(chip["links_to"], chip["links_busy"]):
        if peer >= 0:
            loads.setdefault((chip["chip"] // 8, peer // 8), []).append(busy)
checks.check(len(loads) == 64 and all(image[a][b] == max(busy) for (a, b), busy in loads.items()), "the map of nodes: busiest links")
checks.check(all(row["links"] == len(loads[row["from_node"], row["to_node"]]) == (56 if row["wires"] == "local" else 4)
                 for _, row in nodes.data.iterrows()), "links of each pair of nodes: 8 x 7 local ones, and 4 cables")
lonely = {**run, "per_chip": [chip for chip in run["per_chip"] if chip["chip"] < 8]}
for chip in lonely["per_chip"]:
    chip["links_to"] = [peer if peer < 8 else -1 for peer in chip["links_to"]]
checks.check([panel.key for panel in lpu_figures.run_panels(lonely, "r1")] == ["r1-occupancy", "r1-links"], "one node: no map of nodes")

# A plan: what fills the SRAM of a chip, stage by stage.
plan = lpu_results.read("other/results.json")
sram = lpu_figures.sram_panel(plan, "r1").data
parts = ["weights", "kv", "activations", "program"]
fullest = sram.loc[sram[parts].sum(axis=1).idxmax()]
checks.check(sram["stage"].tolist() == list(range(plan["pp"])) and sram[parts].to_dict("records") == plan["sram_bytes_per_chip_of_stage"],
             f"SRAM of {len(sram)} stages of {plan['pp']}")
checks.check(dict(fullest[parts]) == plan["sram_bytes_per_chip"]
             and fullest[parts].sum() == plan["sram_bytes_used_max"] <= plan["sram_bytes"] == fullest["sram_bytes"],
             f"SRAM: {dict(fullest)}, {plan['sram_bytes_per_chip']}")
done = draw_here("other/results.json", "--output-dir", "other")
checks.check(done.returncode == 0 and set(figures_of(open("other/report.html", encoding="utf-8").read())) == {"r1-sram"},
             f"a plan's page: {done.stderr}")

# A panel without data is absent.
fewer = lpu_results.read(os.path.join(ONE, "results.json"))
fewer["validation"], fewer["waterfall"] = [], []
fewer["rows"] = [row for row in fewer["rows"] if row["curve"] == "S"]
with open("fewer.json", "w", encoding="utf-8") as file:
    json.dump(fewer, file)
done = draw_here("fewer.json")
checks.check(done.returncode == 0 and set(figures_of(open("report.html", encoding="utf-8").read())) == {"r1-1-s"},
             f"only what has data is drawn: {done.stderr}")

# What is no result is refused in one line.
text = open(os.path.join(ONE, "results.json"), encoding="utf-8").read()
PLANTED = {"damaged.json": text[:1000], "renamed.json": text.replace('"devices"', '"device"', 1),
           "wrong.json": text.replace('"devices": 576', '"devices": "many"', 1), "newer.json": text.replace("compare/1", "compare/2", 1),
           "list.json": "[]", "empty.json": ""}
for name, content in PLANTED.items():
    with open(name, "w", encoding="utf-8") as file:
        file.write(content)
EXPECTED = "expected results.json of lpu_cluster"
for name, line in {
        "none.json": "cannot be read: No such file or directory; expected a file that lpu_cluster wrote",
        "wrong.json": f"rows[0].devices: 'many' is not of type 'integer'; {EXPECTED}",
        "renamed.json": f"rows[0]: 'devices' is a required property; {EXPECTED}",
        "newer.json": f"schema: 'lpu_cluster/compare/2' does not match '^lpu_cluster/[a-z-]+/1$'; {EXPECTED}",
        "list.json": f"the whole: [] is not of type 'object'; {EXPECTED}",
        "empty.json": "line 1: found damaged JSON (Expecting value); expected a complete results.json"}.items():
    try:
        lpu_results.load(name)
        checks.check(False, f"{name} is read")
    except lpu_results.ResultsError as refusal:
        checks.check(str(refusal) == f"{name}: {line}", f"{name}: {refusal}")
refused(["wrong.json"], f"wrong.json: rows[0].devices: 'many' is not of type 'integer'; {EXPECTED}")
refused(["none.json"], "none.json: cannot be read: No such file or directory; expected a file that lpu_cluster wrote")
os.makedirs("listed")
listed = checks.object("list", "chips", "--json")
with open("listed/results.json", "w", encoding="utf-8") as file:
    json.dump(listed, file)
refused(["listed/results.json"], "listed/results.json: found nothing to draw; expected a result of demo, compare, plan or run")
refused([os.path.join(ONE, "results.json"), "--output-dir", "none"],
        "--output-dir: found none/scaling.png: No such file or directory; expected an existing folder that can be written")
damaged = draw("damaged.json")
checks.check(damaged.returncode == 2 and re.fullmatch(r"scaling_report\.py: damaged\.json: line \d+: found damaged JSON .*\n", damaged.stderr),
             f"damaged: {damaged.stderr}")

# scripts/demo.sh with stand-ins for the packages, the build and mpirun: files are named, exit codes pass through.
shutil.copytree(scripts, "tour/scripts", ignore=shutil.ignore_patterns("__pycache__"))
os.makedirs("bin")
STAND_INS = {"tour/scripts/setup.sh": "exit 0", "bin/cmake": "exit 0",
             "bin/mpirun": f'echo "$*" > call; [ -z "$FAIL" ] || exit "$FAIL"; cp {MANY}/* out/'}
for name, body in STAND_INS.items():
    with open(name, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\n{body}\n")
    os.chmod(name, 0o755)


def tour(*arguments, fail=""):
    return subprocess.run(["scripts/demo.sh", *arguments], capture_output=True, text=True, timeout=60, cwd="tour",
                          env={**os.environ, "PATH": os.path.abspath("bin") + ":" + os.environ["PATH"], "FAIL": fail})


done = tour("out", "--", "--search-orders", "7")
checks.check(done.returncode == 0 and "out/report.html" in done.stdout, f"demo.sh: {done.stdout}{done.stderr}")
call = open("tour/call", encoding="utf-8").read().split()
checks.check(call[:2] == ["-np", "64"] and call[-2:] == ["--search-orders", "7"], f"mpirun {call}")
checks.check(all(os.path.exists(f"tour/out/{name}") for name in ("report.html", "scaling.png", "scaling.svg")), "files of the tour")
for code in (2, 3, 4, 75, 137):
    checks.check(tour("out", fail=str(code)).returncode == code, f"exit code {code} passes through")
checks.check(tour("--chips").returncode == 2, "a flag without -- is refused")
checks.finish()
