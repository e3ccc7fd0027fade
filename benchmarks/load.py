"""Generates load: wrk sends as much as possible, h2load sends a given number of requests, perhaps at a given rate.

wrk cancels running requests when its time is over, so a proxy sees up to one request per connection more than wrk
reports. h2load waits for the answer to each of its requests.
"""

from __future__ import annotations

import re
import statistics
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Load:
    """The result of one run. All times are in seconds."""

    requests: int
    wrong: int
    seconds: float
    p50: float
    p99: float
    cut_off: int = 0
    """The most requests that were sent in addition and cancelled at the end."""
    complaint: str = ""
    """The generator's own error report."""


@dataclass(frozen=True, slots=True)
class Request:
    """The request that is repeated."""

    url: str
    headers: Mapping[str, str]
    method: str = "GET"
    body: Path | None = None
    """The file that holds it."""


def saturate(request: Request, *, seconds: int, connections: int, folder: Path) -> Load:
    """Keep `connections` connections busy with wrk."""
    fields = [part for field in request.headers.items() for part in ("-H", ": ".join(field))]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency", *fields]
    if request.body:
        script = folder / "wrk.lua"
        script.write_text(f'wrk.method = "{request.method}"\nwrk.body = io.open("{request.body}", "rb"):read("*a")\n')
        command += ["-s", str(script)]
    return replace(read_wrk(run(*command, request.url)), cut_off=connections)


def read_wrk(shown: str) -> Load:
    """Read wrk's report. Errors of sockets and statuses other than 2xx and 3xx count as wrong."""
    total = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", shown)
    if total is None:
        raise ValueError(f"not a report of wrk: {shown}")
    lines = re.findall(r"(?:Non-2xx|Socket errors).*", shown)
    wrong = sum(int(number) for line in lines for number in re.findall(r"\b\d+\b", line))
    p50, p99 = (float(value) * UNITS[unit] for value, unit in re.findall(r"(?:50|99)%\s+([\d.]+)(us|ms|s|m)", shown))
    return Load(int(total[1]), wrong, float(total[2]) * UNITS[total[3]], p50, p99, complaint="; ".join(lines))


def exactly(request: Request, number: int, *, connections: int, folder: Path, per_second: int = 0) -> Load:
    """Send exactly `number` requests with h2load; with `per_second`, evenly at that rate."""
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    fields = [part for field in request.headers.items() for part in ("-H", ": ".join(field))]
    body = ["-d", str(request.body)] if request.body else []
    rate = [f"--rps={per_second / connections:g}"] if per_second else []
    command = ["h2load", "--h1", f"-n{number}", f"-c{connections}", *rate, f"--log-file={log}", *fields, *body]
    run(*command, request.url)
    return read_h2load(log.read_text(encoding="ascii"))


def read_h2load(log: str) -> Load:
    """Read h2load's log: a line for each request with its start (µs), status, and time to the last byte (µs)."""
    rows = [tuple(map(int, line.split())) for line in log.splitlines()]
    ends = [start + took for start, _, took in rows]
    cuts = statistics.quantiles((took / 1e6 for _, _, took in rows), n=100)
    wrong = sum(status != 200 for _, status, _ in rows)
    seconds = (max(ends) - min(start for start, _, _ in rows)) / 1e6
    return Load(len(rows), wrong, seconds, cuts[49], cuts[98])


def run(*command: str) -> str:
    """Run a load generator on the core of this process, and return what it prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
