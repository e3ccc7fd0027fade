"""What was counted, by label values, shown to Prometheus when it asks.

`FamilyCollector` hands the sums of its children (`values.py`) to a registry like any other collector, and writes them
as text itself:
a scrape of fifty routes must not hold up the requests beside it.
"""

from __future__ import annotations

from itertools import accumulate
from math import isfinite
from typing import TYPE_CHECKING, Generic, TypeVar

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.observe.metrics.values import Histogram, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from prometheus_client import CollectorRegistry

    from gateway.observe.metrics.families import Family


Child = TypeVar("Child", Value, Histogram)
_EXACT = 2**53
"""From here on a float is not every whole number."""


class FamilyCollector(Collector, Generic[Child]):
    """All children of one family, by label values."""

    def __init__(self, family: Family, registry: CollectorRegistry, settle: Callable[[], None]) -> None:
        self.family = family
        self._settle = settle
        self._type = family.kind
        self._children: dict[tuple[str, ...], Child] = {}
        self._written: dict[tuple[str, ...], tuple[str, ...]] = {}
        """Beginnings of the lines of a child, names and labels; they never change."""
        registry.register(self)

    def labels(self, *labels: str) -> Child:
        """Return the child with these label values, the same one every time."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self.new()
        return child

    def new(self) -> Child:
        """Return a child that belongs to nobody yet."""
        raise NotImplementedError

    def keep(self, label: str, values: Collection[str]) -> None:
        """Forget the children whose `label` has none of these values; nothing happens in a family without the label."""
        if label not in self.family.labels:
            return
        at = self.family.labels.index(label)
        for labels in [labels for labels in self._children if labels[at] not in values]:
            del self._children[labels]
            self._written.pop(labels, None)

    def by(self, label: str) -> dict[str, list[tuple[dict[str, str], Child]]]:
        """Return the children by the value of one label, each with all its labels."""
        self._settle()
        found: dict[str, list[tuple[dict[str, str], Child]]] = {}
        for labels, child in self._children.items():
            named = dict(zip(self.family.labels, labels, strict=True))
            found.setdefault(named[label], []).append((named, child))
        return found

    # --------------------------------------------------------------------------------------- as the library sees it

    def describe(self) -> Iterable[Metric]:
        """Name the family, so that the registry refuses a second one."""
        yield self._metric()

    def collect(self) -> Iterable[Metric]:
        """Return the family with all its samples as they are now."""
        self._settle()
        metric = self._metric()
        for labels, child in list(self._children.items()):
            for suffix, extra, value in self._samples(child):
                named = dict(zip(self.family.labels, labels, strict=True)) | extra
                metric.add_sample(metric.name + suffix, named, value)
        yield metric

    def _metric(self) -> Metric:
        name = self.family.full_name
        return Metric(name.removesuffix("_total") if self._type == "counter" else name, self.family.help, self._type)

    def _samples(self, child: Child) -> Iterator[tuple[str, dict[str, str], float]]:
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
        for labels, child in self._children.items():
            heads = self._written.get(labels)
            if heads is None:
                heads = self._written[labels] = self._heads(self._labelled(labels))
            self._write(lines, heads, child, openmetrics)
        lines.append("")
        return "\n".join(lines)

    def _labelled(self, values: tuple[str, ...]) -> str:
        pairs = zip(self.family.labels, values, strict=True)
        return ",".join(f'{name}="{_escaped(value, openmetrics=True)}"' for name, value in pairs)

    def _heads(self, labelled: str) -> tuple[str, ...]:
        raise NotImplementedError

    def _write(self, lines: list[str], heads: tuple[str, ...], child: Child, openmetrics: bool) -> None:
        raise NotImplementedError


def _escaped(text: str, *, openmetrics: bool) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if openmetrics else escaped


def _number(value: float) -> str:
    if value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return repr(value) if isfinite(value) else floatToGoString(value)  # type: ignore[no-untyped-call]


class ValueCollector(FamilyCollector[Value]):
    """A counter or gauge family."""

    def new(self) -> Value:
        """Return a level at zero."""
        return Value()

    def _samples(self, child: Value) -> Iterator[tuple[str, dict[str, str], float]]:
        yield "_total" if self._type == "counter" else "", {}, child.value

    def _heads(self, labelled: str) -> tuple[str, ...]:
        return (f"{self.family.full_name}{{{labelled}}} " if labelled else f"{self.family.full_name} ",)

    def _write(self, lines: list[str], heads: tuple[str, ...], child: Value, openmetrics: bool) -> None:
        del openmetrics  # both formats write a level alike
        lines.append(heads[0] + _number(child.value))


class HistogramCollector(FamilyCollector[Histogram]):
    """A histogram family."""

    def __init__(self, family: Family, registry: CollectorRegistry, settle: Callable[[], None]) -> None:
        super().__init__(family, registry, settle)
        self._bounds = [floatToGoString(bound) for bound in (*family.buckets, float("inf"))]  # type: ignore[no-untyped-call]

    def new(self) -> Histogram:
        """Return a histogram that nothing was observed in."""
        return Histogram(self.family.buckets)

    def _samples(self, child: Histogram) -> Iterator[tuple[str, dict[str, str], float]]:
        total = 0
        for bound, total in zip(self._bounds, accumulate(child.counts), strict=True):
            yield "_bucket", {"le": bound}, total
        yield "_count", {}, total
        yield "_sum", {}, child.sum

    def _heads(self, labelled: str) -> tuple[str, ...]:
        name, before = self.family.full_name, f"{labelled}," if labelled else ""
        buckets = (f'{name}_bucket{{{before}le="{bound}"}} ' for bound in self._bounds)
        labels = f"{{{labelled}}}" if labelled else ""
        return (*buckets, f"{name}_count{labels} ", f"{name}_sum{labels} ")

    def _write(self, lines: list[str], heads: tuple[str, ...], child: Histogram, openmetrics: bool) -> None:
        totals = list(accumulate(child.counts))
        if openmetrics and child.exemplars:
            shown = {
                i: f' # {{trace_id="{trace_id}"}} {value!r} {at:.3f}'
                for i, (trace_id, value, at) in child.exemplars.items()
            }
            lines += [
                f"{head}{total}{shown.get(i, '')}" for i, (head, total) in enumerate(zip(heads, totals, strict=False))
            ]
        else:
            lines += [f"{head}{total}" for head, total in zip(heads, totals, strict=False)]
        lines += (f"{heads[-2]}{totals[-1]}", heads[-1] + _number(child.sum))
