"""An app's connection, and the data port that accepts it.

One task per connection takes one exchange after another, so pipelined requests keep their order. Bytes of the next
request wait unparsed while one is served: the parser discards messages that it had already parsed when a later one in
the same segment is malformed, so it never holds more than one. Silence is noticed by one coarse sweep, not by a timer
per request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gateway.errors import BadRequest, ExchangeError, HeadersTooLarge, RequestTimeout, TooManyConnections
from gateway.proxy.upstream import BODY_LIMIT
from gateway.proxy.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader

    from gateway.model import Address, Limits
    from gateway.proxy.handler import Handler

TARGET_LIMIT = 16 * 1024
"""Bytes of a request target: identity vendors put whole JWTs into queries."""
_PENDING_LIMIT = 64 * 1024
_LINGER = 2.0
"""Seconds that we go on reading (and discarding) behind a last answer, lest a reset destroy it (RFC 9112 §9.6)."""
_BACKLOG = 4096


class ClientConnection(Wire):
    """One connection of an app."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: DataServer) -> None:
        super().__init__(loop)
        limits = server.limits
        self._server = server
        self._parser = HttpRequestParser(
            self,  # type: ignore[arg-type]  # Wire is all that the parser's streams ask of a BaseProtocol
            loop,
            BODY_LIMIT,
            max_line_size=TARGET_LIMIT,
            max_field_size=limits.field_bytes,
            max_headers=limits.fields,
            auto_decompress=False,
            max_msg_queue_size=1,
        )
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Future[tuple[RawRequestMessage, StreamReader] | None] | None = None
        self._body: StreamReader | None = None
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._head_size = 0
        self._start = b""
        """The beginning of a head that came in several segments."""
        self._head_since: float | None = None
        self._body_since: float | None = None
        self._idle_limit = limits.header_timeout
        self._linger_until: float | None = None
        self._raw: Callable[[bytes], None] | None = None
        self._sweep_tunnel: Callable[[float], None] | None = None
        self._broken = False
        self.busy = False
        """An exchange is running."""
        self.remote = ""

    def __repr__(self) -> str:
        return f"<ClientConnection {self.remote} {'busy' if self.busy else 'idle'}>"

    # ------------------------------------------------------------------------------------------------------ protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the server; refuse politely when it is full."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.remote = peer[0] if isinstance(peer, tuple) else "local"
        self.idle_since = self.loop.time()
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, or keep the bytes until the running exchange has ended."""
        self.active = True
        if self._raw is not None:
            self._raw(data)
        elif self._linger_until is not None or self._broken:
            pass
        elif self.busy and (self._body is None or self._body.is_eof()):
            self._pending.append(data)
            self._pending_size += len(data)
            if self._pending_size > _PENDING_LIMIT:
                self.hold_reading()
        else:
            message = self._feed(data)
            if message is not None:
                self._deliver(message)

    def _feed(self, data: bytes) -> tuple[RawRequestMessage, StreamReader] | None:
        try:
            messages, _, _ = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self._refuse(_head_error(error))
            return None
        if messages:
            message, self._body = messages[0]
            if message.version != (1, 1) and not self._says_http_1_0(data):
                self._refuse(BadRequest("The HTTP version is neither 1.0 nor 1.1"))
                return None
            self._head_since = None
            self._head_size = 0
            self._start = b""
            return messages[0]
        if not self.busy and data:
            if self._head_size < TARGET_LIMIT:
                self._start += data
            self._head_size += len(data)
            if self._head_since is None:
                self._head_since = self.loop.time()
            if self._head_size > self._server.limits.head_bytes:
                self._refuse(HeadersTooLarge(f"The head may hold {self._server.limits.head_bytes} bytes"))
        return None

    def _says_http_1_0(self, data: bytes) -> bool:
        """Whether the request line ends with HTTP/1.0: the parser reads RTSP/1.0 as the same version."""
        line, _, _ = (self._start + data).lstrip(b"\r\n").partition(b"\r\n")
        return line.endswith(b" HTTP/1.0")

    def _deliver(self, message: tuple[RawRequestMessage, StreamReader]) -> None:
        self.busy = True
        waiter, self._next = self._next, None
        if self._task is None:
            self._task = self.loop.create_task(self._serve(message))
        elif waiter is not None and not waiter.done():
            waiter.set_result(message)

    async def _serve(self, message: tuple[RawRequestMessage, StreamReader]) -> None:
        upcoming: tuple[RawRequestMessage, StreamReader] | None = message
        while upcoming is not None:
            keep_alive = await self._server.handler.exchange(self, *upcoming)
            if not keep_alive or self._broken or self.transport is None:
                self.finish()
                return
            upcoming = self._after_exchange()
            if upcoming is None and self._linger_until is None and self.transport is not None:
                self._next = self.loop.create_future()
                upcoming = await self._next

    def _after_exchange(self) -> tuple[RawRequestMessage, StreamReader] | None:
        self.busy = False
        self._body = None
        self.idle_since = self.loop.time()
        self._idle_limit = self._server.limits.keepalive_timeout
        self._parser.message_consumed()
        held, self._pending, self._pending_size = b"".join(self._pending), [], 0
        message = self._feed(held)
        if message is not None:
            self.busy = True
        self.release_reading()
        return message

    def eof_received(self) -> bool:
        """An app that closes its sending side has gone, except inside a tunnel; nginx reads it so, too."""
        if self._raw is not None:
            self._raw(b"")
            return True
        if self.busy and self._linger_until is None:
            self._cancel()
            self.abort()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel what runs for this app; the upstream request goes with it."""
        super().connection_lost(exc)
        if self._raw is not None:
            self._raw(b"")
        self._cancel()
        self._server.closed(self)

    def _cancel(self) -> None:
        if self.busy and self._task is not None:
            self._task.cancel()
        elif self._next is not None and not self._next.done():
            self._next.set_result(None)

    # ------------------------------------------------------------------------------------------------- for an exchange

    async def read_body(self, body: StreamReader) -> bytes:
        """Return what has arrived of `body`, waiting for at least a byte; empty at its end.

        Raises RequestTimeout after `limits.body_timeout` of silence, BadRequest for malformed chunks.
        """
        self._body_since = self.loop.time()
        try:
            return await body.readany()
        finally:
            self._body_since = None

    def early_bytes(self) -> bytes:
        """Return what the app sent behind its upgrade request: the first bytes of the new protocol."""
        self._parser.message_consumed()
        _, _, tail = self._parser.feed_data(b"")
        early, self._pending = tail + b"".join(self._pending), []
        return early

    def tunnel(self, receive: Callable[[bytes], None], sweep: Callable[[float], None]) -> None:
        """From now on hand every segment to `receive`; an empty one says that the app sends no more."""
        self._raw = receive
        self._sweep_tunnel = sweep
        self.release_reading()

    def finish(self) -> None:
        """Close after the last answer has left; go on reading for a while if the app may still be sending."""
        if self.transport is None or self.transport.is_closing():
            return
        if (self._body is None or self._body.is_eof()) and not self._pending and not self._broken:
            self.close()
            return
        self._linger_until = self.loop.time() + _LINGER
        self._pending = []
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._body is not None:
            self._body.set_exception(BadRequest())
        self.resume_reading()
        self.release_reading()

    def _refuse(self, error: ExchangeError) -> None:
        # Malformed bytes. Inside a body they belong to the running exchange, which answers for itself.
        self._broken = True
        if self.busy and self._body is not None:
            self._body.set_exception(error)
            return
        self._server.handler.refuse(self, error)
        self.finish()

    # ------------------------------------------------------------------------------------------------------- time-outs

    def sweep(self, now: float) -> None:
        """Close or fail what has been silent for too long."""
        limits = self._server.limits
        if self._linger_until is not None:
            if now >= self._linger_until:
                self.abort()
        elif self._sweep_tunnel is not None:
            self._sweep_tunnel(now)
        elif not self.busy:
            if self._head_since is not None:
                if now - self._head_since >= limits.header_timeout:
                    self._refuse(RequestTimeout("The request head did not arrive in time"))
            elif now - self.idle_since >= self._idle_limit:
                self.close()
        elif self._body_since is not None and now - self._body_since >= limits.body_timeout and self._body is not None:
            self._broken = True
            self._body.set_exception(RequestTimeout("The request body did not arrive in time"))
        elif self.writing_paused and self.silent_for(now) >= limits.body_timeout:
            self.abort()  # an app that does not read

    def close_if_idle(self) -> None:
        """Close unless an exchange or a half-received head is under way."""
        if not self.busy and self._head_since is None and self._linger_until is None:
            self.close()


def _head_error(error: HttpProcessingError) -> ExchangeError:
    if isinstance(error, LineTooLong):
        return HeadersTooLarge("A line of the head is too long")
    if "Too many headers" in error.message:
        return HeadersTooLarge("The head holds too many fields")
    return BadRequest()


class DataServer:
    """The data port: accepts, counts, sweeps, drains."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler = handler
        self.limits = limits
        self._connections: set[ClientConnection] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._rest: asyncio.Event = asyncio.Event()

    async def start(self, address: Address) -> tuple[str, int]:
        """Listen; return the address with the port that was taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ClientConnection(loop, self), address.host, address.port, backlog=_BACKLOG, reuse_address=True
        )
        self._sweep()
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    @property
    def connections(self) -> int:
        """Open connections, idle ones included."""
        return len(self._connections)

    def opened(self, connection: ClientConnection) -> None:
        """Count a connection; answer 503 and close it when there are too many."""
        self._connections.add(connection)
        self.handler.metrics.connections.set(len(self._connections))
        if len(self._connections) > self.limits.connections:
            self.handler.refuse(connection, TooManyConnections(retry_after=1.0))
            connection.finish()

    def closed(self, connection: ClientConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self.handler.metrics.connections.set(len(self._connections))
        if not self._connections:
            self._rest.set()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self._connections):
            connection.sweep(now)
        self.handler.sweep(now)
        self._sweeper = loop.call_later(self.handler.sweep_interval, self._sweep)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound on waiting, not a cancellation
        """Accept nothing new, close what is idle, give the rest up to `timeout` seconds, then abort it."""
        self.handler.draining = self.handler.closing = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.close_if_idle()
        if self._connections:
            self._rest.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._rest.wait()
            except TimeoutError:
                pass
        for connection in tuple(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        # A round of the loop lets aborted connections report back before their pools are closed.
        await asyncio.sleep(0)
