"""Raw bytes on both sides of a running gateway: a client that sends given bytes, and a vendor that runs a script."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from typing import SupportsIndex

    Script = Callable[["Peer"], Awaitable[None]]

OPENED: list[Peer] = []
KEPT = 2**20
"""The most received bytes that a vendor keeps; tests of large bodies count the bytes themselves."""
PATIENCE = float(os.environ.get("TEST_PATIENCE", "30"))
"""Seconds after which a test that waits for bytes fails. So long because a busy machine may stop for seconds."""


@dataclass
class Message:
    """A request or a response as it was on the wire."""

    start: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: bytes = b""

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    def all(self, name: str) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name.lower().encode()]

    def one(self, name: str) -> bytes:
        values = self.all(name)
        assert len(values) == 1, f"{name}: {values}"
        return values[0]


class Peer:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Message:
        """Read up to the empty line."""
        async with asyncio.timeout(PATIENCE):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        start, *lines = raw[:-4].split(b"\r\n")
        pairs = [line.partition(b":") for line in lines]
        return Message(start, [(name, value.strip(b" \t")) for name, _, value in pairs])

    async def chunk(self) -> bytes:
        """Read one chunk of a chunked body; empty at the last one."""
        async with asyncio.timeout(PATIENCE):
            size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
            data = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        return data

    async def body(self, message: Message, *, is_head: bool = False) -> Message:
        """Read the body that the head announces."""
        status = message.start.split(b" ")[1] if message.start.startswith(b"HTTP/") else b""
        if is_head or status in {b"204", b"304"} or status.startswith(b"1"):
            return message
        if [value.lower() for value in message.all("Transfer-Encoding")] == [b"chunked"]:
            while data := await self.chunk():
                message.body += data
        elif message.all("Content-Length"):
            async with asyncio.timeout(PATIENCE):
                message.body = await self.reader.readexactly(int(message.one("Content-Length")))
        elif status:
            async with asyncio.timeout(PATIENCE):
                message.body = await self.reader.read(-1)
        return message

    async def message(self, *, is_head: bool = False) -> Message:
        """Read a whole request or response."""
        return await self.body(await self.head(), is_head=is_head)

    async def at_end(self) -> bool:
        """Wait until the other side closes; return False if it sends something instead."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def pause_reading(self) -> None:
        """Stop reading from the socket, so that the other side must wait."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    @property
    def _transport(self) -> asyncio.Transport:
        return cast("asyncio.Transport", self.writer.transport)  # a socket's can be read and written

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None and not self.writer.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class RawVendor:
    """A vendor of raw bytes. Every connection runs `script`; `seen` has all heads that were read."""

    script: Script
    port: int = 0
    connections: int = 0
    received: bytearray = field(default_factory=bytearray)
    """All received bytes of all connections, even of incomplete requests."""
    open: set[Peer] = field(default_factory=set)
    failures: list[BaseException] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.connections += 1
        self.open.add(peer)
        self._listen_in(reader)
        try:
            await self.script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway closed: the ordinary end of a kept connection
        except RuntimeError as error:
            # uvloop raises this for a write to a connection that has just been reset
            if "the handler is closed" not in str(error):
                self.failures.append(error)
        except BaseException as error:  # noqa: BLE001 - told to the test, which would else wait for bytes
            self.failures.append(error)
        finally:
            self.open.discard(peer)
            writer.close()

    def _listen_in(self, reader: asyncio.StreamReader) -> None:
        """Record the bytes that the reader gets, even if the script never reads them."""
        feed = reader.feed_data
        self.received += bytes(reader._buffer)  # type: ignore[attr-defined]  # what came before the script began

        def feed_and_keep(data: Iterable[SupportsIndex]) -> None:
            if len(self.received) < KEPT:
                self.received.extend(data)
            feed(data)

        reader.feed_data = feed_and_keep  # type: ignore[method-assign]


@asynccontextmanager
async def vendor(script: Script) -> AsyncIterator[RawVendor]:
    """Run a raw vendor on a free port."""
    it = RawVendor(script)
    server = await asyncio.start_server(it._serve, "127.0.0.1", 0, limit=2**20)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()
        for peer in tuple(it.open):
            peer.reset()
    assert not it.failures, it.failures


async def connect(address: tuple[str, int] | None, *, buffer: int | None = None) -> Peer:
    """Open a raw connection; `buffer` limits what the kernel receives while the peer does not read."""
    assert address is not None
    sock = socket.socket()
    sock.setblocking(False)
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
        peer = Peer(*await asyncio.open_connection(sock=sock, limit=buffer or 2**20))
    except OSError:  # a gateway with too many connections resets
        sock.close()
        raise
    OPENED.append(peer)
    return peer


def close_all() -> None:
    """Close all connections of `connect`; called after every test."""
    while OPENED:
        OPENED.pop().reset()


def answering(*responses: bytes, seen: list[Message] | None = None) -> Script:
    """Answer the n-th request of the test with the n-th response, and all later ones with the last."""
    left = list(responses)

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.message()
            if seen is not None:
                seen.append(request)
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def ok(body: bytes = b"{}", *fields: bytes) -> bytes:
    """Return a 200 with a Content-Length."""
    return b"\r\n".join(
        (b"HTTP/1.1 200 OK", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *fields, b"", body)
    )


def get(path: str, *fields: str, method: str = "GET") -> bytes:
    """Return a request head without a body."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: gatepass", *fields, "", "")).encode("latin-1")


def post(path: str, body: bytes, *fields: str) -> bytes:
    """Return a request with a Content-Length."""
    head = "\r\n".join((f"POST {path} HTTP/1.1", "Host: gatepass", f"Content-Length: {len(body)}", *fields, "", ""))
    return head.encode("latin-1") + body
