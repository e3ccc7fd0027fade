"""Budgets: how many calls that cost money a client may make in a day or a month.

A call is reserved when it starts and settled when the vendor has answered 2xx or 3xx, as vendors bill; any other end
gives it back. So calls under way can never carry a client past its limit together. Days and months are those of UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from gateway.errors import RateLimited
from gateway.observe import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.access.counters import Counter, CounterStore
    from gateway.model import ClientBudget
    from gateway.observe import ClientMetrics

_log = get_logger("gatepass.access")
NEVER: Final = 2**62
"""More calls than there will be."""


def period_of(per: str, wall: float) -> tuple[str, float, float]:
    """Return the name of the day or month that `wall` (seconds since the epoch) is in, its start and its end."""
    now = datetime.fromtimestamp(wall, UTC)
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return start.strftime("%Y-%m-%d"), start.timestamp(), (start + timedelta(days=1)).timestamp()
    start = start.replace(day=1)
    following = (start + timedelta(days=32)).replace(day=1)
    return start.strftime("%Y-%m"), start.timestamp(), following.timestamp()


class Budget:
    """One budget of one client on one route. Counts live in the store; this finds the one of the period that runs."""

    __slots__ = (
        "_changed",
        "_client",
        "_counter",
        "_ends",
        "_hard",
        "_per",
        "_route",
        "_shown",
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
        self._soft = NEVER if budget.soft is None else budget.soft
        self._hard = NEVER if budget.hard is None else budget.hard
        self._store = store
        self._wall = wall
        self._shown = metrics.budget(budget.per, budget.soft, budget.hard)
        self._starts = self._ends = 0.0
        self._changed = store.changed
        self._counter = self._turn(wall())

    def __repr__(self) -> str:
        return f"<Budget {self._client} on {self._route}: {self._counter.used} of {self._hard} a {self._per}>"

    def reserve(self) -> Counter | None:
        """Reserve a call in the period that runs now; None when the budget is spent. The hot path."""
        wall = self._wall()
        counter = self._counter
        if not self._starts <= wall < self._ends:
            counter = self._turn(wall)
        if counter.used + counter.reserved >= self._hard:
            return None
        counter.reserved += 1
        return counter

    def turn(self) -> None:
        """Show the period that runs now, though nobody calls: what was used in the last one is over."""
        wall = self._wall()
        if not self._starts <= wall < self._ends:
            self._turn(wall)

    def current(self) -> Counter:
        """Return the counter of the period that runs, as last looked at."""
        return self._counter

    def _turn(self, wall: float) -> Counter:
        period, self._starts, self._ends = period_of(self._per, wall)
        self._counter = counter = self._store.counter((self._client, self._route, period))
        self._shown.set(counter.used)
        return counter

    def settle(self, counter: Counter, made: bool) -> None:
        """End a reservation: the call was `made`, or it costs nothing."""
        counter.reserved -= 1
        if made:
            counter.used = used = counter.used + 1
            if counter is self._counter:
                self._shown.value = float(used)
            if used >= self._soft and not counter.warned:
                counter.warned = True
                self._warn(counter)
        self._changed()  # a reservation that was kept meanwhile is to be taken back, too

    def _warn(self, counter: Counter) -> None:
        _log.warning(
            "budget_soft_limit",
            client=self._client,
            route=self._route,
            period=counter.key[2],
            used=counter.used,
            soft=self._soft,
            hard=None if self._hard == NEVER else self._hard,
        )

    def refusal(self) -> RateLimited:
        """Return the error for a call beyond the hard limit; it ends with the period."""
        left = max(1.0, self._ends - self._wall())
        window = int(self._ends - self._starts)
        return RateLimited(
            f"The client {self._client} has used up its calls of this {self._per} on the route {self._route}",
            reason=f"budget of clients.{self._client} on {self._route}: {self._hard} a {self._per}",
            retry_after=left,
            fields=rate_limit_fields(f"budget-{self._per}", self._hard, window, left),
        )


def rate_limit_fields(name: str, quota: int, window: float, reset: float) -> tuple[tuple[str, str], ...]:
    """Return the fields of draft-ietf-httpapi-ratelimit-headers-10 for a limit with nothing left."""
    seconds = max(1, int(-(-reset // 1)))
    return (
        ("RateLimit-Policy", f'"{name}";q={quota};w={max(1, int(window))}'),
        ("RateLimit", f'"{name}";r=0;t={seconds}'),
    )
