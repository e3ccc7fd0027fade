"""An app's connection.

One task per connection takes one exchange after another, so pipelined requests keep their order. Bytes of the next
request wait, not looked at, while one is served. A head is understood by the exchange, which knows its route; it then
opens the body (`open_body`). Silence is noticed by one coarse sweep, not by a timer per request.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, cast

from gateway.access import NOBODY, LastKey, certificate_names
from gateway.errors import BadRequest, ExchangeError, HeadersTooLarge, RequestTimeout
from gateway.proxy.body import NO_BODY, Body
from gateway.proxy.fields import find_end
from gateway.proxy.framing import Chunked, FramingError, Sized
from gateway.proxy.intake import LARGE, Intake
from gateway.proxy.request import RequestHead, check_beginning
from gateway.proxy.upload import BodySource
from gateway.proxy.wire import BACKLOG, BODY_FULL

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from gateway.model import Limits
    from gateway.proxy.framing import Decoder
    from gateway.proxy.request import Inbound
    from gateway.proxy.upload import Upload
    from gateway.proxy.wire import Outbox

_PENDING_LIMIT: Final = 64 * 1024
_LINGER: Final = 2.0
"""Seconds that we go on reading (and discarding) behind a last answer, lest a reset destroy it (RFC 9112 §9.6)."""


class Server:
    """What a connection needs of the server that accepted it."""

    def __init__(self, limits: Limits, outbox: Outbox) -> None:
        self.limits = limits
        """May be replaced while connections are open; the head size limit applies from the next connection."""
        self.outbox = outbox
        self.leaving = False
        """Whether every connection closes after its current exchange."""

    def opened(self, connection: ClientConnection) -> None:
        """Count a new connection, or refuse it."""
        raise NotImplementedError

    def closed(self, connection: ClientConnection) -> None:
        """Forget a connection."""
        raise NotImplementedError

    def exchange(self, connection: ClientConnection, request: RequestHead) -> Awaitable[bool]:
        """Serve one request; the result says whether the connection may serve another."""
        raise NotImplementedError

    def refuse(self, connection: ClientConnection, error: ExchangeError) -> None:
        """Write the answer to bytes that are not a request."""
        raise NotImplementedError


class ClientConnection(BodySource):
    """One connection of an app."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Server) -> None:
        super().__init__(loop, server.outbox)
        limits = server.limits
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        """The task waits for bytes."""
        self._body = NO_BODY
        self._decoder: Decoder | None = None
        """Takes the framing off the body that is still coming in."""
        self._rest: bytes | None = None
        """What came behind a head that is not understood yet."""
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._part = bytearray()
        """The beginning of a head that comes in several segments."""
        self._head_since: float | None = None
        self._body_since: float | None = None
        self._body_waited = 0.0
        """Seconds that were waited for bytes of the body so far."""
        self._idle_limit = limits.header_timeout
        self._linger_until: float | None = None
        self._intake = False
        """A large body is read in a way of its own."""
        self._raw: Callable[[bytes], None] | None = None
        self._sweep_tunnel: Callable[[float], None] | None = None
        self._broken = False
        self.busy = False
        """An exchange is running."""
        self.remote = ""
        self.certificate = NOBODY
        """Names in the app's certificate."""
        self.last_key = LastKey()

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
        """Take a segment: a request, a part of one, of its body, or what has to wait until the exchange has ended."""
        if self._linger_until is not None or self._broken:
            return
        self.active = True
        if self._raw is not None:
            self._raw(data)
        elif self._decoder is not None:
            self._feed_body(data)
        elif self._rest is not None:
            self._rest += data
        else:
            self._keep(data)
            if not self.busy:
                self._wake()

    def _keep(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size > _PENDING_LIMIT:
            self.pause_reading(BACKLOG)

    def _take(self, data: bytes) -> RequestHead | None:
        """Return the next request if its head is complete; what stands behind it waits in `_rest`."""
        part = self._part
        seen = len(part)
        if not seen and data[:1] in b"\r\n":
            data = data.lstrip(b"\r\n")  # empty lines in front of a request line (RFC 9112 §2.2)
        end, data = find_end(part, data)
        if end < 0:
            self._wait_for_more(seen)
            return None
        if part:
            part.clear()
            self._head_since = None
        self._rest = data[end + 4 :]
        try:
            return RequestHead(data[:end])
        except ExchangeError as error:
            self.refuse(error)
            return None

    def _wait_for_more(self, seen: int) -> None:
        """A head is incomplete: see that it can still become one, and that it does not take for ever."""
        if not self._part:
            return
        if self._head_since is None:
            self._head_since = self.loop.time()
        try:
            if len(self._part) > self._server.limits.head_bytes:
                raise HeadersTooLarge(f"The head may hold {self._server.limits.head_bytes} bytes")
            check_beginning(self._part, seen)
        except ExchangeError as error:
            self.refuse(error)

    def open_body(self, head: Inbound) -> Body:
        """Return the body of the request whose head was understood. Raises BadRequest if it is malformed already."""
        rest, self._rest = self._rest, None
        if head.chunked:
            self._body = body = Body(self)
            self._decoder = Chunked(body)
        elif head.length:
            self._body = body = Body(self)
            self._decoder = Sized(body, head.length)
        else:
            body = NO_BODY
        if rest:
            self._keep(rest) if body is NO_BODY else self._feed_body(rest)
            if body.error is not None:
                raise body.error
        return body

    def _feed_body(self, data: bytes) -> None:
        """Feed what belongs to the body, keep the rest; an error in it is the running exchange's to answer."""
        assert self._decoder is not None  # noqa: S101 - there is a body
        try:
            rest = self._decoder.feed(data)
        except FramingError as error:
            self._broken = True
            self._body.fail(BadRequest(f"The body holds {error}"))
            return
        if self._body.ended:
            self._decoder = None
        if rest:
            self._keep(rest)

    def _wake(self) -> None:
        """Have the task look at what has come; it does so when all that has come is read.

        Between two reads the kernel has used the processor's caches: heads are understood faster one after the other.
        """
        if self._task is None:
            self._task = self.loop.create_task(self._serve())
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _serve(self) -> None:
        while True:
            if not self._pending:
                self._waiter = self.loop.create_future()
                await self._waiter
            head = self._next_head() if self._pending else None
            if head is not None:
                keep_alive = await self._server.exchange(self, head)
                if not keep_alive or self._broken or self.transport is None or self._server.leaving:
                    self.finish()
                    return
                if self.writing_paused:  # answers to pipelined requests must not pile up
                    await self._flushed()
                self._after_exchange()
            elif self._broken or self.transport is None:
                return

    def _next_head(self) -> RequestHead | None:
        """Return the request that has come, if its head is whole."""
        pieces, self._pending, self._pending_size = self._pending, [], 0
        head = self._take(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        self.busy = head is not None
        self.resume_reading(BACKLOG)
        return head

    async def _flushed(self) -> None:
        try:
            await self.drain()
        except ConnectionResetError:
            self.abort()

    def _after_exchange(self) -> None:
        self.busy = False
        self._body = NO_BODY
        self._decoder = None
        self._body_waited = 0.0
        self.idle_since = self.loop.time()
        self._idle_limit = self._server.limits.keepalive_timeout

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
        self._pending = []  # nobody waits for an answer: what was asked is not begun
        self._cancel()
        self._task = None  # it holds us: without this only the collector would free the two
        self._server.closed(self)

    def _cancel(self) -> None:
        if self.busy and self._task is not None:
            self._task.cancel()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ------------------------------------------------------------------------------------------------- for an exchange

    def body_awaited(self) -> None:
        """From now on, or again from now on, the app is waited for; bytes of its body have come just now, or none yet.

        The sweep fails the body with RequestTimeout after `limits.body_timeout` of silence, or of waiting in all for
        one that is slower than `limits.body_rate`.
        """
        now = self.loop.time()
        if self._body_since is not None:
            self._body_waited += now - self._body_since
        self._body_since = now

    def body_not_awaited(self) -> None:
        """The app is not waited for: its body is there, or the vendor takes no more of it."""
        if self._body_since is not None:
            self._body_waited += self.loop.time() - self._body_since
            self._body_since = None

    def begin_intake(self, upload: Upload) -> None:
        """Read the rest of a large body of known length in large pieces; not over TLS, where they are decrypted first.

        To be ended by `end_intake`.
        """
        transport, decoder = self.transport, self._decoder
        if isinstance(decoder, Sized) and decoder.left > LARGE and transport is not None and transport.can_write_eof():
            transport.set_protocol(Intake(self, transport, decoder, upload))
            self._intake = True

    def end_intake(self) -> None:
        """Read in the usual way again."""
        if self._intake and self.transport is not None:
            self.transport.set_protocol(cast("asyncio.Protocol", self))
        self._intake = False

    def body_received(self, piece: memoryview) -> None:
        """Take a piece of the body that is coming in, and of nothing else."""
        decoder = self._decoder
        if isinstance(decoder, Sized) and self._linger_until is None and not self._broken:
            self.active = True
            decoder.feed_within(piece)
            if self._body.ended:
                self._decoder = None

    def early_bytes(self) -> bytes:
        """Return what the app sent behind its upgrade request: the first bytes of the new protocol."""
        early, self._pending, self._pending_size = b"".join(self._pending), [], 0
        return early

    def tunnel(self, receive: Callable[[bytes], None], sweep: Callable[[float], None]) -> None:
        """From now on hand every segment to `receive`; an empty one says that the app sends no more."""
        self._raw = receive
        self._sweep_tunnel = sweep
        self.resume_reading(BACKLOG)

    def finish(self) -> None:
        """Close after the last answer has left, and go on reading for a while: the app may still be sending."""
        if self.transport is None or self.transport.is_closing() or self._linger_until is not None:
            return
        if not self.transport.can_write_eof():  # TLS reads on by itself until the app's close_notify
            self.close()
            return
        self._linger_until = self.loop.time() + _LINGER
        self._pending = []
        self.write_eof()
        self._body.fail(BadRequest())
        self.resume_reading(BODY_FULL)
        self.resume_reading(BACKLOG)

    def refuse(self, error: ExchangeError) -> None:
        """Answer what never became a request, and close."""
        self._broken = True
        self._server.refuse(self, error)
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
            elif not self._pending and now - self.idle_since >= self._idle_limit:
                self.close()
        elif self.peer_gone:
            self._cancel()
            self.abort()
        elif self._body_since is not None and self._too_slow(self._body, now):
            self._broken = True
            self._body.fail(RequestTimeout("The request body did not arrive in time"))
        elif self.writing_paused and self.silent_for(now) >= limits.body_timeout:
            self.abort()  # an app that does not read

    def _too_slow(self, body: Body, now: float) -> bool:
        """Whether the body was silent for too long, or comes so slowly that it might never end (RFC 9110 §15.5.9).

        Only time in which the app was waited for counts, not what the vendor takes.
        """
        limits, silence = self._server.limits, now - (self._body_since or now)
        earned = body.size / limits.body_rate if limits.body_rate else math.inf
        return silence >= limits.body_timeout or self._body_waited + silence >= limits.body_timeout + earned

    @property
    def fresh(self) -> bool:
        """Whether nothing has come so far."""
        return self._task is None

    def _sweep_ending(self, now: float) -> None:
        """See the last answer off: as long as its bytes move they may take their time."""
        if self.transport is None:
            return
        if self._outgoing or self.transport.get_write_buffer_size():
            if self.silent_for(now) >= self._server.limits.body_timeout:
                self.abort()
            elif self._linger_until is not None:
                self._linger_until = now + _LINGER
        elif self._linger_until is not None and now >= self._linger_until:
            self.close()

    def close_if_idle(self) -> None:
        """Close unless an exchange is under way, or bytes of the next have come."""
        if not (self.busy or self._pending) and self._head_since is None and self._linger_until is None:
            self.close()
