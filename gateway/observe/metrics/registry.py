"""Counting: the declarations of `families.py` on a registry of our own, and the page that a scrape reads.

What a request touches is bound once per route, credential and client (`children.py`) and counted in plain children
(`collectors.py`). A page is written family by family, so that requests are served in between. `Metrics` is built by the
composition root, one per process; tests build as many as they like.
"""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
from prometheus_client import CollectorRegistry, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from gateway import __version__
from gateway.observe.log.writer import dropped_events
from gateway.observe.metrics import children, families
from gateway.observe.metrics.children import ClientMetrics, CredentialMetrics, RouteMetrics
from gateway.observe.metrics.collectors import HistogramCollector, ValueCollector
from gateway.observe.trace.spans import dropped_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from gateway.observe.metrics.collectors import FamilyCollector
    from gateway.observe.metrics.families import Family


def _nothing() -> None:
    """Nothing is held back."""


class Metrics:
    """All metrics of a process on a registry of their own (`registry`).

    `wall` tells the time of a good fetch or a load; seconds since the epoch.
    """

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        self.wall = wall
        self.registry = CollectorRegistry(auto_describe=True)
        self.settle: Callable[[], None] = _nothing
        """Counts what has ended and is not counted yet: called before the children of requests are read."""
        self._collectors: list[FamilyCollector[Any]] = []
        self._routes: dict[str, RouteMetrics] = {}
        self._credentials: dict[str, CredentialMetrics] = {}
        self._clients: dict[tuple[str, str], ClientMetrics] = {}
        self._declare_requests()
        self._declare_upstreams()
        self._declare_clients()
        self._declare_tokens()
        self._declare_process()

    def _declare_requests(self) -> None:
        self.requests = self._values(families.REQUESTS)
        self.request_duration = self._histograms(families.REQUEST_DURATION)
        self.upstream_duration = self._histograms(families.UPSTREAM_DURATION)
        self.in_flight = self._values(families.IN_FLIGHT)
        self.request_bytes = self._values(families.REQUEST_BYTES)
        self.response_bytes = self._values(families.RESPONSE_BYTES)
        self.unrouted = self._values(families.UNROUTED)
        self.connections = self._values(families.CONNECTIONS).labels()

    def _declare_upstreams(self) -> None:
        self.refusals = self._values(families.REFUSALS)
        self.replays = self._values(families.REPLAYS)
        self.connects = self._values(families.CONNECTS)
        self.connect_duration = self._histograms(families.CONNECT_DURATION)
        self.pool_size = self._values(families.POOL_SIZE)
        self.pool_open = self._values(families.POOL_OPEN)
        self.pool_idle = self._values(families.POOL_IDLE)
        self.pool_wait_duration = self._histograms(families.POOL_WAIT)
        self.echoes = self._values(families.ECHOES)

    def _declare_clients(self) -> None:
        self.client_requests = self._values(families.CLIENT_REQUESTS)
        self.client_limited = self._values(families.CLIENT_LIMITED)
        self.client_in_flight = self._values(families.CLIENT_IN_FLIGHT)
        self.budget_used = self._values(families.BUDGET_USED)
        self.budget_limit = self._values(families.BUDGET_LIMIT)
        self.state_writes = self._values(families.STATE_WRITES)
        self.key_fetches = self._values(families.KEY_FETCHES)
        self.keys_seen = self._values(families.KEYS_SEEN)

    def _declare_tokens(self) -> None:
        self.fetches = self._values(families.FETCHES)
        self.fetch_duration = self._histograms(families.FETCH_DURATION)
        self.token_expiry = self._values(families.EXPIRY)
        self.token_issued = self._values(families.ISSUED)
        self.token_life = self._values(families.LIFE)
        self.token_waiters = self._values(families.WAITERS)
        self.token_waits = self._values(families.WAITS)
        self.token_unchanged = self._values(families.UNCHANGED)
        self.token_failures = self._values(families.FAILURES)
        self.token_last_success = self._values(families.LAST_SUCCESS)
        self.token_skew = self._values(families.SKEW)
        self.secret_in_use = self._values(families.SECRET_IN_USE)

    def _declare_process(self) -> None:
        self._library = CollectorRegistry(auto_describe=True)
        self.build = self._info(families.BUILD)
        compiled = "no" if children.__file__.endswith(".py") else "yes"
        libraries = {"python": platform.python_version(), "aiohttp": aiohttp.__version__}
        self.build.info({"version": __version__, **libraries, "compiled": compiled})
        self.config = self._info(families.CONFIG)
        self.config_loads = self._values(families.CONFIG_LOADS)
        self.config_loaded_at = self._values(families.CONFIG_LOADED)
        self.config_current = self._values(families.CONFIG_CURRENT)
        self._log_dropped = self._values(families.LOG_DROPPED).labels()
        self._spans_dropped = self._values(families.SPANS_DROPPED).labels()
        self._library.register(ProcessCollector(registry=self.registry))
        for outcome in ("ok", "failed"):
            self.config_loads.labels(outcome)

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

    def client(self, name: str, route: str) -> ClientMetrics:
        """Return the children of a client on a route, the same object every time."""
        metrics = self._clients.get((name, route))
        if metrics is None:
            metrics = self._clients[name, route] = ClientMetrics(name, route, self)
        return metrics

    def keep(self, label: Literal["route", "credential", "client"], names: Collection[str]) -> None:
        """Forget the series of everything that is no longer configured; to be called after a reload.

        A series that stays at its last value for ever would keep a panel red, and an alert firing, for a route that
        nobody has.
        """
        for collector in self._collectors:
            collector.keep(label, names)
        bound: dict[str, dict[str, Any]] = {"route": self._routes, "credential": self._credentials}
        found = bound.get(label, {})
        for name in [name for name in found if name not in names]:
            found.pop(name).gone = True
        at = {"client": 0, "route": 1}.get(label)
        if at is not None:
            self._clients = {pair: kept for pair, kept in self._clients.items() if pair[at] in names}

    def refused(self, code: str) -> None:
        """Count a request that was refused before a route was known."""
        self.unrouted.labels(code).inc()

    def config_loaded(self, outcome: str, digest: str = "") -> None:
        """Count a reading of the configuration: `ok` with the digest now in force, or `failed`."""
        self.config_loads.labels(outcome).inc()
        self.config_current.labels().set(int(outcome == "ok"))
        if outcome == "ok":
            self.config.info({"digest": digest})
            self.config_loaded_at.labels().set(self.wall())

    def state_written(self, outcome: str) -> None:
        """Count a writing of the state file: `ok` or `failed`."""
        self.state_writes.labels(outcome).inc()

    def keys_fetched(self, issuer: str, outcome: str) -> None:
        """Count a request for an issuer's keys: `ok` or `failed`."""
        self.key_fetches.labels(issuer, outcome).inc()
        if outcome == "ok":
            self.keys_seen.labels(issuer).set(self.wall())

    # -------------------------------------------------------------------------------------------------------- showing

    def exposition(self, accept: str | None = None) -> tuple[bytes, str]:
        """Return all metrics and their content type: Prometheus text, or OpenMetrics if `Accept` asks for it."""
        parts, content_type = self.exposition_in_parts(accept)
        return b"".join(parts), content_type

    def exposition_in_parts(self, accept: str | None = None) -> tuple[Iterator[bytes], str]:
        """As `exposition`, one family at a time, so that requests are served in between; numbers are those of then."""
        encode, content_type = choose_encoder(accept or "")
        openmetrics = content_type.startswith("application/openmetrics-text")
        return self._parts(encode, openmetrics=openmetrics), content_type

    def _parts(self, encode: Callable[[Any], bytes], *, openmetrics: bool) -> Iterator[bytes]:
        self.settle()
        self._log_dropped.set(dropped_events())
        self._spans_dropped.set(dropped_spans())
        for collector in self._collectors:
            yield collector.text(openmetrics=openmetrics).encode()
        yield encode(self._library)  # ends with OpenMetrics' `# EOF`

    def _settle(self) -> None:
        self.settle()

    def _values(self, family: Family) -> ValueCollector:
        made = ValueCollector(family, self.registry, self._settle)
        self._collectors.append(made)
        return made

    def _histograms(self, family: Family) -> HistogramCollector:
        made = HistogramCollector(family, self.registry, self._settle)
        self._collectors.append(made)
        return made

    def _info(self, family: Family) -> Info:
        info = Info(family.full_name.removesuffix("_info"), family.help, registry=self.registry)
        self._library.register(info)
        return info
