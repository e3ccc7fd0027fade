"""Authenticates clients by JWT (RFC 7519, RFC 8725): signature, audience, times and claims.

PyJWT verifies signatures. The configuration, never the token, decides on keys and algorithms. Times are checked with
the injected clock. A verified token is cached by its SHA-256 until it expires or its issuer's keys change, so that a
repeated token needs no signature check.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
from cachetools import TLRUCache

from gateway.access.refetch import SigningKeysNeeded
from gateway.errors import ClientUnknown, IdentityUnavailable
from gateway.payload import scalar_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.access.keysets import KeySet
    from gateway.model import Client, Clock

CACHE_SIZE = 4096
"""Most verified tokens in the cache; beyond it, the least recently used one is evicted."""
_RETRY_AFTER = 5.0
JWT_ERRORS = (jwt.PyJWTError, ValueError, TypeError, RecursionError)
"""What PyJWT and the JSON parser raise for bytes that are not a JWT."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A verified token."""

    client: str
    routes: frozenset[str] | None
    """The routes in the issuer's `routes_claim`; None if the issuer has no such claim configured."""
    ends: float
    """Wall-clock instant at which it expires, leeway included."""
    keys: KeySet
    generation: int


class JwtVerifier:
    """Verifies JWTs of all issuers of a configuration, and finds their clients."""

    def __init__(self, keysets: Iterable[KeySet], clients: Iterable[Client], *, clock: Clock) -> None:
        self._by_iss = {keys.issuer.issuer: keys for keys in keysets}
        self._wall = clock.wall
        self._wanted: dict[str, list[tuple[str, tuple[tuple[str, str], ...]]]] = {}
        for client in clients:
            for each in client.jwt:
                self._wanted.setdefault(each.issuer, []).append((client.name, each.claims))
        self._verified: TLRUCache[bytes, Verified] = TLRUCache(
            CACHE_SIZE, ttu=lambda _key, value, _now: value.ends, timer=self._wall
        )

    def verify(self, presented: bytes, digest: bytes) -> Verified:
        """Return the verified token.

        Args:
            presented: the token, as it was sent.
            digest: its SHA-256.

        Raises:
            ClientUnknown: it is not valid, or matches no client.
            IdentityUnavailable: the issuer's keys are missing or too old.
            SigningKeysNeeded: it names a key that must be fetched first.
        """
        known = self._verified.get(digest)
        if known is not None and known.generation == known.keys.generation and known.keys.usable:
            return known
        try:
            token = presented.decode("ascii")
            _check_encoding(token)
            header = jwt.get_unverified_header(token)
            said = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except JWT_ERRORS:
            raise ClientUnknown(reason="neither a known key nor a JWT") from None
        keys = self._by_iss.get(said) if isinstance(said, str) else None
        if keys is None:
            raise ClientUnknown(reason="a JWT of an unknown issuer")
        known = self._verify(token, header, keys)
        self._verified[digest] = known
        return known

    def is_for_us(self, presented: bytes) -> bool:
        """Whether this looks like a JWT for the gateway, verified or not; a vendor must not get it."""
        try:
            claims = jwt.decode(presented.decode("ascii"), options={"verify_signature": False})
        except JWT_ERRORS:
            return False
        issuer, audience = claims.get("iss"), claims.get("aud")
        keys = self._by_iss.get(issuer) if isinstance(issuer, str) else None
        named = set(map(str, audience)) if isinstance(audience, list) else {str(audience)}
        return keys is not None and not named.isdisjoint(keys.issuer.audience)

    def _verify(self, token: str, header: Mapping[str, Any], keys: KeySet) -> Verified:
        issuer = keys.issuer
        algorithm = header.get("alg")
        if algorithm not in issuer.algorithms:
            raise ClientUnknown(reason=f"a JWT of {issuer.name} with an algorithm that is not configured")
        candidates = keys.find(header.get("kid"), algorithm)
        if not (candidates and keys.usable):
            if keys.may_refetch:
                raise SigningKeysNeeded(keys)
            if keys.is_crowded:
                raise IdentityUnavailable(reason=f"too many JWTs wait for keys of {issuer.name}", retry_after=1.0)
        if not keys.usable:
            raise IdentityUnavailable(reason=f"no keys of the issuer {issuer.name}", retry_after=_RETRY_AFTER)
        if not candidates:
            raise ClientUnknown(reason=f"a JWT of {issuer.name} with an unknown key")
        claims = self._claims(token, algorithm, candidates, keys)
        ends = self._checked_times(claims, issuer.name, issuer.leeway)
        return Verified(self._client(claims, issuer.name), self._routes(claims, keys), ends, keys, keys.generation)

    @staticmethod
    def _claims(token: str, algorithm: str, candidates: list[jwt.PyJWK], keys: KeySet) -> dict[str, Any]:
        issuer, reason = keys.issuer, ""
        for key in candidates:
            try:
                return jwt.decode(
                    token,
                    key=key,
                    algorithms=[algorithm],
                    audience=issuer.audience,
                    issuer=issuer.issuer,
                    options={
                        "require": ["exp", "iss", "aud"],
                        "verify_exp": False,  # by our own clock, below
                        "verify_nbf": False,
                        "verify_iat": False,
                        "enforce_minimum_key_length": True,
                    },
                )
            except JWT_ERRORS as error:
                reason = type(error).__name__
        raise ClientUnknown(reason=f"a JWT of {issuer.name} that is not valid: {reason}")

    def _checked_times(self, claims: Mapping[str, Any], issuer: str, leeway: float) -> float:
        """Return when the token expires, leeway included (RFC 7519 §4.1.4-6)."""
        now = self._wall()
        exp = _instant(claims["exp"])
        if exp is None:
            raise _no_instant(issuer, "exp")
        if now >= exp + leeway:
            raise ClientUnknown(reason=f"a JWT of {issuer} that has expired")
        for name in ("nbf", "iat"):
            instant = _instant(claims[name]) if name in claims else 0.0
            if instant is None:
                raise _no_instant(issuer, name)
            if instant > now + leeway:
                raise ClientUnknown(reason=f"a JWT of {issuer} whose {name} is in the future")
        return exp + leeway

    def _client(self, claims: Mapping[str, Any], issuer: str) -> str:
        fitting = {
            name
            for name, wanted in self._wanted.get(issuer, ())
            if all(_matches(claims.get(claim), value) for claim, value in wanted)
        }
        if len(fitting) != 1:
            said = f"matches {', '.join(sorted(fitting))}" if fitting else "matches no client"
            raise ClientUnknown(reason=f"a JWT of {issuer} that {said}")
        return fitting.pop()

    @staticmethod
    def _routes(claims: Mapping[str, Any], keys: KeySet) -> frozenset[str] | None:
        if keys.issuer.routes_claim is None:
            return None
        named = claims.get(keys.issuer.routes_claim)
        if isinstance(named, str):
            return frozenset(named.split())
        return frozenset(map(str, named)) if isinstance(named, list) else frozenset()


def _check_encoding(token: str) -> None:
    """Raise ValueError unless each part is in base64url as RFC 7515 §2 has it: no padding, no other characters.

    PyJWT's decoder accepts both, and ignores bits behind the last byte, so one signature would have many spellings.
    """
    for part in token.split("."):
        if (
            base64.urlsafe_b64encode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))).rstrip(b"=")
            != part.encode()
        ):
            raise ValueError


def _matches(claim: object, value: str) -> bool:
    if isinstance(claim, list):
        return any(_matches(each, value) for each in claim if not isinstance(each, list))
    return scalar_text(claim) == value


def _no_instant(issuer: str, claim: str) -> ClientUnknown:
    return ClientUnknown(reason=f"a JWT of {issuer} whose {claim} is not a time in seconds since 1970")


def _instant(value: object) -> float | None:
    """Return a NumericDate (RFC 7519 §2), or None for anything else."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12 and math.isfinite(value)  # noqa: PLR2004 - the year 33658
    return float(value) if good and isinstance(value, int | float) else None
