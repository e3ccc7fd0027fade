"""Counts and rates that outlive a configuration; `CounterStore` is the interface of stores that outlive the process.

A request only touches plain objects in memory, so admitting never waits. A store that several gateways share
(`shared.py`) updates `Counter.used` and `Counter.most` in the background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable, Mapping

PERIODS_KEPT: Final = 8
"""Newest periods of one budget that are kept; more than two, because a clock may have been wrong for some days."""
DAYS_KEPT: Final = 62
"""Newest days of usage of one client on one route that are kept: two months."""


UNLIMITED: Final = 2**62
"""The limit of a budget without one."""


class Counter:
    """Calls of one client on one route in one period: `used` are counted, `reserved` are in flight here.

    `leased` calls have not begun, but this process has taken them in a store that others share.
    """

    __slots__ = ("key", "leased", "most", "reserved", "used", "warned")

    def __init__(self, key: CounterKey, used: int = 0, *, warned: bool = False) -> None:
        self.key = key
        self.used = used
        """Of all processes and instances, as far as this one knows."""
        self.reserved = 0
        self.most = UNLIMITED
        """As soon as `used` and `reserved` reach it together, `CounterStore.more` decides about a call."""
        self.leased = 0
        self.warned = warned
        """Whether the soft limit was logged in this period."""


class Terms(NamedTuple):
    """The terms of a budget for one period."""

    hard: int
    """Calls of all instances; UNLIMITED: none."""
    per: str
    ends: float
    """Wall-clock instant at which the period ends."""
    allowance: int
    """Calls of all instances beyond what was granted, while a shared store is away."""


class Sharing:
    """How calls are reserved in the store while another process serves the same clients."""

    __slots__ = ("on", "reserve")

    def __init__(self, reserve: Callable[[Counter, int], bool]) -> None:
        self.on = False
        """Whether another process serves the same clients now."""
        self.reserve = reserve
        """Reserves a call, unless all processes together have used up the limit; only called while `on`."""


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


class Listener(Protocol):
    """Who must know what other processes and instances do: access control."""

    def counts_learned(self) -> None:
        """Show the budgets' counts again."""

    def use_part(self, rank: int, members: int) -> None:
        """Divide rates and limits in flight by `members`; this instance is number `rank`, from 0."""

    def prepare_budgets(self) -> None:
        """Tell the terms of the next periods."""


class CounterStore(Protocol):
    """Keeps counts."""

    def follow(self, listener: Listener) -> None:
        """Tell `listener` what other processes and instances do."""

    def start(self) -> None:
        """Load the counts of the last run. Raises StateError if they cannot be read or written."""

    async def ready(self) -> None:
        """Wait for a moment until a shared store has said what may be spent; never longer than its time-outs."""

    def counter(self, key: CounterKey) -> Counter:
        """Return the counter, the same object every time. Must not wait: the hot path calls it."""

    def limit(self, counter: Counter, terms: Terms) -> None:
        """Set the terms of the counter's budget, and thereby `counter.most`."""

    def more(self, counter: Counter) -> bool:
        """Return whether another call may be made although `counter.most` is reached. Must not wait."""

    def asked(self, counter: Counter) -> Task[None] | None:
        """Return the running question to other instances after which more calls may be possible."""

    def is_away(self, counter: Counter) -> bool:
        """Whether a shared store does not answer, so that a refusal may end before the period does."""

    def rate_state(self, client: str, route: str) -> RateState:
        """Return the rate of a client on a route, the same object every time."""

    @property
    def sharing(self) -> Sharing | None:
        """How another process shares the counts, the same object every time; None if none can."""

    async def share(self, on: bool, *, predecessor: int | None = None) -> None:
        """Share the counts with another process, call by call, or stop that; until `predecessor` ends, if given."""

    def all(self) -> Mapping[CounterKey, Counter]:
        """Return all counters."""

    def changed(self) -> None:
        """Note that a count has changed and must be written soon. Must not wait."""

    async def gather(self, month: str) -> bool:
        """Learn the usage of other instances in a month (`2026-11`); return whether all of it is known now."""

    async def stop(self) -> None:
        """Write the counts, and stop."""


class MemoryCounters:
    """Counts that end with the process."""

    def __init__(self) -> None:
        self.counters: dict[CounterKey, Counter] = {}
        self._rate_states: dict[tuple[str, str], RateState] = {}
        self.sharing: Sharing | None = None

    def follow(self, listener: Listener) -> None:
        """Do nothing: nobody else counts here."""

    def start(self) -> None:
        """Do nothing."""

    async def ready(self) -> None:
        """Return at once."""

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

    def limit(self, counter: Counter, terms: Terms) -> None:
        """Set the limit of the counter."""
        counter.most = terms.hard

    def more(self, _counter: Counter) -> bool:
        """Return False: nobody else has a part of the budget."""
        return False

    def asked(self, _counter: Counter) -> Task[None] | None:
        """Return None: there is nobody to ask."""
        return None

    def is_away(self, _counter: Counter) -> bool:
        """Return False: there is no shared store."""
        return False

    def rate_state(self, client: str, route: str) -> RateState:
        """Return the rate of a client on a route, the same object every time."""
        return self._rate_states.setdefault((client, route), RateState())

    async def share(self, on: bool, *, predecessor: int | None = None) -> None:
        """Do nothing: another process cannot see these counts."""

    def all(self) -> Mapping[CounterKey, Counter]:
        """Return all counters."""
        return self.counters

    def changed(self) -> None:
        """Do nothing."""

    async def gather(self, _month: str) -> bool:
        """Return True: there are no other instances."""
        return True

    async def stop(self) -> None:
        """Do nothing."""
