"""A token's source: renders one grant, sends it once, parses the answer. Never caches and never retries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from yarl import URL

from gateway.errors import CredentialRefused, TokenError, TokenUnavailable
from gateway.model import Token
from gateway.observe import register
from gateway.tls import client_context, load_pair
from gateway.tokens.assertion import sign
from gateway.tokens.expiry import AnswerTime, http_date
from gateway.tokens.grant import parse, render

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from gateway.model import Clock, Credential, Grant, GrantRequest
    from gateway.tokens.sender import Answer, Sender


class Source(Protocol):
    """Fetches tokens of one grant. A protocol, so that tests of the cache need no endpoint."""

    @property
    def skew(self) -> float | None:
        """Return the vendor's clock minus ours in seconds, as last measured."""

    async def fetch(self, within: float) -> Token:
        """Return a new token, generation 0, or raise a TokenError after at most `within` seconds."""


class Recipe:
    """A credential's settings, with one source and one store key for each of its grants."""

    __slots__ = ("credential", "keys", "sources")

    def __init__(self, credential: Credential, sources: Sequence[Source], keys: Sequence[str]) -> None:
        self.credential = credential
        self.sources = sources
        self.keys = keys


class TokenSource:
    """The source of one grant of one credential, over HTTP."""

    def __init__(self, name: str, grant: Grant, *, sender: Sender, clock: Clock) -> None:
        self.skew: float | None = None
        self._name = name
        self._grant = grant
        self._endpoint = URL(grant.request.url).host_port_subcomponent or ""
        self._sender = sender
        self._clock = clock
        self._vendor_offset: float | None = None
        """Vendor's clock minus our monotonic clock."""

    async def fetch(self, within: float) -> Token:
        """Send one token request; return the token.

        Raises:
            CredentialRefused: the vendor rejects the credential, or it cannot be written into a request.
            TokenUnavailable: no answer, or an error answer.
            TokenMalformed: a success without a usable token.
        """
        try:
            return await self._fetch(within)
        except TokenError as error:
            error.reason = f"{self._endpoint}: {error.reason or error.detail}"
            raise

    async def _fetch(self, within: float) -> Token:
        request = self._grant.request
        assertion = sign(request.assertion, self._vendor_now()) if request.assertion else None
        rendered = render(request, assertion=assertion)
        # A new context each time: fetches are rare, and renewed authorities and certificates take effect.
        answer = await self._sender.send(rendered, tls=await _tls(request), within=within, egress=request.egress)
        self._note_time(answer)
        parsed = parse(
            self._grant.response, answer.status, answer.headers, answer.body,
            wall=answer.wall_sent, round_trip=answer.round_trip,
        )  # fmt: skip
        register(parsed.value)
        return Token(
            value=parsed.value,
            credential=self._name,
            fetched_at=answer.sent_at,
            expires_at=answer.sent_at + parsed.life,
            expiry_source=parsed.expiry_source,
            fingerprint=parsed.value.fingerprint,
        )

    def _note_time(self, answer: Answer) -> None:
        time = AnswerTime(answer.wall_sent, answer.round_trip, http_date(answer.headers.get("Date")))
        if time.skew is not None:
            self.skew = time.skew
            self._vendor_offset = answer.wall_sent + time.skew - answer.sent_at

    def _vendor_now(self) -> float:
        """Return the vendor's clock, as last measured; changes of our wall clock do not change it."""
        if self._vendor_offset is None:
            return self._clock.wall()
        return self._clock.monotonic() + self._vendor_offset


async def call(request: GrantRequest, token: Token, *, sender: Sender, clock: Clock, within: float) -> int:
    """Call a vendor's revoke or identity endpoint with `token`; return the answer's status.

    Raises TokenError if there was no answer.
    """
    assertion = sign(request.assertion, clock.wall()) if request.assertion else None
    rendered = render(request, assertion=assertion, token=token.value)
    answer = await sender.send(rendered, tls=await _tls(request), within=within, egress=request.egress)
    return answer.status


def identity_endpoint(credential: Credential) -> GrantRequest:
    """Return the request for `call`. Raises TokenUnavailable if the credential has no such endpoint."""
    if credential.probe is None:
        raise TokenUnavailable(reason="the credential has no identity endpoint")
    return credential.probe


async def _tls(request: GrantRequest) -> ssl.SSLContext | None:
    """Return the context for a custom authority or a client certificate (RFC 8705); None if neither is set.

    Made in a thread, because loading the system's authorities would block the event loop.
    """
    if request.ca_file is None and request.client_certificate is None:
        return None
    return await asyncio.to_thread(_load, request)


def _load(request: GrantRequest) -> ssl.SSLContext:
    part = "certificate authority"
    try:
        context = client_context(request.ca_file)
        if request.client_certificate:
            part = "client certificate"
            load_pair(context, request.client_certificate.certificate, request.client_certificate.key)
    except (OSError, ValueError) as error:
        raise CredentialRefused(reason=f"the {part} cannot be read ({type(error).__name__})") from None
    return context
