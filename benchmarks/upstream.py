"""A vendor that costs very little CPU: fixed answers from a raw asyncio protocol on uvloop.

`POST /token` returns a token, `GET /down?N` returns N bytes; any other request is read to its end and answered with a
small JSON document. It supports only what the benches send: heads in one piece, and bodies with a Content-Length.

    python -m benchmarks.upstream PORT
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

JSON = b'{"id":"7f4c2a","status":"approved","score":0.97,"checks":["document","face","liveness"],"country":"AE"}'
TOKEN = b'{"access_token":"bench-token-0123456789abcdef0123456789abcdef","token_type":"Bearer","expires_in":3600}'
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
AUTHORIZED = re.compile(rb"authorization: Bearer ", re.IGNORECASE)
BLOCK = bytes(256 * 1024)


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a whole response."""
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


SMALL, GRANTED, REFUSED = answer(JSON), answer(TOKEN), answer(b"{}", b"401 Unauthorized")


class Vendor(asyncio.Protocol):
    """One connection of the gateway."""

    def __init__(self) -> None:
        self.buffer = b""
        self.body_left = 0
        self.reply = b""
        self.can_write = asyncio.Event()
        self.can_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each request when its last byte arrives."""
        if self.body_left:
            taken = min(self.body_left, len(data))
            self.body_left -= taken
            if self.body_left:
                return
            self.transport.write(self.reply)
            data = data[taken:]
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head, self.buffer = self.buffer[: end + 4], self.buffer[end + 4 :]
            self.take(head)

    def take(self, head: bytes) -> None:
        """Answer one request now, or after its body has arrived."""
        target = head.split(b" ", 2)[1]
        self.reply = GRANTED if target == b"/token" else SMALL if AUTHORIZED.search(head) else REFUSED
        if target.startswith(b"/down?"):
            self.task = asyncio.ensure_future(self.pour(int(target.partition(b"?")[2])))
            return
        found = None if head.startswith(b"GET ") else LENGTH.search(head)
        length = int(found[1]) if found else 0
        taken = min(length, len(self.buffer))
        self.buffer, self.body_left = self.buffer[taken:], length - taken
        if not self.body_left:
            self.transport.write(self.reply)

    async def pour(self, size: int) -> None:
        """Write a body of this size, as fast as the gateway reads it."""
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for sent in range(0, size, len(BLOCK)):
            await self.can_write.wait()
            self.transport.write(BLOCK[: size - sent])

    def pause_writing(self) -> None:
        """Stop writing until the gateway reads again."""
        self.can_write.clear()

    def resume_writing(self) -> None:
        """Continue writing."""
        self.can_write.set()


async def serve(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Vendor, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
