"""Decide who gets the next free connection of a pool: clients take turns, and none exceeds its share.

Pure bookkeeping over futures: opens nothing and waits for nothing. A client that holds its whole share waits until one
of its own requests ends, even while connections are free, so that the other clients never find the pool exhausted.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

SHARE: Final = 3 / 4
"""Fraction of a pool's connections that one client may use where several clients share the pool."""


class Queue:
    """The waiting requests of one pool: a line per client."""

    __slots__ = ("_clients", "_held", "_lines", "_promised", "_share", "_size", "_waiting")

    def __init__(self, size: int) -> None:
        self._size = size
        self._share = size
        self._clients = 1
        self._held: defaultdict[str, int] = defaultdict(int)
        """Connections in use, being opened, or promised, by client."""
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._waiting = 0
        self._promised: set[asyncio.Future[None]] = set()
        """Waiters that were woken for a free place and have not yet taken it."""

    def __len__(self) -> int:
        return self._waiting

    def __repr__(self) -> str:
        return f"{self._waiting}"

    def share_among(self, clients: int) -> None:
        """Set how many clients use the pool; a single client may use all of it."""
        self._clients = max(1, clients)
        self._share = max(1, int(self._size * SHARE)) if clients > 1 else self._size

    def admits(self, owner: str) -> bool:
        """Whether a request that arrives now may take a free place.

        It may if its client holds less than its share, and if nobody who could take the place waits for it.
        """
        if self._held[owner] >= self._share:
            return False
        if not self._waiting:
            return not self._promised
        return not self._promised and all(self._held[other] >= self._share for other in self._lines)

    def full(self, owner: str, places: int) -> bool:
        """Whether a client has filled its part of the `places`, which are divided equally among the clients."""
        return len(self._lines.get(owner, ())) >= -(-places // self._clients)

    def hold(self, owner: str) -> None:
        """Count a connection that a client uses or opens."""
        self._held[owner] += 1

    def release(self, owner: str) -> None:
        """Count one connection less."""
        self._held[owner] -= 1

    def join(self, owner: str, waiter: asyncio.Future[None], *, in_front: bool) -> None:
        """Append a waiter to its client's line; `in_front` puts it before all others, of every client."""
        line = self._lines.setdefault(owner, deque())
        (line.appendleft if in_front else line.append)(waiter)
        if in_front:
            self._lines.move_to_end(owner, last=False)
        self._waiting += 1

    def leave(self, owner: str, waiter: asyncio.Future[None]) -> bool:
        """Remove a waiter; may be called twice. Return whether a place was promised to it, which is now free again."""
        if waiter in self._promised:
            self._promised.discard(waiter)
            self._held[owner] -= 1
            return True
        line = self._lines.get(owner, ())
        if isinstance(line, deque) and waiter in line:
            line.remove(waiter)
            self._waiting -= 1
            if not line:
                del self._lines[owner]
        return False

    def wake(self) -> None:
        """Promise a free place to the next waiter whose client holds less than its share."""
        for owner, line in list(self._lines.items()):
            while line and line[0].done():
                line.popleft()
                self._waiting -= 1
            if not line:
                del self._lines[owner]
            elif self._held[owner] < self._share:
                waiter = line.popleft()
                self._waiting -= 1
                if line:
                    self._lines.move_to_end(owner)
                else:
                    del self._lines[owner]
                self._held[owner] += 1
                self._promised.add(waiter)
                waiter.set_result(None)
                return
