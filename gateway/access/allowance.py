"""One client on one route, with everything prepared that admitting a call needs: rules, rate, in flight, budgets.

The hot path: no awaits, no look-ups by name. First everything is asked, then everything is taken, so that a call that
is refused for one reason uses up nothing of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.access.budgets import rate_limit_fields
from gateway.access.counters import Usage
from gateway.errors import ClientForbidden, RateLimited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.access.budgets import Budget
    from gateway.access.counters import Counter
    from gateway.access.rules import Rules
    from gateway.addresses import Networks
    from gateway.model import ClientLimit
    from gateway.observe import ClientMetrics

_BUSY_RETRY: Final = 1.0
"""Seconds after which to try again when too many requests are in flight: nobody knows when one ends."""
_OK, _BAD = 200, 400
_ROUNDING: Final = 0.01
"""Share of an interval that a call may come too early, lest rounding of large instants refuse one that is due."""


class Admission:
    """A call that was let in. `release` it once, however it ends."""

    __slots__ = ("_allowance", "_in_flight", "reserved")

    def __init__(self, allowance: Allowance, reserved: tuple[tuple[Budget, Counter], ...] = ()) -> None:
        self._allowance = allowance
        self._in_flight = allowance.in_flight
        self.reserved = reserved

    @property
    def name(self) -> str:
        """The client."""
        return self._allowance.name

    def release(self, vendor_status: int, *, left: bool = False) -> None:
        """Give back what the call has taken. 2xx and 3xx of the vendor are counted against the budgets.

        `vendor_status` is 0 when the vendor did not answer. `left`: the app hung up after its request had gone out;
        that counts, too, or hanging up would be a way to call without paying.
        """
        self._in_flight.value -= 1
        if self.reserved:
            made = _OK <= vendor_status < _BAD if vendor_status else left
            for budget, counter in self.reserved:
                budget.settle(counter, made)


class Allowance:
    """What one client may do on one route. Immutable but for `usage`, which a reload hands on."""

    __slots__ = (
        "_burst",
        "_interval",
        "_latest",
        "_most_in_flight",
        "_networks",
        "_plain",
        "_rate",
        "_window",
        "budgets",
        "in_flight",
        "metrics",
        "name",
        "route",
        "rules",
        "usage",
    )

    def __init__(
        self,
        name: str,
        route: str,
        *,
        metrics: ClientMetrics,
        usage: Usage | None = None,
        limit: ClientLimit | None = None,
        rules: Rules | None = None,
        networks: Networks | None = None,
        budgets: Sequence[Budget] = (),
    ) -> None:
        self.name = name
        self.route = route
        self.usage = usage or Usage()
        self.rules = rules or None
        self.budgets = tuple(budgets)
        self.metrics = metrics
        self.in_flight = metrics.in_flight
        """Both the gauge and the count that the limit looks at; the same object after a reload."""
        self._networks = networks or None
        self._rate = limit.rate if limit is not None and limit.rate is not None else 0.0
        self._burst = max(1, (limit.burst if limit is not None else None) or int(self._rate))
        self._interval = 1 / self._rate if self._rate else 0.0
        self._window = (self._burst - 1 + _ROUNDING) * self._interval
        most = limit.in_flight if limit is not None else None
        self._most_in_flight = most if most is not None else 2**62
        self._plain = Admission(self)
        self._latest = Admission(self, tuple((budget, budget.current()) for budget in self.budgets))

    def __repr__(self) -> str:
        return f"<Allowance {self.name} on {self.route}, {self.in_flight.value} in flight>"

    def admit(self, method: str, path: str, remote: str, now: float) -> Admission:
        """Let a call in. `path` with its prefix, `remote` the app's address, `now` monotonic.

        Raises ClientForbidden or RateLimited; the caller must `release` what it got.
        """
        if self._networks is not None and remote not in self._networks:
            raise ClientForbidden(
                f"The client {self.name} may not call from this address",
                reason=f"clients.{self.name}.addresses does not hold the address of the app",
            )
        if self.rules is not None:
            self.rules.check(method, path)
        in_flight = self.in_flight
        if in_flight.value >= self._most_in_flight:
            raise self._too_many()
        if not self._interval:
            admission = self._reserve() if self.budgets else self._plain
        else:
            usage = self.usage
            full_at = usage.full_at
            if full_at < now:
                full_at = now
            elif full_at - now > self._window:
                raise self._too_fast(full_at - now - self._window)
            admission = self._reserve() if self.budgets else self._plain
            usage.full_at = full_at + self._interval
        in_flight.value += 1
        return admission

    def _reserve(self) -> Admission:
        """Reserve a call of every budget. All calls of one period share one admission, which holds no state."""
        admission = self._latest
        for budget, expected in admission.reserved:
            counter = budget.reserve()
            if counter is not expected:
                return self._reserve_anew(budget, counter)
        return admission

    def _reserve_anew(self, odd: Budget, counter: Counter | None) -> Admission:
        """A period has begun, or a budget is spent: undo what was reserved, and begin again or refuse."""
        for _, reserved in self._latest.reserved[: self.budgets.index(odd)]:
            reserved.reserved -= 1
        if counter is None:
            self.metrics.limited("budget")
            raise odd.refusal()
        counter.reserved -= 1
        self._latest = Admission(self, tuple((budget, budget.current()) for budget in self.budgets))
        return self._reserve()

    def _too_many(self) -> RateLimited:
        self.metrics.limited("in_flight")
        most = self._most_in_flight
        return RateLimited(
            f"The client {self.name} has {most} requests in flight on the route {self.route}",
            reason=f"in_flight of clients.{self.name} on {self.route}: {most}",
            retry_after=_BUSY_RETRY,
            fields=(
                ("RateLimit-Policy", f'"in-flight";q={most};qu="concurrent-requests"'),
                ("RateLimit", '"in-flight";r=0'),
            ),
        )

    def _too_fast(self, wait: float) -> RateLimited:
        self.metrics.limited("rate")
        wait += _ROUNDING * self._interval
        return RateLimited(
            f"The client {self.name} is faster than {self._rate:g} requests per second on the route {self.route}",
            reason=f"rate of clients.{self.name} on {self.route}: {self._rate:g} per second, burst {self._burst}",
            retry_after=wait,
            fields=rate_limit_fields("rate", self._burst, max(1.0, self._burst * self._interval), wait),
        )
