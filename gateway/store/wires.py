"""The connection pool of the store: a connection for each command at a time, up to `MOST`; idle ones are used again.

After any failure all idle connections are closed, because they probably lead to the same dead server. No command is
sent twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.errors import StoreAway
from gateway.store.connection import LOST, Connector, reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model import StoreConfig
    from gateway.resolver import Resolver
    from gateway.store.connection import Call, Wire

MOST = 8
"""Most pooled connections; further commands wait for one."""
OPENING = 2
"""Opening a connection may take this many time-outs of a command: for TCP and TLS, then for authentication."""
OPENING_BY_SENTINEL = 4
"""The same with Sentinels, which are asked first."""


class Wires:
    """Runs scripts over pooled connections."""

    def __init__(self, config: StoreConfig, resolver: Resolver) -> None:
        self._resolver = resolver
        self._idle: list[tuple[int, Wire]] = []
        """Each with the value of `_age` when it was opened."""
        self._room = asyncio.Semaphore(MOST)
        self._age = 0
        """How often the configuration was replaced. A connection of an earlier configuration is not used again."""
        self.use(config)

    def use(self, config: StoreConfig) -> None:
        """Use another configuration for new connections; idle ones are not used any more."""
        self._timeout = config.timeout
        self._opening = config.timeout * (OPENING_BY_SENTINEL if config.server.master else OPENING)
        self._connector = Connector(config, self._resolver)
        self._age += 1

    async def open(self) -> Wire:
        """Return a new connection that is not pooled. Raises StoreAway."""
        try:
            async with asyncio.timeout(self._opening):
                return await self._connector.open()
        except LOST as error:
            raise StoreAway(reason_of(error)) from error

    async def calls(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one pipeline; a store's error is an item of the list. Raises StoreAway without an answer."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._room.acquire()
        except TimeoutError as error:
            raise StoreAway("no answer in time") from error
        try:
            return await self._calls(calls)
        finally:
            self._room.release()

    async def _calls(self, calls: Sequence[Call]) -> list[Any]:
        age = self._age
        wire = await self._take(age)
        try:
            answers = await wire.calls(calls)
        except LOST as error:
            await wire.close()
            await self.close()
            raise StoreAway(reason_of(error)) from error
        except BaseException:  # cancelled: its answer may still arrive, and be read as that to the next command
            await wire.close()
            raise
        if age == self._age and wire.is_open:
            self._idle.append((age, wire))
        else:
            await wire.close()
        return answers

    async def _take(self, age: int) -> Wire:
        while self._idle:
            opened, wire = self._idle.pop()
            try:
                if opened == age and await wire.is_clean():
                    return wire
            except BaseException:
                await wire.close()
                raise
            await wire.close()
        return await self.open()

    async def close(self) -> None:
        """Close all idle connections."""
        idle, self._idle = self._idle, []
        for _, wire in idle:
            await wire.close()
