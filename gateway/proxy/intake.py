"""A large request body, read directly into the memory that is kept for a replay (docs/decisions/0010).

A transport of uvloop reads at most 256,000 bytes into its own buffer and copies them. For a large body that copy, and
the cache misses after every piece of that size, cost a fifth of its CPU.
"""

from __future__ import annotations

import asyncio
import termios
from typing import TYPE_CHECKING, Final

from gateway.proxy.wire import queued

if TYPE_CHECKING:
    from gateway.proxy.framing import Sized
    from gateway.proxy.upload import BodySource, Upload

LARGE: Final = 256 * 1024
"""Bytes that must still be missing: below this an intake saves nothing."""
_KEPT_PIECE: Final = 1_000_000
"""Longest piece of a body that is kept for a replay, bytes: below the size that the allocator maps separately."""
_PIECE: Final = 256_000
"""Longest piece of any other body, bytes: each piece to a vendor over TLS is held a second time, encrypted."""
_SMALL: Final = 64 * 1024
"""Bytes below which a piece is copied out of a shared buffer, so that a slow body takes no more than its bytes."""
_shared: Final = memoryview(bytearray(_SMALL))


class Intake(asyncio.BufferedProtocol):
    """Reads an app's connection while the rest of a body of known length arrives.

    It never reads beyond the body into memory that is kept, and passes on only bytes that the kernel has written. Not
    compiled, because a compiled class cannot inherit from asyncio's.
    """

    def __init__(self, source: BodySource, transport: asyncio.Transport, decoder: Sized, upload: Upload) -> None:
        self._source = source
        self._socket = transport.get_extra_info("socket").fileno()
        self._decoder = decoder
        self._upload = upload
        self._piece = _shared

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return memory for the bytes that wait in the kernel."""
        longest = _KEPT_PIECE if self._upload.replayable and not self._upload.encrypted else _PIECE
        size = min(queued(self._socket, termios.FIONREAD), self._decoder.left, longest)
        self._piece = _shared if size < _SMALL else memoryview(bytearray(size))
        return self._piece

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on the bytes that the kernel has written."""
        piece, self._piece = self._piece, _shared
        if piece is _shared or nbytes < _SMALL:
            self._source.data_received(bytes(piece[:nbytes]))
        else:
            self._source.body_received(piece[:nbytes])

    def eof_received(self) -> bool:
        """Tell the connection."""
        return self._source.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the connection."""
        self._source.connection_lost(exc)

    def pause_writing(self) -> None:
        """Tell the connection."""
        self._source.pause_writing()

    def resume_writing(self) -> None:
        """Tell the connection."""
        self._source.resume_writing()
