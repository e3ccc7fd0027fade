"""A connection to a vendor: bytes in through aiohttp's response parser, response heads and body streams out.

Knows one exchange at a time. Says of itself whether it may be used again: only after a cleanly framed response with
nothing behind it; any doubt closes it (RFC 9112 §9.3, §11.2). A reset during a close-delimited body looks like its end
to the parser, so the exception given to `connection_lost` decides (RFC 9112 §8).
"""

from __future__ import annotations

import select
from collections import deque
from typing import TYPE_CHECKING

from aiohttp.http import HttpResponseParser
from aiohttp.http_exceptions import HttpProcessingError

from gateway.errors import Aborted, ExchangeError, UpstreamMalformed, UpstreamReset, UpstreamTimeout
from gateway.proxy.framing import SizedEnd, edge, head_end
from gateway.proxy.wire import Wire

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader

    from gateway.model import Timeouts

BODY_LIMIT = 64 * 1024
"""Low water mark of a body's buffer; reading pauses at twice this."""
HEAD_LIMIT = 64 * 1024
_FIELD_LIMIT = 16 * 1024
_MOST_FIELDS = 200
_MOST_INTERIM = 32
"""1xx responses (RFC 9110 §15.2) taken before one final response."""
_LAST_CHUNK = b"\r\n0\r\n\r\n"
"""How a chunked body ends when nothing stands behind it and it has no trailer section."""


class UpstreamConnection(Wire):
    """One connection of a pool."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[UpstreamConnection], None]) -> None:
        super().__init__(loop)
        self._on_lost = on_lost
        self._parser = self._new_parser(body=True)
        self._heads: deque[tuple[RawResponseMessage, StreamReader]] = deque()
        self._waiter: asyncio.Future[tuple[RawResponseMessage, StreamReader]] | None = None
        self._error: ExchangeError | None = None
        self._body: StreamReader | None = None
        self._last_head: RawResponseMessage | None = None
        self._poll: select.poll | None = None
        self._head_request = False
        self._interim = 0
        self._head_bytes = 0
        self._edge = b""
        """The last three bytes of a head whose end has not come yet."""
        self._end: SizedEnd | None = None
        """Where the body ends, if it has a length."""
        self._window = b""
        """The last seven bytes of a chunked body."""
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

    def _new_parser(self, *, body: bool) -> HttpResponseParser:
        return HttpResponseParser(
            self,  # type: ignore[arg-type]  # Wire is all that the parser's streams ask of a BaseProtocol
            self.loop,
            BODY_LIMIT,
            max_line_size=_FIELD_LIMIT,
            max_field_size=_FIELD_LIMIT,
            max_headers=_MOST_FIELDS,
            response_with_body=body,
            read_until_eof=True,
            auto_decompress=False,
        )

    def __repr__(self) -> str:
        state = "closed" if self.transport is None else "in use" if self.in_use else "idle"
        return f"<UpstreamConnection {state}, {self.exchanges} exchanges>"

    # ------------------------------------------------------------------------------------------------- one exchange

    def begin(self, timeouts: Timeouts, *, head: bool) -> None:
        """Take the connection for one exchange; `head` says that the response has no body (RFC 9110 §9.3.2)."""
        self.in_use = True
        self.exchanges += 1
        self._first_byte, self.send_limit = timeouts.first_byte, timeouts.idle
        self._interim = self._head_bytes = 0
        self._end, self._window = None, b""
        if head:
            # Whether a body follows is a constructor argument of the parser: a HEAD request gets one of its own.
            self._parser = self._new_parser(body=False)
        self._head_request = head

    def await_head(self) -> None:
        """The request is out: from now on the vendor has its first-byte time."""
        if self._body is None:
            self.deadline = self.loop.time() + self._first_byte

    def response(self) -> asyncio.Future[tuple[RawResponseMessage, StreamReader]]:
        """Return the next response head, interim ones included, and its body's stream, as a future.

        It raises UpstreamReset, UpstreamMalformed, UpstreamTimeout, or whatever the exchange was failed with.
        """
        self._waiter = waiter = self.loop.create_future()
        if self._heads:
            waiter.set_result(self._heads.popleft())
        elif self._error is not None:
            waiter.set_exception(self._error)
        elif self.transport is None:
            waiter.set_exception(UpstreamReset(reason="closed before the request was sent"))
        return waiter

    def watch_silence(self) -> None:
        """The body is on its way: from now on the sweep looks for silence."""
        self.active = True
        self.idle_limit = self.send_limit

    def fail(self, error: ExchangeError) -> None:
        """End the exchange with `error`: whoever waits for the head or the body gets it, the connection is aborted."""
        self.dirty = True
        if self._error is None:
            self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        body = self._body
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(error)
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
            and self._body.is_eof()
            and not self.writing_paused
        )

    @property
    def silent(self) -> bool:
        """Whether not a byte of a response has arrived for this exchange."""
        return self._body is None and not self._head_bytes and not self._interim

    @property
    def answered(self) -> bool:
        """Whether the response has come to its end."""
        return self._body is not None and self._body.is_eof()

    def end(self) -> None:
        """Forget the exchange before the connection goes back to its pool."""
        self.in_use = False
        self._body = self._last_head = None
        if self._head_request:
            self._parser = self._new_parser(body=True)
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
        """Parse a segment; wake the exchange when a head is complete."""
        self.active = True
        if self._raw is not None:
            self._raw(data)
            return
        if self._switched:
            self.tail += data
        elif not self.in_use or (self._body is not None and self._body.is_eof()):
            self._unasked()
        else:
            try:
                self._feed_heads(data) if self._body is None else self._feed_body(data)
            except HttpProcessingError as error:
                self.fail(UpstreamMalformed(reason=type(error).__name__))

    def _feed_heads(self, data: bytes) -> None:
        """Feed one head at a time, so that it is known where the body begins: an error in it would discard the head."""
        while self._body is None and self._error is None:
            end = head_end(self._edge, data)
            self._head_bytes += end or len(data)
            self._parsed(*self._parser.feed_data(data[:end] if end else data))
            if not end:
                self._edge = edge(self._edge, data)
                self._check_part()
                return
            self._edge = b""
            data = data[end:]
            if not data:
                break
        if self._switched:
            self.tail += data
        elif self._body is not None and self._error is None:
            self._open_body(data)

    def _check_part(self) -> None:
        if self._body is not None:
            self.dirty = True  # a head that ended with bare line feeds: what stands behind it cannot be told
        elif self._head_bytes > HEAD_LIMIT:
            self.fail(UpstreamMalformed(reason="the response head is too large"))

    def _open_body(self, data: bytes) -> None:
        """The final head is understood; `data` stands behind it."""
        body, message = self._body, self._last_head
        if body is None or message is None:
            return
        if body.total_bytes:
            self.dirty = True  # the parser saw the head end earlier: bare line feeds
        if body.is_eof():
            if data:
                self._unasked()
            return
        length = message.headers.get("Content-Length")
        if message.chunked:
            self._window = b"\r\n"
        elif length is not None and length.isdecimal():
            self._end = SizedEnd(int(length))
        if data:
            self._feed_body(data)

    def _feed_body(self, data: bytes) -> None:
        """Feed what belongs to the body; mark the connection if anything else is there."""
        end, body = self._end, self._body
        step = len(data) if end is None else end.within(data)
        self._parsed(*self._parser.feed_data(data if step == len(data) else data[:step]))
        if step < len(data):
            self._unasked()
        if self._window and body is not None:
            self._window = data[-7:] if len(data) >= 7 else (self._window + data)[-7:]  # noqa: PLR2004 - its length
            if body.is_eof() and self._window != _LAST_CHUNK:
                # Trailers, which the parser would add to the next response, or bytes that nobody asked for.
                self.dirty = True

    def _parsed(self, messages: list[tuple[RawResponseMessage, StreamReader]], upgraded: bool, tail: bytes) -> None:
        for message, body in messages:
            if self._body is not None:
                self._unasked()
                break
            if message.code < 100:  # noqa: PLR2004 - RFC 9110 §15
                self.fail(UpstreamMalformed(reason="a status below 100"))
                return
            if message.code >= 200 or message.code == 101:  # noqa: PLR2004 - RFC 9110 §15
                self._body, self._last_head = body, message
                self.deadline = None
            else:
                self._head_bytes = 0
                self._interim += 1
                if self._interim > _MOST_INTERIM:
                    self.fail(UpstreamMalformed(reason="too many interim responses"))
                    return
            self._heads.append((message, body))
        if upgraded:
            self.tail = tail
            self.dirty = self._switched = True
            self.hold_reading()
        waiter = self._waiter
        if self._heads and waiter is not None and not waiter.done():
            waiter.set_result(self._heads.popleft())

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
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(self._error)
        elif not body.is_eof() and body.exception() is None:
            if exc is not None or not self._said_goodbye:
                # Over TLS an end without close_notify is as good as a reset (RFC 9112 §9.8).
                how = type(exc).__name__ if exc is not None else "closed without notice"
                body.set_exception(Aborted(reason=f"the vendor's connection broke: {how}"))
                return
            try:
                self._parser.feed_eof()
            except HttpProcessingError as error:
                body.set_exception(Aborted(reason=type(error).__name__))

    # ------------------------------------------------------------------------------------------------------- tunnel

    def tunnel(self, receive: Callable[[bytes], None]) -> None:
        """From now on hand every segment to `receive`; an empty one says that the peer sends no more."""
        self._raw = receive
        self.deadline = self.idle_limit = None
        self.release_reading()

    def sweep(self, now: float) -> None:
        """Fail the exchange if one of its time-outs has passed."""
        if self.deadline is not None and now >= self.deadline:
            self.fail(UpstreamTimeout(reason="no response head in time"))
        elif self.total_deadline is not None and now >= self.total_deadline:
            self.fail(UpstreamTimeout(reason="the exchange took too long"))
        elif self.idle_limit is not None and self.silent_for(now) >= self.idle_limit and not self._reading_paused:
            self.fail(UpstreamTimeout(reason="silence inside the response body"))
