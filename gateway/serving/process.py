"""`serve`: runs one gateway in one process, from reading the configuration to the exit status.

SIGTERM and SIGINT drain the gateway, and a second one ends the process at once. SIGHUP reloads the configuration,
SIGUSR2 upgrades in place. If these two arrive before the gateway serves, they take effect as soon as it does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from gateway.app import Gateway
from gateway.early import IGNORED, LATER, STOPPING, remembered
from gateway.errors import GatepassError, ListenError, os_reason
from gateway.observe import close_logging, configure_logging, get_logger
from gateway.serving.descriptors import descriptors_for_connections
from gateway.serving.files import watch_files
from gateway.serving.memory import tidy, tune_allocator, tune_collector
from gateway.serving.notify import Notifier
from gateway.serving.sockets import inherited
from gateway.serving.surroundings import warn_of_loopback
from gateway.serving.upgrade import upgrade
from gateway.serving.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Config
    from gateway.serving.sockets import Inherited

_log = get_logger("gatepass")


def serve(load: Callable[[], Config], *, before_exit: Callable[[], object] = bool, stream: Any = None) -> NoReturn:
    """Run a gateway until SIGTERM or SIGINT, and end the process.

    `load` reads the configuration, at the start and whenever it may have changed. Raises ConfigError if the first
    reading fails; if a later one fails, that is logged and the old configuration stays active. `before_exit` ends
    programs that `load` may be running on a thread.
    """
    since = time.time_ns()
    try:
        config = load()
    except SystemExit:  # a signal during the start
        before_exit()
        raise
    configure_logging(config.logs, stream if stream is not None else sys.stdout)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            status = runner.run(Process(load, since, before_exit).run(config))
            # Everything is closed. The loop and the interpreter would wait for threads, and one that resolves a name or
            # waits for a program may hang for a minute.
            close_logging()
            before_exit()
            os._exit(status)
    finally:
        close_logging()


class Process:
    """A gateway, and the handlers of its signals."""

    def __init__(self, load: Callable[[], Config], since: int, before_exit: Callable[[], object] = bool) -> None:
        self._load = load
        self._since = since
        self._before_exit = before_exit
        self._asked: set[int] = set()
        """Signals that arrived before the gateway served."""
        self._watch: Watch | None = None
        self._gateway: Gateway | None = None
        self._notifier = Notifier(os.environ)
        self._over = asyncio.Event()
        self._stopping = False
        self._upgrade: asyncio.Task[None] | None = None
        self._successor: int | None = None

    async def run(self, config: Config) -> int:
        """Run until a signal; return the exit status: 1 if the start failed."""
        loop = asyncio.get_running_loop()
        for number in STOPPING:
            loop.add_signal_handler(number, self._stop, number)
        for number in LATER:
            loop.add_signal_handler(number, self._ask, number)
        for number in IGNORED:
            loop.add_signal_handler(number, bool)
        gateway = Gateway(config, descriptors=descriptors_for_connections())
        try:
            passed = inherited(os.environ)
            if not await self._start(gateway, passed):
                return 0
        except (OSError, GatepassError) as error:
            _tell_failed_start(error)
            return 1
        if not passed.data:
            warn_of_loopback(config)
        self._watch = watch = Watch(gateway, self._load, self._notifier, self._since)
        self._gateway = gateway
        gateway.read_again = watch.reload
        passed.tell_ready()
        self._notifier.ready()
        tune_collector()
        tune_allocator()
        for asked in {*self._asked, *remembered()}:
            (self._stop if asked in STOPPING else self._ask)(asked)
        work = (watch.run(), tidy(), watch_files(), self._notifier.keep_watchdog())
        tasks = [asyncio.create_task(each) for each in work]
        await self._over.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(self._end(gateway), self._give_up_upgrade())
        return 0

    async def _start(self, gateway: Gateway, passed: Inherited) -> bool:
        """Start the gateway; return False if a signal has ended the start."""
        loop = asyncio.get_running_loop()
        starting = loop.create_task(
            gateway.start(
                data=passed.data,
                admin=passed.admin,
                planes=passed.planes,
                warm_first=passed.successor,
                bound=passed.bound,
            )
        )
        over = loop.create_task(self._over.wait())
        await asyncio.wait({starting, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        await asyncio.wait({starting})
        await gateway.stop()
        _log.info("stopped", successor=None)
        return False

    async def _give_up_upgrade(self) -> None:
        """End a successor that is not ready yet, because the whole gateway was told to stop."""
        if self._upgrade is not None and self._successor is None:
            self._upgrade.cancel()
            await asyncio.wait({self._upgrade})

    async def _end(self, gateway: Gateway) -> None:
        if self._successor is None:
            self._notifier.stopping()
            await gateway.drain()
        else:
            self._notifier.succeeded_by(self._successor)
            await gateway.hand_over()
        _log.info("stopped", successor=self._successor)

    def _ask(self, number: int) -> None:
        """Reload or upgrade now, or as soon as the gateway serves."""
        if self._watch is None or self._gateway is None:
            self._asked.add(number)
        elif number == signal.SIGHUP:
            self._watch.ask()
        else:
            self._begin_upgrade(self._gateway)

    def _stop(self, number: int) -> None:
        if self._stopping:  # a second signal ends the process at once
            _log.warning("stopped_at_once")
            close_logging()
            self._before_exit()
            os._exit(128 + number)
        self._stopping = True
        self._over.set()

    def _begin_upgrade(self, gateway: Gateway) -> None:
        if not self._over.is_set() and (self._upgrade is None or self._upgrade.done()):
            self._upgrade = asyncio.create_task(self._upgraded(gateway))

    async def _upgraded(self, gateway: Gateway) -> None:
        await gateway.share_counts(True)
        self._successor = await upgrade(gateway.listening, gateway.bound)
        if self._successor is None:
            await gateway.share_counts(False)
        else:
            self._over.set()


def _tell_failed_start(error: OSError | GatepassError) -> None:
    if isinstance(error, ListenError):
        _log.error("cannot_listen", key=error.key, address=error.address, reason=error.reason)
    else:
        _log.error("start_failed", reason=os_reason(error) if isinstance(error, OSError) else str(error))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - not available on every Python; without it the gateway is slower, but the same
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
