"""`serve`: one gateway in one process, from its first reading of the configuration to its exit status.

SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reads the configuration again; SIGUSR2 upgrades in place.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from gateway.app import Gateway
from gateway.errors import GatepassError, ListenError, os_reason
from gateway.observe import close_logging, configure_logging, get_logger
from gateway.serving.descriptors import descriptors_for_connections
from gateway.serving.memory import tidy, tune_allocator, tune_collector
from gateway.serving.notify import Notifier
from gateway.serving.sockets import inherited
from gateway.serving.surroundings import warn_of_loopback
from gateway.serving.upgrade import upgrade
from gateway.serving.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Config

_log = get_logger("gatepass")


def serve(load: Callable[[], Config], *, stream: Any = None) -> NoReturn:
    """Run a gateway until SIGTERM or SIGINT, and end the process.

    `load` reads the configuration, at the start and again whenever it may have changed. Raises ConfigError for the
    first reading; a later one that fails is logged, and the old configuration goes on.
    """
    since = time.time_ns()
    config = load()
    configure_logging(config.logs, stream if stream is not None else sys.stdout)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            status = runner.run(Process(load, since).run(config))
            # All is closed and told. A thread that looks up a name, or waits for a command, may hang for a minute, and
            # both the loop and the interpreter would wait for it.
            close_logging()
            os._exit(status)
    finally:
        close_logging()


class Process:
    """A gateway and the signals that it obeys."""

    def __init__(self, load: Callable[[], Config], since: int) -> None:
        self._load = load
        self._since = since
        self._notifier = Notifier(os.environ)
        self._over = asyncio.Event()
        self._stopping = False
        self._upgrade: asyncio.Task[None] | None = None
        self._successor: int | None = None

    async def run(self, config: Config) -> int:
        """Run until a signal; return the exit status: 1 if the start failed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        gateway = Gateway(config, descriptors=descriptors_for_connections())
        try:
            passed = inherited(os.environ)
            await gateway.start(data=passed.data, admin=passed.admin, warm_first=passed.successor)
        except (OSError, GatepassError) as error:
            _tell_failed_start(error)
            return 1
        if not passed.data:
            warn_of_loopback(config)
        watch = Watch(gateway, self._load, self._notifier, self._since)
        gateway.read_again = watch.reload
        loop.add_signal_handler(signal.SIGHUP, watch.ask)
        loop.add_signal_handler(signal.SIGUSR2, self._begin_upgrade, gateway)
        passed.tell_ready()
        self._notifier.ready()
        tune_collector()
        tune_allocator()
        tasks = [asyncio.create_task(watch.run()), asyncio.create_task(tidy())]
        await self._over.wait()
        for task in tasks:
            task.cancel()
        await self._end(gateway)
        return 0

    async def _end(self, gateway: Gateway) -> None:
        if self._successor is None:
            self._notifier.stopping()
            await gateway.drain()
        else:
            self._notifier.succeeded_by(self._successor)
            await gateway.hand_over()
        _log.info("stopped", successor=self._successor)

    def _stop(self, number: int) -> None:
        if self._stopping:  # asked twice: at once
            _log.warning("stopped_at_once")
            close_logging()
            os._exit(128 + number)
        self._stopping = True
        self._over.set()

    def _begin_upgrade(self, gateway: Gateway) -> None:
        if not self._over.is_set() and (self._upgrade is None or self._upgrade.done()):
            self._upgrade = asyncio.create_task(self._upgraded(gateway))

    async def _upgraded(self, gateway: Gateway) -> None:
        self._successor = await upgrade(gateway.listening)
        if self._successor is not None:
            self._over.set()


def _tell_failed_start(error: OSError | GatepassError) -> None:
    if isinstance(error, ListenError):
        _log.error("cannot_listen", key=error.key, address=error.address, reason=error.reason)
    else:
        _log.error("start_failed", reason=os_reason(error) if isinstance(error, OSError) else str(error))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - not there on every Python; the gateway is slower without, not other
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
