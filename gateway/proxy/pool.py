"""Connections to one vendor: at most `pool.size`, the one used last first, with a bounded and timed wait.

An idle connection that the vendor has closed, or on which it has sent anything, is never reused. A pool depends on the
upstream, TLS and limits of its route, so a reload that changes none of them keeps the pool.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from random import uniform
from typing import TYPE_CHECKING, Final

from gateway.errors import Overloaded, UpstreamBusy, UpstreamError, UpstreamTimeout, UpstreamTLS
from gateway.proxy.connect import Connector
from gateway.proxy.queue import Queue
from gateway.proxy.room import Occupant, VendorRoom

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.addresses import Networks
    from gateway.model import Route
    from gateway.observe import RouteMetrics
    from gateway.proxy.upstream import UpstreamConnection
    from gateway.resolver import Resolver
    from gateway.tls import UpstreamContexts

_YOUNGEST: Final = 0.9
"""Part of `pool.max_age` that a connection reaches at least: so that those opened together do not end together."""
_MOVES: Final = 30.0
"""Least seconds between two times at which a changed look-up retires connections.

Some name servers answer with other addresses each time; without this bound no connection would be reused.
"""
_RETRY_AFTER: Final = 1.0
_FLUSH: Final = 10.0
"""Seconds in which a closing connection must hand over what was written to it; then it is aborted."""


_RETURNED: Final = 0.01
"""Seconds in which a connection that was aborted gives its descriptor back."""


class Pool(Occupant):
    """All connections of one route's upstream; `room` bounds those of all pools together."""

    def __init__(
        self,
        route: Route,
        metrics: RouteMetrics,
        contexts: UpstreamContexts,
        resolver: Resolver,
        room: VendorRoom | None = None,
    ) -> None:
        self.key = self.key_of(route)
        self.connector = Connector(route.upstream, route.timeouts.connect, contexts, resolver)
        self._room = room or VendorRoom()
        self._limits = route.pool
        self._metrics = metrics
        self._idle: deque[UpstreamConnection] = deque()
        self._open: set[UpstreamConnection] = set()
        """Every connection that is in use or idle."""
        self._connecting = 0
        self._queue = Queue(route.pool.size)
        self._closing: dict[UpstreamConnection, float] = {}
        """Connections that still flush what was written to them, and the loop time at which they are aborted."""
        self._retired = False
        self._addresses: frozenset[str] | None = None
        """The vendor's addresses when connections were last retired because of them."""
        self._moves_from = 0.0
        """Loop time from which a changed look-up may retire connections again."""

    @staticmethod
    def key_of(route: Route) -> object:
        """Return what a pool's connections depend on: routes with equal keys can share a pool across a reload."""
        return (route.name, route.upstream, route.pool, route.timeouts.connect)

    def __repr__(self) -> str:
        return f"<Pool {len(self._open) - len(self._idle)} in use, {len(self._idle)} idle, {self._queue} wait>"

    @property
    def at_rest(self) -> bool:
        """Whether nobody uses, opens or waits for a connection."""
        return len(self._open) == len(self._idle) and not self._connecting and not self._queue

    @property
    def finished(self) -> bool:
        """Whether the pool is at rest and no connection is still being flushed or closed."""
        return self.at_rest and not self._closing

    @property
    def size(self) -> int:
        """Connections that it may have at most."""
        return self._limits.size

    @property
    def descriptors(self) -> int:
        """Connections that are open, being opened or being closed."""
        return len(self._open) + self._connecting + len(self._closing)

    @property
    def longest_idle(self) -> float:
        """Loop time since when its longest idle connection is idle; infinite if none is idle."""
        return self._idle[0].idle_from if self._idle else math.inf

    def evict(self) -> None:
        """Close its longest idle connection at once."""
        connection = self._idle.popleft()
        self._open.discard(connection)
        connection.abort()

    def configure(self, allowed: Networks, clients: int) -> None:
        """Set which addresses are allowed (see `gateway.addresses`), and how many clients share the pool."""
        if allowed != self.connector.allowed:
            self.connector.allowed = allowed
            self._outdate(lambda connection: not self.connector.permits(connection.address))
        self._queue.share_among(clients)
        self._wake_if_free(0)

    def take(self, owner: str = "", *, fresh: bool = False) -> UpstreamConnection | None:
        """Return an idle connection, the one used last first; None if there is none.

        Also None if `owner`, a client, holds its whole share, or if others wait: a new request queues behind them.
        """
        return self._take(owner, fresh=fresh) if self._queue.admits(owner) else None

    def _take(self, owner: str, *, fresh: bool) -> UpstreamConnection | None:
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.reuse_ok:
                connection.owner = owner
                self._queue.hold(owner)
                return connection
            connection.abort()
            self._open.discard(connection)
        return None

    async def acquire(self, owner: str = "", *, fresh: bool = False) -> UpstreamConnection:
        """Return an idle or a new connection, waiting in turn for a place in the pool.

        `fresh` asks for a new connection, for a request whose kept connection turned out to be closed. Raises
        UpstreamBusy, UpstreamUnreachable, UpstreamTLS, UpstreamTimeout, Overloaded.
        """
        deadline: float | None = None
        while True:
            if deadline is not None or self._queue.admits(owner):
                connection = self._take(owner, fresh=fresh)
                if connection is not None:
                    self._wake_if_free(0)
                    return connection
                if len(self._open) + self._connecting < self._limits.size:
                    self._wake_if_free(1)
                    return await self._connect(owner)
                if self._idle:  # a fresh connection is wanted and the pool is full: close an idle one to make room
                    self._discard(self._idle.popleft())
                    continue
            loop = asyncio.get_running_loop()
            first = deadline is None
            deadline = loop.time() + self._limits.wait if deadline is None else deadline
            await self._wait(owner, loop.create_future(), deadline, first=first)

    async def _wait(self, owner: str, waiter: asyncio.Future[None], deadline: float, *, first: bool) -> None:
        if first and self._queue.full(owner, self._limits.queue):
            raise UpstreamBusy(reason="too many wait for a connection", retry_after=_RETRY_AFTER)
        # A waiter that was woken and found its place taken goes back to the front of the queue.
        self._queue.join(owner, waiter, in_front=not first)
        started = waiter.get_loop().time()
        try:
            async with asyncio.timeout_at(deadline):
                await waiter
        except (TimeoutError, asyncio.CancelledError) as error:
            if self._queue.leave(owner, waiter):
                self._queue.wake()  # give the place that was promised to this waiter to the next one
            if isinstance(error, TimeoutError):
                raise UpstreamBusy(retry_after=_RETRY_AFTER) from None
            raise
        finally:
            self._queue.leave(owner, waiter)
            self._metrics.pool_wait(waiter.get_loop().time() - started)

    def _wake_if_free(self, taking: int) -> None:
        """Wake the next waiter if a place is free besides the `taking` places that the caller takes now."""
        if self._queue and (self._idle or len(self._open) + self._connecting + taking < self._limits.size):
            self._queue.wake()

    async def _connect(self, owner: str) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._connecting += 1
        outcome = "cancelled"
        self._queue.hold(owner)
        try:
            connection = await self._open_one()
            outcome = "ok"
        except UpstreamTLS:
            outcome = "tls"
            raise
        except UpstreamTimeout:
            outcome = "timeout"
            raise
        except UpstreamError:
            outcome = "unreachable"
            raise
        except Overloaded:
            outcome = "no_descriptor"
            raise
        finally:
            self._connecting -= 1
            self._metrics.connect(outcome, loop.time() - started)
            if outcome != "ok":
                self._queue.release(owner)
                self._queue.wake()
        self._open.add(connection)
        connection.owner = owner
        connection.retire_at = loop.time() + self._limits.max_age * uniform(_YOUNGEST, 1.0)  # noqa: S311 - no secret
        return connection

    async def _open_one(self) -> UpstreamConnection:
        """Return a new connection; idle ones of any pool make room for it."""
        self._room.make()
        try:
            return await self.connector.open(self._lost)
        except Overloaded:
            if not self._room.evict():
                raise
        await asyncio.sleep(_RETURNED)
        return await self.connector.open(self._lost)

    def release(self, connection: UpstreamConnection) -> None:
        """Take a connection back after its exchange.

        It is kept if it can be reused, and closed if the answer was complete. Otherwise it is aborted, so that the
        vendor sees that the exchange was cut off.
        """
        self._queue.release(connection.owner)
        if connection.reusable and not self._retired:
            connection.end()
            connection.idle_from = connection.loop.time()
            self._idle.append(connection)
        else:
            if not connection.answered:
                connection.abort()
            connection.end()
            self._discard(connection)
        if self._queue:
            self._queue.wake()

    def _outdate(self, which: Callable[[UpstreamConnection], bool]) -> None:
        """Let some connections serve no further exchange: close idle ones now, others when they are released."""
        for connection in tuple(self._open):
            if which(connection):
                connection.dirty = True
                if connection in self._idle:
                    self._idle.remove(connection)
                    self._discard(connection)

    def _discard(self, connection: UpstreamConnection) -> None:
        connection.close()
        if connection.transport is not None:
            self._closing[connection] = connection.loop.time() + _FLUSH
        self._open.discard(connection)

    def _lost(self, connection: UpstreamConnection) -> None:
        """Forget a connection that has closed; one in use stays until its exchange releases it."""
        self._closing.pop(connection, None)
        if not connection.in_use and connection in self._open:
            self._open.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._queue.wake()

    def sweep(self, now: float) -> None:
        """Apply time-outs to connections in use, close outdated idle ones, abort those that do not close."""
        for connection in tuple(self._open):
            if connection.in_use:
                connection.sweep(now)
        for connection, deadline in tuple(self._closing.items()):
            if now >= deadline:
                connection.abort()
        self._follow_moves(now)
        self._outdate(
            lambda each: now >= each.retire_at or (not each.in_use and now - each.idle_from >= each.idle_keep)
        )

    def _follow_moves(self, now: float) -> None:
        """Retire connections to addresses that the vendor's name does not lead to any more."""
        current = self.connector.current()
        if current is None or current == self._addresses or now < self._moves_from:
            return
        if self._addresses is not None:
            self._moves_from = now + _MOVES
        self._addresses = current
        self._outdate(lambda connection: connection.address not in current)

    def show(self) -> None:
        """Set the route's gauges of open and idle connections."""
        self._metrics.pool_open.set(len(self._open))
        self._metrics.pool_idle.set(len(self._idle))

    def retire(self) -> None:
        """Close idle connections now and the others when they are released: a reload has replaced this pool."""
        self._retired = True
        while self._idle:
            self._discard(self._idle.popleft())

    def abort(self) -> None:
        """Close everything at once."""
        self.retire()
        for connection in (*self._open, *self._closing):
            connection.abort()
