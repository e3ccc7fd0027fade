"""Connections to one vendor: bounded, most recently used first, with a bounded and timed wait.

An idle connection that the vendor closed, or that says anything while idle, is never handed out. A pool belongs to what
its connections depend on (address, TLS, bounds), so a reload that leaves those alone leaves the pool alone.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING

import aiohappyeyeballs

from gateway.errors import ExchangeError, UpstreamBusy, UpstreamTimeout, UpstreamTLS, UpstreamUnreachable
from gateway.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from gateway.model import Route, Timeouts, Upstream
    from gateway.observe import RouteMetrics

IDLE_KEEP = 30.0
"""Seconds that an idle connection is kept; below the idle time-outs of the load balancers that are in common use."""
_HAPPY_EYEBALLS_DELAY = 0.25
_RETRY_AFTER = 1.0


def tls_context(upstream: Upstream) -> ssl.SSLContext | None:
    """Return the TLS context for an upstream: verification on, TLS ≥ 1.2, HTTP/1.1 only; None for plain http."""
    if upstream.scheme == "http":
        return None
    context = ssl.create_default_context(cafile=upstream.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    certificate = upstream.client_certificate
    if certificate is not None:
        context.load_cert_chain(certificate.certificate, certificate.key)
    return context


class Pool:
    """All connections of one route's upstream."""

    def __init__(self, route: Route, metrics: RouteMetrics) -> None:
        self.key = (route.name, route.upstream, route.pool, route.timeouts.connect)
        self._upstream = route.upstream
        self._limits = route.pool
        self._connect_timeout = route.timeouts.connect
        self._tls = tls_context(route.upstream)
        self._metrics = metrics
        self._idle: deque[UpstreamConnection] = deque()
        self._open: set[UpstreamConnection] = set()
        self._connecting = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._retired = False

    def __repr__(self) -> str:
        return f"<Pool {len(self._open) - len(self._idle)} in use, {len(self._idle)} idle, {len(self._waiters)} wait>"

    @property
    def at_rest(self) -> bool:
        """Whether nobody uses, opens or waits for a connection."""
        return len(self._open) == len(self._idle) and not self._connecting and not self._waiters

    async def acquire(self, *, sure: bool = False, fresh: bool = False) -> UpstreamConnection:
        """Return a connection that is open and quiet.

        `sure` asks the kernel whether the vendor has closed it meanwhile, for a request that may not be sent twice;
        `fresh` takes a new one. Raises UpstreamBusy, UpstreamUnreachable, UpstreamTLS, UpstreamTimeout.
        """
        while True:
            while self._idle and not fresh:
                connection = self._idle.pop()
                if connection.reuse_ok(sure=sure):
                    self._metrics.pool_idle.set(len(self._idle))
                    return connection
                connection.abort()
                self._open.discard(connection)
            if len(self._open) + self._connecting < self._limits.size:
                return await self._connect()
            if self._idle:  # a fresh one is wanted and the pool is full: an idle one makes room
                self._discard(self._idle.popleft())
                continue
            await self._wait()

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        started = waiter.get_loop().time()
        try:
            async with asyncio.timeout(self._limits.wait):
                await waiter
        except TimeoutError:
            raise UpstreamBusy(retry_after=_RETRY_AFTER) from None
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()  # the place that was offered to us goes to the next in line
            raise
        finally:
            if not waiter.done() or waiter.cancelled():
                self._forget(waiter)
            self._metrics.pool_wait(waiter.get_loop().time() - started)

    def _forget(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _connect(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._connecting += 1
        outcome = "cancelled"
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._open_connection(loop)
            outcome = "ok"
        except ssl.SSLError as error:
            outcome = "tls"
            raise UpstreamTLS(reason=_tls_reason(error)) from None
        except TimeoutError:
            outcome = "timeout"
            raise _connect_timeout() from None
        except OSError as error:
            outcome = "unreachable"
            raise _unreachable(error) from None
        finally:
            self._connecting -= 1
            self._metrics.connect(outcome, loop.time() - started)
            if outcome != "ok":
                self._wake()
        self._open.add(connection)
        self._metrics.pool_open.set(len(self._open))
        return connection

    async def _open_connection(self, loop: asyncio.AbstractEventLoop) -> UpstreamConnection:
        upstream = self._upstream
        infos = await loop.getaddrinfo(upstream.host, upstream.port, type=socket.SOCK_STREAM)
        addresses = [(family, kind, proto, "", address) for family, kind, proto, _, address in infos]
        sock = await aiohappyeyeballs.start_connection(
            addresses,
            happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY,
            interleave=1,
            loop=loop,
        )
        try:
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(loop, self._lost),
                sock=sock,
                ssl=self._tls,
                server_hostname=upstream.host if self._tls is not None else None,
            )
        except BaseException:
            sock.close()
            raise
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Take a connection back after its exchange.

        Kept if it may be used again; closed after a whole answer; else aborted in the middle of whatever it does, so
        that the vendor sees that it was cut off.
        """
        if connection.reusable and not self._retired:
            connection.end()
            connection.idle_from = connection.loop.time()
            self._idle.append(connection)
            self._metrics.pool_idle.set(len(self._idle))
        else:
            if not connection.answered:
                connection.abort()
            connection.end()
            self._discard(connection)
        if self._waiters:
            self._wake()

    def _discard(self, connection: UpstreamConnection) -> None:
        connection.close()
        self._open.discard(connection)
        self._metrics.pool_open.set(len(self._open))

    def _lost(self, connection: UpstreamConnection) -> None:
        # Called for every connection that closes, whoever closed it. One in use is released by its exchange.
        if not connection.in_use and connection in self._open:
            self._open.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._metrics.pool_open.set(len(self._open))
            self._metrics.pool_idle.set(len(self._idle))
            self._wake()

    def sweep(self, now: float) -> None:
        """Apply time-outs to connections in use, and close idle ones that are too old."""
        for connection in tuple(self._open):
            if connection.in_use:
                connection.sweep(now)
        while self._idle and now - self._idle[0].idle_from > IDLE_KEEP:
            self._discard(self._idle.popleft())

    def retire(self) -> None:
        """Close what is idle now, and the rest as it comes back: the configuration has moved on."""
        self._retired = True
        while self._idle:
            self._discard(self._idle.popleft())

    def abort(self) -> None:
        """Close everything at once."""
        self.retire()
        for connection in tuple(self._open):
            connection.abort()

    def shortest_timeout(self, timeouts: Timeouts) -> float:
        """Return the shortest time-out that the sweep must notice, seconds."""
        return min(timeouts.first_byte, timeouts.idle, timeouts.total or timeouts.idle)


def _connect_timeout() -> UpstreamTimeout:
    error = UpstreamTimeout("The vendor did not accept a connection in time", reason="connect time-out")
    error.proxy_error = "connection_timeout"
    return error


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    return (error.reason or "handshake failed").lower().replace("_", " ")


def _unreachable(error: OSError) -> ExchangeError:
    if isinstance(error, socket.gaierror):
        failure = UpstreamUnreachable(reason="the name does not resolve")
        failure.proxy_error = "dns_error"
    elif isinstance(error, ConnectionRefusedError):
        failure = UpstreamUnreachable(reason="connection refused")
        failure.proxy_error = "connection_refused"
    else:
        failure = UpstreamUnreachable(reason=type(error).__name__)
    return failure
