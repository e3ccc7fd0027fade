"""Shows results: a table in the terminal, a page in Markdown, a picture, and README's ranges over several runs.

python -m benchmarks.page        # writes the pages again from results/latest.json and results/runs.json
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.table import Table

from benchmarks import peers, scenarios
from benchmarks.report import DIRECT, GOALS, MINE, Report, Result, added, kept, named, ratio, ratio_spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenarios import Scenario

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCUMENT = HERE.parent / "docs" / "performance.md"
README = HERE.parent / "README.md"
MARKED = re.compile(r"(<!-- bench: begin[^>]*-->\n).*(<!-- bench: end -->)", re.DOTALL)
BUSY = 0.9
QUOTED = (
    ("small", "envoy", "small request"),
    ("small", "plain", "small request"),
    ("small", "nginx", "small request"),
    ("small", "lua", "small request"),
    ("small", "haproxy", "small request"),
    ("post", "envoy", "POST of 20 KB"),
    ("download", "envoy", "download of 1 MiB"),
    ("upload", "envoy", "upload of 5 MiB"),
)
"""Scenario, peer, and how README calls the load."""
FIGURES = {
    "cpu_us": "CPU per request",
    "per_second": "requests/s",
    "p99_added_ms": "p99 added over direct",
    "rss_mib": "RSS after load",
    "ready_s": "start to first 200, s",
}
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=True,
)
Cells = tuple[str, ...]


def shown(value: float | None, form: str) -> str:
    """Return a figure as text; empty for None."""
    return "" if value is None else format(value, form)


def rate(one: Result) -> str:
    """Return requests per second, marked if the subject could have done more."""
    figure = shown(one.median("per_second"), ",.0f")
    return f"≥ {figure}" if (one.median("busy") or 1) < BUSY else figure


def cells_idle(one: Result) -> Cells:
    """Return a row about idle connections."""
    sizes = (one.rss_start_mib, one.rss_mib, one.connection_kib)
    return (one.title, *(shown(size, form) for size, form in zip(sizes, (".0f", ".0f", ".1f"), strict=True)))


def cells(scenario: Scenario, one: Result, results: list[Result]) -> Cells:
    """Return a row about requests. Without a proxy, CPU and memory are empty."""
    itself = one.name in {MINE, DIRECT}
    mine, proxy = None if itself else named(results, MINE), one.name != DIRECT
    last = added(one, results) if scenario.per_second else ratio(mine, one, "per_second")
    return (
        one.title,
        shown(one.median("cpu_us") if proxy else None, ",.0f"),
        shown(one.median("per_second"), ",.0f") if scenario.per_second else rate(one),
        shown(one.median("p50_ms"), ".2f"),
        shown(one.median("p99_ms"), ".2f"),
        shown(one.rss_mib if proxy else None, ".0f"),
        shown(one.ready_s, ".2f"),
        spread_shown(ratio(mine, one, "cpu_us"), ratio_spread(mine, one, "cpu_us")),
        shown(last, ".2f") if scenario.per_second else spread_shown(last, ratio_spread(mine, one, "per_second")),
    )


def spread_shown(value: float | None, spread: float | None) -> str:
    """Return a ratio with the spread of its rounds, as `0.70 ± 4 %` (half of their range)."""
    return shown(value, ".2f") + (f" ± {spread / 2:.0%}" if value is not None and spread is not None else "")


def table(scenario: Scenario, results: list[Result]) -> tuple[Cells, list[Cells]]:
    """Return the headings and rows of a scenario's table."""
    if scenario.idle:
        return ("", "RSS at start, MiB", "after, MiB", "a connection, KiB"), [cells_idle(one) for one in results]
    last = "p99 added, ms" if scenario.per_second else "req/s ratio"
    heads = ("", "CPU, µs", "requests/s", "p50, ms", "p99, ms", "RSS, MiB", "start, s", "CPU ratio", last)
    return heads, [cells(scenario, one, results) for one in results]


def remark(results: list[Result]) -> str:
    """Return the caption of a scenario's table: the spread of its rounds, and its token fetches."""
    mine = named(results, MINE)
    if mine is None or not mine.rounds:
        return ""
    said = f"Rounds of the gateway differ by {mine.spread('cpu_us'):.0%} in CPU."
    return f"{said} Token fetches under load: {mine.token_fetches}; requests that waited for one: 0."


def on_terminal(scenario: Scenario, results: list[Result]) -> Table:
    """Return a scenario's table for the terminal."""
    heads, rows = table(scenario, results)
    drawn = Table(title=scenario.title, caption=remark(results))
    for number, head in enumerate(heads):
        drawn.add_column(head, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    return drawn


def lines_of(heads: Cells, rows: Sequence[Cells]) -> list[str]:
    """Return a table in Markdown, with figures aligned right."""
    rule = ("---", *("--:" for _ in heads[1:]))
    return ["| " + " | ".join(row) + " |" for row in (heads, rule, *rows)]


def goals(report: Report) -> list[Cells]:
    """Return a row for each goal that was measured."""
    rows: list[Cells] = []
    for goal in GOALS:
        if (seen := goal.seen(report.results)) is None:
            continue
        bound = f"≤ {goal.at_most:g}" if goal.at_most is not None else f"≥ {goal.at_least:g}"
        against = f"÷ {peers.BY_NAME[goal.peer].title}" if goal.peer else ""
        where = scenarios.BY_NAME[goal.scenario].title if goal.scenario else "All scenarios"
        what = f"{where}: {FIGURES[goal.figure]} {against}".strip()
        rows.append((what, bound, f"{seen:.2f}", "yes" if goal.met(seen) else "**no**"))
    return rows


def markdown(report: Report, picture: str, level: str = "##") -> str:
    """Return the report in Markdown, with headings of the given level."""
    about = report.about
    parts = [f"![CPU per request of the gateway and its peers]({picture})", ""]
    for name, results in report.results.items():
        scenario = scenarios.BY_NAME[name]
        parts += [f"{level} {scenario.title}", "", *lines_of(*table(scenario, results)), "", remark(results), ""]
    if found := goals(report):
        parts += [f"{level} Goals", "", *lines_of(("", "goal", "seen", "met"), found), ""]
    left_out = f" Left out, because not installed: {', '.join(about['left_out'])}." if about["left_out"] else ""
    parts.append(
        f"Medians of {about['rounds']} interleaved rounds of {about['seconds']} s, each proxy on one core, load and"
        f" vendor on another; ratios are medians over the rounds, ± half of their range; {about['date']}."
        f" {about['machine']}, load at the end {about['load']};"
        f" {', '.join(about['versions'])}.{left_out}"
    )
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)) + "\n"


def ranges(runs: Sequence[dict[str, Any]]) -> str:
    """Return README's table: the CPU ratio to each quoted peer, from the lowest to the highest run."""
    rows: list[Cells] = []
    for scenario, peer, load in QUOTED:
        seen = [run["cpu"][scenario][peer] for run in runs if peer in run["cpu"].get(scenario, {})]
        if seen:
            low, high = f"{min(seen):.2f}", f"{max(seen):.2f}"
            rows.append((load, peers.BY_NAME[peer].title, low if low == high else f"{low} to {high}"))
    dates = sorted({run["date"] for run in runs})
    table = lines_of(("load", "compared with", "CPU of the gateway ÷ CPU of the peer"), rows)
    several = f"Each range covers the medians of {len(runs)} recorded runs"
    said = f"{several if len(runs) > 1 else 'Medians of one recorded run'} ({' and '.join(dates)})."
    return "\n".join((*table, "", said)) + "\n"


def picture(report: Report) -> str:
    """Return an SVG with bars for CPU per request, one panel for each scenario."""
    panels = []
    for name, results in report.results.items():
        bars = [(one.title, one.median("cpu_us"), one.name == MINE) for one in results if one.name != DIRECT]
        if len(bars) > 1 and all(cpu is not None for _, cpu, _ in bars):
            panels.append((scenarios.BY_NAME[name].title, sorted(bars, key=lambda bar: bar[1] or 0)))
    return TEMPLATES.get_template("bars.svg").render(panels=panels) + "\n"


def remember(report: Report) -> None:
    """Add a whole run to `results/runs.json`, which keeps the newest runs."""
    runs = [*recorded(), report.summary()]
    (RESULTS / "runs.json").write_bytes(orjson.dumps(kept(runs), option=orjson.OPT_INDENT_2) + b"\n")


def recorded() -> list[dict[str, Any]]:
    """Return the summaries of the recorded runs, the oldest first."""
    return list(orjson.loads((RESULTS / "runs.json").read_bytes()))


def replace_marked(page: Path, inner: str) -> None:
    """Replace the text between the markers of a page."""
    text = page.read_text(encoding="utf-8")
    page.write_text(MARKED.sub(lambda found: f"{found[1]}{inner}{found[2]}", text), encoding="utf-8")


def write(report: Report, name: str) -> None:
    """Write the files of a report. The report of a whole run goes into the documentation, too."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_bytes(orjson.dumps(report.stored(), option=orjson.OPT_INDENT_2) + b"\n")
    (RESULTS / f"{name}.svg").write_text(picture(report), encoding="utf-8")
    page = f"# The bench's result\n\nHow to read it: [README](../README.md).\n\n{markdown(report, f'{name}.svg')}"
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")
    if name == "latest":
        replace_marked(DOCUMENT, markdown(report, "../benchmarks/results/latest.svg", "###"))
        replace_marked(README, ranges(recorded()))


if __name__ == "__main__":
    write(Report.read(orjson.loads((RESULTS / "latest.json").read_bytes())), "latest")
