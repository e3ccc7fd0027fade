"""Counters, gauges and histograms as plain numbers, one object for each combination of label values.

`prometheus_client` takes a lock for every increment and walks the buckets for every observation, which together cost
more than matching and admitting a request. Everything here is counted from one thread, the event loop's, so a plain
addition is enough.
"""

from __future__ import annotations

import time
from bisect import bisect_left


class Value:
    """A counter, or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add `amount`."""
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        """Subtract `amount`. Gauges only."""
        self.value -= amount

    def set(self, value: float) -> None:
        """Replace the value. Gauges only."""
        self.value = float(value)


Exemplar = tuple[str, float, float]
"""Trace id, observed value, and seconds since the epoch (OpenMetrics 1.0, "Exemplars")."""


class Histogram:
    """A histogram: observations per bucket, their sum, and the last traced observation of each bucket."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}
        """By bucket index; shown only in OpenMetrics."""

    def observe(self, value: float, trace_id: str | None = None) -> None:
        """Count one observation. A value equal to a bound belongs to that bucket."""
        at = bisect_left(self.bounds, value)
        self.counts[at] += 1
        self.sum += value
        if trace_id is not None:
            self.exemplars[at] = (trace_id, value, time.time())
