"""Reach servers through an HTTP proxy: which ones, and how CONNECT is spoken (RFC 9110 §9.3.6).

The proxy comes from the configuration alone; environment variables are never read. Names of servers are resolved by
the proxy, so only literal addresses can be checked here (`check_target`). This machine is never reached through it.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
from yarl import URL

from gateway.addresses import AddressRefused, Networks, parse, refused
from gateway.errors import os_reason
from gateway.model.egress import authority
from gateway.tls import ProxiedContext

if TYPE_CHECKING:
    from gateway.model import Egress

PROXY_LOGIN: Final = 407
"""What a proxy answers to a request without a valid login (RFC 9110 §15.5.8)."""
_HEAD_LIMIT: Final = 16 * 1024
"""Bytes of a proxy's answer to CONNECT."""
_NEVER: Final = 86400.0
"""Seconds: the caller's own time-out ends a handshake, not the event loop's."""
_INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}[ \r]")
"""How an answer begins that a final one follows (RFC 9110 §15.2)."""
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?:[ \r]|$)")


class EgressError(OSError):
    """The proxy refused, or could not be reached; the text begins with `egress proxy:`.

    `status` is the status of its answer, if it gave one instead of a tunnel.
    """

    def __init__(self, what: str = "", *, status: int = 0) -> None:
        super().__init__(f"egress proxy: {what or status}")
        self.status = status

    @property
    def login_refused(self) -> bool:
        """Whether the proxy wants a login, or another one; tinyproxy answers a wrong login with 401."""
        return self.status in {401, PROXY_LOGIN}


def proxy_for(egress: Egress | None, host: str) -> Egress | None:
    """Return the proxy through which `host` is reached; None if it is reached directly.

    Loopback and `localhost` are direct: to the proxy they would mean the proxy's own machine.
    """
    if egress is None:
        return None
    name = host.rstrip(".").lower()
    address = parse(host)
    local = address.is_loopback if address is not None else name == "localhost" or name.endswith(".localhost")
    if local or any(_covers(each, name) for each in egress.no_proxy):
        return None
    return egress


def _covers(entry: str, name: str) -> bool:
    """Whether an entry of `no_proxy` means this host."""
    if parse(entry.partition("/")[0]) is not None:
        return name in Networks([entry])
    return name == entry or name.endswith(f".{entry}")


def check_target(host: str, allowed: Networks) -> None:
    """Raise AddressRefused if `host` is a literal address that no connection goes to through a proxy.

    A name's addresses are left to the proxy.
    """
    address = parse(host)
    kind = refused(address) if address is not None else None
    if kind is not None and host not in allowed:
        raise AddressRefused(f"{kind} is not reached through a proxy; see allow_addresses")


def login(egress: Egress) -> str | None:
    """Return the value of `Proxy-Authorization` (RFC 7617); None if the proxy asks for no login."""
    if not egress.username:
        return None
    password = egress.password.reveal() if egress.password is not None else ""
    return "Basic " + base64.b64encode(f"{egress.username}:{password}".encode()).decode("ascii")


# ---------------------------------------------------------------------------------------------------------- CONNECT


def connect_request(egress: Egress, host: str, port: int) -> bytes:
    """Return the request for a tunnel to `host:port`."""
    target = authority(host, port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    credentials = login(egress)
    if credentials is not None:
        lines.append(f"Proxy-Authorization: {credentials}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class _Answer(asyncio.Protocol):
    """Reads a proxy's answer to CONNECT; `done` gets None, or EgressError."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self.done.done():
            return
        while _INTERIM.match(self._head) and (end := self._head.find(b"\r\n\r\n")) >= 0:
            self._head = self._head[end + 4 :]
        end = self._head.find(b"\r\n\r\n")
        if end >= 0:
            self._take(_STATUS_LINE.match(self._head), self._head[end + 4 :])
        elif len(self._head) > _HEAD_LIMIT:
            self._fail("its answer is too long")

    def _take(self, status_line: re.Match[bytes] | None, rest: bytes) -> None:
        status = int(status_line[1]) if status_line is not None else 0
        if not status:
            self._fail("its answer is not HTTP")
        elif not 200 <= status <= 299:  # noqa: PLR2004 - any 2xx opens the tunnel (RFC 9110 §9.3.6)
            self._fail(status=status)
        elif rest:
            self._fail("bytes came before the tunnel was used")  # the server does not speak first, so these are not its
        else:
            if self._transport is not None:
                self._transport.pause_reading()
            self.done.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._fail("it closed the connection")

    def _fail(self, what: str = "", *, status: int = 0) -> None:
        if not self.done.done():
            self.done.set_exception(EgressError(what, status=status))


async def open_tunnel(
    sock: socket.socket, egress: Egress, tls: ssl.SSLContext | None, host: str, port: int
) -> asyncio.Transport:
    """Ask the proxy at the other end of `sock` for a tunnel; return its transport, reading paused.

    `tls` is the context for an https proxy. Raises EgressError, and ssl.SSLError for the proxy's own TLS.
    """
    loop = asyncio.get_running_loop()
    transport: asyncio.Transport | None = None
    try:
        transport, answer = await loop.create_connection(
            lambda: _Answer(loop),
            sock=sock,
            ssl=tls,
            server_hostname=egress.host.removesuffix(".") if tls else None,
            ssl_handshake_timeout=_NEVER if tls else None,
        )
        transport.write(connect_request(egress, host, port))
        await answer.done
    except BaseException:
        (sock.close if transport is None else transport.abort)()
        raise
    return transport


# ---------------------------------------------------------------------------------------------------------- aiohttp


def aiohttp_options(
    egress: Egress | None, url: URL, tls: ssl.SSLContext | None, proxy_tls: ssl.SSLContext | None, allowed: Networks
) -> dict[str, Any]:
    """Return the arguments of `aiohttp.ClientSession.request` that reach `url`, through the proxy if it has one.

    Args:
        egress: the proxy that is configured.
        url: where the request goes.
        tls: the context for the server; None for plain http.
        proxy_tls: the context for an https proxy.
        allowed: networks that literal addresses may be in although they are refused otherwise.

    Raises AddressRefused.
    """
    host = url.raw_host or ""
    proxy = proxy_for(egress, host)
    if proxy is None:
        return {"ssl": tls or True}
    check_target(host, allowed)
    options: dict[str, Any] = {"proxy": URL(proxy.url), "server_hostname": host.removesuffix(".")}
    credentials = login(proxy)
    if credentials is not None:
        # aiohttp renames the field, and sends it with CONNECT, or with a plain http request that the proxy forwards.
        options["proxy_headers"] = {"Authorization": credentials}
    context = tls if proxy_tls is None else ProxiedContext(tls or proxy_tls, proxy_tls, proxy.host.removesuffix("."))
    return {**options, "ssl": context or True}


def proxy_failure(error: Exception, egress: Egress | None) -> EgressError | None:
    """Return the EgressError that an error of aiohttp, or of a request through it, means; None if it means none."""
    if isinstance(error, EgressError):
        return error
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return EgressError(status=error.status)
    if egress is None or not isinstance(error, aiohttp.ClientConnectorError):
        return None
    cause = getattr(error, "certificate_error", None) or error.os_error
    if isinstance(error, aiohttp.ClientConnectorDNSError) and (error.host, error.port) != (egress.host, egress.port):
        return None
    if isinstance(error, aiohttp.ClientProxyConnectionError) or (error.host, error.port) == (egress.host, egress.port):
        return EgressError(reason_of(cause))
    return None


def reason_of(error: Exception) -> str:
    """Return in a few words why a connection to the proxy failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "its TLS failed"
    if isinstance(error, socket.gaierror):
        return "the name does not resolve"
    if isinstance(error, AddressRefused):
        return str(error)
    return os_reason(error)
