"""A port that is served: accepts (`accept.py`), applies time-outs, drains. `DataServer` is the port for apps.

The listening sockets stay open until the port closes, so that a successor process can get them; connections that the
kernel has already accepted then are served instead of reset.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from gateway.errors import TooManyConnections
from gateway.proxy.accept import Acceptor
from gateway.proxy.client import ClientConnection
from gateway.proxy.server import Server
from gateway.proxy.wire import Outbox
from gateway.tls import server_context

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Sequence

    from gateway.errors import ExchangeError
    from gateway.model import Limits, ServerTLS
    from gateway.proxy.handler import Handler
    from gateway.proxy.request import RequestHead

_LAST_CALL: Final = 1.0
"""Seconds to wait for the first request of a connection that was accepted just before the port closed."""
_SETTLE: Final = 0.02
"""Seconds for reading what apps had already sent when the port closed."""


class Port(Server[ClientConnection]):
    """Accepts, counts, sweeps, drains. A subclass serves what arrives."""

    def __init__(self, limits: Limits, room: int | None = None) -> None:
        """Build a port; `room` is the number of connections for which there are descriptors, None for any number."""
        super().__init__(limits, Outbox(asyncio.get_running_loop()))
        self._acceptor = Acceptor(self, room)
        self._connections: set[ClientConnection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._all_closed: asyncio.Event = asyncio.Event()

    # ----------------------------------------------------------------------------------------------------- listening

    def serve(self, sockets: Sequence[socket.socket], *, tls: ServerTLS | None = None) -> None:
        """Accept on these listening sockets. Raises OSError for bad files."""
        self.use_tls(tls)
        self._acceptor.start(sockets)
        self._sweep()

    def replace(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on these listening sockets instead, after what is queued on the old ones; open connections stay."""
        self._acceptor.stop(take_queued=True)
        self._acceptor.start(sockets)

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The listening sockets, for a successor."""
        return tuple(self._acceptor.sockets)

    def use_tls(self, tls: ServerTLS | None) -> None:
        """Use other certificates (or none) for new connections. Raises OSError for bad files."""
        self._acceptor.tls = server_context(tls) if tls is not None else None

    def use_limits(self, limits: Limits, room: int | None) -> None:
        """Use other limits; `room` as in `__init__`."""
        self.limits = limits
        self._acceptor.room = room

    # --------------------------------------------------------------------------------------------------- connections

    @property
    def connections(self) -> int:
        """Accepted connections that are not closed, idle ones and TLS handshakes included."""
        return self._acceptor.count

    def opened(self, connection: ClientConnection) -> None:
        """Take note of an open connection; answer 503 and close it if there were too many."""
        if not self._acceptor.opened(connection):
            connection.abort()
            return
        self._connections.add(connection)
        if connection.surplus:
            connection.refuse(TooManyConnections(retry_after=1.0))

    def closed(self, connection: ClientConnection) -> None:
        """Forget a connection."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._acceptor.closed(connection)

    def counted(self) -> None:
        """Take note that the number of accepted connections has changed."""
        if not self._acceptor.count:
            self._all_closed.set()

    def not_accepted(self) -> None:
        """Take note that a connection could not be accepted, because no file descriptor was left."""

    def relieve(self) -> None:
        """Make the connections that hold most unparsed bytes give them up, until an eighth of the budget is free."""
        enough = self.limits.unparsed_bytes * 7 // 8
        for connection in sorted(self._connections, key=lambda each: each.unparsed.counted, reverse=True):
            if self.unparsed.held <= enough or not connection.unparsed.counted:
                return
            connection.shed()

    def sweep(self, now: float) -> float:
        """Apply the time-outs of what is behind the connections; return the seconds to the next sweep."""
        raise NotImplementedError

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._acceptor.sweep(now)
        for connection in tuple(self._connections):
            connection.sweep(now)
        self._sweeper = loop.call_later(self.sweep(now), self._sweep)

    # ------------------------------------------------------------------------------------------------------ going down

    def stop_listening(self) -> None:
        """Stop accepting, because a successor has the same sockets; open connections stay open."""
        self._acceptor.stop(take_queued=False)

    def begin_drain(self) -> None:
        """Let each answer close its connection from now on."""
        raise NotImplementedError

    def refuse_new(self) -> None:
        """Reject requests that begin from now on."""
        raise NotImplementedError

    async def drain(
        self,
        timeout: float,  # noqa: ASYNC109 - a bound on waiting, not a cancellation
        *,
        last_call: float = 0.0,
    ) -> None:
        """Stop accepting, close idle connections, wait `timeout` seconds for the others, then abort them.

        For `last_call` seconds before that, kept-alive connections may send one more request, because a request that
        is sent while its connection closes gets no answer.
        """
        self.begin_drain()
        self._acceptor.stop(take_queued=timeout > 0)
        await self._wait_closed(min(last_call, timeout))
        end = asyncio.get_running_loop().time() + timeout
        self.leaving = True
        if timeout and self._acceptor.count:
            await asyncio.sleep(_SETTLE)
            await self._close_idle(min(_LAST_CALL, timeout), fresh_too=False)
        self.refuse_new()
        await self._close_idle(end - asyncio.get_running_loop().time(), fresh_too=True)
        self._acceptor.abort()
        for connection in tuple(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        # Aborted connections report back in the next round of the loop, before their pools are closed.
        await asyncio.sleep(0)

    async def _close_idle(self, timeout: float, *, fresh_too: bool) -> None:  # noqa: ASYNC109 - as above
        """Close idle connections and wait for the others; `fresh_too` includes those that have sent nothing so far."""
        for connection in tuple(self._connections):
            if fresh_too or not connection.fresh:
                connection.close_if_idle()
        await self._wait_closed(timeout)

    async def _wait_closed(self, timeout: float) -> None:  # noqa: ASYNC109 - as above
        if self._acceptor.count and timeout > 0:
            self._all_closed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._all_closed.wait()


class DataServer(Port):
    """The data port."""

    def __init__(self, handler: Handler, limits: Limits, room: int | None = None) -> None:
        """Build the port; `room` as of `Port`."""
        super().__init__(limits, room)
        self.handler = handler

    def start(self, sockets: Sequence[socket.socket], *, tls: ServerTLS | None = None) -> tuple[str, int]:
        """Accept on these listening sockets; return the first one's address and port. Raises OSError for bad files."""
        self.serve(sockets, tls=tls)
        host, port = sockets[0].getsockname()[:2]
        return host, port

    def not_accepted(self) -> None:
        """Count a connection that could not be accepted, because no file descriptor was left."""
        self.handler.metrics.no_descriptor("app")

    def counted(self) -> None:
        """Show the number of accepted connections."""
        self.handler.metrics.connections.set(self._acceptor.count)
        super().counted()

    def exchange(self, connection: ClientConnection, request: RequestHead) -> Awaitable[bool]:
        """Serve one request; the result says whether the connection may serve another."""
        return self.handler.exchange(connection, request)

    def refuse(self, connection: ClientConnection, error: ExchangeError) -> None:
        """Write the answer to bytes that are not a request."""
        self.handler.refuse(connection, error)

    def sweep(self, now: float) -> float:
        """Apply the time-outs of the pools; return the seconds to the next sweep."""
        self.handler.sweep(now)
        return self.handler.sweep_interval

    def begin_drain(self) -> None:
        """Let each answer close its connection from now on."""
        self.handler.draining = True

    def refuse_new(self) -> None:
        """Answer requests that begin from now on with 503."""
        self.handler.closing = True
