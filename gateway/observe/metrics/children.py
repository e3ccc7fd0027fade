"""The metrics of one route, one credential, and one client on one route: looked up once, used for every request.

Counting a request costs one dictionary look-up and a few additions to values that exist already (`values.py`).
Nothing here formats a label. A name that traffic chooses becomes a label only if it is in `labels.py`.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Final

from gateway.model.http import COMMON_METHODS, SERVER_ERROR
from gateway.observe.metrics.labels import OUTCOMES, outcome_of, status_label
from gateway.observe.metrics.values import Value

if TYPE_CHECKING:
    from gateway.observe.metrics.collectors import ValueCollector
    from gateway.observe.metrics.declared import DeclaredMetrics

GOOD_FETCHES: Final = frozenset({"ok", "unchanged"})


class RouteMetrics:
    """The metrics of one route. All values are looked up here, once."""

    def __init__(self, name: str, parents: DeclaredMetrics) -> None:
        self.name = name
        self.in_flight = parents.in_flight.labels(name)
        self.pool_open = parents.pool_open.labels(name)
        self.pool_idle = parents.pool_idle.labels(name)
        self.upstream = ""
        """The vendor's host and port, for the log."""
        self.refused_in_a_row = 0
        """Answers passed to apps that refused the injected token, since the vendor last accepted one."""
        self.refusals_passed = 0
        """Answers passed to apps that refused the injected token with less than 500, for the status page."""
        self.last_refusal = 0.0
        """Seconds since the epoch; 0 before the first."""
        self.gone = False
        """The route is no longer configured. Requests that still run on it are counted in no series."""
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
        """Count one finished request in `child` (from `child()`). The hot path.

        `trace_id` becomes an exemplar of both durations; pass it only for a trace that is recorded.
        """
        child.value += 1
        self._duration.observe(seconds, trace_id)
        if upstream_seconds is not None:
            self._upstream_duration.observe(upstream_seconds, trace_id)
        self._bytes_in.value += bytes_in
        self._bytes_out.value += bytes_out

    def child(self, method: str, status: int, code: str) -> Value:
        """Return the counter for requests of this method, status and code. An unknown method counts as `other`."""
        known = method in COMMON_METHODS
        return self._value(self._parents.requests, method if known else "other", status_label(status), code)

    def _value(self, family: ValueCollector, *labels: str) -> Value:
        return family.new() if self.gone else family.labels(self.name, *labels)

    def app_token(self, client: str, outcome: str) -> None:
        """Count a token request of an app; `client` is empty where it is not known."""
        collector = self._parents.app_tokens
        (collector.new() if self.gone else collector.labels(client, self.name, outcome)).inc()

    def vendor_refusal(self) -> None:
        """Count an answer that refused the token that the gateway injected."""
        self._refusals.inc()

    def token_refused(self, status: int, *, replayed: bool) -> str:
        """Remember an answer that refused the injected token and goes to the app; return the reason for the log."""
        self.refused_in_a_row += 1
        self.refusals_passed += status < SERVER_ERROR
        self.last_refusal = self._parents.wall()
        return f"{self.upstream} refused the token with {status}{', after a new token was fetched' if replayed else ''}"

    def replayed(self, outcome: str) -> None:
        """Count the outcome of a possible replay after a refused token."""
        self._value(self._parents.replays, outcome).inc()

    def connect(self, outcome: str, seconds: float) -> None:
        """Count an attempt to open a vendor connection, with its duration in seconds."""
        self._value(self._parents.connects, outcome).inc()
        if outcome == "no_descriptor":
            self._parents.no_descriptor("upstream")
        self._connect_duration.observe(seconds)

    def pool_size(self, size: int) -> None:
        """Set the limit of the route's pool."""
        self._value(self._parents.pool_size).set(size)

    def echoed(self, place: str) -> None:
        """Count an answer that contained the injected token; `place` is `header` or `body`."""
        self._value(self._parents.echoes, place).inc()

    def pool_wait(self, seconds: float) -> None:
        """Observe how many seconds a request waited for a free connection, whether or not it got one."""
        self._pool_wait.observe(seconds)


class Waiters:
    """Requests waiting for a token: a gauge of the current ones and a counter of all."""

    __slots__ = ("_now", "_total")

    def __init__(self, now: Value, total: Value) -> None:
        self._now = now
        self._total = total

    def inc(self) -> None:
        """A request starts to wait."""
        self._now.inc()
        self._total.inc()

    def dec(self) -> None:
        """A request stops waiting."""
        self._now.dec()


class CredentialMetrics:
    """The metrics of one credential.

    Gauges without a meaning before the first token (expiry, life, skew, last success) have no series until then,
    because zero would read as "expired in 1970".
    """

    def __init__(self, name: str, parents: DeclaredMetrics) -> None:
        self.name = name
        self.gone = False
        """The credential is no longer configured."""
        self.waiters = Waiters(parents.token_waiters.labels(name), parents.token_waits.labels(name))
        self._parents = parents
        self._duration = parents.fetch_duration.labels(name)
        self._unchanged = parents.token_unchanged.labels(name)
        self.secret_used("current")
        self._failures = parents.token_failures.labels(name)

    def _value(self, family: ValueCollector, *labels: str) -> Value:
        return family.new() if self.gone else family.labels(self.name, *labels)

    def fetched(self, outcome: str, cause: str, seconds: float) -> None:
        """Count one finished token request."""
        self._value(self._parents.fetches, outcome, cause).inc()
        self._duration.observe(seconds)
        if outcome in GOOD_FETCHES:
            self._value(self._parents.token_last_success).set(self._parents.wall())

    def no_descriptor(self) -> None:
        """Count a token request that failed because no file descriptor was left."""
        self._parents.no_descriptor("token_endpoint")

    def expires(self, wall_timestamp: float, life: float) -> None:
        """Set the current token's expiry (seconds since the epoch) and life (seconds); both `inf` for a static key."""
        self._value(self._parents.token_expiry).set(wall_timestamp)
        self._value(self._parents.token_life).set(life)
        if isfinite(life):
            self._value(self._parents.token_issued).set(wall_timestamp - life)

    def ended(self) -> None:
        """Set the expiry to now, because the current token was dropped early."""
        self._value(self._parents.token_expiry).set(self._parents.wall())

    def skew(self, seconds: float) -> None:
        """Set the vendor's clock minus ours."""
        self._value(self._parents.token_skew).set(seconds)

    def failures(self, consecutive: int) -> None:
        """Set the number of failed token requests in a row."""
        self._failures.set(consecutive)

    def unchanged(self) -> None:
        """Count a token request that returned the current token again."""
        self._unchanged.inc()

    def adopted(self, *, is_own: bool = False) -> None:
        """Record a token from the shared store that is used from now on; count it unless this instance fetched it."""
        self._value(self._parents.token_last_success).set(self._parents.wall())
        if not is_own:
            self._value(self._parents.token_adopted).inc()

    def origin(self, origin: str) -> None:
        """Set where the current token came from: `fetched` by this instance, or `adopted` from another one."""
        for each in ("fetched", "adopted"):
            self._value(self._parents.token_origin, each).set(int(each == origin))

    def lease(self, outcome: str) -> None:
        """Count a lease that has ended: `committed`, `refused`, `failed` or `lost`."""
        self._value(self._parents.store_leases, outcome).inc()

    def secret_used(self, which: str) -> None:
        """Set which secret worked last: `current` or `next`."""
        for secret in ("current", "next"):
            self._value(self._parents.secret_in_use, secret).set(int(secret == which))


class ClientMetrics:
    """The metrics of one client on one route."""

    def __init__(self, name: str, route: str, parents: DeclaredMetrics) -> None:
        self.name = name
        self.route = route
        self.in_flight = parents.client_in_flight.labels(name, route)
        self.billed = parents.client_billed.labels(name, route)
        """Calls that the vendor bills."""
        self.calls = Value()
        """Calls that were admitted, for `gatepass usage`; in no series, because outcomes add up to it."""
        self.outcomes = {outcome: parents.client_requests.labels(name, route, outcome) for outcome in OUTCOMES}
        """Counters by outcome."""
        self._parents = parents

    def outcome(self, vendor_status: int, status: int, code: str) -> Value:
        """Return the counter for requests of this client with this outcome."""
        return self.outcomes[outcome_of(vendor_status, status, code)]

    def limited(self, limit: str) -> None:
        """Count a request that was refused because of a limit: `rate`, `in_flight` or `budget`."""
        self._parents.client_limited.labels(self.name, self.route, limit).inc()

    def budget(self, per: str, soft: int | None, hard: int | None) -> Value:
        """Set the gauges of a budget's limits, and return the gauge of the calls used."""
        for level, calls in (("soft", soft), ("hard", hard)):
            if calls is not None:
                self._parents.budget_limit.labels(self.name, self.route, per, level).set(calls)
        return self._parents.budget_used.labels(self.name, self.route, per)


class PlaneMetrics:
    """The metrics of one plane that asks."""

    def __init__(self, name: str, parents: DeclaredMetrics) -> None:
        self.name = name
        self.last_question = 0.0
        """Seconds since the epoch; 0 before the first."""
        self.refusals = 0
        """Questions that got no token, since the start."""
        self.refused_tokens = 0
        """Tokens that it reported as refused, since the start."""
        self._parents = parents
        self._asked: Value | None = None
        self._children: dict[tuple[str, str], Value] = {}

    def asked(self, route: str, outcome: str, now: float) -> None:
        """Count a question about a route; `outcome` is `token` or the code of the error, `now` since the epoch."""
        child = self._children.get((route, outcome))
        if child is None:
            child = self._children[route, outcome] = self._parents.plane_questions.labels(self.name, route, outcome)
            self._asked = self._parents.plane_asked.labels(self.name)
        child.value += 1
        self.last_question = now
        if self._asked is not None:
            self._asked.value = now
        if outcome != "token":
            self.refusals += 1

    def forget(self) -> None:
        """Look up all values again, because some of them may no longer be in a series."""
        self._children.clear()

    def refused_token(self, route: str) -> None:
        """Count a question that reported a refused token."""
        self._parents.plane_refused.labels(self.name, route).inc()
        self.refused_tokens += 1
