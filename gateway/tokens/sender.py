"""Sends a token request on a socket and reads a bounded answer.

Each request has a new connection; no retry, no redirect, no cookie, no proxy from the environment. A failure becomes a
`TokenError` with our own text, because an exception's text can contain the URL.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from gateway.addresses import AddressRefused, Networks
from gateway.descriptors import NO_DESCRIPTOR, lacks_descriptor
from gateway.egress import PROXY_LOGIN, EgressError, aiohttp_options, proxy_failure
from gateway.errors import TokenError, TokenMalformed, TokenUnavailable, os_reason
from gateway.model.http import ANSWER_FIELDS, ANSWER_HEAD_BYTES
from gateway.payload import decode
from gateway.resolver import GuardedResolver, Resolver
from gateway.tls import client_context, proxy_context
from gateway.tokens.failures import NoDescriptor, TokenEndpointTimeout
from gateway.tokens.grant import MAX_ANSWER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.model import Clock, Egress
    from gateway.tokens.grant import TokenRequest

_NO_DEFAULTS = ("Accept-Encoding", "Content-Type", "User-Agent")
"""Fields that aiohttp must not add: the recipe decides what is sent."""


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """An answer, read to its end or to `MAX_ANSWER` + 1 bytes. Instants and durations are of the injected clock."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_at: float
    """Monotonic instant just before the request was sent."""
    wall_sent: float
    duration: float
    """Seconds to the end of the answer."""
    round_trip: float
    """Seconds to the answer's head; the vendor wrote its `Date` within this time."""


class Sender:
    """An `aiohttp.ClientSession` for token endpoints, opened at the first request.

    Does not connect to this machine, to a link-local address or to a metadata service by name, unless the networks
    `allowed` contain the address.
    """

    def __init__(self, clock: Clock, allowed: Networks | None = None, resolver: Resolver | None = None) -> None:
        self._clock = clock
        self._resolver = GuardedResolver(allowed or Networks(), resolver or Resolver())
        self._session: aiohttp.ClientSession | None = None
        self._trust: ssl.SSLContext | None = None
        """The system's authorities; None until they are needed."""

    def open(self) -> aiohttp.ClientSession:
        """Return the session, opened if necessary; call it in a running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Token requests are rare, so a kept connection would be stale, and a POST on it would fail. No limit
                # across endpoints, so that an endpoint that hangs does not block the others.
                connector=aiohttp.TCPConnector(limit=0, force_close=True, use_dns_cache=False, resolver=self._resolver),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                trust_env=False,
                auto_decompress=False,
                max_line_size=ANSWER_HEAD_BYTES,
                max_field_size=ANSWER_HEAD_BYTES,
                max_headers=ANSWER_FIELDS,
                raise_for_status=False,
            )
        return self._session

    def allow(self, allowed: Networks) -> None:
        """Use the allowed networks of another configuration."""
        self._resolver.allowed = allowed

    async def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(
        self, request: TokenRequest, *, tls: ssl.SSLContext | None, within: float, egress: Egress | None = None
    ) -> Answer:
        """Send `request` and return its answer, whatever its status.

        Args:
            request: what to send.
            tls: a context with a custom authority or a client certificate; None: the system's authorities.
            within: time-out in seconds of the injected clock.
            egress: the proxy through which the endpoint is reached.

        Raises:
            TokenUnavailable: no complete answer; `TokenEndpointTimeout` when it took too long.
            TokenMalformed: the answer is not HTTP.
        """
        clock = self._clock
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as scope:
                # asyncio's time-out handles the cancellation; only its clock is replaced.
                timer = clock.call_later(within, lambda: scope.reschedule(loop.time()))
                try:
                    return await self._send(request, tls, egress)
                finally:
                    timer.cancel()
        except TimeoutError:
            raise TokenEndpointTimeout(reason=f"no answer within {within:.1f} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if lacks_descriptor(error):
                raise NoDescriptor(reason=NO_DESCRIPTOR) from None
            raise _translated(error, egress) from None

    async def _send(self, request: TokenRequest, tls: ssl.SSLContext | None, egress: Egress | None) -> Answer:
        clock, session = self._clock, self.open()
        url = URL(request.url, encoded=True)
        if tls is None and url.scheme == "https":
            tls = await self._system_trust()
        proxy_tls = await asyncio.to_thread(proxy_context, egress) if egress is not None else None
        way = aiohttp_options(egress, url, tls, proxy_tls, self._resolver.allowed)
        sent_at, wall_sent = clock.monotonic(), clock.wall()
        async with session.request(
            request.method,
            url,
            headers=request.headers,
            data=request.body or None,
            allow_redirects=False,
            skip_auto_headers=_NO_DEFAULTS,
            **way,
        ) as response:
            if response.status == PROXY_LOGIN and "proxy" in way:
                raise EgressError(status=PROXY_LOGIN)
            round_trip = clock.monotonic() - sent_at
            raw = await _read(response.content)
            body = decode(raw, response.headers.get("Content-Encoding", ""), MAX_ANSWER)
            duration = clock.monotonic() - sent_at
            return Answer(
                response.status,
                response.headers,
                raw if body is None else body,
                sent_at,
                wall_sent,
                duration,
                round_trip,
            )

    async def _system_trust(self) -> ssl.SSLContext:
        """Return the context with the system's authorities, read once and in a thread, because it takes some 40 ms.

        aiohttp's own context may be empty: `serve` imports aiohttp without authorities (`commands/serve.py`).
        """
        if self._trust is None:
            self._trust = await asyncio.to_thread(client_context)
        return self._trust


async def _read(stream: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    while len(body) <= MAX_ANSWER:
        chunk = await stream.read(MAX_ANSWER + 1 - len(body))
        if not chunk:
            break
        body += chunk
    return bytes(body)


def _translated(error: Exception, egress: Egress | None) -> TokenError:  # noqa: PLR0911 - one return per kind of failure
    if (at_proxy := proxy_failure(error, egress)) is not None:
        return TokenUnavailable(reason=str(at_proxy))
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorDNSError) else error
    if isinstance(cause, AddressRefused):
        return TokenUnavailable(reason=f"the token endpoint's address is not allowed: {cause}")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return TokenUnavailable(reason=f"TLS: the certificate is not trusted{_verify_message(error)}")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return TokenUnavailable(reason="TLS: the handshake with the token endpoint failed")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return TokenUnavailable(reason="the token endpoint's name cannot be resolved")
    if isinstance(error, aiohttp.ClientResponseError):
        return TokenMalformed(reason="the answer is not valid HTTP")
    if isinstance(error, aiohttp.ClientPayloadError):
        return TokenUnavailable(reason="the answer ended early")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return TokenUnavailable(reason="the connection was closed without an answer")
    if isinstance(error, OSError):
        return TokenUnavailable(reason=f"the token endpoint cannot be reached ({os_reason(error)})")
    return TokenUnavailable(reason=f"the request failed ({type(error).__name__})")


def _verify_message(error: Exception) -> str:
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error
    message = getattr(cause, "verify_message", "")
    return f" ({message})" if message else ""
