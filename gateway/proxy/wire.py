"""What both ends of an exchange share: a transport with flow control in both directions.

Knows nothing of HTTP. What stops reading is the *transport*, never the reader of its bytes, so that
a segment that was read is always parsed whole and memory stays bounded by one segment more.
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

_RESET: Final = struct.pack("ii", 1, 0)
_BROKEN: Final = select.POLLHUP | select.POLLERR
_HANGUP: Final = _BROKEN | getattr(select, "POLLRDHUP", 0)
HIGH_WATER: Final = 256 * 1024
"""Bytes in a transport's write buffer beyond which writers wait."""


AT_ONCE: Final = 48 * 1024
"""More bytes than these are not held back until the end of the round."""


def queued(file: int, which: int) -> int:
    """Return how many bytes of a socket wait in the kernel: to be read (FIONREAD) or to be acknowledged (TIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(file, which, bytes(4)), sys.byteorder)


class Outbox:
    """What connections write in one round of the loop leaves at its end, one connection after the other.

    A transport would write at once, and the kernel carries a segment on loopback or to a device right then: between
    two exchanges, whose code and data it drives out of the processor's caches.
    """

    __slots__ = ("_loop", "wires")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.wires: list[Wire] = []
        """Who has written in this round."""

    def open(self) -> list[Wire]:
        """Begin to collect: return the list, which is emptied at the end of the round."""
        self._loop.call_soon(self._send)
        return self.wires

    def _send(self) -> None:
        wires, self.wires = self.wires, []
        for wire in wires:
            wire.flush()


class Wire:
    """A connection: reading pauses by reason, writers wait in `drain`.

    An `asyncio.Protocol` by its methods; not by its bases, as those of a compiled class are compiled, too.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self.loop = loop
        self._outbox = outbox
        self._outgoing: list[bytes] = []
        """What was written in this round."""
        self._outgoing_size = 0
        self.transport: asyncio.Transport | None = None
        self.active = False
        """Set by every byte that moves, taken back by the sweep that looks for silence."""
        self.idle_since = 0.0
        self._unsent = 0
        self._reading_paused = False
        self._reading_held = False
        self.ended = False
        """The peer has ended its direction, and ours goes on (a tunnel)."""
        self._drain_waiter: asyncio.Future[None] | None = None
        self.writing_paused = False
        self.on_writable: Callable[[], None] | None = None
        """Called when the transport takes bytes again; a tunnel sets it."""

    # ------------------------------------------------------------------------------------------------------- reading

    def pause_reading(self) -> None:
        """Stop reading until the body's reader has caught up."""
        if not self._reading_paused:
            self._reading_paused = True
            if not self._reading_held:
                self._pause_transport()

    def resume_reading(self) -> None:
        """Read again: the body's reader has caught up, or the body has ended."""
        if self._reading_paused:
            self._reading_paused = False
            if not self._reading_held:
                self._resume_transport()

    def hold_reading(self) -> None:
        """Stop reading because bytes wait that cannot be parsed yet."""
        if not self._reading_held:
            self._reading_held = True
            if not self._reading_paused:
                self._pause_transport()

    def release_reading(self) -> None:
        """Undo `hold_reading`."""
        if self._reading_held:
            self._reading_held = False
            if not self._reading_paused:
                self._resume_transport()

    def _pause_transport(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume_transport(self) -> None:
        self.active = True  # silence counts from here: while paused nothing could be heard
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    @property
    def peer_gone(self) -> bool:
        """Whether the peer has closed or reset although reading is paused: a paused transport is not told of it."""
        return (self._reading_paused or self._reading_held) and self._polled(_HANGUP)

    @property
    def peer_reset(self) -> bool:
        """Whether the peer has reset although we do not read, as it had ended its direction or reading is paused."""
        return (self.ended or self._reading_paused or self._reading_held) and self._polled(_BROKEN)

    def _polled(self, events: int) -> bool:
        if self.transport is None:
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), events)
        return bool(poll.poll(0))

    # ------------------------------------------------------------------------------------------------------- writing

    def pause_writing(self) -> None:
        """Stop writing: called by the transport when its buffer is over the high water mark."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """Write again: called by the transport when its buffer has drained."""
        self.writing_paused = False
        self.active = True
        self._wake_writer()
        if self.on_writable is not None:
            self.on_writable()

    @property
    def half_closes(self) -> bool:
        """Whether one direction can end before the other: over TCP, not over TLS."""
        return self.transport is not None and self.transport.can_write_eof()

    async def drain(self) -> None:
        """Wait until the transport takes more. Raises ConnectionResetError when it is gone."""
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
        """Take the transport. TCP_NODELAY is on by default in asyncio and uvloop."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the transport and wake whoever waits for it."""
        self._outgoing, self._outgoing_size = [], 0
        self.transport = None
        self._wake_writer()

    def write(self, data: bytes) -> None:
        """Queue bytes; silently nothing when the connection is gone, as its reader will say so.

        They leave at the end of the round, unless they are many.
        """
        if self.transport is None:
            return
        if not self._outgoing:
            outbox = self._outbox
            (outbox.wires or outbox.open()).append(self)
        self._outgoing.append(data)
        self._outgoing_size += len(data)
        if self._outgoing_size > AT_ONCE:
            self.flush()

    def write_pieces(self, *pieces: Piece) -> None:
        """As `write`; where they are many they are not copied together."""
        if sum(map(len, pieces)) <= AT_ONCE:
            self.write(b"".join(pieces))
        elif self.transport is not None and not self.transport.is_closing():
            before, self._outgoing, self._outgoing_size = self._outgoing, [], 0
            self.transport.writelines([*before, *pieces])

    def flush(self) -> None:
        """Hand what was written to the transport, unless that is closed."""
        pieces = self._outgoing
        if pieces and self.transport is not None and not self.transport.is_closing():
            self._outgoing, self._outgoing_size = [], 0
            self.transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def write_eof(self) -> None:
        """End our direction after what was written."""
        self.flush()
        if self.transport is not None:
            self.transport.write_eof()

    def close(self) -> None:
        """Close after what was written has left."""
        self.flush()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close at once and with a reset, so that the peer cannot take what it has for all there was."""
        self._outgoing, self._outgoing_size = [], 0
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            if sock is not None and not self.transport.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def _waiting_to_leave(self) -> int:
        """Bytes that wait in the transport, and if there are any, with those that the peer has yet to acknowledge.

        The kernel takes more only in large steps, so a slow reader shows in its own queue first.
        """
        unsent = self.transport.get_write_buffer_size() if self.transport is not None else 0
        if unsent and self.transport is not None:
            with contextlib.suppress(OSError):
                unsent += queued(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ)
        return unsent

    def silent_for(self, now: float) -> float:
        """Seconds since the sweep last saw a byte move: one that came, or one of those that wait to leave."""
        unsent = self._waiting_to_leave()
        if self.active or unsent != self._unsent:
            self.active, self._unsent = False, unsent
            self.idle_since = now
        return now - self.idle_since
