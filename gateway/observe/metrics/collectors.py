"""The values of one metric family by label values, and their text for Prometheus.

The text is written here and not by `prometheus_client`, because a scrape of fifty routes must not delay the requests
that are served meanwhile.
"""

from __future__ import annotations

from itertools import accumulate
from math import isfinite
from typing import TYPE_CHECKING, Generic, TypeVar

from prometheus_client.utils import floatToGoString

from gateway.observe.metrics.values import Histogram, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from gateway.observe.metrics.families import Family


Child = TypeVar("Child", Value, Histogram)
_EXACT = 2**53
"""From this number on, a float cannot represent every integer."""

_PIECE = 1000
"""Lines of a piece of a family: less than a millisecond of work."""


class FamilyCollector(Generic[Child]):
    """All values ("children", as Prometheus' client libraries call them) of one family, by label values."""

    def __init__(self, family: Family, settle: Callable[[], None]) -> None:
        self.family = family
        self._settle = settle
        self._type = family.kind
        self._children: dict[tuple[str, ...], Child] = {}
        self._line_starts: dict[tuple[str, ...], tuple[str, ...]] = {}
        """Name and labels of each line of a child, rendered once because they never change."""

    def labels(self, *labels: str) -> Child:
        """Return the child with these label values, the same one every time."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self.new()
        return child

    def new(self) -> Child:
        """Return a child that is in no series."""
        raise NotImplementedError

    def keep(self, label: str, values: Collection[str]) -> None:
        """Drop the children whose `label` has none of these values. A family without the label does not change."""
        if label not in self.family.labels:
            return
        at = self.family.labels.index(label)
        for labels in [labels for labels in self._children if labels[at] not in values]:
            del self._children[labels]
            self._line_starts.pop(labels, None)

    def keep_only(self, kept: Collection[tuple[str, ...]]) -> None:
        """Drop the children whose label values are not in `kept`."""
        for labels in [labels for labels in self._children if labels not in kept]:
            self.drop(*labels)

    def has(self, *labels: str) -> bool:
        """Return whether there is a child with these label values."""
        return labels in self._children

    def drop(self, *labels: str) -> None:
        """Drop the child with these label values, if there is one."""
        self._children.pop(labels, None)
        self._line_starts.pop(labels, None)

    def clear(self) -> None:
        """Drop all children."""
        self._children.clear()

    def by(self, label: str) -> dict[str, list[tuple[dict[str, str], Child]]]:
        """Return the children by the value of one label, each with all its labels."""
        self._settle()
        grouped: dict[str, list[tuple[dict[str, str], Child]]] = {}
        for labels, child in self._children.items():
            named = dict(zip(self.family.labels, labels, strict=True))
            grouped.setdefault(named[label], []).append((named, child))
        return grouped

    def pieces(self, *, openmetrics: bool) -> Iterator[str]:
        """Yield the family in Prometheus' text format 0.0.4, or in OpenMetrics 1.0 with exemplars.

        Children may be added and dropped between two pieces.
        """
        name = self.family.full_name
        shown = name.removesuffix("_total") if openmetrics and self._type == "counter" else name
        lines = [
            f"# HELP {shown} {_escaped(self.family.help, openmetrics=openmetrics)}",
            f"# TYPE {shown} {self._type}",
        ]
        for labels in list(self._children):
            if len(lines) >= _PIECE:
                yield _joined(lines)
                lines = []
            child = self._children.get(labels)
            if child is None:
                continue  # dropped since the first piece
            starts = self._line_starts.get(labels)
            if starts is None:
                starts = self._line_starts[labels] = self._starts(self._label_text(labels))
            self._write(lines, starts, child, openmetrics)
        yield _joined(lines)

    def _label_text(self, values: tuple[str, ...]) -> str:
        pairs = zip(self.family.labels, values, strict=True)
        return ",".join(f'{name}="{_escaped(value, openmetrics=True)}"' for name, value in pairs)

    def _starts(self, labels_text: str) -> tuple[str, ...]:
        raise NotImplementedError

    def _write(self, lines: list[str], starts: tuple[str, ...], child: Child, openmetrics: bool) -> None:
        raise NotImplementedError


def _joined(lines: list[str]) -> str:
    return "\n".join([*lines, ""])


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
        """Return a value of zero."""
        return Value()

    def _starts(self, labels_text: str) -> tuple[str, ...]:
        return (f"{self.family.full_name}{{{labels_text}}} " if labels_text else f"{self.family.full_name} ",)

    def _write(self, lines: list[str], starts: tuple[str, ...], child: Value, openmetrics: bool) -> None:
        del openmetrics  # both formats are the same here
        lines.append(starts[0] + _number(child.value))


class HistogramCollector(FamilyCollector[Histogram]):
    """A histogram family."""

    def __init__(self, family: Family, settle: Callable[[], None]) -> None:
        super().__init__(family, settle)
        self._bounds = [floatToGoString(bound) for bound in (*family.buckets, float("inf"))]  # type: ignore[no-untyped-call]

    def new(self) -> Histogram:
        """Return an empty histogram."""
        return Histogram(self.family.buckets)

    def _starts(self, labels_text: str) -> tuple[str, ...]:
        name, before = self.family.full_name, f"{labels_text}," if labels_text else ""
        buckets = (f'{name}_bucket{{{before}le="{bound}"}} ' for bound in self._bounds)
        labels = f"{{{labels_text}}}" if labels_text else ""
        return (*buckets, f"{name}_count{labels} ", f"{name}_sum{labels} ")

    def _write(self, lines: list[str], starts: tuple[str, ...], child: Histogram, openmetrics: bool) -> None:
        totals = list(accumulate(child.counts))
        if openmetrics and child.exemplars:
            shown = {
                i: f' # {{trace_id="{trace_id}"}} {value!r} {at:.3f}'
                for i, (trace_id, value, at) in child.exemplars.items()
            }
            lines += [
                f"{start}{total}{shown.get(i, '')}"
                for i, (start, total) in enumerate(zip(starts, totals, strict=False))
            ]
        else:
            lines += [f"{start}{total}" for start, total in zip(starts, totals, strict=False)]
        lines += (f"{starts[-2]}{totals[-1]}", starts[-1] + _number(child.sum))
