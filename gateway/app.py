"""The composition root: builds everything from a Config, in order; starts, reloads, drains and stops it.

The only module that knows all the others. Decides nothing about requests or tokens.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from typing import TYPE_CHECKING, Any

from gateway.access import Clients
from gateway.admin import AdminServer
from gateway.clock import SystemClock
from gateway.errors import ConfigError, GatepassError
from gateway.observe import AccessLog, Metrics, close_logging, configure_logging, get_logger, register_all
from gateway.proxy import DataServer, Handler, Pool, Snapshot, build_lanes
from gateway.tokens import TokenSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Clock, Config, Route

_log = get_logger("gatepass")
WATCH_INTERVAL = 0.5
"""Seconds between two looks at the files that the configuration was read from."""


class PureParserError(GatepassError):
    """aiohttp came without its C parser; its Python one has had smuggling bugs of its own and is not served with."""


class Gateway:
    """A whole gateway: data port, tokens, admin port. `start()` it, `drain()` or `stop()` it."""

    def __init__(self, config: Config, *, clock: Clock | None = None) -> None:
        _require_c_parser()
        self.config = config
        self.metrics = Metrics()
        self.tokens = TokenSet(config, clock=clock or SystemClock(), metrics=self.metrics)
        self.data_address: tuple[str, int] | None = None
        self.admin_address: tuple[str, int] | None = None
        self._access_log = AccessLog()
        self._pools: dict[object, Pool] = {}
        self._handler: Handler | None = None
        self._data: DataServer | None = None
        self._admin: AdminServer | None = None
        self.state = "starting"
        """`starting`, `ready` or `draining`."""

    def __repr__(self) -> str:
        return f"<Gateway {self.state} on {self.data_address}>"

    async def start(self) -> None:
        """Open both ports and begin to warm the tokens. Raises OSError when a port cannot be had."""
        config = self.config
        register_all(config)
        await self.tokens.start()
        self._handler = Handler(self._snapshot(config), self.metrics, self._access_log)
        self._data = DataServer(self._handler, config.limits)
        try:
            self.data_address = await self._data.start(config.listen)
            if config.admin is not None:
                self._admin = AdminServer(
                    config.admin,
                    metrics=self.metrics,
                    status=self.tokens.status,
                    state=lambda: self.state,
                    data_address=lambda: self.data_address,
                )
                await self._admin.start()
                self.admin_address = self._admin.address
        except OSError:
            await self.stop()
            raise
        self.state = "ready"
        self.metrics.config_loaded("ok", config.digest)
        _log.info(
            "started", data=_shown(self.data_address), admin=_shown(self.admin_address), routes=len(config.routes)
        )

    def _snapshot(self, config: Config) -> Snapshot:
        """Bind every route; pools whose upstream and bounds did not change are kept, the others retired."""
        old, self._pools = self._pools, {}

        def pool(route: Route) -> Pool:
            fresh = Pool(route, self.metrics.route(route.name))
            kept = old.pop(fresh.key, fresh)
            self._pools[kept.key] = kept
            return kept

        lanes = build_lanes(config.routes, self.tokens.tokens, pool, self.metrics)
        for retired in old.values():
            retired.retire()
        return Snapshot.of(lanes, Clients(config), config.limits, config.replay_budget)

    async def reload(self, config: Config) -> None:
        """Swap to another configuration; exchanges that run end on the old one. Addresses and limits need a restart."""
        register_all(config)
        await self.tokens.reload(config)
        if self._handler is not None:
            self._handler.snapshot = self._snapshot(config)
        self.config = config
        self.metrics.config_loaded("ok", config.digest)
        _log.info("reloaded", routes=len(config.routes), digest=config.digest[:12])

    async def drain(self) -> None:
        """Fail `/readyz`, serve through the grace, then let exchanges end within the drain time-out, and stop."""
        self.state = "draining"
        _log.info("draining", grace=self.config.drain.grace, timeout=self.config.drain.timeout)
        if self._handler is not None:
            self._handler.draining = True
        await asyncio.sleep(self.config.drain.grace)
        if self._data is not None:
            await self._data.drain(self.config.drain.timeout)
        await self.stop()

    async def stop(self) -> None:
        """Close everything now."""
        self.state = "draining"
        if self._data is not None:
            await self._data.drain(0)
        for pool in self._pools.values():
            pool.abort()
        await self.tokens.stop()
        if self._admin is not None:
            await self._admin.stop()
        self._access_log.close()


def serve(load: Callable[[], Config], *, stream: Any = None) -> int:
    """Run a gateway until SIGTERM or SIGINT; return the process's exit status.

    `load` reads the configuration, at the start and again on SIGHUP and when a file it was read from changes. Raises
    ConfigError for the first reading; a later one that fails is logged, and the old configuration goes on.
    """
    config = load()
    configure_logging(config.logs, stream if stream is not None else sys.stdout)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(config, load))
    finally:
        close_logging()


async def _serve(config: Config, load: Callable[[], Config]) -> int:
    loop = asyncio.get_running_loop()
    stopping, reloading = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_now_or_later, stopping)
    loop.add_signal_handler(signal.SIGHUP, reloading.set)
    gateway = Gateway(config)
    try:
        await gateway.start()
    except OSError as error:
        _log.error("cannot_listen", reason=error.strerror or str(error))
        return 1
    # What was built so far lives for ever: full collections need not walk it again.
    gc.collect()
    gc.freeze()
    watcher = asyncio.create_task(_watch(gateway, load, reloading))
    await stopping.wait()
    watcher.cancel()
    await gateway.drain()
    _log.info("stopped")
    return 0


def _stop_now_or_later(stopping: asyncio.Event) -> None:
    if stopping.is_set():  # asked twice: at once
        _log.warning("stopped_at_once")
        close_logging()
        sys.exit(130)
    stopping.set()


async def _watch(gateway: Gateway, load: Callable[[], Config], reloading: asyncio.Event) -> None:
    """Reload on SIGHUP, and when a watched file is another one than before (a Kubernetes symlink swap included)."""
    seen = _stamps(gateway.config)
    while True:
        try:
            async with asyncio.timeout(WATCH_INTERVAL):
                await reloading.wait()
        except TimeoutError:
            if _stamps(gateway.config) == seen:
                continue
        reloading.clear()
        seen = _stamps(gateway.config)
        try:
            config = load()
            await gateway.reload(config)
            seen = _stamps(config)
        except ConfigError as error:
            gateway.metrics.config_loaded("failed")
            _log.error("reload_refused", problems=[str(problem) for problem in error.problems])


def _stamps(config: Config) -> tuple[tuple[int, ...], ...]:
    """Return what tells a file from its successor: device, inode, time of change, size; zeros for a missing one."""
    stamps = []
    for path in config.watched_files:
        try:
            status = path.stat()
        except OSError:
            stamps.append((0, 0, 0, 0))
        else:
            stamps.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(stamps)


def _shown(address: tuple[str, int] | None) -> str | None:
    return None if address is None else f"{address[0]}:{address[1]}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - not there on every Python; the gateway is slower without, not other
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _require_c_parser() -> None:
    from aiohttp import http_parser  # noqa: PLC0415 - looked at only here

    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise PureParserError("aiohttp's C parser is missing: install a wheel of aiohttp with its extensions")
