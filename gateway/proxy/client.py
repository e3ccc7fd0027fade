"""An app's connection.

One task per connection serves one exchange after another, so pipelined requests keep their order. The connection is in
one phase at a time, which decides what happens with its bytes and which time-out applies (`phase.py` has the table).
The exchange, which knows the route, parses the fields and opens the body. One sweep applies the time-outs of all.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, cast

from gateway.access import NOBODY, LastKey, certificate_names
from gateway.errors import BadRequest, ExchangeError, Overloaded, RequestTimeout
from gateway.proxy import phase as on
from gateway.proxy.body import NO_BODY, Body, BodyTimer
from gateway.proxy.framing import Chunked, FramingError, Sized
from gateway.proxy.intake import LARGE, Intake
from gateway.proxy.phase import ANSWERING, BODY, HEAD, IDLE, LINGERING, PHASES, TUNNEL, runs_exchange
from gateway.proxy.request import RequestHead
from gateway.proxy.unparsed import Unparsed
from gateway.proxy.upload import BodySource
from gateway.proxy.wire import BACKLOG, BODY_FULL

if TYPE_CHECKING:
    from gateway.proxy.framing import Decoder
    from gateway.proxy.request import Inbound
    from gateway.proxy.server import Server
    from gateway.proxy.upload import Upload
    from gateway.proxy.wire import TunnelEnd

_PENDING_LIMIT: Final = 64 * 1024
"""Unparsed bytes at which the connection stops reading."""
_IN_A_ROW: Final = 8
"""Pipelined requests that are served before other connections get their turn, because an answer may never wait."""
_LINGER: Final = 2.0
"""Seconds to read and discard after the last answer, because a reset could destroy it (RFC 9112 §9.6)."""


class ClientConnection(BodySource):
    """One connection of an app."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Server[ClientConnection], remote: str) -> None:
        super().__init__(loop, server.outbox)
        self._server = server
        self.phase = IDLE
        self._deadline = math.inf
        """Loop time at which phase idle, head or lingering ends."""
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        """What the task waits for between exchanges."""
        self.unparsed = Unparsed(server.unparsed)
        self._body = NO_BODY
        self._decoder: Decoder | None = None
        """Removes the framing of the body that arrives."""
        self._body_timer = BodyTimer()
        self._tunnel: TunnelEnd | None = None
        self.remote = remote
        """The app's IP address."""
        self.surplus = False
        """Whether a bound was reached before it was accepted, so that it is refused."""
        self.certificate = NOBODY
        """Names in the app's certificate."""
        self.last_key = LastKey()

    def __repr__(self) -> str:
        return f"<ClientConnection {self.remote} {PHASES[self.phase]}>"

    # ------------------------------------------------------------------------------------------------------ protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the server, which refuses the connection if there are too many."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.certificate = certificate_names(tls.getpeercert(binary_form=True))
        self.idle_since = self.loop.time()
        self._deadline = self.idle_since + self._server.limits.header_timeout
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        """Take a segment and treat it as the phase says."""
        phase = self.phase
        if phase <= HEAD:
            self.active = True
            self.phase = on.BYTES[phase]
            if self.unparsed.add(data) > _PENDING_LIMIT:
                self.pause_reading(BACKLOG)
            self._wake()
        elif phase == BODY:
            self.active = True
            self._feed_body(data)
        elif phase == ANSWERING:
            self.active = True
            self._keep(data)
            self._settle()
        elif phase == TUNNEL and self._tunnel is not None:
            self.active = True
            self._tunnel.receive(data)

    def _keep(self, data: bytes) -> None:
        if self.unparsed.add(data) > _PENDING_LIMIT:
            self.pause_reading(BACKLOG)

    def eof_received(self) -> bool:
        """Take the end of the app's bytes: it ends the exchange, except in a tunnel; nginx does the same."""
        if self._tunnel is not None:
            self._tunnel.receive(b"")
            self.ended = self.half_closes
            return self.ended
        if runs_exchange(self.phase):
            self._stop_task()
            self.abort()
        else:
            self.phase = on.FINISHED[self.phase]  # asyncio closes the transport
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the exchange; its request to the vendor is cancelled with it."""
        super().connection_lost(exc)
        self.phase = on.LOST[self.phase]
        if self._tunnel is not None:
            self._tunnel.receive(b"")
        self.unparsed.clear()  # requests that have not begun are dropped
        self._stop_task()
        self._task = None  # breaks the reference cycle, so that no garbage collection is needed
        self._server.closed(self)

    # ------------------------------------------------------------------------------------------------------ requests

    def _wake(self) -> None:
        """Let the task parse what has arrived, after everything that has arrived was read.

        Parsing heads one after the other is faster than parsing between two reads (docs/decisions/0008).
        """
        if self._task is None:
            self._task = self.loop.create_task(self._serve())
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _serve(self) -> None:
        served = 0
        while True:
            if not self.unparsed.pending:
                served = 0
                self._waiter = self.loop.create_future()
                await self._waiter
            elif served >= _IN_A_ROW:
                served = 0
                await asyncio.sleep(0)
            head = self._next_head() if self.phase == HEAD else None
            if head is not None:
                keep_alive = await self._server.exchange(self, head)
                if self.writing_paused and keep_alive and self.phase == ANSWERING:
                    await self._flushed()  # answers to pipelined requests must not pile up
                if not keep_alive or self.phase != ANSWERING or self._server.leaving:
                    self.finish()
                    return
                self._after_exchange()
                served += 1
            elif self.phase >= LINGERING:
                return

    def _next_head(self) -> RequestHead | None:
        """Return the next request if its head is complete; what follows it stays unparsed."""
        limits, unparsed, head = self._server.limits, self.unparsed, None
        try:
            raw = unparsed.next_head(limits.head_bytes)
            if raw is not None:
                self.phase = on.REQUEST[self.phase]
                head = RequestHead(raw)
            elif not unparsed.partial:
                self.phase = on.BLANK[self.phase]
            elif unparsed.begins:
                self._deadline = self.loop.time() + limits.header_timeout
        except ExchangeError as error:
            self.refuse(error)
        if self._paused_for and unparsed.pending <= _PENDING_LIMIT:
            self.resume_reading(BACKLOG)
        if head is None or unparsed.counted:
            self._settle()
        return head

    def _settle(self) -> None:
        """Count the bytes that stay unparsed."""
        self.unparsed.settle()
        if self._server.unparsed.held > self._server.limits.unparsed_bytes:
            self._server.relieve()

    def shed(self) -> None:
        """Give up unparsed bytes: refuse an incomplete request, and drop pipelined ones, which the app may repeat."""
        if self.phase == HEAD:
            self.refuse(Overloaded(retry_after=1.0))
        elif self.phase == ANSWERING:
            self.phase = on.SPOILED[ANSWERING]
            self.unparsed.clear()
            self.resume_reading(BACKLOG)

    def open_body(self, head: Inbound) -> Body:
        """Return the body of the request whose head was parsed. Raises BadRequest if it is malformed already."""
        if head.chunked:
            self._body = body = Body(self)
            self._decoder = Chunked(body)
        elif head.length:
            self._body = body = Body(self)
            self._decoder = Sized(body, head.length)
        else:
            if self.unparsed.pending:
                self._settle()
            return NO_BODY
        self.phase = on.BODY_BEGINS[self.phase]
        if self.unparsed.pending:
            rest = self.unparsed.take()
            if self._paused_for:
                self.resume_reading(BACKLOG)
            self._feed_body(rest)
            if body.error is not None:
                raise body.error
        return body

    def _feed_body(self, data: bytes) -> None:
        """Pass body bytes on and keep the rest; the running exchange answers an error in them."""
        assert self._decoder is not None  # noqa: S101 - there is a body
        try:
            rest = self._decoder.feed(data)
        except FramingError as error:
            self._fail_body(BadRequest(f"The body holds {error}"))
            return
        if self._body.ended:
            self._decoder = None
            self.phase = on.BODY_ENDS[self.phase]
        if rest:
            self._keep(rest)
            self._settle()

    def _fail_body(self, error: ExchangeError) -> None:
        self.phase = on.SPOILED[self.phase]
        self._body.fail(error)

    async def _flushed(self) -> None:
        try:
            await self.drain()
        except ConnectionResetError:
            self.abort()

    def _after_exchange(self) -> None:
        self._body = NO_BODY
        self._deadline = self.loop.time() + self._server.limits.keepalive_timeout
        self.phase = on.ANSWERED[ANSWERING]
        if self.unparsed.pending:
            self.phase = on.BYTES[IDLE]

    # ------------------------------------------------------------------------------------------------- for an exchange

    def body_awaited(self) -> None:
        """Start (or restart) the timer that measures how long the app has sent no body bytes."""
        self._body_timer.restart(self.loop.time(), self._body)

    def body_not_awaited(self) -> None:
        """Stop that timer: the body is complete, or the vendor accepts no more of it."""
        self._body_timer.stop(self.loop.time())

    def begin_intake(self, upload: Upload) -> None:
        """Read the rest of a large body of known length in large pieces, until `end_intake`.

        Not over TLS, where the bytes must be decrypted first.
        """
        transport, decoder = self.transport, self._decoder
        if isinstance(decoder, Sized) and decoder.left > LARGE and transport is not None and transport.can_write_eof():
            transport.set_protocol(Intake(self, transport, decoder, upload))

    def end_intake(self) -> None:
        """Read in the usual way again."""
        if self.transport is not None and isinstance(self.transport.get_protocol(), Intake):
            self.transport.set_protocol(cast("asyncio.Protocol", self))

    def body_received(self, piece: memoryview) -> None:
        """Take bytes that belong to the body of known length."""
        decoder = self._decoder
        if self.phase == BODY and isinstance(decoder, Sized):
            self.active = True
            decoder.feed_within(piece)
            if self._body.ended:
                self._decoder = None
                self.phase = on.BODY_ENDS[self.phase]

    def tunnel(self, tunnel: TunnelEnd) -> None:
        """Pass every segment to `tunnel` from now on, first those that followed the upgrade request."""
        self._tunnel = tunnel
        self.phase = on.SWITCHED[self.phase]
        if self.unparsed.pending:
            tunnel.receive(self.unparsed.take())
        self.resume_reading(BACKLOG)

    # --------------------------------------------------------------------------------------------------------- closing

    def _stop_task(self) -> None:
        """Cancel the exchange, or wake the task that waits for one."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        elif self._task is not None:
            self._task.cancel()

    def finish(self) -> None:
        """Close after the last answer was sent; read and discard for a while, because the app may still be sending."""
        if self.transport is None or self.transport.is_closing() or self.phase >= LINGERING:
            return
        if not self.half_closes:  # over TLS, the transport itself reads until the app's close_notify
            self.close()
            return
        self.phase = on.FINISHED[self.phase]
        self._deadline = self.loop.time() + _LINGER
        self.unparsed.clear()
        self.write_eof()
        self._body.fail(BadRequest())
        self.resume_reading(BODY_FULL)
        self.resume_reading(BACKLOG)

    def refuse(self, error: ExchangeError) -> None:
        """Answer bytes that are not a request, and close."""
        self._server.refuse(self, error)
        self.finish()

    def close(self) -> None:
        """Close after the queued bytes have been sent."""
        self.phase = on.FINISHED[self.phase]
        self._deadline = math.inf
        super().close()

    def abort(self) -> None:
        """Close at once with a reset."""
        self.phase = on.LOST[self.phase]
        super().abort()

    def close_if_idle(self) -> None:
        """Close unless an exchange runs or bytes of the next request have arrived."""
        if self.phase == IDLE:
            self.close()

    @property
    def fresh(self) -> bool:
        """Whether no byte has arrived so far."""
        return self._task is None

    # ------------------------------------------------------------------------------------------------------- time-outs

    def sweep(self, now: float) -> None:
        """Apply the time-out of the phase."""
        phase = self.phase
        if phase == IDLE:
            if now >= self._deadline:
                self.close()
        elif phase == HEAD:
            if self.unparsed.partial and now >= self._deadline:
                self.refuse(RequestTimeout("The request head did not arrive in time"))
        elif phase == TUNNEL:
            if self._tunnel is not None:
                self._tunnel.sweep(now)
        elif phase == LINGERING:
            self._sweep_lingering(now)
        elif runs_exchange(phase):
            self._sweep_exchange(now)

    def _sweep_exchange(self, now: float) -> None:
        limits = self._server.limits
        if self.peer_gone:
            self._stop_task()
            self.abort()
        elif self.phase == BODY and self._body_timer.expired(now, limits, self._body.size):
            self._fail_body(RequestTimeout("The request body did not arrive in time"))
        elif self.writing_paused and self.silent_for(now) >= limits.body_timeout:
            self.abort()  # the app does not read its answer

    def _sweep_lingering(self, now: float) -> None:
        """Close when the time is over, but not while bytes of the last answer still leave."""
        if self._outgoing or self._waiting_to_leave():
            if self.silent_for(now) >= self._server.limits.body_timeout:
                self.abort()
            elif self._deadline < math.inf:
                self._deadline = now + _LINGER
        elif now >= self._deadline:
            self.close()
