"""Clients known by JWT (RFC 7519, RFC 8725): who signed it, whether it is for us, whose claims it carries.

Signatures are PyJWT's business; which key and which algorithm is the configuration's, never the token's. Instants are
compared by the injected clock. A verified token is remembered by its SHA-256 until it ends or its issuer's keys
change, so that an app's second request costs no signature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
from cachetools import TLRUCache

from gateway.access.pending import SigningKeysNeeded
from gateway.errors import ClientUnknown, IdentityUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.access.keysets import KeySet
    from gateway.model import Client, Clock

REMEMBERED = 4096
"""Verified tokens kept; beyond it the one that was used longest ago goes."""
_RETRY_AFTER = 5.0
_BROKEN = (jwt.PyJWTError, ValueError, TypeError, RecursionError)
"""What PyJWT and the JSON parser raise for a token that is none."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a token has proved."""

    client: str
    routes: frozenset[str] | None
    """Routes that it is narrowed to; None: it says nothing of routes, and need not."""
    ends: float
    """Wall-clock instant from which it is worth nothing."""
    keys: KeySet
    generation: int


class JwtJudge:
    """All issuers of a configuration, and the claims that their clients are known by."""

    def __init__(self, keysets: Iterable[KeySet], clients: Iterable[Client], *, clock: Clock) -> None:
        self._by_iss = {keys.issuer.issuer: keys for keys in keysets}
        self._wall = clock.wall
        self._wanted: dict[str, list[tuple[str, tuple[tuple[str, str], ...]]]] = {}
        for client in clients:
            for each in client.jwt:
                self._wanted.setdefault(each.issuer, []).append((client.name, each.claims))
        self._verified: TLRUCache[bytes, Verified] = TLRUCache(
            REMEMBERED, ttu=lambda _key, value, _now: value.ends, timer=self._wall
        )

    def judge(self, presented: bytes, digest: bytes) -> Verified:
        """Return what the token proves.

        Args:
            presented: the token, as it was sent.
            digest: its SHA-256.

        Raises:
            ClientUnknown: it proves nothing.
            IdentityUnavailable: the issuer's keys are missing or too old.
            SigningKeysNeeded: it may prove something, under a key that is not here yet.
        """
        known = self._verified.get(digest)
        if known is not None and known.generation == known.keys.generation and known.keys.usable:
            return known
        try:
            token = presented.decode("ascii")
            header = jwt.get_unverified_header(token)
            said = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except _BROKEN:
            raise ClientUnknown(reason="neither a known key nor a JWT") from None
        keys = self._by_iss.get(said) if isinstance(said, str) else None
        if keys is None:
            raise ClientUnknown(reason="a JWT of no known issuer")
        known = self._verify(token, header, keys)
        self._verified[digest] = known
        return known

    def meant_for_us(self, presented: bytes) -> bool:
        """Whether this looks like a JWT for the gateway, verified or not: such a one is nobody else's business."""
        try:
            claims = jwt.decode(presented.decode("ascii"), options={"verify_signature": False})
        except _BROKEN:
            return False
        issuer, audience = claims.get("iss"), claims.get("aud")
        keys = self._by_iss.get(issuer) if isinstance(issuer, str) else None
        named = set(map(str, audience)) if isinstance(audience, list) else {str(audience)}
        return keys is not None and not named.isdisjoint(keys.issuer.audience)

    def _verify(self, token: str, header: Mapping[str, Any], keys: KeySet) -> Verified:
        issuer = keys.issuer
        algorithm = header.get("alg")
        if algorithm not in issuer.algorithms:
            raise ClientUnknown(reason=f"a JWT of {issuer.name} with an algorithm that is not pinned")
        candidates = keys.find(header.get("kid"), algorithm)
        if keys.worth_a_look and not (candidates and keys.usable):
            raise SigningKeysNeeded(keys)
        if not keys.usable:
            raise IdentityUnavailable(reason=f"no keys of the issuer {issuer.name}", retry_after=_RETRY_AFTER)
        if not candidates:
            raise ClientUnknown(reason=f"a JWT of {issuer.name} under an unknown key")
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
            except _BROKEN as error:
                reason = type(error).__name__
        raise ClientUnknown(reason=f"a JWT of {issuer.name} that does not hold: {reason}")

    def _checked_times(self, claims: Mapping[str, Any], issuer: str, leeway: float) -> float:
        """Return the end of the token; RFC 7519 §4.1.4–6 with the issuer's leeway."""
        now = self._wall()
        exp = _instant(claims["exp"])
        if exp is None or now >= exp + leeway:
            raise ClientUnknown(reason=f"a JWT of {issuer} that has expired")
        for name in ("nbf", "iat"):
            instant = _instant(claims[name]) if name in claims else 0.0
            if instant is None or instant > now + leeway:
                raise ClientUnknown(reason=f"a JWT of {issuer} whose {name} is in the future")
        return exp + leeway

    def _client(self, claims: Mapping[str, Any], issuer: str) -> str:
        fitting = {
            name
            for name, wanted in self._wanted.get(issuer, ())
            if all(_holds(claims.get(claim), value) for claim, value in wanted)
        }
        if len(fitting) != 1:
            said = f"fits {', '.join(sorted(fitting))} alike" if fitting else "fits no client"
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


def _holds(claim: object, value: str) -> bool:
    if isinstance(claim, list):
        return any(_holds(each, value) for each in claim if not isinstance(each, list))
    return (isinstance(claim, str) or type(claim) is int) and str(claim) == value


def _instant(value: object) -> float | None:
    """Return a NumericDate (RFC 7519 §2), or None for anything else."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12 and math.isfinite(value)  # noqa: PLR2004 - the year 33658
    return float(value) if good and isinstance(value, int | float) else None
