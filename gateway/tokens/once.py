"""Fetch one token without cache or retry, for `gatepass check` and `gatepass token`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gateway.addresses import Networks
from gateway.clock import SystemClock
from gateway.errors import CredentialRefused, TokenUnavailable
from gateway.model import CredentialStatus
from gateway.tokens.sender import Sender
from gateway.tokens.source import TokenSource, call, identity_endpoint
from gateway.tokens.static import StaticTokens

if TYPE_CHECKING:
    from gateway.model import Clock, Credential, Token


async def fetch_once(
    credential: Credential, *, clock: Clock, allow_addresses: tuple[str, ...] = ()
) -> tuple[Token, CredentialStatus]:
    """Fetch one token; return it with the state of the credential. A rejected secret is followed by the next one.

    `allow_addresses` are the networks that the configuration allows in addition (`addresses.py`).

    Raises:
        CredentialRefused: the vendor refuses the credential, with each of its secrets.
        TokenUnavailable: the token endpoint is down, slow, or answers with an error.
        TokenMalformed: its answer was unusable.
    """
    if credential.static is not None:
        tokens = StaticTokens(credential.name, credential.static)
        return tokens.current(), tokens.status()
    sender = Sender(clock, Networks(allow_addresses))
    try:
        return await _first_that_works(credential, sender, clock)
    finally:
        await sender.close()


async def _first_that_works(credential: Credential, sender: Sender, clock: Clock) -> tuple[Token, CredentialStatus]:
    refusal: CredentialRefused | None = None
    names: tuple[Literal["current", "next"], ...] = ("current", "next")
    for which, grant in zip(names, credential.grants, strict=False):
        source = TokenSource(credential.name, grant, sender=sender, clock=clock)
        try:
            token = await source.fetch(credential.timeout)
        except CredentialRefused as error:
            refusal = refusal or error
            continue
        if token.expires_at <= clock.monotonic():
            raise TokenUnavailable(reason="the token expired before it arrived")
        return token, CredentialStatus(
            name=credential.name,
            state="valid",
            tried=True,
            fingerprint=token.fingerprint,
            generation=1,
            life=token.life,
            expires_in=token.expires_at - clock.monotonic(),
            expiry_source=token.expiry_source,
            last_success=clock.wall(),
            skew=source.skew,
            secret=which,
        )
    raise refusal or TokenUnavailable(reason="the credential has no grant")


async def probe_once(credential: Credential, token: Token, *, allow_addresses: tuple[str, ...] = ()) -> int:
    """Send `token` to the vendor's identity endpoint; return the answer's status. The body is ignored.

    Raises:
        TokenUnavailable: there was no answer, or the credential has no such endpoint.
    """
    probe, clock = identity_endpoint(credential), SystemClock()
    sender = Sender(clock, Networks(allow_addresses))
    try:
        return await call(probe, token, sender=sender, clock=clock, within=credential.timeout)
    finally:
        await sender.close()
