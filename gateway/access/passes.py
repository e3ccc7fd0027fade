"""Passes: what an app's SDK gets where it asks for the vendor's token (docs/decisions/0013).

A pass is a JWT (RFC 7519, HS256, the claims of RFC 9068) for one client, one route and the key it was given for. It is
signed with a key that is derived (HKDF, RFC 5869) from the vendor credential's own secrets *and* the SHA-256 of the
app's key: the vendor knows only the former, the app only the latter. Nothing is stored, so every instance with the same
configuration knows every pass, also after a restart. `app_token_key` replaces the vendor's secrets; a client that is
known by JWT needs it, because it has no key that only the gateway and the app know.
"""

from __future__ import annotations

import hmac
import math
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import jwt
from cachetools import TLRUCache

from gateway.access.jwt import JWT_ERRORS
from gateway.access.keys import PASS_ISSUER, is_pass
from gateway.access.pass_secrets import LEEWAY, LIFE, issuer_holder, materials
from gateway.errors import AppTokenRefused, ClientUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gateway.access.pass_secrets import Former
    from gateway.model import Client, Config, Route

REMEMBERED: Final = 4096
"""Verified passes kept; beyond it the one that was used longest ago is evicted."""
TYPE: Final = "at+jwt"
"""RFC 9068 §2.1."""
_ALGORITHM: Final = "HS256"
_SALT: Final = b"gatepass app token"


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass has proved."""

    client: str
    ends: float
    """Wall-clock instant from which it is worth nothing."""


class Passes:
    """Issues and verifies the passes of one configuration."""

    def __init__(self, config: Config, *, wall: Callable[[], float], former: Former | None = None) -> None:
        self._wall = wall
        self._materials = materials(config)
        self._former: Former = {} if former is None else former
        self._own_key = config.app_token_key is not None
        self._holders = {(key_id(holder), name): (holder, ends) for name, holder, ends in _holders(config.clients)}
        self._verified: TLRUCache[tuple[str, bytes], Pass] = TLRUCache(
            REMEMBERED, ttu=lambda _key, value, _now: value.ends, timer=wall
        )

    def issue(self, client: str, route: Route, holder: bytes, ends: float = math.inf) -> tuple[str, int]:
        """Return a new pass and its life in whole seconds.

        Args:
            client: the client's name.
            route: the only route that the pass opens.
            holder: the SHA-256 of the app's key, or `issuer_holder(name)` for a client that is known by JWT.
            ends: wall-clock instant at which that key or JWT ends.

        Raises:
            ClientUnknown: less than a second is left of the key or JWT.
            AppTokenRefused: the route has no secret to sign with.
        """
        now = self._wall()
        life = math.floor(min(LIFE, ends - now))
        if life < 1:
            raise ClientUnknown(reason=f"a key or JWT of {client} that is about to end")
        if not self._materials.get(route.name) or (len(holder) != sha256().digest_size and not self._own_key):
            raise AppTokenRefused(
                "The gateway's operator must set app_token_key, or no token can be given here",
                error="unauthorized_client",
                reason=f"no app_token_key for the client {client} on {route.name}",
            )
        key = _signing_key(self._materials[route.name][0], holder, route.name)
        return self._signed(client, route, life, key, key_id(holder)), life

    def issue_unverified(self, client: str, route: Route) -> tuple[str, int]:
        """Return a pass that nobody verifies, for open access, and its life in whole seconds."""
        return self._signed(client, route, LIFE, secrets.token_bytes(32), key_id(b"")), LIFE

    def _signed(self, client: str, route: Route, life: int, key: bytes, kid: str) -> str:
        now = int(self._wall())
        claims = {
            "iss": PASS_ISSUER,
            "sub": client,
            "client_id": client,
            "aud": route.name,
            "iat": now,
            "exp": now + life,
            "jti": secrets.token_urlsafe(12),
        }
        return jwt.encode(claims, key, _ALGORITHM, headers={"typ": TYPE, "kid": kid})

    def verify(self, presented: bytes, digest: bytes, route: Route) -> Pass | None:
        """Return what a pass proves on `route`; None for a token that is no pass of ours.

        Args:
            presented: the token, as it was sent.
            digest: its SHA-256.
            route: where the app wants to go.

        Raises ClientUnknown for a pass that is worth nothing here: expired, for another route, of a key that is gone.
        """
        known = self._verified.get((route.name, digest))
        if known is not None:
            return known
        if not is_pass(presented):
            return None
        try:
            token = presented.decode("ascii")
            name, kid = _unverified(token).get("sub"), jwt.get_unverified_header(token).get("kid")
        except JWT_ERRORS:
            raise ClientUnknown(reason="a pass that is not a JWT") from None
        if not (isinstance(name, str) and isinstance(kid, str)) or (holder := self._holders.get((kid, name))) is None:
            raise ClientUnknown(reason="a pass whose key or client is gone")
        claims = self._verified_claims(token, holder[0], route)
        by_key = len(holder[0]) == sha256().digest_size
        ends = min(float(claims["exp"]) + LEEWAY * by_key, holder[1])
        if self._wall() >= ends:
            raise ClientUnknown(reason=f"an expired pass of {name}")
        known = self._verified[route.name, digest] = Pass(name, ends)
        return known

    def _verified_claims(self, token: str, holder: bytes, route: Route) -> Mapping[str, Any]:
        now = self._wall()
        former = [material for material, ends in self._former.get(route.name, ()) if ends > now]
        own = self._own_key or len(holder) == sha256().digest_size
        for material in (*self._materials.get(route.name, ()), *former) if own else ():
            try:
                return jwt.decode(
                    token,
                    _signing_key(material, holder, route.name),
                    algorithms=[_ALGORITHM],
                    audience=route.name,
                    issuer=PASS_ISSUER,
                    options={
                        "require": ["exp", "iss", "aud", "sub"],
                        "verify_exp": False,  # by our own clock, in `verify`
                        "verify_iat": False,
                    },
                )
            except JWT_ERRORS:
                continue
        raise ClientUnknown(reason=f"a pass that does not hold on {route.name}: of another route or an older secret")


def key_id(holder: bytes) -> str:
    """Return the name of a key in the head of a pass. It says nothing of the key's SHA-256, which signs."""
    return sha256(b"gatepass key id " + holder).hexdigest()[:16]


def _holders(clients: Sequence[Client]) -> Iterator[tuple[str, bytes, float]]:
    for client in clients:
        ends = dict(client.key_ends)
        for text in client.keys_sha256:
            yield client.name, bytes.fromhex(text), ends.get(text, math.inf)
        for each in client.jwt:
            yield client.name, issuer_holder(each.issuer), math.inf


def _signing_key(material: bytes, holder: bytes, route: str) -> bytes:
    """HKDF-SHA256 (RFC 5869 §2) of 32 bytes: extract and one round of expand."""
    extracted = hmac.digest(_SALT, material + holder, "sha256")
    return hmac.digest(extracted, b"pass " + route.encode() + b"\x01", "sha256")


def _unverified(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims
