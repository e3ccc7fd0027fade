"""The last 15 minutes of every route, for the status page: requests, failures by hop, latency, a curve.

Samples the existing counters every `STEP` seconds and keeps numbers, no requests. Prometheus is for longer times.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway import errors
from gateway.model.http import SERVER_ERROR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.observe.metrics.registry import Metrics

STEP = 15.0
"""Seconds between two samples."""
STEPS = 60
"""Samples that are kept: 15 minutes."""
HOPS = ("app", "gateway", "token_endpoint", "upstream", "vendor")
"""Who failed: the app (our 4xx, and apps that disconnected), the gateway itself, a token endpoint, the connection to
the vendor, the vendor: its own 5xx, and answers that refuse our token."""


def _hops(tree: type[errors.ExchangeError]) -> dict[str, str]:
    found: dict[str, str] = {tree.code: tree.hop if tree.status >= SERVER_ERROR else "app"}
    for kind in tree.__subclasses__():
        found |= _hops(kind)
    return found


_HOP_OF = _hops(errors.ExchangeError)


def hop_of(status: str, code: str) -> str | None:
    """Return the hop at which a request failed; None for success and for the vendor's own 4xx, refusals included."""
    if code:
        return _HOP_OF.get(code, "gateway")
    return "vendor" if status.startswith("5") else None


@dataclass(slots=True)
class Sample:
    """The counters of one route at one time."""

    requests: float = 0
    errors: dict[str, float] = field(default_factory=lambda: dict.fromkeys(HOPS, 0))
    durations: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteSummary:
    """One route over the last 15 minutes. Durations are in seconds, None without a request."""

    name: str
    total: int
    """Since the start."""
    requests: int
    errors: dict[str, int]
    p50: float | None
    p99: float | None
    curve: tuple[int, ...]
    """Requests in each step, the oldest first; the last step is not complete."""


class History:
    """Samples of all routes. Call `take()` every `STEP` seconds."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._kept: deque[dict[str, Sample]] = deque([{}], maxlen=STEPS)

    def take(self) -> None:
        """Take a sample."""
        self._kept.append(self._now())

    def routes(self, names: Sequence[str]) -> list[RouteSummary]:
        """Return the summaries of these routes, in this order."""
        now = self._now()
        return [self._summary(name, now.get(name) or Sample()) for name in names]

    def _summary(self, name: str, now: Sample) -> RouteSummary:
        kept = [samples.get(name) or Sample() for samples in self._kept]
        first = kept[0]
        if first.requests > now.requests:  # the route was removed and added again, so it counts from zero
            first = Sample()
        counts = [
            max(0, int(later.requests - earlier.requests))
            for earlier, later in zip(kept, [*kept[1:], now], strict=True)
        ]
        before = first.durations or (0,) * len(now.durations)
        spread = [late - early for early, late in zip(before, now.durations, strict=True)]
        bounds = self._metrics.request_duration.family.buckets
        return RouteSummary(
            name=name,
            total=int(now.requests),
            requests=int(now.requests - first.requests),
            errors={hop: int(now.errors[hop] - first.errors[hop]) for hop in HOPS},
            p50=quantile(0.5, spread, bounds),
            p99=quantile(0.99, spread, bounds),
            curve=(0,) * (STEPS - len(counts)) + tuple(counts),
        )

    def _now(self) -> dict[str, Sample]:
        found: dict[str, Sample] = {}
        for name, children in self._metrics.requests.by("route").items():
            sample = found[name] = Sample()
            for labels, child in children:
                sample.requests += child.value
                hop = hop_of(labels["status"], labels["code"])
                if hop is not None:
                    sample.errors[hop] += child.value
        for name, sample in found.items():
            sample.errors["vendor"] += self._metrics.route(name).refusals_passed
        for name, spreads in self._metrics.request_duration.by("route").items():
            found.setdefault(name, Sample()).durations = tuple(spreads[0][1].counts)
        return found


def quantile(share: float, counts: Sequence[int], bounds: Sequence[float]) -> float | None:
    """Return a quantile as Prometheus does: linear inside a bucket, the last bound beyond all buckets."""
    rank, below = share * sum(counts), 0.0
    if not sum(counts):
        return None
    for at, bound in enumerate(bounds):
        if below + counts[at] >= rank and counts[at]:
            start = bounds[at - 1] if at else 0.0
            return start + (bound - start) * (rank - below) / counts[at]
        below += counts[at]
    return bounds[-1]
