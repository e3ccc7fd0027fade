"""Measures what observability costs: CPU per request for metrics, log and trace, and the time to scrape fifty routes.

`python -m benchmarks.observe` prints a table and exits with 1 if a figure exceeds its limit. Requests are added to the
journal as the data plane adds them, and processed in the same batches. The log goes through its real writer to
`/dev/null`, and the CPU of the writer's thread is included.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import time
from itertools import cycle
from random import getrandbits
from typing import TYPE_CHECKING

from gateway.model import Logs, Upstream
from gateway.observe import Journal, Metrics, Tracer, close_logging, configure_logging

if TYPE_CHECKING:
    from collections.abc import Callable

REQUESTS = 5_000
ROUNDS = 25
BATCH = 500
MICRO = 1e6
LIMIT = 8.0
"""Microseconds of CPU that a request may cost altogether, without tracing."""
PAGE_LIMIT = 20.0
"""Milliseconds for a page of fifty routes."""
UPSTREAM = Upstream("https", "api.example", 443)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def cost(call: Callable[[], object], journal: Journal) -> float:
    """Return microseconds of CPU per call, all threads included: the best of a few rounds.

    Lines are flushed after as many as arrive in 50 ms at 10,000 requests a second, as the log's thread does.
    """
    best = float("inf")
    for _ in range(ROUNDS):
        gc.collect()
        started = time.process_time()
        for _ in range(REQUESTS // BATCH):
            for _ in range(BATCH):
                call()
            journal.close()
        best = min(best, (time.process_time() - started) / REQUESTS)
    return best * MICRO


def nothing() -> None:
    """Do nothing: measures the cost of a call itself."""


def figures() -> dict[str, float]:
    """Return microseconds of CPU per request, by part."""
    metrics = Metrics()
    journal = Journal(metrics, later=lambda _seconds, _call: None)
    route, client = metrics.route("idfy"), metrics.client("web", "idfy")
    empty = cost(nothing, journal)

    # Every id is new, as in production. A repeated id would be in the CPU's caches.
    ids = cycle([f"{getrandbits(128):032x}" for _ in range(20_000)])

    def ended(status: int = 200, code: str = "", reason: str = "", traceparent: bytes | None = None) -> None:
        route.in_flight.inc()
        route.in_flight.dec()
        key = (route, client, "GET", None, status, status, code, 1, "3f1c0a2b", "10.0.0.7", reason)
        journal.add((key, next(ids), False, traceparent, 1.0, 1.012, 0.011, 0, 512))

    def traced(tracer: Tracer, parents: list[str]) -> None:
        trace = tracer.begin(parents, time.monotonic())
        lines = [b"GET / HTTP/1.1", b"Host: a", b"Accept: */*", b"X-A: b"]
        trace.upward(lines)
        trace.answered(200, 1, UPSTREAM, None)
        trace.request(
            method="GET", route="idfy", prefix="/idfy", client="web", status=200, code="", request_id="x" * 32
        )

    taken: list[object] = []

    def take(span: object) -> None:
        taken.clear()
        taken.append(span)

    def of(call: Callable[[], object]) -> float:
        return cost(call, journal) - empty

    found = {"metrics": of(ended)}
    with open(os.devnull, "w", encoding="utf-8") as null:  # noqa: PTH123
        configure_logging(Logs(format="json", buffer=64 * 2**20), null)
        found["log line"] = of(ended) - found["metrics"]
        found["the app's trace in it"] = of(lambda: ended(traceparent=TRACEPARENT.encode())) - sum(found.values())
        failed = of(lambda: ended(503, "token_unavailable", "connection refused"))
        found["log line of a failure"] = failed - found["metrics"]
        configure_logging(Logs(format="json", sample=0.01), null)
        found["log line, 1 % sampled"] = of(ended) - found["metrics"]
        close_logging()
    never, always = Tracer(0.0, take), Tracer(1.0, take)
    found["trace, not recorded"] = of(lambda: traced(never, []))
    found["trace, recorded (export not counted)"] = of(lambda: traced(always, [TRACEPARENT]))
    return found


def crowded(routes: int = 50) -> Metrics:
    """Return the metrics of a gateway with many routes that have served requests."""
    metrics = Metrics()
    for number in range(routes):
        route, credential = metrics.route(f"route-{number}"), metrics.credential(f"credential-{number}")
        for method in ("GET", "POST", "PUT"):
            for status, code in ((200, ""), (201, ""), (404, ""), (502, "upstream_reset"), (503, "token_unavailable")):
                route.request(method, status, code, 0.01, 0.01, 10, 10)
        route.connect("ok", 0.01)
        credential.fetched("ok", "refresh_ahead", 0.1)
        credential.expires(4000.0, 3600.0)
    return metrics


async def page() -> tuple[float, float, float, float]:
    """Return milliseconds: a whole page, its longest piece, and a request's wait (p99) without and during scrapes."""
    metrics = crowded()
    pieces: list[float] = []
    wholes: list[float] = []

    async def scrape() -> None:
        whole = 0.0
        parts = metrics.exposition()[0]
        while True:
            started = time.perf_counter()
            if next(parts, None) is None:
                break
            pieces.append(time.perf_counter() - started)
            whole += pieces[-1]
            await asyncio.sleep(0)
        wholes.append(whole)

    async def waits(seconds: float) -> float:
        late, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - due)
        return statistics.quantiles(late, n=100)[98]

    quiet = await waits(2.0)
    watching = asyncio.create_task(waits(2.0))
    while not watching.done():
        await scrape()
        await asyncio.sleep(0.1)  # a hundred times as often as Prometheus scrapes
    busy = await watching
    return min(wholes) * 1000, max(sorted(pieces)[: -len(pieces) // 200]) * 1000, quiet * 1000, busy * 1000


def main() -> int:
    """Print the figures; return 1 if one exceeds its limit."""
    found = figures()
    print("| part of a request | CPU µs |\n|---|---|")
    for name, micro in found.items():
        print(f"| {name} | {micro:.2f} |")
    total = sum(list(found.values())[:3])
    print(f"| **all, tracing off** (limit {LIMIT:g}) | **{total:.2f}** |")
    whole, piece, quiet, busy = asyncio.run(page())
    print(f"\n/metrics with 50 routes: {whole:.1f} ms in all (limit {PAGE_LIMIT:g}), longest piece {piece:.2f} ms;")
    print(f"a waiting request's delay (p99): {quiet:.2f} ms without scrapes, {busy:.2f} ms with ten a second")
    return int(total > LIMIT or whole > PAGE_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
