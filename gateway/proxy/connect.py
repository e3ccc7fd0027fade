"""Open connections to one upstream: resolve its name, check the addresses, connect, and negotiate TLS.

Where an egress proxy is configured, the connection is a tunnel through it. Knows nothing of pools or requests. Every
failure becomes an error whose `reason` the operator sees in the log: UpstreamUnreachable, UpstreamTLS, UpstreamTimeout;
or Overloaded if no file descriptor is left, because then the vendor has not failed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

import aiohappyeyeballs

from gateway.addresses import AddressRefused, Networks, permitted
from gateway.descriptors import NO_DESCRIPTOR, lacks_descriptor
from gateway.egress import EgressError, check_target, open_tunnel, proxy_for, reason_of
from gateway.errors import (
    Overloaded,
    UpstreamTimeout,
    UpstreamTLS,
    UpstreamUnreachable,
    os_reason,
)
from gateway.proxy.upstream import UpstreamConnection
from gateway.proxy.wire import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Egress, Upstream
    from gateway.resolver import Resolver
    from gateway.tls import UpstreamContexts

_HAPPY_EYEBALLS_DELAY: Final = 0.25
"""Seconds until the next address is tried beside one that does not answer (RFC 8305 §5)."""
_NEVER_FIRST: Final = 60.0
"""Seconds by which the event loop's time-out for a TLS handshake is longer than ours."""
_RETRY_AFTER: Final = 1.0
_BROKE_OFF: Final = "the connection broke off in the handshake"


class Connector:
    """Opens connections to one upstream.

    Args:
        upstream: where to.
        timeout: seconds for name resolution, TCP, the proxy and TLS together.
        contexts: TLS contexts of the upstream and of its proxy. Raises OSError for files that cannot be used.
        resolver: returns the addresses of names.
    """

    def __init__(self, upstream: Upstream, timeout: float, contexts: UpstreamContexts, resolver: Resolver) -> None:
        self.allowed = Networks()
        """Networks that the name may lead to although they are loopback, link-local or a metadata service."""
        self._upstream = upstream
        self._proxy: Egress | None = proxy_for(upstream.egress, upstream.host)
        self._host, self._port = upstream.host, upstream.port
        """Where TCP connections go: to the upstream, or to its proxy."""
        if self._proxy is not None:
            self._host, self._port = self._proxy.host, self._proxy.port
        self._tls = contexts.get(upstream)
        self._proxy_tls = contexts.get(self._proxy)
        self._server_name = upstream.host.removesuffix(".") if self._tls is not None else None
        """For SNI, in which a trailing dot is not allowed (RFC 6066 §3), and for the certificate, which has none."""
        self._timeout = timeout
        self._resolver = resolver
        self._outbox: Outbox | None = None

    def current(self) -> frozenset[str] | None:
        """Return the addresses that the name led to at its last successful look-up; None without one."""
        return self._resolver.current(self._host)

    def permits(self, address: str) -> bool:
        """Whether TCP connections to this address are allowed."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            permitted(self._host, [(family, socket.SOCK_STREAM, 0, "", (address, 0))], self.allowed)
        except AddressRefused:
            return False
        return True

    async def open(self, on_lost: Callable[[UpstreamConnection], None]) -> UpstreamConnection:
        """Return a new connection that calls `on_lost` when it closes.

        Raises UpstreamUnreachable, UpstreamTLS, UpstreamTimeout, Overloaded.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        try:
            tunnel = await self._open_tunnel(self._proxy, deadline) if self._proxy is not None else None
            async with asyncio.timeout_at(deadline):
                if tunnel is not None:
                    return await self._use_tunnel(loop, tunnel, on_lost)
                return await self._negotiate(loop, await self._open_socket(loop), on_lost)
        except ssl.SSLError as error:
            raise _tls_failure(error) from None
        except TimeoutError as error:
            raise _timed_out(str(error)) from None
        except OSError as error:
            if lacks_descriptor(error):
                raise Overloaded(reason=NO_DESCRIPTOR, retry_after=_RETRY_AFTER) from None
            raise _unreachable(error) from None

    async def _open_socket(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """Return a socket that is connected to one of the permitted addresses."""
        infos = permitted(self._host, await self._resolver.look_up(self._host, self._port), self.allowed)
        addresses = [(family, kind, proto, "", address) for family, kind, proto, _, address in infos]
        return await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY, interleave=1, loop=loop
        )

    def _connection(
        self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[UpstreamConnection], None], address: str
    ) -> UpstreamConnection:
        self._outbox = self._outbox or Outbox(loop)
        connection = UpstreamConnection(loop, self._outbox, on_lost)
        connection.address = address
        return connection

    async def _negotiate(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, on_lost: Callable[[UpstreamConnection], None]
    ) -> UpstreamConnection:
        """Return a connection over a connected socket, after the TLS handshake if there is one."""
        connection = self._connection(loop, on_lost, str(sock.getpeername()[0]))
        try:
            await loop.create_connection(
                lambda: cast("asyncio.Protocol", connection),
                sock=sock,
                ssl=self._tls,
                server_hostname=self._server_name,
                # The event loop's own time-out of a minute would look like a connection that the vendor broke off.
                ssl_handshake_timeout=self._timeout + _NEVER_FIRST if self._tls is not None else None,
            )
        except BaseException as error:
            sock.close()
            if self._tls is not None and isinstance(error, ConnectionError):
                raise ssl.SSLError(_BROKE_OFF) from None
            raise
        return connection

    # ----------------------------------------------------------------------------------------------- through a proxy

    async def _open_tunnel(self, proxy: Egress, deadline: float) -> asyncio.Transport:
        """Return a tunnel to the upstream. Raises EgressError, AddressRefused, TimeoutError that names the proxy."""
        check_target(self._upstream.host, self.allowed)
        try:
            async with asyncio.timeout_at(deadline):
                sock = await self._open_socket(asyncio.get_running_loop())
                return await open_tunnel(sock, proxy, self._proxy_tls, self._upstream.host, self._upstream.port)
        except TimeoutError:
            raise TimeoutError(str(EgressError("connect time-out"))) from None
        except EgressError:
            raise
        except OSError as error:
            if lacks_descriptor(error):
                raise
            raise EgressError(reason_of(error)) from None

    async def _use_tunnel(
        self,
        loop: asyncio.AbstractEventLoop,
        tunnel: asyncio.Transport,
        on_lost: Callable[[UpstreamConnection], None],
    ) -> UpstreamConnection:
        """Return a connection over a tunnel, after the TLS handshake with the upstream if there is one."""
        connection = self._connection(loop, on_lost, str(tunnel.get_extra_info("peername")[0]))
        try:
            transport = await self._secured(loop, tunnel, connection)
        except BaseException as error:
            tunnel.abort()
            if self._tls is not None and isinstance(error, ConnectionError):
                raise ssl.SSLError(_BROKE_OFF) from None
            raise
        connection.connection_made(transport)
        return connection

    async def _secured(
        self, loop: asyncio.AbstractEventLoop, tunnel: asyncio.Transport, connection: UpstreamConnection
    ) -> asyncio.Transport:
        """Return the transport that feeds the connection: of the tunnel, or of TLS inside it."""
        protocol = cast("asyncio.Protocol", connection)
        transport: asyncio.Transport | None = tunnel
        if self._tls is None:
            tunnel.set_protocol(protocol)
            tunnel.resume_reading()
        else:
            limit = self._timeout + _NEVER_FIRST
            transport = await loop.start_tls(
                tunnel, protocol, self._tls, server_hostname=self._server_name, ssl_handshake_timeout=limit
            )
        if transport is None or connection.dirty:  # it was lost before it had its transport
            raise ConnectionResetError
        return transport


def _timed_out(reason: str) -> UpstreamTimeout:
    error = UpstreamTimeout("The vendor did not accept a connection in time", reason=reason or "connect time-out")
    error.proxy_error = "connection_timeout"
    return error


def _tls_failure(error: ssl.SSLError) -> UpstreamTLS:
    if isinstance(error, ssl.SSLCertVerificationError):
        return UpstreamTLS(reason=f"certificate: {error.verify_message}")
    # OpenSSL's reason. Without one the vendor just closed, as many do that share no version or cipher with us.
    reason = getattr(error, "reason", None)
    failure = UpstreamTLS(reason=reason.lower().replace("_", " ") if reason else _BROKE_OFF)
    failure.proxy_error = "tls_protocol_error"
    return failure


def _unreachable(error: OSError) -> UpstreamUnreachable:
    if isinstance(error, AddressRefused):
        failure = UpstreamUnreachable("The vendor's name leads to an address that is not allowed", reason=str(error))
        failure.proxy_error = "destination_ip_prohibited"
    elif isinstance(error, EgressError):
        failure = UpstreamUnreachable(reason=str(error))
        if error.login_refused:
            failure.proxy_error = "proxy_configuration_error"
    elif isinstance(error, socket.gaierror):
        failure = UpstreamUnreachable(reason="the name does not resolve")
        failure.proxy_error = "dns_error"
    elif isinstance(error, ConnectionRefusedError):
        failure = UpstreamUnreachable(reason="connection refused")
        failure.proxy_error = "connection_refused"
    else:
        failure = UpstreamUnreachable(reason=os_reason(error))
    return failure
