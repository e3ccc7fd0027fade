"""What is counted for one route, one credential, one client on one route: children bound once, used for every request.

Knows nothing of who counts. On the hot path a request costs a dictionary look-up and a few additions to children that
exist already (`values.py`); nothing here formats a label or takes a name from traffic unchecked.
"""

from __future__ import annotations

from http import HTTPStatus
from math import isfinite
from typing import TYPE_CHECKING, Final

from gateway.model.http import COMMON_METHODS

if TYPE_CHECKING:
    from gateway.observe.metrics.collectors import ValueCollector
    from gateway.observe.metrics.registry import Metrics
    from gateway.observe.metrics.values import Value

STATUSES: Final = frozenset({int(status) for status in HTTPStatus} | {499})
"""Statuses that are a label value of their own; any other is counted as its class (`5xx`), or as `other`."""
GOOD_FETCHES: Final = frozenset({"ok", "unchanged"})
_BAD: Final = 400
"""From this status on, a vendor's answer is an error (RFC 9110 §15)."""
OUTCOMES: Final = ("ok", "vendor_error", "refused", "failed", "gone")
"""How a client's request ends: the vendor's 1xx to 3xx, its 4xx and 5xx, our 4xx, our 5xx, nobody left to answer."""


def _status_label(status: int) -> str:
    if status in STATUSES:
        return str(status)
    return f"{status // 100}xx" if 100 <= status <= 599 else "other"  # noqa: PLR2004  RFC 9110 §15


class RouteMetrics:
    """What is counted for one route. All children are bound here, once."""

    def __init__(self, name: str, parents: Metrics) -> None:
        self.name = name
        self.in_flight = parents.in_flight.labels(name)
        self.pool_open = parents.pool_open.labels(name)
        self.pool_idle = parents.pool_idle.labels(name)
        self.gone = False
        """The route is no longer configured: exchanges that still run on it are counted nowhere."""
        self._parents = parents
        self._duration = parents.request_duration.labels(name)
        self._upstream_duration = parents.upstream_duration.labels(name)
        self._bytes_in = parents.request_bytes.labels(name)
        self._bytes_out = parents.response_bytes.labels(name)
        self._refusals = parents.refusals.labels(name)
        self._connect_duration = parents.connect_duration.labels(name)
        self._pool_wait = parents.pool_wait_duration.labels(name)

    def request(  # noqa: PLR0917  as `count`
        self,
        method: str,
        status: int,
        code: str,
        seconds: float,
        upstream_seconds: float | None,
        bytes_in: int,
        bytes_out: int,
        trace_id: str | None = None,
    ) -> None:
        """Count one finished request; `code` is empty for the vendor's own answer."""
        self.count(self.child(method, status, code), seconds, upstream_seconds, bytes_in, bytes_out, trace_id)

    def count(  # noqa: PLR0917  called once a request: keywords would cost more than the counting
        self,
        child: Value,
        seconds: float,
        upstream_seconds: float | None,
        bytes_in: int,
        bytes_out: int,
        trace_id: str | None,
    ) -> None:
        """Count one finished request of a kind whose `child` is known. The hot path.

        `trace_id` becomes an exemplar of both durations: give it only for a trace that is recorded.
        """
        child.value += 1
        self._duration.observe(seconds, trace_id)
        if upstream_seconds is not None:
            self._upstream_duration.observe(upstream_seconds, trace_id)
        self._bytes_in.value += bytes_in
        self._bytes_out.value += bytes_out

    def child(self, method: str, status: int, code: str) -> Value:
        """Return where requests of a kind are counted. What an app may invent has no label of its own."""
        known = method in COMMON_METHODS
        return self._value(self._parents.requests, method if known else "other", _status_label(status), code)

    def _value(self, family: ValueCollector, *labels: str) -> Value:
        return family.new() if self.gone else family.labels(self.name, *labels)

    def vendor_refusal(self) -> None:
        """Count an answer that refused the token which we had injected."""
        self._refusals.inc()

    def replayed(self, outcome: str) -> None:
        """Count a request that was, or could have been, sent again after a refusal."""
        self._value(self._parents.replays, outcome).inc()

    def connect(self, outcome: str, seconds: float) -> None:
        """Count an attempt to open a connection to the vendor."""
        self._value(self._parents.connects, outcome).inc()
        self._connect_duration.observe(seconds)

    def pool_size(self, size: int) -> None:
        """Show how many connections the pool may hold."""
        self._value(self._parents.pool_size).set(size)

    def echoed(self, place: str) -> None:
        """Count an answer that held our token, in its `header` or `body`."""
        self._value(self._parents.echoes, place).inc()

    def pool_wait(self, seconds: float) -> None:
        """Count an exchange that waited for a free connection, served in the end or not."""
        self._pool_wait.observe(seconds)


class Waiters:
    """Requests waiting for a token: a gauge of those who wait now and a counter of all who ever did."""

    __slots__ = ("_now", "_total")

    def __init__(self, now: Value, total: Value) -> None:
        self._now = now
        self._total = total

    def inc(self) -> None:
        """One more waits."""
        self._now.inc()
        self._total.inc()

    def dec(self) -> None:
        """One waits no longer."""
        self._now.dec()


class CredentialMetrics:
    """What is counted for one credential.

    Gauges that mean nothing before the first token (expiry, life, skew, last success) have no series until then:
    a zero would read as "expired in 1970".
    """

    def __init__(self, name: str, parents: Metrics) -> None:
        self.name = name
        self.gone = False
        """The credential is no longer configured."""
        self.waiters = Waiters(parents.token_waiters.labels(name), parents.token_waits.labels(name))
        self._parents = parents
        self._duration = parents.fetch_duration.labels(name)
        self._unchanged = parents.token_unchanged.labels(name)
        self._failures = parents.token_failures.labels(name)

    def _value(self, family: ValueCollector, *labels: str) -> Value:
        return family.new() if self.gone else family.labels(self.name, *labels)

    def fetched(self, outcome: str, cause: str, seconds: float) -> None:
        """Count one token request that ended."""
        self._value(self._parents.fetches, outcome, cause).inc()
        self._duration.observe(seconds)
        if outcome in GOOD_FETCHES:
            self._value(self._parents.token_last_success).set(self._parents.wall())

    def expires(self, wall_timestamp: float, life: float) -> None:
        """Show the token in hand: the wall-clock instant of its end and the seconds granted; `inf` for a static key."""
        self._value(self._parents.token_expiry).set(wall_timestamp)
        self._value(self._parents.token_life).set(life)
        if isfinite(life):
            self._value(self._parents.token_issued).set(wall_timestamp - life)

    def ended(self) -> None:
        """The token in hand was dropped before its time: it ends now, until another one comes."""
        self._value(self._parents.token_expiry).set(self._parents.wall())

    def skew(self, seconds: float) -> None:
        """Show the vendor's clock minus ours."""
        self._value(self._parents.token_skew).set(seconds)

    def failures(self, consecutive: int) -> None:
        """Show how many token requests failed in a row."""
        self._failures.set(consecutive)

    def unchanged(self) -> None:
        """Count a token request that brought back the token in hand."""
        self._unchanged.inc()

    def secret_used(self, which: str) -> None:
        """Show which secret worked last: `current` or `next`."""
        for secret in ("current", "next"):
            self._value(self._parents.secret_in_use, secret).set(int(secret == which))


class ClientMetrics:
    """What is counted for one client on one route."""

    def __init__(self, name: str, route: str, parents: Metrics) -> None:
        self.name = name
        self.route = route
        self.in_flight = parents.client_in_flight.labels(name, route)
        self.outcomes = {outcome: parents.client_requests.labels(name, route, outcome) for outcome in OUTCOMES}
        """By how a request ends."""
        self._parents = parents

    def outcome(self, vendor_status: int, status: int, code: str) -> Value:
        """Return where calls of this client are counted that ended so, let in or not."""
        if code == "client_gone":
            return self.outcomes["gone"]
        if not code:
            return self.outcomes["ok" if vendor_status < _BAD else "vendor_error"]
        refused = status < 500 and code != "aborted"  # noqa: PLR2004 - RFC 9110 §15.6
        return self.outcomes["refused" if refused else "failed"]

    def limited(self, limit: str) -> None:
        """Count a request that was refused because of a limit: `rate`, `in_flight` or `budget`."""
        self._parents.client_limited.labels(self.name, self.route, limit).inc()

    def budget(self, per: str, soft: int | None, hard: int | None) -> Value:
        """Show what a budget grants, and return the child of what is used."""
        for level, calls in (("soft", soft), ("hard", hard)):
            if calls is not None:
                self._parents.budget_limit.labels(self.name, self.route, per, level).set(calls)
        return self._parents.budget_used.labels(self.name, self.route, per)
