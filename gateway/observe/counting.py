"""What was counted, by label values, shown to Prometheus when it asks.

`Cells` hands the sums of its cells (`cells.py`) to a registry like any other collector, and writes them as text itself:
a scrape of fifty routes must not hold up the requests beside it.
"""

from __future__ import annotations

from itertools import accumulate
from math import isfinite
from typing import TYPE_CHECKING, Generic, TypeVar

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.observe.cells import Level, Spread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from prometheus_client import CollectorRegistry

    from gateway.observe.families import Family


Cell = TypeVar("Cell", Level, Spread)
_EXACT = 2**53
"""From here on a float is not every whole number."""


class Cells(Collector, Generic[Cell]):
    """All cells of one family, by label values."""

    def __init__(self, family: Family, registry: CollectorRegistry, settle: Callable[[], None]) -> None:
        self.family = family
        self._settle = settle
        self._type = family.kind
        self._cells: dict[tuple[str, ...], Cell] = {}
        self._written: dict[tuple[str, ...], tuple[str, ...]] = {}
        """Beginnings of the lines of a cell, names and labels; they never change."""
        registry.register(self)

    def labels(self, *labels: str) -> Cell:
        """Return the cell with these label values, the same one every time."""
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._cells[labels] = self.new()
        return cell

    def new(self) -> Cell:
        """Return a cell that belongs to nobody yet."""
        raise NotImplementedError

    def keep(self, label: str, values: Collection[str]) -> None:
        """Forget the cells whose `label` has none of these values; nothing happens in a family without the label."""
        if label not in self.family.labels:
            return
        at = self.family.labels.index(label)
        for labels in [labels for labels in self._cells if labels[at] not in values]:
            del self._cells[labels]
            self._written.pop(labels, None)

    def by(self, label: str) -> dict[str, list[tuple[dict[str, str], Cell]]]:
        """Return the cells by the value of one label, each with all its labels."""
        self._settle()
        found: dict[str, list[tuple[dict[str, str], Cell]]] = {}
        for labels, cell in self._cells.items():
            named = dict(zip(self.family.labels, labels, strict=True))
            found.setdefault(named[label], []).append((named, cell))
        return found

    # --------------------------------------------------------------------------------------- as the library sees it

    def describe(self) -> Iterable[Metric]:
        """Name the family, so that the registry refuses a second one."""
        yield self._metric()

    def collect(self) -> Iterable[Metric]:
        """Return the family with all its samples as they are now."""
        self._settle()
        metric = self._metric()
        for labels, cell in list(self._cells.items()):
            for suffix, extra, value in self._samples(cell):
                named = dict(zip(self.family.labels, labels, strict=True)) | extra
                metric.add_sample(metric.name + suffix, named, value)
        yield metric

    def _metric(self) -> Metric:
        name = self.family.full_name
        return Metric(name.removesuffix("_total") if self._type == "counter" else name, self.family.help, self._type)

    def _samples(self, cell: Cell) -> Iterator[tuple[str, dict[str, str], float]]:
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------ as text

    def text(self, *, openmetrics: bool) -> str:
        """Return the family in Prometheus' text format 0.0.4, or in OpenMetrics 1.0, exemplars included."""
        name = self.family.full_name
        shown = name.removesuffix("_total") if openmetrics and self._type == "counter" else name
        lines = [
            f"# HELP {shown} {_escaped(self.family.help, openmetrics=openmetrics)}",
            f"# TYPE {shown} {self._type}",
        ]
        for labels, cell in self._cells.items():
            heads = self._written.get(labels)
            if heads is None:
                heads = self._written[labels] = self._heads(self._labelled(labels))
            self._write(lines, heads, cell, openmetrics)
        lines.append("")
        return "\n".join(lines)

    def _labelled(self, values: tuple[str, ...]) -> str:
        pairs = zip(self.family.labels, values, strict=True)
        return ",".join(f'{name}="{_escaped(value, openmetrics=True)}"' for name, value in pairs)

    def _heads(self, labelled: str) -> tuple[str, ...]:
        raise NotImplementedError

    def _write(self, lines: list[str], heads: tuple[str, ...], cell: Cell, openmetrics: bool) -> None:
        raise NotImplementedError


def _escaped(text: str, *, openmetrics: bool) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if openmetrics else escaped


def _number(value: float) -> str:
    if value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return repr(value) if isfinite(value) else floatToGoString(value)  # type: ignore[no-untyped-call]


class Levels(Cells[Level]):
    """A counter or gauge family."""

    def new(self) -> Level:
        """Return a level at zero."""
        return Level()

    def _samples(self, cell: Level) -> Iterator[tuple[str, dict[str, str], float]]:
        yield "_total" if self._type == "counter" else "", {}, cell.value

    def _heads(self, labelled: str) -> tuple[str, ...]:
        return (f"{self.family.full_name}{{{labelled}}} " if labelled else f"{self.family.full_name} ",)

    def _write(self, lines: list[str], heads: tuple[str, ...], cell: Level, openmetrics: bool) -> None:
        del openmetrics  # both formats write a level alike
        lines.append(heads[0] + _number(cell.value))


class Spreads(Cells[Spread]):
    """A histogram family."""

    def __init__(self, family: Family, registry: CollectorRegistry, settle: Callable[[], None]) -> None:
        super().__init__(family, registry, settle)
        self._bounds = [floatToGoString(bound) for bound in (*family.buckets, float("inf"))]  # type: ignore[no-untyped-call]

    def new(self) -> Spread:
        """Return a histogram that nothing was observed in."""
        return Spread(self.family.buckets)

    def _samples(self, cell: Spread) -> Iterator[tuple[str, dict[str, str], float]]:
        total = 0
        for bound, total in zip(self._bounds, accumulate(cell.counts), strict=True):
            yield "_bucket", {"le": bound}, total
        yield "_count", {}, total
        yield "_sum", {}, cell.sum

    def _heads(self, labelled: str) -> tuple[str, ...]:
        name, before = self.family.full_name, f"{labelled}," if labelled else ""
        buckets = (f'{name}_bucket{{{before}le="{bound}"}} ' for bound in self._bounds)
        labels = f"{{{labelled}}}" if labelled else ""
        return (*buckets, f"{name}_count{labels} ", f"{name}_sum{labels} ")

    def _write(self, lines: list[str], heads: tuple[str, ...], cell: Spread, openmetrics: bool) -> None:
        totals = list(accumulate(cell.counts))
        if openmetrics and cell.exemplars:
            shown = {
                i: f' # {{trace_id="{trace_id}"}} {value!r} {at:.3f}'
                for i, (trace_id, value, at) in cell.exemplars.items()
            }
            lines += [
                f"{head}{total}{shown.get(i, '')}" for i, (head, total) in enumerate(zip(heads, totals, strict=False))
            ]
        else:
            lines += [f"{head}{total}" for head, total in zip(heads, totals, strict=False)]
        lines += (f"{heads[-2]}{totals[-1]}", heads[-1] + _number(cell.sum))
