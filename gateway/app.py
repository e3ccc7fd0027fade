"""The composition root: builds everything from a Config; starts, reloads, drains and stops it.

The only module that imports all parts below it. Signals, file watching and other processes are in `gateway.serving`.
"""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from typing import TYPE_CHECKING

from gateway.access import Access, shared_counters
from gateway.addresses import Networks
from gateway.announce import not_configured, report_name, report_proxies
from gateway.clock import SystemClock
from gateway.errors import GatepassError
from gateway.observe import Journal, Metrics, Tracing, adjust_logging, get_logger, logging_is_temporary, register_all
from gateway.proxy import DataServer, Handler, Pool, Snapshot, VendorRoom, check_reach, open_port, prepare_routes
from gateway.resolver import Resolver
from gateway.restart import Bound, adopted, bound_by, report_waits
from gateway.tls import UpstreamContexts, certificate_expiry
from gateway.tokens import TokenSet, endpoints

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.access import Clients, CounterStore
    from gateway.admin import AdminServer
    from gateway.model import Clock, Config, SharedTokens
    from gateway.planes import DataPlanes
    from gateway.store import SharedStore

_log = get_logger("gatepass")
WARM_WITHIN = 30.0
"""Most seconds for which a successor waits for its first tokens before it serves the port."""
LAST_CALL = 5.0
"""Seconds for which a predecessor still answers requests on kept-alive connections before it closes idle ones."""


class Gateway:
    """A whole gateway: data port, tokens, admin port. `start()` it, `drain()` or `stop()` it."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        resolver: Resolver | None = None,
        descriptors: int | None = None,
    ) -> None:
        """Build a gateway; `descriptors` is how many connections may be open in all, None for any number."""
        clock = clock or SystemClock()
        self._clock = clock
        self._vendors = VendorRoom(descriptors)
        self._resolver = resolver or Resolver()
        self._resolver.report = report_name
        self._resolver.stale = config.resolver_stale
        self.config = self._started_with = config
        self.bound = bound_by(config)
        """The configured addresses for which the ports were opened, by this process or by the first predecessor."""
        self.metrics = Metrics()
        self.store = _store(config, clock, self.metrics, self._resolver)
        """The store shared with other instances, if there is one."""
        self.tokens = TokenSet(
            config, clock=clock, metrics=self.metrics, resolver=self._resolver, shared=_shared_tokens(self.store, clock)
        )
        self.data_address: tuple[str, int] | None = None
        self.admin_address: tuple[str, int] | None = None
        self.problems: tuple[str, ...] = ()
        """Why the last reload was rejected; empty if the configuration in force is the last one."""
        self.read_again: Callable[[], Awaitable[tuple[str, ...]]] | None = None
        """Reloads the configuration for the admin port; `gateway.serving` sets it."""
        counters = _counters(self.store, config, clock, self.metrics)
        self._access = Access(config, clock=clock, metrics=self.metrics, store=counters, resolver=self._resolver)
        self._journal = Journal(self.metrics)
        self._tracing = Tracing()
        self._contexts = UpstreamContexts()
        self._pools: dict[object, Pool] = {}
        self._handler: Handler | None = None
        self._data: DataServer | None = None
        self._admin: AdminServer | None = None
        self._admin_sockets: list[socket.socket] = []
        self._planes: DataPlanes | None = None
        self._changing = asyncio.Lock()
        self.state = "starting"
        """`starting`, `ready` or `draining`."""

    def __repr__(self) -> str:
        return f"<Gateway {self.state} on {self.data_address}>"

    # ------------------------------------------------------------------------------------------------------- starting

    async def start(
        self,
        *,
        data: Sequence[socket.socket] = (),
        admin: Sequence[socket.socket] = (),
        planes: Sequence[socket.socket] = (),
        warm_first: bool = False,
        bound: Bound | None = None,
    ) -> None:
        """Open both ports and start fetching tokens.

        Args:
            data: listening sockets for apps, instead of opening `listen`.
            admin: the same for the admin port.
            planes: the same for other proxies that ask.
            warm_first: try every credential before serving the ports, because a predecessor still serves them.
            bound: the addresses for which a predecessor has opened the sockets, if they are not of this configuration.

        Raises OSError if a port cannot be opened, ConfigError if `data` is reachable from further away than `listen`.
        """
        config = self.config
        if bound is not None:
            self.bound = adopted(bound, config, {"listen": data, "admin": admin, "planes.listen": planes})
        if data:
            check_reach(data, config)
        register_all(config)
        if self.store is not None:
            await self.store.start()
        await self.tokens.start()
        try:
            self._access.start(config)
            if warm_first:
                await self._access.share(True, predecessor=os.getppid())
                await self._warmed()
            await self._open_data(config, data)
            await self._open_admin(config, admin)
            await self._prepare_planes(config)
            if self._planes is not None:
                await self._planes.start(config, planes)
        except (OSError, GatepassError):
            await self.stop()
            raise
        self.state = "ready"
        self.metrics.prices({route.name: route.price for route in config.routes})
        report_proxies(config)
        self.metrics.config_loaded("ok", config.digest)
        self._report_start(config)
        report_waits(self._started_with, config, self.bound)

    def _report_start(self, config: Config) -> None:
        _log.info(
            "started",
            data=_shown(self.data_address),
            admin=_shown(self.admin_address),
            scheme="http" if config.tls is None else "https",
            routes=len(config.routes),
            prefixes=[route.prefix for route in config.routes],
            not_configured=not_configured(config),
        )

    async def _warmed(self) -> None:
        try:
            async with asyncio.timeout(WARM_WITHIN):
                await self.tokens.warmed.wait()
        except TimeoutError:
            _log.warning("not_warm", seconds=WARM_WITHIN)

    async def _open_data(self, config: Config, sockets: Sequence[socket.socket]) -> None:
        pools = await asyncio.to_thread(self._prepare, config)
        clients = self._access.clients(config)
        self._access.keep(config, clients)
        await self._access.ready()
        self._handler = Handler(self._snapshot(config, pools, clients), self.metrics, self._journal)
        self._handler.tracer = self._tracing.use(config.tracing)
        self._vendors.pools = lambda: self._handler.pools if self._handler is not None else ()
        self._pools = pools
        self._data = DataServer(self._handler, config.limits, self._vendors.divide(config, pools.values()))
        sockets = list(sockets) or await open_port("listen", *config.listen)
        await self._watch_certificate(config)
        self.data_address = self._data.start(sockets, tls=config.tls)

    async def _watch_certificate(self, config: Config) -> None:
        """Show when the data port's certificate expires."""
        expiry = await asyncio.to_thread(certificate_expiry, config.tls.certificate) if config.tls is not None else None
        self.metrics.certificate_expires(expiry)

    async def _open_admin(self, config: Config, sockets: Sequence[socket.socket]) -> None:
        if config.admin is None:
            for sock in sockets:  # connections to a port that nobody serves would wait for ever
                sock.close()
            return
        self._admin_sockets = list(sockets) or await open_port("admin", config.admin)
        # In a thread, because importing `aiohttp.web` is a sixth of the start, and apps are served already.
        admin = await asyncio.to_thread(import_module, "gateway.admin")
        self._admin = admin.AdminServer(
            config.admin,
            metrics=self.metrics,
            status=self.tokens.status,
            state=lambda: self.state,
            data_address=lambda: self.data_address,
            credentials=self.tokens,
            reload=self._read_again,
            problems=lambda: self.problems,
            usage=self._access.usage.days,
            gather_usage=self._access.usage.gather,
            store=self.store.status if self.store is not None else None,
            planes=lambda: self._planes.status() if self._planes is not None else (),
        )
        self._admin.use(config)
        await self._admin.start(self._admin_sockets)
        self.admin_address = self._admin.address

    async def _prepare_planes(self, config: Config) -> None:
        """Import what other proxies need, if any is configured. Raises OSError if its files cannot be used."""
        handler = self._handler
        if self._planes is None and config.planes is not None and handler is not None:
            module = await asyncio.to_thread(import_module, "gateway.planes")
            self._planes = module.DataPlanes(
                metrics=self.metrics, tokens=self.tokens, clock=self._clock, snapshot=lambda: handler.snapshot
            )
        if self._planes is not None:
            await self._planes.check(config)

    # ------------------------------------------------------------------------------------------------------ reloading

    async def _read_again(self) -> tuple[str, ...]:
        if self.read_again is None:
            return ("this configuration was not read from a file",)
        return await self.read_again()

    def _prepare(self, config: Config) -> dict[object, Pool]:
        """Return the pools of a configuration; a route with the same upstream and bounds keeps its pool.

        Slow (TLS contexts), so call it in a thread; changes nothing. Raises OSError for unreadable certificates.
        """
        pools: dict[object, Pool] = {}
        for route in config.routes:
            key = Pool.key_of(route)
            pools[key] = self._pools.get(key) or Pool(
                route, self.metrics.route(route.name), self._contexts, self._resolver, self._vendors
            )
        return pools

    def _snapshot(self, config: Config, pools: dict[object, Pool], clients: Clients) -> Snapshot:
        routes = prepare_routes(
            config.routes,
            self.tokens.tokens,
            lambda route: pools[Pool.key_of(route)],
            self.metrics,
            lambda route: endpoints(route, config.credentials),
        )
        allowed = Networks(config.allow_addresses)
        for route in config.routes:
            pools[Pool.key_of(route)].configure(allowed, clients.count_on(route.name))
        trusted = Networks(config.trusted_proxies)
        return Snapshot(routes, clients, config.limits, config.replay_budget, trusted)

    async def reload(self, config: Config) -> None:
        """Put another configuration in force; running exchanges end with the old one.

        Everything that may fail is done first: after ConfigError, OSError or ValueError, the old configuration is
        still in force. Changed keys that need a restart are logged.
        """
        async with self._changing:
            if self._handler is None or self._data is None or self._going_down():
                return
            check_reach(self._data.sockets, config)
            register_all(config)
            pools = await asyncio.to_thread(self._prepare, config)
            await self._prepare_planes(config)
            if self._going_down():
                return
            try:
                clients = self._access.clients(config)
                if config.tls != self.config.tls:
                    self._data.use_tls(config.tls)
                    await self._watch_certificate(config)
            except BaseException:
                self._access.keep(self.config)
                raise
            if self.store is not None and config.store is not None:
                self.store.use(config.store)
            await self.tokens.reload(config)
            retired = [pool for key, pool in self._pools.items() if key not in pools]
            self._handler.use(self._snapshot(config, pools, clients), retired)
            self._data.use_limits(config.limits, self._vendors.divide(config, pools.values()))
            self._pools = pools
            self._access.keep(config, clients)
            if self._planes is not None:
                await self._planes.reload(config)
            self._reloaded(config)

    def _reloaded(self, config: Config) -> None:
        before, self.config = self.config, config
        self._resolver.stale = config.resolver_stale
        self._contexts.keep(route.upstream for route in config.routes)
        self._journal.forget()
        self.metrics.prices({route.name: route.price for route in config.routes})
        self.metrics.keep("route", {route.name for route in config.routes})
        self.metrics.keep("credential", set(config.credentials))
        self.metrics.keep("plane", config.planes.names if config.planes else ())
        self.metrics.keep("client", {client.name for client in config.clients} | {"-"})
        self.metrics.keep_budgets(config.clients)
        self.metrics.keep("issuer", {issuer.name for issuer in config.issuers})
        if self._admin is not None:
            self._admin.use(config)
        if self._handler is not None:
            self._handler.tracer = self._tracing.use(config.tracing)
        if config.logs != before.logs or logging_is_temporary():
            adjust_logging(config.logs)
        self.metrics.config_loaded("ok", config.digest)
        report_proxies(config)
        _log.info("reloaded", routes=len(config.routes), digest=config.digest[:12])
        report_waits(self._started_with, config, self.bound)

    # ----------------------------------------------------------------------------------------------------- going down

    def _going_down(self) -> bool:
        return self.state == "draining"

    @property
    def listening(self) -> dict[str, Sequence[socket.socket]]:
        """The listening sockets by port (`data`, `admin`, `planes`), for a successor."""
        return {
            "data": self._data.sockets if self._data is not None else (),
            "admin": tuple(self._admin_sockets),
            "planes": self._planes.sockets if self._planes is not None else (),
        }

    async def drain(self) -> None:
        """Fail `/readyz`, serve during the grace period, let exchanges end within the drain time-out, and stop."""
        self._begin_drain()
        await asyncio.sleep(self.config.drain.grace)
        await self._drain_ports()
        await self.stop()

    async def share_counts(self, on: bool) -> None:
        """Count calls together with a successor that starts, or stop that, so that no budget is granted twice."""
        await self._access.share(on)

    async def hand_over(self) -> None:
        """Stop while a successor serves the same sockets; as `drain`, but the accept queue goes to the successor."""
        self._begin_drain()
        for port in (self._data, self._planes):
            if port is not None:
                port.stop_listening()
        if self._admin is not None:
            await self._admin.stop()  # the successor now serves `/readyz`
        await self._drain_ports(max(LAST_CALL, self.config.drain.grace))
        await self.stop(succeeded=True)

    async def _drain_ports(self, last_call: float = 0.0) -> None:
        timeout = self.config.drain.timeout
        draining = [self._data.drain(timeout, last_call=last_call)] if self._data is not None else []
        draining += [self._planes.drain(timeout)] if self._planes is not None else []
        await asyncio.gather(*draining)

    def _begin_drain(self) -> None:
        self.state = "draining"
        _log.info("draining", grace=self.config.drain.grace, timeout=self.config.drain.timeout)
        if self._handler is not None:
            self._handler.draining = True

    async def stop(self, *, succeeded: bool = False) -> None:
        """Close everything at once; `succeeded`: another process serves on."""
        self.state = "draining"
        if self._data is not None:
            await self._data.drain(0)
        if self._handler is not None:
            self._handler.abort()
        if self._planes is not None:
            await self._planes.stop(succeeded=succeeded)
        await self._access.stop()
        await self.tokens.stop(hand_over=succeeded)
        if self.store is not None:
            await self.store.stop()
        if self._admin is not None:
            await self._admin.stop()
        for sock in self._admin_sockets:
            sock.close()
        await self._tracing.close()
        self._journal.close()


def _store(config: Config, clock: Clock, metrics: Metrics, resolver: Resolver) -> SharedStore | None:
    """Return the store of a configuration that has one; redis-py is imported only then."""
    if config.store is None:
        return None
    made: SharedStore = import_module("gateway.store").SharedStore(
        config.store, clock=clock, metrics=metrics, resolver=resolver
    )
    return made


def _shared_tokens(store: SharedStore | None, clock: Clock) -> SharedTokens | None:
    return import_module("gateway.store.tokens").StoredTokens(store, clock) if store is not None else None


def _counters(store: SharedStore | None, config: Config, clock: Clock, metrics: Metrics) -> CounterStore | None:
    made = import_module("gateway.store.counts").StoreTally(store) if store is not None else None
    return shared_counters(made, config.state_file, clock=clock, metrics=metrics)


def _shown(address: tuple[str, int] | None) -> str | None:
    return None if address is None else f"{address[0]}:{address[1]}"
