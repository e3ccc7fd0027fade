"""A connection to a vendor: bytes in, response heads and bodies out.

Serves one exchange at a time and owns that exchange's deadlines, all on the event loop's clock. It can be reused only
after a cleanly framed response with no bytes behind it; in any doubt it is closed (RFC 9112 §9.3, §11.2). Whether a
body that ends with its connection is complete is decided by how the connection closed (RFC 9112 §8).
"""

from __future__ import annotations

import select
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.errors import Aborted, ExchangeError, UpstreamMalformed, UpstreamReset, UpstreamTimeout, os_reason
from gateway.model.http import ANSWER_HEAD_BYTES, FINAL, SWITCHING
from gateway.proxy.body import NO_BODY, Body
from gateway.proxy.fields import find_end
from gateway.proxy.framing import Chunked, FramingError, Sized, UntilClose
from gateway.proxy.response import check_answer_beginning, read_response
from gateway.proxy.wire import AT_ONCE, BACKLOG, BODY_FULL, Wire

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.model import Timeouts
    from gateway.proxy.framing import Decoder
    from gateway.proxy.response import Outbound
    from gateway.proxy.wire import Outbox

    Answer = tuple[Outbound, Body]

IDLE_KEEP: Final = 30.0
"""Seconds that an idle connection is kept; below the idle time-outs of the load balancers that are in common use."""
_MARGIN: Final = 1.0
"""Seconds by which an idle connection is closed before the vendor's own time-out."""
_MOST_INTERIM: Final = 32
"""1xx responses (RFC 9110 §15.2) accepted before one final response."""
_NO_CONTENT: Final = 204
_BODYLESS: Final = frozenset({SWITCHING, _NO_CONTENT, 304})


def _declares_content(head: Outbound) -> bool:
    """Whether a head that ends its message declares content all the same, as it must not (RFC 9110 §8.6, §15.3.5).

    The vendor may send the content later, and the next exchange would take it for its answer.
    """
    return head.chunked or bool(head.length)


class UpstreamConnection(Wire):
    """One connection of a pool."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, outbox: Outbox, on_lost: Callable[[UpstreamConnection], None]
    ) -> None:
        super().__init__(loop, outbox)
        self._on_lost = on_lost
        self._heads: deque[Answer] = deque()
        self._unparsed = b""
        """Bytes that are parsed when the exchange goes on."""
        self._waiter: asyncio.Future[None] | None = None
        """Set while the exchange waits for a head."""
        self._error: ExchangeError | None = None
        self._body: Body | None = None
        """The final response's body, once its head is parsed."""
        self._decoder: Decoder | None = None
        """Removes the framing of the body that is arriving."""
        self._partial_head = bytearray()
        """The beginning of a head that arrives in several segments."""
        self._poll: select.poll | None = None
        self._head_request = False
        self._interim = 0
        self._closed_cleanly = False
        """The vendor ended its direction in an orderly way (over TLS: with close_notify)."""
        self._tunnel: Callable[[bytes], None] | None = None
        """Takes every segment after a 101."""
        self.tail = b""
        """Bytes behind a 101: the first of the new protocol."""
        self.in_use = False
        self.dirty = False
        """No further exchange may use it: it is too old or refused now, or bytes may come that no request asked for."""
        self.exchanges = 0
        self.owner = ""  # the client whose exchange it serves
        self.address = ""  # the vendor's IP address
        self.retire_at = 0.0
        """Loop time from which the connection is too old for another exchange."""
        self.idle_from = 0.0
        """Loop time at which it was returned to the pool."""
        self.idle_keep = IDLE_KEEP
        """Seconds that it may stay idle."""
        self._first_byte = self._idle = 0.0
        """The exchange's time-outs, seconds."""
        self._deadline: float | None = None
        """Loop time at which the exchange fails unless the head has come or bytes of the request still leave."""
        self._left = 0  # bytes of the request that were not acknowledged when that time came
        self._reading_awaited = False  # the vendor does not read the request body, so silence is a failure
        self._total_deadline: float | None = None
        self._watched = False  # the response body is read, so silence is a failure

    def __repr__(self) -> str:
        state = "closed" if self.transport is None else "in use" if self.in_use else "idle"
        return f"<UpstreamConnection {state}, {self.exchanges} exchanges>"

    # ------------------------------------------------------------------------------------------------- one exchange

    def begin(self, timeouts: Timeouts, *, head: bool, spent: float = 0.0) -> None:
        """Start one exchange.

        Args:
            timeouts: the route's.
            head: the request is a HEAD, so the response has no body (RFC 9110 §9.3.2).
            spent: seconds of `timeouts.total` that have passed already.
        """
        self.in_use = True
        self.exchanges += 1
        self._first_byte, self._idle = timeouts.first_byte, timeouts.idle
        total = timeouts.total
        if total is not None:
            self._total_deadline = self.loop.time() + total - spent
        self._interim = 0
        self._head_request = head

    def await_head(self) -> None:
        """Start the first-byte time-out: the whole request has been sent."""
        if self._body is None:
            self._deadline = self.loop.time() + self._first_byte

    def await_reading(self) -> None:
        """Start the idle time-out: the vendor has stopped reading the request body."""
        self.active = self.active or not self._reading_awaited
        self._reading_awaited = True

    def reads_again(self) -> None:
        """Stop the time-out of `await_reading`."""
        self._reading_awaited = False

    async def response(self) -> Answer:
        """Return the next response head, interim ones included, and its body's stream.

        Raises UpstreamReset, UpstreamMalformed, UpstreamTimeout, or whatever the exchange was failed with.
        """
        while not self._heads:
            if self._unparsed:
                self._parse()
            elif self._error is not None:
                raise self._error
            elif self.transport is None:
                raise UpstreamReset(reason="closed before the request was sent")
            else:
                self._waiter = self.loop.create_future()
                await self._waiter
        return self._heads.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _parse(self) -> None:
        """Parse all segments that have arrived, in one go."""
        data, self._unparsed = self._unparsed, b""
        self._feed_heads(data)

    def watch_silence(self) -> None:
        """Start the idle time-out of the response body."""
        self.active = self._watched = True

    def fail(self, error: ExchangeError) -> None:
        """Abort the connection; reading the head or the body raises `error`."""
        self.dirty = True
        if self._error is None:
            self._error = error
        self._wake()
        if self._body is not None:
            self._body.fail(error)
        self.abort()

    @property
    def reusable(self) -> bool:
        """Whether the connection may serve another exchange: the response is complete, with no bytes behind it."""
        return (
            not self.dirty
            and self.transport is not None
            and not self.transport.is_closing()
            and not self._heads
            and self._body is not None
            and self._body.ended
            and not self.writing_paused
            and not self._outgoing
        )

    @property
    def silent(self) -> bool:
        """Whether no byte of a response has arrived for this exchange."""
        return self._body is None and not self._partial_head and not self._interim and not self._unparsed

    @property
    def answered(self) -> bool:
        """Whether the response is complete."""
        return self._body is not None and self._body.ended

    def end(self) -> None:
        """Forget the exchange before the connection returns to its pool."""
        self.in_use = self._watched = self._reading_awaited = False
        self._body = self._decoder = self._waiter = None
        self._deadline = self._total_deadline = None

    @property
    def reuse_ok(self) -> bool:
        """Whether an idle connection may be used for a new exchange.

        Also polls the socket: since the last turn of the event loop the vendor may have closed the connection, or sent
        bytes that would be taken for the next answer.
        """
        return (
            not self.dirty
            and self.transport is not None
            and not self.transport.is_closing()
            and (self.idle_keep == IDLE_KEEP or self.loop.time() - self.idle_from < self.idle_keep)
            and self._nothing_to_read(self.transport)
        )

    def _nothing_to_read(self, transport: asyncio.Transport) -> bool:
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP)
        return not self._poll.poll(0)

    # ---------------------------------------------------------------------------------------------------- protocol

    def data_received(self, data: bytes) -> None:
        """Take a segment of a tunnel, of the body, or of heads, which are parsed when the exchange goes on."""
        self.active = True
        if self._tunnel is not None:
            self._tunnel(data)
        elif self._decoder is not None:
            self._feed_body(data)
        elif self._body is None and self.in_use:
            self._unparsed = self._unparsed + data if self._unparsed else data
            if len(self._unparsed) > AT_ONCE:
                self._parse()  # so that the body that follows is read with back-pressure
            self._wake()
        else:
            self._unexpected()

    def _feed_heads(self, data: bytes) -> None:
        while self._body is None and self._error is None and data:
            part = self._partial_head
            seen = len(part)
            end, data = find_end(part, data)
            try:
                if (len(part) if end < 0 else end) > ANSWER_HEAD_BYTES:
                    raise UpstreamMalformed(reason="the response head is too large")
                if end < 0:
                    check_answer_beginning(part, seen)
                    return
                part.clear()
                rest = data[end + 4 :]
                self._take_head(read_response(data[:end]), rest)
            except ExchangeError as error:
                self.fail(error)
                return
            data = rest

    def _take_head(self, head: Outbound, rest: bytes) -> None:
        """Take a parsed head; `rest` are the bytes behind it."""
        if head.code < FINAL and head.code != SWITCHING:
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise UpstreamMalformed(reason="too many interim responses")
            body = NO_BODY
            self.dirty = self.dirty or _declares_content(head)
        else:
            self._body = body = self._open_body(head, rest)
            self._deadline = None
            if head.idle_timeout is not None:
                self._heed(head.idle_timeout)
        self._heads.append((head, body))

    def _heed(self, vendors: int) -> None:
        """Take the seconds after which the vendor closes an idle connection (`Keep-Alive: timeout=N`)."""
        self.idle_keep = min(IDLE_KEEP, vendors - _MARGIN)
        if self.idle_keep <= 0:
            self.dirty = True

    def _open_body(self, head: Outbound, rest: bytes) -> Body:
        if head.code == SWITCHING:
            self.tail = rest
            self.dirty = True
            self.pause_reading(BACKLOG)  # until `tunnel` resumes it, because nobody takes bytes before
        elif self._head_request or head.code in _BODYLESS or head.length == 0:
            if rest or (head.code == _NO_CONTENT and _declares_content(head)):
                self._unexpected()
        elif head.length == len(rest):
            return Body(None, rest)
        else:
            return self._begin_body(head, rest)
        return NO_BODY

    def _begin_body(self, head: Outbound, rest: bytes) -> Body:
        self._body = body = Body(self)
        if head.chunked:
            self._decoder = Chunked(body, padding=b" ")
        elif head.length is not None:
            self._decoder = Sized(body, head.length)
        else:
            self._decoder = UntilClose(body)
        if rest:
            self._feed_body(rest)
        return body

    def _feed_body(self, data: bytes) -> None:
        """Feed the body; bytes behind its end make the connection unusable."""
        decoder, body = self._decoder, self._body
        assert decoder is not None and body is not None  # noqa: S101, PT018 - set by _begin_body
        try:
            rest = decoder.feed(data)
        except FramingError as error:
            self.fail(UpstreamMalformed(reason=f"the response body holds {error}"))
            return
        if body.ended:
            self._decoder = None
            if rest:
                self._unexpected()

    def _unexpected(self) -> None:
        # The next exchange would take these bytes for its answer. Heads that are already parsed are still delivered.
        self.dirty = True
        if not self.in_use:
            self.close()

    def eof_received(self) -> bool:
        """Close our side too, unless a tunnel keeps its other direction open."""
        self._closed_cleanly = True
        if self._tunnel is not None:
            self._tunnel(b"")
            self.ended = self.half_closes
            return self.ended
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the exchange: a clean close may complete a body, a reset never does."""
        super().connection_lost(exc)
        if self._unparsed:
            self._parse()  # an answer that arrived before the close is valid
        self.dirty = True
        if self._tunnel is not None:
            self._tunnel(b"")
        if self.in_use:
            self._end_exchange(exc)
        self._on_lost(self)

    def _end_exchange(self, exc: BaseException | None) -> None:
        body = self._body
        if body is None:
            if self._error is None:
                self._error = UpstreamReset(reason=os_reason(exc) if exc else "closed before a response head")
            self._wake()
        elif exc is not None or not self._closed_cleanly:
            # Over TLS, a close without close_notify may be a truncation (RFC 9112 §9.8).
            how = os_reason(exc) if exc is not None else "closed without notice"
            body.fail(Aborted(reason=f"the vendor's connection broke: {how}"))
        elif isinstance(self._decoder, UntilClose):
            body.feed(b"", last=True)
        else:
            body.fail(Aborted(reason="the vendor closed inside the response body"))

    # ------------------------------------------------------------------------------------------------------- tunnel

    def tunnel(self, receive: Callable[[bytes], None]) -> None:
        """Hand every segment to `receive` from now on, an empty one at the end; no time-out applies any more."""
        self._tunnel = receive
        self._deadline = self._total_deadline = None
        self._watched = False
        self.resume_reading(BACKLOG)

    def sweep(self, now: float) -> None:
        """Fail the exchange if one of its time-outs has passed."""
        if self._unparsed:
            return  # an answer has arrived and is parsed in this turn of the event loop
        if self._deadline is not None and now >= self._deadline and not self._still_sending(now):
            self.fail(UpstreamTimeout(reason="no response head in time"))
        elif self._reading_awaited and self.silent_for(now) >= self._idle:
            self.fail(UpstreamTimeout(reason="the vendor stopped reading the request body"))
        elif self._total_deadline is not None and now >= self._total_deadline:
            self.fail(UpstreamTimeout(reason="the exchange took too long"))
        elif self._watched and self.silent_for(now) >= self._idle and not self._paused_for & BODY_FULL:
            self.fail(UpstreamTimeout(reason="silence inside the response body"))

    def _still_sending(self, now: float) -> bool:
        """Restart the first-byte time-out if bytes of the request have left since it was last due."""
        before, self._left = self._left, self.unacknowledged()
        if self._left not in {0, before}:
            self._deadline = now + self._first_byte
        return self._deadline is not None and now < self._deadline
