"""The open connections to the store: as many as commands run at once, within a bound; idle ones are used again.

After any failure all idle ones are closed, because they probably lead to the same dead server. Nothing is sent twice.
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
"""Connections at most; further commands wait for one."""
OPENING = 2
"""Time-outs of a command that opening a connection may take: TCP and TLS, then authentication."""
OPENING_BY_SENTINEL = 4


class Wires:
    """Runs scripts over pooled connections."""

    def __init__(self, config: StoreConfig, resolver: Resolver) -> None:
        self._resolver = resolver
        self._idle: list[tuple[int, Wire]] = []
        """Each with the age that it was opened in."""
        self._room = asyncio.Semaphore(MOST)
        self._age = 0
        """How often the configuration was replaced; connections of an earlier one are not used again."""
        self.use(config)

    def use(self, config: StoreConfig) -> None:
        """Open further connections with another configuration; idle ones are not used any more."""
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
        """Run scripts in one pipeline; an error of the store stands in the list. Raises StoreAway without an answer."""
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
            async with asyncio.timeout(self._timeout):
                answers = await wire.calls(calls)
        except LOST as error:
            await wire.close()
            await self.close()
            raise StoreAway(reason_of(error)) from error
        except BaseException:  # cancelled: an answer may still arrive, and it would be taken for the next one
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
