"""A vendor behind a plane: it takes the tokens that are not revoked, and writes down what it was sent."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from multidict import CIMultiDict


@dataclass
class Seen:
    """A request as the vendor has it."""

    method: str
    target: str
    fields: CIMultiDict[str]
    size: int = 0
    digest: str = ""


@dataclass
class EdgeVendor:
    """The vendor; `good` says which `Authorization` it takes."""

    good: Callable[[str], bool]
    seen: list[Seen] = field(default_factory=list)
    sends: dict[str, str] = field(default_factory=dict)
    """Fields of its answers."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """The second event of a stream waits for it."""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request.method, request.raw_path, request.headers.copy())
        self.seen.append(seen)
        if not self.good(request.headers.get("Authorization", "")):
            await request.read()
            return web.json_response({"error": "the vendor refuses the token"}, status=401)
        if request.path == "/events":
            return await self._stream(request)
        if request.path == "/socket":
            return await self._echo(request)
        body = await request.read()
        seen.size, seen.digest = len(body), hashlib.sha256(body).hexdigest()
        status = 403 if request.path == "/forbidden" else 200
        return web.json_response({"size": seen.size}, status=status, headers=self.sends)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"data: one\n\n")
        await self.go_on.wait()
        await answer.write(b"data: two\n\n")
        return answer

    @staticmethod
    async def _echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(f"echo {message.data}")
        return socket


@asynccontextmanager
async def edge_vendor(port: int, good: Callable[[str], bool]) -> AsyncIterator[EdgeVendor]:
    """Run the vendor on `port`."""
    it = EdgeVendor(good)
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{tail:.*}", it.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        yield it
    finally:
        it.go_on.set()
        await runner.cleanup()
