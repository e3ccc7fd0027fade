"""A large body on its way in: read straight into the memory in which it stays for a replay, in pieces as large as come.

A transport of uvloop reads at most 256,000 bytes into a buffer of its own and copies them out of it. That is one copy
more than is needed, and after every piece the processor has neither our data nor our code in its caches.
"""

from __future__ import annotations

import ctypes
import termios
from typing import TYPE_CHECKING, Any, Final

from gateway.proxy.wire import queued

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.proxy.client import ClientConnection
    from gateway.proxy.framing import Sized
    from gateway.proxy.upload import Upload

LARGE: Final = 256 * 1024
"""Bytes that are still to come from which on reading them this way pays."""
_KEPT_PIECE: Final = 1_000_000
"""Bytes of a piece at most, while the body is kept: they count for the replay budget. Less than is mapped by itself."""
_PIECE: Final = 256_000
"""Bytes of a piece at most, otherwise."""
_SMALL: Final = 64 * 1024
"""Bytes that are copied out of a common buffer, so that a slow body takes no more memory than its bytes."""

_new_bytearray: Any = ctypes.pythonapi.PyByteArray_FromStringAndSize
_new_bytearray.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)
_new_bytearray.restype = ctypes.py_object
_common: Final = memoryview(bytearray(_SMALL))


class Intake:
    """Reads an app's connection while a body of known length comes: an `asyncio.BufferedProtocol` by its methods.

    Never reads beyond the body into memory that stays, and hands on no byte that the kernel has not written. Loops that
    know such protocols only by their bases use `data_received`, and read as ever.
    """

    def __init__(self, client: ClientConnection, transport: asyncio.Transport, decoder: Sized, upload: Upload) -> None:
        self._client = client
        self._socket = transport.get_extra_info("socket").fileno()
        self._decoder = decoder
        self._upload = upload
        self._room = _common
        self.data_received: Callable[[bytes], None] = client.data_received
        self.eof_received: Callable[[], bool] = client.eof_received
        self.connection_lost: Callable[[BaseException | None], None] = client.connection_lost
        self.pause_writing: Callable[[], None] = client.pause_writing
        self.resume_writing: Callable[[], None] = client.resume_writing

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return room for what waits in the kernel; its bytes are whatever the memory held before."""
        most = _KEPT_PIECE if self._upload.replayable else _PIECE
        size = min(queued(self._socket, termios.FIONREAD), self._decoder.left, most)
        self._room = _common if size < _SMALL else memoryview(_new_bytearray(None, size))
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on the bytes that the kernel has written."""
        room, self._room = self._room, _common
        if room is _common or nbytes < _SMALL:
            self._client.data_received(bytes(room[:nbytes]))
        else:
            self._client.body_received(room[:nbytes])
