"""Counts and rates that outlive a configuration; `CounterStore` is the interface of stores that outlive the process.

A request only touches plain objects in memory, so admitting never waits. A store that several gateways share updates
`Counter.used` in the background, after `changed` was called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

PERIODS_KEPT: Final = 8
"""Newest periods of one budget that are kept; more than two, because a clock may have been wrong for some days."""
DAYS_KEPT: Final = 62
"""Newest days of usage of one client on one route that are kept: two months."""


class Counter:
    """Calls of one client on one route in one period: `used` are counted, `reserved` are in flight here."""

    __slots__ = ("key", "reserved", "used", "warned")

    def __init__(self, key: CounterKey, used: int = 0, *, warned: bool = False) -> None:
        self.key = key
        self.used = used
        self.reserved = 0
        self.warned = warned
        """Whether the soft limit was logged in this period."""


class Sharing:
    """Whether another process serves the same clients now, so that each call must be reserved in the store."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = False


CounterKey = tuple[str, str, str]
"""Client, route, period: `2026-11-22` or `2026-11` (UTC) of a budget, `calls 2026-11-22` or `billed …` of usage."""


def periods_kept(period: str) -> int:
    """Return how many periods of this kind are kept."""
    return DAYS_KEPT if " " in period else PERIODS_KEPT


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

    @property
    def sharing(self) -> Sharing:
        """Whether calls must be reserved with `reserve`; the same object every time."""

    async def share(self, on: bool, *, predecessor: int | None = None) -> None:
        """Share the counts with another process, call by call, or stop that; until `predecessor` ends, if given."""

    def reserve(self, counter: Counter, hard: int) -> bool:
        """Reserve a call, unless all processes together have used up `hard`. Only called while sharing."""

    def all(self) -> Mapping[CounterKey, Counter]:
        """Return all counters."""

    def changed(self) -> None:
        """Note that a count has changed and must be written soon. Must not wait."""

    async def stop(self) -> None:
        """Write the counts, and stop."""


class MemoryCounters:
    """Counts that end with the process."""

    def __init__(self) -> None:
        self.counters: dict[CounterKey, Counter] = {}
        self._rate_states: dict[tuple[str, str], RateState] = {}
        self.sharing = Sharing()

    def start(self) -> None:
        """Do nothing."""

    def counter(self, key: CounterKey) -> Counter:
        """Return the counter; drop the oldest periods of the same budget."""
        found = self.counters.get(key)
        if found is None:
            found = self.counters[key] = Counter(key)
            self._forget(key)
        return found

    def _forget(self, key: CounterKey) -> None:
        client, route, period = key
        mine = sorted(k for k in self.counters if k[:2] == (client, route) and len(k[2]) == len(period))
        for old in mine[: -periods_kept(period)]:
            if old != key and not self.counters[old].reserved:
                del self.counters[old]

    def rate_state(self, client: str, route: str) -> RateState:
        """Return the rate of a client on a route, the same object every time."""
        return self._rate_states.setdefault((client, route), RateState())

    async def share(self, on: bool, *, predecessor: int | None = None) -> None:
        """Do nothing: another process cannot see these counts."""

    def reserve(self, counter: Counter, hard: int) -> bool:
        """Reserve a call of this process."""
        if counter.used + counter.reserved >= hard:
            return False
        counter.reserved += 1
        return True

    def all(self) -> Mapping[CounterKey, Counter]:
        """Return all counters."""
        return self.counters

    def changed(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""
