"""Small requests through Gatepass and through a plain aiohttp proxy, in one run on the same core.

    python -m benchmarks.bench [--rounds 5] [--seconds 3] [--connections 64]

Gatepass checks a client's key, counts, and writes its access log; the plain proxy does none of that. Rounds are
interleaved and the medians shown, so that a neighbour on the machine hurts both. CPU per request is user plus system
time of the proxy's process; it is the figure to trust when the machine is shared. Writes `results/latest.md`.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import load
from benchmarks.processes import KEY, Subject, cores, gatepass, plain_proxy, vendor, wait_for

RESULT = Path(__file__).parent / "results" / "latest.md"
PATH = "/bench/v1/checks/7f4c2a?expand=documents"
HEADERS = {
    "User-Agent": "bench/1",
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Accept-Language": "en",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "X-Gatepass-Key": KEY,
}
"""With `Host` they are seven."""


@dataclass(frozen=True, slots=True)
class Round:
    """One subject under load for some seconds."""

    per_second: float
    cpu_us: float
    """CPU per request, microseconds."""
    busy: float
    """Share of its core that the subject used: below 0.9 the load was the bottleneck, and `per_second` too low."""
    p50: float
    p99: float


def measure(subject: Subject, *, seconds: float, connections: int, core: int) -> Round:
    """Load one subject and read what it cost."""
    before = subject.cpu()
    seen = load.run(subject.url + PATH, HEADERS, seconds=seconds, connections=connections, core=core)
    spent = subject.cpu() - before
    if seen.wrong:
        raise SystemExit(f"{subject.name}: {seen.wrong} of {seen.requests} requests were not answered with 200")
    return Round(seen.requests / seen.seconds, spent / seen.requests * 1e6, spent / seen.seconds, seen.p50, seen.p99)


def median(rounds: list[Round]) -> Round:
    """Return the median of each figure."""
    return Round(*(statistics.median(getattr(one, name) for one in rounds) for name in Round.__slots__))


def compare(options: argparse.Namespace) -> dict[str, Round]:
    """Run the interleaved rounds."""
    own, other = cores()
    with (
        tempfile.TemporaryDirectory() as name,
        vendor(Path(name), other) as upstream,
        gatepass(Path(name), own, upstream) as first,
        plain_proxy(Path(name), own, upstream) as second,
    ):
        subjects = [first, second]
        rounds: dict[str, list[Round]] = {subject.name: [] for subject in subjects}
        for subject in subjects:
            wait_for(subject.url + PATH)
            measure(subject, seconds=1, connections=options.connections, core=other)
        for _ in range(options.rounds):
            for subject in subjects:
                seen = measure(subject, seconds=options.seconds, connections=options.connections, core=other)
                rounds[subject.name].append(seen)
    return {subject: median(seen) for subject, seen in rounds.items()}


def rows(results: dict[str, Round]) -> list[tuple[str, ...]]:
    """Return the table's cells: one row a subject, and the ratios."""
    mine, plain = results.values()
    shown = [
        (
            name,
            f"{one.per_second:,.0f}",
            f"{one.cpu_us:.1f}",
            f"{one.p50 * 1000:.2f}",
            f"{one.p99 * 1000:.2f}",
            f"{one.busy:.0%}",
        )
        for name, one in results.items()
    ]
    rate, cpu = mine.per_second / plain.per_second, plain.cpu_us / mine.cpu_us
    return [*shown, ("gatepass is better by", f"{rate:.1f} ×", f"{cpu:.1f} ×", "", "", "")]


COLUMNS = ("", "requests/s", "CPU per request, µs", "p50, ms", "p99, ms", "core busy")


def markdown(cells: list[tuple[str, ...]], options: argparse.Namespace) -> str:
    """Return the result as a page."""
    parts = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in ("aiohttp", "uvloop"))]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    lines = [
        "# Small requests",
        "",
        f"GET, small JSON answer, seven request headers, {options.connections} connections, load by `{load.name()}`;",
        f"medians of {options.rounds} interleaved rounds of {options.seconds:g} s. Each proxy on one core, load and",
        "upstream on another. Gatepass checks a client's key, counts, and writes its access log; the plain proxy",
        "(`benchmarks/plain_proxy.py`) does none of that.",
        "",
        *("| " + " | ".join(row) + " |" for row in (COLUMNS, ("---",) * len(COLUMNS), *cells)),
        "",
        f"{', '.join(parts)}; {machine}.",
        "Figures of different machines do not compare; the ratios do, roughly. `make bench` measures yours.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description="Small requests, compared.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="length of one round of one subject")
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    cells = rows(compare(options))
    table = Table(*COLUMNS, title="Small requests")
    for row in cells:
        table.add_row(*row)
    Console().print(table)
    RESULT.write_text(markdown(cells, options), encoding="utf-8")


if __name__ == "__main__":
    main()
