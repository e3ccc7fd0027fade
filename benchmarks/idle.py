"""Opens many connections that do nothing: each sends one request and stays open."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.load import Load

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.load import Request

AT_ONCE = 100


class Connection(asyncio.Protocol):
    """One connection; `answered` is set when the first answer begins."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Check the answer's status."""
        if not self.answered.done():
            self.answered.set_result(data.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail if no answer has arrived."""
        del error
        if not self.answered.done():
            self.answered.set_result(False)


def hold(request: Request, number: int, look: Callable[[], float]) -> tuple[Load, float]:
    """Open `number` connections, call `look` while they are open, and close them."""

    async def visit() -> tuple[Load, float]:
        crowd = Crowd(request)
        seen = await crowd.gather(number)
        found = look()
        await crowd.leave()
        return seen, found

    return uvloop.run(visit())


class Crowd:
    """The connections, to be closed in the end."""

    def __init__(self, request: Request) -> None:
        self.parts = urlsplit(request.url)
        fields = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        target = self.parts.path + (f"?{self.parts.query}" if self.parts.query else "")
        self.request = f"GET {target} HTTP/1.1\r\nHost: {self.parts.netloc}\r\n{fields}\r\n".encode()
        self.secure = ssl._create_unverified_context() if self.parts.scheme == "https" else None  # noqa: SLF001
        self.open: list[Connection] = []

    async def one(self) -> bool:
        """Open a connection and use it once."""
        loop = asyncio.get_running_loop()
        make = lambda: Connection(self.request)  # noqa: E731 - the loop wants a factory
        _, protocol = await loop.create_connection(
            make, self.parts.hostname or "", self.parts.port or 80, ssl=self.secure
        )
        self.open.append(protocol)
        return await protocol.answered

    async def gather(self, number: int) -> Load:
        """Open `number` connections, a hundred at a time."""
        began, right = time.perf_counter(), 0
        for _ in range(0, number, AT_ONCE):
            right += sum(await asyncio.gather(*(self.one() for _ in range(AT_ONCE))))
        right -= sum(one.transport.is_closing() for one in self.open)
        return Load(number, number - right, time.perf_counter() - began, 0.0, 0.0)

    async def leave(self) -> None:
        """Close them all."""
        for one in self.open:
            one.transport.abort()
        await asyncio.sleep(0.1)
