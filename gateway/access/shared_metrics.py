"""Shows what the shared store has granted, and counts calls that were made while it was away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.access.counters import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.access.counters import CounterKey
    from gateway.access.escrow import Escrow
    from gateway.observe import Metrics


class SharedMetrics:
    """The metrics of budgets with a shared store."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seen: dict[CounterKey, int] = {}
        """Calls of each budget at the last look."""

    def show(self, escrows: Iterable[Escrow], wall: float, *, away: bool) -> None:
        """Update the gauges; count the calls since the last time if the store was away."""
        seen: dict[CounterKey, int] = {}
        current: dict[CounterKey, Escrow] = {}
        most: dict[tuple[str, str], int] = {}
        for each in escrows:
            if each.terms.hard == UNLIMITED or each.terms.ends <= wall:
                continue
            client, route, _ = key = each.counter.key
            seen[key] = each.calls
            most[client, route] = max(most.get((client, route), 0), each.calls - self._seen.get(key, each.calls))
            of = (client, route, each.terms.per)
            if of not in current or each.terms.ends < current[of].terms.ends:
                current[of] = each
        for of, each in current.items():
            if self._metrics.budget_used.has(*of):  # a reload may have removed the budget
                self._metrics.store_granted.labels(*of).set(each.granted)
        for pair, calls in most.items():
            if away and calls:
                self._metrics.store_away_calls.labels(*pair).inc(calls)
        self._seen = seen
