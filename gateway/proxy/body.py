"""One body on its way through a connection: fed by its decoder, read by one exchange, bounded by flow control.

At most `HIGH` bytes and one segment wait here: beyond that the connection stops reading until the reader has caught up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.proxy.wire import Piece, Wire

HIGH: Final = 128 * 1024
"""Bytes that wait before the connection stops reading."""
_JOINED: Final = 16 * 1024
"""Bytes that are joined rather than handed on piece by piece."""
_PIECE: Final = 64
"""Bytes that a piece takes besides its own: a body may come in chunks of one byte."""


class Body:
    """The bytes of one body, without their framing."""

    __slots__ = ("_held", "_pieces", "_waiter", "_wire", "ended", "error", "sink", "size")

    def __init__(self, wire: Wire | None, data: bytes = b"") -> None:
        """Begin a body that `wire` will feed; without one, `data` is all there is."""
        self._wire = wire
        self._pieces = [data] if data else []
        self._held = 0
        self._waiter: asyncio.Future[None] | None = None
        self.ended = wire is None
        """All of it has arrived."""
        self.error: BaseException | None = None
        """Why the rest will never arrive."""
        self.size = len(data)
        """Bytes that have arrived so far."""
        self.sink: Callable[[Piece], None] | None = None
        """Takes what arrives at once, so that nothing waits here; whoever sets it has taken what was there."""

    def feed(self, data: Piece, *, last: bool) -> None:
        """Take the next bytes, which may be none; `last` says that the body ends with them."""
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
            self._wire.resume_reading() if last else self._wire.pause_reading()

    def fail(self, error: BaseException) -> None:
        """Say that the rest will not come: reading raises `error`. A body that has ended is not touched."""
        if not self.ended and self.error is None:
            self.error = error
            self._wake()

    def take(self) -> bytes:
        """Return what is there, which may be nothing. Raises what the body failed with."""
        if self.error is not None:
            raise self.error
        pieces = self._pieces
        if not pieces:
            return b""
        self._pieces = []
        if self._held > HIGH and self._wire is not None:
            self._wire.resume_reading()
        self._held = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def take_some(self) -> bytes:
        """As `take`, but one piece alone where joining it with others would copy much."""
        pieces = self._pieces
        if self.error is not None or len(pieces) == 1 or self._held <= _JOINED:
            return self.take()
        some = pieces.pop(0)
        before, self._held = self._held, self._held - len(some) - _PIECE
        if before > HIGH >= self._held and self._wire is not None:
            self._wire.resume_reading()
        return some

    @property
    def drained(self) -> bool:
        """Whether all of it has arrived and was taken."""
        return self.ended and not self._pieces

    async def read(self) -> bytes:
        """Return what has arrived, or a part of it, waiting for at least a byte; empty at the end.

        Raises what the body failed with.
        """
        while not self._pieces and not self.ended and self.error is None and self._wire is not None:
            await self._wait(self._wire)
        return self.take_some()

    async def end(self) -> None:
        """Wait until all of it has arrived. Raises what the body failed with."""
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
