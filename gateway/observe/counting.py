"""Counters, levels and spreads that a request may touch: plain numbers, shown to Prometheus only when it asks.

`prometheus_client` guards every increment with a lock and every observation with a walk over the buckets, which
together cost more than matching and admitting a request. What the data plane counts is counted from one thread, the
loop's, so that an addition is enough; `Cells` hands the sums to a registry like any other collector. What happens a
few times a minute (tokens, reloads) uses the library's own metrics.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, TypeVar

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import CollectorRegistry

    from gateway.observe.families import Family


class Level:
    """A number that goes up, and, as a gauge, down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        """Add `amount`."""
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        """Take `amount` away; only gauges go down."""
        self.value -= amount

    def set(self, value: float) -> None:
        """Replace the value; only gauges are set."""
        self.value = value


class Spread:
    """A histogram: how many observations fell into each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation; a bucket's bound belongs to it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


Cell = TypeVar("Cell", Level, Spread)


class Cells(Collector, Generic[Cell]):
    """All cells of one family, by label values."""

    def __init__(self, family: Family, registry: CollectorRegistry) -> None:
        self._family = family
        self._type = family.kind
        self._cells: dict[tuple[str, ...], Cell] = {}
        registry.register(self)

    def _get(self, labels: tuple[str, ...], new: Cell) -> Cell:
        return self._cells.setdefault(labels, new)

    def describe(self) -> Iterable[Metric]:
        """Name the family, so that the registry refuses a second one."""
        yield self._metric()

    def collect(self) -> Iterable[Metric]:
        """Return the family with all its samples as they are now."""
        metric = self._metric()
        for labels, cell in list(self._cells.items()):
            for suffix, extra, value in self._samples(cell):
                named = dict(zip(self._family.labels, labels, strict=True)) | extra
                metric.add_sample(metric.name + suffix, named, value)
        yield metric

    def _metric(self) -> Metric:
        name = self._family.full_name
        return Metric(name.removesuffix("_total") if self._type == "counter" else name, self._family.help, self._type)

    def _samples(self, cell: Cell) -> Iterator[tuple[str, dict[str, str], float]]:
        raise NotImplementedError


class Levels(Cells[Level]):
    """A counter or gauge family."""

    def labels(self, *labels: str) -> Level:
        """Return the cell with these label values, the same one every time."""
        return self._get(labels, Level())

    def _samples(self, cell: Level) -> Iterator[tuple[str, dict[str, str], float]]:
        yield "_total" if self._type == "counter" else "", {}, cell.value


class Spreads(Cells[Spread]):
    """A histogram family."""

    def __init__(self, family: Family, registry: CollectorRegistry) -> None:
        super().__init__(family, registry)
        self._bounds = [floatToGoString(bound) for bound in (*family.buckets, float("inf"))]  # type: ignore[no-untyped-call]

    def labels(self, *labels: str) -> Spread:
        """Return the cell with these label values, the same one every time."""
        return self._get(labels, Spread(self._family.buckets))

    def _samples(self, cell: Spread) -> Iterator[tuple[str, dict[str, str], float]]:
        total = 0
        for bound, total in zip(self._bounds, accumulate(cell.counts), strict=True):
            yield "_bucket", {"le": bound}, total
        yield "_count", {}, total
        yield "_sum", {}, cell.sum
