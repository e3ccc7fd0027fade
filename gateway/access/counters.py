"""Counts and rates that outlive a configuration; `CounterStore` is the interface of stores that outlive the process.

A request only touches plain objects in memory, so admitting never waits. A store that several gateways share updates
`Counter.used` in the background, after `changed` was called.
"""

from __future__ import annotations

from typing import Protocol


class Counter:
    """Calls of one client on one route in one period: `used` are counted, `reserved` are in flight here."""

    __slots__ = ("key", "reserved", "used", "warned")

    def __init__(self, key: CounterKey, used: int = 0, *, warned: bool = False) -> None:
        self.key = key
        self.used = used
        self.reserved = 0
        self.warned = warned
        """Whether the soft limit was logged in this period."""


CounterKey = tuple[str, str, str]
"""Client, route, period (`2026-11-22` or `2026-11`, UTC)."""


class RateState:
    """The rate of a client on a route; kept across reloads, so that a reload resets no limit."""

    __slots__ = ("full_at",)

    def __init__(self) -> None:
        self.full_at = 0.0
        """Monotonic instant at which the whole burst is available again (generic cell rate algorithm)."""


class CounterStore(Protocol):
    """Keeps counts."""

    def start(self) -> None:
        """Load the counts of the last run. Raises StateError if they cannot be read or written."""

    def counter(self, key: CounterKey) -> Counter:
        """Return the counter, the same object every time. Must not wait: the hot path calls it."""

    def rate_state(self, client: str, route: str) -> RateState:
        """Return the rate of a client on a route, the same object every time."""

    def changed(self) -> None:
        """Note that a count has changed and must be written soon. Must not wait."""

    async def stop(self) -> None:
        """Write the counts, and stop."""


class MemoryCounters:
    """Counts that end with the process."""

    def __init__(self) -> None:
        self.counters: dict[CounterKey, Counter] = {}
        self._rate_states: dict[tuple[str, str], RateState] = {}

    def start(self) -> None:
        """Do nothing."""

    def counter(self, key: CounterKey) -> Counter:
        """Return the counter; drop periods of the same budget before the previous one."""
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

    def rate_state(self, client: str, route: str) -> RateState:
        """Return the rate of a client on a route, the same object every time."""
        return self._rate_states.setdefault((client, route), RateState())

    def changed(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""
