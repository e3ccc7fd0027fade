"""Reloads the configuration: on request, when a file has changed, or when the output of a program is old.

Files are polled four times a second, because that detects every way in which Kubernetes, Vault Agent or an editor
replaces a file, on any file system. A file is read only after two polls have seen the same state, because it may still
be being written. After any error the old configuration stays active and the watch continues.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from gateway.errors import ConfigError, GatepassError
from gateway.observe import OwnWords, get_logger
from gateway.protection import too_open
from gateway.serving.stamps import PATIENCE, Stamps, changed_at
from gateway.serving.surroundings import mounted_alone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.app import Gateway
    from gateway.model import Config
    from gateway.serving.notify import Notifier
    from gateway.serving.stamps import Stamp

_log = get_logger("gatepass")
INTERVAL = 0.25
"""Seconds between two polls. A change takes effect at the second poll that sees it."""
_GOING_DOWN = "the gateway is shutting down, so it takes up no other configuration"
RETRY = 10.0
"""Seconds until a rejected configuration is read again, because a file that it names may exist by then."""


class Watch:
    """Keeps a gateway on its latest valid configuration.

    `since` is when the reading of the gateway's first configuration began, in nanoseconds since the epoch.
    """

    def __init__(self, gateway: Gateway, load: Callable[[], Config], notifier: Notifier, since: int) -> None:
        self._gateway = gateway
        self._load = load
        self._notifier = notifier
        self._since = since
        self._asked = asyncio.Event()
        self._reading = asyncio.Lock()
        self._again_at = math.inf
        self._stamps = Stamps()
        self._refused_files: tuple[Path, ...] = ()
        """Files that a rejected configuration names. If one changes, the configuration is read again."""
        self._warned: set[tuple[str, str]] = set()
        self._alone: set[str] = set()
        self._look_ahead(gateway.config)

    def ask(self) -> None:
        """Read the configuration again as soon as possible, changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        # A file that has changed since the start began may have been read before its change, so it is read again.
        seen = {path: mark if changed_at(mark) < self._since else () for path, mark in (await self._look()).items()}
        await self._warn_of_files(self._gateway.config)
        moving: dict[Path, Stamp] | None = None
        while True:
            asked = await self._pause()
            now = await self._look()
            if not asked and loop.time() < self._again_at:
                if now == seen:
                    moving = None
                    continue
                if now != moving:  # it may still be being written
                    moving = now
                    continue
            moving = None
            await self.reload(asked=asked)
            # The stamps are from before the reading, so that the next poll sees any change since then.
            seen = await self._look() | now
            seen = {path: seen[path] for path in self._watched()}

    async def _pause(self) -> bool:
        try:
            async with asyncio.timeout(INTERVAL):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    def _watched(self) -> dict[Path, None]:
        return dict.fromkeys([*self._gateway.config.watched_files, *self._refused_files])

    async def _look(self) -> dict[Path, Stamp]:
        return await self._stamps.of(self._watched())

    async def reload(self, *, asked: bool = True) -> tuple[str, ...]:
        """Read the configuration and activate it; return its problems, or nothing if it is active now."""
        async with self._reading:
            if self._gateway.state == "draining":
                return (_GOING_DOWN,)
            self._notifier.reloading()
            try:
                # On a thread, because reading takes tens of milliseconds, and a command much longer.
                config = await asyncio.to_thread(self._load)
                if asked or config.digest != self._gateway.config.digest:
                    await self._gateway.reload(config)
                elif self._gateway.problems:  # the mistake was undone: the file is what is already active
                    self._gateway.metrics.config_loaded("ok", config.digest)
                    _log.info("reload_recovered", digest=config.digest[:12])
                problems: tuple[str, ...] = ()
                self._refused_files = ()
            except ConfigError as error:
                self._refused_files = error.files
                problems = tuple(OwnWords(problem) for problem in error.problems)
            except (GatepassError, OSError, ValueError) as error:
                problems = (f"{type(error).__name__}: {error}",)
            except Exception as error:  # noqa: BLE001 - logged with its traceback; the old configuration stays active
                _log.exception("reload_crashed")
                problems = (type(error).__name__,)
            finally:
                if self._gateway.state != "draining":  # the manager was told that the gateway stops
                    self._notifier.ready()
            if self._gateway.state == "draining":  # since the reload began
                return (_GOING_DOWN,)
            await self._settle(problems, config if not problems else None)
            return problems

    async def _settle(self, problems: tuple[str, ...], config: Config | None) -> None:
        gateway = self._gateway
        if config is None:
            gateway.metrics.config_loaded("failed")
            self._again_at = asyncio.get_running_loop().time() + RETRY
            if problems != gateway.problems:
                _log.error("reload_refused", problems=list(problems))
        else:
            self._look_ahead(config)
            await self._warn_of_files(config)
        gateway.problems = problems

    def _look_ahead(self, config: Config) -> None:
        after = config.read_again_after
        self._again_at = math.inf if after is None else asyncio.get_running_loop().time() + after

    async def _warn_of_files(self, config: Config) -> None:
        """Warn once about each secret file that other users can access, and about each file that is a mount itself."""
        alone = set(mounted_alone(config.watched_files))
        for name in sorted(alone - self._alone):
            _log.warning("file_mounted_alone", path=name, hint="mount its folder: a file that replaces it is not seen")
        self._alone = alone
        try:
            async with asyncio.timeout(PATIENCE):
                is_open = set(await asyncio.to_thread(too_open, config.secret_files))
        except TimeoutError:
            return  # a file system hangs; the files are checked again after the next reload
        for path, mode in sorted(is_open - self._warned):
            _log.warning("secret_file_open", path=path, mode=mode, hint="chmod 0400, owned by the gateway's user")
        self._warned = is_open
