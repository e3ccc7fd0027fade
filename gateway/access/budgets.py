"""Budgets: how many calls that cost money a client may make in a day or a month (UTC).

A call is reserved when it starts. It counts if the vendor answers 101, 2xx or 3xx, as vendors bill; otherwise the
reservation is released. So concurrent calls never exceed the limit together.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING, Final

from gateway.access.counters import UNLIMITED, Terms
from gateway.access.escrow_needed import EscrowNeeded
from gateway.errors import RateLimited
from gateway.observe import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.access.counters import Counter, CounterStore
    from gateway.model import ClientBudget
    from gateway.observe import ClientMetrics

_log = get_logger("gatepass.access")
_ROUNDING: Final = 1e-6
"""Seconds by which sums of intervals are wrong."""
RETRY_AWAY: Final = 5.0
"""`Retry-After` in seconds while the shared store is away; when it comes back is not known."""


def period_of(per: str, wall: float) -> tuple[str, float, float]:
    """Return the name, start and end of the day or month of `wall` (seconds since the epoch)."""
    now = datetime.fromtimestamp(wall, UTC)
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return start.strftime("%Y-%m-%d"), start.timestamp(), (start + timedelta(days=1)).timestamp()
    start = start.replace(day=1)
    following = (start + timedelta(days=32)).replace(day=1)
    return start.strftime("%Y-%m"), start.timestamp(), following.timestamp()


class Budget:
    """One budget of one client on one route. The store has the counts; this finds that of the current period."""

    __slots__ = (
        "_allowance",
        "_changed",
        "_client",
        "_counter",
        "_ends",
        "_gauge",
        "_hard",
        "_per",
        "_route",
        "_sharing",
        "_soft",
        "_starts",
        "_store",
        "_wall",
    )

    def __init__(
        self,
        client: str,
        budget: ClientBudget,
        *,
        store: CounterStore,
        wall: Callable[[], float],
        metrics: ClientMetrics,
    ) -> None:
        self._client, self._route, self._per = client, budget.route, budget.per
        self._soft = UNLIMITED if budget.soft is None else budget.soft
        self._hard = UNLIMITED if budget.hard is None else budget.hard
        self._allowance = budget.outage_allowance
        self._store = store
        self._wall = wall
        self._gauge = metrics.budget(budget.per, budget.soft, budget.hard)
        self._starts = self._ends = 0.0
        self._changed = store.changed
        self._sharing = store.sharing
        self._counter = self._roll_over(wall())

    def __repr__(self) -> str:
        return f"<Budget {self._client} on {self._route}: {self._counter.used} of {self._hard} a {self._per}>"

    def reserve(self) -> Counter | None:
        """Reserve a call in the current period; return None if the budget is spent. The hot path."""
        wall = self._wall()
        counter = self._counter
        if not self._starts <= wall < self._ends:
            counter = self._roll_over(wall)
        sharing = self._sharing
        if sharing is not None and sharing.on and self._hard != UNLIMITED:
            return counter if sharing.reserve(counter, self._hard) else None
        if counter.used + counter.reserved >= counter.most and not self._store.more(counter):
            return None
        counter.reserved += 1
        self._changed()  # a call counts in the store from its beginning: this process may be killed
        return counter

    def roll_over(self) -> None:
        """Start a new period if one has begun, so that its metrics show even without calls."""
        wall = self._wall()
        if not self._starts <= wall < self._ends:
            self._roll_over(wall)

    def show(self) -> None:
        """Show the count, which another process may have changed, and warn if it passes the soft limit."""
        counter = self._counter
        self._gauge.set(counter.used)
        if counter.used >= self._soft and not counter.warned:
            self._warn(counter)
            self._changed()

    def prepare(self) -> None:
        """Tell the store the terms of the next period, so that it can ask for calls before the first one."""
        period, _, ends = period_of(self._per, self._ends)
        counter = self._store.counter((self._client, self._route, period))
        self._store.limit(counter, Terms(self._hard, self._per, ends, self._allowance))

    def limit(self) -> None:
        """Tell the store the terms of the current period, because this budget is now in force."""
        self._store.limit(self._counter, Terms(self._hard, self._per, self._ends, self._allowance))

    def current(self) -> Counter:
        """Return the counter of the current period, as of the last call."""
        return self._counter

    def _roll_over(self, wall: float) -> Counter:
        period, self._starts, self._ends = period_of(self._per, wall)
        self._counter = counter = self._store.counter((self._client, self._route, period))
        self.limit()
        self._gauge.set(counter.used)
        return counter

    def settle(self, counter: Counter, made: bool) -> None:
        """End a reservation; `made`: the call counts."""
        counter.reserved -= 1
        if made:
            counter.used = used = counter.used + 1
            if counter is self._counter:
                self._gauge.value = float(used)
            if used >= self._soft and not counter.warned:
                self._warn(counter)
        self._changed()  # a reservation that was written meanwhile must be removed, too

    def _warn(self, counter: Counter) -> None:
        counter.warned = True
        _log.warning(
            "budget_soft_limit",
            client=self._client,
            route=self._route,
            period=counter.key[2],
            used=counter.used,
            soft=self._soft,
            hard=None if self._hard == UNLIMITED else self._hard,
        )

    def refusal(self) -> RateLimited | EscrowNeeded:
        """Return the error for a call beyond the hard limit, which lasts until the period ends.

        EscrowNeeded if the shared store is just being asked whether other instances have left something.
        """
        asked = self._store.asked(self._counter)
        if asked is not None:
            return EscrowNeeded(asked)
        left = max(1.0, self._ends - self._wall())
        if self._store.is_away(self._counter):
            return self._refusal_while_away(min(left, RETRY_AWAY))
        window = self._ends - self._starts
        return RateLimited(
            f"The client {self._client} has used up its calls of this {self._per} on the route {self._route}",
            reason=f"budget of clients.{self._client} on {self._route}: {self._hard} a {self._per}",
            retry_after=left,
            fields=rate_limit_fields(f"budget-{self._per}", self._hard, window, left),
        )

    def _refusal_while_away(self, wait: float) -> RateLimited:
        return RateLimited(
            f"The part of this {self._per}'s calls on the route {self._route} that this instance holds for the client"
            f" {self._client} is used up, and the store that has the rest does not answer",
            reason=f"budget of clients.{self._client} on {self._route}: the store is away",
            retry_after=wait,
            fields=rate_limit_fields(f"budget-{self._per}", self._hard, self._ends - self._starts, wait),
        )


def rate_limit_fields(name: str, quota: int, window: float, reset: float) -> tuple[tuple[str, str], ...]:
    """Return the fields of draft-ietf-httpapi-ratelimit-headers-10 for a limit that is used up."""
    return (
        ("RateLimit-Policy", f'"{name}";q={quota};w={_whole(window)}'),
        ("RateLimit", f'"{name}";r=0;t={_whole(reset)}'),
    )


def _whole(seconds: float) -> int:
    """Return seconds rounded up, at least 1: a client that waits as long is never too early."""
    return max(1, ceil(seconds - _ROUNDING))
