"""Connections to one vendor: bounded, most recently used first, with a bounded and timed wait.

An idle connection that the vendor closed, or that says anything while idle, is never handed out. A pool belongs to what
its connections depend on (address, TLS, bounds), so a reload that leaves those alone leaves the pool alone.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import aiohappyeyeballs

from gateway.addresses import AddressRefused, Networks, look_up, permitted
from gateway.errors import ExchangeError, UpstreamBusy, UpstreamTimeout, UpstreamTLS, UpstreamUnreachable
from gateway.proxy.queue import Queue
from gateway.proxy.upstream import UpstreamConnection
from gateway.proxy.wire import Outbox

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.addresses import LookUp
    from gateway.model import Route, Timeouts, Upstream
    from gateway.observe import RouteMetrics

IDLE_KEEP: Final = 30.0
"""Seconds that an idle connection is kept; below the idle time-outs of the load balancers that are in common use."""
_HAPPY_EYEBALLS_DELAY: Final = 0.25
_RETRY_AFTER: Final = 1.0
_FLUSH: Final = 10.0
"""Seconds that a connection which is closed may take to hand over what was written to it."""


def tls_context(upstream: Upstream) -> ssl.SSLContext:
    """Return the TLS context for an https upstream: verification on, TLS ≥ 1.2, HTTP/1.1 only."""
    context = ssl.create_default_context(cafile=upstream.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    certificate = upstream.client_certificate
    if certificate is not None:
        context.load_cert_chain(certificate.certificate, certificate.key)
    return context


class TlsContexts:
    """TLS contexts by what they are made of: making one reads every authority of the system, 50 ms of CPU."""

    def __init__(self) -> None:
        self._made: dict[object, ssl.SSLContext] = {}

    @staticmethod
    def _key(upstream: Upstream) -> object:
        return (upstream.ca_file, upstream.ca_fingerprint, upstream.client_certificate)

    def of(self, upstream: Upstream) -> ssl.SSLContext | None:
        """Return the context for an upstream; None for plain http. Raises OSError when its files went bad."""
        if upstream.scheme == "http":
            return None
        key = self._key(upstream)
        context = self._made.get(key)
        if context is None:
            context = self._made[key] = tls_context(upstream)
        return context

    def keep(self, upstreams: Iterable[Upstream]) -> None:
        """Forget the contexts of all other upstreams."""
        keys = {self._key(upstream) for upstream in upstreams}
        self._made = {key: context for key, context in self._made.items() if key in keys}


class Pool:
    """All connections of one route's upstream."""

    def __init__(
        self,
        route: Route,
        metrics: RouteMetrics,
        tls: ssl.SSLContext | None = None,
        *,
        look_up: LookUp = look_up,
    ) -> None:
        self._look_up = look_up
        self.key = self.key_of(route)
        self._upstream = route.upstream
        self._limits = route.pool
        self._connect_timeout = route.timeouts.connect
        self._tls = tls
        self._metrics = metrics
        self._idle: deque[UpstreamConnection] = deque()
        self._open: set[UpstreamConnection] = set()
        self._connecting = 0
        self._allowed = Networks()
        self._queue = Queue(route.pool.size)
        self._closing: dict[UpstreamConnection, float] = {}
        """Connections that flush what was written to them, and when that has lasted long enough."""
        self._retired = False
        self._outbox: Outbox | None = None

    @staticmethod
    def key_of(route: Route) -> object:
        """What a pool's connections depend on: a route with an equal key may go on with the pool."""
        return (route.name, route.upstream, route.pool, route.timeouts.connect)

    def __repr__(self) -> str:
        return f"<Pool {len(self._open) - len(self._idle)} in use, {len(self._idle)} idle, {self._queue} wait>"

    @property
    def at_rest(self) -> bool:
        """Whether nobody uses, opens or waits for a connection."""
        return len(self._open) == len(self._idle) and not self._connecting and not self._queue

    @property
    def finished(self) -> bool:
        """Whether, besides, nothing is being flushed or closed any more."""
        return self.at_rest and not self._closing

    def govern(self, allowed: Networks, clients: int) -> None:
        """Take over what a configuration says: addresses that are allowed, and how many clients share the pool."""
        self._allowed = allowed
        self._queue.divide(clients)
        self._pass_on(0)

    def take(self, owner: str = "", *, fresh: bool = False) -> UpstreamConnection | None:
        """Return an idle connection that may be used, the one used last first; None if there is none.

        None as well where `owner`, a client, has its share already, or where others wait: whoever comes now is behind
        them.
        """
        return self._take(owner, fresh=fresh) if self._queue.admits(owner) else None

    def _take(self, owner: str, *, fresh: bool) -> UpstreamConnection | None:
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.reuse_ok:
                self._metrics.pool_idle.value = float(len(self._idle))
                self._queue.hold(connection, owner)
                return connection
            connection.abort()
            self._open.discard(connection)
            self._metrics.pool_open.set(len(self._open))
            self._metrics.pool_idle.set(len(self._idle))
        return None

    async def acquire(self, owner: str = "", *, fresh: bool = False) -> UpstreamConnection:
        """Return a connection that is open and quiet; the clients that wait (`owner`) get theirs in turn.

        `fresh` takes a new one, for a request whose kept connection turned out to be closed. Raises UpstreamBusy,
        UpstreamUnreachable, UpstreamTLS, UpstreamTimeout.
        """
        deadline: float | None = None
        while True:
            if deadline is not None or self._queue.admits(owner):
                connection = self._take(owner, fresh=fresh)
                if connection is not None:
                    self._pass_on(0)
                    return connection
                if len(self._open) + self._connecting < self._limits.size:
                    self._pass_on(1)
                    return await self._connect(owner)
                if self._idle:  # a fresh one is wanted and the pool is full: an idle one makes room
                    self._discard(self._idle.popleft())
                    continue
            loop = asyncio.get_running_loop()
            first = deadline is None
            deadline = loop.time() + self._limits.wait if deadline is None else deadline
            await self._wait(owner, loop.create_future(), deadline, first=first)

    async def _wait(self, owner: str, waiter: asyncio.Future[None], deadline: float, *, first: bool) -> None:
        if first and self._queue.full(owner, self._limits.queue):
            raise UpstreamBusy(reason="too many wait for a connection", retry_after=_RETRY_AFTER)
        # Whoever was woken and found the place taken by a newcomer stands in front again.
        self._queue.join(owner, waiter, in_front=not first)
        started = waiter.get_loop().time()
        try:
            async with asyncio.timeout_at(deadline):
                await waiter
        except (TimeoutError, asyncio.CancelledError) as error:
            if self._queue.leave(owner, waiter):
                self._wake()  # the place that was promised to us goes to the next in line
            if isinstance(error, TimeoutError):
                raise UpstreamBusy(retry_after=_RETRY_AFTER) from None
            raise
        finally:
            self._queue.leave(owner, waiter)
            self._metrics.pool_wait(waiter.get_loop().time() - started)

    def _pass_on(self, taking: int) -> None:
        """Let the next in line come, too, if there is more than the place that is being taken now."""
        if self._queue and (self._idle or len(self._open) + self._connecting + taking < self._limits.size):
            self._queue.wake()

    def _wake(self) -> None:
        self._queue.wake()

    async def _connect(self, owner: str) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._connecting += 1
        outcome = "cancelled"
        self._queue.begin(owner)
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._open_connection(loop)
            outcome = "ok"
        except ssl.SSLError as error:
            outcome = "tls"
            raise _tls_failure(error) from None
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
                self._queue.end(owner)
                self._wake()
        self._open.add(connection)
        connection.owner = owner
        self._metrics.pool_open.set(len(self._open))
        return connection

    async def _open_connection(self, loop: asyncio.AbstractEventLoop) -> UpstreamConnection:
        upstream = self._upstream
        infos = permitted(upstream.host, await self._look_up(upstream.host, upstream.port), self._allowed)
        addresses = [(family, kind, proto, "", address) for family, kind, proto, _, address in infos]
        sock = await aiohappyeyeballs.start_connection(
            addresses,
            happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY,
            interleave=1,
            loop=loop,
        )
        self._outbox = self._outbox or Outbox(loop)
        connection = UpstreamConnection(loop, self._outbox, self._lost)
        try:
            await loop.create_connection(
                lambda: cast("asyncio.Protocol", connection),
                sock=sock,
                ssl=self._tls,
                server_hostname=upstream.host if self._tls is not None else None,
            )
        except BaseException as error:
            sock.close()
            if self._tls is not None and isinstance(error, ConnectionError):
                raise ssl.SSLError("the connection broke off in the handshake") from None
            raise
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Take a connection back after its exchange.

        Kept if it may be used again; closed after a whole answer; else aborted in the middle of whatever it does, so
        that the vendor sees that it was cut off.
        """
        self._queue.end(connection.owner)
        if connection.reusable and not self._retired:
            connection.end()
            connection.idle_from = connection.loop.time()
            self._idle.append(connection)
            self._metrics.pool_idle.value = float(len(self._idle))
        else:
            if not connection.answered:
                connection.abort()
            connection.end()
            self._discard(connection)
        if self._queue:
            self._wake()

    def _discard(self, connection: UpstreamConnection) -> None:
        connection.close()
        if connection.transport is not None:
            self._closing[connection] = connection.loop.time() + _FLUSH
        self._open.discard(connection)
        self._metrics.pool_open.set(len(self._open))

    def _lost(self, connection: UpstreamConnection) -> None:
        # Called for every connection that closes, whoever closed it. One in use is released by its exchange.
        self._closing.pop(connection, None)
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
        for connection, deadline in tuple(self._closing.items()):
            if now >= deadline:
                connection.abort()
        while self._idle and now - self._idle[0].idle_from > IDLE_KEEP:
            self._discard(self._idle.popleft())
        if not self._retired:
            self.show()  # a retired pool of the same route may have spoken last

    def show(self) -> None:
        """Set the gauges."""
        self._metrics.pool_open.set(len(self._open))
        self._metrics.pool_idle.set(len(self._idle))

    def retire(self) -> None:
        """Close what is idle now, and the rest as it comes back: the configuration has moved on."""
        self._retired = True
        while self._idle:
            self._discard(self._idle.popleft())

    def abort(self) -> None:
        """Close everything at once."""
        self.retire()
        for connection in (*self._open, *self._closing):
            connection.abort()

    def shortest_timeout(self, timeouts: Timeouts) -> float:
        """Return the shortest time-out that the sweep must notice, seconds."""
        return min(timeouts.first_byte, timeouts.idle, timeouts.total or timeouts.idle)


def _connect_timeout() -> UpstreamTimeout:
    error = UpstreamTimeout("The vendor did not accept a connection in time", reason="connect time-out")
    error.proxy_error = "connection_timeout"
    return error


def _tls_failure(error: ssl.SSLError) -> UpstreamTLS:
    if isinstance(error, ssl.SSLCertVerificationError):
        return UpstreamTLS(reason=f"certificate: {error.verify_message}")
    # OpenSSL's word for it; without one the vendor just closed, as many do that share no version or cipher with us.
    said = getattr(error, "reason", None)
    failure = UpstreamTLS(
        reason=said.lower().replace("_", " ") if said else "the connection broke off in the handshake"
    )
    failure.proxy_error = "tls_protocol_error"
    return failure


def _unreachable(error: OSError) -> ExchangeError:
    if isinstance(error, AddressRefused):
        failure = UpstreamUnreachable("The vendor's name leads to an address that is not allowed", reason=str(error))
        failure.proxy_error = "destination_ip_prohibited"
    elif isinstance(error, socket.gaierror):
        failure = UpstreamUnreachable(reason="the name does not resolve")
        failure.proxy_error = "dns_error"
    elif isinstance(error, ConnectionRefusedError):
        failure = UpstreamUnreachable(reason="connection refused")
        failure.proxy_error = "connection_refused"
    else:
        failure = UpstreamUnreachable(reason=type(error).__name__)
    return failure
