"""The figures of a report: panels drawn by matplotlib from a checked results.json, each with the data that it shows.

Nothing is decided here: efficiencies, verdicts and times stand in the results. A panel without data is not made.
Lengths are inches. Colours are Okabe and Ito's (2008), which differ for all kinds of colour blindness; markers and line
styles say the same, for grey paper.
"""
import dataclasses
import io
import math
import typing

import matplotlib
import matplotlib.patches
import pandas
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

import lpu_results

INK, FAINT, PAPER = "#1b1c1f", "#c9ccd2", "#fefefe"
LPU_LOOKS = (("#0072b2", "o"), ("#56b4e9", "D"), ("#009e73", "P"))  # colour and marker, system by system
GPU_LOOKS = (("#d55e00", "s"), ("#e69f00", "^"), ("#cc79a7", "v"))
STYLE = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.labelsize": 8, "axes.spines.right": False, "axes.spines.top": False,
    "axes.titlesize": 8.5, "axes.titlelocation": "left", "figure.facecolor": PAPER, "axes.facecolor": "none", "font.size": 8,
    "font.sans-serif": ["DejaVu Sans", "Verdana"], "font.monospace": ["DejaVu Sans Mono"],
    "grid.color": FAINT, "grid.linewidth": 0.6, "hatch.linewidth": 0.6, "legend.fontsize": 7.5, "legend.frameon": False,
    "svg.fonttype": "none", "svg.hashsalt": "lpu_cluster", "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "xtick.labelsize": 7.5, "ytick.labelsize": 7.5,
}
WIDTH = 4.2
LEFT, TOP, RIGHT = 0.75, 0.62, 0.15  # of the axes inside a panel
LINE = 0.14                          # of text


@dataclasses.dataclass
class Panel:
    key: str             # unique in a report; names its CSV
    title: str
    conditions: str      # under which the figures hold: one short line
    caption: str         # what is drawn
    data: pandas.DataFrame
    height: float
    draw: typing.Callable[["Frame"], None]


class Frame:
    """A rectangle of a figure, in inches from the figure's upper left corner."""

    def __init__(self, figure, left=0.0, top=0.0):
        self.figure, self.left, self.top = figure, left, top

    def axes(self, top, height, left=LEFT, **keywords):
        wide, high = self.figure.get_size_inches()
        return self.figure.add_axes(((self.left + left) / wide, 1 - (self.top + top + height) / high,
                                     (WIDTH - left - RIGHT) / wide, height / high), **keywords)

    def text(self, top, words, left=0.1, **keywords):
        wide, high = self.figure.get_size_inches()
        self.figure.text((self.left + left) / wide, 1 - (self.top + top) / high, words, va="top", **keywords)


def figure_of(panel):
    """A figure of its own for one panel."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, panel.height))
        draw_panel(panel, Frame(figure))
        return figure


def sheet_of(rows_of_panels, footer):
    """One figure with all panels, a row for each list, and lines of text below them."""
    heights = [max(panel.height for panel in row) for row in rows_of_panels]
    high = sum(heights) + LINE * len(footer) + 0.3
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * max(len(row) for row in rows_of_panels), high))
        top = 0.0
        for row, height in zip(rows_of_panels, heights):
            for column, panel in enumerate(row):
                draw_panel(panel, Frame(figure, column * WIDTH, top))
            top += height
        for number, line in enumerate(footer):
            Frame(figure).text(top + 0.1 + number * LINE, line, fontsize=7.5, family="monospace", parse_math=False)
        return figure


def svg_of(figure):
    """The same bytes each time: no date, ids that depend on what is drawn."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None}, dpi=250)
    return text.getvalue()


def save_png(figure, path):
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=150, metadata={"Software": None})


def draw_panel(panel, frame):
    frame.text(0.1, panel.title, fontsize=9.5, weight="bold", parse_math=False)
    frame.text(0.3, panel.conditions, fontsize=7.5, parse_math=False)
    panel.draw(frame)


def with_thousands(number):
    return f"{number:,.0f}" if abs(number) >= 10 or number == int(number) else f"{number:.3g}"


def count(number, thing):
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def short(number):
    """1,500,000 as 1.5M, for ticks."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def ticks_of_decades(low, high):
    """1, 2 and 5 of each decade, or 1 alone where there are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if high < 100 * low else (1,)
    return [digit * 10.0 ** decade for decade in decades for digit in digits if low <= digit * 10.0 ** decade <= high]


def set_log(axis, values):
    """A logarithmic y axis around the values, with ticks that can be read."""
    low, high = min(values) / 1.6, max(values) * 1.6
    axis.set_yscale("log")
    axis.set_ylim(low, high)
    axis.yaxis.set_ticks(ticks_of_decades(low, high))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def set_devices(axis, devices, label=True):
    """A binary logarithmic x axis with a tick at each number of devices."""
    devices = sorted(set(devices))
    axis.set_xscale("log", base=2)
    axis.set_xlim(devices[0] / 1.25, devices[-1] * 1.25)
    axis.xaxis.set_ticks(devices)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: with_thousands(value)) if label else NullFormatter())
    axis.grid(True)
    axis.set_axisbelow(True)
    if label:
        axis.set_xlabel("devices N")
        axis.tick_params(axis="x", labelrotation=90 if len(devices) > 8 else 0)


def looks_of(rows):
    """Colour and marker of each system, LPUs first."""
    out = {}
    for is_gpu, looks in ((False, LPU_LOOKS), (True, GPU_LOOKS)):
        names = rows.loc[rows["tier"].notna() == is_gpu, "system"].unique()
        out.update({name: looks[number % len(looks)] for number, name in enumerate(names)})
    return out


def is_filled(row):
    """Compiled and verified, and not below N0."""
    return pandas.notna(row["filled"]) and bool(row["filled"]) and pandas.notna(row["n0"]) and row["devices"] >= row["n0"]


def plot_curve(axis, rows, column, look, style="-", width=1.6, size=5.5):
    """A line, and at each point a marker: filled or hollow."""
    rows = rows[rows[column].notna()]
    colour, marker = look
    axis.plot(rows["devices"].astype(float), rows[column].astype(float), style, color=colour, linewidth=width)
    for _, row in rows.iterrows():
        axis.plot([row["devices"]], [row[column]], marker, color=colour, markersize=size, markeredgewidth=1.2,
                  markerfacecolor=colour if is_filled(row) else PAPER, clip_on=False, zorder=3)


def verdict_words(verdict):
    """What the program says about a curve, as words for a legend."""
    words = f"{verdict['system']}, {curve_words(verdict['curve'])}: "
    if verdict["verdict"] is not None:
        words += {"near-linear": "near-linear: yes", "no": "near-linear: no"}.get(verdict["verdict"], verdict["verdict"])
        words += f", N0 = {verdict['n0']:,}" if verdict["n0"] is not None else ""
    elif verdict["speedup"] is not None:
        words += f"S({verdict['speedup_at_devices']:,}) = {verdict['speedup']:.2f} against N0 = {verdict['n0']:,}"
    else:
        words += "fits at no N"
    return words + (" (model)" if verdict["basis"] == "model" else "")


def curve_words(curve):
    return f"X at micro-batch {curve[3:]}" if curve.startswith("X_b") else curve


def legend(frame, top, handles):
    axis = frame.axes(top, LINE * len(handles), left=0.1)
    axis.set_axis_off()
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, 1), borderaxespad=0, handlelength=3.2, labelspacing=0.25)


def key_of_markers():
    """Two legend lines that say what is filled."""
    return [Line2D([], [], linestyle="", marker="o", color=INK, markersize=5, label="filled: compiled and verified"),
            Line2D([], [], linestyle="", marker="o", color=INK, markersize=5, markerfacecolor=PAPER,
                   label="hollow: cost model, a GPU's closed form, or below N0")]


def curve_style(curve):
    if curve == "X_rep":
        return {"style": "--", "width": 1.3, "size": 4}
    if curve.startswith("X_b"):
        return {"style": ":", "width": 1.3, "size": 3.5}
    return {"style": "-", "width": 1.9, "size": 6}


def capacity_panel(group, rows, verdicts, slo):
    """X(N) with the ideal line, E_total below it, and the verdicts."""
    rows = rows[rows["curve"].str.startswith("X") & (rows["slo_tpot_ms"] == slo)]
    drawn = rows[rows["tokens_per_second"].notna()]
    if drawn.empty:
        return None
    verdicts = [one for one in verdicts if one["curve"].startswith("X") and one["slo_tpot_ms"] == slo]
    looks = looks_of(rows)

    def draw(frame):
        upper, lower = frame.axes(TOP, 2.3), frame.axes(TOP + 2.45, 0.95)
        for (system, curve), points in drawn.groupby(["system", "curve"], sort=False):
            plot_curve(upper, points, "tokens_per_second", looks[system], **curve_style(curve))
            plot_curve(lower, points, "efficiency_total", looks[system], **curve_style(curve))
            start = points[points["devices"] == points["n0"]]
            if curve == "X" and not start.empty:
                first, last = float(start["devices"].iloc[0]), float(points["devices"].max())
                rate = float(start["tokens_per_second"].iloc[0])
                upper.plot([first, last], [rate, rate * last / first], "-.", color=INK, linewidth=0.9, zorder=1)
        set_devices(upper, rows["devices"], label=False)
        set_devices(lower, rows["devices"])
        set_log(upper, drawn["tokens_per_second"])
        upper.set_ylabel("X: tokens/s in total")
        lower.axhline(1, color=INK, linewidth=0.9, linestyle="-.", zorder=1)
        lower.axhline(0.9, color=INK, linewidth=0.7, linestyle=":", zorder=1)
        lower.set_ylim(0, max(1.2, 1.1 * drawn["efficiency_total"].max(skipna=True)))
        lower.set_ylabel("$E_{total}$ (ratio)")
        handles = []
        for one in verdicts:
            (colour, marker), style = looks[one["system"]], curve_style(one["curve"])
            exists = not drawn[(drawn["system"] == one["system"]) & (drawn["curve"] == one["curve"])].empty
            handles.append(Line2D([], [], color=colour, linestyle=style["style"] if exists else "", linewidth=style["width"],
                                  marker=marker if exists else "", markersize=style["size"], label=verdict_words(one),
                                  markerfacecolor=PAPER if one["basis"] == "model" else colour))
        handles.append(Line2D([], [], color=INK, linestyle="-.", linewidth=0.9, label="ideal: X(N0) ÷ N0 × N; E = 1"))
        handles.append(Line2D([], [], color=INK, linestyle=":", linewidth=0.7, label="E = 0.90, the least of near-linear"))
        legend(frame, TOP + 3.85, handles + key_of_markers())

    height = TOP + 4.0 + LINE * (len(verdicts) + 4)
    return Panel(f"{group.key}-x", f"X(N): capacity at TPOT ≤ {slo:g} ms", group.conditions, f"Every user's time per "
                 f"output token is at most {slo:g} ms. X: one instance over N devices, its best micro-batch; X_rep: the best number of "
                 "replicas.", rows, height, draw)


def latency_panel(group, rows, verdicts):
    """S(N): one user, and what tensor parallelism alone gives a GPU cluster, beyond a node too."""
    rows = rows[rows["curve"].isin(["S", "S_tp"])].copy()
    drawn = rows[rows["tokens_per_second_per_user"].notna()]
    if drawn.empty:
        return None
    first = drawn[drawn["devices"] == drawn["n0"]].set_index(["system", "curve"])["tokens_per_second_per_user"]
    keys = list(zip(rows["system"], rows["curve"]))
    rows["speedup"] = [rate / first.get(key, float("nan")) for rate, key in zip(rows["tokens_per_second_per_user"], keys)]
    verdicts = [one for one in verdicts if one["curve"] in ("S", "S_tp")]
    looks = looks_of(rows)

    def draw(frame):
        upper, lower = frame.axes(TOP, 2.3), frame.axes(TOP + 2.45, 0.95)
        for (system, curve), points in rows.groupby(["system", "curve"], sort=False):
            style = "-" if curve == "S" else ":"
            plot_curve(upper, points, "tokens_per_second_per_user", looks[system], style)
            plot_curve(lower, points, "speedup", looks[system], style)
        set_devices(upper, rows["devices"], label=False)
        set_devices(lower, rows["devices"])
        set_log(upper, drawn["tokens_per_second_per_user"])
        upper.set_ylabel("tokens/s of one user")
        lower.axhline(1, color=INK, linewidth=0.9, linestyle="-.", zorder=1)
        lower.set_ylim(0, max(1.2, 1.1 * rows["speedup"].max()))
        lower.set_ylabel("S (ratio)")
        handles = [Line2D([], [], color=looks[one["system"]][0], marker=looks[one["system"]][1], linewidth=1.6,
                          linestyle="-" if one["curve"] == "S" else ":",
                          markerfacecolor=PAPER if one["basis"] == "model" else looks[one["system"]][0],
                          label=verdict_words(one)) for one in verdicts]
        legend(frame, TOP + 3.85 + room, handles + key_of_markers())

    room = 0.3 if rows["devices"].nunique() > 8 else 0  # for upright labels

    return Panel(f"{group.key}-s", "S(N): one user", group.conditions,
                 "S(N) = TPOT(N0) ÷ TPOT(N); never claimed to be linear. S_tp: by tensor parallelism alone, beyond a node too.",
                 rows, TOP + 4.0 + room + LINE * (len(verdicts) + 2), draw)


def frontier_panel(group, rows):
    """Tokens/s of a user against tokens/s in total, at the largest N, over the SLOs; both machines with their best replicas."""
    largest = rows["devices"].max()
    rows = rows[(rows["devices"] == largest) & rows["curve"].isin(["S", "X_rep"]) & rows["tokens_per_second"].notna()]
    if rows[rows["curve"] == "X_rep"].empty:
        return None
    rows = rows.sort_values(["system", "tokens_per_second_per_user"])
    looks = looks_of(rows)

    def draw(frame):
        axis = frame.axes(TOP, 3.4)
        for system, points in rows.groupby("system", sort=False):
            colour, marker = looks[system]
            axis.plot(points["tokens_per_second_per_user"], points["tokens_per_second"], "-", color=colour, linewidth=1.3)
            for (per_user, total), same in points.groupby(["tokens_per_second_per_user", "tokens_per_second"]):
                axis.plot([per_user], [total], marker, color=colour, markersize=5.5, markeredgewidth=1.2,
                          markerfacecolor=colour if is_filled(same.iloc[0]) else PAPER, zorder=3)
                slos = sorted(same["slo_tpot_ms"].dropna())
                words = "one user" if not slos else "≤ " + ", ".join(f"{slo:g}" for slo in slos) + " ms"
                axis.annotate(words, (per_user, total), xytext=(6, 4), textcoords="offset points", fontsize=7)
        axis.set_xscale("log")
        low, high = rows["tokens_per_second_per_user"].min() / 1.5, rows["tokens_per_second_per_user"].max() * 2.5
        axis.set_xlim(low, high)
        axis.xaxis.set_ticks(ticks_of_decades(low, high))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        set_log(axis, rows["tokens_per_second"])
        axis.grid(True)
        axis.set_axisbelow(True)
        axis.set_xlabel("tokens/s of a user")
        axis.set_ylabel("tokens/s in total")
        models = set(rows.loc[rows["tier"].notna(), "system"])
        handles = [Line2D([], [], color=colour, marker=marker, linewidth=1.3, markerfacecolor=PAPER if system in models else colour,
                          label=f"{system}, best replicas (X_rep)" + (" (model)" if system in models else ""))
                   for system, (colour, marker) in looks.items()]
        legend(frame, TOP + 3.85, handles + key_of_markers())

    return Panel(f"{group.key}-frontier", f"SLO frontier at N = {largest:,}", group.conditions,
                 "A point for each TPOT that users accept, and one for a user alone.", rows, TOP + 4.0 + LINE * (len(looks) + 2), draw)


def waterfall_panel(group, waterfalls, looks):
    """Where a token's microseconds go: a cascade for each machine, on one scale."""
    data = pandas.DataFrame([{"model": one["model"], "system": one["system"], "devices": one["devices"], "tp": one["tp"],
                              "pp": one["pp"], "part": part, "us": value, "total_us": one["total_us"]}
                             for one in waterfalls for part, value in one["parts_us"].items()])
    if data.empty:
        return None
    bar = 0.185
    shown = [(one, [(part, value) for part, value in one["parts_us"].items() if value > 0]) for one in waterfalls]

    def draw(frame):
        top = TOP + 0.15
        right = 1.22 * max(one["total_us"] for one in waterfalls)
        for number, (one, parts) in enumerate(shown):
            height = bar * (len(parts) + 1)
            axis = frame.axes(top, height, left=1.2)
            colour, _ = looks.get(one["system"], (INK, ""))
            start = 0.0
            for at, (part, value) in enumerate([*parts, ("total", one["total_us"])]):
                is_total = part == "total"
                axis.barh(at, value, 0.72, 0 if is_total else start, color="none" if is_total else colour, edgecolor=colour,
                          linewidth=0.8, hatch="////" if is_total else "")
                end = value if is_total else start + value
                axis.text(end + right * 0.01, at, with_thousands(value) if value >= 10 else f"{value:.1f}", va="center",
                          fontsize=7, weight="bold" if is_total else "normal")
                start = end
            axis.set_yticks(range(len(parts) + 1), [part.replace("_", " ") for part, _ in parts] + ["total"])
            axis.set_ylim(len(parts) + 0.6, -0.6)
            axis.set_xlim(0, right)
            axis.xaxis.grid(True)
            axis.set_axisbelow(True)
            axis.set_title(f"{one['system']}, {count(one['devices'], 'device')}, TP {one['tp']} × PP {one['pp']}")
            if number == len(shown) - 1:
                axis.set_xlabel("us of a token")
                axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: with_thousands(value)))
            else:
                axis.xaxis.set_major_formatter(NullFormatter())
            top += height + 0.42

    height = TOP + 0.15 + sum(bar * (len(parts) + 1) + 0.42 for _, parts in shown) + 0.15
    return Panel(f"{group.key}-waterfall", "Where a token's microseconds go", f"{group.conditions}, one user",
                 "The parts sum to the total; those of 0 us are not drawn.", data, height, draw)


def published_panel(key, published):
    """Published ranges against what the program predicts, unfitted."""
    data = pandas.DataFrame(published)
    if data.empty:
        return None
    colour, _ = LPU_LOOKS[0]
    other, _ = GPU_LOOKS[0]

    def draw(frame):
        axis = frame.axes(TOP + 0.12, 0.42 * len(published) + 0.15, left=1.75)
        right = 1.2 * max(max(row["published_most"], row["predicted"]) for row in published)
        for at, row in enumerate(published):
            axis.plot([row["published_least"], row["published_most"]], [at, at], "-", color=other, linewidth=5,
                      solid_capstyle="butt")
            axis.plot([row["predicted"]], [at], "D", color=colour, markersize=6)
            axis.text(right, at - 0.36, f"{row['published_over_predicted_least']:.2f} to "
                      f"{row['published_over_predicted_most']:.2f}", ha="right", va="center", fontsize=7)
        names = [f"{row['row']} {row['model']}\n{row['compute']}" + (f", {row['experts']} experts" if row["experts"] else "")
                 + f", {row['chips_predicted']:,} chips" for row in published]
        axis.set_yticks(range(len(published)), names)
        axis.set_ylim(len(published) - 0.4, -0.6)
        axis.set_xlim(0, right)
        axis.xaxis.grid(True)
        axis.set_axisbelow(True)
        axis.set_xlabel("tokens/s of one user")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: with_thousands(value)))
        axis.set_title("at the right: published ÷ predicted", fontsize=7.5, loc="right")
        legend(frame, TOP + 0.12 + 0.42 * len(published) + 0.65,
               [Line2D([], [], color=other, linewidth=5, solid_capstyle="butt", label="published, least to most"),
                Line2D([], [], color=colour, linestyle="", marker="D", label="predicted")])

    return Panel(f"{key}-published", "Published against predicted", "one user; nothing is fitted",
                 "The sources of the published figures stand in the CSV.", data,
                 TOP + 0.12 + 0.42 * len(published) + 0.65 + LINE * 2 + 0.25, draw)


def chips_panel(key, title, caption, run, names, shares):
    """A map of busy shares: a column for each chip, a row for each name."""
    data = pandas.DataFrame([{"chip": chip["chip"], **dict(zip(names, values))} for chip, values in zip(run["per_chip"], shares)])
    most = data[names].max().idxmax()
    chip = data.loc[data[most].idxmax(), "chip"]

    def draw(frame):
        axis = frame.axes(TOP, 0.2 * len(names))
        # Cividis: one lightness ramp, the same for all eyes and on grey paper.
        image = axis.imshow(data[names].T.astype(float), aspect="auto", cmap="cividis", vmin=0, interpolation="nearest",
                            extent=(-0.5, len(data) - 0.5, len(names) - 0.5, -0.5))
        axis.set_yticks(range(len(names)), names)
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axis.set_xlabel("chip")
        scale = axis.figure.colorbar(image, cax=frame.axes(TOP + 0.2 * len(names) + 0.5, 0.1), orientation="horizontal")
        scale.solids.set_rasterized(True)
        scale.ax.xaxis.set_major_formatter(PercentFormatter(1))
        scale.set_label("busy, share of the run's cycles")

    return Panel(key, title, f"{run_words(run)}; most: {most} of chip {chip}, {100 * data[most].max():.2f} %", caption, data,
                 TOP + 0.2 * len(names) + 1.15, draw)


def run_words(run):
    return f"{run['model']}, {count(run['chips'], 'chip')}, TP {run['tp']} × PP {run['pp']}, {count(run['users'], 'user')}"


def nodes_panel(run, key):
    """Load of the wires between nodes: a row for the node that sends, a column for the one that receives."""
    if "chips_per_node" not in run or "links_to" not in run["per_chip"][0]:
        return None
    per_node = run["chips_per_node"]
    links = pandas.DataFrame([{"from_node": chip["chip"] // per_node, "to_node": peer // per_node, "busy": busy}
                              for chip in run["per_chip"] for peer, busy in zip(chip["links_to"], chip["links_busy"]) if peer >= 0])
    data = links.groupby(["from_node", "to_node"])["busy"].agg(links="count", busy_mean="mean", busy_max="max").reset_index()
    data.insert(2, "wires", ["local" if own else "global" for own in data["from_node"] == data["to_node"]])
    data[["busy_mean", "busy_max"]] = data[["busy_mean", "busy_max"]].round(6)
    nodes = sorted({*data["from_node"], *data["to_node"]})
    if len(nodes) < 2:
        return None
    across = data[data["wires"] == "global"]
    top = across.loc[across["busy_max"].idxmax()]

    def draw(frame):
        side = WIDTH - LEFT - RIGHT
        axis = frame.axes(TOP, side)
        square = data.pivot(index="from_node", columns="to_node", values="busy_max").reindex(index=nodes, columns=nodes)
        # Where no wire leads the paper shows.
        image = axis.imshow(square.astype(float), cmap="cividis", vmin=0, interpolation="nearest", aspect="auto",
                            extent=(-0.5, len(nodes) - 0.5, len(nodes) - 0.5, -0.5))
        for axle in (axis.xaxis, axis.yaxis):
            axle.set_major_locator(MaxNLocator(8, integer=True))
            axle.set_major_formatter(FuncFormatter(lambda at, _: str(nodes[int(at)]) if 0 <= at < len(nodes) else ""))
        axis.set_xlabel("receiving node")
        axis.set_ylabel("sending node")
        scale = axis.figure.colorbar(image, cax=frame.axes(TOP + side + 0.5, 0.1), orientation="horizontal")
        scale.solids.set_rasterized(True)
        scale.ax.xaxis.set_major_formatter(PercentFormatter(1))
        scale.set_label("busiest link, share of the run's cycles")

    return Panel(f"{key}-nodes", "Load of the links, node to node",
                 f"{run_words(run)}; busiest cable: {100 * top['busy_max']:.2f} %, {top['from_node']} to {top['to_node']}",
                 "On the diagonal the local links of a node, elsewhere its cables to others; empty where none leads.", data,
                 TOP + WIDTH - LEFT - RIGHT + 1.15, draw)


SRAM_LOOKS = (("weights", "#0072b2", ""), ("kv", "#e69f00", "////"), ("activations", "#009e73", ""), ("program", "#cc79a7", ""))


def sram_panel(plan, key):
    """What fills the SRAM of a chip, stage by stage; which chips work at a stage is the placement's choice, and not in a plan."""
    if not plan.get("sram_bytes_per_chip_of_stage"):
        return None
    data = pandas.DataFrame([{"stage": stage, **use, "sram_bytes": plan["sram_bytes"]}
                             for stage, use in enumerate(plan["sram_bytes_per_chip_of_stage"])])
    used = data[[part for part, _, _ in SRAM_LOOKS]].sum(axis=1)
    fullest = used.idxmax()

    def draw(frame):
        axis = frame.axes(TOP, 2.2)
        base = 0 * used / 1e6
        edges = [stage - 0.5 for stage in range(len(data) + 1)]
        for part, colour, hatch in SRAM_LOOKS:
            top = base + data[part] / 1e6
            axis.fill_between(edges, [*base, base.iloc[-1]], [*top, top.iloc[-1]], step="post", facecolor=colour, edgecolor=INK,
                              linewidth=0.3, hatch=hatch)
            base = top
        axis.axhline(plan["sram_bytes"] / 1e6, color=INK, linewidth=0.9, linestyle="-.")
        axis.set_xlim(edges[0], edges[-1])
        axis.set_ylim(0, 1.12 * plan["sram_bytes"] / 1e6)
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axis.yaxis.grid(True)
        axis.set_axisbelow(True)
        axis.set_xlabel("stage")
        axis.set_ylabel("MB of SRAM")
        legend(frame, TOP + 2.7, [Line2D([], [], color=INK, linestyle="-.", linewidth=0.9,
                                         label=f"SRAM of a chip: {plan['sram_bytes'] / 1e6:.1f} MB")]
               + [matplotlib.patches.Patch(facecolor=colour, edgecolor=INK, linewidth=0.3, hatch=hatch,
                                           label=f"{'KV' if part == 'kv' else part}: {data[part].min() / 1e6:.2f} to "
                                           f"{data[part].max() / 1e6:.2f} MB") for part, colour, hatch in SRAM_LOOKS])

    return Panel(f"{key}-sram", "SRAM of a chip, stage by stage",
                 f"{plan['model']}, {count(plan['chips'], 'chip')}, TP {plan['tp']} × PP {plan['pp']}; fullest: stage "
                 f"{data.loc[fullest, 'stage']}, {100 * used[fullest] / plan['sram_bytes']:.1f} %",
                 "What a chip of the stage holds: weights, KV of all users, activations and the program's text, as the schedule lays "
                 "them out.", data,
                 TOP + 2.7 + LINE * 6, draw)


def run_panels(run, key):
    """Where an execution's chips and links were busy."""
    chips = run.get("per_chip", [])
    if not chips:
        return []
    nodes = nodes_panel(run, key)
    units, links = list(chips[0]["occupancy"]), [f"link {number}" for number in range(len(chips[0]["links_busy"]))]
    return [chips_panel(f"{key}-occupancy", "Units, chip by chip", "Measured by the execution.", run, units,
                        [[chip["occupancy"][unit] for unit in units] for chip in chips]),
            chips_panel(f"{key}-links", "Load of the links, chip by chip", "Sending ends; links 0 to 6 stay in the node, the rest leave "
                        "it.", run, links, [chip["links_busy"] for chip in chips]), *([nodes] if nodes else [])]


MOST_LANES = 40


def lanes_of(bursts):
    """A lane's name for each burst, in as much detail as fits: chip and unit, node and unit, or node."""
    by_node = "node " + bursts["node"].astype(str)
    for lanes in ("chip " + bursts["chip"].astype(str) + " " + bursts["unit"], by_node + " " + bursts["unit"]):
        if lanes.nunique() <= MOST_LANES:
            return lanes
    return by_node


def busy_times(bursts):
    """Bursts of one lane and iteration that touch or overlap become one."""
    bursts = bursts.sort_values(["lane", "iteration", "start"], kind="stable")
    ends = bursts.groupby(["lane", "iteration"], sort=False)["end"].cummax()
    before = ends.groupby([bursts["lane"], bursts["iteration"]], sort=False).shift(fill_value=-1)
    block = (bursts["start"] > before).cumsum()
    return bursts.groupby(block).agg(lane=("lane", "first"), node=("node", "first"), iteration=("iteration", "first"),
                                     start_cycle=("start", "first"), end_cycle=("end", "max"))


def gantt_panel(trace, key):
    """The pipeline: when each unit works, iteration by iteration, on the cluster's common clock."""
    names = {(event["pid"], event["tid"]): event["args"]["name"] for event in trace["traceEvents"]
             if event["ph"] == "M" and event["name"] == "thread_name"}
    bursts = pandas.DataFrame([{"node": event["pid"], "chip": event["args"]["chip"], "unit": names[event["pid"], event["tid"]].split()[2],
                                "iteration": event["args"]["iteration"], "start": event["args"]["cycle"],
                                "end": event["args"]["cycle"] + event["args"]["cycles"]}
                               for event in trace["traceEvents"] if event["ph"] == "X"])
    if bursts.empty:
        return None
    data = busy_times(bursts.assign(lane=lanes_of(bursts)))
    data["lane"] = pandas.Categorical(data["lane"], sorted(data["lane"].unique(), key=natural), ordered=True)
    data = data.sort_values(["lane", "start_cycle"], kind="stable").drop(columns="node")
    lanes = list(data["lane"].cat.categories)
    other = trace["otherData"]

    def draw(frame):
        axis = frame.axes(TOP, 0.13 * len(lanes) + 0.1, left=1.1)
        for (lane, iteration), busy in data.groupby(["lane", "iteration"], observed=True):
            colour, _ = LPU_LOOKS[iteration % len(LPU_LOOKS)]
            spans = list(zip(busy["start_cycle"], busy["end_cycle"] - busy["start_cycle"]))
            axis.broken_barh(spans, (lanes.index(lane) - 0.36, 0.72), facecolor=colour, rasterized=True)
        axis.set_yticks(range(len(lanes)), lanes, fontsize=6.5)
        axis.set_ylim(len(lanes) - 0.4, -0.6)
        axis.set_xlim(data["start_cycle"].min(), data["end_cycle"].max())
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: with_thousands(value)))
        axis.set_xlabel(f"cycles of the common clock, {other['clock_hz'] / 1e6:g} MHz")
        iterations = sorted(data["iteration"].unique())
        legend(frame, TOP + 0.13 * len(lanes) + 0.65,
               [Line2D([], [], color=LPU_LOOKS[number][0], linewidth=5, label=("iteration " if len(same) == 1 else "iterations ")
                       + ", ".join(map(str, same[:6])) + (", …" if len(same) > 6 else ""))
                for number, same in enumerate([one for one in iterations if one % len(LPU_LOOKS) == look]
                                              for look in range(len(LPU_LOOKS))) if same])

    conditions = f"{other['model']}, {count(other['bursts'], 'burst')}, cycles {data['start_cycle'].min():,} to {data['end_cycle'].max():,}"
    if other["bursts_left_out"]:
        conditions += f"; {other['bursts_left_out']:,} more are not in the trace"
    return Panel(f"{key}-gantt", "The pipeline", conditions, "Bursts of a lane that touch are one bar.", data,
                 TOP + 0.13 * len(lanes) + 0.75 + LINE * min(len(LPU_LOOKS), data["iteration"].nunique()), draw)


def natural(name):
    """chip 2 before chip 10."""
    return [int(word) if word.isdigit() else word for word in name.split()]


@dataclasses.dataclass
class Group:
    """What one model's panels share."""
    key: str
    model: str
    conditions: str


def panels_of(results, key, slo=None):
    """Rows of panels: one a model, one of published figures, one of an execution.

    slo: TPOT in ms at which X is drawn; none: 5 where the results have it, else the least that they have.
    """
    rows = lpu_results.rows_of(results) if "rows" in results else pandas.DataFrame()
    out = []
    for number, (names, own) in enumerate(rows.groupby(["model", "compute", "kv", "context"], sort=False) if len(rows) else []):
        model, compute, kv, context = names
        group = Group(f"{key}-{number + 1}", model, f"{model}, {compute}, KV {kv}, context {context:,}")
        verdicts = [one for one in results["verdicts"] if (one["model"], one["compute"]) == (model, compute)]
        slos = sorted(own["slo_tpot_ms"].dropna().unique())
        chosen = next((value for value in (slo, 5, *slos) if value in slos), None)
        panels = [capacity_panel(group, own, verdicts, chosen), latency_panel(group, own, verdicts),
                  waterfall_panel(group, [one for one in results["waterfall"] if one["model"] == model], looks_of(own)),
                  frontier_panel(group, own)]
        out.append((group.conditions, [panel for panel in panels if panel]))
    published = published_panel(key, results.get("validation", []))
    if published:
        out.append(("Published figures", [published]))
    sram = sram_panel(results, key)
    out.append(("Memory", [sram] if sram else []))
    out.append(("Execution", run_panels(results, key)))
    return [(title, panels) for title, panels in out if panels]
