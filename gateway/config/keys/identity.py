"""How clients are authenticated: hashes of keys, their end, JWT claims and algorithms, names in certificates."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from gateway.config.keys.guessable import is_guessable
from gateway.config.keys.section import kind, refuse
from gateway.config.keys.text import STRINGS, list_of, plain_text, scalar, text_like

SHA256 = re.compile(r"[0-9a-fA-F]{64}")
CERTIFICATE_KINDS = ("subject:", "dns:", "uri:", "email:")
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric algorithms only: with a symmetric key, its other holders could sign tokens for us (RFC 8725 §3.1)."""

GUESSABLE = (
    "is the hash of a key that is easy to guess (empty, or a well-known word); `gatepass keys new NAME` makes one"
)
_hash_text = text_like(SHA256, "must be the 64 hex digits of a SHA-256; `gatepass keys new NAME` prints one")


def sha256(value: object) -> str:
    """Return the SHA-256 of a gateway key, in lower-case hex; that of a guessable key is refused."""
    digest = _hash_text(value).lower()
    return refuse(GUESSABLE) if is_guessable(digest) else digest


def instant(value: object) -> float:
    """Return seconds since the epoch, from an ISO 8601 date or time; without an offset it is UTC."""
    try:
        parsed = datetime.fromisoformat(plain_text(value))
    except ValueError:
        return refuse("must be a date or a time, as 2027-01-31 or 2027-01-31T18:00:00Z")
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def claims(value: object) -> tuple[tuple[str, str], ...]:
    """Return claims and the values that they must have."""
    if not isinstance(value, dict) or not value:
        refuse("must be a mapping with at least one claim: {azp: onboarding-web}")
    return tuple((name, scalar(each)) for name, each in value.items())


def certificate_name(value: object) -> str:
    """Return a name in a client certificate, with its kind. Host names become lower case."""
    text = plain_text(value)
    if not text.startswith(CERTIFICATE_KINDS) or text in CERTIFICATE_KINDS:
        refuse("must be `subject:CN=web,O=Acme`, `dns:web.internal`, `uri:spiffe://acme/web` or `email:…`")
    return text.lower() if text.startswith("dns:") else text


def algorithm(value: object) -> str:
    """Return a signature algorithm of JWTs (RFC 7518 §3.1)."""
    text = plain_text(value)
    return text if text in ALGORITHMS else refuse(f"must be one of {', '.join(ALGORITHMS)}")


_HASH: dict[str, object] = {"type": "string", "pattern": f"^{SHA256.pattern}$"}

Sha256 = Annotated[str, *kind("SHA-256", sha256, **_HASH)]
Sha256s = Annotated[tuple[str, ...], *kind("list of SHA-256", list_of(sha256), type="array", items=_HASH)]
Instant = Annotated[float, *kind("date or time", instant, type="string")]
Claims = Annotated[
    tuple[tuple[str, str], ...],
    *kind("claims", claims, type="object", additionalProperties={"type": ["string", "number", "boolean"]}),
]
CertificateNames = Annotated[
    tuple[str, ...], *kind("list of names in certificates", list_of(certificate_name), **STRINGS)
]
Algorithms = Annotated[
    tuple[str, ...],
    *kind("list of algorithms", list_of(algorithm), type="array", items={"enum": list(ALGORITHMS)}),
]
