"""Signed tokens (RFC 7519) and opaque ones, for the vendors that issue them."""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING, Any

import jwt

from gateway.model import Secret
from gateway.sandbox.ledger import Issued

if TYPE_CHECKING:
    from gateway.sandbox.rules import Granted, VendorRules


def signed(vendor: VendorRules, granted: Granted, life: float, claims: dict[str, Any]) -> Issued:
    """Return a JWT (HS256) with the vendor's claims and `iat`, `exp` and `jti`, by the vendor's clock."""
    now = vendor.now()
    whole = int(now) if life == int(life) else now
    payload = {**claims, "iat": whole, "exp": whole + life, "jti": claims.get("jti", str(uuid.uuid4()))}
    return _issued(vendor, granted, life, jwt.encode(payload, vendor.signing_key.reveal(), algorithm="HS256"))


def opaque(vendor: VendorRules, granted: Granted, life: float) -> Issued:
    """Return a random token without any meaning."""
    return _issued(vendor, granted, life, secrets.token_hex(32))


def _issued(vendor: VendorRules, granted: Granted, life: float, value: str) -> Issued:
    now = vendor.clock.monotonic()
    return Issued(Secret(value), now, now + life, granted.scopes, granted.service)
