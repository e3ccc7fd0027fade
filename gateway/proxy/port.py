"""The data port: listens, accepts within bounds, sweeps, drains.

The listening sockets are kept beside asyncio's servers, which only borrow them: so new TLS files get a new server over
the same queue of connections, a successor process can be given the sockets, and what the kernel had already accepted
when we stop is served instead of reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from typing import TYPE_CHECKING, Final, cast

from gateway.errors import TooManyConnections
from gateway.proxy.client import ClientConnection
from gateway.proxy.wire import Outbox
from gateway.tls import server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from gateway.model import Address, Limits, ServerTLS
    from gateway.proxy.handler import Handler

_BACKLOG: Final = 4096
_REFUSING: Final = 256
"""Connections over the bound that are told so at a time; any more are cut without a word."""
_LAST_CALL: Final = 1.0
"""Seconds for the first request of a connection that was accepted just before the port closed."""
_SETTLE: Final = 0.02
"""Seconds in which the loop reads what apps had already sent when the port closed."""


async def listen(address: Address) -> list[socket.socket]:
    """Return a listening socket for every address that the host means. Raises OSError when one cannot be had."""
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


class DataServer:
    """The data port: accepts, counts, sweeps, drains."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler = handler
        self.outbox = Outbox(asyncio.get_running_loop())
        self.limits = limits
        """May be replaced while connections are open; sizes of heads hold from the next connection on."""
        self.leaving = False
        """The port is closed: a connection ends with the exchange that it is in."""
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._tls: ssl.SSLContext | None = None
        self._connections: set[ClientConnection] = set()
        self._by_address: Counter[str] = Counter()
        self._sweeper: asyncio.TimerHandle | None = None
        self._rest: asyncio.Event = asyncio.Event()

    # ----------------------------------------------------------------------------------------------------- listening

    async def start(
        self, address: Address, *, tls: ServerTLS | None = None, sockets: Sequence[socket.socket] = ()
    ) -> tuple[str, int]:
        """Listen, on `sockets` if any are given; return the first address with the port that was taken."""
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
        """Accept with other certificates (or none) from now on; open connections stay. Raises OSError for bad files."""
        self._tls = server_context(tls) if tls is not None else None
        if self._sockets:
            old, self._servers = self._servers, await self._serve()
            for server in old:
                server.close()

    async def _stop_listening(self, *, handed_over: bool) -> None:
        """Close the port. What the kernel has accepted is taken in, unless a successor does that."""
        for server in self._servers:
            server.close()
        self._servers = []
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            if not handed_over:
                await self._accept_rest(sock)
            sock.close()

    async def _accept_rest(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # nobody waits any more; or the socket has died
            while True:
                accepted, _ = sock.accept()
                accepted.setblocking(False)
                with contextlib.suppress(OSError):  # a TLS handshake that fails, an app that is gone
                    await loop.connect_accepted_socket(self._connection, accepted, ssl=self._tls)

    # --------------------------------------------------------------------------------------------------- connections

    @property
    def connections(self) -> int:
        """Open connections, idle ones included."""
        return len(self._connections)

    def opened(self, connection: ClientConnection) -> None:
        """Count a connection; answer 503 and close it when there are too many, of its address or in all."""
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
            self._rest.set()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self._connections):
            connection.sweep(now)
        self.handler.sweep(now)
        self._sweeper = loop.call_later(self.handler.sweep_interval, self._sweep)

    # ------------------------------------------------------------------------------------------------------ going down

    async def stop_listening(self) -> None:
        """Leave the listening sockets to a successor that has them too; what is open stays open."""
        await self._stop_listening(handed_over=True)

    async def drain(
        self,
        timeout: float,  # noqa: ASYNC109 - a bound on waiting, not a cancellation
        *,
        last_call: float = 0.0,
    ) -> None:
        """Accept nothing new, close what is idle, give the rest up to `timeout` seconds, then abort it.

        For `last_call` seconds before that, kept-alive connections may send one more request: an app that sends while
        we close would get no answer.
        """
        self.handler.draining = True
        await self._stop_listening(handed_over=not timeout)
        await self._rest_within(min(last_call, timeout))
        end = asyncio.get_running_loop().time() + timeout
        self.leaving = True
        if timeout and self._connections:
            await asyncio.sleep(_SETTLE)
            await self._await_rest(min(_LAST_CALL, timeout), fresh_too=False)
        self.handler.closing = True
        await self._await_rest(end - asyncio.get_running_loop().time(), fresh_too=True)
        for connection in tuple(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        # A round of the loop lets aborted connections report back before their pools are closed.
        await asyncio.sleep(0)

    async def _await_rest(self, timeout: float, *, fresh_too: bool) -> None:  # noqa: ASYNC109 - as above
        """Close what is idle and wait for the rest; a connection without a request so far is not idle, but fresh."""
        for connection in tuple(self._connections):
            if fresh_too or not connection.fresh:
                connection.close_if_idle()
        await self._rest_within(timeout)

    async def _rest_within(self, timeout: float) -> None:  # noqa: ASYNC109 - as above
        if self._connections and timeout > 0:
            self._rest.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._rest.wait()
