"""One client on one route: its rules, rate, calls in flight and budgets, prepared for the hot path.

No awaits and no lookups by name. All checks run before anything is counted, so a call that is rejected for one reason
does not count against another limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.access.budgets import rate_limit_fields
from gateway.access.counters import UNLIMITED, RateState
from gateway.errors import ClientForbidden, RateLimited
from gateway.model.http import ERROR, FINAL, SWITCHING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.access.budgets import Budget
    from gateway.access.counters import Counter
    from gateway.access.rules import Rules
    from gateway.addresses import Networks
    from gateway.model import ClientLimit
    from gateway.observe import ClientMetrics

_BUSY_RETRY: Final = 1.0
"""`Retry-After` in seconds when too many requests are in flight; when one ends is not known."""
_ROUNDING: Final = 0.01
"""Share of an interval by which a call may be early, so that rounding never rejects a call that is due."""


class Admission:
    """An admitted call. Call `release` once when it ends."""

    __slots__ = ("_billed", "_calls", "_in_flight", "reserved")

    def __init__(self, allowance: Allowance, reserved: tuple[tuple[Budget, Counter], ...] = ()) -> None:
        self._in_flight = allowance.in_flight
        self._calls = allowance.metrics.calls
        self._billed = allowance.metrics.billed
        self.reserved = reserved

    def release(self, vendor_status: int, *, left: bool = False) -> None:
        """Release what the call has reserved. It counts if the vendor answered 101, 2xx or 3xx.

        `vendor_status` is 0 if the vendor did not answer. `left`: the app disconnected after its request had been
        sent; that counts, too, because the vendor may charge for it.
        """
        self._in_flight.value -= 1
        self._calls.value += 1
        made = FINAL <= vendor_status < ERROR or vendor_status == SWITCHING or (left and not vendor_status)
        if made:
            self._billed.value += 1
        if self.reserved:
            for budget, counter in self.reserved:
                budget.settle(counter, made)


class Allowance:
    """What one client may do on one route. Immutable except for `rate_state`, which a reload keeps."""

    __slots__ = (
        "_burst",
        "_in_flight_limit",
        "_interval",
        "_latest",
        "_most_in_flight",
        "_networks",
        "_plain",
        "_rate",
        "_rate_is_none",
        "_window",
        "budgets",
        "in_flight",
        "metrics",
        "name",
        "rate_state",
        "route",
        "rules",
        "token_rate_state",
    )

    def __init__(
        self,
        name: str,
        route: str,
        *,
        metrics: ClientMetrics,
        rate_state: RateState | None = None,
        token_rate_state: RateState | None = None,
        limit: ClientLimit | None = None,
        rules: Rules | None = None,
        networks: Networks | None = None,
        budgets: Sequence[Budget] = (),
    ) -> None:
        self.name = name
        self.route = route
        self.rate_state = rate_state or RateState()
        self.token_rate_state = token_rate_state or RateState()
        """The rate of requests for a pass, which does not count as a call."""
        self.rules = rules or None
        self.budgets = tuple(budgets)
        self.metrics = metrics
        self.in_flight = metrics.in_flight
        """Both the gauge and the count that the limit uses; the same object after a reload."""
        self._networks = networks or None
        self._rate = limit.rate if limit is not None and limit.rate is not None else 0.0
        self._burst = max(1, (limit.burst if limit is not None else None) or int(self._rate))
        self._in_flight_limit = limit.in_flight if limit is not None else None
        self._interval = self._window = 0.0
        self._most_in_flight = UNLIMITED
        self._rate_is_none = False
        """This instance has no part of the rate, because it is smaller than the number of instances."""
        self.use_part(0, 1)
        self._plain = Admission(self)
        self._latest = Admission(self, tuple((budget, budget.current()) for budget in self.budgets))

    def __repr__(self) -> str:
        return f"<Allowance {self.name} on {self.route}, {self.in_flight.value:.0f} in flight>"

    def use_part(self, rank: int, members: int) -> bool:
        """Use one part of `members` of the rate and of the limit in flight; `rank` counts the parts from 0.

        The parts of all instances together are exactly the limits. Return False if this part is nothing.
        """
        most = self._in_flight_limit
        self._most_in_flight = UNLIMITED if most is None else most // members + (rank < most % members)
        self._rate_is_none = False
        if self._rate:
            burst = self._burst // members + (rank < self._burst % members)
            self._interval = min(members, self._burst) / self._rate
            self._window = (max(1, burst) - 1 + _ROUNDING) * self._interval
            if not burst:
                self._rate_is_none = True
                self._most_in_flight = 0
        return self._most_in_flight > 0

    def check(self, method: str, path: str, remote: str | None, *, plain: bool = False) -> None:
        """Raise ClientForbidden unless the client may send this; counts nothing.

        `path` includes the route's prefix; with `plain`, it is known to have only one reading. `remote` is the app's
        address; None is not checked.
        """
        if self._networks is not None and remote is not None:
            self.check_address(remote)
        if self.rules is not None:
            self.rules.check(method, path, plain=plain)

    @property
    def names_addresses(self) -> bool:
        """Whether the client may call from some addresses only."""
        return self._networks is not None

    def check_address(self, remote: str) -> None:
        """Raise ClientForbidden unless the client may call from this address."""
        if self._networks is not None and remote not in self._networks:
            raise ClientForbidden(
                f"The client {self.name} may not call from this address",
                reason=f"clients.{self.name}.addresses does not contain the address of the app",
            )

    def admit_token_request(self, now: float) -> None:
        """Count a request for a pass at `now` (monotonic), in a bucket of its own. Raises RateLimited."""
        rate = self.token_rate_state
        full_at = max(rate.full_at, now)
        if full_at - now > self._window:
            raise self._rate_error(full_at - now - self._window)
        rate.full_at = full_at + self._interval

    def admit(self, now: float) -> Admission:
        """Count a call that starts at `now` (monotonic). The caller must `release` the result.

        Raises RateLimited, and EscrowNeeded if the call must wait for the shared store and then be admitted again.
        """
        in_flight = self.in_flight
        if in_flight.value >= self._most_in_flight:
            raise self._in_flight_error()
        if not self._interval:
            admission = self._reserve() if self.budgets else self._plain
        else:
            rate = self.rate_state
            full_at = rate.full_at
            if full_at < now:
                full_at = now
            elif full_at - now > self._window:
                raise self._rate_error(full_at - now - self._window)
            admission = self._reserve() if self.budgets else self._plain
            rate.full_at = full_at + self._interval
        in_flight.value += 1
        return admission

    def _reserve(self) -> Admission:
        """Reserve a call of every budget. All calls of one period share one admission, because it has no state."""
        admission = self._latest
        for budget, expected in admission.reserved:
            counter = budget.reserve()
            if counter is not expected:
                return self._reserve_anew(budget, counter)
        return admission

    def _reserve_anew(self, odd: Budget, counter: Counter | None) -> Admission:
        """Undo the reservations; reserve again if a period has begun, or raise if the budget is spent."""
        for _, reserved in self._latest.reserved[: self.budgets.index(odd)]:
            reserved.reserved -= 1
        if counter is None:
            refusal = odd.refusal()
            if isinstance(refusal, RateLimited):
                self.metrics.limited("budget")
            raise refusal
        counter.reserved -= 1
        self._latest = Admission(self, tuple((budget, budget.current()) for budget in self.budgets))
        return self._reserve()

    def _in_flight_error(self) -> RateLimited:
        if self._rate_is_none:
            return self._rate_error(self._interval)
        self.metrics.limited("in_flight")
        most = self._in_flight_limit or 0
        return RateLimited(
            f"The client {self.name} has {most} requests in flight on the route {self.route}",
            reason=f"in_flight of clients.{self.name} on {self.route}: {most}",
            retry_after=_BUSY_RETRY,
            fields=(
                ("RateLimit-Policy", f'"in-flight";q={most};qu="concurrent-requests"'),
                ("RateLimit", '"in-flight";r=0'),
            ),
        )

    def _rate_error(self, wait: float) -> RateLimited:
        self.metrics.limited("rate")
        wait += _ROUNDING * self._interval
        return RateLimited(
            f"The client {self.name} is faster than {self._rate:g} requests per second on the route {self.route}",
            reason=f"rate of clients.{self.name} on {self.route}: {self._rate:g} per second, burst {self._burst}",
            retry_after=wait,
            fields=rate_limit_fields("rate", self._burst, max(1.0, self._burst / self._rate), wait),
        )
