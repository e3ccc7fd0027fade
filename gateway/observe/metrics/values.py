"""Counters, levels and spreads that a request may touch: plain numbers, one for each combination of label values.

`prometheus_client` guards every increment with a lock and every observation with a walk over the buckets, which
together cost more than matching and admitting a request. What the data plane counts is counted from one thread, the
loop's, so that an addition is enough.
"""

from __future__ import annotations

import time
from bisect import bisect_left


class Value:
    """A number that goes up, and, as a gauge, down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add `amount`."""
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        """Take `amount` away; only gauges go down."""
        self.value -= amount

    def set(self, value: float) -> None:
        """Replace the value; only gauges are set."""
        self.value = float(value)


Exemplar = tuple[str, float, float]
"""One observation that a trace explains: the trace's id, the value, and when (OpenMetrics 1.0, "Exemplars")."""


class Histogram:
    """A histogram: how many observations fell into each bucket, their sum, and the last one with a trace in each."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}
        """By the bucket's index; only OpenMetrics shows them."""

    def observe(self, value: float, trace_id: str | None = None) -> None:
        """Count one observation; a bucket's bound belongs to it."""
        at = bisect_left(self.bounds, value)
        self.counts[at] += 1
        self.sum += value
        if trace_id is not None:
            self.exemplars[at] = (trace_id, value, time.time())
