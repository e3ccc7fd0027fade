"""How many calls each client has made on each route on each day (UTC), and how many of them vendors bill.

Counted for every client, whether it has a budget or not. A request adds to two plain numbers (`ClientMetrics.calls` and
`.billed`); once a second their growth is added to the day's counters in the store, which survive a restart with a
`state_file`: in a file beside it, because two months of usage are many rows and the counts of budgets are few, and
those are written each second, and during an upgrade with each call.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway.access.budgets import period_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.access.counters import CounterStore
    from gateway.observe import ClientMetrics, Metrics

INTERVAL = 1.0
"""Seconds between two additions: a call at midnight may count for the day beside it by as much."""
WRITE_INTERVAL = 10.0
"""Seconds between two writes of the file of usage."""
CALLS, BILLED = "calls ", "billed "
"""What precedes the day in the period of a counter."""


def usage_file(state_file: Path) -> Path | None:
    """Return the file for usage beside a state file; None if its folder takes no further file."""
    real = Path(os.path.realpath(state_file))
    beside = real.with_name(f"{real.name}.usage")
    return beside if os.access(beside if beside.exists() else real.parent, os.W_OK) else None


class Usage(NamedTuple):
    """Calls of one client on one route on one day (`2026-11-28`)."""

    client: str
    route: str
    day: str
    calls: int
    billed: int


class UsageBook:
    """Adds up usage in a store."""

    def __init__(self, store: CounterStore, metrics: Metrics, wall: Callable[[], float]) -> None:
        self._store = store
        self._metrics = metrics
        self._wall = wall
        self._seen: dict[ClientMetrics, tuple[float, float]] = {}

    def collect(self) -> None:
        """Add the calls since the last time to the counters of the current day."""
        day, _, _ = period_of("day", self._wall())
        before, seen = self._seen, {}
        changed = False
        for each in self._metrics.clients():
            if not each.calls.value:  # most of many thousand, and this runs each second
                continue
            seen[each] = now = (each.calls.value, each.billed.value)
            then = before.get(each, (0.0, 0.0))
            if now == then:
                continue
            for kind, more in zip((CALLS, BILLED), (now[0] - then[0], now[1] - then[1]), strict=True):
                if more:
                    self._store.counter((each.name, each.route, kind + day)).used += int(more)
                    changed = True
        self._seen = seen
        if changed:
            self._store.changed()

    async def gather(self, month: str) -> bool:
        """Learn what other instances have counted in a month; return False if they cannot be asked now."""
        return await self._store.gather(month)

    def days(self, month: str) -> list[Usage]:
        """Return the usage of a month (`2026-11`), by client, route and day."""
        self.collect()
        found: dict[tuple[str, str, str], list[int]] = {}
        for (client, route, period), counter in list(self._store.all().items()):
            for at, kind in enumerate((CALLS, BILLED)):
                day = period.removeprefix(kind)
                if day != period and day.startswith(month):
                    found.setdefault((client, route, day), [0, 0])[at] = counter.used
        return [Usage(*key, *counts) for key, counts in sorted(found.items())]
