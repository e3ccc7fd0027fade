"""An app's connection.

One task per connection takes one exchange after another, so pipelined requests keep their order. Bytes of the next
request wait unparsed while one is served: the parser is fed one message at a time, as it discards what it had parsed
when something later in the same segment is malformed. Silence is noticed by one coarse sweep, not by a timer per
request.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gateway.access import NOBODY, certificate_names
from gateway.errors import BadRequest, ExchangeError, HeadersTooLarge, RequestTimeout
from gateway.proxy.framing import ChunkedEnd, SizedEnd, edge, head_end
from gateway.proxy.upstream import BODY_LIMIT
from gateway.proxy.wire import Wire

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from aiohttp.http import RawRequestMessage
    from aiohttp.streams import StreamReader

    from gateway.proxy.framing import BodyEnd
    from gateway.proxy.port import DataServer

    Message = tuple[RawRequestMessage, StreamReader]

TARGET_LIMIT = 16 * 1024
"""Bytes of a request target: identity vendors put whole JWTs into queries."""
_PENDING_LIMIT = 64 * 1024
_LINGER = 2.0
"""Seconds that we go on reading (and discarding) behind a last answer, lest a reset destroy it (RFC 9112 §9.6)."""


class ClientConnection(Wire):
    """One connection of an app."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: DataServer) -> None:
        super().__init__(loop)
        limits = server.limits
        self._server = server
        self._parser = self._new_parser()
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Future[Message | None] | None = None
        self._body: StreamReader | None = None
        self._end: BodyEnd | None = None
        """Where the body ends; None when there is none."""
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._head_size = 0
        self._start = b""
        """The beginning of a head that came in several segments."""
        self._edge = b""
        """The last three bytes of its latest segment."""
        self._head_since: float | None = None
        self._body_since: float | None = None
        self._body_waited = 0.0
        """Seconds that were waited for bytes of the body so far."""
        self._idle_limit = limits.header_timeout
        self._linger_until: float | None = None
        self._raw: Callable[[bytes], None] | None = None
        self._sweep_tunnel: Callable[[float], None] | None = None
        self._broken = False
        self.busy = False
        """An exchange is running."""
        self.remote = ""
        self.certificate = NOBODY
        """Names in the app's certificate."""

    def _new_parser(self) -> HttpRequestParser:
        limits = self._server.limits
        return HttpRequestParser(
            self,  # type: ignore[arg-type]  # Wire is all that the parser's streams ask of a BaseProtocol
            self.loop,
            BODY_LIMIT,
            max_line_size=TARGET_LIMIT,
            max_field_size=limits.field_bytes,
            max_headers=limits.fields,
            auto_decompress=False,
            max_msg_queue_size=1,
        )

    def __repr__(self) -> str:
        return f"<ClientConnection {self.remote} {'busy' if self.busy else 'idle'}>"

    # ------------------------------------------------------------------------------------------------------ protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the server; refuse politely when it is full."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.remote = peer[0] if isinstance(peer, tuple) else "local"
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.certificate = certificate_names(tls.getpeercert(binary_form=True))
        self.idle_since = self.loop.time()
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, or keep the bytes until the running exchange has ended."""
        if self._linger_until is not None or self._broken:
            return
        self.active = True
        if self._raw is not None:
            self._raw(data)
        elif not self.busy:
            message = self._take(data)
            if message is not None:
                self._deliver(message)
        elif self._body is None or self._body.is_eof():
            self._keep(data)
        else:
            self._feed_body(data)

    def _keep(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size > _PENDING_LIMIT:
            self.hold_reading()

    def _take(self, data: bytes) -> Message | None:
        """Return the next request if its head is complete; what stands behind it waits unparsed."""
        while data:
            end = head_end(self._edge, data)
            messages = self._feed(data[:end] if end else data)
            if messages is None:
                return None
            if not messages:
                if not self._note_part(data[:end] if end else data):
                    return None
                data = data[end:] if end else b""
                continue
            message, self._body = messages[0]
            if not end or (message.version != (1, 1) and not self._says_http_1_0(data)):
                self.refuse(BadRequest("The HTTP version is neither 1.0 nor 1.1"))
                return None
            self._head_since, self._head_size, self._start, self._edge, self._end = None, 0, b"", b"", None
            if not self._body.is_eof():
                chunked = message.chunked
                self._end = ChunkedEnd() if chunked else SizedEnd(int(message.headers["Content-Length"]))
            if end < len(data):
                self._feed_body(data[end:])
            return None if self._broken else messages[0]
        return None

    def _note_part(self, data: bytes) -> bool:
        """Remember a part of a head; return False if that head has become too large."""
        if self._head_size < TARGET_LIMIT:
            self._start += data
        self._edge = edge(self._edge, data)
        self._head_size += len(data)
        if self._head_since is None:
            self._head_since = self.loop.time()
        if self._head_size > self._server.limits.head_bytes:
            self.refuse(HeadersTooLarge(f"The head may hold {self._server.limits.head_bytes} bytes"))
            return False
        return True

    def _feed_body(self, data: bytes) -> None:
        """Feed what belongs to the body, keep the rest; parser and framing must agree on where it ends."""
        end = self._end
        if end is None:
            self._keep(data)
            return
        step = end.within(data)
        messages = self._feed(data[:step] if step < len(data) else data)
        if messages is None:
            return
        if messages or self._body is None or self._body.is_eof() != end.done:
            self.refuse(BadRequest())
        elif step < len(data):
            self._keep(data[step:])

    def _feed(self, data: bytes) -> Sequence[Message] | None:
        """Return the messages that became complete, or None if the bytes are malformed and were refused."""
        try:
            return self._parser.feed_data(data)[0]
        except HttpProcessingError as error:
            self.refuse(_head_error(error))
            return None

    def _says_http_1_0(self, data: bytes) -> bool:
        """Whether the request line ends with HTTP/1.0: the parser reads RTSP/1.0 as the same version."""
        line, _, _ = (self._start + data).lstrip(b"\r\n").partition(b"\r\n")
        return line.endswith(b" HTTP/1.0")

    def _deliver(self, message: Message) -> None:
        self.busy = True
        waiter, self._next = self._next, None
        if self._task is None:
            self._task = self.loop.create_task(self._serve(message))
        elif waiter is not None and not waiter.done():
            waiter.set_result(message)

    async def _serve(self, message: Message) -> None:
        upcoming: Message | None = message
        while upcoming is not None:
            keep_alive = await self._server.handler.exchange(self, *upcoming)
            if not keep_alive or self._broken or self.transport is None or self._server.leaving:
                self.finish()
                return
            if self.writing_paused:  # answers to pipelined requests must not pile up
                await self._flushed()
            upcoming = self._after_exchange()
            if upcoming is None and self._linger_until is None and self.transport is not None:
                self._next = self.loop.create_future()
                upcoming = await self._next

    async def _flushed(self) -> None:
        try:
            await self.drain()
        except ConnectionResetError:
            self.abort()

    def _after_exchange(self) -> Message | None:
        self.busy = False
        self._body = None
        self._body_waited = 0.0
        self.idle_since = self.loop.time()
        self._idle_limit = self._server.limits.keepalive_timeout
        if self._end is not None and self._end.trailers:
            # The old one would hand the last trailer on to the next head as its first field.
            self._parser = self._new_parser()
        else:
            self._parser.message_consumed()
        held, self._pending, self._pending_size = b"".join(self._pending), [], 0
        message = self._take(held)
        if message is not None:
            self.busy = True
        self.release_reading()
        return message

    def eof_received(self) -> bool:
        """An app that closes its sending side has gone, except inside a tunnel; nginx reads it so, too."""
        if self._raw is not None:
            self._raw(b"")
            self.ended = self.half_closes
            return self.ended
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

        Raises RequestTimeout after `limits.body_timeout` of silence, or of waiting in all for a body that is slower
        than `limits.body_rate`; BadRequest for malformed chunks.
        """
        if self.transport is None:
            raise ConnectionResetError
        self._body_since = self.loop.time()
        try:
            return await body.readany()
        finally:
            self._body_waited += self.loop.time() - self._body_since
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
        """Close after the last answer has left, and go on reading for a while: the app may still be sending."""
        if self.transport is None or self.transport.is_closing():
            return
        if not self.transport.can_write_eof():  # TLS reads on by itself until the app's close_notify
            self.close()
            return
        self._linger_until = self.loop.time() + _LINGER
        self._pending = []
        self.transport.write_eof()
        if self._body is not None:
            self._body.set_exception(BadRequest())
        self.resume_reading()
        self.release_reading()

    def refuse(self, error: ExchangeError) -> None:
        """Answer and close. Inside a body the error belongs to the running exchange, which answers for itself."""
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
        if self.transport is None or self.transport.is_closing() or self._linger_until is not None:
            self._sweep_ending(now)
        elif self._sweep_tunnel is not None:
            self._sweep_tunnel(now)
        elif not self.busy:
            if self._head_since is not None:
                if now - self._head_since >= limits.header_timeout:
                    self.refuse(RequestTimeout("The request head did not arrive in time"))
            elif now - self.idle_since >= self._idle_limit:
                self.close()
        elif self.peer_gone:
            self._cancel()
            self.abort()
        elif self._body is not None and self._body_since is not None and self._too_slow(self._body, now):
            self._broken = True
            self._body.set_exception(RequestTimeout("The request body did not arrive in time"))
        elif self.writing_paused and self.silent_for(now) >= limits.body_timeout:
            self.abort()  # an app that does not read

    def _too_slow(self, body: StreamReader, now: float) -> bool:
        """Whether the body was silent for too long, or comes so slowly that it might never end (RFC 9110 §15.5.9).

        Only time in which the app was waited for counts, not what the vendor takes.
        """
        limits, silence = self._server.limits, now - (self._body_since or now)
        earned = body.total_bytes / limits.body_rate if limits.body_rate else math.inf
        return silence >= limits.body_timeout or self._body_waited + silence >= limits.body_timeout + earned

    @property
    def fresh(self) -> bool:
        """Whether no request has come so far."""
        return self._task is None

    def _sweep_ending(self, now: float) -> None:
        """See the last answer off: as long as its bytes move they may take their time."""
        if self.transport is None:
            return
        if self.transport.get_write_buffer_size():
            if self.silent_for(now) >= self._server.limits.body_timeout:
                self.abort()
            elif self._linger_until is not None:
                self._linger_until = now + _LINGER
        elif self._linger_until is not None and now >= self._linger_until:
            self.close()

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
