"""A connection of either side: a transport with flow control in both directions.

Knows nothing of HTTP. Reading is paused at the *transport*, never by the code that parses its bytes: a segment that was
read is always parsed, so memory is bounded by one segment more than the limit.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import sys
import termios
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    Piece = bytes | memoryview

RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close send a reset."""
_BROKEN: Final = select.POLLHUP | select.POLLERR
_HANGUP: Final = _BROKEN | getattr(select, "POLLRDHUP", 0)
HIGH_WATER: Final = 256 * 1024
"""Bytes in a transport's write buffer beyond which writers wait."""
HIGH_WATER_TLS: Final = 64 * 1024
"""The same over TLS, where bytes are encrypted when they are written, and wait in two buffers."""
BODY_FULL: Final = 1
"""A reason to pause reading: the reader of the body is behind."""
BACKLOG: Final = 2
"""A reason to pause reading: bytes wait that cannot be parsed or passed on yet."""
AT_ONCE: Final = 48 * 1024
"""Above this size, bytes are sent at once instead of at the end of the round."""


def queued(file: int, which: int) -> int:
    """Return how many bytes wait in the kernel: unread (FIONREAD) or unacknowledged (TIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(file, which, bytes(4)), sys.byteorder)


class Outbox:
    """Sends what connections wrote in one round of the loop at its end, one connection after the other.

    A transport would send at once. The kernel's work for that would evict the code and data of the next exchange from
    the processor's caches (docs/decisions/0008).
    """

    __slots__ = ("_loop", "wires")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.wires: list[Wire] = []
        """Connections that have written in this round."""

    def open(self) -> list[Wire]:
        """Schedule the sending; return the list, which is emptied at the end of the round."""
        self._loop.call_soon(self._send)
        return self.wires

    def _send(self) -> None:
        wires, self.wires = self.wires, []
        for wire in wires:
            wire.flush()


class Wire:
    """A connection: reading is paused for reasons, writers wait in `drain`.

    Has the methods of `asyncio.Protocol` but does not inherit from it, because bases of a compiled class are compiled.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self.loop = loop
        self._outbox = outbox
        self._outgoing: list[bytes] = []
        """Bytes that were written in this round."""
        self._outgoing_size = 0
        self.transport: asyncio.Transport | None = None
        self.active = False
        """Whether bytes have moved since the sweep last looked."""
        self.idle_since = 0.0
        self._unsent = 0
        self._paused_for = 0
        """Why reading is paused: `BODY_FULL`, `BACKLOG`, both, or 0."""
        self.ended = False
        """Whether the peer has ended its direction while ours continues (a tunnel)."""
        self._drain_waiter: asyncio.Future[None] | None = None
        self.writing_paused = False
        self.encrypts = False
        """Whether the transport encrypts what is written at once, so that large bytes are best written in parts."""
        self.on_writable: Callable[[], None] | None = None
        """Called when the transport accepts bytes again."""

    # ------------------------------------------------------------------------------------------------------- reading

    def pause_reading(self, reason: int) -> None:
        """Stop reading for `reason`; there may be several, and reading goes on when none is left."""
        if not self._paused_for:
            self._pause_transport()
        self._paused_for |= reason

    def resume_reading(self, reason: int) -> None:
        """Take a reason back; read again if it was the last one."""
        if self._paused_for & reason:
            self._paused_for &= ~reason
            if not self._paused_for:
                self._resume_transport()

    @property
    def reading_paused(self) -> bool:
        """Whether reading is paused, for any reason."""
        return self._paused_for != 0

    def _pause_transport(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume_transport(self) -> None:
        self.active = True  # silence counts from here: while paused nothing was read
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    @property
    def peer_gone(self) -> bool:
        """Whether the peer has closed or reset while reading is paused; a paused transport does not report it."""
        return self.reading_paused and self._polled(_HANGUP)

    @property
    def peer_reset(self) -> bool:
        """Whether the peer has reset while nothing is read, because it had ended its direction or reading is paused."""
        return (self.ended or self.reading_paused) and self._polled(_BROKEN)

    def _polled(self, events: int) -> bool:
        if self.transport is None:
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), events)
        return bool(poll.poll(0))

    # ------------------------------------------------------------------------------------------------------- writing

    def pause_writing(self) -> None:
        """Called by the transport when its buffer is above the high-water mark."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """Called by the transport when its buffer is below the low-water mark again."""
        self.writing_paused = False
        self.active = True
        self._wake_writer()
        if self.on_writable is not None:
            self.on_writable()

    @property
    def half_closes(self) -> bool:
        """Whether one direction can end before the other; true for TCP, false for TLS."""
        return self.transport is not None and self.transport.can_write_eof()

    async def drain(self) -> None:
        """Wait until the transport accepts bytes. Raises ConnectionResetError when it is closed."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError
        if self.writing_paused:
            self._drain_waiter = self.loop.create_future()
            try:
                await self._drain_waiter
            finally:
                self._drain_waiter = None
            if self.transport is None:
                raise ConnectionResetError

    def _wake_writer(self) -> None:
        waiter = self._drain_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ------------------------------------------------------------------------------------------------------ lifetime

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the transport. asyncio and uvloop turn TCP_NODELAY on."""
        self.transport = cast("asyncio.Transport", transport)
        self.encrypts = not self.transport.can_write_eof()
        self.transport.set_write_buffer_limits(high=HIGH_WATER_TLS if self.encrypts else HIGH_WATER)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the transport and wake the writer that waits for it."""
        self._outgoing, self._outgoing_size = [], 0
        self.transport = None
        self._wake_writer()

    def write(self, data: bytes) -> None:
        """Queue bytes for the end of the round; send at once if they are more than `AT_ONCE`.

        Does nothing when the connection is closed, because its reader reports that.
        """
        if self.transport is None:
            return
        if not self._outgoing:
            outbox = self._outbox
            (outbox.wires or outbox.open()).append(self)
        self._outgoing.append(data)
        self._outgoing_size = size = self._outgoing_size + len(data)
        if size > AT_ONCE:
            self.flush()

    def write_pieces(self, *pieces: Piece) -> None:
        """As `write`, without joining pieces that are more than `AT_ONCE` together."""
        if sum(map(len, pieces)) <= AT_ONCE:
            self.write(b"".join(pieces))
        elif self.transport is not None and not self.transport.is_closing():
            before, self._outgoing, self._outgoing_size = self._outgoing, [], 0
            self.transport.writelines([*before, *pieces])

    def flush(self) -> None:
        """Pass queued bytes to the transport, unless it is closed."""
        pieces, transport = self._outgoing, self.transport
        if pieces and transport is not None and not transport.is_closing():
            self._outgoing, self._outgoing_size = [], 0
            transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def write_eof(self) -> None:
        """End our direction after the queued bytes."""
        self.flush()
        if self.transport is not None:
            self.transport.write_eof()

    def close(self) -> None:
        """Close after the queued bytes have been sent."""
        self.flush()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close at once with a reset, so that the peer can tell that the message was cut off."""
        self._outgoing, self._outgoing_size = [], 0
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            if sock is not None and not self.transport.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()

    def _waiting_to_leave(self) -> int:
        """Return the bytes in the transport; if there are any, plus those that the peer has not acknowledged.

        The kernel accepts more only in large steps, so a slow reader is visible in the kernel's queue first.
        """
        unsent = self.transport.get_write_buffer_size() if self.transport is not None else 0
        return unsent + self.unacknowledged() if unsent else 0

    def unacknowledged(self) -> int:
        """Return the bytes in the kernel that the peer has not acknowledged."""
        if self.transport is not None:
            with contextlib.suppress(OSError):
                return queued(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ)
        return 0

    def silent_for(self, now: float) -> float:
        """Return the seconds since the sweep last saw a byte arrive or leave."""
        unsent = self._waiting_to_leave()
        if self.active or unsent != self._unsent:
            self.active, self._unsent = False, unsent
            self.idle_since = now
        return now - self.idle_since


class TunnelEnd:
    """What an app's connection needs of the tunnel that it belongs to."""

    def receive(self, data: bytes) -> None:
        """Take bytes of the app; empty data says that the app sends no more."""
        raise NotImplementedError

    def sweep(self, now: float) -> None:
        """Apply the tunnel's time-outs."""
        raise NotImplementedError
