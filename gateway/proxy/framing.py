"""Where a head and a body end in a stream of bytes (RFC 9112 §2.1, §6.2, §7.1). Pure: no I/O, no `async`, no parser.

The parser decides what a body *is*; this only finds its last byte, so that the parser is never given a byte of the next
request. It would keep that byte where nobody can see it, and it carries the last trailer field of one message over into
the next. The two must agree on the end: whoever feeds the parser compares them, and any difference is an error.
"""

from __future__ import annotations

from typing import Protocol

_SIZE_DIGITS = 32
"""Bytes of a chunk-size line that are looked at; more digits than that are no size that a parser takes."""


def head_end(before: bytes, data: bytes) -> int:
    """Return where in `data` the empty line behind a head ends (RFC 9112 §2.1), 0 if it does not.

    `before` is the edge of the same head's earlier segments: the line may lie across two.
    """
    if before:
        across = (before + data[:3]).find(b"\r\n\r\n")
        if across >= 0:
            return across + 4 - len(before)
    end = data.find(b"\r\n\r\n")
    return end + 4 if end >= 0 else 0


def edge(before: bytes, data: bytes) -> bytes:
    """Return what `head_end` must know of a head whose latest segment is `data`: its last three bytes."""
    return (before + data[-3:])[-3:]


class BodyEnd(Protocol):
    """Finds the end of one body."""

    done: bool
    trailers: bool

    def within(self, data: bytes) -> int:
        """Return how many bytes of `data`, the next ones of the stream, still belong to the body."""


class SizedEnd:
    """A body of `length` bytes."""

    __slots__ = ("_left", "done")
    trailers = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def within(self, data: bytes) -> int:
        """Return how many bytes of `data` still belong to the body."""
        step = min(self._left, len(data))
        self._left -= step
        self.done = self._left == 0
        return step


class ChunkedEnd:
    """A chunked body with its trailer section. Reads sizes leniently: the parser beside it is the strict one."""

    __slots__ = ("_last", "_line", "_skip", "done", "trailers")

    def __init__(self) -> None:
        self._line = b""
        self._skip = 0
        """Bytes of chunk data, and of the CR LF behind it, that are yet to come."""
        self._last = False
        self.done = False
        self.trailers = False
        """Whether there was a trailer field."""

    def within(self, data: bytes) -> int:
        """Return how many bytes of `data` still belong to the body."""
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._line = (self._line + data[at : at + _SIZE_DIGITS])[:_SIZE_DIGITS]
                return size
            self._read(self._line + data[at : min(end, at + _SIZE_DIGITS)])
            self._line = b""
            at = end + 1
        return at

    def _read(self, line: bytes) -> None:
        line = line.partition(b";")[0].strip()
        if self._last:
            self.done = not line
            self.trailers |= bool(line)
            return
        try:
            length = int(line, 16)
        except ValueError:
            length = 0  # the parser refuses the same line
        self._last = length <= 0
        self._skip = length + 2 if length > 0 else 0
