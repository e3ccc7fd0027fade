"""Counts and rates that outlive a configuration, and some that outlive the process. The seam for a shared store.

Everything a request touches here is a plain object in memory, so that admitting never waits. A store that several
gateways share keeps the same objects, sends what was added to them and takes over what the others have added
(`Counter.used`), in the background, after `changed` was called.
"""

from __future__ import annotations

from typing import Protocol


class Counter:
    """Calls of one client on one route in one period: `used` are settled, `reserved` are under way here."""

    __slots__ = ("key", "reserved", "used", "warned")

    def __init__(self, key: CounterKey, used: int = 0, *, warned: bool = False) -> None:
        self.key = key
        self.used = used
        self.reserved = 0
        self.warned = warned
        """The soft limit was announced in this period."""


CounterKey = tuple[str, str, str]
"""Client, route, period (`2026-11-22` or `2026-11`, UTC)."""


class Usage:
    """How fast a client was on a route; kept across reloads, so that a reload frees nobody from a limit."""

    __slots__ = ("full_at",)

    def __init__(self) -> None:
        self.full_at = 0.0
        """Monotonic instant at which the burst is whole again (the generic cell rate algorithm's one number)."""


class CounterStore(Protocol):
    """Where counts live."""

    def start(self) -> None:
        """Take up the counts of the last run. Raises StateError when they cannot be had or could not be kept."""

    def counter(self, key: CounterKey) -> Counter:
        """Return the counter, the same object every time. Synchronous; the hot path when a period begins."""

    def usage(self, client: str, route: str) -> Usage:
        """Return how a client stands on a route, the same object every time."""

    def changed(self) -> None:
        """Something was counted; it is to be kept soon. Synchronous and cheap."""

    async def stop(self) -> None:
        """Keep what was counted, and end."""


class MemoryCounters:
    """Counts that end with the process."""

    def __init__(self) -> None:
        self.counters: dict[CounterKey, Counter] = {}
        self._usages: dict[tuple[str, str], Usage] = {}

    def start(self) -> None:
        """Nothing to take up."""

    def counter(self, key: CounterKey) -> Counter:
        """Return the counter; forget the same budget's periods before the last one."""
        found = self.counters.get(key)
        if found is None:
            found = self.counters[key] = Counter(key)
            self._forget(key)
        return found

    def _forget(self, key: CounterKey) -> None:
        client, route, period = key
        mine = sorted(k for k in self.counters if k[:2] == (client, route) and len(k[2]) == len(period))
        for old in mine[:-2]:
            if old != key and not self.counters[old].reserved:
                del self.counters[old]

    def usage(self, client: str, route: str) -> Usage:
        """Return how a client stands on a route."""
        return self._usages.setdefault((client, route), Usage())

    def changed(self) -> None:
        """Nothing to keep."""

    async def stop(self) -> None:
        """Nothing to keep."""
