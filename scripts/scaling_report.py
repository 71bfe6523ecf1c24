#!/usr/bin/python3
"""Draws what `lpu_cluster` found: the tour, `compare`, `plan`, `run`.

    scripts/scaling_report.py results.json [more.json ...] [--output-dir DIR]

Writes scaling.png and scaling.svg, all figures on one sheet, and report.html, one page that needs nothing else: the same
figures, light or dark, each with its data as CSV. Exit code 2: a file is missing, damaged, or of another kind.
"""
import argparse
import base64
import html
import pathlib
import re
import sys
import textwrap

try:
    import lpu_figures
    import lpu_results
    from lpu_results import ResultsError
except ModuleNotFoundError as error:
    print(f"scaling_report.py: found no Python module {error.name}; expected Debian's: run scripts/setup.sh", file=sys.stderr)
    sys.exit(4)

# Colours of the figures, and the page's variable for each: a page has a light and a dark face.
VARIABLES = {lpu_figures.INK: "--ink", lpu_figures.FAINT: "--faint", lpu_figures.PAPER: "--paper", "#0072b2": "--blue",
             "#56b4e9": "--sky", "#009e73": "--green", "#d55e00": "--vermillion", "#e69f00": "--orange", "#cc79a7": "--purple"}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>lpu_cluster: scaling report</title>
<link rel="icon" href="data:,">
<style>
:root {{ --ink: #1b1c1f; --faint: #c9ccd2; --paper: #fefefe; --blue: #0072b2; --sky: #56b4e9; --green: #009e73;
  --vermillion: #d55e00; --orange: #e69f00; --purple: #cc79a7; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e4e6ea; --faint: #3d424a; --paper: #15171b; --blue: #4aa8e8;
  --sky: #9fd4f5; --green: #2fc79c; --vermillion: #ff8138; --orange: #f2b63c; --purple: #e3a3c6; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, "DejaVu Sans", sans-serif; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.5rem; border-top: 1px solid var(--faint); padding-top: 1rem; }}
h3 {{ font-size: 1rem; margin: 1.5rem 0 .5rem; }}
h1, h2, h3, .digests {{ overflow-wrap: anywhere; }}
a {{ color: var(--blue); }}
code, pre {{ font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .85rem; overflow-wrap: anywhere;
  white-space: pre-wrap; }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1rem 2rem; }}
figure {{ margin: 0; }} figure svg {{ width: 100%; height: auto; display: block; }}
figcaption, .digests {{ font-size: .85rem; }}
.table {{ overflow-x: auto; }} table {{ border-collapse: collapse; font-size: .85rem; }}
th, td {{ text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--faint); vertical-align: top; }}
</style>
</head>
<body>
<h1>lpu_cluster: scaling report</h1>
{sections}
</body>
</html>
"""


def data_link(text, kind, name, words):
    encoded = base64.b64encode(text.encode("utf-8")).decode("ascii")
    return f'<a download="{html.escape(name)}" href="data:{kind};charset=utf-8;base64,{encoded}">{html.escape(words)}</a>'


def inlined(panel):
    """The panel's SVG as part of a page: its own ids, the page's colours, a title for those who do not see it."""
    text = lpu_figures.svg_of(lpu_figures.figure_of(panel))
    text = text[text.index("<svg"):]
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{panel.key}-", text)
    text = re.sub("#[0-9a-f]{6}", lambda colour: f"var({VARIABLES[colour[0]]})" if colour[0] in VARIABLES else colour[0], text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(panel.title)}" ', 1)


def figure_html(panel):
    link = data_link(panel.data.to_csv(index=False), "text/csv", f"{panel.key}.csv", "data (CSV)")
    return (f'<figure id="{panel.key}">\n{inlined(panel)}\n'
            f"<figcaption>{html.escape(panel.caption)} {link}</figcaption>\n</figure>")


def digests_of(results):
    """(what, digest) of everything that was executed."""
    out = [(f"{row['model']}, {row['curve']}, {row['devices']:,} devices", "fingerprint", row["fingerprint"])
           for row in results.get("rows", []) if row["fingerprint"]]
    named = [("run", results), ("text", results.get("text", {}))]
    named += [(f"{one['model']} in lockstep", one) for one in results.get("lockstep", [])]
    for what, entry in named:
        out += [(what, kind, entry[kind]) for kind in ("schedule_digest", "fingerprint", "result_digest") if entry.get(kind)]
    return list(dict.fromkeys(out))


def footer_of(results, width):
    """Lines: the exact command, the version, what was executed."""
    prints = list(dict.fromkeys(digest for _, kind, digest in digests_of(results) if kind == "fingerprint"))
    executed = ", ".join(prints[:4]) + (f" and {len(prints) - 4} more" if len(prints) > 4 else "")
    return [*textwrap.wrap(results["command"], width, subsequent_indent="    "),
            f"lpu_cluster {results['version']}, fingerprint: {executed or 'none (nothing was executed)'}", ""]


def table_html(summary, heads, rows):
    """A table that can be folded away; nothing where there are no rows."""
    if not rows:
        return ""
    lines = ["<tr>" + "".join(f"<{kind}>{html.escape(str(cell))}</{kind}>" for cell in cells) + "</tr>"
             for kind, cells in [("th", heads), *(("td", row) for row in rows)]]
    return (f'<details open><summary>{html.escape(summary)}</summary><div class="table"><table>\n' + "\n".join(lines)
            + "\n</table></div></details>\n")


def verdicts_html(results):
    rows = []
    for one in results.get("verdicts", []):
        slo = f"{one['slo_tpot_ms']:g}" if one["slo_tpot_ms"] is not None else ""
        system, words = lpu_figures.verdict_words(one).split(": ", 1)
        rows.append((one["model"], system, slo, words))
    return table_html("Verdicts", ("model", "curve", "TPOT ≤ ms", "the program says"), rows)


def speedups_html(results):
    rows = [(one["model"], f"{one['lpu_devices']:,} {one['lpu']}", f"{one['gpu_devices']:,} {one['gpu']}",
             *("n/a" if one[key] is None else f"{one[key]:.1f}"
               for key in ("ideal_over_ideal", "predicted_over_engine", "published_over_measured")))
            for one in results.get("speedups", [])]
    return table_html("One user, LPU over GPU, in three ways",
                      ("model", "LPU", "GPU", "ideal ÷ ideal", "predicted ÷ engine", "published ÷ measured"), rows)


def cost_model_html(results):
    cost = results.get("cost_model", {})
    if cost.get("error_max") is None:
        return ""
    return (f"<p>Cost model: off by at most {100 * cost['error_max']:.1f} % at {cost['compiled_points']:,} compiled points; no "
            f"verdict rests on it. {cost['arrivals_checked']:,} arrivals checked.</p>")


def section_html(path, results, groups):
    head = f"<h2>{html.escape(str(path))}</h2>\n<pre>{html.escape(results['command'])}</pre>\n"
    digests = "".join(f"<br>{html.escape(what)}: {kind} <code>{digest}</code>" for what, kind, digest in digests_of(results))
    head += f"<p class=\"digests\">lpu_cluster {html.escape(results['version'])}, {html.escape(results['schema'])}{digests}<br>"
    if "rows" in results:
        head += data_link(lpu_results.rows_of(results).to_csv(index=False), "text/csv", "scaling.csv", "all rows (CSV)") + " · "
    head += data_link(path.read_text("utf-8"), "application/json", path.name, "results with all inputs (JSON)") + "</p>\n"
    body = "\n".join(f"<h3>{html.escape(title)}</h3>\n<div class=\"figures\">\n" + "\n".join(map(figure_html, panels)) + "\n</div>"
                     for title, panels in groups)
    return head + cost_model_html(results) + verdicts_html(results) + speedups_html(results) + body


def report(paths, traces, folder, slo, each):
    sections, rows, footer = [], [], []
    for number, path in enumerate(paths):
        results = lpu_results.read(path)
        groups = lpu_figures.panels_of(results, f"r{number + 1}", slo)
        slos = sorted({row["slo_tpot_ms"] for row in results.get("rows", []) if row["slo_tpot_ms"] is not None})
        if slo is not None and slo not in slos:
            known = ", ".join(f"{one:g}" for one in slos) or "none"
            raise ResultsError(f"--slo-tpot-ms: found {slo:g}, of which {path} has nothing; expected one of: {known}")
        if not groups:
            raise ResultsError(f"{path}: found nothing to draw; expected a result of demo, compare, plan or run")
        sections.append(section_html(path, results, groups))
        rows += [panels for _, panels in groups]
        footer += footer_of(results, 28 * max(len(panels) for _, panels in groups) + 20)
    for number, path in enumerate(traces):
        panel = lpu_figures.gantt_panel(lpu_results.read_trace(path), f"t{number + 1}")
        if panel is None:
            raise ResultsError(f"{path}: found a trace without bursts; expected other --trace-chips or --trace-cycles of `run`")
        sections.append(f"<h2>{html.escape(str(path))}</h2>\n<div class=\"figures\">\n{figure_html(panel)}\n</div>")
        rows.append([panel])
    sheet = lpu_figures.sheet_of(rows, footer)
    lpu_figures.save_png(sheet, folder / "scaling.png")
    (folder / "scaling.svg").write_text(lpu_figures.svg_of(sheet), encoding="utf-8")
    (folder / "report.html").write_text(PAGE.format(sections="\n".join(sections)), encoding="utf-8")
    written = [folder / name for name in ("scaling.png", "scaling.svg", "report.html")]
    if each:
        for panel in [panel for row in rows for panel in row]:
            figure = lpu_figures.figure_of(panel)
            lpu_figures.save_png(figure, folder / f"{panel.key}.png")
            (folder / f"{panel.key}.svg").write_text(lpu_figures.svg_of(figure), encoding="utf-8")
            written += [folder / f"{panel.key}.png", folder / f"{panel.key}.svg"]
    return written


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=pathlib.Path, help="results.json of lpu_cluster, one or more")
    parser.add_argument("--output-dir", type=pathlib.Path, default=pathlib.Path("."), help="an existing folder; default: .")
    parser.add_argument("--trace", action="append", default=[], type=pathlib.Path, metavar="FILE",
                        help="of `lpu_cluster run --trace FILE`: draws the pipeline; may be repeated")
    parser.add_argument("--slo-tpot-ms", type=float, help="of the X(N) drawn; default: 5, or the least in the results")
    parser.add_argument("--each", action="store_true", help="also write every figure as a PNG and an SVG of its own")
    arguments = parser.parse_args()
    try:
        for path in report(arguments.results, arguments.trace, arguments.output_dir, arguments.slo_tpot_ms, arguments.each):
            print(path)
    except ResultsError as refusal:
        print(f"scaling_report.py: {refusal}", file=sys.stderr)
        sys.exit(2)
    except OSError as failure:
        print(f"scaling_report.py: --output-dir: found {failure.filename}: {failure.strerror}; expected an existing folder that can "
              "be written", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
