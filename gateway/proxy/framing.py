"""Framing taken off a body: where it ends, to the byte, and that nothing else passes for it (RFC 9112 §6, §7).

Pure: no I/O, no `async`. A decoder is fed segments as they come and hands on what belongs to the body; what stands
behind it is returned, for it is the next message's. Strict where leniency is how smuggling starts: no bare line feed,
no space behind a chunk's size unless it is a vendor's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from gateway.proxy.body import Body
    from gateway.proxy.wire import Piece

TRAILER_LIMIT: Final = 16 * 1024
"""Bytes of a trailer section, which is read and dropped."""
_SIZE_LINE_LIMIT: Final = 4 * 1024
"""Bytes of a chunk-size line with its extensions, which are dropped."""
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\Z")
_TRAILER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t\x20-\x7e\x80-\xff]*\Z")
_NO_TRAILERS: Final = frozenset({b"transfer-encoding", b"content-length", b"host"})
"""Fields that decide about framing and routing: among trailers they are an attack (RFC 9110 §6.5.1)."""


_SMALL: Final = 16 * 1024
"""Bytes of a chunk that is handed on together with others."""


class FramingError(ValueError):
    """The bytes are no body in this framing; says why, and nothing of them."""


class Decoder(Protocol):
    """Takes the framing off one body."""

    def feed(self, data: bytes) -> bytes:
        """Hand on what belongs to the body, return what stands behind it. Raises FramingError."""


class Sized:
    """A body of `length` bytes, at least one (RFC 9112 §6.2)."""

    __slots__ = ("_body", "left")

    def __init__(self, body: Body, length: int) -> None:
        self._body = body
        self.left = length
        """Bytes that are still to come."""

    def feed(self, data: bytes) -> bytes:
        """Hand on what belongs to the body, return what stands behind it."""
        left = self.left - len(data)
        if left >= 0:
            self.feed_within(data)
            return b""
        self.left = 0
        self._body.feed(data[:left], last=True)
        return data[left:]

    def feed_within(self, data: Piece) -> None:
        """Hand on bytes that are no more than what is still to come."""
        self.left -= len(data)
        self._body.feed(data, last=not self.left)


class UntilClose:
    """A body that ends with its connection (RFC 9112 §6.3)."""

    __slots__ = ("_body",)

    def __init__(self, body: Body) -> None:
        self._body = body

    def feed(self, data: bytes) -> bytes:
        """Hand everything on."""
        self._body.feed(data, last=False)
        return b""


class Chunked:
    """A chunked body; extensions and trailers are checked and dropped (RFC 9112 §7.1)."""

    __slots__ = ("_after", "_body", "_left", "_line", "_padding", "_trailers")

    def __init__(self, body: Body, *, padding: bytes = b"") -> None:
        """Begin a body; `padding` is what may stand behind a chunk's size: spaces, of some old servers."""
        self._body = body
        self._padding = padding
        self._left = 0
        """Bytes of the chunk at hand that are still to come."""
        self._after = False
        """The CR LF behind a chunk is next."""
        self._line = b""
        """The beginning of a line whose end has not come yet."""
        self._trailers = -1
        """Bytes of the trailer section so far; negative before the last chunk."""

    def feed(self, data: bytes) -> bytes:
        """Hand on what belongs to the body, return what stands behind it. Raises FramingError."""
        small: list[bytes] = []
        try:
            at = self._split(data, small)
        except FramingError:
            self._hand_on(small)
            raise
        if at is None:
            self._hand_on(small)
            return b""
        self._body.feed(b"".join(small), last=True)
        return data[at:]

    def _split(self, data: bytes, small: list[bytes]) -> int | None:
        """Take the framing off a segment; `small` gets what is still to be handed on. Return where the body ends."""
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._after = not self._left
                small.append(piece)
                if len(piece) > _SMALL:
                    self._hand_on(small)
                continue
            end = data.find(b"\n", at) + 1
            line = self._line + data[at : end or len(data)]
            if not end:
                self._keep(line)
                break
            at, self._line = end, b""
            if not line.endswith(b"\r\n"):
                raise FramingError("a bare line feed")
            if self._takes_last(line[:-2]):
                return at
        return None

    def _hand_on(self, pieces: list[bytes]) -> None:
        """Hand on what a segment holds: many small chunks together, so that none costs more than its bytes."""
        if pieces:
            self._body.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces), last=False)
            pieces.clear()

    def _keep(self, line: bytes) -> None:
        if self._after and line != b"\r":
            raise FramingError("a chunk longer than its size")
        limit = _SIZE_LINE_LIMIT if self._trailers < 0 else TRAILER_LIMIT - self._trailers
        if len(line) > limit + 1:  # the CR of its end may be there
            raise FramingError("a line of the framing that is too long")
        self._line = line

    def _takes_last(self, line: bytes) -> bool:
        """Understand a line of the framing; return whether it was the body's last."""
        if self._after:
            if line:
                raise FramingError("a chunk longer than its size")
            self._after = False
        elif self._trailers < 0:
            found = _SIZE_LINE.match(line.rstrip(self._padding) if self._padding else line)
            if found is None or len(line) > _SIZE_LINE_LIMIT:
                raise FramingError("a chunk size that is none")
            self._left = int(found[1], 16)
            if not self._left:
                self._trailers = 0
        elif line:
            self._check_trailer(line)
        else:
            return True
        return False

    def _check_trailer(self, line: bytes) -> None:
        self._trailers += len(line) + 2
        found = _TRAILER.match(line)
        if found is None or found[1].lower() in _NO_TRAILERS or self._trailers > TRAILER_LIMIT:
            raise FramingError("a trailer field that must not be one")
