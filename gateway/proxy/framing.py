"""Removes the framing of a body, and finds the exact byte at which the body ends (RFC 9112 §6, §7).

Pure: no I/O, no `async`. A decoder takes segments as they arrive, passes the body's bytes to a `Body`, and returns the
bytes behind the body, which belong to the next message. It is strict where leniency makes smuggling possible: it
rejects a bare line feed, and a space behind a chunk's size unless a vendor sent it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from gateway.proxy.body import Body
    from gateway.proxy.wire import Piece

TRAILER_LIMIT: Final = 16 * 1024
"""Bytes of the longest trailer section, which is read and dropped."""
_SIZE_LINE_LIMIT: Final = 4 * 1024
"""Bytes of the longest chunk-size line with its extensions, which are dropped."""
_SIZE_LINE: Final = re.compile(rb"(?=[0-9A-Fa-f])0*+([0-9A-Fa-f]{0,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\Z")
_TRAILER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t\x20-\x7e\x80-\xff]*\Z")
_NO_TRAILERS: Final = frozenset({b"transfer-encoding", b"content-length", b"host"})
"""Fields that decide about framing and routing, which trailers may not contain (RFC 9110 §6.5.1)."""


_SMALL: Final = 16 * 1024
"""Bytes up to which chunks are joined before they are passed on."""


class FramingError(ValueError):
    """The bytes are not a valid body in this framing. The message says why, without the bytes."""


class Decoder(Protocol):
    """Removes the framing of one body."""

    def feed(self, data: bytes) -> bytes:
        """Pass on the body's bytes; return the bytes behind the body. Raises FramingError."""


class Sized:
    """A body of `length` bytes, at least one (RFC 9112 §6.2)."""

    __slots__ = ("_body", "left")

    def __init__(self, body: Body, length: int) -> None:
        self._body = body
        self.left = length
        """Bytes that have not arrived yet."""

    def feed(self, data: bytes) -> bytes:
        """Pass on the body's bytes; return the bytes behind the body."""
        left = self.left - len(data)
        if left >= 0:
            self.left = left
            self._body.feed(data, last=not left)
            return b""
        self.left = 0
        self._body.feed(data[:left], last=True)
        return data[left:]

    def feed_within(self, data: Piece) -> None:
        """Pass on bytes; not more than `left`."""
        self.left -= len(data)
        self._body.feed(data, last=not self.left)


class UntilClose:
    """A body that ends with its connection (RFC 9112 §6.3)."""

    __slots__ = ("_body",)

    def __init__(self, body: Body) -> None:
        self._body = body

    def feed(self, data: bytes) -> bytes:
        """Pass everything on."""
        self._body.feed(data, last=False)
        return b""


class Chunked:
    """A chunked body; extensions and trailers are checked and dropped (RFC 9112 §7.1)."""

    __slots__ = ("_after", "_body", "_left", "_line", "_padding", "_trailers")

    def __init__(self, body: Body, *, padding: bytes = b"") -> None:
        """Begin a body. `padding` is what may follow a chunk's size: some old servers send spaces there."""
        self._body = body
        self._padding = padding
        self._left = 0
        """Bytes of the current chunk that have not arrived yet."""
        self._after = False
        """The CR LF behind a chunk comes next."""
        self._line = b""
        """The beginning of an incomplete line."""
        self._trailers = -1
        """Bytes of the trailer section so far; negative before the last chunk."""

    def feed(self, data: bytes) -> bytes:
        """Pass on the body's bytes; return the bytes behind the body. Raises FramingError."""
        small: list[bytes] = []
        try:
            at = self._split(data, small)
        except FramingError:
            self._pass_on(small)
            raise
        if at is None:
            self._pass_on(small)
            return b""
        self._body.feed(b"".join(small), last=True)
        return data[at:]

    def _split(self, data: bytes, small: list[bytes]) -> int | None:
        """Remove the framing of a segment; append small chunks to `small`. Return where the body ends, if it does."""
        at = 0
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self._after = not self._left
                small.append(piece)
                if len(piece) > _SMALL:
                    self._pass_on(small)
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

    def _pass_on(self, pieces: list[bytes]) -> None:
        """Pass on the chunks of a segment, joined, because each call has a fixed cost."""
        if pieces:
            self._body.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces), last=False)
            pieces.clear()

    def _keep(self, line: bytes) -> None:
        if self._after and line != b"\r":
            raise FramingError("a chunk longer than its size")
        limit = _SIZE_LINE_LIMIT if self._trailers < 0 else TRAILER_LIMIT - self._trailers
        if len(line) > limit + 1:  # the CR of its end may be included
            raise FramingError("a framing line that is too long")
        self._line = line

    def _takes_last(self, line: bytes) -> bool:
        """Read a line of the framing; return whether it was the body's last."""
        if self._after:
            if line:
                raise FramingError("a chunk longer than its size")
            self._after = False
        elif self._trailers < 0:
            size = _SIZE_LINE.match(line.rstrip(self._padding) if self._padding else line)
            if size is None or len(line) > _SIZE_LINE_LIMIT:
                raise FramingError("an invalid chunk size")
            self._left = int(size[1] or b"0", 16)
            if not self._left:
                self._trailers = 0
        elif line:
            self._check_trailer(line)
        else:
            return True
        return False

    def _check_trailer(self, line: bytes) -> None:
        self._trailers += len(line) + 2
        trailer = _TRAILER.match(line)
        if trailer is None or trailer[1].lower() in _NO_TRAILERS or self._trailers > TRAILER_LIMIT:
            raise FramingError("an invalid trailer field")
