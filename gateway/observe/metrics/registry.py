"""All metrics of a process, and the page that a scrape reads.

The page is produced family by family, so that requests are served in between. `Metrics` is built by the composition
root, once per process; tests build as many as they need.
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
from gateway.observe.metrics.children import ClientMetrics, CredentialMetrics, PlaneMetrics, RouteMetrics
from gateway.observe.metrics.declared import DeclaredMetrics
from gateway.observe.metrics.store import StoreMetrics
from gateway.observe.trace.spans import dropped_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from gateway.model import Client, Money
    from gateway.observe.metrics.families import Family


class Metrics(DeclaredMetrics):
    """All metrics of a process.

    `wall` returns seconds since the epoch.
    """

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        super().__init__(wall=wall)
        self._routes: dict[str, RouteMetrics] = {}
        self._credentials: dict[str, CredentialMetrics] = {}
        self._clients: dict[tuple[str, str], ClientMetrics] = {}
        self._store: StoreMetrics | None = None
        self._planes: dict[str, PlaneMetrics] = {}
        self._library = CollectorRegistry(auto_describe=True)
        """Metrics that `prometheus_client` renders itself: two info metrics and those of the process."""
        self.build = self._info(families.BUILD)
        compiled = "no" if children.__file__.endswith(".py") else "yes"
        libraries = {"python": platform.python_version(), "aiohttp": aiohttp.__version__}
        self.build.info({"version": __version__, **libraries, "compiled": compiled})
        self.config = self._info(families.CONFIG)
        ProcessCollector(registry=self._library)

    def route(self, name: str) -> RouteMetrics:
        """Return the metrics of a route, the same object every time."""
        metrics = self._routes.get(name)
        if metrics is None:
            metrics = self._routes[name] = RouteMetrics(name, self)
        return metrics

    def credential(self, name: str) -> CredentialMetrics:
        """Return the metrics of a credential, the same object every time."""
        metrics = self._credentials.get(name)
        if metrics is None:
            metrics = self._credentials[name] = CredentialMetrics(name, self)
        return metrics

    def client(self, name: str, route: str) -> ClientMetrics:
        """Return the metrics of a client on a route, the same object every time."""
        metrics = self._clients.get((name, route))
        if metrics is None:
            metrics = self._clients[name, route] = ClientMetrics(name, route, self)
        return metrics

    def store(self) -> StoreMetrics:
        """Return the metrics of the shared store, the same object every time."""
        if self._store is None:
            self._store = StoreMetrics(self)
        return self._store

    def plane(self, name: str) -> PlaneMetrics:
        """Return the metrics of a plane that asks, the same object every time."""
        metrics = self._planes.get(name)
        if metrics is None:
            metrics = self._planes[name] = PlaneMetrics(name, self)
        return metrics

    def clients(self) -> list[ClientMetrics]:
        """Return the metrics of every client on every route."""
        return list(self._clients.values())

    def prices(self, prices: Mapping[str, Money | None]) -> None:
        """Set the price of each route that has one."""
        self.route_price.clear()
        for route, price in prices.items():
            if price is not None:
                self.route_price.labels(route, price.currency).set(float(price.amount))

    def keep(self, label: Literal["route", "credential", "client", "issuer", "plane"], names: Collection[str]) -> None:
        """Drop the series of everything that is no longer configured. Called after a reload.

        A series that kept its last value would keep alerts firing for a route that no longer exists.
        """
        for collector in self._collectors:
            collector.keep(label, names)
        bound: dict[str, dict[str, Any]] = {"route": self._routes, "credential": self._credentials}
        known = bound.get(label, {})
        for name in [name for name in known if name not in names]:
            known.pop(name).gone = True
        for plane in self._planes.values():
            plane.forget()
        at = {"client": 0, "route": 1}.get(label)
        if at is not None:
            self._clients = {pair: kept for pair, kept in self._clients.items() if pair[at] in names}

    def keep_budgets(self, clients: Iterable[Client]) -> None:
        """Drop the series of budgets, and of their limits, that these clients do not have."""
        budgets = {(client.name, each.route, each.per): each for client in clients for each in client.budgets}
        limits = {
            (*key, level)
            for key, budget in budgets.items()
            for level, calls in (("soft", budget.soft), ("hard", budget.hard))
            if calls is not None
        }
        self.budget_limit.keep_only(limits)
        for collector in (self.budget_used, self.store_granted):
            collector.keep_only(budgets)

    def refused(self, code: str) -> None:
        """Count a request that was refused before a route was known."""
        self.unrouted.labels(code).inc()

    def config_loaded(self, outcome: str, digest: str = "") -> None:
        """Count a load of the configuration: `ok` with the digest that is now active, or `failed`."""
        self.config_loads.labels(outcome).inc()
        self.config_current.labels().set(int(outcome == "ok"))
        if outcome == "ok":
            self.config.info({"digest": digest})
            self.config_loaded_at.labels().set(self.wall())

    def certificate_expires(self, timestamp: float | None) -> None:
        """Set the expiry time (seconds since the epoch) of the data port's certificate; None without TLS."""
        if timestamp is None:
            self.tls_expiry.clear()
        else:
            self.tls_expiry.labels().set(timestamp)

    def state_written(self, outcome: str) -> None:
        """Count a write of the state file: `ok` or `failed`."""
        self.state_writes.labels(outcome).inc()

    def pushed(self, plane: str, outcome: str) -> None:
        """Count a file that was written for a plane, or was not: `token`, `withdrawn` or `failed`."""
        self.pushes.labels(plane, outcome).inc()

    def push_confirmed(self, plane: str, credential: str, wall: float, *, holds_token: bool) -> None:
        """Set when a plane's file was last as it should be (seconds since the epoch), and whether it holds a token."""
        self.push_confirmed_at.labels(plane, credential).set(wall)
        self.token_pushed.labels(plane, credential).set(int(holds_token))

    def push_ended(self, plane: str, credential: str) -> None:
        """Drop the series of a file that is not written any more."""
        self.push_confirmed_at.drop(plane, credential)
        self.token_pushed.drop(plane, credential)

    def keys_fetched(self, issuer: str, outcome: str) -> None:
        """Count a request for an issuer's keys: `ok` or `failed`."""
        self.key_fetches.labels(issuer, outcome).inc()
        if outcome == "ok":
            self.keys_seen.labels(issuer).set(self.wall())

    def exposition(self, accept: str | None = None) -> tuple[Iterator[bytes], str]:
        """Return all metrics and their content type: Prometheus text, or OpenMetrics if `Accept` asks for it.

        In parts of about a thousand lines, so that the caller can serve requests in between.
        """
        encode, content_type = choose_encoder(accept or "")
        openmetrics = content_type.startswith("application/openmetrics-text")
        return self._parts(encode, openmetrics=openmetrics), content_type

    def _parts(self, encode: Callable[[Any], bytes], *, openmetrics: bool) -> Iterator[bytes]:
        self._settle()
        self._log_dropped.set(dropped_events())
        self._spans_dropped.set(dropped_spans())
        for collector in self._collectors:
            for piece in collector.pieces(openmetrics=openmetrics):
                yield piece.encode()
        yield encode(self._library)  # ends with OpenMetrics' `# EOF`

    def _info(self, family: Family) -> Info:
        return Info(family.full_name.removesuffix("_info"), family.help, registry=self._library)
