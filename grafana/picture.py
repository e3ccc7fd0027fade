"""Draws a dashboard as SVG from a Prometheus: the same queries, the same places, none of Grafana.

`python grafana/picture.py URL MINUTES FOLDER` asks the Prometheus at URL for the last MINUTES and writes one picture for
each dashboard. Made for the pictures of the documentation; knows the four kinds of panels that `build.py` makes.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COLUMN, LINE = 50, 26
"""Pixels of one unit of a panel's place."""
POINTS = 120
TINY = 1e-6
COLOURS = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300")
NAMED = {"green": "#56a64b", "yellow": "#e0b400", "red": "#e02f44", "text": "#8e8e8e"}
LEGENDS, LONG, THOUSAND = 7, 34, 1000
TIMES = ((1.0, 0.001, "ms"), (120.0, 1.0, "s"), (7200.0, 60.0, "min"), (math.inf, 3600.0, "h"))
Series = tuple[str, list[tuple[float, float]]]


def ask(url: str, query: str, minutes: float) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    """Return the series of a query over the last minutes."""
    now = time.time()
    step = max(1, round(minutes * 60 / POINTS))
    params = urllib.parse.urlencode({"query": query, "start": now - minutes * 60, "end": now, "step": step})
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{params}", timeout=20) as answer:  # noqa: S310  a given http URL
        found = json.load(answer)["data"]["result"]
    return [(each["metric"], [(float(at), float(value)) for at, value in each["values"]]) for each in found]


def series(url: str, panel: dict[str, Any], minutes: float) -> list[Series]:
    """Return a panel's series with their names."""
    found: list[Series] = []
    for target in panel["targets"]:
        query = re.sub(r"\$[a-z]+", ".*", target["expr"].replace("$__rate_interval", "15s"))
        for labels, points in ask(url, query, minutes):
            name = re.sub(
                r"\{\{(\w+)\}\}", lambda match, labels=labels: labels.get(match[1], ""), target["legendFormat"]
            )
            finite = [(at, value) for at, value in points if math.isfinite(value)]
            if finite:
                found.append((name.strip(), finite))
    return found


def picture(url: str, board: dict[str, Any], minutes: float) -> str:
    """Return one dashboard as SVG."""
    panels = board["panels"]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels) * LINE + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * COLUMN} {height}" font-family="system-ui,sans-serif" font-size="11">',
        f'<rect width="{24 * COLUMN}" height="{height}" fill="#f4f5f5"/>',
        f'<text x="12" y="30" font-size="18" font-weight="600" fill="#24292e">{escape(board["title"])}</text>',
    ]
    for panel in panels:
        place = panel["gridPos"]
        x, y = place["x"] * COLUMN, place["y"] * LINE + 44
        if panel["type"] == "row":
            parts.append(
                f'<text x="{x + 12}" y="{y + 18}" font-size="13" font-weight="600" fill="#24292e">{escape(panel["title"])}</text>'
            )
            continue
        box = _Box(x + 4, y + 4, place["w"] * COLUMN - 8, place["h"] * LINE - 8)
        parts.append(
            f'<g><rect x="{box.x}" y="{box.y}" width="{box.w}" height="{box.h}" rx="3" fill="#fff" stroke="#dcdee1"/>'
        )
        parts.append(
            f'<text x="{box.x + 8}" y="{box.y + 17}" font-weight="600" fill="#24292e">{escape(panel["title"])}</text>'
        )
        parts.append(_DRAW[panel["type"]](box, panel, series(url, panel, minutes)) + "</g>")
    return "\n".join([*parts, "</svg>\n"])


class _Box:
    def __init__(self, x: float, y: float, w: float, h: float) -> None:
        self.x, self.y, self.w, self.h = x, y, w, h


def _lines(box: _Box, panel: dict[str, Any], found: list[Series]) -> str:
    left, top, width, height = box.x + 52, box.y + 28, box.w - 64, box.h - 74
    if panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal":
        found = _stacked(found)
    values = [value for _, points in found for _, value in points] or [0.0]
    low, high = min(0.0, *values), max(values)
    high = high if high - low > TINY else low + 1
    first, last = _span(found)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    out = []
    for at in range(4):
        value, y = low + (high - low) * at / 3, top + height - height * at / 3
        out.append(
            f'<path d="M{left} {y:.1f}h{width}" stroke="#eceef0"/><text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end" fill="#6a737d">{_shown(value, unit)}</text>'
        )
    for number, (_, points) in enumerate(found):
        path = " ".join(
            f"{left + width * (at - first) / (last - first):.1f},{top + height - height * (value - low) / (high - low):.1f}"
            for at, value in points
        )
        out.append(
            f'<polyline points="{path}" fill="none" stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="1.4"/>'
        )
    return "".join(out) + _legend(box, [name for name, _ in found])


def _stacked(found: list[Series]) -> list[Series]:
    below: dict[float, float] = {}
    out = []
    for name, points in found:
        for at, value in points:
            below[at] = below.get(at, 0.0) + value
        out.append((name, [(at, below[at]) for at, _ in points]))
    return out


def _span(found: list[Series]) -> tuple[float, float]:
    instants = [at for _, points in found for at, _ in points] or [0.0]
    return min(instants), max(*instants, min(instants) + 1)


def _legend(box: _Box, names: list[str]) -> str:
    out, x, y = [], box.x + 8, box.y + box.h - 24
    for number, name in enumerate(names[:LEGENDS]):
        text = name if len(name) <= LONG else name[: LONG - 1] + "…"
        if x + len(text) * 6 + 20 > box.x + box.w:
            x, y = box.x + 8, y + 14
            if y > box.y + box.h - 6:
                break
        out.append(
            f'<rect x="{x}" y="{y - 3}" width="10" height="3" fill="{COLOURS[number % len(COLOURS)]}"/><text x="{x + 14}" y="{y + 2}" fill="#444d56">{escape(text)}</text>'
        )
        x += len(text) * 6 + 26
    return "".join(out)


def _states(box: _Box, panel: dict[str, Any], found: list[Series]) -> str:
    options = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    first, last = _span(found)
    left, width = box.x + 90, box.w - 104
    each = min(30.0, (box.h - 60) / max(1, len(found)))
    out = []
    for number, (name, points) in enumerate(found):
        y = box.y + 30 + number * each
        out.append(
            f'<text x="{left - 6}" y="{y + each / 2 + 3:.1f}" text-anchor="end" fill="#444d56">{escape(name)}</text>'
        )
        ends = [at for at, _ in points[1:]] + [last]
        for (at, value), end in zip(points, ends, strict=True):
            colour = NAMED[options[f"{value:g}"]["color"]]
            x, wide = left + width * (at - first) / (last - first), width * (end - at) / (last - first)
            out.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide + 0.5:.1f}" height="{each - 5:.1f}" fill="{colour}"/>'
            )
    x = box.x + 8
    for option in options.values():
        out.append(
            f'<rect x="{x}" y="{box.y + box.h - 17}" width="10" height="8" fill="{NAMED[option["color"]]}"/><text x="{x + 14}" y="{box.y + box.h - 9}" fill="#444d56">{option["text"]}</text>'
        )
        x += len(option["text"]) * 6 + 30
    return "".join(out)


def _numbers(box: _Box, panel: dict[str, Any], found: list[Series]) -> str:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    each = min(44.0, (box.h - 40) / max(1, len(found)))
    out = []
    for number, (name, points) in enumerate(found):
        y = box.y + 34 + number * each
        out.append(
            f'<text x="{box.x + 10}" y="{y + each * 0.62:.1f}" font-size="{each * 0.55:.0f}" font-weight="600" fill="#37872d">{_shown(points[-1][1], unit)}</text>'
        )
        out.append(
            f'<text x="{box.x + box.w - 10}" y="{y + each * 0.6:.1f}" text-anchor="end" fill="#6a737d">{escape(name[:22])}</text>'
        )
    return "".join(out)


def _bars(box: _Box, panel: dict[str, Any], found: list[Series]) -> str:
    unit, red = (
        panel["fieldConfig"]["defaults"]["unit"],
        panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"],
    )
    out = []
    for number, (name, points) in enumerate(found[:5]):
        y, value = box.y + 34 + number * 32, points[-1][1]
        wide = (box.w - 80) * min(1.0, value)
        colour = NAMED["red"] if red is not None and value >= red else NAMED["green"]
        out.append(
            f'<text x="{box.x + 10}" y="{y + 8}" fill="#444d56">{escape(name)}</text><rect x="{box.x + 10}" y="{y + 13}" width="{box.w - 80}" height="10" fill="#eceef0"/>'
        )
        out.append(
            f'<rect x="{box.x + 10}" y="{y + 13}" width="{wide:.1f}" height="10" fill="{colour}"/><text x="{box.x + box.w - 60}" y="{y + 22}" fill="{colour}" font-weight="600">{_shown(value, unit)}</text>'
        )
    return "".join(out)


_DRAW = {"timeseries": _lines, "state-timeline": _states, "stat": _numbers, "bargauge": _bars}


def _shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "Bps":
        return f"{value / 1024:.3g} KiB/s"
    if unit == "s":
        size, name = next(((size, name) for most, size, name in TIMES if abs(value) < most), TIMES[-1][1:])
        return f"{value / size:.3g} {name}"
    return f"{value:,.0f}" if abs(value) >= THOUSAND else f"{value:.3g}"


def draw(url: str, minutes: float, folder: Path) -> list[Path]:
    """Write a picture of each dashboard; return the files."""
    written = []
    for path in sorted((HERE / "dashboards").glob("*.json")):
        target = folder / f"{path.stem}.svg"
        target.write_text(picture(url, json.loads(path.read_text(encoding="utf-8")), minutes), encoding="utf-8")
        written.append(target)
    return written


if __name__ == "__main__":
    for done in draw(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])):
        print(done)  # noqa: T201  a program's answer
