"""A tunnel after a 101 (RFC 6455, RFC 9110 §7.8): bytes in both directions, with back-pressure and half-close."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.proxy.wire import BACKLOG, TunnelEnd

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.model import Timeouts
    from gateway.proxy.client import ClientConnection
    from gateway.proxy.upstream import UpstreamConnection
    from gateway.proxy.wire import Wire


_CHECK_EVERY: Final = 0.5
"""Seconds between two checks whether the tunnel is still allowed."""


class Direction:
    """One direction of the tunnel."""

    __slots__ = ("_source", "_target", "ended", "size")

    def __init__(self, source: Wire, target: Wire) -> None:
        self._source = source
        self._target = target
        self.ended = False
        self.size = 0
        """Bytes passed on."""
        target.on_writable = self._target_writable

    def _target_writable(self) -> None:
        self._source.resume_reading(BACKLOG)

    def receive(self, data: bytes) -> None:
        """Pass `data` on."""
        self.size += len(data)
        self._target.write(data)
        if self._target.writing_paused:
            self._source.pause_reading(BACKLOG)

    def end(self) -> bool:
        """End this direction; return False if the tunnel cannot go on without it."""
        target = self._target.transport
        if self.ended:  # the source had ended its direction before, and may be closed now
            return self._source.transport is not None
        self.ended = True
        if self._source.transport is None or target is None or not target.can_write_eof():
            return False
        self._target.write_eof()
        return True


class Tunnel(TunnelEnd):
    """Both directions, until both have ended, one side is closed, or a time-out or `must_end` ends them."""

    def __init__(
        self,
        client: ClientConnection,
        upstream: UpstreamConnection,
        timeouts: Timeouts,
        *,
        spent: float,
        must_end: Callable[[], str],
    ) -> None:
        """Build a tunnel.

        Args:
            client: the app's connection.
            upstream: the vendor's.
            timeouts: the route's; `idle` bounds the time in which no byte moves, `total` the tunnel's life.
            spent: seconds of `timeouts.total` that have passed already.
            must_end: returns why the tunnel must end, or nothing; called every `_CHECK_EVERY` seconds.
        """
        self._client = client
        self._upstream = upstream
        self._idle = timeouts.idle
        now = client.loop.time()
        self._ends = math.inf if timeouts.total is None else now + timeouts.total - spent
        self._must_end = must_end
        self._checked = now
        self.reason = ""
        """Why the gateway ended the tunnel; empty if one side did."""
        self._done: asyncio.Future[None] = client.loop.create_future()
        self.up = Direction(client, upstream)
        self.down = Direction(upstream, client)

    def receive(self, data: bytes) -> None:
        """Take bytes of the app; empty data says that the app sends no more."""
        self._pass_on(self.up, data)

    def receive_down(self, data: bytes) -> None:
        """Take bytes of the vendor; empty data says that the vendor sends no more."""
        self._pass_on(self.down, data)

    def _pass_on(self, direction: Direction, data: bytes) -> None:
        if data:
            direction.receive(data)
        elif not direction.end() or (self.up.ended and self.down.ended):
            self._finish()

    def sweep(self, now: float) -> None:
        """End the tunnel if it is idle, too old or no longer allowed, or if one side has reset."""
        client, upstream = self._client, self._upstream
        # Ask both: each call also records the bytes that moved on its side.
        silent = (client.silent_for(now), upstream.silent_for(now))
        if now - self._checked >= _CHECK_EVERY:
            self._checked = now
            self.reason = self._must_end()
        if min(silent) >= self._idle:
            self.reason = "idle time-out"
        elif now >= self._ends:
            self.reason = "total time-out"
        if self.reason or client.peer_reset or upstream.peer_reset:
            self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    async def run(self) -> None:
        """Pass bytes on until the tunnel ends. The caller closes both connections."""
        self._client.tunnel(self)
        if self._upstream.tail:
            self.receive_down(self._upstream.tail)
        self._upstream.tunnel(self.receive_down)
        try:
            await self._done
        finally:
            self._client.on_writable = self._upstream.on_writable = None
