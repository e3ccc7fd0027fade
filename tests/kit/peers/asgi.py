"""A vendor on uvicorn: the same small API as server.mjs and nginx.conf, and a WebSocket that echoes."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any


async def _body(receive: Any) -> tuple[int, bytes]:
    size, start, more = 0, b"", True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        start = (start + message.get("body", b""))[:1000]
        more = message.get("more_body", False)
    return size, start


async def _websocket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "chat"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4001})
            return
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: C901 - a table of paths
    """Answer by path."""
    if scope["type"] == "websocket":
        await _websocket(receive, send)
        return
    if scope["type"] != "http":
        return
    headers = dict(scope["headers"])
    size, start = await _body(receive)
    status, fields, pieces = 200, [(b"content-type", b"application/json")], [b""]
    path = scope["path"]
    if path == "/json":
        pieces = [json.dumps({"got": json.loads(start), "auth": headers[b"authorization"].decode()}).encode()]
    elif path == "/upload":
        pieces = [json.dumps({"whole": size > 20_000_000}).encode()]
    elif path == "/download":
        pieces = [bytes([index]) * 65536 for index in range(80)]
    elif path == "/range":
        first, last = (int(part) for part in headers[b"range"].removeprefix(b"bytes=").split(b"-"))
        status, pieces = 206, [b"0123456789"[first : last + 1]]
        fields = [(b"content-range", b"bytes %d-%d/10" % (first, last)), (b"etag", b'"x"')]
    elif path == "/redirect":
        status, fields = 302, [(b"location", b"/elsewhere?x=1")]
    elif path == "/cookie":
        fields = [(b"set-cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2")]
    elif path == "/gzip":
        fields, pieces = [(b"content-encoding", b"gzip")], [gzip.compress(b"hello " * 100)]
    elif path == "/events":
        fields, pieces = [(b"content-type", b"text/event-stream")], [b"data: %d\n\n" % index for index in range(3)]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})
