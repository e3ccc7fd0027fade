"""What `benchmarks.planes` and `benchmarks.pushed` share: proxies beside a Gatepass, put under load in turn."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import load, peers
from benchmarks.processes import cores
from benchmarks.scenarios import HEADERS, SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.peers import Place
    from benchmarks.processes import Subject


class Cost(NamedTuple):
    """Medians over the rounds of one proxy."""

    cpu_us: float
    """CPU of the proxy per request, microseconds."""
    gateway_us: float
    """CPU of Gatepass per request, microseconds."""
    per_second: float
    p99_ms: float


@contextlib.contextmanager
def place_from_arguments(module: str, description: str) -> Iterator[tuple[Place, argparse.Namespace]]:
    """Read `--rounds` and `--seconds`; give a place with a vendor, which is removed afterwards."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="length of a round")
    options = parser.parse_args()
    core, other = cores()
    os.sched_setaffinity(0, {other})
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        peers.place(Path(folder), core, other, tls=False, token_life=3600) as here,
    ):
        yield here, options


def compare(
    gateway: Subject, proxies: Sequence[Subject], connections: int, here: Place, options: argparse.Namespace
) -> dict[str, Cost]:
    """Put each proxy under load in turn, for some rounds; return the costs by the proxy's name."""
    rounds: dict[str, list[Cost]] = {proxy.name: [] for proxy in proxies}
    for _ in range(options.rounds):
        for proxy in proxies:
            before, beside = proxy.cpu(), gateway.cpu()
            request = load.Request(proxy.url + SMALL, HEADERS)
            seen = load.saturate(request, seconds=options.seconds, connections=connections, folder=here.folder)
            if seen.wrong:
                raise SystemExit(f"{proxy.name}: {seen.wrong} requests went wrong: {seen.complaint}")
            cpu, asked = (proxy.cpu() - before) / seen.requests, (gateway.cpu() - beside) / seen.requests
            rounds[proxy.name].append(Cost(cpu * 1e6, asked * 1e6, seen.requests / seen.seconds, seen.p99 * 1e3))
    return {name: Cost(*map(statistics.median, zip(*seen, strict=True))) for name, seen in rounds.items()}
