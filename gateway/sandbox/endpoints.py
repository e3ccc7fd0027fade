"""The endpoints under `/sandbox/` that every emulated API has in addition to its vendor's endpoints.

They show what arrived (`echo`), send and receive bodies of any size without keeping them (`bytes`, `sink`, `upload`),
and hold connections open (`events`, `ws`). Like all endpoints, they require a live token.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from gateway.model import Secret
from gateway.sandbox.multipart import CHUNK, UploadRefused, receive
from gateway.sandbox.refusal import Refusal

if TYPE_CHECKING:
    from gateway.sandbox.rules import VendorRules

MAX_BYTES = 1 << 40
_SECRET_NAME = re.compile(r"authorization|cookie|token|secret|-key$", re.IGNORECASE)
_PATTERN = bytes(range(256)) * (CHUNK // 256)


def shown(name: str, value: str) -> str:
    """Return a header value as the echo shows it. What may be a secret is shown as its scheme and a fingerprint."""
    if not _SECRET_NAME.search(name):
        return value
    scheme, space, rest = value.partition(" ")
    return f"{scheme} {Secret(rest).fingerprint}" if space else Secret(value).fingerprint


class Endpoints:
    """The common endpoints of one vendor."""

    def __init__(self, vendor: VendorRules) -> None:
        self._vendor = vendor

    def routes(self) -> list[web.RouteDef]:
        """Return the endpoints for the vendor's application."""
        return [
            web.route("*", "/sandbox/echo", self.echo),
            web.route("*", "/sandbox/echo/{tail:.*}", self.echo),
            web.get("/sandbox/bytes/{size:[0-9]+}", self.bytes),
            web.post("/sandbox/sink", self.sink),
            web.put("/sandbox/sink", self.sink),
            web.post("/sandbox/upload", self.upload),
            web.get("/sandbox/events", self.events),
            web.get("/sandbox/ws", self.websocket),
            web.route("*", "/sandbox/status/{status:[2345][0-9][0-9]}", self.status),
        ]

    async def echo(self, request: web.Request) -> web.Response:
        """Return the request as it arrived: raw target, headers in their order, size and hash of the body."""
        digest, size = await self._drain(request, hashed=True)
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
        seen = {
            "vendor": self._vendor.name,
            "method": request.method,
            "target": request.raw_path,
            "headers": [[name, shown(name, value)] for name, value in fields],
            "bytes": size,
            "sha256": digest,
        }
        return web.json_response(seen)

    async def bytes(self, request: web.Request) -> web.StreamResponse:
        """Send `size` bytes, each one more than the one before (modulo 256); `?chunked=1` without Content-Length."""
        size = int(request.match_info["size"])
        if size > MAX_BYTES:
            raise Refusal(400, self._vendor.error_body(400, f"at most {MAX_BYTES} bytes"))
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        if request.query.get("chunked"):
            response.enable_chunked_encoding()
        else:
            response.content_length = size
        await response.prepare(request)
        for start in range(0, size, CHUNK):
            await response.write(_PATTERN[: min(CHUNK, size - start)])
        return response

    async def sink(self, request: web.Request) -> web.Response:
        """Count a body of any size; `?sha256=0` leaves the hash out."""
        hashed = request.query.get("sha256") != "0"
        digest, size = await self._drain(request, hashed=hashed)
        return web.json_response({"bytes": size, "sha256": digest} if hashed else {"bytes": size})

    async def upload(self, request: web.Request) -> web.Response:
        """Parse a multipart upload; return name, size and hash of each part."""
        try:
            parts = await receive(request, None)
        except UploadRefused as refused:
            raise Refusal(refused.status, self._vendor.error_body(refused.status, refused.message)) from refused
        self._vendor.counters.bytes_received += sum(part.size for part in parts)
        return web.json_response({"parts": [part.as_json() for part in parts]})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send `?count=` server-sent events (WHATWG HTML §9.2): the first at once, then one every `?interval=` s."""
        count, interval = int(request.query.get("count", "5")), float(request.query.get("interval", "1"))
        return await event_stream(request, count, interval)

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Echo every message (RFC 6455) until the client closes."""
        socket = web.WebSocketResponse(protocols=("echo",), max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    async def status(self, request: web.Request) -> web.Response:
        """Answer with this status; `?retry_after=` and `?location=` become headers."""
        await self._drain(request, hashed=False)
        names = {"retry_after": "Retry-After", "location": "Location"}
        headers = {field: request.query[name] for name, field in names.items() if name in request.query}
        return web.Response(status=int(request.match_info["status"]), headers=headers)

    async def _drain(self, request: web.Request, *, hashed: bool) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if hashed:
                digest.update(chunk)
        self._vendor.counters.bytes_received += size
        return digest.hexdigest(), size


async def event_stream(request: web.Request, count: int, interval: float, name: str = "status") -> web.StreamResponse:
    """Stream `count` events `{"sequence": n, "of": count}`; send each at once."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    for sequence in range(1, count + 1):
        if sequence > 1:
            await asyncio.sleep(interval)
        data = json.dumps({"sequence": sequence, "of": count})
        await response.write(f"id: {sequence}\nevent: {name}\ndata: {data}\n\n".encode())
    return response
