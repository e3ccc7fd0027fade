"""Counting: the declarations of `families.py` on a registry of our own, children bound once per route and credential.

Knows nothing of who counts. On the hot path a request costs a dictionary look-up and a few additions to children that
exist already (`counting.py`); nothing here formats a label or takes a name from traffic unchecked.
`Metrics` is built by the composition root, one per process; tests build as many as they like.
"""

from __future__ import annotations

import platform
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from gateway import __version__
from gateway.observe import families
from gateway.observe.counting import Level, Levels, Spreads
from gateway.observe.writer import dropped_events

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.observe.families import Family

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that are a label value of their own; any other is counted as `other`."""
STATUSES = frozenset({int(status) for status in HTTPStatus} | {499})
"""Statuses that are a label value of their own; any other is counted as its class (`5xx`), or as `other`."""
GOOD_FETCHES = frozenset({"ok", "unchanged"})


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
        self._parents = parents
        self._requests: dict[tuple[str, int, str], Level] = {}
        self._duration = parents.request_duration.labels(name)
        self._upstream_duration = parents.upstream_duration.labels(name)
        self._bytes_in = parents.request_bytes.labels(name)
        self._bytes_out = parents.response_bytes.labels(name)
        self._refusals = parents.refusals.labels(name)
        self._connect_duration = parents.connect_duration.labels(name)
        self._pool_wait = parents.pool_wait_duration.labels(name)

    def request(  # noqa: PLR0917  called once a request: keywords would cost more than the counting
        self,
        method: str,
        status: int,
        code: str,
        seconds: float,
        upstream_seconds: float | None,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        """Count one finished request; `code` is empty for the vendor's own answer. The hot path."""
        child = self._requests.get((method, status, code))
        if child is None:
            child = self._bind(method, status, code)
        child.value += 1
        self._duration.observe(seconds)
        if upstream_seconds is not None:
            self._upstream_duration.observe(upstream_seconds)
        self._bytes_in.value += bytes_in
        self._bytes_out.value += bytes_out

    def _bind(self, method: str, status: int, code: str) -> Level:
        """Bind the child; only what has labels of its own is remembered, so that traffic cannot fill the dictionary."""
        known = method in METHODS
        child = self._parents.requests.labels(self.name, method if known else "other", _status_label(status), code)
        if known and status in STATUSES:
            self._requests[method, status, code] = child
        return child

    def vendor_refusal(self) -> None:
        """Count an answer that refused the token which we had injected."""
        self._refusals.inc()

    def replayed(self, outcome: str) -> None:
        """Count a request that was, or could have been, sent again after a refusal."""
        self._parents.replays.labels(self.name, outcome).inc()

    def connect(self, outcome: str, seconds: float) -> None:
        """Count an attempt to open a connection to the vendor."""
        self._parents.connects.labels(self.name, outcome).inc()
        self._connect_duration.observe(seconds)

    def pool_wait(self, seconds: float) -> None:
        """Count an exchange that waited for a free connection, served in the end or not."""
        self._pool_wait.observe(seconds)


class Waiters:
    """Requests waiting for a token: a gauge of those who wait now and a counter of all who ever did."""

    __slots__ = ("_now", "_total")

    def __init__(self, now: Gauge, total: Counter) -> None:
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
        self.waiters = Waiters(parents.token_waiters.labels(name), parents.token_waits.labels(name))
        self._parents = parents
        self._duration = parents.fetch_duration.labels(name)
        self._unchanged = parents.token_unchanged.labels(name)
        self._failures = parents.token_failures.labels(name)

    def fetched(self, outcome: str, cause: str, seconds: float) -> None:
        """Count one token request that ended."""
        self._parents.fetches.labels(self.name, outcome, cause).inc()
        self._duration.observe(seconds)
        if outcome in GOOD_FETCHES:
            self._parents.token_last_success.labels(self.name).set(self._parents.wall())

    def expires(self, wall_timestamp: float, life: float) -> None:
        """Show the token in hand: the wall-clock instant of its end and the seconds granted; `inf` for a static key."""
        self._parents.token_expiry.labels(self.name).set(wall_timestamp)
        self._parents.token_life.labels(self.name).set(life)

    def skew(self, seconds: float) -> None:
        """Show the vendor's clock minus ours."""
        self._parents.token_skew.labels(self.name).set(seconds)

    def failures(self, consecutive: int) -> None:
        """Show how many token requests failed in a row."""
        self._failures.set(consecutive)

    def unchanged(self) -> None:
        """Count a token request that brought back the token in hand."""
        self._unchanged.inc()

    def secret_used(self, which: str) -> None:
        """Show which secret worked last: `current` or `next`."""
        for secret in ("current", "next"):
            self._parents.secret_in_use.labels(self.name, secret).set(secret == which)


class Metrics:
    """All metrics of a process on a registry of their own (`registry`).

    `wall` tells the time of a good fetch or a load; seconds since the epoch.
    """

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # doubles the series, and nobody asks for it
        self.wall = wall
        self.registry = CollectorRegistry(auto_describe=True)
        self._routes: dict[str, RouteMetrics] = {}
        self._credentials: dict[str, CredentialMetrics] = {}
        self._declare_requests()
        self._declare_upstreams()
        self._declare_tokens()
        self._declare_process()

    def _declare_requests(self) -> None:
        self.requests = Levels(families.REQUESTS, self.registry)
        self.request_duration = Spreads(families.REQUEST_DURATION, self.registry)
        self.upstream_duration = Spreads(families.UPSTREAM_DURATION, self.registry)
        self.in_flight = Levels(families.IN_FLIGHT, self.registry)
        self.request_bytes = Levels(families.REQUEST_BYTES, self.registry)
        self.response_bytes = Levels(families.RESPONSE_BYTES, self.registry)
        self.unrouted = Levels(families.UNROUTED, self.registry)
        self.connections = Levels(families.CONNECTIONS, self.registry).labels()

    def _declare_upstreams(self) -> None:
        self.refusals = Levels(families.REFUSALS, self.registry)
        self.replays = Levels(families.REPLAYS, self.registry)
        self.connects = Levels(families.CONNECTS, self.registry)
        self.connect_duration = Spreads(families.CONNECT_DURATION, self.registry)
        self.pool_open = Levels(families.POOL_OPEN, self.registry)
        self.pool_idle = Levels(families.POOL_IDLE, self.registry)
        self.pool_wait_duration = Spreads(families.POOL_WAIT, self.registry)

    def _declare_tokens(self) -> None:
        self.fetches = self._counter(families.FETCHES)
        self.fetch_duration = self._histogram(families.FETCH_DURATION)
        self.token_expiry = self._gauge(families.EXPIRY)
        self.token_life = self._gauge(families.LIFE)
        self.token_waiters = self._gauge(families.WAITERS)
        self.token_waits = self._counter(families.WAITS)
        self.token_unchanged = self._counter(families.UNCHANGED)
        self.token_failures = self._gauge(families.FAILURES)
        self.token_last_success = self._gauge(families.LAST_SUCCESS)
        self.token_skew = self._gauge(families.SKEW)
        self.secret_in_use = self._gauge(families.SECRET_IN_USE)

    def _declare_process(self) -> None:
        self.build = self._info(families.BUILD)
        self.build.info({"version": __version__, "python": platform.python_version(), "aiohttp": aiohttp.__version__})
        self.config = self._info(families.CONFIG)
        self.config_loads = self._counter(families.CONFIG_LOADS)
        self.config_loaded_at = self._gauge(families.CONFIG_LOADED)
        self.log_dropped = self._counter(families.LOG_DROPPED)
        self._log_dropped_seen = 0
        ProcessCollector(registry=self.registry)

    def route(self, name: str) -> RouteMetrics:
        """Return the route's children, the same object every time."""
        metrics = self._routes.get(name)
        if metrics is None:
            metrics = self._routes[name] = RouteMetrics(name, self)
        return metrics

    def credential(self, name: str) -> CredentialMetrics:
        """Return the credential's children, the same object every time."""
        metrics = self._credentials.get(name)
        if metrics is None:
            metrics = self._credentials[name] = CredentialMetrics(name, self)
        return metrics

    def refused(self, code: str) -> None:
        """Count a request that was refused before a route was known."""
        self.unrouted.labels(code).inc()

    def config_loaded(self, outcome: str, digest: str = "") -> None:
        """Count a reading of the configuration: `ok` with the digest now in force, or `failed`."""
        self.config_loads.labels(outcome).inc()
        if outcome == "ok":
            self.config.info({"digest": digest})
            self.config_loaded_at.set(self.wall())

    def exposition(self, accept: str | None = None) -> tuple[bytes, str]:
        """Return all metrics and their content type: Prometheus text, or OpenMetrics if `Accept` asks for it."""
        dropped = dropped_events()
        self.log_dropped.inc(dropped - self._log_dropped_seen)
        self._log_dropped_seen = dropped
        encode, content_type = choose_encoder(accept or "")
        return encode(self.registry), content_type

    def _counter(self, family: Family) -> Counter:
        return Counter(family.full_name, family.help, family.labels, registry=self.registry)

    def _gauge(self, family: Family) -> Gauge:
        return Gauge(family.full_name, family.help, family.labels, registry=self.registry)

    def _histogram(self, family: Family) -> Histogram:
        return Histogram(family.full_name, family.help, family.labels, registry=self.registry, buckets=family.buckets)

    def _info(self, family: Family) -> Info:
        return Info(family.full_name.removesuffix("_info"), family.help, registry=self.registry)
