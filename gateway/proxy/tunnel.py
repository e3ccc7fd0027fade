"""A tunnel after a 101 (RFC 6455, RFC 9110 §7.8): bytes in both directions, with back-pressure and half-close."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.proxy.wire import BACKLOG

if TYPE_CHECKING:
    import asyncio

    from gateway.proxy.client import ClientConnection
    from gateway.proxy.upstream import UpstreamConnection
    from gateway.proxy.wire import Wire


class Direction:
    """One direction of the tunnel."""

    __slots__ = ("_done", "_source", "_target", "ended", "size")

    def __init__(self, source: Wire, target: Wire, done: asyncio.Future[None]) -> None:
        self._source = source
        self._target = target
        self._done = done
        self.ended = False
        self.size = 0
        target.on_writable = self._target_writable

    def _target_writable(self) -> None:
        self._source.resume_reading(BACKLOG)

    def receive(self, data: bytes) -> None:
        """Pass `data` on; empty data ends this direction."""
        if data:
            self.size += len(data)
            self._target.write(data)
            if self._target.writing_paused:
                self._source.pause_reading(BACKLOG)
        elif not self.ended:
            self.ended = True
            self._end()
        elif self._source.transport is None:  # it had ended its direction before, and is closed now
            self.finish()

    def _end(self) -> None:
        target = self._target.transport
        gone = self._source.transport is None or target is None
        if not gone and target is not None and target.can_write_eof():
            self._target.write_eof()
        else:
            self.finish()

    def finish(self) -> None:
        """Let `relay_tunnel` return."""
        if not self._done.done():
            self._done.set_result(None)


async def relay_tunnel(client: ClientConnection, upstream: UpstreamConnection, idle: float) -> tuple[int, int]:
    """Pass bytes on until both sides have ended, one is closed, or no byte moved for `idle` seconds.

    Returns the bytes sent to the vendor and to the app. The caller closes both connections.
    """
    done = client.loop.create_future()
    up, down = Direction(client, upstream, done), Direction(upstream, client, done)

    def receive_up(data: bytes) -> None:
        up.receive(data)
        if up.ended and down.ended:
            up.finish()

    def receive_down(data: bytes) -> None:
        down.receive(data)
        if up.ended and down.ended:
            down.finish()

    for receive, early in ((receive_up, client.early_bytes()), (receive_down, upstream.tail)):
        if early:
            receive(early)
    client.tunnel(receive_up, lambda now: _sweep(client, upstream, now, idle, up))
    upstream.tunnel(receive_down)
    try:
        await done
    finally:
        client.on_writable = upstream.on_writable = None
    return up.size, down.size


def _sweep(client: Wire, upstream: Wire, now: float, idle: float, direction: Direction) -> None:
    # Ask both: each call also records the bytes that moved on its side.
    silent = (client.silent_for(now), upstream.silent_for(now))
    if min(silent) >= idle or client.peer_reset or upstream.peer_reset:
        direction.finish()
