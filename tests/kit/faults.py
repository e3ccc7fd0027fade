"""A proxy in front of a store that behaves as networks and servers do when they fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SUBSCRIBES = b"SUBSCRIBE"


class FaultProxy:
    """Passes bytes to a port of loopback, until told otherwise.

    `hang()` keeps connections open and passes nothing on; `refuse()` closes all and takes no new ones; `delay` holds
    back every answer; `mute()` swallows what the server sends on connections that have subscribed. `heal()` ends it:
    bytes that were held back are lost with their connections.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        """Seconds that each answer is held back."""
        self.port = 0
        self.taken = 0
        """Connections taken so far."""
        self._hanging = False
        self._muted = False
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def hang(self) -> None:
        """Pass nothing on any more; take connections and say nothing."""
        self._hanging = True

    def mute(self) -> None:
        """Swallow what the server sends to subscribers."""
        self._muted = True

    async def refuse(self) -> None:
        """Close every connection and take no new one."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Close every connection; new ones are taken."""
        for writer in list(self._open):
            writer.transport.abort()

    async def heal(self) -> None:
        """Behave well again, with new connections."""
        self._hanging = self._muted = False
        self.delay = 0.0
        self.cut()
        if self._server is None:
            await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.taken += 1
        self._open.add(writer)
        behind: asyncio.StreamWriter | None = None
        try:
            back, behind = await asyncio.open_connection("127.0.0.1", self.target)
            self._open.add(behind)
            subscribed = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(self._asked(reader, subscribed), behind))
                group.create_task(self._pump(self._answered(back, subscribed), writer))
        except (OSError, ExceptionGroup):
            pass
        finally:
            for each in (writer, behind):
                if each is not None:
                    self._open.discard(each)
                    each.transport.abort()

    async def _asked(self, reader: asyncio.StreamReader, subscribed: asyncio.Event) -> AsyncIterator[bytes]:
        while data := await reader.read(2**16):
            if SUBSCRIBES in data.upper():
                subscribed.set()
            if not self._hanging:
                yield data

    async def _answered(self, reader: asyncio.StreamReader, subscribed: asyncio.Event) -> AsyncIterator[bytes]:
        while data := await reader.read(2**16):
            if self.delay:
                await asyncio.sleep(self.delay)
            if not self._hanging and not (self._muted and subscribed.is_set()):
                yield data

    async def _pump(self, source: AsyncIterator[bytes], writer: asyncio.StreamWriter) -> None:
        async for data in source:
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the other side has closed")
