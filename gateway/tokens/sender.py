"""The one place where tokens touch a socket: sends a rendered request and reads a bounded answer.

One request, one fresh connection, no retry, no redirect, no cookie, no proxy from the environment. Knows nothing of
grants or lives. What goes wrong becomes a `TokenError` whose words are ours: an exception's own text can hold the URL.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from gateway.addresses import AddressRefused, Networks
from gateway.errors import TokenError, TokenMalformed, TokenUnavailable
from gateway.resolver import GuardedResolver, Resolver
from gateway.tls import client_context
from gateway.tokens.failures import TokenEndpointTimeout
from gateway.tokens.grant import MAX_ANSWER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.model import Clock
    from gateway.tokens.grant import TokenRequest

_NOT_OURS = ("Accept-Encoding", "Content-Type", "User-Agent")
"""Fields that aiohttp would add by itself: a recipe says what is sent."""


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """An answer, read to its end or to `MAX_ANSWER` + 1 bytes; instants and durations by the injected clock."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_at: float
    """Monotonic, just before the request left."""
    wall_sent: float
    duration: float
    """Seconds to the end of the answer."""
    round_trip: float
    """Seconds to the answer's head: the answer was dated somewhere inside them."""


class Sender:
    """An `aiohttp.ClientSession` for token endpoints, opened at the first request.

    A name that leads to this machine, to a link-local address or to a metadata service is refused, unless `allowed`
    networks hold it.
    """

    def __init__(self, clock: Clock, allowed: Networks | None = None, resolver: Resolver | None = None) -> None:
        self._clock = clock
        self._resolver = GuardedResolver(allowed or Networks(), resolver or Resolver())
        self._session: aiohttp.ClientSession | None = None
        self._trust: ssl.SSLContext | None = None
        """The system's authorities, once they were needed."""

    def open(self) -> aiohttp.ClientSession:
        """Return the session; must be called on the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # A token request is rare: a kept connection would be stale, and a stale one fails a POST. No limit
                # across endpoints, so that one that hangs takes nothing from the others.
                connector=aiohttp.TCPConnector(limit=0, force_close=True, use_dns_cache=False, resolver=self._resolver),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                trust_env=False,
                auto_decompress=True,
                raise_for_status=False,
            )
        return self._session

    def allow(self, allowed: Networks) -> None:
        """Take over the networks of another configuration."""
        self._resolver.allowed = allowed

    async def close(self) -> None:
        """Close what is open."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, request: TokenRequest, *, tls: ssl.SSLContext | None, within: float) -> Answer:
        """Send `request` and return its answer, whatever its status.

        Args:
            request: what to send.
            tls: a context with a custom authority or a client certificate; None: the system's trust.
            within: seconds of the injected clock until it is given up.

        Raises:
            TokenUnavailable: no complete answer; `TokenEndpointTimeout` when it took too long.
            TokenMalformed: what came is not HTTP.
        """
        clock = self._clock
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as scope:
                # asyncio's time-out does the hard part, cancellation; only its clock is replaced.
                timer = clock.call_later(within, lambda: scope.reschedule(loop.time()))
                try:
                    return await self._send(request, tls)
                finally:
                    timer.cancel()
        except TimeoutError:
            raise TokenEndpointTimeout(reason=f"no answer within {within:.1f} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _in_our_words(error) from None

    async def _send(self, request: TokenRequest, tls: ssl.SSLContext | None) -> Answer:
        clock, session = self._clock, self.open()
        url = URL(request.url, encoded=True)
        if tls is None and url.scheme == "https":
            tls = await self._system_trust()
        sent_at, wall_sent = clock.monotonic(), clock.wall()
        async with session.request(
            request.method,
            url,
            headers=request.headers,
            data=request.body or None,
            allow_redirects=False,
            skip_auto_headers=_NOT_OURS,
            ssl=tls or True,
        ) as response:
            round_trip = clock.monotonic() - sent_at
            body = await _read(response.content)
            duration = clock.monotonic() - sent_at
            return Answer(response.status, response.headers, body, sent_at, wall_sent, duration, round_trip)

    async def _system_trust(self) -> ssl.SSLContext:
        """Return the context with the system's authorities, read once and in a thread: it takes some 40 ms.

        aiohttp's own may be empty: `serve` imports it without them (`commands/serve.py`).
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


def _in_our_words(error: Exception) -> TokenError:  # noqa: PLR0911 - one return per kind of failure
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return TokenUnavailable(reason=f"TLS: the certificate is not trusted{_verify_message(error)}")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return TokenUnavailable(reason="TLS: no agreement with the token endpoint")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        if isinstance(error.os_error, AddressRefused):
            return TokenUnavailable(reason=f"the token endpoint is not asked: {error.os_error}")
        return TokenUnavailable(reason="the token endpoint's name cannot be resolved")
    if isinstance(error, aiohttp.ClientResponseError):
        return TokenMalformed(reason="the answer is not valid HTTP")
    if isinstance(error, aiohttp.ClientPayloadError):
        return TokenUnavailable(reason="the answer broke off")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return TokenUnavailable(reason="the connection was closed without an answer")
    if isinstance(error, OSError):
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return TokenUnavailable(reason=f"the token endpoint cannot be reached ({name})")
    return TokenUnavailable(reason=f"the request failed ({type(error).__name__})")


def _verify_message(error: Exception) -> str:
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error
    message = getattr(cause, "verify_message", "")
    return f" ({message})" if message else ""
