"""Bytes of an app that wait to be parsed: the beginning of a head, and requests behind the one that is served. Pure."""

from __future__ import annotations

from gateway.errors import HeadersTooLarge
from gateway.proxy.fields import find_end
from gateway.proxy.request import check_beginning


class Unparsed:
    """The unparsed bytes of one connection."""

    __slots__ = ("_part", "_pieces", "pending")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._part = bytearray()
        """The beginning of a head that arrives in several segments."""
        self.pending = 0
        """Bytes that nothing has looked at so far."""

    @property
    def partial(self) -> int:
        """Bytes of a head whose end has not arrived."""
        return len(self._part)

    def add(self, data: bytes) -> None:
        """Add a segment."""
        self._pieces.append(data)
        self.pending += len(data)

    def take(self) -> bytes:
        """Remove and return the pending bytes."""
        pieces, self._pieces, self.pending = self._pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def clear(self) -> None:
        """Forget all bytes."""
        self._pieces, self.pending = [], 0
        self._part.clear()

    def next_head(self, limit: int) -> bytes | None:
        """Remove and return the next head without its empty line; None if its end has not arrived.

        Raises BadRequest or HeadersTooLarge if what has arrived cannot become a head of at most `limit` bytes.
        """
        part, data = self._part, self.take()
        seen = len(part)
        if not seen and data[:1] in b"\r\n":
            data = data.lstrip(b"\r\n")  # empty lines before a request line (RFC 9112 §2.2)
        end, data = find_end(part, data)
        if end < 0:
            if len(part) > limit:
                raise HeadersTooLarge(f"The head may hold {limit} bytes")
            if part:
                check_beginning(part, seen)
            return None
        part.clear()
        if len(data) > end + 4:
            self.add(data[end + 4 :])
        return data[:end]
