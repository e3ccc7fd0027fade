"""Usage of all instances: sends this instance's calls of each day to the store, and gets those of the other instances.

A usage counter (`Counter.used`) is the sum over all instances; the other instances' part of it is also kept apart. Each
process has a field of its own, which stays in the store when the process ends.
"""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from gateway.access.counters import DAYS_KEPT
from gateway.access.usage import BILLED, CALLS
from gateway.errors import StoreAway

if TYPE_CHECKING:
    from gateway.access.counters import CounterKey, MemoryCounters
    from gateway.model import Clock, Tally

EVERY: Final = 2.0
"""Seconds between two reports, while usage changes."""
FRESH: Final = 1.0
"""Seconds for which the other instances' usage is not read again."""
LIFE: Final = (DAYS_KEPT + 2) * 86_400.0
"""Seconds for which the store keeps a day after its last change."""


class SharedUsage:
    """This instance's usage, and that of the other instances."""

    def __init__(self, tally: Tally, memory: MemoryCounters, clock: Clock) -> None:
        self._field = tally.instance
        self._tally = tally
        self._memory = memory
        self._clock = clock
        self._others: dict[CounterKey, int] = {}
        self._told: dict[CounterKey, int] = {}
        self._reported_at = self._gathered_at = float("-inf")
        self._gathered = ""
        self._carries_over = True
        """Whether the next report begins with the usage of earlier days (`Tally.carry_over`)."""

    def own(self, key: CounterKey) -> int:
        """Return this instance's part of a counter."""
        return self._memory.counters[key].used - self._others.get(key, 0)

    def untold(self) -> dict[CounterKey, int]:
        """Return calls that were not sent to the store yet, by counter."""
        more = {key: self.own(key) - self._told.get(key, 0) for key in self._memory.counters if " " in key[2]}
        return {key: number for key, number in more.items() if number > 0}

    async def report_if_due(self) -> None:
        """Report, unless the last report was less than `EVERY` ago."""
        if self._clock.monotonic() - self._reported_at >= EVERY:
            await self.report()

    async def report(self) -> None:
        """Send changed numbers to the store; if it is away, they are sent with the next report."""
        self._reported_at = self._clock.monotonic()
        for key in self._told.keys() - self._memory.counters.keys():
            del self._told[key]
        try:
            if self._carries_over:
                await self._tally.carry_over(self._kept_days())
                self._carries_over = False
            for day, used in self._changed().items():
                await self._tally.report(day, self._field, used, LIFE)
                for (client, route), (calls, billed) in used.items():
                    self._told[client, route, CALLS + day], self._told[client, route, BILLED + day] = calls, billed
        except StoreAway:
            pass

    def tell_again(self) -> None:
        """Send all numbers again with the next report, because the store may have lost them."""
        self._told.clear()
        self._carries_over = True
        self._reported_at = float("-inf")

    def _changed(self) -> dict[str, dict[tuple[str, str], tuple[int, int]]]:
        """Return calls and billed calls by day, client and route, of which the store has old numbers."""
        days: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
        for client, route, period in list(self._memory.counters):
            for kind in (CALLS, BILLED):
                day = period.removeprefix(kind)
                key = (client, route, period)
                if day != period and self.own(key) != self._told.get(key, 0):
                    pair = [(client, route, each + day) for each in (CALLS, BILLED)]
                    calls, billed = [self.own(each) if each in self._memory.counters else 0 for each in pair]
                    days.setdefault(day, {})[client, route] = calls, billed
        return days

    async def gather(self, month: str) -> bool:
        """Get the usage of the other instances in a month (`2026-11`); return False if the store is away."""
        now = self._clock.monotonic()
        if self._gathered == month and now - self._gathered_at < FRESH:
            return True
        days = self._days(month)
        try:
            found = await self._tally.usage(days, self._field) if days else {}
        except StoreAway:
            return False
        for (client, route, day), numbers in found.items():
            for kind, number in zip((CALLS, BILLED), numbers, strict=True):
                self._learn((client, route, kind + day), number)
        self._gathered, self._gathered_at = month, now
        return True

    def _days(self, month: str) -> list[str]:
        """Return the days of a month that the store may have, including tomorrow, because clocks differ."""
        today = datetime.fromtimestamp(self._clock.wall(), UTC).date()
        year, number = int(month[:4]), int(month[5:])
        days = [date(year, number, day) for day in range(1, calendar.monthrange(year, number)[1] + 1)]
        return [day.isoformat() for day in days if -1 <= (today - day).days <= DAYS_KEPT]

    def _kept_days(self) -> list[str]:
        """Return all days that the store may have, including tomorrow, because clocks differ."""
        today = datetime.fromtimestamp(self._clock.wall(), UTC).date()
        return [(today - timedelta(days=back)).isoformat() for back in range(-1, DAYS_KEPT + 1)]

    def _learn(self, key: CounterKey, number: int) -> None:
        """Set the sum of the other instances; it never falls, even if the store has lost numbers."""
        known = self._others.get(key, 0)
        if number > known:
            self._memory.counter(key).used += number - known
            self._others[key] = number
