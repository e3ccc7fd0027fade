"""Open connections to one upstream: resolve its name, check the addresses, connect, and negotiate TLS.

Knows nothing of pools or requests. Every failure becomes one of three errors whose `reason` the operator sees in the
log: UpstreamUnreachable, UpstreamTLS, UpstreamTimeout.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

import aiohappyeyeballs

from gateway.addresses import AddressRefused, Networks, permitted
from gateway.errors import UpstreamTimeout, UpstreamTLS, UpstreamUnreachable, os_reason
from gateway.proxy.upstream import UpstreamConnection
from gateway.proxy.wire import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model import Upstream
    from gateway.resolver import Resolver

_HAPPY_EYEBALLS_DELAY: Final = 0.25
"""Seconds until the next address is tried beside one that does not answer (RFC 8305 §5)."""
_NEVER_FIRST: Final = 60.0
"""Seconds by which the event loop's time-out for a TLS handshake is longer than ours."""
_BROKE_OFF: Final = "the connection broke off in the handshake"


class Connector:
    """Opens connections to one upstream.

    Args:
        upstream: where to.
        tls: the context for an https upstream; None for plain http.
        timeout: seconds for name resolution, TCP and TLS together.
        resolver: returns the addresses of the upstream's name.
    """

    def __init__(self, upstream: Upstream, tls: ssl.SSLContext | None, timeout: float, resolver: Resolver) -> None:
        self.allowed = Networks()
        """Networks that the name may lead to although they are loopback, link-local or a metadata service."""
        self._resolver = resolver
        self._upstream = upstream
        self._server_name = upstream.host.removesuffix(".") if tls is not None else None
        """For SNI, in which a trailing dot is not allowed (RFC 6066 §3), and for the certificate, which has none."""
        self._tls = tls
        self._timeout = timeout
        self._outbox: Outbox | None = None

    async def open(self, on_lost: Callable[[UpstreamConnection], None]) -> UpstreamConnection:
        """Return a new connection that calls `on_lost` when it closes.

        Raises UpstreamUnreachable, UpstreamTLS, UpstreamTimeout.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._open(on_lost)
        except ssl.SSLError as error:
            raise _tls_failure(error) from None
        except TimeoutError:
            raise _timed_out() from None
        except OSError as error:
            raise _unreachable(error) from None

    def current(self) -> frozenset[str] | None:
        """Return the addresses that the upstream's name led to at its last successful look-up; None without one."""
        return self._resolver.current(self._upstream.host)

    def permits(self, address: str) -> bool:
        """Whether connections to this address of the upstream are allowed."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            permitted(self._upstream.host, [(family, socket.SOCK_STREAM, 0, "", (address, 0))], self.allowed)
        except AddressRefused:
            return False
        return True

    async def _open(self, on_lost: Callable[[UpstreamConnection], None]) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        return await self._negotiate(loop, await self._open_socket(loop), on_lost)

    async def _negotiate(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, on_lost: Callable[[UpstreamConnection], None]
    ) -> UpstreamConnection:
        """Return a connection over a connected socket, after the TLS handshake where there is one."""
        self._outbox = self._outbox or Outbox(loop)
        connection = UpstreamConnection(loop, self._outbox, on_lost)
        connection.address = str(sock.getpeername()[0])
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

    async def _open_socket(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """Return a socket that is connected to one of the upstream's permitted addresses."""
        host, port = self._upstream.host, self._upstream.port
        infos = permitted(host, await self._resolver.look_up(host, port), self.allowed)
        addresses = [(family, kind, proto, "", address) for family, kind, proto, _, address in infos]
        return await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY, interleave=1, loop=loop
        )


def _timed_out() -> UpstreamTimeout:
    error = UpstreamTimeout("The vendor did not accept a connection in time", reason="connect time-out")
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
    elif isinstance(error, socket.gaierror):
        failure = UpstreamUnreachable(reason="the name does not resolve")
        failure.proxy_error = "dns_error"
    elif isinstance(error, ConnectionRefusedError):
        failure = UpstreamUnreachable(reason="connection refused")
        failure.proxy_error = "connection_refused"
    else:
        failure = UpstreamUnreachable(reason=os_reason(error))
    return failure
