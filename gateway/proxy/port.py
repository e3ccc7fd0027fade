"""The data port: listens, accepts within bounds, applies time-outs, drains.

The listening sockets belong to this module; asyncio's servers use duplicates. So new TLS files get a new server on the
same queue of connections, a successor process can get the sockets, and connections that the kernel has already
accepted when the port closes are served instead of reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from typing import TYPE_CHECKING, Final, cast

from gateway.errors import TooManyConnections
from gateway.proxy.client import ClientConnection, Server
from gateway.proxy.wire import Outbox
from gateway.tls import server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Sequence

    from gateway.errors import ExchangeError
    from gateway.model import Address, Limits, ServerTLS
    from gateway.proxy.handler import Handler
    from gateway.proxy.request import RequestHead

_BACKLOG: Final = 4096
_REFUSING: Final = 256
"""Connections above the limit that get a 503 at the same time; any more are reset."""
_LAST_CALL: Final = 1.0
"""Seconds to wait for the first request of a connection that was accepted just before the port closed."""
_SETTLE: Final = 0.02
"""Seconds for reading what apps had already sent when the port closed."""


async def listen(address: Address) -> list[socket.socket]:
    """Return a listening socket for every address of the host. Raises OSError."""
    loop = asyncio.get_running_loop()
    flags = socket.AI_PASSIVE
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    sockets: list[socket.socket] = []
    port = address.port
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((where[0], port, *where[2:]))
            sock.listen(_BACKLOG)
            port = sock.getsockname()[1]
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


class DataServer(Server):
    """The data port: accepts, counts, sweeps, drains."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        super().__init__(limits, Outbox(asyncio.get_running_loop()))
        self.handler = handler
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._tls: ssl.SSLContext | None = None
        self._connections: set[ClientConnection] = set()
        self._by_address: Counter[str] = Counter()
        self._sweeper: asyncio.TimerHandle | None = None
        self._all_closed: asyncio.Event = asyncio.Event()

    # ----------------------------------------------------------------------------------------------------- listening

    async def start(
        self, address: Address, *, tls: ServerTLS | None = None, sockets: Sequence[socket.socket] = ()
    ) -> tuple[str, int]:
        """Listen, on `sockets` if any are given; return the first address and port."""
        self._tls = server_context(tls) if tls is not None else None
        self._sockets = list(sockets) or await listen(address)
        self._servers = await self._serve()
        self._sweep()
        host, port = self._sockets[0].getsockname()[:2]
        return host, port

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The listening sockets, for a successor."""
        return tuple(self._sockets)

    def _connection(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", ClientConnection(asyncio.get_running_loop(), self))

    async def _serve(self) -> list[asyncio.Server]:
        loop = asyncio.get_running_loop()
        timeout = self.limits.header_timeout if self._tls is not None else None
        return [
            await loop.create_server(
                self._connection, sock=sock.dup(), ssl=self._tls, ssl_handshake_timeout=timeout, backlog=_BACKLOG
            )
            for sock in self._sockets
        ]

    async def use_tls(self, tls: ServerTLS | None) -> None:
        """Use other certificates (or none) for new connections. Raises OSError for bad files."""
        self._tls = server_context(tls) if tls is not None else None
        if self._sockets:
            old, self._servers = self._servers, await self._serve()
            for server in old:
                server.close()

    async def _stop_listening(self, *, handed_over: bool) -> None:
        """Close the port; serve what the kernel has already accepted, unless a successor does."""
        for server in self._servers:
            server.close()
        self._servers = []
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            if not handed_over:
                await self._accept_queued(sock)
            sock.close()

    async def _accept_queued(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # the queue is empty, or the socket failed
            while True:
                accepted, _ = sock.accept()
                accepted.setblocking(False)
                with contextlib.suppress(OSError):  # the TLS handshake failed, or the app is gone
                    await loop.connect_accepted_socket(self._connection, accepted, ssl=self._tls)

    # --------------------------------------------------------------------------------------------------- connections

    @property
    def connections(self) -> int:
        """Open connections, idle ones included."""
        return len(self._connections)

    def opened(self, connection: ClientConnection) -> None:
        """Count a connection; refuse it if there are too many, in total or from its address."""
        self._connections.add(connection)
        self._by_address[connection.remote] += 1
        self.handler.metrics.connections.set(len(self._connections))
        over = max(
            len(self._connections) - self.limits.connections,
            self._by_address[connection.remote] - self.limits.connections_per_address,
        )
        if over > 0:
            if over > _REFUSING:
                connection.abort()
            else:
                connection.refuse(TooManyConnections(retry_after=1.0))

    def closed(self, connection: ClientConnection) -> None:
        """Forget a connection."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._by_address[connection.remote] -= 1
            if not self._by_address[connection.remote]:
                del self._by_address[connection.remote]
        self.handler.metrics.connections.set(len(self._connections))
        if not self._connections:
            self._all_closed.set()

    def exchange(self, connection: ClientConnection, request: RequestHead) -> Awaitable[bool]:
        """Serve one request; the result says whether the connection may serve another."""
        return self.handler.exchange(connection, request)

    def refuse(self, connection: ClientConnection, error: ExchangeError) -> None:
        """Write the answer to bytes that are not a request."""
        self.handler.refuse(connection, error)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self._connections):
            connection.sweep(now)
        self.handler.sweep(now)
        self._sweeper = loop.call_later(self.handler.sweep_interval, self._sweep)

    # ------------------------------------------------------------------------------------------------------ going down

    async def stop_listening(self) -> None:
        """Stop accepting, because a successor has the same sockets; open connections stay open."""
        await self._stop_listening(handed_over=True)

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
        self.handler.draining = True
        await self._stop_listening(handed_over=not timeout)
        await self._wait_closed(min(last_call, timeout))
        end = asyncio.get_running_loop().time() + timeout
        self.leaving = True
        if timeout and self._connections:
            await asyncio.sleep(_SETTLE)
            await self._close_idle(min(_LAST_CALL, timeout), fresh_too=False)
        self.handler.closing = True
        await self._close_idle(end - asyncio.get_running_loop().time(), fresh_too=True)
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
        if self._connections and timeout > 0:
            self._all_closed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._all_closed.wait()
