"""A connection to a vendor: bytes in, response heads and bodies out.

Knows one exchange at a time. Says of itself whether it may be used again: only after a cleanly framed response with
nothing behind it; any doubt closes it (RFC 9112 §9.3, §11.2). Whether a body that ends with its connection is whole is
told by the exception given to `connection_lost` (RFC 9112 §8).
"""

from __future__ import annotations

import select
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.errors import Aborted, ExchangeError, UpstreamMalformed, UpstreamReset, UpstreamTimeout
from gateway.proxy.body import NO_BODY, Body
from gateway.proxy.fields import find_end
from gateway.proxy.framing import Chunked, FramingError, Sized, UntilClose
from gateway.proxy.response import check_answer_beginning, read_response
from gateway.proxy.wire import AT_ONCE, Wire

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.model import Timeouts
    from gateway.proxy.framing import Decoder
    from gateway.proxy.response import Outbound
    from gateway.proxy.wire import Outbox

    Answer = tuple[Outbound, Body]

HEAD_LIMIT: Final = 64 * 1024
_MOST_INTERIM: Final = 32
"""1xx responses (RFC 9110 §15.2) taken before one final response."""
_SWITCHING: Final = 101
_FINAL: Final = 200
_BODYLESS: Final = frozenset({_SWITCHING, 204, 304})


class UpstreamConnection(Wire):
    """One connection of a pool."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, outbox: Outbox, on_lost: Callable[[UpstreamConnection], None]
    ) -> None:
        super().__init__(loop, outbox)
        self._on_lost = on_lost
        self._heads: deque[Answer] = deque()
        self._inbox = b""
        """What has come and is looked at when the exchange goes on."""
        self._waiter: asyncio.Future[None] | None = None
        """The exchange waits for a head."""
        self._error: ExchangeError | None = None
        self._body: Body | None = None
        """That of the final response, once its head is there."""
        self._decoder: Decoder | None = None
        """Takes the framing off the body that is still coming in."""
        self._part = bytearray()
        """The beginning of a head that comes in several segments."""
        self._poll: select.poll | None = None
        self._head_request = False
        self._interim = 0
        self._switched = False
        self._said_goodbye = False
        """The vendor closed in an orderly way (over TLS: with close_notify)."""
        self._raw: Callable[[bytes], None] | None = None
        self.tail = b""
        """Bytes behind a 101: the first of the new protocol."""
        self.in_use = False
        self.dirty = False
        """Something was said that no request asked for, or framing ended with the connection."""
        self.exchanges = 0
        self.owner = ""
        """The client whose exchange it serves."""
        self.deadline: float | None = None
        """Loop time at which the sweep fails the exchange (first byte, or a stalled upload)."""
        self.total_deadline: float | None = None
        self._first_byte = self.send_limit = 0.0
        self.idle_limit: float | None = None
        """Longest silence while the response body is read, seconds."""
        self.idle_from = 0.0
        """Loop time at which it was put back into the pool."""

    def __repr__(self) -> str:
        state = "closed" if self.transport is None else "in use" if self.in_use else "idle"
        return f"<UpstreamConnection {state}, {self.exchanges} exchanges>"

    # ------------------------------------------------------------------------------------------------- one exchange

    def begin(self, timeouts: Timeouts, *, head: bool) -> None:
        """Take the connection for one exchange; `head` says that the response has no body (RFC 9110 §9.3.2)."""
        self.in_use = True
        self.exchanges += 1
        self._first_byte, self.send_limit = timeouts.first_byte, timeouts.idle
        self._interim = 0
        self._head_request = head

    def await_head(self) -> None:
        """The request is out: from now on the vendor has its first-byte time."""
        if self._body is None:
            self.deadline = self.loop.time() + self._first_byte

    async def response(self) -> Answer:
        """Return the next response head, interim ones included, and its body's stream.

        Raises UpstreamReset, UpstreamMalformed, UpstreamTimeout, or whatever the exchange was failed with.
        """
        while not self._heads:
            if self._inbox:
                self._look()
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

    def _look(self) -> None:
        """Understand what has come; as with an app's heads, when all that has come is read, unless that is much."""
        data, self._inbox = self._inbox, b""
        self._feed_heads(data)

    def watch_silence(self) -> None:
        """The body is on its way: from now on the sweep looks for silence."""
        self.active = True
        self.idle_limit = self.send_limit

    def fail(self, error: ExchangeError) -> None:
        """End the exchange with `error`: whoever waits for the head or the body gets it, the connection is aborted."""
        self.dirty = True
        if self._error is None:
            self._error = error
        self._wake()
        if self._body is not None:
            self._body.fail(error)
        self.abort()

    @property
    def reusable(self) -> bool:
        """Whether the connection may serve another exchange: the response is whole and nothing stands behind it."""
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
        """Whether not a byte of a response has arrived for this exchange."""
        return self._body is None and not self._part and not self._interim and not self._inbox

    @property
    def answered(self) -> bool:
        """Whether the response has come to its end."""
        return self._body is not None and self._body.ended

    def end(self) -> None:
        """Forget the exchange before the connection goes back to its pool."""
        self.in_use = False
        self._body = self._decoder = self._waiter = None
        self.deadline = self.total_deadline = self.idle_limit = None

    @property
    def reuse_ok(self) -> bool:
        """Whether an idle connection may be handed out.

        The kernel is asked, too: the vendor may have closed it, or said something that would be taken for the next
        answer, since the loop last looked.
        """
        return (
            not self.dirty
            and self.transport is not None
            and not self.transport.is_closing()
            and self._quiet(self.transport)
        )

    def _quiet(self, transport: asyncio.Transport) -> bool:
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP)
        return not self._poll.poll(0)

    # ---------------------------------------------------------------------------------------------------- protocol

    def data_received(self, data: bytes) -> None:
        """Take a segment; the exchange is told of what may be a head."""
        self.active = True
        if self._raw is not None:
            self._raw(data)
        elif self._decoder is not None:
            self._feed_body(data)
        elif self._body is None and self.in_use:
            self._inbox = self._inbox + data if self._inbox else data
            if len(self._inbox) > AT_ONCE:
                self._look()  # what follows is the body's, in pieces and with back-pressure
            self._wake()
        elif self._switched:
            self.tail += data
        else:
            self._unasked()

    def _feed_heads(self, data: bytes) -> None:
        while self._body is None and self._error is None and data:
            part = self._part
            seen = len(part)
            end, data = find_end(part, data)
            try:
                if (len(part) if end < 0 else end) > HEAD_LIMIT:
                    raise UpstreamMalformed(reason="the response head is too large")
                if end < 0:
                    check_answer_beginning(part, seen)
                    return
                part.clear()
                rest = data[end + 4 :]
                self._understood(read_response(data[:end]), rest)
            except ExchangeError as error:
                self.fail(error)
                return
            data = rest

    def _understood(self, head: Outbound, rest: bytes) -> None:
        """A head is complete, and `rest` stands behind it."""
        if head.code < _FINAL and head.code != _SWITCHING:
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise UpstreamMalformed(reason="too many interim responses")
            body = NO_BODY
        else:
            self._body = body = self._open_body(head, rest)
            self.deadline = None
        self._heads.append((head, body))

    def _open_body(self, head: Outbound, rest: bytes) -> Body:
        if head.code == _SWITCHING:
            self.tail = rest
            self.dirty = self._switched = True
            self.hold_reading()
        elif self._head_request or head.code in _BODYLESS or head.length == 0:
            if rest:
                self._unasked()
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
        """Feed what belongs to the body; mark the connection if anything else is there."""
        decoder, body = self._decoder, self._body
        assert decoder is not None and body is not None  # noqa: S101, PT018 - there is a body
        try:
            rest = decoder.feed(data)
        except FramingError as error:
            self.fail(UpstreamMalformed(reason=f"the response body holds {error}"))
            return
        if body.ended:
            self._decoder = None
            if rest:
                self._unasked()

    def _unasked(self) -> None:
        # These bytes would be the next app's answer. What was already understood is still delivered.
        self.dirty = True
        if not self.in_use:
            self.close()

    def eof_received(self) -> bool:
        """Close our side too, unless a tunnel wants to hear of it."""
        self._said_goodbye = True
        if self._raw is not None:
            self._raw(b"")
            self.ended = self.half_closes
            return self.ended
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Settle what the exchange still waits for: a clean end may complete a body, a reset never does."""
        super().connection_lost(exc)
        if self._inbox:
            self._look()  # an answer that was sent before the end is an answer
        self.dirty = True
        if self._raw is not None:
            self._raw(b"")
        if self.in_use:
            self._settle(exc)
        self._on_lost(self)

    def _settle(self, exc: BaseException | None) -> None:
        body = self._body
        if body is None:
            if self._error is None:
                self._error = UpstreamReset(reason=type(exc).__name__ if exc else "closed before a response head")
            self._wake()
        elif exc is not None or not self._said_goodbye:
            # Over TLS an end without close_notify is as good as a reset (RFC 9112 §9.8).
            how = type(exc).__name__ if exc is not None else "closed without notice"
            body.fail(Aborted(reason=f"the vendor's connection broke: {how}"))
        elif isinstance(self._decoder, UntilClose):
            body.feed(b"", last=True)
        else:
            body.fail(Aborted(reason="the vendor closed inside the response body"))

    # ------------------------------------------------------------------------------------------------------- tunnel

    def tunnel(self, receive: Callable[[bytes], None]) -> None:
        """From now on hand every segment to `receive`; an empty one says that the peer sends no more."""
        self._raw = receive
        self.deadline = self.idle_limit = None
        self.release_reading()

    def sweep(self, now: float) -> None:
        """Fail the exchange if one of its time-outs has passed."""
        if self._inbox:
            return  # it has answered; that is looked at in a moment
        if self.deadline is not None and now >= self.deadline:
            self.fail(UpstreamTimeout(reason="no response head in time"))
        elif self.total_deadline is not None and now >= self.total_deadline:
            self.fail(UpstreamTimeout(reason="the exchange took too long"))
        elif self.idle_limit is not None and self.silent_for(now) >= self.idle_limit and not self._reading_paused:
            self.fail(UpstreamTimeout(reason="silence inside the response body"))
