"""Bytes of an app that wait to be parsed: the beginning of a head, and requests behind the one that is served. Pure."""

from __future__ import annotations

from gateway.errors import HeadersTooLarge
from gateway.proxy.fields import find_end
from gateway.proxy.request import check_beginning


class UnparsedBudget:
    """Counts the unparsed bytes of all connections together."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Unparsed:
    """The unparsed bytes of one connection."""

    __slots__ = ("_at", "_budget", "_part", "_pieces", "begins", "counted", "pending")

    def __init__(self, budget: UnparsedBudget) -> None:
        self._budget = budget
        self.counted = 0
        """Bytes that the budget counts: those that were there at the last `settle`."""
        self._pieces: list[bytes] = []
        self._at = 0
        """Bytes of the first piece that were parsed, so that pipelined requests are not copied for each of them."""
        self._part = bytearray()
        """The beginning of a head that arrives in several segments."""
        self.begins = False
        """Whether `next_head` saw the first bytes of an incomplete head."""
        self.pending = 0
        """Bytes that were not looked at so far."""

    @property
    def partial(self) -> int:
        """Bytes of a head whose end has not arrived."""
        return len(self._part)

    def settle(self) -> None:
        """Have the budget count what is there now.

        Called when bytes have to stay; bytes that are parsed in the round in which they arrived are never counted.
        """
        size = len(self._part) + self.pending
        if size != self.counted:
            self._budget.held += size - self.counted
            self.counted = size

    def add(self, data: bytes) -> int:
        """Add a segment; return the number of pending bytes."""
        self._pieces.append(data)
        self.pending = pending = self.pending + len(data)
        return pending

    def take(self) -> bytes:
        """Remove and return the pending bytes."""
        pieces, at = self._pieces, self._at
        self._pieces, self._at, self.pending = [], 0, 0
        if at:
            pieces[0] = pieces[0][at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def clear(self) -> None:
        """Forget all bytes."""
        self._pieces, self._at, self.pending = [], 0, 0
        self._part.clear()
        self.settle()

    def next_head(self, limit: int) -> bytes | None:
        """Remove and return the next head without its empty line; None if its end has not arrived.

        Raises BadRequest or HeadersTooLarge if what has arrived cannot become a head of at most `limit` bytes.
        """
        data, at = self._pieces[0], self._at
        if not self._part:
            if data[at] in b"\r\n":
                at = _after_empty_lines(data, at)
            end = data.find(b"\r\n\r\n", at)
            if end >= 0:
                self.pending -= end + 4 - self._at
                if end + 4 < len(data):
                    self._at = end + 4
                else:
                    del self._pieces[0]
                    self._at = 0
                return data[at:end]
        return self._join_head(limit)

    def _join_head(self, limit: int) -> bytes | None:
        """As `next_head`, for a head in several segments."""
        part, data = self._part, self.take()
        seen = len(part)
        self.begins = not seen
        if not seen:
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


def _after_empty_lines(data: bytes, at: int) -> int:
    """Return where the request line begins, which empty lines may precede (RFC 9112 §2.2)."""
    size = len(data)
    while at < size and data[at] in b"\r\n":
        at += 1
    return at
