"""Whether a figure of the report shows what its CSV holds: its words, and the places of its points on their axes.

A figure is what FIGURES finds in the page; rows are those of its CSV, as text.
"""
import math

# Script of a browser: of each figure its CSV, and of each pair of its axes the ticks, words and points.
FIGURES = """
    const seen = texts => [...texts].filter(t => t.getBoundingClientRect().width > 0).map(t => t.textContent.trim());
    const place = (use, axle) => parseFloat(use.getAttribute(axle));
    const ticks = (axes, axle) => [...axes.querySelectorAll(`g[id*="-${axle}tick_"]`)].map(
        tick => [place(tick.querySelector("use"), axle), tick.querySelector("text")?.textContent.trim() ?? ""]);
    const beside = (axes, what) => [...axes.querySelectorAll(what)].filter(one => !one.closest('g[id*="-matplotlib.axis_"]'));
    return [...document.querySelectorAll("figure")].map(f => ({
        name: f.id, address: f.querySelector("a[download$='.csv']").href,
        width: f.querySelector("svg").getBoundingClientRect().width, height: f.querySelector("svg").getBoundingClientRect().height,
        words: seen([...f.querySelectorAll("svg text")].filter(t => !t.closest('g[id*="-axes_"]'))),
        axes: [...f.querySelectorAll('g[id*="-axes_"]')].map(axes => ({
            x: ticks(axes, "x"), y: ticks(axes, "y"), words: seen(beside(axes, "text")),
            points: beside(axes, "use").map(use => [place(use, "x"), place(use, "y")])}))}));"""


def numbers(rows, column):
    return [float(row[column]) for row in rows if row[column]]


def differ(what, found, expected):
    return [] if found == expected else [f"{what}: found {found}, expected {expected}"]


def says(figure, words):
    """Above the axes, as part of a line."""
    return [] if any(words in line for line in figure["words"]) else [f"no '{words}' in {figure['words']}"]


def places_of(ticks):
    """Where the values of an axis stand."""
    out = {}
    for at, text in ticks:
        if text:
            text = text.replace(",", "").replace("\N{MINUS SIGN}", "-")
            out[float(text.rstrip("kMG")) * {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1)] = at
    return out


def scale_of(ticks, bend):
    """From a value to its place, by the outer ticks of an axis that is straight in bend(value)."""
    places = places_of(ticks)
    low, high = min(places), max(places)
    return lambda value: places[low] + (places[high] - places[low]) * (bend(value) - bend(low)) / (bend(high) - bend(low))


def points_differ(axes, points):
    """The points drawn are these, within a twentieth of a point of print."""
    def near(one, others):
        return any(math.dist(one, other) < 0.05 for other in others)
    missing = [one for one in points if not near(one, axes["points"])]
    added = [one for one in axes["points"] if not near(one, points)]
    return [f"no points at {missing}, points at {added}"] if missing or added else []


def curves(upper_column, lower_column):
    """Of two pairs of axes over one axis of devices."""
    def check(rows, figure):
        out = []
        across = places_of(figure["axes"][1]["x"])
        for axes, column, bend in zip(figure["axes"], (upper_column, lower_column), (math.log, float)):
            up = scale_of(axes["y"], bend)
            out += points_differ(axes, [(across.get(float(row["devices"]), math.inf), up(float(row[column])))
                                        for row in rows if row[upper_column] and row[column]])
        return out + differ("devices", sorted(across), sorted(set(numbers(rows, "devices"))))
    return check


def frontier(rows, figure):
    axes = figure["axes"][0]
    across, up = scale_of(axes["x"], math.log), scale_of(axes["y"], math.log)
    accepted = {}
    for row in rows:
        point = across(float(row["tokens_per_second_per_user"])), up(float(row["tokens_per_second"]))
        accepted.setdefault((row["system"], *point), []).extend([float(row["slo_tpot_ms"])] if row["slo_tpot_ms"] else [])
    words = ["≤ " + ", ".join(f"{slo:g}" for slo in sorted(slos)) + " ms" if slos else "one user" for slos in accepted.values()]
    return points_differ(axes, [point[1:] for point in accepted]) + differ("labels", sorted(axes["words"]), sorted(words))


def waterfall(rows, figure):
    def label(value):
        return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
    out, cascades = [], {}
    for row in rows:
        cascades.setdefault((row["system"], row["devices"]), []).append(row)
    for axes, ((system, _), own) in zip(figure["axes"], cascades.items()):
        parts = [(row["part"].replace("_", " "), float(row["us"])) for row in own if float(row["us"]) > 0]
        parts.append(("total", float(own[0]["total_us"])))
        out += differ(f"parts of {system}", [text for _, text in axes["y"]], [part for part, _ in parts])
        out += differ(f"us of {system}", axes["words"][:-1], [label(value) for _, value in parts])
    return out + differ("cascades", len(figure["axes"]), len(cascades))


def published(rows, figure):
    axes = figure["axes"][0]
    across = scale_of(axes["x"], float)
    out = points_differ(axes, [(across(float(row["predicted"])), at) for row, (at, _) in zip(rows, axes["y"])])
    ratios = [f"{float(row['published_over_predicted_least']):.2f} to {float(row['published_over_predicted_most']):.2f}" for row in rows]
    return out + differ("ratios", [word for word in axes["words"] if " to " in word], ratios)


def busy_map(names):
    def check(rows, figure):
        most = max(names, key=lambda name: max(numbers(rows, name)))
        row = max(rows, key=lambda one: float(one[most]))
        return (differ("rows of the map", [text for _, text in figure["axes"][0]["y"]], names)
                + says(figure, f"most: {most} of chip {row['chip']}, {100 * float(row[most]):.2f} %"))
    return check


def nodes(rows, figure):
    top = max((row for row in rows if row["wires"] == "global"), key=lambda row: float(row["busy_max"]))
    return says(figure, f"busiest cable: {100 * float(top['busy_max']):.2f} %, {top['from_node']} to {top['to_node']}")


SRAM_PARTS = ["weights", "kv", "activations", "program"]


def sram(rows, figure):
    def used(row):
        return sum(float(row[part]) for part in SRAM_PARTS)
    fullest = max(rows, key=used)
    size = float(rows[0]["sram_bytes"])
    words = [f"SRAM of a chip: {size / 1e6:.1f} MB"]
    for part in SRAM_PARTS:
        own = numbers(rows, part)
        words.append(f"{'KV' if part == 'kv' else part}: {min(own) / 1e6:.2f} to {max(own) / 1e6:.2f} MB")
    return (says(figure, f"fullest: stage {fullest['stage']}, {100 * used(fullest) / size:.1f} %")
            + differ("legend", figure["axes"][1]["words"], words))


def gantt(rows, figure):
    lanes = list(dict.fromkeys(row["lane"] for row in rows))
    first, last = min(numbers(rows, "start_cycle")), max(numbers(rows, "end_cycle"))
    return (differ("lanes", [text for _, text in figure["axes"][0]["y"]], lanes)
            + says(figure, f"cycles {first:,.0f} to {last:,.0f}"))


UNITS, LINKS = ["mxm", "vxm", "sxm", "mem", "c2c"], [f"link {number}" for number in range(11)]
# Each kind of figure: what compares it with its rows, and the columns of which no value may change unnoticed.
KINDS = {
    "x": (curves("tokens_per_second", "efficiency_total"), ["devices", "tokens_per_second", "efficiency_total"]),
    "s": (curves("tokens_per_second_per_user", "speedup"), ["devices", "tokens_per_second_per_user", "speedup"]),
    "frontier": (frontier, ["tokens_per_second_per_user", "tokens_per_second", "slo_tpot_ms"]),
    "waterfall": (waterfall, ["us", "total_us"]),
    "published": (published, ["predicted", "published_over_predicted_least", "published_over_predicted_most"]),
    "occupancy": (busy_map(UNITS), UNITS), "links": (busy_map(LINKS), LINKS), "nodes": (nodes, ["busy_max"]),
    "sram": (sram, [*SRAM_PARTS, "sram_bytes"]), "gantt": (gantt, ["start_cycle", "end_cycle"]),
}


def altered(rows, column):
    """The same rows, with more than twice as much in a column."""
    return [{**row, column: str(2 * float(row[column]) + 1) if row[column] else ""} for row in rows]
