"""One message body: fed by its decoder, read by one exchange, bounded by flow control.

At most `HIGH` bytes and one segment are buffered: above that the connection stops reading until the body is read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.proxy.wire import BODY_FULL

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.model import Limits
    from gateway.proxy.wire import Piece, Wire

HIGH: Final = 128 * 1024
"""Buffered bytes at which the connection stops reading."""
_JOINED: Final = 16 * 1024
"""Below this size, pieces are joined instead of being returned one by one."""
_PIECE: Final = 64
"""Memory that a piece takes besides its bytes: a body may arrive in chunks of one byte."""


class Body:
    """The bytes of one body, without their framing. Default values are class attributes, as in `Exchange`."""

    _held: int = 0
    _waiter: asyncio.Future[None] | None = None
    error: BaseException | None = None
    """Why the rest will never arrive."""
    sink: Callable[[Piece], None] | None = None
    """Receives bytes as they arrive, so that none are buffered; call `take` before setting it."""

    def __init__(self, wire: Wire | None, data: bytes = b"") -> None:
        """Begin a body that `wire` will feed; without a wire, `data` is the whole body."""
        self._wire = wire
        self._pieces = [data] if data else []
        self.ended = wire is None
        """All of it has arrived."""
        self.size = len(data)
        """Bytes that have arrived so far."""

    def feed(self, data: Piece, *, last: bool) -> None:
        """Add bytes, possibly none; `last` says that the body ends with them."""
        if data:
            size = len(data)
            self.size += size
            if self.sink is not None:
                self.sink(data)
            else:
                self._pieces.append(data if isinstance(data, bytes) else bytes(data))
                self._held += size + _PIECE
        self.ended = last
        if self._waiter is not None and (last or self.sink is None):
            self._wake()
        if self._held > HIGH and self._wire is not None:
            self._wire.resume_reading(BODY_FULL) if last else self._wire.pause_reading(BODY_FULL)

    def fail(self, error: BaseException) -> None:
        """Make reading raise `error`, because the rest will not arrive. Does nothing for a body that has ended."""
        if not self.ended and self.error is None:
            self.error = error
            self._wake()

    def take(self) -> bytes:
        """Return all buffered bytes, possibly none. Raises the error that the body failed with."""
        if self.error is not None:
            raise self.error
        pieces = self._pieces
        if not pieces:
            return b""
        self._pieces = []
        if self._held > HIGH and self._wire is not None:
            self._wire.resume_reading(BODY_FULL)
        self._held = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def take_some(self) -> bytes:
        """As `take`, but return one piece alone if joining all would copy much."""
        pieces = self._pieces
        if self.error is not None or len(pieces) == 1 or self._held <= _JOINED:
            return self.take()
        some = pieces.pop(0)
        before, self._held = self._held, self._held - len(some) - _PIECE
        if before > HIGH >= self._held and self._wire is not None:
            self._wire.resume_reading(BODY_FULL)
        return some

    @property
    def drained(self) -> bool:
        """Whether the whole body has arrived and was read."""
        return self.ended and not self._pieces

    async def read(self) -> bytes:
        """Return buffered bytes, after waiting for at least one; empty at the end of the body.

        Raises the error that the body failed with.
        """
        while not self._pieces and not self.ended and self.error is None and self._wire is not None:
            await self._wait(self._wire)
        return self.take_some()

    async def end(self) -> None:
        """Wait until the whole body has arrived. Raises the error that the body failed with."""
        while not self.ended and self.error is None and self._wire is not None:
            await self._wait(self._wire)
        if self.error is not None:
            raise self.error

    async def _wait(self, wire: Wire) -> None:
        self._waiter = wire.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


NO_BODY: Final = Body(None)
"""The body of a message that has none."""


class BodyTimer:
    """Measures how long the app was waited for while its request body arrives.

    Time in which the vendor accepted no bytes does not count.
    """

    __slots__ = ("_body", "_since", "_waited")

    def __init__(self) -> None:
        self._body = NO_BODY
        self._since: float | None = None
        """Loop time of the last body bytes; None while the timer is stopped."""
        self._waited = 0.0
        """Seconds before that."""

    def restart(self, now: float, body: Body) -> None:
        """Start measuring silence in `body` from now on."""
        if self._body is not body:
            self._body, self._since, self._waited = body, None, 0.0
        self.stop(now)
        self._since = now

    def stop(self, now: float) -> None:
        """Stop measuring."""
        if self._since is not None:
            self._waited += now - self._since
            self._since = None

    def expired(self, now: float, limits: Limits, size: int) -> bool:
        """Whether the body was silent too long, or is so slow that it might never end (RFC 9110 §15.5.9)."""
        if self._since is None:
            return False
        silence = now - self._since
        earned = size / limits.body_rate if limits.body_rate else math.inf
        return silence >= limits.body_timeout or self._waited + silence >= limits.body_timeout + earned
