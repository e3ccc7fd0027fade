"""Who gets the next free connection of a pool: the clients in turn, none of them more than its share.

Pure bookkeeping over futures; opens nothing and waits for nothing. A client that asks for more than its share waits
for its own requests to end, whatever is free: the rest is there for the others at once.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

    from gateway.proxy.upstream import UpstreamConnection

SHARE: Final = 3 / 4
"""Of a pool's connections, what one client may use where several share the pool."""


class Queue:
    """The lines in front of one pool, one per client."""

    __slots__ = ("_clients", "_held", "_lines", "_share", "_size", "_waiting", "_woken")

    def __init__(self, size: int) -> None:
        self._size = size
        self._share = size
        self._clients = 1
        self._held: defaultdict[str, int] = defaultdict(int)
        """Connections in use or promised, by client."""
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._waiting = 0
        self._woken: set[asyncio.Future[None]] = set()
        """Those who were promised a place and have not yet come for it."""

    def __len__(self) -> int:
        return self._waiting

    def __repr__(self) -> str:
        return f"{self._waiting}"

    def divide(self, clients: int) -> None:
        """Say how many clients use the pool."""
        self._clients = max(1, clients)
        self._share = self._size if clients < 2 else max(1, int(self._size * SHARE))  # noqa: PLR2004 - alone, all of it

    def admits(self, owner: str) -> bool:
        """Whether somebody who comes now may take what is free: has not its share, and passes nobody who waits."""
        if self._held[owner] >= self._share:
            return False
        if not self._waiting:
            return not self._woken
        return not self._woken and all(self._held[other] >= self._share for other in self._lines)

    def full(self, owner: str, places: int) -> bool:
        """Whether a client has filled its part of the `places` in line; each has the same, whoever came first."""
        return len(self._lines.get(owner, ())) >= -(-places // self._clients)

    def hold(self, connection: UpstreamConnection, owner: str) -> None:
        """Count a connection that is handed out."""
        connection.owner = owner
        self._held[owner] += 1

    def begin(self, owner: str) -> None:
        """Count a connection that is being opened."""
        self._held[owner] += 1

    def end(self, owner: str) -> None:
        """Count one less."""
        self._held[owner] -= 1

    def join(self, owner: str, waiter: asyncio.Future[None], *, in_front: bool) -> None:
        """Stand in the client's line, at its end or, after a vain wait, in front of everybody."""
        line = self._lines.setdefault(owner, deque())
        (line.appendleft if in_front else line.append)(waiter)
        if in_front:
            self._lines.move_to_end(owner, last=False)
        self._waiting += 1

    def leave(self, owner: str, waiter: asyncio.Future[None]) -> bool:
        """Go, served or not; harmless when repeated. Return whether a place was promised, which is now free again."""
        if waiter in self._woken:
            self._woken.discard(waiter)
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
        """Promise a free place to the next in turn who has not its share."""
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
                self._woken.add(waiter)
                waiter.set_result(None)
                return
